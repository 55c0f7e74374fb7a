"""Render the report: `python -m figures.report [--check]`."""

from __future__ import annotations

import argparse
import sys

from figures import report


def main(argv: list[str] | None = None) -> int:
    """Write the report, or with --check exit 1 if the one that is there is not the render."""
    parser = argparse.ArgumentParser(prog="python -m figures.report")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    if not parser.parse_args(argv).check:
        report.write()
    elif not report.REPORT.exists() or report.REPORT.read_text("utf-8") != report.current():
        print("paper_repro.md is not the render of the records: run python -m figures.report")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
