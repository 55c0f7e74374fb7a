"""One-step rounds along beta: the near branch, its fold as a point, and the other side (T4 e).

The curve of stationary laws (:mod:`theory.rounds.one_step_curve`) is followed by its arclength, so
that it may turn back in beta. It does where the Jacobian in (x, lambda) is singular: a *fold*,
where a minimum meets a saddle.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import brentq

from theory import arguments, laws, objectives
from theory.errors import NotConverged, Unavailable, refuse
from theory.objectives import Objective
from theory.result import FloatArray, Outcome, frame
from theory.rounds.one_step import one_step_round
from theory.rounds.one_step_curve import Curve, Point
from theory.rounds.one_step_problem import BoolArray

LARGEST, LEAST = 0.1, 1e-10
"""Arclength of a step: at most, and where the curve is given up."""
MOST_STEPS = 5000
SAME = 1e-12
"""Distance of values of log beta that are one."""
CLOSE = 1e-6
"""Largest difference in log-masses of two ways to one point."""


@dataclass(frozen=True)
class Fold:
    """A law at which the curve turns back in beta.

    Attributes:
        beta: its beta. policy: the law (n,). multiplier: its lambda.
        outcome: index of the outcome beyond its inflection, ``f'' < f'/s``.
        singular: smallest singular value of the Jacobian in (x, lambda) over its largest.
    """

    beta: float
    policy: FloatArray
    multiplier: float
    outcome: int
    singular: float


@dataclass(frozen=True)
class OneStepPath:
    """Stationary laws at the given betas in the order in which the curve meets them; M of them.

    Attributes:
        beta: (M,). policies: (M, n). rewards: (M, n) implicit, nats. multiplier, risk: (M,).
        side: (M,) how many folds lie before the point: 0 on the near branch.
        minimum: (M,) whether it is a local minimum over laws; a saddle if not.
        folds: those met, in order.
        outcome: converged if every beta was met on the near branch, or the curve turned at a fold.
        status: a sentence.
    """

    beta: FloatArray
    policies: FloatArray
    rewards: FloatArray
    multiplier: FloatArray
    risk: FloatArray
    side: np.ndarray[Any, np.dtype[np.int64]]
    minimum: BoolArray
    folds: tuple[Fold, ...]
    outcome: Outcome
    status: str

    @property
    def converged(self) -> bool:
        """Whether every beta was met on the near branch, or the curve turned before."""
        return self.outcome is Outcome.CONVERGED

    @property
    def fold(self) -> Fold | None:
        """The first fold, where the near branch ends; None if every beta lies on it."""
        return self.folds[0] if self.folds else None

    def to_frame(self) -> Any:
        """A pandas table, one row a point and outcome.

        Raises:
            InvalidInput: pandas is not installed.
        """
        point, outcome = np.indices(self.policies.shape).reshape(2, -1)
        told = ("beta", "side", "minimum", "multiplier", "risk")
        columns = {"point": point, "outcome": outcome}
        columns |= {name: getattr(self, name)[point] for name in told}
        return frame(columns | {"policy": self.policies, "reward": self.rewards})


def one_step_path(
    expert: Any,
    policy: Any,
    obj: Objective | str,
    beta: Any,
    ref: Any = None,
    tau: float = 0.0,
    *,
    turns: int = 0,
) -> OneStepPath:
    """Follow the one-step round of a pointwise loss as beta moves (reconstruction, T4 e).

    It starts from the near branch of :func:`one_step_round` at the first beta. Unlike that round,
    which is continued from the two-step weights at one beta, the path keeps to one minimum.

    Args:
        expert, policy: laws p and pi_t of one support, (n,).
        obj: objective with payoffs a, b of one response.
        beta: weights of the KL step, > 0, strictly rising or falling, (K,).
        ref, tau: reference and weight of the anchor.
        turns: folds that the curve is followed round; with 0 it stops at the first, which is in
            ``fold``, with 1 it goes back on the side of the saddles.

    Raises:
        InvalidInput: unusable arguments. Unavailable: no pointwise loss, so no fold (T3).
        NotConverged: the curve was lost; ``solution`` is the path so far.

    >>> p, q = [0.005, 0.005, 0.989, 0.001], [0.5, 0.49, 0.009, 0.001]
    >>> path = one_step_path(p, q, "spif", beta=[2.0, 1.5, 1.0])
    >>> path.beta.tolist(), round(path.fold.beta, 8), path.fold.outcome
    ([2.0, 1.5], 1.33937078, 3)
    """
    obj = objectives.of(obj)
    grid = _checked(obj, beta, ref, tau, turns)
    names = {"expert": expert, "policy": policy} | ({} if ref is None else {"ref": ref})
    p, q, *rest = laws.check_laws(**names)
    base = rest[0] if rest and tau > 0 else np.ones_like(q)
    problems = laws.support_problems(p, "expert", q, "policy")
    problems += laws.support_problems(q, "policy", p, "expert")
    problems += laws.support_problems(q, "policy", base, "ref")
    refuse([f"expert: shape {p.shape}; needed is one prompt, (n,)"] if p.ndim != 1 else problems)
    live = q > 0
    curve = Curve(obj, p[live], q[live], np.log(base[live]), float(tau), live)
    anchor: dict[str, Any] = {} if tau == 0 else {"ref": base, "tau": tau}
    near = one_step_round(p, q, obj, float(grid[0]), **anchor)
    start = curve.on_curve(near.reward[live], float(near.multiplier), float(grid[0]))
    return _follow(curve, start, grid, turns)


def _checked(obj: Objective, beta: Any, ref: Any, tau: Any, turns: Any) -> FloatArray:
    needed = "needed are finite numbers > 0, strictly rising or falling, at least one"
    problems = [*arguments.anchor(tau, ref), *arguments.whole("turns", turns)]
    try:
        grid = arguments.reals(beta)
    except (TypeError, ValueError):
        grid = np.zeros(0)
    good = grid.ndim == 1 and grid.size > 0 and bool(np.all(np.isfinite(grid) & (grid > 0)))
    if not good or not (np.all(np.diff(grid) > 0) or np.all(np.diff(grid) < 0)):
        problems.append(f"beta={beta!r}; {needed}")
    refuse(problems)
    obj.require("risk")
    if obj.form != "pointwise" or obj.needs:
        raise Unavailable(
            f"{obj.name} has no path of one-step rounds: needed is a loss of one response; of a "
            "loss of differences one step is the two-step round, which has no fold (T3)"
        )
    return grid


def _follow(curve: Curve, start: FloatArray, grid: FloatArray, turns: int) -> OneStepPath:
    goal = np.log(grid)
    way = -1.0 if goal[-1] < goal[0] else 1.0
    here = curve.point(start, np.append(np.zeros(len(start) - 1), way))
    met, sides, folds = [start], [0], list[Fold]()
    step, lost = 0.2 * LARGEST, False
    for _ in range(MOST_STEPS):
        if way * here.y[-1] >= way * goal[-1] or way * here.y[-1] < way * goal[0]:
            break
        new = _stepped(curve, here, step)
        if new is None:
            step *= 0.5
            lost = step < LEAST
            if lost:
                break
            continue
        ends = [0.0, step]
        if new.tangent[-1] * here.tangent[-1] < 0:  # the curve turns in between
            ends.insert(1, _turn(curve, here, step))
        for side, part in enumerate(pairwise(ends), start=len(folds)):
            if side <= turns:
                found = _crossings(curve, here, *part, goal)
                met += found
                sides += [side] * len(found)
        if len(ends) > 2:
            folds.append(_as_fold(curve, here, ends[1]))
            if len(folds) > turns:
                break
        here, step = new, min(1.5 * step, LARGEST)
    return _path(curve, met, sides, tuple(folds), grid, lost)


def _stepped(curve: Curve, here: Point, step: float) -> Point | None:
    """The point an arclength further, or None if it is too far to be sure of the same curve."""
    y = _along(curve, here, step)
    if y is None:
        return None
    weights = curve.weights(here.y)
    off = y - here.y - step * here.tangent
    try:
        new = curve.point(y, here.tangent)
    except np.linalg.LinAlgError:
        return None
    straight = (weights * new.tangent * here.tangent).sum() > 0.7
    near = (weights * off**2).sum() <= (0.3 * step) ** 2 and np.abs(off[:-2]).max() <= 0.1
    return new if near and straight and new.orientation == here.orientation else None


def _along(curve: Curve, here: Point, length: float) -> FloatArray | None:
    return curve.corrected(here.y + length * here.tangent, curve.weights(here.y) * here.tangent)


def _sure(curve: Curve, here: Point, length: float) -> FloatArray:
    """A point on the way of a step that was taken."""
    y = _along(curve, here, length)
    if y is None:
        raise NotConverged(f"{curve.obj.name}: the curve was lost next to beta={here.beta:.6g}")
    return y


def _turn(curve: Curve, here: Point, step: float) -> float:
    """Arclength from here at which the tangent has no part in beta."""

    def rise(length: float) -> float:
        return float(curve.point(_sure(curve, here, length), here.tangent).tangent[-1])

    return float(brentq(rise, 0.0, step, xtol=1e-13, rtol=1e-13))


def _crossings(
    curve: Curve, here: Point, start: float, end: float, goal: FloatArray
) -> list[FloatArray]:
    """Points at the given values of log beta on a part of a step that is monotone in beta."""
    before, after = (_sure(curve, here, at) for at in (start, end))
    first, last = float(before[-1]), float(after[-1])
    way = np.sign(last - first)
    between = (way * (goal - first) > SAME) & (way * (goal - last) <= SAME)
    out = []
    for value in sorted(goal[between], reverse=last < first):
        y = _crossing(curve, here, before, after, value)
        if y is None:  # next to a fold: by the arclength, of which beta is a function
            y = _searched(curve, here, start, end, value)
        out.append(y)
        before = y
    return out


def _crossing(
    curve: Curve, here: Point, before: FloatArray, after: FloatArray, value: float
) -> FloatArray | None:
    """The point at a log beta between two of the same step; None if it may be of another part.

    Its arclength from ``here`` says where it has to lie on the curve, and there it is.
    """
    share = (value - before[-1]) / (after[-1] - before[-1])
    found = curve.at_beta(before + share * (after - before), float(np.exp(value)))
    if found is None:
        return None
    row = curve.weights(here.y) * here.tangent
    low, length, high = (float(row @ (y - here.y)) for y in (before, found, after))
    if not low - SAME <= length <= high + SAME:
        return None
    there = _along(curve, here, length)
    return found if there is not None and np.abs(there - found)[:-2].max() <= CLOSE else None


def _searched(curve: Curve, here: Point, start: float, end: float, value: float) -> FloatArray:
    """The same by the root of log beta in the arclength."""

    def excess(length: float) -> float:
        return float(_sure(curve, here, length)[-1]) - value

    there = abs(excess(end)) <= SAME
    y = _sure(curve, here, end if there else float(brentq(excess, start, end, xtol=1e-14)))
    exact = curve.at_beta(y, float(np.exp(value)))
    close = exact is not None and np.abs(exact - y)[:-2].max() <= CLOSE
    return exact if exact is not None and close else y


def _as_fold(curve: Curve, here: Point, length: float) -> Fold:
    y = _sure(curve, here, length)
    singular = curve.equations(y)[1].at_fixed_beta().condition()
    policy = np.zeros(curve.live.shape)
    policy[curve.live] = np.exp(y[:-2])
    outcome = int(np.flatnonzero(curve.live)[np.argmin(curve.bend(y) / np.exp(y[:-2]))])
    return Fold(float(np.exp(y[-1])), policy, float(y[-2]), outcome, singular)


def _path(
    curve: Curve,
    met: list[FloatArray],
    sides: list[int],
    folds: tuple[Fold, ...],
    grid: FloatArray,
    lost: bool,
) -> OneStepPath:
    shape = (len(met), len(curve.live))
    policies, rewards = np.zeros(shape), np.zeros(shape)
    policies[:, curve.live] = [np.exp(y[:-2]) for y in met]
    rewards[:, curve.live] = [curve.reward(y) for y in met]
    reached = sides.count(0)
    said = f"{reached} of {len(grid)} betas on the near branch from beta={grid[0]:g}"
    if folds:
        said += f", which ends at a fold at beta={folds[0].beta:.10g}"
        said += f"; {len(met) - reached} points beyond it" if len(met) > reached else ""
    good = not lost and (bool(folds) or reached == len(grid))
    outcome = Outcome.CONVERGED if good else Outcome.NOT_CONVERGED
    if not good:
        said += f"; the curve was lost next to beta={np.exp(met[-1][-1]):.6g}"
    path = OneStepPath(
        beta=np.exp([y[-1] for y in met]),
        policies=policies,
        rewards=rewards,
        multiplier=np.array([y[-2] for y in met]),
        risk=np.array([curve.risk(y) for y in met]),
        side=np.array(sides),
        minimum=np.array([curve.is_minimum(y) for y in met]),
        folds=folds,
        outcome=outcome,
        status=f"{outcome.value}: {said}",
    )
    if not good:
        raise NotConverged(f"{curve.obj.name}: {path.status}", path)
    return path
