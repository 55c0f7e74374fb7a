"""Newton's method for the occupancy game, on the policy's logits; every product is two recursions.

A direction is a centred change alpha(s, a) of log pi; it moves the occupancy by L alpha (forward
recursion).  The Hessian of the value in it is

    alpha -> tau d alpha + L^T (payoff'(u)/d) L alpha,

and the gradient -d A, with A the advantage of the reward payoff - tau log pi/ref (backward
recursion).  Scaled by sqrt(tau d) the matrix is the identity plus a matrix of norm at most H sup payoff'/tau
(H the horizon), whatever the number of states: conjugate gradients need few products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theory.errors import Unavailable
from theory.occupancy import SMALLEST, Evaluation, OccupancyProblem
from theory.result import Solution
from theory.token_mdp import TokenMDP
from theory.token_tree import FloatArray

ACCURACY = 1e-9
"""Bound on the residual: the norm in L2(d) of A/tau, a step's change of log pi without curvature."""


def advantage(game: TokenMDP, policy: FloatArray, gain: FloatArray) -> FloatArray:
    """(S, A) Q - V of the additive reward `gain` under a policy."""
    value = np.zeros(game.n_states + 1)
    out = np.empty_like(gain)
    for first, last in reversed(game.layers):
        block = gain[first:last] + np.take(value, game.next_state[first:last])
        mean = np.einsum("sa,sa->s", policy[first:last], block)
        value[first:last] = mean
        np.subtract(block, mean[:, None], out=out[first:last])
    return out


def push_forward(game: TokenMDP, policy: FloatArray, change: FloatArray) -> FloatArray:
    """(S, A) change of the occupancy when d alpha changes by `change`: downstream states follow."""
    out = change.copy()
    flat = out.reshape(-1)
    for first, last in game.layers[1:]:
        begin, end = game._edge_start[first], game._edge_start[last]
        entering = flat[game._edges[begin:end]]
        if not game.is_tree:
            entering = np.add.reduceat(entering, game._edge_start[first:last] - begin)
        out[first:last] += policy[first:last] * entering[:, None]
    return out


def conjugate_gradients(
    product: Callable[[FloatArray], FloatArray],
    target: FloatArray,
    precondition: Callable[[FloatArray], FloatArray],
    accuracy: float,
    limit: int = 400,
) -> tuple[FloatArray, int]:
    """Solve product(x) = target to a relative residual, with a preconditioner."""
    x = np.zeros_like(target)
    residual = target.copy()
    direction = precondition(residual)
    power = start = float(np.vdot(residual, direction))
    for count in range(1, limit + 1):
        image = product(direction)
        step = power / float(np.vdot(direction, image))
        x += step * direction
        residual -= step * image
        scaled = precondition(residual)
        following = float(np.vdot(residual, scaled))
        if following <= accuracy**2 * start:
            return x, count
        direction *= following / power
        direction += scaled
        power = following
    return x, limit


def starting_policy(problem: OccupancyProblem, expert: FloatArray) -> FloatArray:
    """Geometric mixture of expert and reference (exact for SPIN on laws), its log-ratio within 8."""
    slope = float(problem.slope_at(np.zeros(1))[0])
    with np.errstate(invalid="ignore"):
        ratio = np.clip(np.nan_to_num(expert - problem.ref), -8.0, 8.0)
    mixed = problem.ref + ratio * slope / (slope + problem.tau)
    return problem.game._backward(np.where(problem.open, mixed, -np.inf), 1.0)[0]


def solve(
    problem: OccupancyProblem, expert: FloatArray, tol: float, max_iterations: int
) -> Solution:
    """Minimise over policies; certified by the dual value of the policy's own best response."""
    game, tau = problem.game, problem.tau
    jump = problem.payoff_at(np.array([1e-9])) - problem.payoff_at(np.array([-1e-9]))
    if jump[0] > 1e-6:
        raise Unavailable(
            f"{problem.obj.name} has no fast occupancy solver: its link jumps at u = 0, and "
            "Newton's method needs a slope; use method='convex'"
        )
    at = problem.evaluate(starting_policy(problem, expert))
    products = steps = 0
    residual = np.inf
    why = f"no convergence within {max_iterations} iterations"
    for steps in range(max_iterations + 1):
        live = at.occupancy > 0
        root = np.sqrt(np.maximum(at.occupancy, SMALLEST))
        regret = np.where(live, at.log_policy - problem.ref, 0.0)
        payoff = np.where(live, at.payoff, 0.0)
        gain = advantage(game, at.policy, payoff - tau * regret)
        residual = float(np.sqrt(np.sum(at.occupancy * gain**2))) / tau
        if residual <= ACCURACY and _within(problem, at, tol):
            why = ""
            break
        if steps == max_iterations:
            break
        slope = np.where(live & (problem.expert > 0), problem.slope_at(at.ratio), 0.0)
        moved, count = _direction(game, at, root, slope, gain, tau, residual)
        products += count
        found = _search(problem, at, np.where(live, moved / root, 0.0), gain)
        if found is None:
            why = "the line search found no lower value"
            break
        at = found
    worst = float(np.max(at.primal - problem.lower_bound(at)))
    status = (
        f"converged: duality gap {worst:.1e} nats, residual {residual:.1e}"
        if not why
        else f"not converged: {why}; duality gap {worst:.1e} nats, residual {residual:.1e}"
    )
    return problem.solution(at, status, steps, {"products": products, "residual": residual})


def _within(problem: OccupancyProblem, at: Evaluation, tol: float) -> bool:
    gap = at.primal - problem.lower_bound(at)
    return bool(np.all(gap <= tol * np.maximum(1.0, np.abs(at.primal))))


def _direction(
    game: TokenMDP,
    at: Evaluation,
    root: FloatArray,
    slope: FloatArray,
    gain: FloatArray,
    tau: float,
    residual: float,
) -> tuple[FloatArray, int]:
    curvature = slope / (root * root)

    def product(z: FloatArray) -> FloatArray:
        moved = push_forward(game, at.policy, root * z)
        return z + root * advantage(game, at.policy, curvature * moved) / tau

    # the same matrix without what happens downstream, inverted on centred changes
    damping = 1.0 / (1.0 + slope / tau)
    normal = np.sqrt(at.policy)
    pull = damping * normal
    weight = np.maximum(np.einsum("sa,sa->s", normal, pull), SMALLEST)[:, None]

    def precondition(z: FloatArray) -> FloatArray:
        return damping * z - pull * (np.einsum("sa,sa->s", pull, z)[:, None] / weight)

    accuracy = min(0.1, max(1e-6, 0.1 * residual))
    return conjugate_gradients(product, root * gain / tau, precondition, accuracy)


def _search(
    problem: OccupancyProblem, at: Evaluation, change: FloatArray, gain: FloatArray
) -> Evaluation | None:
    """Halve the step until the value falls by Armijo's rule (to rounding)."""
    slope = float(np.sum(at.occupancy * change * gain))
    before = float(at.primal.sum())
    rounding = 1e-13 * (1.0 + float(np.abs(at.primal).sum()))
    step = 1.0
    for _ in range(50):
        with np.errstate(over="ignore"):
            logits = at.log_policy + step * change
        logits = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
        trial = problem.evaluate(logits)
        after = float(trial.primal.sum())
        if np.isfinite(after) and after <= before - 1e-4 * step * slope + rounding:
            return trial
        step /= 2.0
    return None
