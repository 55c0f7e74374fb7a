"""Newton's method for the occupancy game, on the policy's logits; every product is two recursions.

A direction is a centred change alpha(s, a) of log pi; it moves the occupancy by L alpha (forward
recursion).  The Hessian of the value in it is

    alpha -> tau d alpha + L^T (payoff'(u)/d) L alpha,

and the gradient -d A, with A the advantage of the reward payoff - tau log pi/ref (backward
recursion).  Scaled by sqrt(tau d) the matrix is the identity plus a matrix of norm
at most H sup payoff'/tau (H the horizon), whatever the number of states: conjugate gradients need
few products.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from theory.errors import InvalidInput, Unavailable
from theory.occupancy.problem import SMALLEST, Evaluation, OccupancyProblem
from theory.result import Solution
from theory.tokens.mdp import TokenMDP
from theory.tokens.tree import FloatArray

ACCURACY = 1e-9
"""Bound on the residual: the norm in L2(d) of A/tau, a step's change of log pi if flat."""

TRUST = 4.0
"""Changes of log pi up to this are tried as they are; larger ones x as sign(x) log(1 + |x|), which
no entry leaves the computation by."""


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
        begin, end = game.edge_start[first], game.edge_start[last]
        entering = flat[game.edges[begin:end]]
        if not game.is_tree:
            entering = np.add.reduceat(entering, game.edge_start[first:last] - begin)
        out[first:last] += policy[first:last] * entering[:, None]
    return out


def conjugate_gradients(
    product: Callable[[FloatArray], FloatArray],
    target: FloatArray,
    precondition: Callable[[FloatArray], FloatArray],
    accuracy: float,
    limit: int = 400,
) -> tuple[FloatArray, int]:
    """Solve product(x) = target to a relative residual in the norm of the preconditioner.

    scipy's `cg` looks at the residual itself, of which a singular preconditioner, as here (it
    leaves out what is alike on all actions of a state), says nothing: it divides 0 by 0 then.
    """
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


def start(problem: OccupancyProblem, expert: FloatArray) -> Evaluation:
    """The best of three policies: reference, expert, and the geometric mixture that is exact for
    SPIN on laws (its log-ratio cut where payoffs are bounded)."""
    slope = float(problem.slope_at(np.zeros(1))[0])
    ends = problem.payoff_at(np.array([-30.0, 30.0]))
    bounds = np.where(np.abs(ends) > 8.0, 60.0, 8.0)
    with np.errstate(invalid="ignore"):
        ratio = np.clip(np.nan_to_num(expert - problem.ref), -bounds[0], bounds[1])
    ratio = np.where(np.isneginf(expert) & np.isfinite(problem.absent), 0.0, ratio)
    weight = slope / (slope + problem.tau)
    found = []
    for part in (weight, 0.0, 1.0):
        logits = np.where(problem.open, problem.ref + part * ratio, -np.inf)
        found.append(problem.evaluate(problem.game.backward(logits, 1.0)[0]))
    values = [float(np.nan_to_num(at.primal.sum(), nan=np.inf)) for at in found]
    return found[int(np.argmin(values))]


