"""Independent parts of a long call, run by joblib: in this process, in several, or on a cluster.

Inside ``with joblib.parallel_config(backend="dask")`` the same call runs on a Dask cluster. With a
folder every finished part is kept there and every unfinished one may leave its checkpoint, so that
an interrupted sweep goes on where it stopped.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lab import files
from lab.progress import progress as shown
from theory.errors import InvalidInput, refuse
from theory.files import write_whole

if TYPE_CHECKING:
    import pandas as pd

ROOT = Path(__file__).resolve().parent.parent


@dataclasses.dataclass(frozen=True)
class Cell:
    """One part: ``call(**arguments)`` gives its result, plain values or a pandas table.

    ``call`` is a function of a module and ``arguments`` are plain values (or dataclasses of them),
    so that both travel to other processes; ``name`` is unique within the sweep. A call that
    ``resumes`` takes ``checkpoint`` (a path, or None) and ``progress`` (whether to show it) too.
    """

    name: str
    call: Callable[..., Any]
    arguments: dict[str, Any]
    resumes: bool = True

    @property
    def key(self) -> str:
        """A file's name: the cell's with a digest of arguments, code and versions."""
        module = _module(self.call)
        code = _code(module.partition(".")[0])
        parts = [module, self.call.__qualname__, self.arguments, code]
        plain = "".join(c if c.isalnum() or c in " ._-" else "-" for c in self.name)
        return f"{plain}-{files.digest(json.dumps(parts, default=_plain, sort_keys=True))[:12]}"


def _module(call: Callable[..., Any]) -> str:
    """Where a call is defined; of the module that runs as a program its own name."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec.name if call.__module__ == "__main__" and spec else call.__module__


def run_cells(
    cells: Sequence[Cell], folder: str | Path | None = None, jobs: int = 1, progress: bool = True
) -> list[Any]:
    """The results of all cells in their order, as JSON gives them back (a table: its columns).

    Args:
        cells: the parts.
        folder: where finished parts (.json) and checkpoints (.npz) are kept; None keeps nothing.
        jobs: processes at a time; within ``joblib.parallel_config`` its backend decides.
        progress: show how many are finished.

    Raises:
        InvalidInput: no cells, or two of the same name; several processes without joblib.
    """
    names = [cell.name for cell in cells]
    twice = sorted({n for n in names if names.count(n) > 1})
    refuse(
        ([] if cells else ["cells: none; needed is at least one part"])
        + [f"cells: the name {n!r} is taken twice" for n in twice]
    )
    made = _made(cells, folder, jobs, progress)
    bar = shown(made, len(cells), show=progress and len(cells) > 1)
    return [json.loads(text) for text in bar]


def run_tables(
    cells: Sequence[Cell], folder: str | Path | None = None, jobs: int = 1, progress: bool = True
) -> pd.DataFrame:
    """The tables of all cells, one below the other: see `run_cells`."""
    import pandas as pd

    found = run_cells(cells, folder, jobs, progress)
    return pd.concat([pd.DataFrame(columns) for columns in found], ignore_index=True)


def _made(
    cells: Sequence[Cell], folder: str | Path | None, jobs: int, progress: bool
) -> Iterable[str]:
    if importlib.util.find_spec("joblib") is None:
        if jobs != 1:
            raise InvalidInput(
                f"jobs={jobs}: several processes need joblib: pip install 'selfplay-theory[toys]'"
            )
        return (_run_cell(cell, folder, progress) for cell in cells)
    import joblib

    pool = joblib.Parallel(n_jobs=jobs, return_as="generator")
    call = joblib.delayed(_run_cell)
    found: Iterable[str] = pool(call(cell, folder, progress and jobs == 1) for cell in cells)
    return found


def _run_cell(cell: Cell, folder: str | Path | None, progress: bool) -> str:
    """The cell's result as text: what is kept and what is returned are the same bytes."""
    torch.set_num_threads(1)
    done, more = None, {}
    if folder is not None:
        done = Path(folder) / f"{cell.key}.json"
        if done.exists():
            return done.read_text(encoding="utf-8")
    if cell.resumes:
        more = {"checkpoint": done and done.with_suffix(".npz"), "progress": progress}
    text = json.dumps(cell.call(**cell.arguments, **more), default=_plain, indent=0)
    if done is not None:
        write_whole(done, text)
    return text


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(value, "to_dict"):
        return value.to_dict("list")
    raise TypeError(f"{value!r}: neither plain values nor a table")


@cache
def _code(package: str) -> list[str]:
    """Digests of the sources that results depend on, and the versions of what they run on."""
    sources = [files.source_digest(ROOT / name) for name in ("theory", "lab", package)]
    return [*sources, *files.versions("numpy", "torch").values()]
