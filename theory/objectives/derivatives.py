"""Derivatives and inverses of the definitions' formulas, so that nothing is typed twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from theory import xp
from theory.errors import InvalidInput
from theory.result import FloatArray

BESIDE = 1e-6
"""Distance from a point at which a formula's slope or curvature tells of both its sides."""
Formula = Callable[[Any], Any]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
Domain = tuple[float, float]
ALL: Domain = (-np.inf, np.inf)
FAR = 700.0
"""Log-ratio (nats) up to which exp(u) and exp(-u) are representable."""
BISECTIONS = 75
"""From a width of 1400 down to one unit in the last place of numbers near 1e-4."""
EPSILON, LEAST = 2.0**-52, 2e-20
"""Steps of ``arcsinh(r)`` below which an inverse is not sought: relative and absolute."""


def derivative(formula: Formula, x: Any, order: int = 1) -> FloatArray:
    """Elementwise derivative (shape of x) of a formula written for torch, by autograd in float64.

    Raises:
        InvalidInput: the formula fails on torch tensors.
    """
    return with_derivatives(formula, x, order)[order]


def with_derivatives(formula: Formula, x: Any, order: int = 1) -> list[FloatArray]:
    """Value and elementwise derivatives up to ``order``, as :func:`derivative`, from one graph."""
    import torch

    with torch.enable_grad():  # also within a caller's no_grad
        point = torch.tensor(np.asarray(x, dtype=np.float64), requires_grad=True)
        try:
            value = formula(point)
            if not isinstance(value, torch.Tensor):
                raise TypeError(f"it returns {type(value).__name__}")
        except (TypeError, RuntimeError, AttributeError, NotImplementedError) as error:
            said = str(error).partition("\n")[0]
            raise InvalidInput(
                f"a formula does not take torch tensors ({type(error).__name__}: {said}); write "
                "it with the functions of theory.xp, which take numpy and torch alike"
            ) from error
        found = [value]
        for left in reversed(range(order)):
            if not value.requires_grad:  # a formula constant in x
                value = torch.zeros_like(point, requires_grad=False)
            else:
                # of the sum of its entries, without the sum's own node in the graph
                (value,) = torch.autograd.grad(
                    value, point, torch.ones_like(value, requires_grad=False), create_graph=left > 0
                )
            found.append(value)
        return [np.asarray(v.detach().numpy()) for v in found]


def invert(log_odds: Formula, target: FloatArray, inside: FloatArray) -> FloatArray:
    """Solve ``log_odds(r) = target`` for r in a bracket of ``s``, ``r = sinh(s)``, elementwise.

    ``log_odds`` increases in r and is NaN outside an interval around ``inside``, where it is taken
    as -+inf, so that bounded rewards come out at their bounds. The bracket grows from ``inside``
    and shrinks by Chandrupatla's rule (1997): interpolation where it is trusted, else bisection.
    """
    center = np.broadcast_to(np.arcsinh(inside), target.shape)

    def excess(s: FloatArray) -> FloatArray:
        ratio = log_odds(np.sinh(s))
        ratio = np.where(np.isnan(ratio), np.where(s < center, -np.inf, np.inf), ratio)
        below = (ratio < target) | (np.isneginf(ratio) & np.isneginf(target))
        size = np.abs(ratio - target)
        return np.where(below, -1.0, 1.0) * np.where(np.isfinite(size), size, np.inf)

    with np.errstate(all="ignore"):
        last, f_last = center, excess(center)
        end, f_end = -np.copysign(FAR, f_last), -np.copysign(np.inf, f_last)
        share, reach = np.full(target.shape, 0.0), 1.0
        for _ in range(2 * BISECTIONS):
            width, least = np.abs(end - last), EPSILON * np.abs(last) + LEAST
            settled = (f_last == 0) | (width <= 2.0 * least)
            if settled.all():
                break
            unseen = np.isinf(f_end) & (np.abs(end) == FAR)
            share = np.where(unseen, np.minimum(reach / width, 0.5), share)
            share = np.where(settled, 0.0, np.clip(share, least / width, 1.0 - least / width))
            s = last + share * (end - last)
            f = excess(s)
            same = np.signbit(f) == np.signbit(f_last)
            third, f_third = np.where(same, last, end), np.where(same, f_last, f_end)
            end, f_end = np.where(same, end, last), np.where(same, f_end, f_last)
            last, f_last, reach = s, f, 4.0 * reach
            share = _interpolated((last, end, third), (f_last, f_end, f_third))
        return np.asarray(np.sinh(np.where(np.abs(f_last) <= np.abs(f_end), last, end)))