def solve(
    problem: OccupancyProblem, expert: FloatArray, tolerance: float, max_iterations: int
) -> Solution:
    """Minimise over policies; certified by the dual value of the policy's own best response."""
    game, tau = problem.game, problem.tau
    jump = problem.payoff_at(np.array([1e-9])) - problem.payoff_at(np.array([-1e-9]))
    if jump[0] > 1e-6:
        raise Unavailable(
            f"{problem.obj.name} has no fast occupancy solver: its link jumps at u = 0, and "
            "Newton's method needs a slope; use method='convex'"
        )
    at = start(problem, expert)
    if not np.isfinite(at.primal).all():
        raise InvalidInput(
            [
                "no policy of finite value was found: the log-ratios of expert and reference, with "
                "this objective, exceed what numbers hold"
            ]
        )
    products = steps = 0
    patience = np.inf  # a round follows a round only while the gap halves
    residual = np.inf
    why = f"no convergence within {max_iterations} iterations"
    for steps in range(max_iterations + 1):
        live = at.occupancy > 0
        root = np.sqrt(np.maximum(at.occupancy, SMALLEST))
        gain = _gain(problem, at)
        residual = _residual(problem, at)
        gap = at.primal - problem.lower_bound(at)
        if residual <= ACCURACY and np.all(gap <= tolerance * np.maximum(1.0, np.abs(at.primal))):
            why = ""
            break
        if steps == max_iterations:
            break
        # to second order the gap is tau residual^2 / 2; more means that entries of almost no
        # occupancy have to grow, which a round does at once and no Newton step sees
        hidden = float(gap.sum()) > 100.0 * tau * residual**2 + 1e-12 * (1 + abs(at.primal.sum()))
        after_round = _round(problem, at) if hidden and float(gap.sum()) < patience else None
        patience = np.inf if after_round is None else 0.5 * float(gap.sum())
        if after_round is not None:
            at = after_round
            continue
        slope = np.where(live & (problem.expert > 0), problem.slope_at(at.ratio), 0.0)
        change, count = _direction(game, at, root, slope, gain, tau, residual)
        products += count
        found = _search(problem, at, np.where(live, change, 0.0), gain) or _round(problem, at)
        if found is None:
            why = "the line search found no lower value"
            break
        at = found
    said = f"residual {residual:.1e}" + (f"; {why}" if why else "")
    details = {"products": products, "residual": residual}
    return problem.solution(at, tolerance, said, steps, details, settled=not why)


def _gain(problem: OccupancyProblem, at: Evaluation) -> FloatArray:
    """Advantage of the policy player's reward, KL included: the direction of steepest descent."""
    return advantage(problem.game, at.policy, at.payoff - problem.tau * at.regret)


def _residual(problem: OccupancyProblem, at: Evaluation) -> float:
    return float(np.sqrt(np.sum(at.occupancy * _gain(problem, at) ** 2))) / problem.tau


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
    z, count = conjugate_gradients(product, root * gain / tau, precondition, accuracy)
    return z / root, count


def _search(
    problem: OccupancyProblem, at: Evaluation, change: FloatArray, gain: FloatArray
) -> Evaluation | None:
    """Halve the step until the value falls by Armijo's rule (to rounding)."""
    before = float(at.primal.sum())
    small = 1e-8 * (1.0 + float(np.abs(at.primal).sum()))
    damped = np.sign(change) * np.log1p(np.abs(change))
    shapes = [change, damped] if float(np.abs(change).max()) <= TRUST else [damped]
    step = 1.0
    for _ in range(50):
        best = None
        for shape in shapes:
            promise = step * float(np.sum(at.occupancy * shape * gain))
            trial = _moved(problem, at, step * shape)
            after = float(trial.primal.sum())
            fell = np.isfinite(after) and after <= before - 1e-4 * promise
            if (
                np.isfinite(after) and promise < small and after > before - small
            ):  # too little for values to resolve
                fell = _residual(problem, trial) < _residual(problem, at)
            if fell and (best is None or after < float(best.primal.sum())):
                best = trial
        if best is not None:
            return best
        step /= 2.0
        shapes = [damped]
    return None


def _round(problem: OccupancyProblem, at: Evaluation) -> Evaluation | None:
    """A self-play round, with as much inertia (beta) as keeps the value from rising."""
    before = float(at.primal.sum())
    beta = 0.25 * problem.tau
    for _ in range(30):
        payoff = np.where(problem.open, at.payoff, 0.0) + problem.tau * problem.ref
        payoff = np.where(problem.open, payoff + beta * at.log_policy, -np.inf)
        trial = problem.evaluate(problem.game.backward(payoff, beta + problem.tau)[0])
        if float(trial.primal.sum()) <= before + 1e-13 * (1.0 + abs(before)):
            return trial
        beta *= 4.0
    return None


def _moved(problem: OccupancyProblem, at: Evaluation, change: FloatArray) -> Evaluation:
    logits = at.log_policy + change
    top = logits.max(-1, keepdims=True)
    logits = logits - top
    logits = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return problem.evaluate(logits)
