"""Objectives with a link of the log-ratio alone, slopes of it, and laws of two outcomes."""

from __future__ import annotations

import numpy as np

from tests.theory.strategies import with_fixed_link
from theory import theory_card
from theory.objectives import Objective
from theory.result import FloatArray

FIXED = with_fixed_link()
SMOOTH = [obj for obj in FIXED if obj.name != "ipm"]
LIPSCHITZ = [obj for obj in SMOOTH if np.isfinite(theory_card(obj).L)]


def slope_range(obj: Objective, *ratios: FloatArray) -> tuple[float, float]:
    """inf and sup of R' over the hull of 0 and the given log-ratios."""
    stacked = np.concatenate([np.ravel(u) for u in ratios] + [np.zeros(1)])
    grid = np.linspace(stacked.min(), stacked.max(), 801)
    slopes = obj.slope(grid)
    return float(slopes.min()), float(slopes.max())


def of_log_odds(x: float) -> FloatArray:
    """Law of two outcomes."""
    return np.exp(-np.logaddexp(0.0, [-x, x]))
