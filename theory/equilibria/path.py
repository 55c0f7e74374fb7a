"""The equilibria of T10 along the weight of the anchor, each point started from the last.

With ``x = log tau`` the stationary policy is a smooth curve (the value is tau-strongly convex), and
the implicit function theorem gives its tangent from numbers that Newton's method has anyway.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from theory import arguments, laws
from theory.equilibria import newton
from theory.equilibria.problem import Game, Kind, checked
from theory.equilibria.solve import TOLERANCE, certified, equilibrium, saddle_point
from theory.errors import InvalidInput, NotConverged, refuse
from theory.objectives import Objective
from theory.result import FloatArray, Outcome, Solution, frame, prompt_columns

MOST_POINTS = 10_000


@dataclass(frozen=True)
class Path:
    """The certified points of :func:`solve_path`; K points on the first axis, prompts on (...).

    Attributes:
        tau: weights of the anchor, (K,).
        policies, rewards: (K, ..., n); rewards in nats.
        primal, dual, gap: (K, ...) in nats, as in :class:`theory.Solution`.
        divergence: ``KL(pi||ref)`` (K, ...), which is the slope of the value in tau.
        speed: ``d pi / d log tau`` (K, ..., n); NaN where the solver has no tangent (tau = 0, and
            links that depend on both laws).
        iterations: (K,) evaluations of the pay.
        outcome: converged iff every point is. status: the same as a sentence.
    """

    tau: FloatArray
    policies: FloatArray
    rewards: FloatArray
    primal: FloatArray
    dual: FloatArray
    gap: FloatArray
    divergence: FloatArray
    speed: FloatArray
    iterations: np.ndarray[Any, np.dtype[np.int64]]
    outcome: Outcome
    status: str

    @property
    def converged(self) -> bool:
        """Whether every point met the tolerance."""
        return self.outcome is Outcome.CONVERGED

    def to_frame(self) -> Any:
        """A pandas table, one row a point and prompt.

        Raises:
            InvalidInput: pandas is not installed.
        """
        point, *prompts = np.indices(self.gap.shape).reshape(self.gap.ndim, -1)
        numbers = {name: getattr(self, name) for name in ("primal", "dual", "gap", "divergence")}
        return frame({"tau": self.tau[point]} | prompt_columns(prompts) | numbers)


def solve_path(
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: Any,
    kind: Kind = "saddle",
    *,
    largest_move: float | None = None,
    tolerance: float | None = None,
    raise_on_failure: bool = True,
) -> Path:
    """Saddle points or equilibria at a grid of anchors, each started from the last (T10).

    The value rises in tau, concave, with the slope ``KL(pi||ref)``; the policy goes from the expert
    (tau = 0) to the reference (tau to infinity).

    Args:
        expert, ref: laws p and pi_ref, (..., n), leading axes are prompts.
        obj: as in :func:`theory.saddle_point` or :func:`theory.equilibrium`.
        tau: weights of the anchor, >= 0, strictly rising or falling, (K,).
        kind: "saddle" or "equilibrium".
        largest_move: total variation between neighbours at most, on every prompt; points are added
            between the given ones until it holds. None: the given points alone.
        tolerance: on the certified gap of every point, nats; 1e-9 if not said.
        raise_on_failure: raise if a point stays above it.

    Raises:
        Unavailable, InvalidInput: as in :func:`theory.saddle_point`; a tau that is no such grid.
        NotConverged: see ``raise_on_failure``, or 10^4 points; ``.solution`` is the last one.

    >>> path = solve_path([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], "spif", tau=[0.1, 0.5, 2.0])
    >>> path.policies[:, 0].round(4).tolist(), path.divergence.round(3).tolist()
    ([0.6192, 0.4275, 0.2771], [0.461, 0.147, 0.019])
    """
    grid, problems = _grid(tau, largest_move)
    problems += arguments.choice("kind", kind, get_args(Kind))
    refuse(problems)
    first = checked(kind, expert, ref, obj, float(grid[0]), "fast", tolerance, 1)
    for value in (grid.min(), grid.max()):  # the supports that tau > 0 needs
        checked(kind, first.expert, first.ref, obj, float(value), "fast", tolerance, 1)
    limit = TOLERANCE["fast"] if tolerance is None else float(tolerance)
    points = list(_points(first, grid, largest_move, limit, raise_on_failure))
    taus = np.array([value for value, _, _ in points])
    found = [solution for _, solution, _ in points]
    policies = np.stack([each.policy for each in found])
    gaps = np.stack([each.gap for each in found])
    return Path(
        tau=taus,
        policies=policies,
        rewards=np.stack([each.reward for each in found]),
        primal=np.stack([each.primal for each in found]),
        dual=np.stack([each.dual for each in found]),
        gap=gaps,
        divergence=laws.kl_stable(policies, first.ref),
        speed=np.stack([speed for _, _, speed in points]),
        iterations=np.array([each.iterations for each in found]),
        **_ending(first, taus, gaps, found),
    )


def _ending(
    game: Game, taus: FloatArray, gaps: FloatArray, found: list[Solution]
) -> dict[str, Any]:
    lost = [i for i, each in enumerate(found) if not each.converged]
    said = f"{len(taus)} points of tau from {taus[0]:g} to {taus[-1]:g}, {game.describe()}"
    if lost:
        outcome = Outcome.NOT_CONVERGED
        why = f"{len(lost)} not converged, the first at tau={taus[lost[0]]:g}"
        return {"outcome": outcome, "status": f"{outcome.value}: {said}; {why}"}
    outcome = Outcome.CONVERGED
    worst = float(np.max(gaps, initial=0.0))
    return {
        "outcome": outcome,
        "status": f"{outcome.value}: {said}; largest certified gap {worst:.2g}",
    }


def _points(
    game: Game, grid: FloatArray, largest: float | None, limit: float, strict: bool
) -> Iterator[tuple[float, Solution, FloatArray]]:
    """Weight, certified point and tangent, one after the other."""
    if game.obj.law_dependent or game.has_gain:
        yield from _one_by_one(game, grid, largest, limit, strict)
        return
    last: newton.Stationary | None = None
    before: tuple[float, newton.Stationary] | None = None
    at, count = 0.0, 0
    for target in grid:
        if target == 0.0:
            nothing = certified(_at(game, 0.0), game.expert.copy(), 0, "tau = 0", limit, strict)
            yield 0.0, nothing, np.full(game.expert.shape, np.nan)
            continue
        goal, step = float(np.log(target)), np.inf
        while last is None or at != goal:
            if last is not None:
                way = goal - at
                if largest is not None:
                    pace = 0.5 * np.abs(last.policy_slope).sum(-1).max()
                    step = min(step, 0.9 * largest / pace) if pace > 0 else step
                to = goal if abs(way) <= step else at + np.sign(way) * step
                start = last.ahead(to - at, before)
            else:
                to, start = goal, None
            tau = float(target) if to == goal else float(np.exp(to))
            here = _at(game, tau)
            found = newton.trace(here.separable(), start)
            moved = 0.0 if last is None else laws.total_variation(found.policy, last.policy).max()
            if largest is not None and moved > largest:
                step = 0.5 * abs(to - at)
                continue
            before = None if last is None else (to - at, last)
            last, at, step, count = found, to, np.inf, count + 1
            solver = "Newton on one multiplier"
            solution = certified(here, found.policy, found.evaluations, solver, limit, strict)
            yield tau, solution, found.policy_slope
            if count > MOST_POINTS:
                raise NotConverged(f"more than {MOST_POINTS} points; at tau={tau:g}", solution)


def _one_by_one(
    game: Game, grid: FloatArray, largest: float | None, limit: float, strict: bool
) -> Iterator[tuple[float, Solution, FloatArray]]:
    """Links that depend on both laws are solved anew at every point."""
    if largest is not None:
        raise InvalidInput(f"largest_move={largest!r}: {game.obj.name} has no tangent; needed None")
    solve = saddle_point if game.kind == "saddle" else equilibrium
    unknown = np.full(game.expert.shape, np.nan)
    for tau in grid:
        options: dict[str, Any] = {"tolerance": limit, "raise_on_failure": strict}
        yield float(tau), solve(game.expert, game.ref, game.obj, float(tau), **options), unknown


def _at(game: Game, tau: float) -> Game:
    return Game(game.kind, game.expert, game.ref, game.obj, tau)


def _grid(tau: Any, largest: Any) -> tuple[FloatArray, list[str]]:
    """The weights, and what is wrong with them."""
    problems = arguments.number("largest_move", largest, optional=True)
    needed = "needed are finite numbers >= 0, strictly rising or falling, at least one"
    try:
        grid = arguments.reals(tau)
    except (TypeError, ValueError):
        return np.zeros(0), [*problems, f"tau={tau!r}; {needed}"]
    if grid.ndim != 1 or grid.size == 0 or not np.all(np.isfinite(grid) & (grid >= 0)):
        problems.append(f"tau={tau!r}; {needed}")
    elif len(grid) > 1 and not (np.all(np.diff(grid) > 0) or np.all(np.diff(grid) < 0)):
        problems.append(f"tau={tau!r}: in no order; {needed}")
    elif largest is not None and np.any(grid == 0):
        problems.append("tau: 0 is infinitely far in log tau; with largest_move needed are > 0")
    return grid, problems