def _interpolated(x: tuple[FloatArray, ...], f: tuple[FloatArray, ...]) -> FloatArray:
    """The share of the way from the first to the second point at which to look for the root.

    That of the inverse parabola through all three where it is monotone in between, else 1/2.
    """
    (x1, x2, x3), (f1, f2, f3) = x, f
    xi, phi = (x1 - x2) / (x3 - x2), (f1 - f2) / (f3 - f2)
    share = f1 / (f2 - f1) * f3 / (f2 - f3)
    share = share + (x3 - x1) / (x2 - x1) * f1 / (f3 - f1) * f2 / (f3 - f2)
    trusted = (np.square(phi) < xi) & (np.square(1.0 - phi) < 1.0 - xi) & np.isfinite(share)
    return np.where(trusted, share, 0.5)


def invert_link(a: Formula, b: Formula, u: Any, domain: Domain = ALL) -> Any:
    """Solve ``log(-b'(r)/a'(r)) = u`` for r in its domain (:func:`invert`, T1).

    Outside the interval where ``a' > 0 > b'``, and where a or b is undefined (NaN), the ratio is
    taken as its limit, so bounded links come out at their bounds. Returns what ``u`` is, numpy or
    torch, in its dtype; torch gradients are those of the implicit function, from inside at an end
    of the domain.

    Raises:
        InvalidInput: no reward was found at which ``a' > 0 > b'``.
    """
    target = np.asarray(u.detach().cpu().double() if hasattr(u, "detach") else u, dtype=np.float64)
    inside, (low, high), (least, most) = _reach(a, b, (float(domain[0]), float(domain[1])))
    above, below = (target >= most) & (target > least), (target <= least) & (target < most)
    r = np.where(above, high, np.where(below, low, np.nan))
    inner = ~(above | below | np.isnan(target))
    r[inner] = invert(lambda x: log_odds(a, b, x, domain), target[inner], np.asarray(inside))
    r = np.where(np.abs(r) > 1e300, np.copysign(np.inf, r), r)
    if not hasattr(u, "detach"):
        return r.astype(u.dtype) if isinstance(u, np.ndarray) else r
    namespace = xp.namespace(u)
    found = namespace.asarray(r, dtype=u.dtype, device=u.device)
    if not u.requires_grad:
        return found
    slope = implicit_slope(a, b, r)
    jumps = np.isinf(slope) & np.isfinite(domain).all()  # of linear payoffs, from end to end
    slope = np.where((target > most) | (target < least) | jumps, 0.0, slope)
    slope = namespace.asarray(slope, dtype=u.dtype, device=u.device)
    moved = namespace.where(namespace.isfinite(u), u - u.detach(), namespace.zeros_like(u))
    # where the slope is not known the gradient alone is NaN, and not the reward too
    return namespace.where(namespace.isfinite(slope), found + slope * moved, found)


@lru_cache(maxsize=64)
def _reach(a: Formula, b: Formula, domain: Domain) -> tuple[float, FloatArray, FloatArray]:
    """A reward near 0 at which ``a' > 0 > b'``, the least and largest reward, and the log-ratios
    from which on they are the answer: infinite, or those a rounding before a bound or at an end of
    the domain."""
    inside = float(np.sinh(_interior(a, b, domain)))
    ends = np.array(ALL)
    r = invert(lambda x: log_odds(a, b, x, domain), ends, np.asarray(inside))
    odds = log_odds(a, b, r + 1e-14 * (inside - r), domain)
    open_ = _leaves_range(a, b, r, inside)
    odds, r = np.where(open_ | np.isnan(odds), ends, odds), np.where(open_, ends, r)
    held = held_from(a, b, domain)
    return inside, np.where(np.isinf(held), r, domain), np.where(np.isinf(held), odds, held)


def held_from(a: Formula, b: Formula, domain: Domain) -> FloatArray:
    """The two log-ratios beyond which an end of the domain holds the reward; infinite where the
    payoffs' own range ends before it."""
    with np.errstate(all="ignore"):
        odds = log_odds(a, b, np.array(domain), domain)
    return np.where(np.isfinite(odds) & np.isfinite(domain), odds, ALL)


