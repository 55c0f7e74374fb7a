"""The registry: one decorator adds a definition, and nothing else has to be edited."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from theory import user_file
from theory.errors import InvalidInput, refuse
from theory.objectives.base import Objective
from theory.objectives.forms import Group, Pairwise, Pointwise

_REGISTRY: dict[str, type[Objective]] = {}
RESERVED = {"sft": "it is the supervised baseline of the trainer and the experiments"}
FORMS = (Pointwise, Pairwise, Group)
_ATTRIBUTES = """
name form needs source citation notes absent positive unit potential_name optional_extras
reference_free up_to_constant reward_domain
"""
ATTRIBUTES = _ATTRIBUTES.split()
"""What a definition may say beside its formulas and parameters."""
T = TypeVar("T", bound=Objective)


def register(name: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: make the definition a frozen dataclass and enter it as ``name``.

    Raises:
        InvalidInput: if the name is reserved or taken by another file's definition, the class
            derives from none of Pointwise, Pairwise, Group, or something in it is misnamed.
    """

    if not name or name != str(name):
        raise InvalidInput(f'register({name!r}): needed is a name, as in @register("my_objective")')

    def enter(cls: type[T]) -> type[T]:
        if not set(FORMS) & set(getattr(cls, "__mro__", ())):
            raise InvalidInput(f"{name}: derive from Pointwise, Pairwise or Group")
        if name in RESERVED:
            raise InvalidInput(f"objective name {name!r} is reserved: {RESERVED[name]}")
        refuse(misnamed(cls, name))
        taken = _REGISTRY.get(name)
        if taken is not None and taken.__module__ != cls.__module__:
            raise InvalidInput(f"objective name {name!r} is taken; choose another")
        definition = dataclasses.dataclass(frozen=True)(cls)
        definition.name = name
        _REGISTRY[name] = definition
        return definition

    return enter


def misnamed(cls: type[Objective], name: str) -> list[str]:
    """Methods and attributes of a definition whose name is nearly one that would have been read,
    or that of a verb, which is derived from the formulas."""
    library = [base for base in cls.__mro__ if base.__module__ in _LIBRARY]
    every = {n: m for base in library for n, m in vars(base).items() if n[0] != "_"}
    formulas = {n for n, m in every.items() if hasattr(m, "unwritten")}
    verbs = {n for n, m in every.items() if inspect.isfunction(m)} - formulas
    problems = []
    for base in (b for b in cls.__mro__ if b not in library and issubclass(b, Objective)):
        for given, value in vars(base).items():
            if given[0] == "_" or given in formulas or given in ATTRIBUTES:
                continue
            if given in verbs:
                problems.append(
                    f"{name}: {given} is derived from the formulas; write one of them instead: "
                    f"{', '.join(sorted(formulas))}"
                )
                continue
            known = sorted(formulas) if inspect.isfunction(value) else ATTRIBUTES
            close = difflib.get_close_matches(given.lower(), known, n=1, cutoff=0.8)
            if close and given not in inspect.get_annotations(base):
                problems.append(f"{name}: {given} is not read; did you mean {close[0]!r}?")
    return problems


_LIBRARY = {Objective.__module__, Pointwise.__module__}


@contextmanager
def kept() -> Iterator[None]:
    """Forget at the end of the block what was registered within it."""
    before = dict(_REGISTRY)
    try:
        yield
    finally:
        _REGISTRY.clear()
        _REGISTRY.update(before)


def names() -> list[str]:
    """Names of all registered objectives, in the order of registration."""
    return list(_REGISTRY)


def get(spec: str, /, **parameters: float) -> Objective:
    """The objective of a specification: a name, with parameters, or from a file of definitions.

        get("spif", c=0.5)    get("spif(c=0.5, alpha=0.3)")    get("my_objective.py:amari(k=0.3)")

    Raises:
        InvalidInput: unknown name, file or parameter, or a value out of range.

    >>> get("spif(c=0.5)") == get("spif", c=0.5), get("spif").label
    (True, 'spif(c=1, alpha=0.5)')
    """
    if not isinstance(spec, str):
        raise InvalidInput(f"unknown objective {spec!r}. Known: {', '.join(_REGISTRY)}")
    path, colon, rest = spec.rpartition(":")
    if colon and not path:
        raise InvalidInput(f"{spec!r}: no file before the colon; needed is NAME or FILE.py:NAME")
    name, bracket, inner = rest.partition("(")
    if path:
        found = load_file(path)
        if name not in found:
            raise InvalidInput(f"{spec}: {path} registers {', '.join(found)}")
    if bracket and not inner.endswith(")"):
        raise InvalidInput(f"{spec!r}: needed is NAME, NAME(parameter=value) or FILE.py:NAME")
    given = dict(parameters)
    for part in filter(None, (p.strip() for p in inner.removesuffix(")").split(","))):
        key, _, value = part.partition("=")
        if key.strip() in given:
            raise InvalidInput(f"{spec!r}: {key.strip()} is there twice")
        try:
            given[key.strip()] = float(value)
        except ValueError:
            raise InvalidInput(f"{spec!r}: {part!r}; needed is parameter=number") from None
    return _made(name, given)


def of(objective: Objective | str) -> Objective:
    """The objective itself, or that of a specification as in :func:`get`.

    Raises:
        InvalidInput: neither.
    """
    if isinstance(objective, Objective):
        return objective
    if isinstance(objective, str):
        return get(objective)
    raise InvalidInput(
        f"obj={objective!r}; needed is an objective, as from objectives.get(name), or its name"
    )


def _made(name: str, parameters: dict[str, float]) -> Objective:
    if name not in _REGISTRY:
        close = difflib.get_close_matches(name.lower(), _REGISTRY, n=1)
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

    Modules beside the file can be imported while it is read; they belong to this file alone.

    Raises:
        InvalidInput: no such file, an error inside it, or nothing registered by it.
    """
    if not isinstance(path, str | Path):
        raise InvalidInput(f"path={path!r}; needed is the name of a Python file")
    path = Path(path)
    if not path.is_file():
        raise InvalidInput(f"{path}: no such file; needed is a Python file that uses @register")
    module, before = user_file.module_name(path), dict(_REGISTRY)
    for name in [n for n, cls in before.items() if cls.__module__ == module]:
        del _REGISTRY[name]  # read again: what the file no longer defines is gone
    try:
        user_file.run(path)
    except InvalidInput:
        _REGISTRY.clear()
        _REGISTRY.update(before)
        raise
    found = [n for n, cls in _REGISTRY.items() if cls.__module__ == module]
    if not found:
        raise InvalidInput(
            f'{path}: registers no objective; decorate a class with @register("name")'
        )
    return found
