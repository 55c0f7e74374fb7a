"""The occupancy game of a token MDP, solved by either method and certified."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from theory import arguments, objectives
from theory.errors import NotConverged, refuse
from theory.objectives import Objective
from theory.occupancy import conic, newton
from theory.occupancy.problem import Kind, OccupancyProblem
from theory.result import Solution
from theory.tokens.mdp import TokenMDP


def occupancy_game(
    game: TokenMDP,
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: float = 0.1,
    kind: Kind = "saddle",
    method: Literal["fast", "convex"] = "fast",
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    raise_on_failure: bool = True,
    solver_options: dict[str, Any] | None = None,
) -> Solution:
    """Solve the occupancy game (see the module) of an objective with per-token rewards.

    Args:
        game: tree or merged states.
        expert, ref: (S, A) log-policies in nats.
        obj: objective with a link; with payoffs a, b for the saddle point, a potential for the
            equilibrium.
        tau: weight of KL(pi || ref), > 0.
        kind: "saddle" or "equilibrium".
        method: "fast": Newton in policy space, certified; "convex": cvxpy with flow constraints.
        tolerance: allowed duality gap, relative to max(1, |primal|).
        max_iterations: of the Newton iteration, or of the conic solver.
        raise_on_failure: raise NotConverged (with `.solution`) instead of returning.
        solver_options: passed to cvxpy's solve ("convex"); None: Clarabel, as exact as it gets.

    Returns:
        Solution with the log-policy (S, A), the reward R(u) (S, A), and primal, dual and gap per
        prompt, (prompts,), in nats; details["occupancy"] is d (S, A).  Dual and gap are computed
        here from the policy's best response and the payoffs, whatever the method and the link.

    Raises:
        InvalidInput: game, policies, tau, kind or method; no policy with a finite value.
        Unavailable: the objective has no such game, with the reason.
        NotConverged: the gap is above `tolerance`.

    Source: reconstruction, T10.
    """
    problems = arguments.choice("method", method, ("fast", "convex"))
    if not isinstance(game, TokenMDP):
        swapped = "; swapped?" if any(isinstance(x, TokenMDP) for x in (expert, ref)) else ""
        problems.append(
            f"game: a {type(game).__name__}; needed is a TokenMDP, before expert and ref{swapped}"
        )
    refuse(problems + arguments.limits(tolerance, max_iterations, optional=False))
    problem = OccupancyProblem.build(game, expert, ref, objectives.of(obj), tau, kind)
    if method == "fast":
        found = newton.solve(problem, np.asarray(expert, np.float64), tolerance, max_iterations)
    else:
        found = conic.solve(problem, tolerance, max_iterations, solver_options)
    if raise_on_failure and not found.converged:
        raise NotConverged(found.status, found)
    return found
