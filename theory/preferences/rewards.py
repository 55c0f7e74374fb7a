"""Best response of the reward player to preference pairs drawn from a policy (T11).

Pointwise and group objectives see only the two marginals, so the pair (winner law, loser law)
takes the place of (expert, policy). Pairwise objectives see winner and loser of one comparison,
which are *dependent*: their weight is ``W_ij = pi_i pi_j P_ij``, not ``p_w p_l``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import laws
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.objectives import Objective, Pairwise, derivatives
from theory.objectives.pairwise import SquaredMargin
from theory.preferences.games import check_game, expected_win
from theory.result import FloatArray

MAX_NEWTON = 100


def reward(preference: Any, policy: Any, obj: Objective) -> FloatArray:
    """Reward player's exact best response to pairs from ``policy``, in nats, shape (..., n).

    * pointwise and group: ``R(logit P(y > pi))``, as independent winners and losers have log-ratio
      ``logit P``; SPIF (alpha = 1/2) gives ``(2P - 1)/c``, SPPO ``P - 1/2``;
    * pairwise squared (IPO, INPO): ``m (2P - 1)``, no kappa, because pairs are dependent;
    * other pairwise losses ``l``: the solution of
      ``E_{y'~pi}[P(y > y') l'(r(y) - r(y')) - P(y' > y) l'(r(y') - r(y))] = 0`` for every ``y``;
      logistic (DPO, SPIN): ``E_{y'~pi} s(r(y) - r(y')) = P(y > pi)``.

    Outcomes that the policy never draws get what the same formula says of them (possibly +-inf).
    Rewards that are defined up to a constant have ``E_pi[r] = 0``.

    Args:
        preference: ``P`` (..., n, n).
        policy: probabilities (..., n) of the law that both responses of a pair are drawn from.
        obj: the objective; an anchor or a preference that it needs is not passed here.

    Raises:
        Unavailable: the objective has no such best response, with the reason.
        InvalidInput: a preference or law that is none; pairs that a loss without a finite
            minimiser can separate.
        NotConverged: Newton's method did not reach the solution.
    """
    require_reward(obj)
    checked, law = check_game(preference, policy=policy)
    return best_response(checked, law, obj)


def require_reward(obj: Any) -> None:
    """Refuse what is no objective, or one without a best response to preference pairs."""
    if not isinstance(obj, Objective):
        raise InvalidInput(f"obj={obj!r}; needed is an objective, as from objectives.get(name)")
    if obj.missing("reward"):
        raise Unavailable(f"{obj.name} has no reward: {obj.missing('reward')}")


def best_response(preference: FloatArray, law: FloatArray, obj: Objective) -> FloatArray:
    """As :func:`reward`, without checks."""
    if isinstance(obj, SquaredMargin):
        win = expected_win(preference, law)
        lose = expected_win(np.swapaxes(preference, -1, -2), law)
        return np.asarray(obj.margin * (win - lose))
    if isinstance(obj, Pairwise):
        return _dependent_pairs(preference, law, obj)
    r = np.asarray(obj.link(preference_logit(preference, law)))
    if not obj.up_to_constant:
        return r
    # winner and loser laws have the mean pi, so E_pi is the mean over both
    return np.asarray(r - laws.expect(law, r)[..., None])


def preference_logit(preference: FloatArray, law: FloatArray) -> FloatArray:
    """``logit P(y > pi)``, the log-ratio of winner to loser law, accurate in both tails."""
    win = expected_win(preference, law)
    lose = expected_win(np.swapaxes(preference, -1, -2), law)
    return laws.log_law(win) - laws.log_law(lose)


def _dependent_pairs(preference: FloatArray, law: FloatArray, obj: Pairwise) -> FloatArray:
    """Newton's method on the stationarity of every outcome, each divided by its own mass.

    Divided by ``pi_y`` the equations stay of one scale, so that outcomes of mass 1e-300 are solved
    as accurately as the others. A full step shrinks every residual alike, which makes the largest
    residual a merit for the damping.
    """
    n = law.shape[-1]
    win = expected_win(preference, law)
    lose = expected_win(np.swapaxes(preference, -1, -2), law)
    settled = (win > 0) & (lose > 0)
    _refuse_separable(preference, law, obj)
    against = law[..., None, :] * np.ones((n, 1))

    def balance(r: FloatArray, order: int) -> FloatArray:
        """First: residuals (..., n). Second: ``pi_j`` times the curvature of each pair."""
        d = r[..., :, None] - r[..., None, :]
        with np.errstate(over="ignore", invalid="ignore"):
            slope = preference * derivatives.derivative(obj.pair_loss, d, order)
            back = np.swapaxes(slope, -1, -2)
            return (against * (slope - back)).sum(-1) if order == 1 else against * (slope + back)

    def merit(r: FloatArray) -> FloatArray:
        return np.where(settled, np.abs(balance(r, 1)), 0.0).max(-1)

    r = np.where(settled, win - lose, 0.0)
    r = r - laws.expect(law, r)[..., None]
    step = np.full_like(r, np.inf)
    for _ in range(MAX_NEWTON):
        pairs = balance(r, 2)
        matrix = law[..., None, :] - pairs  # the shift E_pi[r] gets a unit of curvature
        matrix[..., np.arange(n), np.arange(n)] += pairs.sum(-1)
        matrix = np.where(settled[..., None], matrix, np.eye(n))
        residual = np.where(settled, balance(r, 1), 0.0)
        step = np.linalg.solve(matrix, -residual[..., None])[..., 0]
        before, share = merit(r), np.ones((*law.shape[:-1], 1))
        for _ in range(40):
            rises = ~(merit(r + share * step) <= before + 1e-15)
            if not rises.any():
                break
            share = np.where(rises[..., None], 0.5 * share, share)
        r = r + share * step
        if np.all(np.abs(step) <= 1e-13 * (1.0 + np.abs(r))):
            break
    if not np.all(np.abs(step) <= 1e-8 * (1.0 + np.abs(r))):
        raise NotConverged(
            f"{obj.name}: Newton's last step on the pairs was {np.abs(step).max()}", r
        )
    r = r - laws.expect(law, np.where(settled, r, 0.0))[..., None]
    return np.where(settled, r, np.where(win > 0, np.inf, -np.inf))


def _refuse_separable(preference: FloatArray, law: FloatArray, obj: Pairwise) -> None:
    """Refuse pairs whose losers never win, directly or in turn: the minimiser is at infinity."""
    n = law.shape[-1]
    drawn = law > 0
    beats = ((preference > 0) & drawn[..., None] & drawn[..., None, :]).astype(np.float64)
    for _ in range(max(1, int(np.ceil(np.log2(n))))):
        beats = ((beats @ beats) > 0).astype(np.float64)
    missing = drawn[..., None] & drawn[..., None, :] & (beats == 0)
    if missing.any():
        *prompt, i, j = (int(k) for k in np.argwhere(missing)[0])
        where = f" (prompt {tuple(prompt)})" if prompt else ""
        raise InvalidInput(
            f"{obj.name}: separable pairs: outcome {i} never beats {j}, directly or in turn"
            f"{where}; the loss has no finite minimiser: use a squared loss, or no certain wins"
        )
