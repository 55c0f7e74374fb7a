"""What a run left, read back: its settings, model, metrics, points and samples."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from llm_scale.measure.telemetry import COLUMNS
from llm_scale.store.checkpoint import latest
from llm_scale.store.journal import FAILURE, METRICS, POINTS, SAMPLES
from theory.errors import InvalidInput, refuse
from theory.files import kind_of

RECORD = "settings.json"
EQUAL_COMPUTE = "equal-compute"
"""Folder of a baseline that `sft --like` makes."""


def settings_of(path: Path) -> dict[str, Any]:
    """Settings in the record of a run (the file or its folder). InvalidInput: not one."""
    return dict(record_of(path)["settings"])


def record_of(path: Path) -> dict[str, Any]:
    """Settings, versions, digests of files and labels in the record of a run.

    ``left``: names of the settings that were left to the task when it began. InvalidInput: not one.
    """
    given, path = path, path / RECORD if path.is_dir() else path
    if not path.exists():
        raise InvalidInput(f"{given}: neither the folder of a run ({RECORD}) nor its record")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = dict(record["settings"])
        rest = {name: dict(record.get(name, {})) for name in ("versions", "files", "labels")}
        return {"settings": settings, "left": list(record.get("left", []))} | rest
    except KeyError as error:
        raise InvalidInput(f"{path}: not the record of a run (no {error})") from error
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path}: not the record of a run ({error})") from error


def model_of(path: Path) -> tuple[Path, dict[str, Any]]:
    """Model directory of a run's folder, or of a model's own; and the run's settings if any.

    Of a run that is not finished the newest whole checkpoint is taken.

    Raises:
        InvalidInput: neither a run nor a model, or a run without a checkpoint, or with adapters of
            a base that no directory has.
    """
    if (path / RECORD).is_file():
        settings = settings_of(path)
        if (path / "final" / "config.json").is_file():
            return path / "final", settings
        found, _ = latest(path / "checkpoints")
        if found is None:
            raise InvalidInput(f"{path}: a run without a whole checkpoint yet; train it first")
        base = str(settings.get("model", ""))
        if settings.get("lora") and not Path(base).is_dir():
            raise InvalidInput(
                f"{path}: a run that is not finished, and its checkpoints are adapters of "
                f"model={base!r}, which is no directory; train it to its end first: only then are "
                "the weights whole"
            )
        return found.path, settings
    if any((path / name).is_file() for name in ("config.json", "adapter_config.json")):
        return path, {}
    raise InvalidInput(
        f"{path}: neither the folder of a run ({RECORD}) nor a directory of a model (config.json)"
    )


@dataclass(frozen=True)
class Run:
    """A run as it was recorded.

    Attributes:
        path: its folder. settings: as resolved.
        rounds, steps: lines of the metrics, a round's and a step's.
        state: "finished", "unfinished" or "stopped: ...".
        objective: its label when the run began; "" if that was not recorded.
        files: digests of what the run read; empty if they were not recorded.
    """

    path: Path
    settings: dict[str, Any]
    rounds: list[dict[str, Any]]
    steps: list[dict[str, Any]]
    state: str
    objective: str = ""
    files: dict[str, str] = field(default_factory=dict)


def read(path: Path) -> Run:
    """A run's record, also of one that is still written.

    InvalidInput: not a run, or metrics that are not JSON lines.
    """
    record = record_of(path)
    seen = rows(path / METRICS)
    done = (path / "final" / "config.json").is_file()
    state = "finished" if done else "unfinished"
    if not done and (path / FAILURE).is_file():
        state = stopped(path / FAILURE)
    rounds = [row for row in seen if "round" in row]
    steps = [row for row in seen if "at" in row]
    label = str(record["labels"].get("objective", ""))
    return Run(path, record["settings"], rounds, steps, state, label, record["files"])


def stopped(file: Path) -> str:
    """How a run stopped by itself, from its `FAILURE`. InvalidInput: not what a run wrote."""
    try:
        seen = json.loads(file.read_text(encoding="utf-8"))
        where = f"in round {seen['round']}, step {seen['step']}"
        return f"stopped: {seen['what']} {seen['value']} {where}"
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{file}: not what a run wrote that stopped ({error!r})") from error


def rows(file: Path) -> list[dict[str, Any]]:
    """Objects of a JSONL file; a last line without its end is being written and left out.

    InvalidInput: another line is not an object in JSON.
    """
    found = []
    whole, _, _ = (file.read_bytes() if file.exists() else b"").rpartition(b"\n")
    for number, line in enumerate(whole.split(b"\n") if whole else (), 1):
        try:
            row = json.loads(line.decode("utf-8"))
        except ValueError as error:
            raise InvalidInput(f"{file}:{number}: not JSON in UTF-8 ({error})") from error
        if not isinstance(row, dict):
            raise InvalidInput(f"{file}:{number}: {kind_of(row)}; needed is an object")
        found.append(row)
    return found


def found(paths: Sequence[Path]) -> list[Run]:
    """The runs in folders: a run's own, or those in its subfolders. InvalidInput: none there."""
    out, problems = [], []
    for path in paths:
        inner = sorted(p.parent for p in path.rglob(RECORD)) if path.is_dir() else []
        if not inner:
            problems.append(f"{path}: neither a run nor a folder with runs ({RECORD})")
        try:
            out += [read(p) for p in inner]
        except InvalidInput as error:
            problems += error.problems
    refuse(problems)
    return out


def points(run: Run, round_: int) -> dict[str, np.ndarray]:
    """The stored points of a round by column, NaN where unknown; empty if there are none."""
    path = run.path / POINTS / f"round-{round_:03d}.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    out: dict[str, np.ndarray] = {}
    try:
        for name in COLUMNS if rows else ():
            column = [row[name] for row in rows]
            plain = name == "side"
            out[name] = np.array(column if plain else [float(v) if v else np.nan for v in column])
    except (KeyError, ValueError) as error:
        raise InvalidInput(f"{path}: not the points of a round ({error})") from error
    return out


def samples(run: Run, round_: int) -> list[dict[str, Any]]:
    """The responses of a round as text; empty if there are none. InvalidInput: not JSON lines."""
    return rows(run.path / SAMPLES / f"round-{round_:03d}.jsonl")
