"""The registry: one decorator adds a definition, and nothing else has to be edited."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from theory.errors import InvalidInput, refuse
from theory.objectives.base import Objective
from theory.objectives.forms import Group, Pairwise, Pointwise

_REGISTRY: dict[str, type[Objective]] = {}
T = TypeVar("T", bound=Objective)


def register(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: make the definition a frozen dataclass and enter it as ``name``.

    Raises:
        InvalidInput: if the name is taken by another file's definition, or the class derives
            from none of Pointwise, Pairwise, Group.
    """

    if not name or name != str(name):
        raise InvalidInput(f'register({name!r}): needed is a name, as in @register("my_objective")')

    def enter(cls: type[T]) -> type[T]:
        if not {Pointwise, Pairwise, Group} & set(getattr(cls, "__mro__", ())):
            raise InvalidInput(f"{name}: derive from Pointwise, Pairwise or Group")
        taken = _REGISTRY.get(name)
        if taken is not None and taken.__module__ != cls.__module__:
            raise InvalidInput(f"objective name {name!r} is taken; choose another")
        definition = dataclasses.dataclass(frozen=True)(cls)
        definition.name = name
        _REGISTRY[name] = definition
        return definition

    return enter


def names() -> list[str]:
    """Names of all registered objectives, in the order of registration."""
    return list(_REGISTRY)


def get(name: str, /, **parameters: float) -> Objective:
    """The objective of that name with its parameters, as in ``get("spif", c=1.0, alpha=0.5)``.

    Raises:
        InvalidInput: unknown name or parameter, or a value out of range.
    """
    if name not in names():
        close = difflib.get_close_matches(str(name), _REGISTRY, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise InvalidInput(f"unknown objective {name!r}.{hint} Known: {', '.join(_REGISTRY)}")
    definition = _REGISTRY[name]
    fields = dataclasses.fields(definition)
    allowed = [f.name for f in fields]
    required = [f.name for f in fields if f.default is dataclasses.MISSING]
    takes = f"it takes {', '.join(allowed) or 'none'}"
    refuse(
        [f"{name}: unknown parameter {p!r}; {takes}" for p in parameters if p not in allowed]
        + [f"{name}: missing parameter {p!r}" for p in required if p not in parameters]
    )
    return definition(**parameters)


def load_file(path: str | Path) -> list[str]:
    """Run a Python file of definitions and return the names that it registered.

    Raises:
        InvalidInput: no such file, an error inside it, or nothing registered by it.
    """
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file; needed is a Python file that uses @register")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    module_name = f"_objectives_{path.stem}_{digest}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    before = dict(_REGISTRY)
    for name in [n for n, cls in before.items() if cls.__module__ == module_name]:
        del _REGISTRY[name]  # read again: what the file no longer defines is gone
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        _REGISTRY.clear()
        _REGISTRY.update(before)
        if isinstance(error, InvalidInput):
            raise InvalidInput([f"{path}: {p}" for p in error.problems]) from error
        raise InvalidInput(f"{path}: {type(error).__name__}: {error}") from error
    found = [n for n, cls in _REGISTRY.items() if cls.__module__ == module_name]
    if not found:
        raise InvalidInput(
            f'{path}: registers no objective; decorate a class with @register("name")'
        )
    return found
