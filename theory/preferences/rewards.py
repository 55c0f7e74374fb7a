"""Best response of the reward player to preference pairs drawn from a policy (T11).

Pointwise and group objectives see only the two marginals, so the pair (winner law, loser law)
takes the place of (expert, policy). Pairwise objectives see winner and loser of one comparison,
which are *dependent*: their weight is ``W_ij = pi_i pi_j P_ij``, not ``p_w p_l``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import laws, objectives
from theory.objectives import Objective
from theory.preferences.games import check_game, expected_win
from theory.result import FloatArray


def reward(preference: Any, policy: Any, obj: Objective | str) -> FloatArray:
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

    >>> from theory.preferences import rock_paper_scissors
    >>> reward(rock_paper_scissors(), [0.5, 0.25, 0.25], "sppo").round(6).tolist()
    [0.0, 0.125, -0.125]
    """
    obj = require_reward(obj)
    checked, law = check_game(preference, policy=policy)
    return best_response(checked, law, obj)


def require_reward(obj: Any) -> Objective:
    """The objective, refused if it is none or has no best response to preference pairs."""
    found = objectives.of(obj)
    found.require("reward")
    return found


def best_response(preference: FloatArray, law: FloatArray, obj: Objective) -> FloatArray:
    """As :func:`reward` (P (..., n, n) and law (..., n) to nats (..., n)), without checks."""
    return obj.preference_response(preference, law)


def preference_logit(preference: Any, law: Any) -> FloatArray:
    """``logit P(y > pi)``, the log-ratio of winner to loser law, accurate in both tails.

    Raises:
        InvalidInput: no preference or law.
    """
    preference, law = check_game(preference, law=law)
    win = expected_win(preference, law)
    lose = expected_win(np.swapaxes(preference, -1, -2), law)
    return laws.log_law(win) - laws.log_law(lose)
