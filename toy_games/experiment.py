"""What an experiment is: settings that can be checked, and the parts of a sweep.

An experiment is a module of `toy_games.experiments` with ``SUMMARY`` (one sentence), a frozen
dataclass ``Settings`` (every field ``option(default, help)``) and ``cells(settings)``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
import tomllib
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from theory import objectives
from theory.errors import InvalidInput, refuse
from theory.objectives import Objective
from toy_games import sweep

NAMES = (
    "sgd",
    "players",
    "finite_samples",
    "dumping",
    "stability",
    "preferences",
    "misspecification",
    "audit",
)


def option(default: Any, text: str) -> Any:
    """A field of ``Settings``: its default, and what it does with its unit."""
    return dataclasses.field(default=default, metadata={"help": text})


@dataclasses.dataclass(frozen=True)
class BaseSettings:
    """Checked on construction: `problems` of a derived class are raised together."""

    def __post_init__(self) -> None:
        wrong = [p for f in dataclasses.fields(self) for p in _kind_problem(self, f)]
        refuse(wrong or self.problems())

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
        low = min(value) if isinstance(value, tuple) else value
        if not bound <= low < float("inf"):
            out.append(f"{name}={value!r}; needed is >= {bound:g}")
    return out


def positive(settings: Any, *names: str) -> list[str]:
    """Problems of numbers, or lists of numbers, that are not > 0."""
    out = []
    for name in names:
        value = getattr(settings, name)
        every = value if isinstance(value, tuple) else (value,)
        if not all(0 < v < float("inf") for v in every):
            out.append(f"{name}={value!r}; needed is > 0")
    return out


def objective_problems(specs: tuple[str, ...], sft: bool = True) -> list[str]:
    """What is wrong with specifications of objectives, all of them."""
    out = []
    for spec in specs:
        try:
            if objective_of(spec) is None and not sft:
                out.append("objectives: 'sft' always runs beside the others; leave it out")
        except InvalidInput as error:
            out += [f"objectives: {problem}" for problem in error.problems]
    return out


def objective_of(spec: str) -> Objective | None:
    """The objective of ``"spif"``, ``"spif(c=0.5)"`` or ``"file.py:name(k=0.3)"``; None for "sft".

    Raises:
        InvalidInput: unknown name, parameter or file.
    """
    path, _, rest = spec.rpartition(":")
    if path:
        found = objectives.load_file(path)
        if rest.partition("(")[0] not in found:
            raise InvalidInput(f"{spec}: {path} registers {', '.join(found)}")
    name, _, inner = rest.partition("(")
    if name == "sft" and not inner:
        return None
    if inner and not inner.endswith(")"):
        raise InvalidInput(f"{spec!r}: needed is NAME, NAME(parameter=value) or FILE.py:NAME")
    parameters = {}
    for part in filter(None, (p.strip() for p in inner.removesuffix(")").split(","))):
        key, _, value = part.partition("=")
        try:
            parameters[key.strip()] = float(value)
        except ValueError:
            raise InvalidInput(f"{spec!r}: {part!r}; needed is parameter=number") from None
    return objectives.get(name, **parameters)


def load(name: str) -> ModuleType:
    """The module of an experiment. InvalidInput: there is none of that name."""
    if name not in NAMES:
        raise InvalidInput(f"unknown experiment {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"toy_games.experiments.{name}")


def make_settings(module: ModuleType, given: Mapping[str, Any]) -> Any:
    """``Settings`` with some fields replaced; lists become tuples. InvalidInput: all problems."""
    known = {f.name: f for f in dataclasses.fields(module.Settings)}
    refuse(
        [f"unknown setting {n!r}; there are {', '.join(known)}" for n in given if n not in known]
    )
    values = {}
    for name, value in given.items():
        several = isinstance(known[name].default, tuple)
        if several and not isinstance(value, (list, tuple)):
            value = [value]
        values[name] = tuple(value) if isinstance(value, list) else value
    return module.Settings(**values)


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


def run(
    name: str,
    settings: Any = None,
    folder: Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Run an experiment and return its table; with a folder, keep it there and resume from there.

    The folder then holds ``settings.json`` (resolved settings, versions), ``table.csv`` and
    ``parts/``. InvalidInput: the folder holds a run with other settings.
    """
    module = load(name)
    settings = module.Settings() if settings is None else settings
    if folder is None:
        return sweep.run_cells(module.cells(settings), None, jobs, progress)
    resolved = {"experiment": name, "settings": dataclasses.asdict(settings)}
    plain = json.loads(json.dumps(resolved))
    record = folder / "settings.json"
    if record.exists():
        _refuse_other_run(record, plain)
    else:
        where = {"versions": _versions(), "command": "python -m toy_games run"}
        sweep.write_whole(record, json.dumps(plain | where, indent=1) + "\n")
    table = sweep.run_cells(module.cells(settings), folder / "parts", jobs, progress)
    sweep.write_whole(folder / "table.csv", table.to_csv(index=False, lineterminator="\n"))
    return table


def _refuse_other_run(record: Path, plain: dict[str, Any]) -> None:
    try:
        found = json.loads(record.read_text(encoding="utf-8"))
        same = {key: found[key] for key in plain} == plain
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{record}: not a readable record of a run ({error})") from error
    if not same:
        raise InvalidInput(
            f"{record.parent}: holds a run with other settings (see settings.json); nothing was "
            "changed; choose another folder"
        )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in ("numpy", "torch", "pandas", "joblib"):
        found[package] = metadata.version(package)
    return found
