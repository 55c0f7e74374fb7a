"""Rounds of preference self-play: SPPO, online IPO and DPO, INPO, Nash-MD (T11, T12)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from theory import laws
from theory.arguments import numbers, round_weights
from theory.errors import NotConverged, Unavailable, refuse
from theory.objectives import Objective
from theory.preferences.games import check_game, expected_win
from theory.preferences.predictions import payoff_scale
from theory.preferences.rewards import best_response, require_reward
from theory.preferences.solve import anchored_gap, plain_gap
from theory.result import FloatArray, Outcome, Solution
from theory.rounds.two_step import SETTLED, gibbs_step


def self_play(
    preference: Any,
    start: Any,
    obj: Objective | str,
    beta: float | Iterable[float] | None = None,
    rounds: int = 50,
    ref: Any = None,
    tau: float = 0.0,
) -> Solution:
    """Run exact rounds on pairs drawn from the current policy (reconstruction, T11).

        r_t = best response to winner and loser of pairs from pi_t       (preferences.reward)
        pi_{t+1} ∝ (pi_t^beta ref^tau e^{r_t})^{1/(beta+tau)}

    ``sppo`` (SPPO's eta is 1/beta) and ``spif`` (2/(beta c)) are multiplicative weights; ``inpo``
    and every other objective of constant gain with ``tau > 0`` is magnetic mirror descent (INPO's
    eta is beta + tau at margin 1/2); ``dpo`` is online DPO.

    Args:
        preference: ``P`` (..., n, n), leading axes are prompts.
        start: first policy, probabilities (..., n).
        obj: the objective.
        beta: weight of the KL step, > 0; a number or one a round. Needed.
        rounds: number of rounds, >= 0.
        ref: anchor, probabilities (..., n); also the base of objectives whose opponent has one.
        tau: weight of the anchor ``KL(pi||ref)``, >= 0; needs ``ref`` if positive.

    Returns:
        A :class:`Solution`: ``policies`` (rounds + 1, ..., n), the start first; ``reward`` the best
        response to the last; ``primal = gap`` the last policy's duality gap in win probability
        (of the anchored game if ``tau > 0`` and the reward is ``g (2P - 1)``), ``dual`` 0.
        ``details``: ``duality_gap`` of every policy (plain game), ``average`` of the policies that
        were scored (all but the last, weight 1/beta), its gap ``average_gap``, and ``scale`` ``g``
        (None where the reward is not of that form).

    Raises:
        InvalidInput: unusable arguments, all named at once. Unavailable: no such round, with the
        reason. NotConverged: a best response was not reached or is infinite.

    >>> from theory.preferences import rock_paper_scissors
    >>> even = [1 / 3, 1 / 3, 1 / 3]
    >>> path = self_play(rock_paper_scissors(), [0.5, 0.3, 0.2], "inpo", 2.0, ref=even, tau=1.0)
    >>> path.details["duality_gap"][[0, -1]].round(6).tolist()
    [0.3, 0.0]
    """
    obj = require_reward(obj)
    betas, problems = round_weights(beta, rounds, ref, tau)
    refuse(problems)
    checked, log_start, log_ref = _prepare(preference, start, ref, tau)
    base = log_start if log_ref is None else log_ref
    path, scored = [log_start], []
    for t, weight in enumerate(betas):
        prior = np.asarray(obj.opponent(path[-1], log_start, base))
        scored.append(np.exp(prior))
        payoff = _finite_reward(checked, prior, obj, t)
        path.append(gibbs_step(prior, payoff, weight, log_ref, tau))
    last = np.asarray(obj.opponent(path[-1], log_start, base))
    scale: float | None
    try:
        scale = payoff_scale(obj)
    except Unavailable:
        scale = None
    reward = best_response(checked, np.exp(last), obj)
    named = f"{obj.label}, beta {_range(betas)}, tau {tau:g}"
    return _solution(checked, np.stack(path), scored, betas, reward, log_ref, tau, scale, named)


def nash_md(
    preference: Any,
    start: Any,
    ref: Any,
    beta: float | Iterable[float],
    tau: float,
    rounds: int = 50,
    scale: float = 1.0,
) -> Solution:
    """Nash-MD: the reward is scored against the geometric mixture, not against ``pi_t``.

        m_t ∝ (pi_t^beta ref^tau)^{1/(beta+tau)}
        pi_{t+1} ∝ m_t e^{g (2P(y > m_t) - 1)/(beta+tau)}

    Munos et al., arXiv 2312.00886 (their eta is 2g/(beta+tau), their tau is tau/(2g); formula
    from a secondary note). INPO takes the same step with ``P(y > pi_t)``. At a constant
    ``beta`` the fixed point is *not* the equilibrium of the anchored game; it tends to it as
    ``beta -> inf``, and the published schedule is ``beta_t = tau t/2``.

    Args:
        preference, start, ref, rounds: as in :func:`self_play`.
        beta: weight of the KL step, >= 0 (0 forgets the policy); a number or one a round.
        tau: weight of the anchor, > 0.
        scale: ``g``, the reward of a certain win.

    Returns:
        As :func:`self_play`; ``reward`` is the score against the last mixture, and ``primal = gap``
        the gap of the anchored game at the last policy.

    Raises:
        InvalidInput: unusable arguments, all named at once.
    """
    betas, problems = round_weights(beta, rounds, ref, tau, 0.0)
    problems += numbers("scale", scale, single=True)
    if laws.is_real(tau) and tau == 0:
        problems.append(f"tau={tau!r}; Nash-MD needs ref, tau > 0")
    refuse(problems)
    checked, log_start, log_ref = _prepare(preference, start, ref, tau)
    skew = scale * (2.0 * checked - 1.0)
    path, scored = [log_start], []
    for weight in betas:
        mixture = gibbs_step(path[-1], np.zeros_like(log_start), weight, log_ref, tau)
        scored.append(np.exp(mixture))
        path.append(gibbs_step(path[-1], expected_win(skew, scored[-1]), weight, log_ref, tau))
    reward = expected_win(skew, scored[-1] if scored else np.exp(log_start))
    named = f"Nash-MD, beta {_range(betas)}, tau {tau:g}"
    return _solution(checked, np.stack(path), scored, betas, reward, log_ref, tau, scale, named)


def _solution(
    preference: FloatArray,
    path: FloatArray,
    scored: list[FloatArray],
    betas: list[float],
    reward: FloatArray,
    log_ref: FloatArray | None,
    tau: float,
    scale: float | None,
    named: str,
) -> Solution:
    policies = np.exp(path)
    gaps = plain_gap(preference, policies)
    average = policies[0]
    if scored:
        # at beta = 0 a round forgets its policy, and one policy outweighs all others
        weights = np.array([1.0 / max(beta, 1e-300) for beta in betas])
        average = np.tensordot(weights / weights.sum(), np.stack(scored), axes=1)
    if tau > 0 and scale is not None and log_ref is not None:
        gap, game = anchored_gap(preference, path[-1], log_ref, tau, scale), "anchored game"
    else:
        gap, game = gaps[-1], "preference game"
    moved = 0.5 * np.abs(policies[-1] - policies[-2]).sum(-1).max() if betas else np.inf
    outcome = Outcome.CONVERGED if moved <= SETTLED else Outcome.MOVING
    outcome = outcome if betas else Outcome.NO_ROUNDS
    last = f"the last round moved {moved:.1e} in total variation" if betas else "none asked for"
    return Solution(
        policy=policies[-1],
        reward=reward,
        primal=gap,
        dual=np.zeros_like(gap),
        gap=gap,
        outcome=outcome,
        status=f"{outcome.value}: {last}; duality gap of the {game} {np.max(gap):.1e} ({named})",
        iterations=len(betas),
        policies=policies,
        details={
            "duality_gap": gaps,
            "average": average,
            "average_gap": plain_gap(preference, average),
            "scale": scale,
        },
    )


def _finite_reward(
    preference: FloatArray, log_law: FloatArray, obj: Objective, t: int
) -> FloatArray:
    reward = best_response(preference, np.exp(log_law), obj)
    live = np.isfinite(log_law)
    if not np.all(np.isfinite(reward[live])):
        where = tuple(int(i) for i in np.argwhere(live & ~np.isfinite(reward))[0])
        raise NotConverged(
            f"round {t}: {obj.name} pays an infinite reward at {where}, where the preference is "
            "certain against all mass of the policy; use a bounded link"
        )
    return np.where(live, reward, 0.0)


def _prepare(
    preference: Any, start: Any, ref: Any, tau: float
) -> tuple[FloatArray, FloatArray, FloatArray | None]:
    named = {"start": start} if ref is None else {"start": start, "ref": ref}
    checked, *given = check_game(preference, **named)
    if tau > 0:
        refuse(laws.support_problems(given[0], "start", given[1], "ref"))
    return checked, laws.log_law(given[0]), laws.log_law(given[1]) if ref is not None else None


def _range(betas: list[float]) -> str:
    if not betas:
        return "none"
    low, high = min(betas), max(betas)
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"
