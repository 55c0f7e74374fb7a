"""T6 (vi): what errors of the rewards cost a round's potential."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rounds.two_step.links import LIPSCHITZ, of_log_odds
from tests.theory.strategies import Instance, games, label
from theory import laws, objectives, self_play, theory_card
from theory.rounds.two_step import gibbs_step, reward_of_log_laws


@pytest.mark.parametrize("obj", LIPSCHITZ, ids=label)
@pytest.mark.claim("T6.inexact", regime="tabular")
@given(game=games(), share=st.floats(0.3, 1.0), size=st.floats(0.0, 3.0))
def test_rounds_with_reward_errors(claim, obj, game: Instance, share: float, size: float) -> None:
    """(vi): errors e_t of the rewards cost <e_t, pi_{t+1} - p> a round, and no more."""
    card, p, log_q = theory_card(obj), game.expert, np.log(game.start)
    beta, first = card.L / share, laws.kl(game.expert, game.start)
    potentials, costs, bounds = [], [], []
    for _ in range(6):
        error = size * game.rng.standard_normal(p.shape)
        reward = reward_of_log_laws(obj, np.log(p), log_q)
        log_next = gibbs_step(log_q, reward + error, beta, None, 0.0)
        after = np.exp(log_next)
        costs.append((error * (after - p)).sum(-1))
        potentials.append(obj.potential(after, p))
        kept = (beta - card.mu) * laws.kl(p, np.exp(log_q)) - beta * laws.kl(p, after)
        scale = 1e-11 * (1.0 + beta * laws.kl(p, after).max() + size)
        claim.below(potentials[-1], kept + costs[-1], atol=scale, what="D_Phi after a round")
        bounds.append(np.ptp(error, axis=-1) * laws.total_variation(after, p))
        log_q = log_next
    claim.below(costs, np.array(bounds), atol=1e-12, what="cost against osc(e) TV(pi, p)")
    mean = beta * first / 6 + np.mean(costs, 0)
    claim.below(np.mean(potentials, 0), mean, atol=1e-10 * (1 + beta), what="mean D_Phi, 6 rounds")


@pytest.mark.claim("T6.inexact", regime="tabular", drops="beta_at_least_L")
def test_below_the_largest_slope_a_round_costs_more_than_its_errors(claim) -> None:
    """SPIN at beta = L/2 without any error: the right side of (vi) is negative, D_Phi is not."""
    p, start = of_log_odds(0.0), of_log_odds(3.0)
    path = self_play(p, start, "spin", beta=0.5, rounds=1)
    before, after = path.details["kl"]
    potential = objectives.get("spin").potential(path.policy, p)
    bound = (0.5 - 1.0) * before - 0.5 * after
    claim.exhibits(potential - bound, 1.0, what="D_Phi less its bound, nats")


@pytest.mark.claim("T6.inexact", regime="tabular")
@given(game=games(), size=st.floats(0.01, 3.0))
def test_the_cost_of_reward_errors_is_attained(claim, game: Instance, size: float) -> None:
    """SPIN at beta = 1: D_Phi + KL(p||pi) *is* <e, pi - p>, as pi is p e^e normalised."""
    spin, error = objectives.get("spin"), size * game.rng.standard_normal(game.expert.shape)
    reward = reward_of_log_laws(spin, np.log(game.expert), np.log(game.start))
    after = np.exp(gibbs_step(np.log(game.start), reward + error, 1.0, None, 0.0))
    both = spin.potential(after, game.expert) + laws.kl(game.expert, after)
    cost = (error * (after - game.expert)).sum(-1)
    claim.close(
        both, cost, 1e-12 * (1 + size), rtol=1e-9, what="D_Phi + KL(p||pi) against the cost"
    )
