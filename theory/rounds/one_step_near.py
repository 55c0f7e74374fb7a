"""The near branch of a one-step problem: laws with every outcome on its convex part (T4).

See :mod:`theory.rounds.one_step_problem` for what is minimised and what is used. The branch is
continued from lambda = 0 to normalisation, and over the fold of one outcome where it must be;
Newton's method ends on the equations themselves, from any start.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from theory import xp
from theory.result import FloatArray
from theory.rounds.one_step_problem import LOWEST, BoolArray, OneStepProblem

SPLIT = 97
"""Masses of an outcome beyond its fold that are looked at before the first crossing is refined."""


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
