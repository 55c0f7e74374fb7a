"""Nash equilibria of preference games, plain and anchored, with their certificates.

The game is symmetric and of constant sum: two policies meet, the payoff is the win rate
``P(pi > pi')``, and its value is 1/2. With ``A = 2P - 1`` (skew) and a payoff scale ``g`` (the
reward is ``g A pi``) the anchored game is

    J(pi, pi') = P(pi > pi') - tau/(2g) [KL(pi||ref) - KL(pi'||ref)].

Because ``<pi, A pi> = 0``, the gap of ``(pi, pi)`` in it is ``(tau/g) KL(pi || br(pi))`` with
``br(pi) ∝ ref e^{g A pi/tau}``, and tends to the plain gap ``max_y 2 P(y > pi) - 1`` as tau -> 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linprog

from theory import arguments, laws, xp
from theory.errors import NotConverged, refuse
from theory.preferences.games import check_game, check_preference, expected_win
from theory.result import FloatArray, Outcome, Solution

NEWTON = 60
"""Newton's steps at one temperature, after which a smaller step to it is tried."""
ON_PATH = 1e-10
"""Residual of a point that the next one is started from, relative to the largest log-ratio."""


def duality_gap(preference: Any, policy: Any) -> FloatArray:
    """Gap ``max_y P(y > pi) - min_y P(pi > y) = 2 max_y P(y > pi) - 1`` of the pair (pi, pi).

    Twice the largest margin over 1/2 by which a response beats the policy; in [0, 1], and 0 exactly
    at a Nash equilibrium.

    Args:
        preference: ``P`` (..., n, n).
        policy: probabilities (..., n).

    Returns:
        Shape (...), in win probability.

    Raises:
        InvalidInput: a preference or law that is none, all problems at once.

    >>> from theory.preferences import rock_paper_scissors
    >>> float(duality_gap(rock_paper_scissors(), [1.0, 0.0, 0.0]))  # paper wins for sure
    1.0
    """
    checked, law = check_game(preference, policy=policy)
    return plain_gap(checked, law)


def exploitability(preference: Any, policy: Any) -> FloatArray:
    """``max_y P(y > pi) - 1/2``: half the duality gap, what one best response wins over a draw.

    Arguments, shape and errors as in :func:`duality_gap`.
    """
    return 0.5 * duality_gap(preference, policy)


def regularised_gap(
    preference: Any, policy: Any, ref: Any, tau: float, scale: float = 1.0
) -> FloatArray:
    """Duality gap of (pi, pi) in the anchored game J above: ``(tau/g) KL(pi || br(pi))``.

    Args:
        preference: ``P`` (..., n, n).
        policy: probabilities (..., n), with mass only where ``ref`` has mass.
        ref: anchor, probabilities (..., n).
        tau: weight of the anchor in units of the reward, > 0.
        scale: ``g``, reward of a certain win (SPIF 1/c, SPPO 1/2, IPO and INPO m).

    Returns:
        Shape (...), in win probability.

    Raises:
        InvalidInput: unusable arguments, all named at once.
    """
    refuse(arguments.number("tau", tau) + arguments.number("scale", scale))
    checked, law, anchor = check_game(preference, policy=policy, ref=ref)
    refuse(laws.support_problems(law, "policy", anchor, "ref"))
    return anchored_gap(checked, laws.log_law(law), laws.log_law(anchor), tau, scale)


def plain_gap(preference: FloatArray, law: FloatArray) -> FloatArray:
    """As :func:`duality_gap` of P (..., n, n) and law (..., n), shape (...), without checks."""
    return np.asarray(expected_win(2.0 * preference - 1.0, law).max(-1))


def anchored_gap(
    preference: FloatArray, log_policy: FloatArray, log_ref: FloatArray, tau: float, scale: float
) -> FloatArray:
    """As :func:`regularised_gap` from log-policies (..., n), (...) in nats, without checks."""
    log_br = _soft_response(preference, np.exp(log_policy), log_ref, tau, scale)
    with np.errstate(invalid="ignore"):
        u = np.where(np.isneginf(log_policy), 0.0, log_policy - log_br)
    return tau / scale * laws.kl_of_logratio(np.exp(log_policy), u, np.exp(log_br))


def _soft_response(
    preference: FloatArray, law: FloatArray, log_ref: FloatArray, tau: float, scale: float
) -> FloatArray:
    """``log br(pi)``, ``br ∝ ref e^{g A pi/tau}``."""
    payoff = scale * expected_win(2.0 * preference - 1.0, law)
    return np.asarray(xp.log_normalise(log_ref + payoff / tau))


