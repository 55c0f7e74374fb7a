"""Settings that are checked when they are made, and objectives written as text.

Shared by the experiments and the trainer: a frozen dataclass whose fields are
``name: type = option(default, "what it does, with its unit")``.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lab.files import write_whole  # noqa: F401 - until all callers take it from there
from lab.specs import objective_of, objective_problems  # noqa: F401 - as write_whole
from theory.errors import InvalidInput, refuse


def option(default: Any, text: str) -> Any:
    """A field of ``Settings``: its default, and what it does with its unit."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    """Checked on construction: `problems` of a derived class are raised together."""

    def __post_init__(self) -> None:
        wrong = [p for f in dataclasses.fields(self) for p in _kind_problem(self, f)]
        refuse(wrong or [*_repeated(self), *self.problems()])

    def problems(self) -> list[str]:
        """What is wrong with values of the right kind."""
        return []


def _kind_problem(settings: BaseSettings, field: dataclasses.Field[Any]) -> list[str]:
    """Values have the kind of the default; a tuple's members that of its first."""
    value, default = getattr(settings, field.name), field.default
    if isinstance(default, tuple):
        good = isinstance(value, tuple) and value and all(_same(v, default[0]) for v in value)
        needed = f"a list of {_kind(default[0])}s"
    else:
        good, needed = _same(value, default), f"a {_kind(default)}"
    return [] if good else [f"{field.name}={value!r}; needed is {needed}"]


def _repeated(settings: BaseSettings) -> list[str]:
    """Lists that name a value twice: its runs would count twice, as if they were independent."""
    lists = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return [
        f"{name}={value!r}; each value may be named once"
        for name, value in lists.items()
        if isinstance(value, tuple) and len(set(value)) < len(value)
    ]


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _kind(value: Any) -> str:
    names = {bool: "true or false", int: "whole number", float: "number", str: "text"}
    return names[type(value)]


def at_least(settings: Any, **least: float) -> list[str]:
    """Problems of numbers, or lists of numbers, below their least value."""
    out = []
    for name, bound in least.items():
        value = getattr(settings, name)
        every = value if isinstance(value, tuple) else (value,)
        if not all(bound <= v < float("inf") for v in every):
            out.append(f"{name}={value!r}; needed is {_finite(*every)}>= {bound:g}")
    return out


def positive(settings: Any, *names: str) -> list[str]:
    """Problems of numbers, or lists of numbers, that are not > 0."""
    out = []
    for name in names:
        value = getattr(settings, name)
        every = value if isinstance(value, tuple) else (value,)
        if not all(0 < v < float("inf") for v in every):
            out.append(f"{name}={value!r}; needed is {_finite(*every)}> 0")
    return out


def _finite(*values: float) -> str:
    """Said of numbers that are not finite, where their sign alone is no reason."""
    return "" if all(abs(v) < float("inf") for v in values) else "a finite number "


def make(kind: type, given: Mapping[str, Any]) -> Any:
    """Settings of a class with some fields replaced; lists become tuples. InvalidInput: all."""
    known = {f.name: f for f in dataclasses.fields(kind)}
    refuse(
        [f"unknown setting {n!r}; there are {', '.join(known)}" for n in given if n not in known]
    )
    values = {}
    for name, value in given.items():
        several = isinstance(known[name].default, tuple)
        if several and not isinstance(value, (list, tuple)):
            value = [value]
        values[name] = tuple(value) if isinstance(value, list) else value
    return kind(**values)


def read_values(assignments: list[str], config: Path | None) -> dict[str, Any]:
    """Settings from a TOML file, then from ``key=value`` texts (values as in TOML, or text)."""
    values: dict[str, Any] = {}
    if config is not None:
        try:
            values = tomllib.loads(config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InvalidInput(f"{config}: not a readable TOML file ({error})") from error
    problems = []
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign or not key:
            problems.append(f"--set {text!r}; needed is key=value")
            continue
        try:
            values[key] = tomllib.loads(f"v = {value}")["v"]
        except tomllib.TOMLDecodeError:
            values[key] = value
    refuse(problems)
    return values
