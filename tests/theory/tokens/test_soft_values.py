"""T2: soft value iteration on tokens is the Gibbs policy of responses."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.tokens.trees import games, with_zeros
from theory import TokenMDP
from theory.errors import InvalidInput


@pytest.mark.claim("T2.soft_value_iteration", regime="tabular")
@given(games(), st.floats(0.05, 5), st.sampled_from([0.0, 0.1, 2.0]), st.booleans(), st.booleans())
def test_soft_value_iteration_is_the_gibbs_policy_of_sequences(claim, case, beta, tau, rare, both):
    game, rng = case
    prior = game.random_policy(rng, batch=(2,))
    prior = with_zeros(prior, rng) if rare else prior
    ref = game.random_policy(rng, 0.5)
    per_token = rng.normal(size=prior.shape, scale=2.0)
    per_sequence = rng.normal(size=game.responses.shape, scale=2.0) if both else None
    out = game.soft_value_iteration(per_token, prior, beta, tau, ref, per_sequence)
    with np.errstate(invalid="ignore"):
        weight = beta * game.log_sequence_law(prior) + game.sequence_sum(per_token)
        weight = weight + (0.0 if per_sequence is None else per_sequence)
        if tau:
            weight = weight + tau * game.log_sequence_law(ref)
    weight = np.where(game.responses >= 0, weight, -np.inf) / (beta + tau)
    top = weight.max(-1, keepdims=True)
    mass = np.exp(weight - top)
    gibbs = mass / mass.sum(-1, keepdims=True)
    claim.close(game.sequence_law(out.policy), gibbs, 1e-12, what="law after a policy step")
    normaliser = (beta + tau) * (top[..., 0] + np.log(mass.sum(-1)))
    claim.close(out.V[..., : game.n_prompts], normaliser, 1e-10, what="V at the prompts")


@pytest.mark.claim("T2.gibbs", "T2.soft_value_iteration", regime="tabular")
@given(games(), st.floats(0.1, 3), st.floats(0.0, 2))
def test_the_policy_step_beats_every_other_policy(claim, case, beta, tau):
    game, rng = case
    prior, ref = game.random_policy(rng), game.random_policy(rng)
    reward = rng.normal(size=(game.n_states, game.n_actions))

    def value(policy):
        paid = game.expected_sum(policy, reward)
        return paid - beta * game.kl(policy, prior) - tau * game.kl(policy, ref)

    out = game.soft_value_iteration(reward, prior, beta, tau, ref)
    claim.close(value(out.policy), out.V[: game.n_prompts], 1e-11, what="value of the step is V")
    other = game.random_policy(rng, batch=(5,))
    claim.below(value(other), value(out.policy), what="value of other policies", atol=1e-11)


def test_only_the_anchor_is_a_policy_step_from_the_reference():
    game = TokenMDP.random(3, 3)
    rng = np.random.default_rng(1)
    reward, ref = rng.normal(size=(game.n_states, 3)), game.random_policy(rng)
    anchored = game.soft_value_iteration(reward, beta=0.0, tau=0.7, log_ref=ref)
    plain = game.soft_value_iteration(reward, ref, beta=0.7)
    np.testing.assert_array_equal(anchored.policy, plain.policy)


def test_rewards_of_minus_infinity_forbid_and_never_make_nan():
    game = TokenMDP.tree(3, 3)
    reward = np.zeros((game.n_states, 3))
    reward[1] = -np.inf  # everything after token 1
    out = game.soft_value_iteration(reward, game.uniform_policy())
    assert np.isneginf(out.V[1])
    assert not np.isnan(out.policy).any()
    assert not np.isnan(out.Q).any()
    np.testing.assert_allclose(np.exp(out.policy[1]), 1 / 3)
    assert np.exp(out.policy[0, 1]) == 0
    assert game.occupancy(out.policy)[1].sum() == 0
    allowed = np.ones((2, 2), dtype=bool)
    allowed[1, 1] = False
    narrow = TokenMDP.from_arrays([[1, -1], [-1, -1]], allowed=allowed)
    late = np.where(narrow.depth[:, None] == 1, -np.inf, 0.0) * np.ones((2, 2))
    out = narrow.soft_value_iteration(late, narrow.uniform_policy())
    np.testing.assert_array_equal(np.exp(out.policy), [[0.0, 1.0], [1.0, 0.0]])
    reward[0] = -np.inf
    with pytest.raises(InvalidInput, match=r"no response of state 0 \(prompt 0, after no tokens\)"):
        game.soft_value_iteration(reward, game.uniform_policy())
