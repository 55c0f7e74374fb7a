"""Measurements on a bare GPU machine, most valuable first: `python -m tools.on_gpu --out DIR`.

Rows are written as they are measured (DIR/results.jsonl), with a summary of all (DIR/summary.md).
`--toy` does everything at tiny sizes on the CPU. Models and runs go to a temporary folder, which is
in memory where there is room for them.
"""

from __future__ import annotations

import argparse
import functools
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from tools.gpu import arms, decode, precision, resumed, speed, where
from tools.gpu.bench import FULL, PLACE, TOY, Bench
from tools.gpu.clock import age
from tools.gpu.parts import Part, run_parts
from tools.gpu.record import ROWS, SUMMARY, Record

# What imports theory comes after tools.gpu, which finds a copy of array-api-compat.

MINUTES = 8.0
KEPT_BACK = 6.0
"""Seconds in which no part runs: the last one may have to end a call, and folders are removed."""
IN_MEMORY, ROOM = Path("/dev/shm"), 40 * 2**30
"""Checkpoints of several GB are written every few seconds."""
TOY_LEAST = 0.02
"""Share of the seconds that a part needs at least, at tiny sizes."""
HEAD = (
    "A row is a measurement, as in the file of rows beside this one. Aims stand beside what was "
    "measured and are no claims; the value of a comparison is the peer's number divided by ours."
)
REHEARSAL = "A rehearsal at tiny sizes on the CPU: its times say nothing of any aim."


def parts(bench: Bench) -> list[Part]:
    """What is measured, in order, and by which share of the time it must be over."""
    rows: list[tuple[str, float, float, Callable[[Bench, float], None]]] = [
        ("where", 0.04, 1.0, where.where),
        ("rates", 0.08, 2.0, where.rates),
        ("precision", 0.18, 10.0, precision.of_shape),
        ("precision of the model", 0.22, 5.0, precision.of_given),
        ("resume", 0.28, 10.0, resumed.resume),
        ("speed", 0.42, 15.0, speed.of_shape),
        ("decoding", 0.52, 10.0, decode.decoding),
        ("speed of the model", 0.60, 15.0, speed.of_given),
        ("arms", 1.00, 20.0, arms.arms),
    ]
    scale = TOY_LEAST if bench.toy else 1.0
    return [
        Part(name, until, scale * least, functools.partial(work, bench))
        for name, until, least, work in rows
    ]


def chosen_model(given: Path | None) -> Path | None:
    """The directory that was named, else the one of `make model` if it is there."""
    path = given or PLACE
    there = (path / "config.json").is_file()
    if given is not None and not there:
        raise SystemExit(f"--model {given}: no config.json there")
    return path if there else None


def roomy() -> str | None:
    """A folder in memory with room for runs; None is the usual temporary one."""
    free = shutil.disk_usage(IN_MEMORY).free if IN_MEMORY.is_dir() else 0
    return str(IN_MEMORY) if free >= ROOM else None


def main(arguments: list[str] | None = None) -> int:
    """Measure within the time and write what was measured."""
    parser = argparse.ArgumentParser(description="Measurements on a bare GPU machine.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="all of it ends within them")
    parser.add_argument("--model", type=Path, help="directory of a trained causal LM")
    parser.add_argument("--toy", action="store_true", help="tiny sizes, on the CPU")
    given = parser.parse_args(arguments)
    if not given.toy and not torch.cuda.is_available():
        parser.error("torch sees no CUDA device here; --toy rehearses on the CPU")
    model = None if given.toy and not given.model else chosen_model(given.model)
    if (given.out / ROWS).exists():
        parser.error(f"{given.out}: holds results already; choose another --out")
    record = Record(given.out, REHEARSAL if given.toy else HEAD)
    seconds = 60.0 * given.minutes - age() - KEPT_BACK
    where_to = None if given.toy else roomy()
    with tempfile.TemporaryDirectory(dir=where_to, ignore_cleanup_errors=True) as work:
        size, device = (TOY, "cpu") if given.toy else (FULL, "cuda")
        bench = Bench(size, record, Path(work), model, device, given.toy)
        run_parts(parts(bench), record, seconds)
    record.say(f"all is in {given.out / SUMMARY}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
