"""The array API for numpy and torch alike (through array-api-compat), and careful functions.

    from theory import xp

    xp.where(r > 0, xp.sqrt(1 + r * r), xp.log1p(xp.abs(r)))

takes numpy arrays, torch tensors and numbers; numbers may stand beside arrays. The functions
defined here keep the dtype of their argument, are finite wherever the true value is representable,
and have a finite derivative there (torch autograd), also at log-ratios of +-700 nats. Every other
function of the array API standard (``STANDARD``) is passed on to the library of its arguments.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any

import array_api_compat
import numpy as np

Array = Any
"""A numpy array, a torch tensor or a number."""


def namespace(*arrays: Array) -> ModuleType:
    """Return the array-API namespace of the arrays; numbers count as numpy."""
    found = {type(a): a for a in arrays if _is_array(a)}
    if len(found) != 1:
        return array_api_compat.array_namespace(*found.values()) if found else np
    ((kind, array),) = found.items()
    if kind not in _OF_KIND:
        _OF_KIND[kind] = array_api_compat.array_namespace(array)
    return _OF_KIND[kind]


_OF_KIND: dict[type, ModuleType] = {}
"""Namespace of a type of arrays, as every formula asks for it."""


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
    kept = weight * xp.where(weight > 0, value, xp.zeros_like(value))
    # torch's broadcast_arrays takes longer than all the rest
    return xp.sum(kept, axis=axis) / xp.sum(xp.broadcast_to(weight, kept.shape), axis=axis)


# --- the rest of the array API standard -----------------------------------------------------------

_OF_SEVERAL = """
where maximum minimum pow atan2 logaddexp hypot copysign add subtract multiply divide remainder
floor_divide equal not_equal less less_equal greater greater_equal
"""
_OTHERS = """
abs acos acosh all any asin asinh atan atanh broadcast_arrays ceil clip concat cos cosh
cumulative_sum expand_dims flip floor full_like isfinite isinf isnan log log10 log1p log2
logical_and logical_not logical_or max mean min ones_like permute_dims positive negative prod real
reciprocal reshape round signbit sin sinh sort sqrt squeeze stack std sum take tan trunc var
zeros_like
"""
MIXED = frozenset(_OF_SEVERAL.split())
"""Functions of several arrays, any of which may be a number."""
STANDARD = MIXED | frozenset(_OTHERS.split())
"""Functions of the array API standard that numpy and torch both have."""


def __getattr__(name: str) -> Callable[..., Any]:
    """The function of the array API of that name, for whatever arrays it is given."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in STANDARD:
        known = STANDARD | {k for k, v in globals().items() if callable(v) and k[0] != "_"}
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise AttributeError(f"theory.xp has no {name!r}: numpy and torch do not share it{hint}")
    return _standard(name)


@cache
def _standard(name: str) -> Callable[..., Any]:
    def apply(*given: Any, **options: Any) -> Any:
        arrays = given[0] if given and isinstance(given[0], (list, tuple)) else given
        space = namespace(*arrays)
        if name in MIXED:
            like = next((a for a in given[name == "where" :] if _is_array(a)), None)
            like = like if like is not None else next((a for a in given if _is_array(a)), None)
            if like is not None:
                given = tuple(a if _is_array(a) else _beside(space, a, like) for a in given)
        with np.errstate(all="ignore"):
            return getattr(space, name)(*given, **options)

    apply.__name__ = name
    return apply


def _is_array(x: Any) -> bool:
    return array_api_compat.is_array_api_obj(x) and not isinstance(x, np.generic)


def _beside(space: ModuleType, number: Any, like: Array) -> Array:
    """A number as an array of the dtype and device of its neighbour (beside a mask: float64)."""
    if space.isdtype(like.dtype, "real floating"):
        dtype = like.dtype
    else:
        dtype = space.float64 if isinstance(number, float) else None
    return space.asarray(number, dtype=dtype, device=array_api_compat.device(like))
