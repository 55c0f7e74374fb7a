"""`python -m figures.report` writes the report, `--check` compares, `verify` derives it anew."""

from __future__ import annotations

import argparse
import sys

from figures.report import build
from figures.report.render import all_words


def main(argv: list[str] | None = None) -> int:
    """Write the report; with --check or verify exit 1 if what is there is not what follows."""
    parser = argparse.ArgumentParser(prog="python -m figures.report", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["write", "verify"], default="write")
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    options = parser.parse_args(argv)
    evidence = build.gather()
    wrong = build.wrong_answers(evidence)
    for line in wrong:
        print(line)
    if wrong:
        return 1
    if options.what == "write" and not options.check:
        build.write(evidence)
        return 0
    differing = build.differing(evidence)
    for name in differing:
        print(f"{name} is not what the records give: run python -m figures.report")
    if options.what == "verify":
        counts = all_words(evidence.statuses.values())
        print(f"{len(evidence.statuses)} clauses derived anew: "
              + ", ".join(f"{n} {word}" for word, n in counts.items()))  # fmt: skip
        for line in build.stale(evidence):
            print(f"stale: {line}")
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
