"""Makes figures, several at a time; one that fails does not lose the others."""

from __future__ import annotations

import importlib
import multiprocessing
import sys
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from figures import style
from figures.catalogue import Entry


def make(module: str, name: str, out: Path) -> float:
    """Compute and draw one figure: out/NAME.csv, .png, .pdf. Returns the seconds it took."""
    start = time.perf_counter()
    figure = importlib.import_module(module)
    with style.mpl.rc_context(style.RC):
        table = figure.table()
        out.mkdir(parents=True, exist_ok=True)
        part = out / f"{name}.csv.tmp"
        table.to_csv(part, index=False, float_format="%.6g", lineterminator="\n")
        part.replace(out / f"{name}.csv")
        style.save(figure.plot(table), out / name)
    return time.perf_counter() - start


def make_all(entries: list[Entry], out: Path, jobs: int) -> dict[str, str]:
    """Make the figures in `jobs` processes. Returns the failures: name -> traceback."""
    failures = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        tasks: dict[Future[float], str] = {
            pool.submit(make, ".".join(e.path.with_suffix("").parts[-3:]), e.name, out): e.name
            for e in entries
        }
        with tqdm(total=len(tasks), desc="figures", unit="fig") as bar:
            for task in as_completed(tasks):
                name = tasks[task]
                try:
                    bar.write(f"  {name}: {task.result():.1f} s", file=sys.stderr)
                except Exception as error:
                    bar.write(f"  {name}: FAILED", file=sys.stderr)
                    failures[name] = "".join(traceback.format_exception(error))
                bar.update()
    return failures
