"""Probability laws ``(..., n)`` (leading axes are prompts): validation and divergences, in nats.

A probability of 0 on both sides is padding and contributes nothing to any divergence.
"""

from __future__ import annotations

import numbers
from typing import Any

import numpy as np
from scipy.special import rel_entr, xlogy

from theory.errors import refuse
from theory.result import FloatArray

SUM_TOLERANCE = 1e-8
NARROW = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 5e-2}
"""How far the sum of a law may miss 1 by the rounding of its own type, many outcomes included."""


def is_real(x: Any) -> bool:
    """Whether ``x`` is one real number, numpy's scalars included; a truth value is none, and no
    whole number beyond the floating-point range is."""
    if not isinstance(x, numbers.Real) or isinstance(x, bool):
        return False
    try:
        float(x)
    except OverflowError:
        return False
    return True


def as_numbers(x: Any) -> FloatArray:
    """The values as float64 (same shape), torch detached. TypeError, ValueError: no numbers."""
    if hasattr(x, "detach"):
        x = x.detach().cpu().double()
    x = np.asarray(x)
    if x.dtype.kind in "cSUmM":  # numpy would drop imaginary parts and read texts and times
        raise TypeError(f"{x.dtype} values")
    if x.dtype.kind == "O" and any(isinstance(v, (str, bytes)) for v in x.flat):
        raise TypeError("texts among the values")
    try:
        return x.astype(np.float64, copy=False)
    except OverflowError:
        raise ValueError("a whole number beyond the floating-point range") from None


def law_problems(law: Any, name: str, outcomes: int | None = None) -> list[str]:
    """List what keeps ``law`` from being an array of probabilities ``(..., n)``."""
    try:
        array = as_numbers(law)
    except (TypeError, ValueError) as error:
        return [f"{name}: not an array of numbers ({error})"]
    if array.ndim == 0 or array.size == 0:
        lacks = "prompts" if array.ndim and array.shape[-1] else "outcomes"
        return [f"{name}: shape {array.shape} has no {lacks}; needed is (..., n), all >= 1"]
    problems = []
    if outcomes is not None and array.shape[-1] != outcomes:
        problems.append(f"{name}: {array.shape[-1]} outcomes on the last axis, needed {outcomes}")
    total = array.sum(-1)
    if not (array.min(initial=0.0) >= 0 and np.all(np.isfinite(total))):
        for bad, what in ((~np.isfinite(array), "not finite"), (array < 0, "negative")):
            if bad.any():
                where = tuple(int(i) for i in np.argwhere(bad)[0])
                problems.append(
                    f"{name}: {what} at {where} ({array[where]}); needed are values in [0, 1]"
                )
    if not problems:
        off = ~(np.abs(total - 1.0) <= rounding_of(law, SUM_TOLERANCE))
        if np.any(off):
            where = tuple(int(i) for i in np.argwhere(off)[0])
            problems.append(
                f"{name}: sums to {np.asarray(total)[where]:.9g} at prompt {where}; needed is 1"
            )
    return problems


def rounding_of(array: Any, double: float) -> float:
    """How far sums may miss: ``double``, or the rounding of a narrower type of the array's own."""
    kind = str(getattr(array, "dtype", "")).split(".")[-1]
    return max(double, NARROW.get(kind, 0.0))


def _as_float64(law: Any) -> FloatArray:
    """The law in float64; one of a narrower type is normalised again there."""
    array = as_numbers(law)
    narrow = rounding_of(law, SUM_TOLERANCE) > SUM_TOLERANCE
    return array / array.sum(-1, keepdims=True) if narrow else array


def check_laws(**laws: Any) -> tuple[FloatArray, ...]:
    """Return the laws as float64 arrays of one common shape (..., n), or refuse with all problems.

    A law that needs no conversion is returned as it is, not copied.
    """
    problems = [p for name, law in laws.items() for p in law_problems(law, name)]
    arrays: list[FloatArray] = []
    if not problems:
        arrays = [_as_float64(law) for law in laws.values()]
        shapes = {name: a.shape for name, a in zip(laws, arrays, strict=True)}
        if len({a.shape[-1] for a in arrays}) > 1:
            problems.append(f"laws differ in the number of outcomes: {shapes}")
        elif len(set(shapes.values())) > 1:
            try:
                arrays = [np.array(a) for a in np.broadcast_arrays(*arrays)]
            except ValueError:
                problems.append(f"laws' prompt axes do not broadcast: {shapes}")
    refuse(problems)
    return tuple(arrays)


def support_problems(inner: Any, inner_name: str, outer: Any, name: str) -> list[str]:
    """Say where ``inner`` puts mass and ``outer`` none; laws, or masks of their supports."""
    bad = (inner > 0) & (outer == 0)
    if not bad.any():
        return []
    where = tuple(int(i) for i in np.argwhere(bad)[0])
    return [
        f"{inner_name} has mass at {where} where {name} has none; "
        f"needed is support({inner_name}) within support({name})"
    ]


