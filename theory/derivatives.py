"""Derivatives and inverses of the definitions' formulas, so that nothing is typed twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory import xp
from theory.result import FloatArray

Formula = Callable[[Any], Any]


def derivative(formula: Formula, x: Any, order: int = 1) -> FloatArray:
    """Elementwise derivative of a formula written for torch, by autograd in float64."""
    import torch

    point = torch.tensor(np.asarray(x, dtype=np.float64), requires_grad=True)
    value = formula(point)
    for _ in range(order):
        if not value.requires_grad:  # a formula constant in x
            return np.zeros(point.shape)
        (value,) = torch.autograd.grad(value.sum(), point, create_graph=True)
    return np.asarray(value.detach().numpy())


def invert_link(a: Formula, b: Formula, u: Any) -> FloatArray:
    """Solve ``log(-b'(r)/a'(r)) = u`` for r by bisection over ``r = sinh(s)`` (T1), in numpy.

    Outside the interval where ``a' > 0 > b'`` the ratio is taken as its limit, so bounded links
    come out at their bounds.
    """
    target = np.asarray(u.detach() if hasattr(u, "detach") else u, dtype=np.float64)
    low, high = np.full(target.shape, -700.0), np.full(target.shape, 700.0)
    for _ in range(110):
        middle = 0.5 * (low + high)
        r = np.sinh(middle)
        with np.errstate(all="ignore"):
            gain, cost = derivative(a, r), -derivative(b, r)
            ratio = np.log(cost) - np.log(gain)
        ratio = np.where(gain <= 0, np.inf, np.where(cost <= 0, -np.inf, ratio))
        below = (ratio < target) | (np.isneginf(ratio) & np.isneginf(target))
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    r = np.sinh(0.5 * (low + high))
    r = np.where(np.abs(r) > 1e300, np.copysign(np.inf, r), r)
    return r if isinstance(u, np.ndarray) else xp.namespace(u).asarray(r)


def implicit_slope(a: Formula, b: Formula, r: FloatArray) -> FloatArray:
    """``R' = 1 / (b''/b' - a''/a')`` at reward ``r``, from differentiating T1's stationarity."""
    with np.errstate(all="ignore"):
        curvature = derivative(b, r, 2) / derivative(b, r) - derivative(a, r, 2) / derivative(a, r)
        return np.asarray(np.where(np.isfinite(curvature), 1.0 / curvature, 0.0))


def potential_density(link: Callable[[FloatArray], Any], u: FloatArray) -> FloatArray:
    """``Phi(e^-u) = int_0^u R(v) e^-v dv`` by 256-point Gauss-Legendre quadrature (T5).

    Substituting x = e^-v in ``Phi(x) = -int_1^x R(-log t) dt``. For u = +inf (policy mass 0) the
    integral is cut at 745, where e^-v underflows; for u = -inf the caller's expert mass is 0.
    """
    nodes, weights = np.polynomial.legendre.leggauss(256)
    end = np.clip(u, -700.0, 60.0)[..., None]
    v = 0.5 * end * (nodes + 1.0)
    values = np.asarray(link(v)) * np.exp(-v)
    return np.asarray((0.5 * end * weights * values).sum(-1))
