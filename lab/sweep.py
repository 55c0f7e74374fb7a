"""Independent parts of an experiment, run by joblib: in this process, in several, or on a cluster.

Inside ``with joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster. With a
folder every finished part is kept there and every unfinished one leaves its checkpoint, so that an
interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from lab.files import write_whole
from theory.errors import refuse

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Cell:
    """One part: ``call(**arguments, checkpoint=..., progress=...)`` gives its table.

    ``call`` is a function of a module and ``arguments`` are plain values, so that both travel to
    other processes; ``name`` is unique within the experiment.
    """

    name: str
    call: Callable[..., pd.DataFrame]
    arguments: dict[str, Any]

    @property
    def key(self) -> str:
        """A file's name: the cell's with a digest of arguments, code and versions."""
        parts = (self.call.__module__, self.call.__qualname__, self.arguments, _code())
        plain = "".join(c if c.isalnum() or c in " ._-" else "-" for c in self.name)
        return f"{plain}-{joblib.hash(parts)[:12]}"


def run_cells(
    cells: Sequence[Cell], folder: str | Path | None = None, jobs: int = 1, progress: bool = True
) -> pd.DataFrame:
    """The tables of all cells, one below the other, in the order of the cells.

    Args:
        cells: the parts.
        folder: where finished parts (.json) and checkpoints (.npz) are kept; None keeps nothing.
        jobs: processes at a time; within ``joblib.parallel_config`` its backend decides.
        progress: show a progress bar, in a terminal.

    Raises:
        InvalidInput: no cells, or two of the same name.
    """
    names = [cell.name for cell in cells]
    twice = sorted({n for n in names if names.count(n) > 1})
    refuse(
        ([] if cells else ["cells: none; needed is at least one part"])
        + [f"cells: the name {n!r} is taken twice" for n in twice]
    )
    alone = jobs == 1
    pool = joblib.Parallel(n_jobs=jobs, return_as="generator")
    made = pool(joblib.delayed(_run_cell)(cell, folder, alone and progress) for cell in cells)
    shown = progress and len(cells) > 1
    bar = tqdm(made, total=len(cells), unit="part", disable=None if shown else True, leave=False)
    return pd.concat([_parse(text) for text in bar], ignore_index=True)


def _run_cell(cell: Cell, folder: str | Path | None, progress: bool) -> str:
    """The cell's table as text: what is kept and what is returned are the same bytes."""
    torch.set_num_threads(1)
    if folder is None:
        return _text(cell.call(**cell.arguments, checkpoint=None, progress=progress))
    done = Path(folder) / f"{cell.key}.json"
    if not done.exists():
        checkpoint = Path(folder) / f"{cell.key}.npz"
        write_whole(
            done, _text(cell.call(**cell.arguments, checkpoint=checkpoint, progress=progress))
        )
    return done.read_text(encoding="utf-8")


def _text(table: pd.DataFrame) -> str:
    return json.dumps(table.to_dict("list"), indent=0)


def _parse(text: str) -> pd.DataFrame:
    return pd.DataFrame(json.loads(text))


@cache
def _code() -> str:
    """Digest of the sources that results depend on, and the versions of what they run on."""
    digest = hashlib.sha256(f"numpy {np.__version__} torch {torch.__version__}".encode())
    for package in ("theory", "lab", "toy_games"):
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()
