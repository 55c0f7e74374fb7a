"""Separable losses of the implicit reward, minimised over normalised policies (reconstruction, T4).

    min over laws pi of  sum_i f_i(r_i),   f_i = -p_i a - q_i b,   r_i = s log(pi_i / w_i)

with ``s = beta + tau`` and the prior ``w = pi_t^{beta/s} pi_ref^{tau/s}``. Read as a function of
``pi_i`` alone, ``F_i(pi_i) = f_i(r_i)`` has the slope ``h_i = s f_i'(r_i)/pi_i`` and its curvature
has the sign of ``D_i = f_i'' - f_i'/s``. A stationary law has ``h_i(pi_i) = lambda`` for all i (or
pi_i = 0 and ``h_i(0) >= lambda``). What is used:

*Shape.* Where every ``F_i`` is convex up to one *fold* and concave from there on, ``h_i = lambda``
has one root on each part: the near branch, increasing in lambda, and the far branch, decreasing.
With ``A = a'/s - a''`` and ``B = b'/s - b''``, ``D = p A + q B`` has that sign pattern for all p,
q >= 0 iff ``(A, B)`` starts in the first quadrant and turns clockwise once B < 0. Algebra for the
registered objectives: quadratic a, b (SPIF, IQ-Learn, policy-only, SPPO): (A, B) runs along a line
down and reaches B = 0 first; logistic (AIRL, SPACE): D / s(r) s(-r) is a concave quadratic in
s(r), positive at 0; exponential and NWJ: ``p e^{-r}(1+1/s) + q e^r (1-1/s)`` and ``p/s + q
e^{r-1}(1-1/s)`` change sign once if s < 1, never otherwise; Brier: once if s <= 1, twice (concave,
convex, concave) if s > 1. :func:`single_fold` checks the pattern on a grid of rewards for any
objective.

*At most one outcome is far.* At a local minimum the Hessian, diagonal with entries ``F_i''``, is
positive semidefinite on the plane ``sum v = 0``, so at most one entry is negative.

*Z >= 1* (the two-step weights ``w e^{R/s}`` sum to at least one): then lambda <= 0, all r_i <=
R_i, all outcomes are on the near branch and the minimum is unique; for concave a, b it is the
minimum of a convex problem (``sum pi <= 1`` is convex in r) whatever the shape.

*No fold* below mass one (NWJ and exponential at s >= 1): the problem is convex in pi.

*Z < 1*: with j far at mass m, the others solve a convex problem of mass 1 - m with value ``V_j(1 -
m)`` convex in m, while ``F_j(m)`` is concave: chords of ``F_j`` plus tangents of ``V_j`` (slope
-lambda) bound the risk from below on every interval of m. Bisecting the intervals with the lowest
bound gives the global minimum with a certificate.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from theory import xp
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
LOWEST = -700.0
"""Log-probability (and reward over s) at which an outcome that wants no mass is given none."""
SPLIT = 97
"""Masses of an outcome beyond its fold that are looked at before the first crossing is refined."""


def slopes(formula: derivatives.Formula, r: FloatArray) -> list[FloatArray]:
    """First and second derivative of a formula at ``r``."""
    return derivatives.with_derivatives(formula, r, 2)[1:]


@lru_cache(maxsize=256)
def single_fold(obj: Objective, s: float, largest: float) -> bool:
    """Whether every ``F_i`` is convex, then concave, on a grid of rewards up to ``largest``."""
    r = np.sinh(np.linspace(-np.arcsinh(1e3 * (1.0 + s)), np.arcsinh(largest), 4001))
    with np.errstate(all="ignore"):
        (a1, a2), (b1, b2) = slopes(obj.a, r), slopes(obj.b, r)
        on_expert, on_own = a1 / s - a2, b1 / s - b2
    known = np.isfinite(on_expert) & np.isfinite(on_own)
    on_expert, on_own = on_expert[known], on_own[known]
    noise = 1e-12 * np.maximum(np.abs(on_expert), np.abs(on_own))
    folded = np.maximum.accumulate(on_own < -noise)
    angle = np.arctan2(on_own, on_expert)[folded]
    before = (on_expert >= -noise) & (on_own >= -noise)
    still = on_own[folded] <= noise[folded]
    return bool(np.all(before[~folded]) and np.all(still) and np.all(np.diff(angle) <= 1e-9))


@lru_cache(maxsize=256)
def concave(obj: Objective, s: float, largest: float) -> bool:
    """Whether a and b are concave on the same grid."""
    r = np.sinh(np.linspace(-np.arcsinh(1e3 * (1.0 + s)), np.arcsinh(largest), 4001))
    with np.errstate(all="ignore"):
        return bool(all(np.all(~(slopes(f, r)[1] > 1e-12)) for f in (obj.a, obj.b)))


@dataclass(frozen=True)
class OneStepProblem:
    """The losses ``f_i`` and the prior; arrays are (B, n), or (B, K, n) when :meth:`lifted`.

    Attributes:
        p, q: weights of ``-a`` and ``-b``, non-negative.
        log_w: log of the prior (unnormalised); -inf where the policy stays 0.
        best: the two-step reward ``R``, capped so that ``w e^{R/s}`` stays finite; may be -inf.
    """

    obj: Objective
    s: float
    p: FloatArray
    q: FloatArray
    log_w: FloatArray
    best: FloatArray

    @property
    def alive(self) -> BoolArray:
        """Outcomes that can have mass."""
        return np.isfinite(self.log_w)

    @property
    def start(self) -> FloatArray:
        """``log(w e^{R/s})``, the unnormalised two-step round; -inf where it has no mass."""
        return np.where(self.alive, self.log_w + self.best / self.s, -np.inf)

    @property
    def floor(self) -> FloatArray:
        """Lower end of the search for the log-probability."""
        prior = np.where(self.alive, self.log_w, 0.0)
        start = self.start
        vanishing = np.maximum(LOWEST, np.minimum(prior, 0.0) + LOWEST / self.s)
        return np.where(np.isfinite(start), np.minimum(start, 0.0) + LOWEST, vanishing)

    def rows(self, keep: Any) -> OneStepProblem:
        """The prompts that the index selects."""
        cut = (x[keep] for x in (self.p, self.q, self.log_w, self.best))
        return OneStepProblem(self.obj, self.s, *cut)

    def lifted(self) -> OneStepProblem:
        """The same problem with an axis of multipliers in the middle."""
        return self.rows((slice(None), None))

    def reward(self, log_pi: FloatArray) -> FloatArray:
        """Implicit reward ``s log(pi/w)``; 0 where nothing can have mass."""
        prior = np.where(self.alive, self.log_w, 0.0)
        return np.where(self.alive, self.s * (log_pi - prior), 0.0)

    def force(self, log_pi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``f'`` and ``f''`` in the reward, 0 where nothing can have mass."""
        r = self.reward(np.where(np.isneginf(log_pi), self.floor, log_pi))
        with np.errstate(all="ignore"):
            (a1, a2), (b1, b2) = slopes(self.obj.a, r), slopes(self.obj.b, r)
            first = -np.where(self.p > 0, self.p * a1, 0.0) - np.where(self.q > 0, self.q * b1, 0.0)
            second = -np.where(self.p > 0, self.p * a2, 0.0)
            second = second - np.where(self.q > 0, self.q * b2, 0.0)
        return np.where(self.alive, first, 0.0), np.where(self.alive, second, 0.0)

    def slope(self, log_pi: FloatArray) -> FloatArray:
        """``h = s f'/pi``, the slope of the loss in the outcome's mass."""
        with np.errstate(over="ignore", invalid="ignore"):
            h = self.s * self.force(log_pi)[0] * np.exp(-log_pi)
        return np.where(self.alive, np.where(np.isnan(h), 0.0, h), np.inf)  # 0 inf: at r = R

    def losses(self, log_pi: FloatArray) -> FloatArray:
        """``f_i`` per outcome."""
        r = self.reward(log_pi)
        with np.errstate(all="ignore"):
            a, b = np.asarray(self.obj.a(r)), np.asarray(self.obj.b(r))
            on_expert = np.where(self.p > 0, self.p * a, 0.0)
            return np.where(self.alive, -on_expert - np.where(self.q > 0, self.q * b, 0.0), 0.0)


