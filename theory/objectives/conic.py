"""Conic building blocks for cvxpy (imported where used: the language-model code runs without it).

``expert`` is a constant array, ``policy`` a cvxpy expression of the same shape; both may be
measures of any mass. Each function returns an expression and the constraints it needs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

Conic = tuple[Any, list[Any]]


def kl(left: Any, right: Any) -> Conic:
    """``sum left log(left/right)``: exponential cones."""
    import cvxpy as cp

    return cp.sum(cp.rel_entr(left, right)), []


def squared_over(numerator: Any, denominator: Any) -> Conic:
    """``sum numerator^2 / denominator``: one rotated second-order cone an entry (quad-over-lin)."""
    import cvxpy as cp

    size = int(np.prod(numerator.shape))
    bound = cp.Variable(size)
    x, y = cp.reshape(numerator, (size,), "C"), cp.reshape(denominator, (size,), "C")
    cone = cp.SOC(y + bound, cp.vstack([2.0 * x, y - bound]), axis=0)
    return cp.sum(bound), [cone]


def weighted_squares(difference: Any, weight: np.ndarray) -> Conic:
    """``sum weight difference^2``: a quadratic."""
    import cvxpy as cp

    return cp.sum_squares(cp.multiply(np.sqrt(weight), difference)), []


def absolute(difference: Any) -> Conic:
    """``sum |difference|``: linear."""
    import cvxpy as cp

    return cp.norm1(difference), []


def root_product(expert: np.ndarray, policy: Any) -> Conic:
    """``sum sqrt(expert policy)``: concave, second-order cones."""
    import cvxpy as cp

    return cp.sum(cp.multiply(np.sqrt(expert), cp.sqrt(policy))), []


def scaled(factor: float, form: Conic) -> Conic:
    """``factor`` times a form."""
    return factor * form[0], form[1]


def plus(first: Conic, second: Conic) -> Conic:
    """Sum of two forms."""
    return first[0] + second[0], [*first[1], *second[1]]
