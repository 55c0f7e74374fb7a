"""Numbers and margins as a person reads them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from figures.report.claims import Comparison
from figures.report.empirical import OPEN, Cell
from figures.report.records import Record
from lab.evidence import CHOSEN


def cell_number(cell: Cell, comparison: Comparison) -> str:
    """Mean of a cell with its 95 % interval and unit."""
    sign = "+" if (cell.against or comparison.minus or comparison.predicted) else ""
    digits = _digits(cell.half)
    if not np.isfinite(cell.half):
        return f"{cell.mean:{sign}.{digits}f} {comparison.unit}, one seed"
    low, high = (f"{x:.{digits}f}" for x in (cell.mean - cell.half, cell.mean + cell.half))
    return f"{cell.mean:{sign}.{digits}f} [{low}, {high}] {comparison.unit}"


def _digits(half: float) -> int:
    """Decimals up to the second significant digit of half an interval."""
    if not np.isfinite(half) or half == 0:
        return 3
    return int(np.clip(1 - np.floor(np.log10(half)), 0, 4))


def tally(cells: Iterable[Cell], comparison: Comparison) -> str:
    """How the cells fall: by the corrected intervals, and by sign of the plain ones."""
    found = [cell for cell in cells if cell.word != OPEN]
    if not found:
        return "no cell"
    words, one = [cell.word for cell in found], len(found) == 1
    told: list[str] = [w for w in ("yes", "no", "mixed") if w in words]
    told = told or ["undecided"]  # which the others are
    parts = [f"{w} in {words.count(w)}" for w in told]
    text = "1 cell" if one else f"{', '.join(parts)} of {len(found)} cells"
    plain = not (comparison.predicted or comparison.bound is not None)
    if not plain or set(words) in ({"yes"}, {"no"}):
        return text
    signs = {"less": -1, "more": 1}
    counts = {word: sum(s * c.mean > c.half for c in found) for word, s in signs.items()}
    alone = [word if one else f"{word} in {count}" for word, count in counts.items() if count]
    return f"{text}; alone: {', '.join(alone) or 'in none'}"


def span(cells: Iterable[Cell]) -> str:
    """Least and largest mean over cells."""
    means = [cell.mean for cell in cells if cell.word != OPEN]
    ends = dict.fromkeys(f"{end(means):.3g}" for end in (min, max)) if means else ["–"]
    return " to ".join(ends)


def margins(group: Iterable[Record]) -> str:
    """The worst of every kind of check over a group of records."""
    worst: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in (row for record in group for row in record.checks):
        key = (row["check"], row["what"], row["because"])
        new = {name: float(value) for name, value in row["worst"].items()}
        if key not in worst or _rank(key[0], new) > _rank(key[0], worst[key]):
            worst[key] = new
    return "; ".join(
        _margin(check, what, because, found)
        for (check, what, because), found in sorted(worst.items())
    )


def _rank(check: str, worst: dict[str, float]) -> tuple[float, list[tuple[str, float]]]:
    """Nearest to failing last; of equal ones, whichever order they came in, always the same."""
    return tightness(check, worst), sorted(worst.items())


def _margin(check: str, what: str, because: str, worst: dict[str, float]) -> str:
    name = f"{what}: " if what else ""
    if check == "close":
        return f"{name}error {worst['error']:.3g}, allowed {worst['tolerance']:.3g} ({because})"
    if check == "below":
        slack = f"slack {worst['slack']:.3g} to the bound {worst['bound']:.3g}"
        return f"{name}{slack}" + (f" ({because})" if because == CHOSEN else "")
    if check == "exhibits":
        asked = "predicted" if because == "theory" else f"asked for ({because})"
        return f"{name}{worst['value']:.3g} seen, at least {worst['at_least']:.3g} {asked}"
    return f"{name}exact"


def tightest(records: Iterable[Record]) -> str:
    """The nearest that a derived tolerance came to failing, as a share of it."""
    shares = [
        tightness("close", {k: float(v) for k, v in row["worst"].items()})
        for record in records
        if not record.drops
        for row in record.checks
        if row["check"] == "close" and row["because"] != CHOSEN
    ]
    return f"{max(shares):.0%}" if shares else ""


def tightness(check: str, worst: dict[str, float]) -> float:
    """Larger is nearer to failing; for "close" the share of the tolerance that was used."""
    if check == "close":
        return worst["error"] / worst["tolerance"] if worst["tolerance"] else 0.0
    return -worst.get("slack", worst.get("value", 0.0))


def counted(numbers: dict[str, int]) -> str:
    """``{"games": 120, "runs": 8}`` -> "120 games, 8 runs"."""
    return ", ".join(f"{n:,} {what}" for what, n in numbers.items() if n)


def cell_of_table(text: Any) -> str:
    """Text that does not end a Markdown cell."""
    return str(text).replace("|", "\\|").replace("\n", " ")
