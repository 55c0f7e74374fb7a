"""Intervals over seeds, and slopes with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from theory.errors import InvalidInput

LEAST_SEEDS = 3


class Fit(NamedTuple):
    """A straight line fitted by least squares, with the half-widths of 95 % intervals."""

    slope: float
    intercept: float
    slope_interval: float


def intervals(
    table: pd.DataFrame, by: Sequence[str], value: str, level: float = 0.95
) -> pd.DataFrame:
    """Mean over the rows of each group, with Student's two-sided interval of the mean.

    The interval is ``mean -/+ t s / sqrt(n)``: n rows of the group (one a seed), s their standard
    deviation with n - 1 in the denominator, t the (1 + level)/2 quantile of Student's law with
    n - 1 degrees of freedom (95 %: 4.30 for 3 seeds, 2.78 for 5, 2.36 for 8, 2.07 for 24). It is
    exact for normal values and independent seeds, of each group alone (not simultaneous), and it
    is symmetric: that of a positive quantity may end below 0.

    Args:
        table: a row a seed and group. by: columns that name a group. value: column of the numbers.
        level: probability of covering the mean, in (0, 1).

    Returns:
        A row a group in order of appearance: columns ``by``, then ``mean, low, high, seeds``
        (seeds is n). A value that is not finite is not dropped: the mean is then inf and no end
        finite.

    Raises:
        InvalidInput: fewer than three values in a group. One seed has no spread, and of two the
            interval is 12.7 standard errors wide on each side: no statement is made of them.
    """
    groups = table.groupby(list(by), sort=False)[value]
    out = groups.agg(mean="mean", std="std", seeds="size", bad=lambda v: (~np.isfinite(v)).sum())
    if (out.seeds < LEAST_SEEDS).any():
        raise InvalidInput(
            f"{value}: {out.seeds.min()} values in a group; needed are {LEAST_SEEDS} seeds or more"
        )
    half = out["std"] * stats.t.ppf(0.5 + level / 2, out.seeds - 1) / np.sqrt(out.seeds)
    mean = out["mean"].where(out.bad == 0, np.inf)
    out = pd.DataFrame({"mean": mean, "low": mean - half, "high": mean + half, "seeds": out.seeds})
    return out.reset_index()


def fit_line(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Fit:
    """Least-squares line through the points.

    ``slope_interval`` is the half-width of Student's two-sided interval of the slope, with
    ``len(x) - 2`` degrees of freedom: independent normal errors of equal size are assumed.
    """
    found = stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    half = found.stderr * stats.t.ppf(0.5 + level / 2, max(np.size(x) - 2, 1))
    return Fit(float(found.slope), float(found.intercept), float(half))
