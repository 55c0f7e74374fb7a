"""Stability of self-play inside log-linear classes, and the bound of finite ones (T15, T16)."""

from __future__ import annotations

import numpy as np

from theory.result import FloatArray


def spin_threshold(s_p: FloatArray, s_q: FloatArray) -> float:
    """Least stable ``beta`` of exact SPIN rounds: ``lambda_max((S_p+S_q)^-1 S_q)`` (T15)."""
    return float(np.linalg.eigvals(np.linalg.solve(s_p + s_q, s_q)).real.max())


def spin_round(
    s_p: FloatArray, s_q: FloatArray, beta: float, rate: float, steps: int
) -> FloatArray:
    """Linear map (d, d) of a deviation from the MLE over a SPIN round of gradient steps.

    The round's loss has curvature ``beta^2/4 (S_p+S_q)`` and the step size is ``2 rate/beta``;
    after infinitely many steps the map is T15's ``1 - 2/beta (S_p+S_q)^-1 S_q``.
    """
    one = np.eye(len(s_p))
    undone = np.linalg.matrix_power(one - 0.5 * rate * beta * (s_p + s_q), steps)
    return np.asarray(one - (one - undone) @ np.linalg.solve(s_p + s_q, s_q) * 2.0 / beta)


def finite_class_bound(members: int, delta: float, n: int) -> float:
    """T16: with probability 1 - delta maximum likelihood has ``D_H^2`` at most this."""
    return float(2.0 * np.log(members / delta) / n)
