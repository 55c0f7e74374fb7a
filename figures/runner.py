"""Makes figures, several at a time; one that fails does not lose the others."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
import traceback
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from pathlib import Path

from figures import style, tidy
from theory.files import write_whole

PATIENCE = 20.0
"""Seconds without a finished figure after which a line says what is at work."""


def make(module: str, out: Path, compute: bool = True) -> str:
    """Compute out/NAME.csv and draw out/NAME.png and .pdf from it. Returns what to say of it.

    A table that agrees with the one that is there leaves it as it is. Without ``compute`` the
    table that is there is drawn.
    """
    start = time.perf_counter()
    figure = importlib.import_module(module)
    stem = out / module.rpartition(".")[2]
    path, said = stem.with_suffix(".csv"), "table as recorded"
    with style.mpl.rc_context(style.RC):
        if compute:
            table = figure.table()
            there = path.exists()
            chaotic = getattr(figure, "REALISATIONS", ())
            moved = tidy.difference(table, tidy.read(path), chaotic) if there else "new table"
            if moved:
                write_whole(path, tidy.as_text(table))
                said = moved
        style.save(figure.plot(tidy.read(path)), stem)
    return f"{time.perf_counter() - start:.1f} s, {said}"


def make_all(modules: dict[str, str], out: Path, jobs: int, compute: bool = True) -> dict[str, str]:
    """Make the figures in `jobs` processes, a line each. Returns failures: name -> traceback."""
    failures: dict[str, str] = {}
    start, done = time.perf_counter(), 0
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        tasks: dict[Future[str], str] = {
            pool.submit(make, module, out, compute): name for name, module in modules.items()
        }
        waiting = set(tasks)
        while waiting:
            finished, waiting = wait(waiting, PATIENCE, FIRST_COMPLETED)
            for task in finished:
                done += 1
                name = tasks[task]
                try:
                    said = task.result()
                except Exception as error:
                    said = "FAILED"
                    failures[name] = "".join(traceback.format_exception(error))
                _say(f"[{done}/{len(tasks)}] {name}: {said}")
            if not finished:
                names = sorted(tasks[task] for task in waiting)
                _say(f"{time.perf_counter() - start:.0f} s, still to come: {', '.join(names)}")
    return failures


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
