"""Tidy tables of figures, the names that readers see, and text beside lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from theory import Solution
from theory.result import FloatArray

COLUMNS = ("panel", "objective", "series", "kind", "x", "y")
INTERVAL = ("low", "high")
THEORY, MEASURED = "theory", "measured"

_SHOWN = {
    "spin": "SPIN",
    "dpo": "DPO",
    "airl": "AIRL",
    "space": "SPACE",
    "brier": "Brier",
    "renyi": "Rényi",
    "nwj": "NWJ",
    "exponential": "exponential",
    "spin_exponential": "SPIN-exp",
    "spin_hinge": "SPIN-hinge",
    "spif": "SPIF",
    "centred_spif": "centred SPIF",
    "ipo": "IPO",
    "inpo": "INPO",
    "sppo": "SPPO",
    "iq_learn": "IQ-Learn",
    "policy_only": "policy-only",
    "gail": "GAIL",
    "ipm": "IPM",
    "tspin": "T-SPIN",
    "alpha_spin": "α-SPIN",
}


def shown(name: str) -> str:
    """An objective's name as readers know it."""
    return _SHOWN.get(name, name)


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


def bars(ax: Axes, rows: pd.DataFrame, **style: Any) -> None:
    """Measured points with their intervals (columns low, high)."""
    ends = np.abs(rows[["low", "high"]].to_numpy(dtype=float).T - rows.y.to_numpy(dtype=float))
    kept: dict[str, Any] = {"elinewidth": 0.9, "capsize": 0, "markersize": 3.2}
    ax.errorbar(rows.x, rows.y, yerr=np.nan_to_num(ends), **{**kept, **style})


def note(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in axis fractions (0..1), to say beside a line what it is."""
    mark(ax, x, y, text, transform=ax.transAxes, **style)


def mark(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in data coordinates, to say beside a line what it is."""
    kept: dict[str, Any] = {"fontsize": 7.5, "ha": "left", "va": "center"}
    ax.text(x, y, text, **{**kept, **style})
