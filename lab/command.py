"""An option of the command line for every field of a settings class."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Annotated, Any

import typer

from lab.settings import BaseSettings, described


def with_settings(
    kind: type[BaseSettings],
    hidden: Collection[str] = (),
    defaults: Mapping[str, Any] = MappingProxyType({}),
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add an option for every setting; the command gets those that were given, as ``given``.

    Help leaves out ``hidden`` ones, which the command refuses, and says the command's own
    ``defaults`` of some.
    """
    fields = {f.name: f for f in dataclasses.fields(kind)}

    def add(command: Callable[..., None]) -> Callable[..., None]:
        def call(**arguments: Any) -> None:
            given = {n: v for n, v in arguments.items() if n in fields and v is not None}
            command(given=given, **{n: v for n, v in arguments.items() if n not in fields})

        own = inspect.signature(command, eval_str=True).parameters.values()
        parameters = [p for p in own if p.name != "given"]
        for name, field in fields.items():
            shown = described(field, defaults.get(name, field.default))
            parameters.append(_parameter(field, shown, name in hidden))
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
        call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        call.__name__, call.__doc__ = command.__name__, command.__doc__
        return call

    return add


def _parameter(field: dataclasses.Field[Any], text: str, hidden: bool) -> inspect.Parameter:
    flag = f"--{field.name.replace('_', '-')}"
    if isinstance(field.default, bool):
        flag = f"{flag}/--no{flag[1:]}"
    kind: Any = type(field.default) | None
    kind = Annotated[kind, typer.Option(flag, help=text, hidden=hidden)]
    keyword = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(field.name, keyword, default=None, annotation=kind)
