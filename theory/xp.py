"""Elementary functions written once for numpy and torch (through array-api-compat).

Every function keeps the dtype of its argument, is finite wherever the true value is representable,
and has a finite derivative there (torch autograd), also at log-ratios of +-700 nats.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

Array = Any
"""A numpy array, a torch tensor or a number."""


def namespace(*arrays: Array) -> ModuleType:
    """Return the array-API namespace of the arrays; numbers count as numpy."""
    found = [a for a in arrays if array_api_compat.is_array_api_obj(a)]
    return array_api_compat.array_namespace(*found) if found else np


def as_array(x: Array) -> Array:
    """Return ``x`` unchanged if it is an array, else as a float64 numpy array."""
    if array_api_compat.is_array_api_obj(x) and not isinstance(x, np.generic):
        return x
    return np.asarray(x, dtype=np.float64)


def exp(x: Array) -> Array:
    """Exponential; +inf where it exceeds the dtype, without a warning."""
    with np.errstate(over="ignore"):
        return namespace(x).exp(x)


def expm1(x: Array) -> Array:
    """``exp(x) - 1``, accurate near 0; +inf where it exceeds the dtype."""
    xp = namespace(x)
    with np.errstate(over="ignore"):
        if not hasattr(x, "requires_grad"):
            return xp.expm1(x)
        # torch's derivative, expm1(x) + 1, loses all digits far below 0
        far, zero = x < -1.0, xp.zeros_like(x)
        return xp.where(far, xp.exp(xp.where(far, x, zero)) - 1.0, xp.expm1(xp.where(far, zero, x)))


def tanh(x: Array) -> Array:
    """Hyperbolic tangent."""
    return namespace(x).tanh(x)


def softplus(x: Array) -> Array:
    """``log(1 + exp(x))`` as ``max(x, 0) + log1p(exp(-|x|))``."""
    xp = namespace(x)
    zero = xp.zeros_like(x)
    if not hasattr(x, "requires_grad"):
        return xp.logaddexp(zero, x)
    # torch's second derivative of logaddexp overflows from 355 nats on
    up = x >= 0
    return xp.where(up, x, zero) + xp.log1p(xp.exp(-xp.where(up, x, -x)))


def sigmoid(x: Array) -> Array:
    """Logistic function as ``exp(log_sigmoid(x))``: to full relative accuracy on both sides."""
    return exp(log_sigmoid(x))


def log_sigmoid(x: Array) -> Array:
    """``log s(x) = -softplus(-x)``."""
    return -softplus(-x)


def relu(x: Array) -> Array:
    """``max(x, 0)``."""
    xp = namespace(x)
    return xp.where(x > 0, x, xp.zeros_like(x))


def square(x: Array) -> Array:
    """Square; +inf where it exceeds the dtype."""
    with np.errstate(over="ignore"):
        return x * x


def sign(x: Array) -> Array:
    """Sign, 0 at 0."""
    return namespace(x).sign(x)


def logsumexp(x: Array, axis: int = -1) -> Array:
    """``log sum exp(x)`` over ``axis``; -inf for an empty sum (all entries -inf)."""
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    top = xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    with np.errstate(divide="ignore"):
        total = xp.log(xp.sum(xp.exp(x - top), axis=axis, keepdims=True))
    return xp.squeeze(total + top, axis=axis)


def log_normalise(x: Array, axis: int = -1) -> Array:
    """``x - logsumexp(x)``: the log-probabilities of the unnormalised log-weights ``x``.

    The maximum is taken off first, so that weights of any magnitude come out normalised.
    """
    xp = namespace(x)
    top = xp.max(x, axis=axis, keepdims=True)
    x = x - xp.where(xp.isfinite(top), top, xp.zeros_like(top))
    return x - xp.expand_dims(logsumexp(x, axis=axis), axis=axis)


def weighted_mean(value: Array, weight: Array | None, axis: int = -1) -> Array:
    """Mean of ``value`` under the non-negative ``weight`` (need not sum to one; None is uniform).

    Entries of weight 0 are ignored, whatever they hold (padding may be NaN or infinite).
    """
    xp = namespace(value, weight)
    if weight is None:
        return xp.mean(value, axis=axis)
    value, weight = xp.broadcast_arrays(value, weight)
    kept = xp.where(weight > 0, value, xp.zeros_like(value))
    return xp.sum(weight * kept, axis=axis) / xp.sum(weight, axis=axis)
