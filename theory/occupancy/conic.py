"""The occupancy game as a conic program with flow constraints (cvxpy), independent of Newton's."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
from scipy import sparse

from theory.errors import Unavailable
from theory.objectives import Objective
from theory.occupancy.problem import OccupancyProblem, integrated_link
from theory.result import Solution
from theory.tokens.tree import FloatArray

TIGHT: dict[str, Any] = {
    "solver": "CLARABEL",
    "tol_gap_abs": 1e-12,
    "tol_gap_rel": 1e-12,
    "tol_feas": 1e-12,
}
WAYS: tuple[dict[str, Any], ...] = (
    {"max_step_fraction": 0.8},
    {},
    {"static_regularization_constant": 1e-12},
)
WELL_SOLVED = 1e-14


def solve(
    problem: OccupancyProblem, tolerance: float, limit: int, options: dict[str, Any] | None
) -> Solution:
    """Minimise over occupancies d >= 0 of the open state-actions, subject to the flow of the graph.

    The solver's own status is reported, but what counts is the gap that is computed from its policy
    here: solvers say "optimal" at 1e-8 of their own scale.  Without options, Clarabel is asked for
    1e-12 in up to three ways (it stalls near 1e-11 now and then, each way elsewhere); the solution
    of the least gap counts.
    """
    if options is not None:
        return _solve_once(problem, tolerance, {"solver": "CLARABEL", **options})
    found: list[Solution] = []
    for way in WAYS:
        found.append(_solve_once(problem, tolerance, TIGHT | {"max_iter": limit} | way))
        if np.all(found[-1].gap <= WELL_SOLVED * (1.0 + np.abs(found[-1].primal))):
            return found[-1]
    return min(found, key=lambda solution: float(solution.gap.max()))


def _solve_once(problem: OccupancyProblem, tolerance: float, options: dict[str, Any]) -> Solution:
    import cvxpy as cp

    game = problem.game
    state, action = np.nonzero(problem.open)
    visited = np.unique(state)
    row = np.searchsorted(visited, state)
    count, rows = len(state), len(visited)
    leaving = sparse.csr_matrix((np.ones(count), (row, np.arange(count))), (rows, count))
    following = game.next_state[state, action]
    inner = np.flatnonzero(following >= 0)
    entering = sparse.csr_matrix(
        (np.ones(len(inner)), (np.searchsorted(visited, following[inner]), inner)), (rows, count)
    )
    mass = cp.Variable(count, nonneg=True)
    reach = cp.Variable(rows, nonneg=True)
    constraints = [
        leaving @ mass == reach,
        reach == entering @ mass + (visited < game.n_prompts).astype(float),
    ]
    value, cones = _game_value(problem, state, action, mass)
    relative = cp.sum(cp.rel_entr(mass, leaving.T @ reach)) - problem.ref[state, action] @ mass
    program = cp.Problem(cp.Minimize(value + problem.tau * relative), constraints + cones)
    with warnings.catch_warnings():  # "may be inaccurate" is decided by the gap below
        warnings.filterwarnings("ignore", message="Solution may be inaccurate")
        # a solver that gives up leaves no values: not converged
        with contextlib.suppress(cp.error.SolverError):
            program.solve(**options)
    if mass.value is None:
        log_policy = np.where(problem.open, problem.ref, -np.inf)
        log_policy = game.backward(log_policy, 1.0)[0]
    else:
        flow = np.zeros_like(problem.ref)
        flow[state, action] = np.maximum(mass.value, 1e-300)
        log_policy = _conditional(problem, flow)
    at = problem.evaluate(log_policy)
    steps = getattr(program.solver_stats, "num_iters", None) or 0
    details = {"solver_status": program.status, "solver_value": program.value}
    said = f"computed from its policy; cvxpy says {program.status}"
    known = mass.value is not None
    return problem.solution(at, max(tolerance, 1e-8), said, int(steps), details, settled=known)


def _conditional(problem: OccupancyProblem, flow: FloatArray) -> FloatArray:
    total = flow.sum(-1, keepdims=True)
    uniform = problem.game.uniform_policy()
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(total > 0, np.log(flow) - np.log(total), uniform)


def _game_value(
    problem: OccupancyProblem, state: Any, action: Any, mass: Any
) -> tuple[Any, list[Any]]:
    """The sum of g(e, d): the objective's conic form where e > 0, -d payoff(-inf) elsewhere."""
    import cvxpy as cp

    part = "conic_game" if problem.kind == "saddle" else "conic_potential"
    problem.obj.require(part)
    expert = problem.expert[state, action]
    seen = np.flatnonzero(expert > 0)
    unseen = np.flatnonzero(expert == 0)
    value, cones = getattr(problem.obj, part)(expert[seen], mass[seen])
    value = value + float(problem.unreached_value().sum())
    if problem.kind == "equilibrium":
        slope = _missing_slope(problem.obj)
        at_expert, needs = problem.obj.conic_potential(expert[seen], cp.Constant(expert[seen]))
        level = 0.0 if needs else float(at_expert.value)
        value = value - level + slope * (cp.sum(mass[seen]) - expert[seen].sum())
    if len(unseen):
        value = value - problem.absent * cp.sum(mass[unseen])
    return value, cones


def _missing_slope(obj: Objective) -> float:
    """Multiple of the mass to add to a conic potential, which is written for laws (mass 1).

    Found from its values at single entries and the quadrature of the link; the two must differ by
    such a multiple alone.
    """
    points = np.exp(np.array([0.0, -1.0, -0.4, 0.7]))
    written = np.array([_single(obj, x) for x in points])
    exact = integrated_link(obj, -np.log(points[1:]))
    slopes = (exact - (written[1:] - written[0])) / (points[1:] - 1.0)
    if np.ptp(slopes) > 1e-6 * (1.0 + np.abs(slopes).max()):
        raise Unavailable(
            f"{obj.name}: conic_potential is not the integral of its link: they differ by more "
            f"than a multiple of the mass ({slopes.tolist()})"
        )
    return float(np.median(slopes))


def _single(obj: Objective, ratio: float) -> float:
    import cvxpy as cp

    value, cones = obj.conic_potential(np.ones(1), cp.Constant(np.array([ratio])))
    if not cones:
        return float(value.value)
    program = cp.Problem(cp.Minimize(value), cones)
    program.solve(solver="CLARABEL")
    return float(program.value)
