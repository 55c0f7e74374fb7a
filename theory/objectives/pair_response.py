"""Best response of a convex pairwise loss on weighted pairs, by Newton's method.

Solves ``min_r sum_ij W_ij l(r_i - r_j)``. With ``W = p q^T`` it is the reward player of pairwise
self-play, with ``W_ij = pi_i pi_j P_ij`` that of preference learning (T11), and sums of such
weights cover a history term.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory.errors import NotConverged
from theory.objectives import derivatives
from theory.result import FloatArray


def best_response(
    weight: FloatArray,
    pair_loss: Callable[[Any], Any],
    *,
    tolerance: float = 1e-13,
    max_iterations: int = 200,
) -> FloatArray:
    """Minimise ``sum_ij W_ij l(r_i - r_j)`` over rewards of mean zero.

    Args:
        weight: pair weights (..., n, n), non-negative; outcomes without any weight get 0.
        pair_loss: convex loss ``l`` of the difference, written for torch.
        tolerance: on the largest gradient entry relative to the total weight.
        max_iterations: Newton steps before giving up.

    Returns:
        Rewards (..., n) whose mean over outcomes with weight is 0.

    Raises:
        NotConverged: no minimiser was reached (for separable pairs there is none).
    """
    n = weight.shape[-1]
    diagonal = np.arange(n)
    used = (weight.sum(-1) + weight.sum(-2)) > 0
    scale = weight.sum((-2, -1))[..., None]
    r = np.zeros(weight.shape[:-1])
    worst = np.inf
    for _ in range(max_iterations):
        d = r[..., :, None] - r[..., None, :]
        first = weight * derivatives.derivative(pair_loss, d)
        gradient = first.sum(-1) - first.sum(-2)
        worst = float(np.max(np.abs(gradient) / scale))
        if worst <= tolerance:
            break
        second = weight * derivatives.derivative(pair_loss, d, 2)
        pairs = second + np.swapaxes(second, -1, -2)
        hessian = -pairs
        hessian[..., diagonal, diagonal] += pairs.sum(-1)
        # the flat directions (a common shift, unused outcomes) get a unit of curvature
        mean_part = used[..., :, None] * used[..., None, :] * scale[..., None] / n**2
        hessian += mean_part
        hessian[..., diagonal, diagonal] += np.where(used, 1e-300, 1.0)
        step = np.linalg.solve(hessian, -gradient[..., None])[..., 0]
        step = _damped(r, step, weight, pair_loss)
        if np.max(np.abs(step)) <= 1e-15 * (1.0 + np.max(np.abs(r))):
            break
        r = r + step
    if worst > 1e3 * tolerance:
        raise NotConverged(f"pairwise best response: gradient {worst:.2g} above {tolerance:.2g}", r)
    return np.asarray(r - (r * used).sum(-1, keepdims=True) / used.sum(-1, keepdims=True)) * used


def _damped(
    r: FloatArray, step: FloatArray, weight: FloatArray, pair_loss: Callable[[Any], Any]
) -> FloatArray:
    """Halve the step, per prompt, until the risk does not rise."""

    def risk(x: FloatArray) -> FloatArray:
        d = x[..., :, None] - x[..., None, :]
        with np.errstate(over="ignore"):
            return np.asarray((weight * np.asarray(pair_loss(d))).sum((-2, -1)))

    before = risk(r)
    for _ in range(60):
        rises = risk(r + step) > before + 1e-14 * np.abs(before)
        if not rises.any():
            break
        step = np.where(rises[..., None], 0.5 * step, step)
    return step
