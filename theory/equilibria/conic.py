"""The same equilibria by cvxpy and Clarabel: an independent check of the Newton method.

Second-order cones (quad-over-lin) and exponential cones, as the objective's ``conic_game`` and
``conic_potential`` write them. Nothing of the fast solver is used, and its result is not polished:
an interior-point method that stops early is started again on the next formulation of the same
problem, and our own certificate of its policy says which of them counts.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from theory.equilibria import newton
from theory.equilibria.problem import Game, solve_gain
from theory.errors import NotConverged
from theory.result import FloatArray

# where it stalls, the last iterate is a candidate like any other: the certificate decides
TIGHT = {
    "accept_unknown": True,
    "tol_gap_abs": 1e-13,
    "tol_gap_rel": 1e-13,
    "tol_feas": 1e-13,
    "tol_ktratio": 1e-10,
}
LESS_REGULAR = {
    **TIGHT,
    "static_regularization_constant": 1e-12,
    "iterative_refinement_max_iter": 30,
    "iterative_refinement_reltol": 1e-15,
    "iterative_refinement_abstol": 1e-15,
}
# (total mass is n or 1, unit of the policy's entries, settings); first come, first served
FORMULATIONS = (
    (True, "expert", TIGHT),
    (True, "mean", TIGHT),
    (False, "expert", TIGHT),
    (False, "mean", LESS_REGULAR),
    (True, "ref", LESS_REGULAR),
    (True, "one", TIGHT),
    (True, "expert", LESS_REGULAR),
    (False, "ref", TIGHT),
    (True, "mean", LESS_REGULAR),
    (False, "mean", TIGHT),
    (False, "one", LESS_REGULAR),
)
# gap <= 2 tau e^2 puts every entry of the policy within e of the minimiser (Pinsker); e = 1e-7
SHARP = 2e-14
KINKED = 1e-11
FLOOR = 1e-20


def solve(game: Game, max_iterations: int = 200) -> tuple[FloatArray, int, str]:
    """Policy (..., n), Clarabel's iterations (all attempts) and its name with its last status.

    Raises:
        Unavailable: the objective has no conic form, with the reason.
        NotConverged: Clarabel returned no policy in any formulation.
    """
    part = "conic_game" if game.kind == "saddle" else "conic_potential"
    game.obj.require(part)
    prompts, n = game.expert.shape[:-1], game.expert.shape[-1]
    policy = np.empty(game.expert.shape)
    iterations, statuses = 0, set()
    for prompt in np.ndindex(*prompts):
        one = game.at(prompt)
        policy[prompt], used, status = (
            _with_gain(one, max_iterations) if game.has_gain else _best(one, None, max_iterations)
        )
        iterations += used
        statuses.add(status)
    return policy.reshape(*prompts, n), iterations, f"Clarabel ({', '.join(sorted(statuses))})"


def _with_gain(game: Game, limit: int) -> tuple[FloatArray, int, str]:
    """The gain of a pairwise squared loss is found outside, a conic problem at each value (T9)."""
    count, status = 0, ""

    def policy_at(delta: FloatArray) -> FloatArray:
        nonlocal count, status
        policy, used, status = _best(game, delta, limit)
        count += used
        return policy

    return solve_gain(game, policy_at, 1e-10), count, status


def _best(game: Game, delta: FloatArray | None, limit: int) -> tuple[FloatArray, int, str]:
    """The policy with the smallest certified gap over the formulations, until one is sharp."""
    problem = game.separable(None if delta is None else delta[..., None])
    best, best_gap, best_status, count = None, np.inf, "", 0
    for total_n, unit, settings in FORMULATIONS:
        found, used, status = _attempt(game, delta, total_n, unit, {**settings, "max_iter": limit})
        count += used
        if found is None:
            continue
        if game.tau == 0:  # nothing to certify with: the caller compares values
            return found, count, status
        loose = float(newton.certificate(problem, found)[0])
        gap = float(newton.certificate(problem, found, newton.NUDGES)[0])
        if gap < best_gap or best is None:
            best, best_gap, best_status = found, gap, status
        kinked = loose > 1e3 * gap  # the gap grows linearly off a kink: 1e-7 needs less there
        if gap <= SHARP * game.tau or (kinked and gap <= KINKED):
            break
    if best is None:
        raise NotConverged(
            f"{game.obj.name}: Clarabel failed in all {len(FORMULATIONS)} formulations"
        )
    return best, count, best_status


def _attempt(
    game: Game, delta: FloatArray | None, total_n: bool, unit: str, settings: dict[str, Any]
) -> tuple[FloatArray | None, int, str]:
    """One formulation: the policy (None if the solver failed), iterations, status."""
    import cvxpy as cp

    program, policy, scale = formulate(game, delta, total_n, unit)
    try:
        _run(program, settings)
    except cp.SolverError:
        return None, 0, "failed"
    if policy.value is None:
        return None, 0, str(program.status)
    found = np.zeros(game.expert.shape)
    found[active(game)] = np.maximum(np.asarray(policy.value) / scale, FLOOR)
    iterations = program.solver_stats.num_iters or 0
    return found / found.sum(), int(iterations), str(program.status)


def active(game: Game) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Outcomes on which a policy of finite value may put mass."""
    bottom = float(game.separable(np.zeros(())).pay(np.asarray(-np.inf)))
    return (game.ref > 0) & ((game.expert > 0) | np.isfinite(bottom))