def nash(
    preference: Any,
    tolerance: float = 1e-9,
    raise_on_failure: bool = True,
    max_iterations: int = 100_000,
) -> Solution:
    """A Nash equilibrium of the preference game, by linear program (Munos et al. 2023; T12).

    ``min_{pi, t} t`` subject to ``A pi <= t``, ``pi`` a law; the optimum is ``t = 0``. There may be
    other equilibria; which one comes out is the solver's choice.

    Args:
        preference: ``P`` (..., n, n); one program a prompt.
        tolerance: on the duality gap.
        raise_on_failure: raise instead of returning a policy whose gap exceeds the tolerance.
        max_iterations: pivots of the linear program.

    Returns:
        A :class:`Solution`: ``primal = max_y P(y > pi)``, ``dual = min_y P(pi > y)``, ``gap`` their
        difference (the duality gap), ``reward = 2 P(y > pi) - 1``.

    Raises:
        InvalidInput: no preference. NotConverged: a gap above the tolerance.

    >>> from theory.preferences import rock_paper_scissors
    >>> nash(rock_paper_scissors()).policy.round(6).tolist()
    [0.333333, 0.333333, 0.333333]
    """
    refuse(arguments.limits(tolerance, max_iterations, optional=False))
    checked = check_preference(preference)
    skew = 2.0 * checked - 1.0
    n = skew.shape[-1]
    found = [_nash_of_one(a, max_iterations) for a in skew.reshape(-1, n, n)]
    policy = np.array([law for law, _ in found]).reshape(skew.shape[:-1])
    payoff = expected_win(skew, policy)
    said = "duality gap {:.1e}, asked for {:.1e}; the equilibrium need not be the only one"
    solution = _certified(policy, payoff, payoff.max(-1), tolerance, said, sum(n for _, n in found))
    if raise_on_failure and not solution.converged:
        raise NotConverged(f"nash: {solution.status}", solution)
    return solution


def _certified(
    policy: FloatArray, reward: FloatArray, gap: FloatArray, tolerance: float, said: str, steps: int
) -> Solution:
    """Values around 1/2 by the gap; ``said`` takes the largest gap and the tolerance."""
    outcome = Outcome.CONVERGED if np.all(gap <= tolerance) else Outcome.NOT_CONVERGED
    status = f"{outcome.value}: {said.format(gap.max(), tolerance)}"
    primal, dual = 0.5 + 0.5 * gap, 0.5 - 0.5 * gap
    return Solution(policy, reward, primal, dual, gap, outcome, status, steps)


def _nash_of_one(skew: FloatArray, max_iterations: int) -> tuple[FloatArray, int]:
    """Law and pivots of one game: HiGHS, then its active set solved again to rounding."""
    n = len(skew)
    answer = linprog(
        np.append(np.zeros(n), 1.0),
        A_ub=np.hstack([skew, -np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, None)] * n + [(None, None)],
        method="highs",
        options={
            "primal_feasibility_tolerance": 1e-10,
            "dual_feasibility_tolerance": 1e-10,
            "maxiter": int(max_iterations),
        },
    )
    if answer.x is None:
        return np.full(n, 1.0 / n), int(answer.nit)
    law = np.maximum(answer.x[:n], 0.0)
    law /= law.sum()
    tight, used = skew @ law > -1e-7, law > 1e-9
    rows = np.vstack([skew[np.ix_(tight, used)], np.ones((1, used.sum()))])
    right = np.append(np.zeros(tight.sum()), 1.0)
    polished = np.zeros(n)
    polished[used] = np.maximum(np.linalg.lstsq(rows, right, rcond=None)[0], 0.0)
    if polished.sum() > 0:
        polished /= polished.sum()
        if (skew @ polished).max() < (skew @ law).max():
            law = polished
    return law, int(answer.nit)


