"""Least points of smooth risks of a few parameters: a round in a class, or its linearisation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize

from theory.errors import NotConverged
from theory.result import FloatArray

NEWTON_STEPS = 60
FLAT = 1e-9
"""Curvature, of the largest, below which a direction is flat: no step is taken along it."""


def minimum(
    risk: Callable[[Any], Any], start: FloatArray, tolerance: float, what: str
) -> FloatArray:
    """Stationary point (d,) of least risk near ``start`` (d,).

    Newton's method with exact derivatives where it descends from the start, BFGS before it
    elsewhere; in flat directions it stays where it is.

    Args:
        risk: torch parameters (d,) to a number, twice differentiable.
        start: where to begin.
        tolerance: largest entry of the gradient at the end.
        what: stopped, in the message of NotConverged.

    Raises:
        NotConverged: the gradient stays above the tolerance; ``solution`` is where it stopped.
    """
    import torch

    def at(theta: FloatArray) -> tuple[float, FloatArray, Callable[[], FloatArray]]:
        with torch.enable_grad():
            point = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
            value = risk(point)
            (slope,) = torch.autograd.grad(value, point, create_graph=True)

        def hessian() -> FloatArray:
            if not slope.requires_grad:  # of a linear risk
                return np.zeros((len(theta), len(theta)))
            rows = [torch.autograd.grad(s, point, retain_graph=True)[0] for s in slope]
            return np.asarray(torch.stack(rows).numpy())

        return float(value.detach()), slope.detach().numpy(), hessian

    def newton(theta: FloatArray) -> tuple[FloatArray, float]:
        value, gradient, hessian = at(theta)
        for _ in range(NEWTON_STEPS):
            size = np.abs(gradient).max()
            if size <= 1e-14 or not np.isfinite(gradient).all():
                break
            step = np.linalg.lstsq(hessian(), -gradient, rcond=FLAT)[0]
            after = at(theta + step)
            if not after[0] <= value + 1e-13 * (1.0 + abs(value)):
                break
            if size < tolerance and np.abs(after[1]).max() >= size:
                break
            theta, (value, gradient, hessian) = theta + step, after
        return theta, float(np.abs(gradient).max())

    theta, size = newton(np.array(start, dtype=np.float64))
    if not size <= tolerance:
        with np.errstate(all="ignore"):  # of a risk without a least point
            options = {"gtol": 0.1 * tolerance}
            found = minimize(lambda x: at(x)[:2], start, jac=True, method="BFGS", options=options)
        theta, size = newton(found.x)
    if not size <= tolerance:
        raise NotConverged(f"{what} stopped at gradient {size:.1e}", theta)
    return theta
