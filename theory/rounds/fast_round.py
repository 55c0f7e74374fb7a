"""One exact two-step round on large laws: ``pi_{t+1} ∝ pi_t e^{R(log p/pi_t)/beta}`` (T1, T2).

The same numbers as the plain expression, in blocks that stay in cache, on several threads, without
temporaries of the size of the laws. The chi^2 mixture (SPIF) needs no logarithm: its reward is
``(p - q)/(2 c (alpha p + (1 - alpha) q))``, so up to a factor that normalisation removes

    pi_{t+1} ∝ q exp(-k q/(alpha/(1-alpha) p + q)),      k = 1/(2 c alpha (1 - alpha) beta).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from theory import laws
from theory.errors import refuse
from theory.objectives import Objective
from theory.objectives.pointwise import ChiSquareMixture
from theory.result import FloatArray

BLOCK = 1 << 16  # entries; fewer and larger calls, as threads take turns between them
SMALL = 1e-290  # below it a ratio may leave the floating-point range: the careful formula is used
LARGE = 300.0  # exponents up to here neither overflow nor lose a weight
Kernel = Callable[[FloatArray, FloatArray, FloatArray, FloatArray, Any], FloatArray]


def step(
    obj: Objective,
    expert: FloatArray,
    policy: FloatArray,
    beta: float,
    out: FloatArray | None = None,
    threads: int | None = None,
) -> FloatArray:
    """Next policy of a two-step round without anchor.

    Args:
        obj: objective with a link; ``beta``: weight of the KL step, > 0.
        expert: law p, contiguous float64 (..., n); that it is a law is not checked here.
        policy: law pi_t, contiguous float64, the same shape; the objective's opponent, where
            that is another law (alpha_spin).
        out: where the result goes (also ``policy`` itself); allocated if not given.
        threads: default: the cores that this process may use.

    Returns:
        ``pi_{t+1}`` (..., n); an outcome without mass keeps none.

    Raises:
        Unavailable: no link. InvalidInput: arrays or beta; all problems at once.
    """
    obj.require("link")
    refuse(_problems(expert, policy, out, beta, threads))
    result = np.empty_like(policy) if out is None else out
    if expert.size == 0:
        return result
    n = expert.shape[-1]
    p, q, w = (x.reshape(-1, n) for x in (expert, policy, result))
    delta = laws.triangular(p, q)[:, None] if obj.has_gain else None
    kernel = _kernel(obj, float(beta))
    workers = threads or available_cores()
    if n <= BLOCK:
        _whole_rows(kernel, p, q, w, delta, workers)
    else:
        for row in range(p.shape[0]):  # prompts with more than BLOCK outcomes each
            _one_row(kernel, p[row], q[row], w[row], None if delta is None else delta[row], workers)
    return result


def available_cores() -> int:
    """Cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def _problems(expert: Any, policy: Any, out: Any, beta: Any, threads: Any) -> list[str]:
    found = []
    arrays = {"expert": expert, "policy": policy} | ({} if out is None else {"out": out})
    for name, x in arrays.items():
        if not isinstance(x, np.ndarray) or x.dtype != np.float64 or x.ndim == 0:
            found.append(f"{name}: needed is a float64 numpy array (..., n)")
        elif not x.flags.c_contiguous:
            found.append(f"{name}: needed is a C-contiguous array")
        elif isinstance(expert, np.ndarray) and x.shape != expert.shape:
            found.append(f"{name}: shape {x.shape}, needed is the expert's {expert.shape}")
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 < beta < math.inf:
        found.append(f"beta={beta!r}; needed is a finite number > 0")
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        found.append(f"threads={threads!r}; needed is an integer >= 1 or None")
    return found


# --- weights of a block: q e^{exponent - shift}, and that shift ---------------------------------


def _kernel(obj: Objective, beta: float) -> Kernel:
    """Function of blocks (p, q, scratch, w, delta): fills w with weights, returns the shift."""
    if isinstance(obj, ChiSquareMixture):
        k = 0.5 / (obj.c * obj.alpha * (1.0 - obj.alpha) * beta)
        odds = obj.alpha / (1.0 - obj.alpha)
        if k <= LARGE:
            return _rational(k, odds)
    return _general(obj, beta)


_ZERO = np.zeros(1)


