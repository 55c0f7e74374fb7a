"""Means with their intervals, differences of pairs, and slopes with their standard errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import stdtrit

from theory.errors import InvalidInput

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
LEAST_SEEDS = 3


class Interval(NamedTuple):
    """A mean with half the width of its interval: ``mean -/+ half``."""

    mean: float
    half: float


class Line(NamedTuple):
    """A straight line fitted by least squares, with the half-width of its slope's interval."""

    slope: float
    intercept: float
    slope_interval: float


class Slope(NamedTuple):
    """Slope through the origin, its standard error, and the correlation; NaN if x is 0."""

    slope: float
    error: float
    correlation: float


# -- over seeds ----------------------------------------------------------------------------------


def student(values: int, level: float = 0.95) -> float:
    """How many standard errors a two-sided interval of a mean of so many values reaches.

    The (1 + level)/2 quantile of Student's law with one degree of freedom less (95 %: 4.30 of 3
    values, 2.78 of 5, 2.36 of 8, 2.07 of 24).
    """
    return float(stdtrit(values - 1, 0.5 + level / 2))


def standard_error(values: ArrayLike) -> float:
    """Of the mean of independent values, ``s / sqrt(n)``; 0 of a single one."""
    array = np.asarray(values, dtype=np.float64)
    return float(array.std(ddof=1) / np.sqrt(array.size)) if array.size > 1 else 0.0


def interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent values and half its Student interval, NaN below three: see `intervals`.

    >>> found = interval([1.0, 2.0, 3.0])
    >>> found.mean, round(found.half, 6)
    (2.0, 2.484138)
    """
    array = np.asarray(values, dtype=np.float64)
    few = array.size < LEAST_SEEDS
    half = np.nan if few else student(array.size, level) * standard_error(array)
    return Interval(float(array.mean()), half)


def intervals(
    table: pd.DataFrame, by: Sequence[str], value: str, level: float = 0.95
) -> pd.DataFrame:
    """Mean over the rows of each group, with Student's two-sided interval of the mean.

    The interval is ``mean -/+ t s / sqrt(n)``: n rows of the group (one a seed), s their standard
    deviation with n - 1 in the denominator, t as in `student`. It is exact for normal values and
    independent seeds, of each group alone (not simultaneous), and it is symmetric: that of a
    positive quantity may end below 0.

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
    half = out["std"] * stdtrit(out.seeds - 1, 0.5 + level / 2) / np.sqrt(out.seeds)
    mean = out["mean"].where(out.bad == 0, np.inf)
    out = out.assign(mean=mean, low=mean - half, high=mean + half)
    return out[["mean", "low", "high", "seeds"]].reset_index()


def differences(
    table: pd.DataFrame, column: str, base: object, match: Sequence[str], values: Sequence[str]
) -> pd.DataFrame:
    """Values less those of the row that is paired with it: equal seed, and all else in ``match``.

    Args:
        table: one row for each value of ``column`` and ``match``. column: what is compared.
        base: its value that is subtracted. match: columns that pair rows, the seed among them.
        values: columns of numbers.

    Returns:
        Columns ``column, *match, *values``, a row each of ``table``, those of ``base`` left out.

    Raises:
        InvalidInput: a row without its pair, or with several.
    """
    keys = list(match)
    first = table[table[column] == base].set_index(keys)[list(values)]
    rest = table[table[column] != base].set_index(keys)
    if first.index.has_duplicates or rest.set_index(column, append=True).index.has_duplicates:
        raise InvalidInput(f"{column}: several rows of equal {', '.join(keys)}; needed is one")
    if not rest.index.isin(first.index).all():
        raise InvalidInput(f"{column}: rows without one of {base!r} of equal {', '.join(keys)}")
    less = rest[list(values)] - first.reindex(rest.index)
    return less.assign(**{column: rest[column]}).reset_index()[[column, *keys, *values]]


# -- slopes --------------------------------------------------------------------------------------


def fit_line(x: ArrayLike, y: ArrayLike, level: float = 0.95) -> Line:
    """Least-squares line through the points.

    ``slope_interval`` is the half-width of Student's two-sided interval of the slope, with
    ``len(x) - 2`` degrees of freedom: independent normal errors of equal size are assumed.
    """
    x, y = (np.asarray(v, dtype=np.float64) for v in (x, y))
    free = max(x.size - 2, 1)
    dx, dy = x - x.mean(), y - y.mean()
    slope = (dx @ dy) / (dx @ dx)
    rest = dy - slope * dx
    half = student(free + 1, level) * np.sqrt((rest @ rest) / free / (dx @ dx))
    return Line(float(slope), float(y.mean() - slope * x.mean()), float(half))


def centred(
    values: Floats, weight: Floats | None = None, group: NDArray[np.int64] | None = None
) -> Floats:
    """Values less the mean of their row (last axis), under weights, or of their group.

    Args:
        values: (..., n), or (n,) with groups. weight: same shape, >= 0, not all 0 in a row.
        group: (n,) whole numbers, equal for values of a group; their mean has no weights.
    """
    if group is not None:
        _, index = np.unique(group, return_inverse=True)
        means = np.bincount(index, values) / np.bincount(index)
        return np.asarray(values - means[index])
    if weight is None:
        return np.asarray(values - values.mean(-1, keepdims=True))
    total = weight.sum(-1, keepdims=True)
    return np.asarray(values - (weight * values).sum(-1, keepdims=True) / total)


def _norm(rows: Floats, cluster: NDArray[np.int64] | None) -> float:
    """Root of the sum of squares, of the sums over clusters if there are any."""
    if cluster is not None:
        index = np.unique(np.broadcast_to(cluster, rows.shape), return_inverse=True)[1]
        rows = np.asarray(np.bincount(index.ravel(), rows.ravel()), dtype=np.float64)
    return float(np.sqrt(np.square(rows).sum()))


def regression(
    x: Floats,
    y: Floats,
    weight: Floats | None = None,
    cluster: NDArray[np.int64] | None = None,
    again: Floats | None = None,
) -> Slope:
    """Slope of ``y`` on ``x``, both `centred` already: ``sum w x y / sum w x^2``.

    The error is the sandwich estimate ``sqrt(sum_c (sum_{i in c} w x (y - slope x))^2)`` over
    ``sum w x^2``: right also if errors differ in size, or depend on each other within a cluster.
    ``again`` is a second, independent estimate of x: noise in x flattens a slope, and
    ``sum w y (x + x')/2 / sum w x x'`` is consistent; NaN where the two do not agree, their
    ``sum w x x'`` being less than two standard errors above 0.

    Args:
        x, y: numbers of equal shape. weight: same shape, >= 0.
        cluster: whole numbers that broadcast to it; default: each point is one of its own.
    """
    w = np.ones_like(x) if weight is None else weight
    other = x if again is None else again
    cross, joint = w * y * (x + other) / 2, w * x * other
    size, length = float(joint.sum()), float((w * y * y).sum())
    if not size > 0:
        return Slope(np.nan, np.nan, np.nan)
    slope = float(cross.sum()) / size
    if again is not None and size <= 2.0 * _norm(joint, cluster):
        return Slope(np.nan, np.nan, np.nan)
    error = _norm(cross - slope * joint, cluster) / size
    return Slope(slope, error, slope * float(np.sqrt(size / length)) if length > 0 else np.nan)