def log_odds(a: Formula, b: Formula, r: FloatArray, domain: Domain = ALL) -> FloatArray:
    """``log(-b'/a')`` at r; NaN outside of the domain and of the interval where a, b are defined
    and ``a' > 0 > b'``."""
    with np.errstate(all="ignore"):
        (on_expert, gain), (on_own, fall) = with_derivatives(a, r), with_derivatives(b, r)
        defined = ~np.isnan(on_expert + on_own) & (gain > 0) & (fall < 0)
        defined &= (r >= domain[0]) & (r <= domain[1])
        return np.where(defined, np.log(-fall) - np.log(gain), np.nan)


def _leaves_range(a: Formula, b: Formula, r: FloatArray, inside: float) -> BoolArray:
    """Whether a' or b' has under- or overflowed just before r, which is then no bound."""
    near = r + 1e-3 * (inside - r)
    out = np.zeros(r.shape, dtype=bool)
    with np.errstate(all="ignore"):
        for formula in (a, b):
            change = np.abs(derivative(formula, near) / derivative(formula, inside))
            out |= (change < 1e-12) | (change > 1e200)
    return out


def _interior(a: Formula, b: Formula, domain: Domain) -> float:
    """The s of a reward ``sinh(s)`` of the domain, near 0, at which ``a' > 0 > b'``."""
    side = np.geomspace(1e-6, 700.0, 200)
    low, high = np.clip(domain, -1e6, 1e6)  # a narrow domain may lie between two of the grid
    grid = np.concatenate([-side, [0.0], side, np.arcsinh(np.linspace(low, high, 33))])
    grid = np.unique(grid)
    ratio = log_odds(a, b, np.sinh(grid), domain)
    found = np.flatnonzero(np.isfinite(ratio))
    if not len(found):
        raise InvalidInput(
            "no reward was found at which a increases and b decreases (a' > 0 > b'); "
            "check their signs, or write link_formula"
        )
    nearest = found[np.argmin(np.abs(grid[found]))]
    # the interval around it alone: far out a formula may have overflowed to other signs
    runs = np.split(found, np.flatnonzero(np.diff(found) > 1) + 1)
    around = next(run for run in runs if nearest in run)
    first, last = ratio[around[[0, -1]]]
    bounded = np.isfinite(domain).all()  # where linear payoffs have one, at an end
    if len(around) > 1 and not (last > first or (bounded and last == first)):
        raise InvalidInput(
            "the payoffs have no best response: -b'/a' does not increase with the reward (they "
            "are linear or convex); add a penalty, or write link_formula"
        )
    return float(grid[nearest])


def implicit_slope(a: Formula, b: Formula, r: FloatArray, domain: Domain = ALL) -> FloatArray:
    """``R' = 1 / (b''/b' - a''/a')`` at reward ``r``, from differentiating T1's stationarity.

    0 at the bound of a bounded link and at an end of the domain; NaN where the payoffs are too flat
    to tell (underflow).
    """
    held = (r <= domain[0]) | (r >= domain[1])
    r = np.where(r == 0.0, LEAST, r)  # payoffs with a root at 0 have a slope beside it
    curvature = np.zeros(np.shape(r))
    with np.errstate(all="ignore"):
        for formula, sign in ((b, 1.0), (a, -1.0)):
            _, first, second = with_derivatives(formula, r, 2)
            flat = (np.abs(first) < 1e-305) & (np.abs(second) < 1e-305)
            curvature = curvature + np.where(flat, np.nan, sign * second / first)
        return np.asarray(np.where(np.isinf(curvature) | held, 0.0, 1.0 / curvature))


# --- the integral of a link -----------------------------------------------------------------------

KNOTS = (1.0, 4.0, 16.0, 64.0, 256.0)
"""Nats within which ``R(v) e^-v`` is integrated apart, as its size changes by the exponential."""
AGREED = 1e-12
"""Share of an interval's own integral by which its halves may differ from it."""
LEAST_REWARD = 1e-3
"""Added to rewards for that: near 0 they are no better than rounding of the log-ratio."""
HALVINGS = 64
MOST_HALVED = 1024
"""Intervals halved at once (more of more outcomes), so that a noisy link comes to an end."""


