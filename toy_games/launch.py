"""Find an experiment and run it, in this process or in several, kept in a folder or not.

An experiment is a module of `toy_games.experiments` with ``SUMMARY`` (one sentence), a frozen
dataclass ``Settings`` (every field ``option(default, help)``) and ``cells(settings)``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd

from lab import files, sweep
from theory.errors import InvalidInput, refuse
from theory.files import write_whole
from toy_games.engine.trainable import notes

RECORD = "settings.json"
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


def run(
    name: str,
    settings: Any = None,
    folder: Path | None = None,
    jobs: int = 1,
    progress: bool = True,
) -> pd.DataFrame:
    """Run an experiment and return its table; with a folder, keep it there and resume from there.

    The folder then holds ``settings.json`` (resolved settings, versions), ``table.csv`` and
    ``parts/``. A study that an objective cannot take part in is noted before work (with
    ``progress``) and has a line in the table, with the reason.

    InvalidInput: the folder holds a run with other settings or something else, or cannot be
    written.
    """
    module = load(name)
    settings = module.Settings() if settings is None else settings
    cells = module.cells(settings)
    if folder is not None:
        refuse(files.folder_problems(folder, RECORD))
    for line in notes(cells) if progress else ():
        sys.stderr.write(f"note: {name}: {line}\n")
    if folder is None:
        return sweep.run_tables(cells, None, jobs, progress)
    resolved = {"experiment": name, "settings": dataclasses.asdict(settings)}
    plain = json.loads(json.dumps(resolved))
    record = folder / RECORD
    if record.exists():
        _refuse_other_run(record, plain)
    else:
        versions = files.versions("numpy", "torch", "pandas", "joblib")
        where = {"versions": versions, "command": "python -m toy_games run"}
        write_whole(record, json.dumps(plain | where, indent=1) + "\n")
    table = sweep.run_tables(cells, folder / "parts", jobs, progress)
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
