"""Settings with their constraints at the field, checked when they are made; TOML and ``key=value``.

    @dataclass(frozen=True)
    class Settings(BaseSettings):
        objectives: tuple[str, ...] = option(("spif",), "objectives", check=spec_problems)
        rate: float = option(0.3, "learning rate, SFT units", gt=0)
        parts: tuple[str, ...] = option(PARTS, "which parts", of=PARTS)

One definition is read by whoever makes settings: Python, a TOML file, a command line.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from theory.errors import InvalidInput, refuse

Made = TypeVar("Made", bound="BaseSettings")
KINDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


class Allowed(NamedTuple):
    """What a value, or each value of a list, may be; see `option`."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    of: tuple[str, ...] = ()
    multiple: int = 1
    check: Callable[[Any], Iterable[str]] | None = None

    @property
    def needed(self) -> str:
        """The constraints in words, "" if there are none (or only a check)."""
        bounds = {">=": self.ge, ">": self.gt, "<=": self.le, "<": self.lt}
        words = " and ".join(f"{sign} {b}" for sign, b in bounds.items() if b is not None)
        words = f"one of {', '.join(self.of)}" if self.of else words
        return words + (f", a multiple of {self.multiple}" if self.multiple > 1 else "")

    def refusal(self, value: Any) -> str:
        """What is needed instead of a value; "" if it will do."""
        if self.of and value not in self.of:
            return self.needed
        if isinstance(value, (str, bool)):
            return ""
        if not abs(value) < float("inf"):
            return f"a finite number {self.needed}".rstrip()
        good = (
            (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
            and (self.multiple == 1 or value % self.multiple == 0)
        )
        return "" if good else self.needed


def option(default: Any, text: str, **allowed: Any) -> Any:
    """A field of ``Settings``.

    Args:
        default: its value; it also says the kind (a tuple's first member that of all of them).
        text: what it does, with its unit.
        allowed: constraints of the value, or of each in a list. ``ge, gt, le, lt``: bounds of a
            number (every number must be finite). ``of``: the texts that there are. ``multiple``:
            of which whole number. ``check``: a function that gives all problems of a value.
    """
    metadata = {"help": text, "allowed": Allowed(**allowed)}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    """Checked on construction: whatever is wrong is raised as one `InvalidInput`."""

    def __post_init__(self) -> None:
        fields = dataclasses.fields(self)
        for field in fields:
            object.__setattr__(self, field.name, _python(getattr(self, field.name)))
        wrong = {f.name: _kind_problem(f, getattr(self, f.name)) for f in fields}
        out = [problem for problem in wrong.values() if problem]
        for field in fields:
            if not wrong[field.name]:
                out += _value_problems(field, getattr(self, field.name))
        refuse(out if any(wrong.values()) else [*out, *self.problems()])

    def problems(self) -> list[str]:
        """What is wrong between values, each of the right kind."""
        return []


def _python(value: Any) -> Any:
    """Numbers of numpy as those of Python, which JSON and digests hold."""
    if isinstance(value, tuple):
        return tuple(_python(v) for v in value)
    return value.item() if isinstance(value, np.generic) else value


def _kind_problem(field: dataclasses.Field[Any], value: Any) -> str:
    """Values have the kind of the default; a tuple's members that of its first."""
    default = field.default
    if isinstance(default, tuple):
        good = isinstance(value, tuple) and value and all(_same(v, default[0]) for v in value)
        needed = f"a list of {KINDS[type(default[0])].removeprefix('a ')}s"
    else:
        good, needed = _same(value, default), KINDS[type(default)]
    return "" if good else f"{field.name}={value!r}; needed is {needed}"


def _same(value: Any, default: Any) -> bool:
    if isinstance(default, bool) or isinstance(value, bool):
        return type(value) is type(default)
    return isinstance(value, (int, float) if isinstance(default, float) else type(default))


def _value_problems(field: dataclasses.Field[Any], given: Any) -> list[str]:
    allowed: Allowed = field.metadata["allowed"]
    every = dict.fromkeys(given if isinstance(given, tuple) else (given,))
    refused = {value: allowed.refusal(value) for value in every}
    out = [f"{field.name}={value!r}; needed is {text}" for value, text in refused.items() if text]
    if isinstance(given, tuple) and len(every) < len(given):
        # Its runs would count twice, as if they were independent.
        out.append(f"{field.name}={given!r}; each value may be named once")
    if allowed.check is not None:
        out += [f"{field.name}: {problem}" for value in every for problem in allowed.check(value)]
    return out


def described(field: dataclasses.Field[Any], default: Any) -> str:
    """What a setting does, what it may be and a default: a line of help."""
    allowed: Allowed = field.metadata["allowed"]
    shown = ", ".join(map(str, default)) if isinstance(default, tuple) else default
    parts = [allowed.needed, f"default: {shown}"]
    return f"{field.metadata['help']} ({'; '.join(p for p in parts if p)})"


def make(kind: type[Made], given: Mapping[str, Any]) -> Made:
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


def read_toml(path: Path) -> dict[str, Any]:
    """The values of a TOML file. InvalidInput: not one that can be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # of bytes, of TOML, of huge numbers
        raise InvalidInput(f"{path}: not a readable TOML file ({error})") from error


def read_values(assignments: Iterable[str], config: Path | None) -> dict[str, Any]:
    """Settings from a TOML file, then from ``key=value`` texts (values as in TOML, or text).

    InvalidInput: another text, a key that two of them have, or a file that cannot be read.
    """
    values = {} if config is None else read_toml(config)
    problems: list[str] = []
    seen: set[str] = set()
    for text in assignments:
        key, sign, value = text.partition("=")
        if not sign or not key:
            problems.append(f"--set {text!r}; needed is key=value")
            continue
        if key in seen:
            problems.append(f"--set {text!r}: {key} is given twice; needed is each once")
        seen.add(key)
        try:
            values[key] = tomllib.loads(f"v = {value}")["v"]
        except (ValueError, RecursionError):  # also of numbers and lists that Python does not read
            values[key] = value
    refuse(problems)
    return values
