"""The two equilibria of an anchored game (T10), solved exactly and certified.

``saddle_point``:  ``min_pi max_r E_p[a(r)] + E_pi[b(r)] + tau KL(pi || ref)``;
``equilibrium``:   the fixed point of the self-play rounds, ``r = R(log p/pi)`` and
``pi = ref e^{r/tau} / Z``, which minimises ``D_Phi(pi || p) + tau KL(pi || ref)``.

They agree iff ``b(r) + r`` is constant. Each is a separable problem
(:mod:`theory.equilibria.newton`) with the pay ``-b(R(u))`` and ``R(u)``;
``method="convex"`` solves it by cvxpy and Clarabel instead.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import laws
from theory.certificate import BALANCE, response_imbalance, reward_gain
from theory.equilibria import conic, law_dependent, newton
from theory.equilibria.problem import Game, Kind, checked, solve_gain
from theory.errors import NotConverged
from theory.objectives import Objective
from theory.result import FloatArray, Outcome, Solution

TOLERANCE = {"fast": 1e-9, "convex": 1e-8}
CLEAN = 1e-3  # a gap well below the tolerance needs no search for a better reward


def saddle_point(
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: float = 0.1,
    method: str = "fast",
    *,
    tolerance: float | None = None,
    max_iterations: int = newton.MAX_OUTER,
    raise_on_failure: bool = True,
) -> Solution:
    """Solve ``min_pi max_r E_p[a(r)] + E_pi[b(r)] + tau KL(pi || ref)`` (reconstruction, T10).

    Args:
        expert: law p, probabilities (..., n); leading axes are prompts.
        ref: reference law, (..., n), broadcast against the expert.
        obj: objective with payoffs a, b and a link, or a specification ``"spif(c=0.5)"``.
        tau: weight of the anchor, >= 0 (nats per nat); at 0 the policy is the expert.
        method: "fast" (Newton on one multiplier) or "convex" (cvxpy with Clarabel; n up to 10^4).
        tolerance: on the certified gap, nats; 1e-9 for "fast", 1e-8 for "convex".
        max_iterations: Newton steps on the multiplier, or Clarabel's.
        raise_on_failure: raise :class:`NotConverged` if the gap stays above the tolerance.

    Returns:
        Solution; primal, dual and gap (...) in nats. ``primal`` bounds the policy's value
        ``max_r`` from above and ``dual = E_p[a(r)] - tau log E_ref e^{-b(r)/tau}`` of
        ``sol.reward`` the game's from below, both from the payoffs alone. Their difference is what
        either player can still gain, ``tau KL(pi || ref e^{-b(r)/tau}/Z)`` and
        :func:`theory.certificate.reward_gain`: it trusts neither the solver nor the link.

    Raises:
        Unavailable: the objective has no saddle form, link (or conic form) or no best response,
            with the reason.
        InvalidInput: laws, tau, method, tolerance, max_iterations; all problems at once.
        NotConverged: see ``raise_on_failure``; ``.solution`` holds what was found.

    >>> point = saddle_point([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], "spif", tau=0.5)
    >>> point.converged, bool(point.gap < 1e-12), round(float(point.primal), 6)
    (True, True, 0.161081)
    """
    return _solve(
        "saddle", expert, ref, obj, tau, method, tolerance, max_iterations, raise_on_failure
    )


def equilibrium(
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: float = 0.1,
    method: str = "fast",
    *,
    tolerance: float | None = None,
    max_iterations: int = newton.MAX_OUTER,
    raise_on_failure: bool = True,
) -> Solution:
    """Fixed point of the rounds: ``r = R(log p/pi)``, ``pi = ref e^{r/tau}/Z`` (T9, T10).

    It minimises ``D_Phi(pi || p) + tau KL(pi || ref)``; that is the primal value. The dual value
    is the minimum after linearising ``D_Phi`` at the policy, less what the reward player could
    still gain on the link's reward: a gap of ``tau KL(pi || ref e^{r/tau}/Z)`` plus
    :func:`theory.certificate.reward_gain`. Whether the link's reward is a best response is read off
    the gradient of the loss at the policy found (``details["reward_gradient"]``, see
    :func:`theory.certificate.response_imbalance`); where it is not, and no payoffs say what could
    be gained, the gap is infinite.
    With IPO's link ``kappa tanh(u/2)`` the gain kappa belongs to the policy that is found, and the
    value minimised is ``2 kappa KL(p || (p+pi)/2) + tau KL(pi || ref)``.
    Arguments, result and errors as in :func:`saddle_point`; the two points differ:

    >>> for solve in (equilibrium, saddle_point):
    ...     solve([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], "spif", tau=0.5).policy.round(4).tolist()
    [0.4381, 0.2886, 0.2732]
    [0.4275, 0.2771, 0.2954]
    """
    return _solve(
        "equilibrium", expert, ref, obj, tau, method, tolerance, max_iterations, raise_on_failure
    )


def _solve(
    kind: Kind,
    expert: Any,
    ref: Any,
    obj: Objective | str,
    tau: float,
    method: str,
    tolerance: float | None,
    max_iterations: int,
    raise_on_failure: bool,
) -> Solution:
    game = checked(kind, expert, ref, obj, tau, method, tolerance, max_iterations)
    limit = TOLERANCE[method] if tolerance is None else float(tolerance)
    if game.obj.law_dependent:
        game.obj.require("conic_potential" if method == "convex" else "reward")
        return law_dependent.solve(
            game.expert, game.ref, game.obj, game.tau, limit, raise_on_failure
        )
    if method == "convex":
        policy, iterations, solver = conic.solve(game, max_iterations)
    else:
        policy, iterations = _fast(game, max_iterations)
        solver = "Newton on one multiplier"
    return certified(game, policy, iterations, solver, limit, raise_on_failure)


def _fast(game: Game, max_iterations: int) -> tuple[FloatArray, int]:
    if game.tau == 0.0:
        return game.expert.copy(), 0
    if not game.has_gain:
        return newton.solve(game.separable(), max_iterations)
    count = 0

    def policy_at(delta: FloatArray) -> FloatArray:
        nonlocal count
        policy, used = newton.solve(game.separable(delta[..., None]), max_iterations)
        count += used
        return policy

    return solve_gain(game, policy_at, 1e-15), count


def certified(
    game: Game,
    policy: FloatArray,
    iterations: int,
    solver: str,
    tolerance: float,
    raise_on_failure: bool,
) -> Solution:
    """Attach value, reward and certificate to a policy (..., n), wherever it came from."""
    p, obj = game.expert, game.obj
    delta = game.delta_of(policy) if game.has_gain else None
    if game.tau > 0:
        problem = game.separable(delta)
        gap, pay = newton.certificate(problem, policy)
        if np.any(gap > CLEAN * tolerance):
            gap, pay = newton.certificate(problem, policy, newton.NUDGES)
        reward = game.reward(policy, pay, delta)
    else:  # any constant reward proves the expert's own value
        gap = np.zeros(p.shape[:-1])
        reward = np.asarray(obj.link(laws.log_ratio(p, policy), delta))
    more = reward_gain(obj, p, policy, reward).sum(-1)
    if game.tau > 0 and not obj.missing("saddle"):  # both from the payoffs, nothing from the link
        with np.errstate(all="ignore"):
            pay = np.where(game.ref > 0, np.asarray(game.pay_of(reward)), 0.0)
        gap = game.tau * laws.kl_stable(policy, newton.gibbs(game.ref, pay, game.tau)) + more
    else:
        gap = gap + more
    details: dict[str, FloatArray] = {}
    if game.kind == "equilibrium":
        with np.errstate(all="ignore"):
            answer = np.asarray(obj.link(laws.log_ratio(p, policy), delta))
        details["reward_gradient"] = response_imbalance(obj, p, policy, answer)
        shown = more > tolerance  # the payoffs say how wrong it is
        gap = np.where((details["reward_gradient"] <= BALANCE) | shown, gap, np.inf)
    primal = game.value(policy, reward) + (more if game.kind == "saddle" else 0.0)
    dual = primal - gap
    reward = np.where((p == 0) & (game.ref == 0), 0.0, reward)
    if game.kind == "equilibrium":  # the saddle point's reward is no more free to move
        reward = obj.centred(reward, p, policy)
    outcome, status = _ending(game, solver, primal, gap, more, tolerance)
    solution = Solution(
        policy, reward, primal, dual, gap, outcome, status, iterations, None, details
    )
    if raise_on_failure and not solution.converged:
        raise NotConverged(f"{obj.name}, tau={game.tau:g}: {status}", solution)
    return solution


def _ending(
    game: Game,
    solver: str,
    primal: FloatArray,
    gap: FloatArray,
    more: FloatArray,
    tolerance: float,
) -> tuple[Outcome, str]:
    """Whether the certificate meets the tolerance, and why not."""
    said, worst = f"{game.describe()} by {solver}", float(np.max(gap, initial=0.0))
    if np.all(gap <= tolerance) and np.all(np.isfinite(primal)):
        outcome = Outcome.CONVERGED
        return outcome, f"{outcome.value}: {said}, certified gap {worst:.2g} <= {tolerance:.2g}"
    outcome = Outcome.NOT_CONVERGED
    if np.all(gap <= tolerance):
        why = f"the value is not finite ({float(primal[~np.isfinite(primal)].ravel()[0])})"
    elif np.any(np.isposinf(gap)):
        why = "the link's reward is no best response of the loss at the policy found"
    elif np.any(np.isnan(gap)):
        why = "no reward certifies the policy: its values leave the range of numbers"
    else:
        why = f"certified gap {worst:.2g} above the tolerance {tolerance:.2g}"
        if float(np.max(more)) > 0.5 * worst:
            why += f"; on the link's reward the payoffs gain {float(np.max(more)):.2g}, so that it "
            why += "is not their best response"
    return outcome, f"{outcome.value}: {said}, {why}"
