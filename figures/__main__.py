"""Make the figures, then the report: `python -m figures [NAME ...]`. FULL=1 for the large ones."""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import sys
import time
import traceback
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from pathlib import Path

from tqdm import tqdm

from figures import catalogue as _catalogue
from figures import report

OUT = Path(__file__).parent / "out"


def make(module: str, name: str, out: Path) -> float:
    """Compute and draw one figure: out/NAME.csv, .png, .pdf. Returns the seconds it took."""
    from figures import style

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


def make_all(entries: list[_catalogue.Entry], out: Path, jobs: int) -> dict[str, str]:
    """Make the figures in `jobs` processes. Returns the failures: name -> traceback."""
    failures = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        tasks: dict[Future[float], str] = {
            pool.submit(make, f"{e.path.parent.name}.{e.path.stem}", e.name, out): e.name
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


def main(argv: list[str] | None = None) -> int:
    """Run from the shell; the exit status is 1 if a figure failed and 2 on a wrong name."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    options = parser.parse_args(argv)
    entries = _catalogue.catalogue()
    known = [entry.name for entry in entries]
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no figure {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    wanted = [e for e in entries if not options.names or e.name in options.names]
    failures = make_all(wanted, OUT, options.jobs) if wanted else {}
    report.write()
    for name, trace in failures.items():
        print(f"\nfigure {name} failed:\n{trace}", file=sys.stderr)
    if failures:
        print(
            f"{len(failures)} of {len(wanted)} figures failed: {', '.join(failures)}",
            file=sys.stderr,
        )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
