"""Tidy tables of figures: a row a point, as out/NAME.csv holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from lab.stats import intervals
from theory import Solution
from theory.result import FloatArray

TEXTS = ("panel", "objective", "series", "kind")
COLUMNS = (*TEXTS, "x", "y")
INTERVAL = ("low", "high")
THEORY, MEASURED = "theory", "measured"
NOTHING = 1e-11
AGREE = 1e-4
SHARE = 0.1
"""Of an interval's width, up to which means over seeds agree."""
LOOSE = 0.1
"""Relative, for the range of a chaotic curve."""


class Rows:
    """Collects rows (panel, objective, series, kind, x, y); kind is "theory" or "measured"."""

    def __init__(self) -> None:
        self._parts: list[pd.DataFrame] = []

    def add(
        self,
        panel: str,
        objective: str,
        series: str,
        kind: str,
        x: Any,
        y: Any,
        low: Any = np.nan,
        high: Any = np.nan,
    ) -> None:
        """One curve or cloud of points: x and y (and an interval) broadcast against each other."""
        arrays = np.broadcast_arrays(*(np.asarray(v) for v in (x, y, low, high)))
        values = (panel, objective, series, kind, *(array.ravel() for array in arrays))
        self._parts.append(pd.DataFrame(dict(zip(COLUMNS + INTERVAL, values, strict=True))))

    def means(
        self,
        panel: str,
        objective: str,
        series: str,
        runs: pd.DataFrame,
        x: str,
        y: str,
        *,
        kind: str = MEASURED,
        geometric: bool = False,
        least: float = -np.inf,
    ) -> None:
        """Means of column y over the runs (seeds) at each x, with 95 % Student intervals.

        Geometric: of log10 y. No interval begins below the `least` value that y can have. Of theory
        the mean alone is kept.
        """
        found = intervals(runs.assign(**{y: np.log10(runs[y])}) if geometric else runs, [x], y)
        ends = found[["mean", "low", "high"]].to_numpy().T
        ends = 10.0**ends if geometric else np.maximum(ends, least)
        self.add(panel, objective, series, kind, found[x], *ends[: 3 if kind == MEASURED else 1])

    def each(
        self, panel: str, runs: pd.DataFrame, x: str, y: str, series: str, least: float = -np.inf
    ) -> None:
        """`means` of every objective (column "objective")."""
        for name, own in runs.groupby("objective", sort=False):
            self.means(panel, str(name), series, own, x, y, least=least)

    def table(self) -> pd.DataFrame:
        """All rows in the order in which they came; columns of intervals only if there are any."""
        table = pd.concat(self._parts, ignore_index=True)
        return table.drop(columns=list(INTERVAL)) if table.low.isna().all() else table


def path_of(solution: Solution) -> FloatArray:
    """All policies of a path (rounds + 1, ..., n)."""
    if solution.policies is None:
        raise ValueError("the solution has no path")
    return solution.policies


def curves(table: pd.DataFrame, panel: str, kind: str = "") -> Iterable[tuple[str, str, Any]]:
    """(objective, series, rows) of a panel in order of appearance; of one kind if named."""
    part = table[table.panel == panel]
    part = part[part.kind == kind] if kind else part
    for (objective, series), rows in part.groupby(["objective", "series"], sort=False):
        yield str(objective), str(series), rows


def as_text(table: pd.DataFrame) -> str:
    """The table as it is written: six digits."""
    return table.to_csv(index=False, float_format="%.6g", lineterminator="\n")


def read(path: Path) -> pd.DataFrame:
    """A table that was written; names stay texts."""
    numbers = ("x", "y", *INTERVAL)
    kinds = {**dict.fromkeys(TEXTS, str), **dict.fromkeys(numbers, float)}
    blank = {name: [""] for name in numbers}
    return pd.read_csv(path, dtype=kinds, keep_default_na=False, na_values=blank)


def difference(new: pd.DataFrame, old: pd.DataFrame, realisations: Sequence[str] = ()) -> str:
    """Where two tables differ most, in words; empty if they agree.

    Numbers agree to four digits, and means over seeds also within a tenth of their interval's
    width. Numbers below `NOTHING` agree: they are rounding errors, which every processor makes its
    own.

    ``realisations`` of chaos are panels, or curves of one: "panel, objective" or "panel, series".
    Rounding makes each another draw: means over seeds agree if they are not farther apart than
    their two intervals are wide together, and where there is no interval the least and the largest
    value of a curve agree within a tenth.
    """
    texts = list(TEXTS)
    if list(new) != list(old) or len(new) != len(old) or not new[texts].equals(old[texts]):
        return f"other rows: {len(new)}, were {len(old)}"
    names = (new.panel, new.panel + ", " + new.objective, new.panel + ", " + new.series)
    chaotic = np.any([name.isin(realisations) for name in names], axis=0)
    alone = chaotic.copy()
    a, b = (t.drop(columns=texts).to_numpy(dtype=float) for t in (new, old))
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = np.maximum(abs(a), abs(b))
        same = (a == b) | (np.isnan(a) & np.isnan(b)) | (scale < NOTHING)
        gap = np.nan_to_num(np.where(same, 0.0, abs(a - b) / scale), nan=np.inf)
        if set(INTERVAL) <= set(old):
            other, width = ((t.high - t.low).to_numpy() for t in (new, old))
            gap = np.where(abs(a - b) <= SHARE * width[:, None], 0.0, gap)
            alone &= np.isnan(other) & np.isnan(width)
            gap[chaotic & ((new.y - old.y).abs() <= other + width)] = 0.0
    gap[alone] = 0.0
    ends = [t[alone].groupby(texts, sort=False).y.agg(["min", "max"]) for t in (new, old)]
    far = (ends[0] - ends[1]).abs() > LOOSE * ends[1].abs() + NOTHING
    if far.any(axis=None):
        at = ", ".join(filter(None, far[far.any(axis=1)].index[0]))
        return f"{at}: other range of a chaotic curve"
    row, column = np.unravel_index(gap.argmax(), gap.shape)
    if gap[row, column] <= AGREE:
        return ""
    at = ", ".join(filter(None, new[texts].iloc[row]))
    most = f"{at}: {a[row, column]:.4g}, was {b[row, column]:.4g}"
    return f"{(gap.max(axis=1) > AGREE).sum()} of {len(new)} rows differ, most {most}"