@dataclass(frozen=True)
class Found:
    """Stationary laws: log-policy (B, n) and, per prompt, multiplier and what is known of them.

    ``far`` is the outcome on its concave part (-1: none), ``fold`` the one beyond whose fold the
    near branch ended before it was normalised (-1: none), ``gap`` the certified distance of the
    risk to its global minimum (NaN: not certified), ``settled`` whether the equations hold.
    """

    log_pi: FloatArray
    multiplier: FloatArray
    far: FloatArray
    fold: FloatArray
    gap: FloatArray
    settled: BoolArray

    def put(self, keep: Any, other: Found) -> None:
        """Overwrite the prompts selected by ``keep``."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[keep] = getattr(other, name)


def newton(prob: OneStepProblem, log_pi: FloatArray, multiplier: FloatArray) -> Found:
    """Newton's method on ``s f' = lambda pi``, ``sum pi = 1`` from a given point, all prompts.

    Outcomes that start at a mass that underflows stay there. Whatever it converges to is
    stationary; which branch each outcome is on is read from the curvature afterwards.
    """
    x, lam = log_pi.copy(), multiplier.copy()
    on = (x > 1.5 * LOWEST) & prob.alive
    settled = np.zeros(lam.shape, dtype=bool)
    curvature = np.ones_like(x)
    for _ in range(60):
        at = np.where(on, x, 0.0)
        g, dg = prob.force(at)
        pi = np.where(on, np.exp(np.minimum(at, 50.0)), 0.0)
        with np.errstate(all="ignore"):
            curvature = np.where(on, dg - g / prob.s, 1.0)
            jacobian = np.where(on, prob.s**2 * dg - lam[:, None] * pi, 1.0)
            residual = np.where(on, prob.s * g - lam[:, None] * pi, 0.0)
            ratio = np.where(on, pi / jacobian, 0.0)
            change = (1.0 - pi.sum(-1) + (ratio * residual).sum(-1)) / (ratio * pi).sum(-1)
            step = np.where(on, ratio * change[:, None] - residual / jacobian, 0.0)
        bad = ~np.isfinite(step).all(-1) | ~np.isfinite(change)
        step, change = np.where(bad[:, None], 0.0, step), np.where(bad, 0.0, change)
        size = np.abs(step).max(-1)
        relative = (np.abs(step) / (1.0 + np.abs(np.where(on, x, 0.0)))).max(-1)
        # a far outcome amplifies rounding: its mass is asked for to 1e-14, its logarithm to 1e-9;
        # where the curvature nearly vanishes, the equations to rounding
        small = (pi * np.abs(step)).max(-1) <= 1e-14
        with np.errstate(invalid="ignore"):
            noise = 1e-13 * (prob.s * np.abs(g) + np.abs(lam[:, None]) * pi)
            solved = (np.abs(residual) <= noise).all(-1) | (small & (relative <= 1e-9))
        settled = ~bad & solved & (np.abs(pi.sum(-1) - 1.0) <= 1e-12)
        damping = np.minimum(1.0, 2.0 / np.maximum(size, 1e-300))
        damping = np.where(settled & (size > 1e-9), 0.0, damping)
        x = np.where(on, x + damping[:, None] * step, x)
        lam = lam + damping * change
        if np.all(settled | bad):
            break
    negative = on & (curvature < 0)
    far = np.where(negative.any(-1), np.argmin(np.where(on, curvature, np.inf), axis=-1), -1)
    settled &= negative.sum(-1) <= 1
    none = np.full(lam.shape, -1)
    return Found(x, lam, far, none, np.full(lam.shape, np.nan), settled)


def fold_toward(prob: OneStepProblem, toward: FloatArray) -> FloatArray:
    """Where the curvature of ``F_i`` turns negative between the two-step mass and ``toward``."""
    inside = np.clip(np.where(prob.alive, prob.start, prob.floor), prob.floor, 0.0)
    outside = np.broadcast_to(toward, inside.shape).copy()

    def convex(x: FloatArray) -> BoolArray:
        g, dg = prob.force(x)
        with np.errstate(all="ignore"):
            return np.asarray(dg - g / prob.s > 0)

    never = convex(outside)
    for _ in range(64):
        middle = 0.5 * (inside + outside)
        ok = convex(middle)
        inside, outside = np.where(ok, middle, inside), np.where(ok, outside, middle)
    return np.where(never, toward, inside)


def near(prob: OneStepProblem, lam: FloatArray, low: FloatArray, high: FloatArray) -> FloatArray:
    """Log-mass with ``h = lam`` on the convex part [low, high]; an end where there is no root.

    Safeguarded Newton's method, elementwise, on the elements that have not settled. Outcomes that
    stay at a vanishing floor get -inf.
    """
    whole = np.broadcast_arrays(lam, low, high, prob.p, prob.q, prob.log_w, prob.best)
    shape = whole[0].shape
    lam, low, high, *rest = (np.ravel(x) for x in whole)
    flat = OneStepProblem(prob.obj, prob.s, *rest)

    def excess(
        part: OneStepProblem, at: FloatArray, x: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        g, dg = part.force(x)
        # a force that underflowed below the two-step mass is still negative
        g = np.where((g == 0) & (x < part.start - 1.0), -np.inf, g)
        with np.errstate(all="ignore"):
            pull = at * np.exp(x)
            return prob.s * g - pull, prob.s**2 * dg - pull

    at_low, at_high = excess(flat, lam, low)[0] >= 0, excess(flat, lam, high)[0] <= 0
    found = np.where(at_low, low, np.where(at_high, high, np.clip(flat.start, low, high)))
    left, right = low.copy(), high.copy()
    active = np.flatnonzero(~(at_low | at_high | ~flat.alive))
    for sweep in range(200):
        if len(active) == 0:
            break
        x = found[active]
        value, rate = excess(flat.rows(active), lam[active], x)
        right[active] = np.where(value > 0, x, right[active])
        left[active] = np.where(value > 0, left[active], x)
        with np.errstate(all="ignore"):
            step = x - value / rate
        usable = (rate > 0) & (step >= left[active]) & (step <= right[active])
        if sweep % 4 == 3:
            usable &= np.abs(step - x) <= 1e-3
        moved = np.where(usable, step, 0.5 * (left[active] + right[active]))
        found[active] = moved
        active = active[np.abs(moved - x) > 1e-13 * (1.0 + np.abs(x))]
    vanished = np.isneginf(flat.start) & at_low
    return np.where(flat.alive & ~vanished, found, -np.inf).reshape(shape)


def _mass(log_pi: FloatArray) -> FloatArray:
    return np.asarray(np.exp(log_pi).sum(-1))


def _continued(prob: OneStepProblem, shaped: bool) -> Found:
    """The near branch followed from lambda = 0 to normalisation, over its fold if it must be."""
    rows = len(prob.p)
    start, floor = prob.start, prob.floor
    top = np.minimum(np.where(np.isfinite(start), start, floor), 0.0)
    up = np.asarray(xp.logsumexp(start)) < 0
    right = np.where(up[:, None], fold_toward(prob, np.zeros_like(top)), top)
    left = np.where(up[:, None], np.minimum(top, right), floor)
    if not shaped:
        left = np.where(up[:, None], left, fold_toward(prob, floor))
    ends = prob.slope(right)
    hi = np.where(up, ends.min(-1), 0.0)
    first = np.where(up, np.argmin(ends, axis=-1), -1)
    lo = np.zeros(rows)
    for power in range(-4, 60):
        short = ~up & (_mass(near(prob, lo[:, None], left, right)) > 1.0)
        if not short.any():
            break
        lo = np.where(short, -(8.0**power), lo)
    stuck = up & (_mass(near(prob, hi[:, None], left, right)) < 1.0)
    for _ in range(100):
        middle = 0.5 * (lo + hi)
        heavy = _mass(near(prob, middle[:, None], left, right)) > 1.0
        hi, lo = np.where(heavy & ~stuck, middle, hi), np.where(heavy | stuck, lo, middle)
        if np.all((hi - lo <= 1e-9 * np.abs(hi)) | stuck):
            break
    lam = np.where(stuck, hi, 0.5 * (lo + hi))
    found = newton(prob, near(prob, lam[:, None], left, right), lam)
    if stuck.any():
        found.put(stuck, _over_the_fold(prob.rows(stuck), first[stuck], right[stuck]))
    return found


def _over_the_fold(prob: OneStepProblem, j: Any, fold: FloatArray) -> Found:
    """Beyond its fold outcome j takes mass and lambda falls again: the first normalised point.

    The curve is followed in the mass of j: ``lambda = h_j`` there, and the others are on their
    near branch at that lambda. The total mass starts below one, rises, and ends above it; where it
    has a peak below one in between, a local minimum is over, and the branch *ended* at its fold.
    """
    row = np.arange(len(j))
    lifted, floor = prob.lifted(), np.minimum(prob.floor, fold)
    own = OneStepProblem(
        prob.obj, prob.s, *(x[row, j][:, None] for x in (prob.p, prob.q, prob.log_w, prob.best))
    )

    def laws_at(mine: FloatArray) -> tuple[FloatArray, FloatArray]:
        log_pi = near(lifted, own.slope(mine)[..., None], floor[:, None], fold[:, None])
        log_pi[row, :, j] = mine
        return log_pi, _mass(log_pi)

    grid = fold[row, j][:, None] * np.linspace(1.0, 0.0, SPLIT)
    mass = laws_at(grid)[1]
    at = np.maximum(np.argmax(mass >= 1.0, axis=-1), 1)
    left, right = grid[row, at - 1], grid[row, at]
    peaked, low, top, highest = _peak(lambda mine: laws_at(mine)[1], grid, mass, at)
    earlier = peaked & (highest >= 1.0)  # the mass is one twice within a cell of the grid
    left, right = np.where(earlier, low, left), np.where(earlier, top, right)
    for _ in range(4):
        fine = np.linspace(left, right, 17, axis=-1)
        first = np.maximum(np.argmax(laws_at(fine)[1] >= 1.0, axis=-1), 1)
        left, right = fine[row, first - 1], fine[row, first]
    mine = right[:, None]
    found = newton(prob, laws_at(mine)[0][:, 0], own.slope(mine)[:, 0])
    return replace(found, fold=np.where(peaked & ~earlier, j, -1))


def _peak(
    mass_at: Callable[[FloatArray], FloatArray], grid: FloatArray, mass: FloatArray, end: Any
) -> tuple[BoolArray, FloatArray, FloatArray, FloatArray]:
    """Whether the mass has a peak before ``end``; if so from where, where, and how high.

    A peak that cannot reach one is not refined any further.
    """
    row, beside = np.arange(len(grid)), np.full((len(grid), 1), np.inf)
    rises = mass >= np.concatenate([-beside, mass[:, :-1]], axis=-1)
    falls = mass >= np.concatenate([mass[:, 1:], beside], axis=-1)
    peaks = rises & falls & (np.arange(grid.shape[1]) < end[:, None])
    peak = np.argmax(np.where(peaks, mass, -np.inf), axis=-1)
    low, high = grid[row, np.maximum(peak - 1, 0)], grid[row, peak + 1]
    start, top, highest = low, grid[row, peak], mass[row, peak]
    hopeful = peaks.any(-1)
    for _ in range(10):
        if not hopeful.any():
            break
        fine = np.linspace(low, high, 17, axis=-1)
        found = mass_at(fine)
        best = np.argmax(found, axis=-1)
        before, after = np.maximum(best - 1, 0), np.minimum(best + 1, 16)
        top, highest = fine[row, best], found[row, best]
        low, high = fine[row, before], fine[row, after]
        # a concave peak is no higher above its highest point than that is above a neighbour
        above = highest - np.minimum(found[row, before], found[row, after])
        hopeful &= (highest < 1.0) & (highest + above >= 1.0)
    return peaks.any(-1), start, top, highest


def solve_near(prob: OneStepProblem, shaped: bool, convex: bool) -> Found:
    """The branch continued from lambda = 0 (from pi_t where the law is there), for each prompt.

    Any stationary law without a far outcome is on it, for each ``F_i`` has one convex part; so
    Newton's method from the two-step round is tried first, then lambda is bracketed.
    """
    start = prob.start
    z = np.asarray(xp.logsumexp(start))
    begin = np.where(prob.alive, start - np.where(np.isfinite(z), z, 0.0)[:, None], -np.inf)
    at = np.where(np.isfinite(begin), begin, 0.0)
    force = np.where(np.isfinite(begin), prob.force(at)[0], 0.0)
    found = newton(prob, begin, prob.s * force.sum(-1))
    # an outcome of two-step mass 0 may still want mass at lambda > 0
    unsure = ~found.settled | (found.far >= 0) | ~np.isfinite(z)
    unsure |= (z < 0) & (np.isneginf(start) & prob.alive).any(-1)
    if unsure.any():
        found.put(unsure, _continued(prob.rows(unsure), shaped))
    g, dg = prob.force(np.zeros_like(start))
    no_fold = (~prob.alive | (dg > g / prob.s)).all(-1)
    least = ((z >= 0) & (shaped or convex)) | (no_fold & shaped)
    found.gap[found.settled & least] = 0.0
    return found
