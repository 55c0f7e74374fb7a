"""Global minimum over normalised policies, with a certificate, where Z < 1 (reconstruction, T4).

See :mod:`theory.rounds.one_step_problem` for the argument: at most one outcome j is far, and for
each j the risk is a concave plus a convex function of its mass m. All j share one grid of
multipliers: with the others on their near branch at lambda, ``m = 1 - N(lambda) + near_j(lambda)``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from theory.result import FloatArray
from theory.rounds.one_step_near import Found, fold_toward, near, newton, solve_near
from theory.rounds.one_step_problem import OneStepProblem

TOLERANCE = 1e-10
"""Certified gap relative to max(1, |risk|)."""
CELLS = 8000
"""Outcomes times prompts treated at once, to bound memory."""
ROUNDS = 60
SPLITS = 6


def solve_global(prob: OneStepProblem, shaped: bool, convex: bool) -> Found:
    """Global minimum per prompt; ``gap`` is NaN where the shape of the losses is not known.

    There the search is run for its candidates alone: its bounds would hold for no one.
    """
    found = solve_near(prob, shaped, convex)
    open_ = np.flatnonzero(~(found.gap <= 0.0))
    size = max(1, CELLS // prob.p.shape[-1])
    for at in range(0, len(open_), size):
        keep = open_[at : at + size]
        rows = Found(*(getattr(found, name)[keep] for name in Found.__dataclass_fields__))
        found.put(keep, _search(prob.rows(keep), rows))
    if not shaped:
        found.gap[open_] = np.nan
    return found


@dataclass
class _Grid:
    """Values at multipliers ``lam`` (B, K), ascending; outcomes on the last axis."""

    lam: FloatArray
    mass: FloatArray
    clipped: FloatArray
    others: FloatArray
    own: FloatArray
    pull: FloatArray


def _grid(prob: OneStepProblem, lam: FloatArray, floor: FloatArray, fold: FloatArray) -> _Grid:
    """Mass of each outcome were it far, its loss there and the value of the others."""
    lifted = prob.lifted()
    log_pi = near(lifted, lam[..., None], floor[:, None], fold[:, None])
    pi, losses = np.exp(log_pi), lifted.losses(log_pi)
    mass = 1.0 - pi.sum(-1, keepdims=True) + pi
    clipped = np.clip(mass, np.exp(fold)[:, None], 1.0)
    log_mass = np.log(np.maximum(clipped, 1e-304))
    own = lifted.losses(log_mass)
    others = losses.sum(-1, keepdims=True) - losses
    return _Grid(lam, mass, clipped, others, own, lifted.slope(log_mass))


def _bounds(prob: OneStepProblem, grid: _Grid) -> FloatArray:
    """Lower bound of the risk between neighbouring multipliers (B, K-1, n); inf where none is."""
    a, b = slice(None, -1), slice(1, None)
    lam_a, lam_b = grid.lam[:, a, None], grid.lam[:, b, None]
    large, small = grid.clipped[:, a], grid.clipped[:, b]
    f_large, f_small = grid.own[:, a], grid.own[:, b]
    with np.errstate(all="ignore"):
        steep = np.where(large > small, (f_large - f_small) / (large - small), 0.0)
        kink = grid.others[:, b] - grid.others[:, a]
        kink = kink + lam_b * grid.mass[:, b] - lam_a * grid.mass[:, a]
        kink = np.clip(np.nan_to_num(kink / (lam_b - lam_a)), small, large)

    def bound(m: FloatArray) -> FloatArray:
        tangent_a = grid.others[:, a] - lam_a * (m - grid.mass[:, a])
        tangent_b = grid.others[:, b] - lam_b * (m - grid.mass[:, b])
        return f_small + steep * (m - small) + np.maximum(tangent_a, tangent_b)

    lowest = np.minimum(np.minimum(bound(small), bound(large)), bound(kink))
    # a stationary law here has h_j(m) = lambda, and h_j falls from m = small to m = large
    room = 1e-9
    possible = (grid.pull[:, a] <= lam_b * (1 + room)) & (grid.pull[:, b] >= lam_a * (1 - room))
    possible &= (large > small) & prob.alive[:, None]
    return np.where(possible, lowest, np.inf)


def _search(prob: OneStepProblem, start: Found) -> Found:
    fold, floor = fold_toward(prob, np.zeros_like(prob.p)), prob.floor
    floor = np.minimum(floor, fold)
    highest = prob.slope(fold).min(-1)
    share = np.concatenate([[0.0], np.geomspace(1e-14, 1.0, 29)])
    grid = _grid(prob, highest[:, None] * share, floor, fold)
    start_risk = prob.losses(start.log_pi).sum(-1)
    start_risk = np.where(start.settled, start_risk, np.inf)
    sweep = 0
    while True:
        bound = _bounds(prob, grid)
        feasible = (grid.mass > np.exp(fold)[:, None]) & prob.alive[:, None]
        value = np.where(feasible, grid.own + grid.others, np.inf)
        best = np.minimum(start_risk, value.min((-2, -1)))
        tolerance = TOLERANCE * np.maximum(1.0, np.abs(best))
        per_interval = bound.min(-1)
        wanted = per_interval < (best - tolerance)[:, None]
        if sweep == ROUNDS or not wanted.any():
            return _finished(prob, start, start_risk, grid, value, bound, floor, fold)
        order = np.argsort(np.where(wanted, per_interval, np.inf), axis=-1)[:, :SPLITS]
        left, right = (np.take_along_axis(grid.lam, order + k, -1) for k in (0, 1))
        middle = np.where(left > 0, np.sqrt(left) * np.sqrt(right), 1e-3 * right)
        middle = np.where(left > 0.5 * right, 0.5 * (left + right), middle)
        # prompts that are done repeat a point that they have
        middle = np.where(np.take_along_axis(wanted, order, -1), middle, left)
        grid = _merge(grid, _grid(prob, middle, floor, fold))
        sweep += 1


def _finished(
    prob: OneStepProblem,
    start: Found,
    start_risk: FloatArray,
    grid: _Grid,
    value: FloatArray,
    bound: FloatArray,
    floor: FloatArray,
    fold: FloatArray,
) -> Found:
    """The best candidate, made exact by Newton's method, with its gap to the lowest bound."""
    row = np.arange(len(prob.p))
    flat = value.reshape(len(row), -1).argmin(-1)
    k, j = flat // value.shape[-1], flat % value.shape[-1]
    dumped = value.min((-2, -1)) < start_risk
    lam = grid.lam[row, k]
    log_pi = near(prob, lam[:, None], floor, fold)
    log_pi[row, j] = np.where(dumped, np.log(grid.clipped[row, k, j]), log_pi[row, j])
    polished = newton(prob, log_pi, lam)
    less = polished.settled & (prob.losses(polished.log_pi).sum(-1) <= start_risk)
    dumped &= less | ~start.settled
    ours = Found(*(getattr(start, name).copy() for name in Found.__dataclass_fields__))
    ours.put(dumped, Found(*(getattr(polished, n)[dumped] for n in Found.__dataclass_fields__)))
    risk = prob.losses(ours.log_pi).sum(-1)
    gap = np.maximum(risk - np.minimum(bound.min((-2, -1)), start_risk), 0.0)
    closed = ours.settled & (gap <= 10 * TOLERANCE * np.maximum(1.0, np.abs(risk)))
    ours.gap[:] = np.where(closed, gap, np.nan)
    ours.fold[:] = -1
    return ours


def _merge(grid: _Grid, new: _Grid) -> _Grid:
    lam = np.concatenate([grid.lam, new.lam], axis=1)
    order = np.argsort(lam, axis=1, kind="stable")
    parts = [np.take_along_axis(lam, order, 1)]
    for name in ("mass", "clipped", "others", "own", "pull"):
        both = np.concatenate([getattr(grid, name), getattr(new, name)], axis=1)
        parts.append(np.take_along_axis(both, order[..., None], 1))
    return _Grid(*parts)
