"""Make the figures, then the report: `python -m figures [NAME ...]`. FULL=1 for the large ones."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from figures.catalogue import catalogue
from figures.report import render as report
from figures.runner import make_all

OUT = Path(__file__).parent / "out"


def main(argv: list[str] | None = None) -> int:
    """Run from the shell; the exit status is 1 if a figure failed and 2 on a wrong name."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    options = parser.parse_args(argv)
    entries = catalogue()
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
