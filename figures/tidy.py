"""Tidy tables of figures, the names that readers see, and text beside lines."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from theory import Solution
from theory.result import FloatArray

FULL = os.environ.get("FULL", "") not in ("", "0")
"""Whether the large versions were asked for."""

COLUMNS = ("panel", "objective", "series", "kind", "x", "y")
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

    def add(self, panel: str, objective: str, series: str, kind: str, x: Any, y: Any) -> None:
        """One curve or cloud of points: x and y broadcast against each other."""
        xs, ys = np.broadcast_arrays(np.asarray(x), np.asarray(y))
        values = (panel, objective, series, kind, xs.ravel(), ys.ravel())
        self._parts.append(pd.DataFrame(dict(zip(COLUMNS, values, strict=True))))

    def table(self) -> pd.DataFrame:
        """All rows in the order in which they came."""
        return pd.concat(self._parts, ignore_index=True)


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


def note(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in axis fractions (0..1), to say beside a line what it is."""
    mark(ax, x, y, text, transform=ax.transAxes, **style)


def mark(ax: Axes, x: float, y: float, text: str, **style: Any) -> None:
    """Text in data coordinates, to say beside a line what it is."""
    kept: dict[str, Any] = {"fontsize": 7.5, "ha": "left", "va": "center"}
    ax.text(x, y, text, **{**kept, **style})
