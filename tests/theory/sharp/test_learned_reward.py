"""T6, learned rewards: what the statement rests on, and what it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from tests.theory.strategies import Instance, games
from theory import laws, objectives
from theory.rounds.two_step import gibbs_step

SPIF, IPM = objectives.get("spif"), objectives.get("ipm")


@pytest.mark.claim("T6.learned_reward", regime="tabular")
@given(
    game=games(),
    n=st.integers(1, 50),
    beta=st.floats(0.3, 4.0),
    slope=st.floats(0.2, 2.0),
    tau=st.sampled_from([0.0, 0.5]),
)
def test_a_reward_of_counts_is_such_a_reward_too(
    claim, game: Instance, n: int, beta: float, slope: float, tau: float
) -> None:
    """The link at frequencies of n samples: what is not a R(u) is e, so laws need not be exact."""
    p, q, log_ref = game.expert, game.start, np.log(game.ref)
    counts = [game.rng.multinomial(n, law) + 0.5 for law in (p, q)]
    learned = SPIF.reward(*(k / k.sum(-1, keepdims=True) for k in counts))
    error = learned - slope * SPIF.reward(p, q)
    made = gibbs_step(np.log(q), learned, beta, log_ref, tau)
    reward = SPIF.reward(p, q) + error / slope
    scaled = gibbs_step(np.log(q), reward, beta / slope, log_ref, tau / slope)
    claim.close(made, scaled, 1e-9, what="log pi at beta/a, tau/a, e/a, of counts")


@pytest.mark.claim("T6.learned_reward", regime="tabular", drops="differentiable_link")
def test_a_link_with_a_jump_has_no_local_factor(claim) -> None:
    """The nearer the start is to the expert, the more a round of the hard bound multiplies."""
    p, beta, slope = np.array([0.5, 0.5]), 2.0, 0.7
    for near in (1e-2, 1e-5, 1e-9):
        q = np.exp([near, 0.0]) / np.exp([near, 0.0]).sum()
        after = gibbs_step(np.log(q), slope * IPM.reward(p, q), beta, np.log(p), 0.0)
        moved = abs(after[0] - after[1]) / near
        by_hand = 2 * slope / (beta * near) - 1.0
        claim.close(moved / by_hand, 1.0, 1e-6, what="log-odds after over before, by 2aB/beta")
        claim.exhibits(moved, 60.0, what="what a round multiplies log-odds by")


@pytest.mark.claim("T6.learned_reward", regime="tabular", drops="unrestricted_class")
def test_in_a_restricted_class_an_error_need_not_move_anything(claim) -> None:
    """One feature (1, 0, -1), and an error (1, -2, 1) that no policy of the class can follow."""
    feature, error, beta = np.array([1.0, 0.0, -1.0]), np.array([1.0, -2.0, 1.0]), 4.0
    third = np.full(3, 1 / 3)

    def loses(theta: float) -> float:
        policy = np.exp(theta * feature) / np.exp(theta * feature).sum()
        return float(beta * laws.kl(policy, third) - policy @ error)

    best = minimize_scalar(loses, bounds=(-3.0, 2.0), method="bounded", options={"xatol": 1e-9}).x
    claim.close(best * feature, 0.0, 1e-6, what="log-ratios after the round, of the class")
    free = gibbs_step(np.log(third), error, beta, None, 0.0) - np.log(third)
    claim.exhibits(np.ptp(free), 0.7, what="spread of e/beta, which a free policy follows")
