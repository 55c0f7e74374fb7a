"""Make the figures, then the report: `python -m figures [NAME ...]`. FULL=1 for the large ones."""

from __future__ import annotations

import argparse
import os
import sys
import traceback

from figures.catalogue import OUT, modules
from figures.report import build
from figures.runner import make_all


def main(argv: list[str] | None = None) -> int:
    """Run from the shell; the exit status is 1 if a figure failed and 2 on a wrong name."""
    parser = argparse.ArgumentParser(prog="python -m figures", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these (default: all)")
    parser.add_argument("--jobs", type=int, default=min(os.cpu_count() or 1, 8))
    parser.add_argument("--draw", action="store_true", help="from the tables in figures/out")
    options = parser.parse_args(argv)
    known = modules()
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"no figure {', '.join(unknown)}; there are: {', '.join(known) or 'none'}")
    wanted = {n: m for n, m in known.items() if not options.names or n in options.names}
    failures = make_all(wanted, OUT, options.jobs, not options.draw)
    for name, trace in failures.items():
        print(f"\nfigure {name} failed:\n{trace}", file=sys.stderr)
    if failures:
        count = f"{len(failures)} of {len(wanted)} figures failed"
        print(f"{count}: {', '.join(failures)}", file=sys.stderr)
    try:
        build.write(build.gather())
    except Exception:  # a figure that cannot be imported has no caption
        traceback.print_exc()
        return 1
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
