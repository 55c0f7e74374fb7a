"""Run benchmarks/bench_*.py, print a paragraph each: `python -m benchmarks [NAME ...]`, FULL=1.

A bench module exposes `run(full: bool) -> list[dict]`, one row a measurement:

    name, size       what was solved, and how large
    ours_s, peer_s   seconds, the best of the repetitions (peer_s None: the peer was not run)
    peer             what it is compared with
    aim              the ratio aimed at (None: none)
    note             what a reader must know, e.g. the certified gap
    unit             of ours_s and peer_s where they are no seconds (may be left out)

`timing.timed` is the clock for all of them. The ratios go to results/bench.json with the device.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import textwrap
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from theory.files import write_whole

HERE = Path(__file__).parent
RECORD = HERE.parent / "results" / "bench.json"
KEYS = ("name", "size", "ours_s", "peer", "peer_s", "aim", "note")


def checked(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its ratio; ValueError if its keys are not the agreed ones."""
    if set(row) - {"ratio", "unit"} != set(KEYS):
        raise ValueError(f"a row has the keys {', '.join(KEYS)}, not {', '.join(row)}")
    ratio = None if row["peer_s"] is None else row["peer_s"] / row["ours_s"]
    unit = {key: row[key] for key in ("unit",) if key in row}
    return {**{key: row[key] for key in KEYS}, **unit, "ratio": ratio}


def device() -> dict[str, Any]:
    """The processor, its cores and the threads that numpy may use; no machine's name."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        named = [ln for ln in cpuinfo.read_text().splitlines() if ln.startswith("model name")]
        model = named[0].split(":", 1)[1].strip() if named else model
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "python": platform.python_version(),
    }


def lines(rows: list[dict[str, Any]], title: str) -> str:
    """All rows for the terminal, a paragraph each, up to 80 columns; a missed aim is said."""
    parts = [title]
    for row in rows:
        ratio, aim = row["ratio"], row["aim"]
        unit = row.get("unit")
        times = f"{_quantity(row['ours_s'], unit)}; {row['peer']}: {_quantity(row['peer_s'], unit)}"
        said = "no ratio" if ratio is None else f"{ratio:.3g} x"
        if aim is not None:
            missed = ratio is not None and ratio < aim
            said += f", aim {aim:g} x" + (" MISSED" if missed else "")
        texts = [f"{row['name']}, {row['size']}: {said}", f"ours {times}", row["note"]]
        wrapped = [
            textwrap.fill(text, 80, initial_indent=indent, subsequent_indent="    ")
            for text, indent in zip(texts, ("", "    ", "    "), strict=True)
            if text
        ]
        parts.append("\n".join(wrapped))
    return "\n\n".join(parts)


def _quantity(value: float | None, unit: str | None) -> str:
    if value is None:
        return "not run"
    if unit is not None:
        return f"{value:.3g} {unit}"
    return f"{value:.3g} s" if value >= 0.1 else f"{1000 * value:.3g} ms"


def main(argv: list[str] | None = None, record: Path = RECORD, folder: Path = HERE) -> int:
    """Run from the shell; missed aims are shown, not failed on: machines differ."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="only bench_NAME.py (default: all)"
    )
    names = parser.parse_args(argv).names
    known = {path.stem.removeprefix("bench_"): path for path in sorted(folder.glob("bench_*.py"))}
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no bench {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    full = os.environ.get("FULL", "0") not in ("", "0")
    rows: list[dict[str, Any]] = []
    for name in track(names or list(known), description="benchmarks", console=Console(stderr=True)):
        module = importlib.import_module(f"{folder.name}.bench_{name}")
        rows += [checked(row) for row in module.run(full)]
    where = device()
    print(lines(rows, f"{where['cpu']}, {where['cores']} cores"))
    if not names:
        content = {"command": "make bench", "full": full, "device": where, "rows": rows}
        write_whole(record, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