def _rational(k: float, odds: float) -> Kernel:
    def weights(
        p: FloatArray, q: FloatArray, x: FloatArray, w: FloatArray, delta: Any
    ) -> FloatArray:
        if odds == 1.0:
            np.add(p, q, out=x)
        else:
            np.multiply(p, odds, out=x)
            np.add(x, q, out=x)
        if x.min() == 0.0:  # padding
            np.maximum(x, 5e-324, out=x)
        np.divide(q, x, out=x)
        np.multiply(x, -k, out=x)
        np.exp(x, out=x)
        np.multiply(q, x, out=w)
        return _ZERO

    return weights


def _general(obj: Objective, beta: float) -> Kernel:
    def weights(
        p: FloatArray, q: FloatArray, x: FloatArray, w: FloatArray, delta: Any
    ) -> FloatArray:
        if p.min() >= SMALL and q.min() >= SMALL:
            np.divide(p, q, out=x)
            np.log(x, out=x)
            reward = np.asarray(obj.link(x, delta))
            np.multiply(reward, 1.0 / beta, out=x)
            top = x.max(-1, keepdims=True)
            if float(np.max(top - x.min(-1, keepdims=True))) <= LARGE:
                np.subtract(x, top, out=x)
                np.exp(x, out=x)
                np.multiply(q, x, out=w)
                return top
        return _careful(obj, beta, p, q, w, delta)

    return weights


def _careful(
    obj: Objective, beta: float, p: FloatArray, q: FloatArray, w: FloatArray, delta: Any
) -> FloatArray:
    """The same with zeros, denormal masses and exponents of any size, by log-weights."""
    with np.errstate(all="ignore"):
        normal = (p >= SMALL) & (q >= SMALL)  # there log(p/q) has the smaller rounding
        u = np.where(normal, np.log(p / q), laws.log_ratio(p, q))
        exponent = np.asarray(obj.link(u, delta)) / beta
        log_w = np.where(q > 0, laws.log_law(q) + exponent, -np.inf)
    top = log_w.max(-1, keepdims=True)
    top = np.where(np.isfinite(top), top, -1e300)
    np.exp(log_w - top, out=w)
    return top


# --- blocks and threads -------------------------------------------------------------------------


def _map(task: Callable[[int, int], None], count: int, workers: int) -> None:
    """Run ``task(first, last)`` on consecutive shares of ``range(count)``."""
    workers = max(1, min(workers, count))
    ends = [count * i // workers for i in range(workers + 1)]
    if workers == 1:
        task(0, count)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(task, ends[:-1], ends[1:]))


def _scratch(
    p: FloatArray, q: FloatArray, w: FloatArray, shape: tuple[int, ...]
) -> FloatArray | None:
    """Room for a block's intermediate values; None if the result's own can be used."""
    in_place = np.may_share_memory(w, p) or np.may_share_memory(w, q)
    return np.empty(shape) if in_place else None


def _whole_rows(
    kernel: Kernel, p: FloatArray, q: FloatArray, w: FloatArray, delta: Any, workers: int
) -> None:
    """Rows that fit into a block: weights and normalisation in one visit."""
    rows, n = p.shape
    many = max(1, BLOCK // n)

    def task(first: int, last: int) -> None:
        scratch = _scratch(p, q, w, (many, n))
        for start in range(first, last, many):
            part = slice(start, min(start + many, last))
            x = w[part] if scratch is None else scratch[: part.stop - start]
            kernel(p[part], q[part], x, w[part], None if delta is None else delta[part])
            w[part] /= w[part].sum(-1, keepdims=True)

    _map(task, rows, workers)


def _one_row(
    kernel: Kernel, p: FloatArray, q: FloatArray, w: FloatArray, delta: Any, workers: int
) -> None:
    """One long row: weights and sums of the blocks, then their scales."""
    n = p.size
    blocks = -(-n // BLOCK)
    total, log_scale = np.zeros(blocks), np.zeros(blocks)

    def weigh(first: int, last: int) -> None:
        scratch = _scratch(p, q, w, (BLOCK,))
        for i in range(first, last):
            part = slice(i * BLOCK, min((i + 1) * BLOCK, n))
            x = w[part] if scratch is None else scratch[: part.stop - part.start]
            log_scale[i] = kernel(p[part], q[part], x, w[part], delta)[0]
            total[i] = w[part].sum()

    _map(weigh, blocks, workers)
    shift = np.exp(log_scale - log_scale.max())
    factor = shift / np.dot(shift, total)

    def scale(first: int, last: int) -> None:
        for i in range(last - 1, first - 1, -1):  # the blocks written last are still in cache
            part = slice(i * BLOCK, min((i + 1) * BLOCK, n))
            np.multiply(w[part], factor[i], out=w[part])

    _map(scale, blocks, workers)