def formulate(
    game: Game, delta: FloatArray | None, total_n: bool = True, unit: str = "expert"
) -> tuple[Any, Any, float]:
    """The cvxpy problem of one prompt, its policy expression, and the total mass of that policy.

    The value is homogeneous in the pair of measures: their mass may be n (entries of order 1).
    """
    import cvxpy as cp

    use = active(game)
    p, ref = game.expert[use], game.ref[use]
    scale = float(p.size) if total_n else 1.0
    units = {"expert": p, "ref": ref, "mean": 0.5 * (p + ref), "one": np.ones_like(p) / scale}[unit]
    units = np.where(units > 0, units, ref)
    policy = cp.multiply(scale * units, cp.Variable(p.size))
    anchor = game.tau * cp.sum(cp.kl_div(policy, scale * ref)) if game.tau > 0 else 0.0
    core = p > 0
    inside = _form(game, scale * p[core], policy[np.flatnonzero(core)]) if core.any() else (0.0, [])
    value, constraints = inside
    if not core.all():  # where p = 0 the value is linear in the policy
        value = value + _per_mass_outside(game) * cp.sum(policy[np.flatnonzero(~core)])
    if delta is not None:
        value = float(game.obj.gain(delta)) * value
    constraints = [cp.sum(policy) == scale, *constraints]
    return cp.Problem(cp.Minimize(value + anchor), constraints), policy, scale


def _form(game: Game, expert: FloatArray, policy: Any) -> tuple[Any, Iterable[Any]]:
    form = game.obj.conic_game if game.kind == "saddle" else game.obj.conic_potential
    return form(expert, policy)


def _per_mass_outside(game: Game) -> float:
    """Slope of the conic form where the expert has no mass (a form may add a constant)."""
    import cvxpy as cp

    def at(mass: float) -> float:
        value, constraints = _form(game, np.zeros(1), cp.Constant(np.full(1, mass)))
        return float(_run(cp.Problem(cp.Minimize(value), list(constraints)), TIGHT))

    return at(2.0) - at(1.0)


def _run(program: Any, settings: dict[str, Any]) -> Any:
    import cvxpy as cp

    with warnings.catch_warnings():  # "may be inaccurate": the certificate decides that
        warnings.simplefilter("ignore")
        return program.solve(solver=cp.CLARABEL, **settings)


def accuracy(game: Game, gap: FloatArray) -> FloatArray:
    """Bound (...) of max |pi - minimiser| from the gap: the value is tau-strongly convex in l1."""
    return np.asarray(np.sqrt(0.5 * gap / game.tau))