def log_law(law: FloatArray) -> FloatArray:
    """Logarithm (nats, same shape) with -inf at 0, without a warning."""
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(law))


def log_ratio(expert: FloatArray, policy: FloatArray) -> FloatArray:
    """``u = log p/q`` (..., n), nats: +-inf where one side is 0, 0 on padding (both sides 0)."""
    with np.errstate(invalid="ignore"):
        u = log_law(expert) - log_law(policy)
    return np.where((expert == 0) & (policy == 0), 0.0, u)


def expect(law: FloatArray, value: FloatArray) -> FloatArray:
    """``E_law[value]``, (..., n) to (...); entries of probability 0 are ignored, infinite too."""
    return np.asarray(np.sum(law * np.where(law > 0, value, 0.0), axis=-1))


def kl(p: FloatArray, q: FloatArray) -> FloatArray:
    """Kullback-Leibler divergence ``KL(p || q)``, shape (...); any non-negative measures."""
    return np.asarray(rel_entr(p, q).sum(-1))


def log_quotient(q: FloatArray, p: FloatArray) -> FloatArray:
    """``log q/p`` (nats, elementwise) of positive numbers, exact also where q is next to p."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (q - p) / p
        return np.where(np.abs(change) < 0.5, np.log1p(change), np.log(q) - np.log(p))


def without_subnormals(p: FloatArray) -> FloatArray:
    """Positive probabilities (same shape) raised to 1e-300, so that their ratios are finite."""
    return np.where(p > 0, np.maximum(p, 1e-300), p)


def kl_stable(p: FloatArray, q: FloatArray) -> FloatArray:
    """``KL(p || q)`` of laws as ``sum p (x - 1 - log x)``, ``x = q/p``.

    Terms are non-negative, so outcomes do not cancel: relative error about 1e-16 / max |x - 1|.
    """
    p = without_subnormals(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.where(p > 0, (q - p) / np.where(p > 0, p, 1.0), 0.0)
        term = np.where(p > 0, p * (change - log_quotient(q, p)), 0.0)
    return np.asarray((term + np.where(p > 0, 0.0, q)).sum(-1))


def kl_of_logratio(p: FloatArray, u: FloatArray, q: FloatArray) -> FloatArray:
    """``KL(p || q)`` of laws from ``u = log p/q`` as ``sum p (e^-u - 1 + u)``.

    Every term is non-negative (relative error about 1e-16 / max |u|); far away, where p or q
    underflows, it falls back on ``q - p + p u``.
    """
    near = np.where(np.abs(u) < 1.0, u, 0.0)
    with np.errstate(invalid="ignore"):
        far = q - p + p * u
    term = np.where(np.abs(u) < 1.0, p * (np.expm1(-near) + near), far)
    return np.asarray(np.where(p > 0, term, q).sum(-1))


def entropy(p: FloatArray) -> FloatArray:
    """Shannon entropy (...) of laws (..., n), nats."""
    return np.asarray(-xlogy(p, p).sum(-1))


def total_variation(p: FloatArray, q: FloatArray) -> FloatArray:
    """Total variation distance (...) of laws (..., n), in [0, 1]."""
    return np.asarray(0.5 * np.abs(p - q).sum(-1))


def triangular(p: FloatArray, q: FloatArray) -> FloatArray:
    """Triangular discrimination ``Delta = sum (p - q)^2 / (p + q)``, shape (...), in [0, 2]."""
    total = p + q
    return np.asarray((np.square(p - q) / np.where(total > 0, total, 1.0)).sum(-1))


def js(p: FloatArray, q: FloatArray) -> FloatArray:
    """Jensen-Shannon divergence (...) with equal weights, nats, in [0, log 2]."""
    middle = 0.5 * (p + q)
    return 0.5 * (kl(p, middle) + kl(q, middle))


def pearson(p: FloatArray, q: FloatArray) -> FloatArray:
    """Pearson ``chi^2(p || q) = sum (p - q)^2 / q``, shape (...), no unit."""
    with np.errstate(divide="ignore", invalid="ignore"):
        term = np.square(p - q) / q
    return np.asarray(np.where((p == 0) & (q == 0), 0.0, term).sum(-1))


def random_law(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 1.0) -> FloatArray:
    """Draw laws ``(..., n)`` as softmax of normal logits of standard deviation ``spread``."""
    logits = spread * rng.standard_normal(shape)
    weight = np.exp(logits - logits.max(-1, keepdims=True))
    return np.asarray(weight / weight.sum(-1, keepdims=True))
