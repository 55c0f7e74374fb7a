"""How a preference is written in the settings: a name with its parameter, or a user's function."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from theory import user_file
from theory.errors import InvalidInput

NONE = "none"
BUILT_IN = {"bradley-terry": ("scale", 1.0), "cyclic": ("strength", 1.0)}
"""Name of an oracle and its one parameter with the default."""


def problems(spec: str) -> list[str]:
    """What is wrong with a specification.

    It is "none", "bradley-terry(scale=S)", "cyclic(strength=S)" or "FILE.py:NAME", a function of
    texts: ``(prompt, response)`` gives a score (in nats, for Bradley-Terry), ``(prompt, first,
    second)`` a probability.
    """
    if spec == NONE:
        return []
    try:
        path, name, _ = parse(spec)
        if path:
            function_of(path, name)
    except InvalidInput as error:
        return list(error.problems)
    return []


def parse(spec: str) -> tuple[str, str, float]:
    """Path ("" if built in), name, parameter. InvalidInput: neither a known name nor a file's."""
    path, _, rest = spec.rpartition(":")
    if path:
        return path, rest, 0.0
    name, bracket, inner = rest.partition("(")
    if name not in BUILT_IN or (bracket and not inner.endswith(")")):
        known = ", ".join(f"{n}({p}=NUMBER)" for n, (p, _) in BUILT_IN.items())
        raise InvalidInput(f"{spec!r}; needed is none, {known} or FILE.py:FUNCTION")
    parameter, value = BUILT_IN[name]
    if inner:
        key, _, given = inner.removesuffix(")").partition("=")
        try:
            value = float(given)
        except ValueError:
            value = math.nan
        high = 1.0 if name == "cyclic" else math.inf
        if key.strip() != parameter or not (0 < value <= high and math.isfinite(value)):
            needed = f"{parameter}=NUMBER, > 0" + (" and <= 1" if name == "cyclic" else "")
            raise InvalidInput(f"{spec!r}; needed is {name}({needed})")
    return "", name, value


def user_function(path: str, name: str) -> Callable[..., Any]:
    """A function of a Python file. InvalidInput: no file, an error in it, or no such function."""
    where = f"{path}:{name}"
    if not Path(path).is_file():
        raise InvalidInput(f"{where}: no file {path}")
    module = user_file.run(Path(path))
    function = getattr(module, name, None)
    if not callable(function):
        raise InvalidInput(f"{where}: the file has no function {name!r}")
    return function


def function_of(path: str, name: str) -> Callable[..., Any]:
    """An oracle's function. InvalidInput: see `user_function`, or other arguments than it has."""
    where, function = f"{path}:{name}", user_function(path, name)
    count = needed_arguments(function)
    if count not in (2, 3):
        raise InvalidInput(
            f"{where} takes {count or 'any number of'} arguments without a default; needed"
            " are (prompt, response) for a score or (prompt, first, second) for a preference"
        )
    return function


def is_judge(function: Callable[..., Any]) -> bool:
    """Whether it is a preference between two responses, not a score of one."""
    return needed_arguments(function) == 3


def needed_arguments(function: Callable[..., Any]) -> int:
    """Number of arguments without a default; 0 if that cannot be said."""
    try:
        known = inspect.signature(function).parameters.values()
    except ValueError:
        return 0
    plain = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in plain and p.default is p.empty for p in known)