def potential_density(link: Callable[[FloatArray], Any], u: FloatArray) -> FloatArray:
    """``Phi(e^-u) = int_0^u R(v) e^-v dv`` by adaptive quadrature (T5), for links with corners.

    Substituting x = e^-v in ``Phi(x) = -int_1^x R(-log t) dt``. For u = +inf (policy mass 0) the
    integral is cut at 700, and infinite if ``R(v) e^-v`` has not vanished by then; for u = -inf
    the caller's expert mass is 0.
    """
    u = np.asarray(u, dtype=np.float64)
    density = np.where(np.isnan(u), np.nan, 0.0)
    with np.errstate(over="ignore", invalid="ignore"):
        for side in (-1.0, 1.0):
            there = side * u > 0
            if there.any():
                reach = np.minimum(side * u[there], FAR)
                density[there] = side * _integrals(link, side, reach)
        diverges = float(np.asarray(link(np.asarray(FAR)))) * np.exp(-FAR) > 1e-12
    return np.where(np.isposinf(u) & diverges, np.inf, density)


def _integrals(link: Callable[[FloatArray], Any], side: float, reach: FloatArray) -> FloatArray:
    """``int_0^x R(v) e^-v dy``, ``v = side y``, for every x of ``reach`` (m,).

    Summed over the intervals between neighbours, so that a corner is within one of them. Intervals
    that differ from their halves are halved on, down to rounding of what they are added to.
    """
    points = np.unique(np.concatenate([[0.0], np.minimum(KNOTS, reach.max()), reach]))
    left, right = points[:-1], points[1:]
    whole, size = _lobatto_sums(link, side, left, right)
    total, rounding = whole.copy(), EPSILON * np.cumsum(size)
    of, most = np.arange(len(left)), MOST_HALVED + len(left) // 8
    for _ in range(HALVINGS):
        middle = 0.5 * (left + right)
        ends = np.concatenate([left, middle, right]).reshape(3, -1)
        halves, size = (
            x.reshape(2, -1) for x in _lobatto_sums(link, side, ends[:2].ravel(), ends[1:].ravel())
        )
        change = halves.sum(0) - whole
        np.add.at(total, of, np.where(np.isnan(change), 0.0, change))  # infinite ones stay so
        excess = np.abs(change) / np.maximum(rounding[of], AGREED * size.sum(0))
        again = np.flatnonzero((excess > 1.0) & (left < middle) & (middle < right))
        if not len(again):
            break
        if len(again) > most:
            again = again[np.argsort(-excess[again])[:most]]
        left, right = ends[:2, again].ravel(), ends[1:, again].ravel()
        whole, of = halves[:, again].ravel(), np.tile(of[again], 2)
    return np.concatenate([[0.0], np.cumsum(total)])[np.searchsorted(points, reach)]


