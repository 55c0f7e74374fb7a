"""What an experiment is: settings that can be checked, and the parts of a sweep.

An experiment is a module of `toy_games.experiments` with ``SUMMARY`` (one sentence), a frozen
dataclass ``Settings`` (every field ``option(default, help)``) and ``cells(settings)``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd

from lab import sweep
from lab.settings import (
    BaseSettings,
    at_least,
    make,
    objective_of,
    objective_problems,
    option,
    positive,
    read_values,
    write_whole,
)
from theory import theory_card
from theory.errors import InvalidInput
from theory.objectives import Objective

__all__ = [
    "BaseSettings",
    "at_least",
    "load",
    "make_settings",
    "objective_of",
    "objective_problems",
    "option",
    "positive",
    "read_values",
    "run",
    "trainable_problems",
    "untrainable",
]

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


def load(name: str) -> ModuleType:
    """The module of an experiment. InvalidInput: there is none of that name."""
    if name not in NAMES:
        raise InvalidInput(f"unknown experiment {name!r}; there are {', '.join(NAMES)}")
    return importlib.import_module(f"toy_games.experiments.{name}")


def untrainable(objective: Objective, loss: bool = True) -> str | None:
    """Why an objective cannot be trained on an expert's responses; None if it can.

    Without ``loss`` exact rounds are enough.
    """
    if "preference" in objective.needs:
        return "it has no expert law: see the experiment 'preferences'"
    return objective.missing("risk") if loss else None


def trainable_problems(specs: tuple[str, ...], linked: bool = True, loss: bool = True) -> list[str]:
    """Objectives that are `untrainable`, or whose effective step ``R'(0)/beta`` is infinite.

    If they must be ``linked``, those without an effective step as well. Specifications that are
    wrong themselves are left to `objective_problems`.
    """
    out = []
    for spec in specs:
        if objective_problems((spec,)) or (objective := objective_of(spec)) is None:
            continue
        why, slope = untrainable(objective, loss), theory_card(objective).slope_at_zero
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        out += [f"objectives: {spec} cannot be trained here: {why}"] if why else []
    return out


def make_settings(module: ModuleType, given: Mapping[str, Any]) -> Any:
    """``Settings`` with some fields replaced. InvalidInput: all problems."""
    return make(module.Settings, given)


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
        write_whole(record, json.dumps(plain | where, indent=1) + "\n")
    table = sweep.run_cells(module.cells(settings), folder / "parts", jobs, progress)
    write_whole(folder / "table.csv", table.to_csv(index=False, lineterminator="\n"))
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
