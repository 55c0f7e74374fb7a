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
    """Mean over the rows of each group, with a Student interval of its mean.

    Returns columns ``by``, then ``mean, low, high, seeds`` (number of finite values; rows that are
    not finite make the mean not finite, they are not dropped).

    Raises:
        InvalidInput: fewer than three values in a group: no statement about seeds is made then.
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
    """Least-squares line through the points; the interval is Student's."""
    found = stats.linregress(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    half = found.stderr * stats.t.ppf(0.5 + level / 2, max(np.size(x) - 2, 1))
    return Fit(float(found.slope), float(found.intercept), float(half))