def _lobatto_sums(
    link: Callable[[FloatArray], Any], side: float, left: FloatArray, right: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The integral over each interval, and that of ``(|R| + LEAST_REWARD) e^-v``, its size."""
    nodes, weights = _gauss_lobatto()
    width = (right - left)[:, None]
    v = side * (left[:, None] + width * nodes)
    weight = width * weights * np.exp(-v)
    reward = np.asarray(link(v), dtype=np.float64)
    return (weight * reward).sum(-1), (weight * (np.abs(reward) + LEAST_REWARD)).sum(-1)


@lru_cache(maxsize=1)
def _gauss_lobatto(order: int = 16) -> tuple[FloatArray, FloatArray]:
    """Nodes and weights on [0, 1], with both ends, so that no jump near one is unseen."""
    last = np.polynomial.Legendre.basis(order - 1)
    x = np.concatenate([[-1.0], np.sort(last.deriv().roots()), [1.0]])
    x = 0.5 * (x - x[::-1])
    return 0.5 * (x + 1.0), 1.0 / (order * (order - 1) * np.square(last(x)))


# --- the range of a slope -------------------------------------------------------------------------

ZOOMS = 9  # by 20 each: from 0.04 nats to rounding
RESOLVED = 1e-6  # error of a log-ratio, of 1 + its size, that still tells a slope
TAIL = (100.0, 175.0, 250.0, 350.0, 500.0, 700.0)


def slope_range(
    link: Formula, odds: Formula | None = None, held: Sequence[float] | FloatArray = ALL
) -> tuple[float, float]:
    """Infimum and supremum of ``R'`` over all log-ratios; (NaN, NaN) where nothing is finite.

    On a grid dense within 40 nats, refined around an extreme inside, with the limits at both ends.
    An extreme that goes on growing (or going to 0) however near one looks is infinite (or 0).

    Args:
        link: ``R(u)``, nats, elementwise and written for torch.
        odds: of a link that is solved from payoffs ``u(R)``. Log-ratios that it does not give back
            are beyond what the payoffs' rounding resolves, and are left out.
        held: log-ratios beyond which the reward stays as it is, where that is known
            (:func:`held_from`); the slope there is 0, and at them that from inside.
    """
    side = np.concatenate([np.linspace(0.0, 40.0, 2001), TAIL])
    grid = np.clip(np.concatenate([-side[:0:-1], side]), *held)
    if np.isfinite(held).all():  # which may lie between two of them
        grid = np.concatenate([grid, np.linspace(held[0], held[1], 401)])
    grid = np.unique(grid)
    slope = _finite_slope(link, grid)
    known = np.isfinite(slope)
    if odds is not None:
        with np.errstate(all="ignore"):
            known &= np.abs(odds(np.asarray(link(grid))) - grid) <= RESOLVED * (1.0 + np.abs(grid))
    if known.sum() < 7:
        return np.nan, np.nan
    ticks = grid if odds is None else grid[known]  # an end may lie between two of them
    grid, slope = grid[known], slope[known]
    ends = [
        0.0 if np.isfinite(end) else _limit(link, edge)
        for edge, end in zip((grid[0], grid[-1]), held, strict=True)
    ]
    found = []
    for sign in (-1.0, 1.0):
        at = int(np.argmax(sign * slope))
        best = sign * slope[at]
        near = int(np.searchsorted(ticks, grid[at]))
        left, right = ticks[max(near - 1, 0)], ticks[min(near + 1, len(ticks) - 1)]
        seen = [best]
        for _ in range(ZOOMS):
            points = np.linspace(left, right, 41)
            values = np.nan_to_num(sign * _finite_slope(link, points), nan=-np.inf, posinf=-np.inf)
            top = int(np.argmax(values))
            seen.append(max(seen[-1], values[top]))
            left, right = points[max(top - 1, 0)], points[min(top + 1, 40)]
            # the middle is the best point before, so that no gain alone ends nothing
            if right - left < 1e-5 and abs(seen[-1] - seen[-2]) <= 1e-12 * abs(seen[-1]):
                break
        best = np.copysign(end_of([abs(value) for value in seen], 1.02), seen[-1])
        found.append(sign * max(best, *(sign * end for end in ends)))
    rounding = 1e-12 * float(
        slope[np.abs(grid) <= 1.0].max(initial=0.0)
    )  # of a link solved from payoffs
    return float(found[0]) if abs(found[0]) > rounding else 0.0, float(found[1])


def end_of(values: Sequence[float], factor: float) -> float:
    """Where positive values go that were found nearer and nearer to a point: on, to inf or 0, if
    each of the last three steps changed them by the factor or more, else to the last."""
    last = np.asarray(values[-4:], dtype=np.float64)
    if len(last) == 4:
        with np.errstate(all="ignore"):
            ratio = last[1:] / last[:-1]
        if np.all(ratio >= factor):
            return np.inf
        if np.all(ratio <= 1.0 / factor):
            return 0.0
    return float(last[-1])


def _finite_slope(link: Formula, u: FloatArray) -> FloatArray:
    with np.errstate(all="ignore"):
        return derivative(link, u)


def _limit(link: Formula, edge: float) -> float:
    """Limit of the slope beyond ``edge``, extrapolated from its changes at edge/4, edge/2, edge.

    Aitken's rule: changes in the ratio ``k`` per doubling add up to ``k/(1-k)`` times the last, so
    that a tail ``c + d/u`` (k = 1/2) or faster has its limit, and one that does not slow down
    (k >= 1: a logarithm, a power, an exponential) none: infinity, on the side it goes to.
    """
    far = _finite_slope(link, np.array([edge / 4, edge / 2, edge]))
    if not np.isfinite(far).all():
        return float(far[-1])
    first, last = np.diff(far)
    noise = 1e-9 * np.abs(far).max()
    if abs(far[-1]) <= noise:
        return 0.0
    if abs(last) <= noise:
        return float(far[-1])
    ratio = last / first if abs(first) > noise else np.inf
    if not abs(ratio) < 0.95:
        return float(np.copysign(np.inf, last))
    limit = float(far[-1] + last * ratio / (1.0 - ratio))
    return limit if limit * far[-1] > 0 else 0.0  # faster than Aitken's rule has it