def regularised_nash(
    preference: Any,
    ref: Any,
    tau: float,
    scale: float = 1.0,
    tolerance: float = 1e-12,
    raise_on_failure: bool = True,
    max_iterations: int = 200,
) -> Solution:
    """The equilibrium ``z* ∝ ref e^{g A z*/tau}`` of the anchored game (T12), the only one.

    Newton's method on ``x = log z/ref``: ``x - g A z(x)/tau = const``, following ``1/tau`` upwards
    from a value where ``z`` is near ``ref``, along the path's tangent. The Jacobian is
    ``1 - K/tau`` with ``K`` skew in ``L2(z)``, so it is never singular. Newton's method may still
    take too many steps where ``z`` turns fast: the stage is then tried again with half of its step
    in ``log 1/tau``. Where stages are used up before ``tau`` the policy is that of a larger one.

    Args:
        preference: ``P`` (..., n, n).
        ref: anchor, probabilities (..., n); outcomes of mass 0 keep it.
        tau: weight of the anchor in units of the reward, > 0.
        scale: ``g``, reward of a certain win (SPIF 1/c, SPPO 1/2, IPO and INPO m).
        tolerance: on :func:`regularised_gap`.
        raise_on_failure: raise instead of returning a policy whose gap exceeds the tolerance.
        max_iterations: stages of ``1/tau``, those that were tried again among them.

    Returns:
        A :class:`Solution` in win probability: ``primal = max_pi J(pi, z)``, ``dual =
        min_pi J(z, pi)``, ``gap`` their difference; ``reward = g (2 P(y > z) - 1)`` in nats.

    Raises:
        InvalidInput: unusable arguments, all named at once. NotConverged: a gap above tolerance.

    >>> from theory.preferences import rock_paper_scissors
    >>> found = regularised_nash(rock_paper_scissors(), [0.6, 0.2, 0.2], tau=0.5)
    >>> found.policy.round(4).tolist(), bool(found.gap < 1e-12)
    ([0.4489, 0.3674, 0.1836], True)
    """
    problems = arguments.number("tau", tau) + arguments.number("scale", scale)
    refuse(problems + arguments.limits(tolerance, max_iterations, optional=False))
    checked, anchor = check_game(preference, ref=ref)
    log_ref = laws.log_law(anchor)
    skew = scale * (2.0 * checked - 1.0)
    x, steps = _followed(skew, log_ref, 1.0 / tau, max_iterations)
    log_z = np.asarray(xp.log_normalise(log_ref + x))
    z = np.exp(log_z)
    gap = anchored_gap(checked, log_z, log_ref, tau, scale)
    said = "duality gap of the anchored game {:.1e}, asked for {:.1e}"
    solution = _certified(z, expected_win(skew, z), gap, tolerance, said, steps)
    if raise_on_failure and not solution.converged:
        raise NotConverged(f"regularised_nash: {solution.status}", solution)
    return solution


def _followed(
    skew: FloatArray, log_ref: FloatArray, goal: float, stages: int
) -> tuple[FloatArray, int]:
    """The path's last point that was reached on the way to a speed ``1/tau``, and the steps."""
    x = begun = np.zeros_like(log_ref)
    speed, factor, steps = 0.0, 2.0, 0
    faster = min(goal, 0.5 / max(float(np.abs(skew).max()), 1e-300))
    for _ in range(stages):
        try:
            tried, spent, met = _newton(skew, log_ref, begun, faster)
            steps += spent
            if met:
                x, speed, factor = tried, faster, min(2.0, factor * factor)
            else:
                factor = float(np.sqrt(factor))
            if speed == goal:
                break
            faster = min(goal, factor * speed)
            begun = x + (faster - speed) * _tangent(skew, log_ref, x, speed)
        except np.linalg.LinAlgError:  # payoffs times speed beyond the digits of a number
            break
    return x, steps


def _jacobian(skew: FloatArray, z: FloatArray, payoff: FloatArray, speed: float) -> FloatArray:
    """Of ``x - speed * payoff(z(x))``: ``d z = z (dx - E_z dx)``."""
    change = (skew - payoff[..., None]) * z[..., None, :]
    return np.asarray(np.eye(skew.shape[-1]) - speed * change)


def _tangent(skew: FloatArray, log_ref: FloatArray, x: FloatArray, speed: float) -> FloatArray:
    """``dx/dspeed`` along the path ``x = speed * payoff(z(x))``."""
    z = np.exp(xp.log_normalise(log_ref + x))
    payoff = expected_win(skew, z)
    return np.asarray(np.linalg.solve(_jacobian(skew, z, payoff, speed), payoff[..., None])[..., 0])


def _newton(
    skew: FloatArray, log_ref: FloatArray, x: FloatArray, speed: float
) -> tuple[FloatArray, int, bool]:
    """Damped Newton for ``x = speed * skew @ z(x)`` (all prompts at once).

    Returns ``x``, the steps taken, and whether it is on the path.
    """

    def residual(x: FloatArray) -> tuple[FloatArray, FloatArray]:
        z = np.exp(xp.log_normalise(log_ref + x))
        return x - speed * expected_win(skew, z), z

    rounding = 1e-16 * speed * np.abs(skew).max((-1, -2))  # of payoffs that cancel
    step = 0
    while True:
        off, z = residual(x)
        before, size = np.abs(off).max(-1), 1.0 + np.abs(x).max(-1)
        if step == NEWTON or np.all(before <= 1e-14 * size + rounding):
            return x, step, bool(np.all(before <= ON_PATH * size + 1e4 * rounding))
        matrix = _jacobian(skew, z, expected_win(skew, z), speed)
        move = np.linalg.solve(matrix, -off[..., None])[..., 0]
        share = np.ones((*x.shape[:-1], 1))
        for _ in range(30):
            allowed = (1.0 - 0.25 * share[..., 0]) * before + 1e-14 * size + rounding
            rises = np.abs(residual(x + share * move)[0]).max(-1) > allowed
            if not rises.any():
                break
            share = np.where(rises[..., None], 0.5 * share, share)
        x, step = x + share * move, step + 1
