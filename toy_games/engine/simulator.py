"""Many runs of one experiment as one batch: advanced together, measured, stopped and resumed.

A simulation holds one *row* per run (seed and settings); its state is a dictionary of tensors with
the rows as first axis. `run` advances it and returns a tidy table: one line a row and step.
"""

from __future__ import annotations

import hashlib
import time
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.progress import progress as shown
from theory.errors import InvalidInput, refuse
from theory.files import whole

State = dict[str, Tensor]
EVERY_SECONDS = 20.0


class Simulation(Protocol):
    """What `run` advances."""

    rows: pd.DataFrame
    """One line a run: its seed and settings, the columns that identify it in the table."""

    identity: str
    """All else that the result depends on, as text: a checkpoint of another identity is refused."""

    def start(self) -> State:
        """State before the first step."""
        ...

    def advance(self, state: State, step: int) -> State:
        """State after step ``step`` (counted from 0); a function of its arguments alone."""
        ...

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """Named measurements (rows,) of the state after ``step`` steps."""
        ...


def log_steps(last: int, per_decade: int = 8, first: int = 1) -> list[int]:
    """0 and steps from ``first`` to ``last``, about equally spaced in their logarithm."""
    count = max(2, round(per_decade * np.log10(max(last / first, 1.0))) + 1)
    return [0, *(int(s) for s in np.unique(np.geomspace(first, last, count).round()))]


def run(
    simulation: Simulation,
    record: Iterable[int],
    checkpoint: str | Path | None = None,
    progress: bool = True,
    every: float = EVERY_SECONDS,
) -> pd.DataFrame:
    """Advance to the last step of ``record`` and return the table of all measurements.

    Args:
        simulation: the batch of runs.
        record: steps after which to measure, >= 0.
        checkpoint: file that keeps the run every ``every`` seconds; if it is there, the run goes
            on from it, to bitwise the same table. It is removed at the end.
        progress: show a progress bar, in a terminal, from the third second on.
        every: seconds between checkpoints.

    Returns:
        Columns of ``simulation.rows``, then ``step``, then the measurements.

    Raises:
        InvalidInput: unusable steps, or a checkpoint that is damaged or of another run.
    """
    steps = sorted(set(record))
    refuse(
        [f"record: {s!r}; needed are whole numbers >= 0" for s in steps if s != int(s) or s < 0]
        + ([] if steps else ["record: no steps; needed is at least one"])
    )
    path = None if checkpoint is None else Path(checkpoint)
    state, at = simulation.start(), 0
    mark = fingerprint(simulation, state, steps)
    records: dict[str, list[np.ndarray]] = {}
    if path is not None and path.exists():
        state, at, records = _load(path, mark)
    wanted, saved = set(steps), time.monotonic()
    bar = shown(total=steps[-1], start=at, unit="step", show=progress)
    with bar, torch.no_grad():
        if at == 0 and 0 in wanted and not records:
            _note(records, simulation.measure(state, 0))
        while at < steps[-1]:
            state = simulation.advance(state, at)
            at += 1
            bar.update()
            if at in wanted:
                _note(records, simulation.measure(state, at))
            if path is not None and time.monotonic() - saved > every:
                save(path, state, at, records, mark)
                saved = time.monotonic()
    if path is not None:
        path.unlink(missing_ok=True)
    return _table(simulation.rows, steps, records)


def fingerprint(simulation: Simulation, state: State, steps: list[int]) -> str:
    """Digest of everything that a run depends on: rows, identity, start, steps, versions."""
    digest = hashlib.sha256()
    parts = [
        type(simulation).__name__,
        simulation.identity,
        simulation.rows.to_csv(index=False),
        f"{steps} torch {torch.__version__} numpy {np.__version__}",
    ]
    digest.update("\n".join(parts).encode())
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def save(
    path: Path, state: State, at: int, records: dict[str, list[np.ndarray]], mark: str
) -> None:
    """Write a checkpoint whole or not at all."""
    arrays = {f"state/{name}": tensor.numpy() for name, tensor in state.items()}
    arrays |= {f"record/{name}": np.stack(values) for name, values in records.items()}
    with whole(path) as part, part.open("wb") as file:
        np.savez(file, mark=np.array(mark), step=np.array(at), **arrays)


def _load(path: Path, mark: str) -> tuple[State, int, dict[str, list[np.ndarray]]]:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays: dict[str, Any] = {name: file[name] for name in file.files}
        found, at = str(arrays.pop("mark")), int(arrays.pop("step"))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InvalidInput(
            f"{path}: not a readable checkpoint ({error}); remove it to start again"
        ) from error
    if found != mark:
        raise InvalidInput(
            f"{path}: a checkpoint of another run (other settings, seeds, code inputs or "
            "versions); remove it, or name another file"
        )
    state = {
        n.removeprefix("state/"): torch.from_numpy(a)
        for n, a in arrays.items()
        if n.startswith("state/")
    }
    records = {
        n.removeprefix("record/"): list(a) for n, a in arrays.items() if n.startswith("record/")
    }
    return state, at, records


def _note(records: dict[str, list[np.ndarray]], measured: dict[str, Tensor]) -> None:
    for name, values in measured.items():
        records.setdefault(name, []).append(values.detach().to(torch.float64).numpy().copy())


def _table(
    rows: pd.DataFrame, steps: list[int], records: dict[str, list[np.ndarray]]
) -> pd.DataFrame:
    """All measurements, rows within steps."""
    table = pd.concat([rows] * len(steps), ignore_index=True)
    table["step"] = np.repeat(steps, len(rows))
    for name, values in records.items():
        table[name] = np.concatenate(values)
    return table
