"""Laws of responses and policies of tokens: a bijection, occupancies, KL, log-ratios."""

import numpy as np
from hypothesis import given

from tests.theory.tokens.trees import enumerate_responses, games, with_zeros
from theory import TokenMDP


@given(games(tree=False))
def test_the_law_is_the_product_along_every_response(case):
    game, rng = case
    policy = with_zeros(game.random_policy(rng, batch=(2,)), rng)
    law = game.sequence_law(policy)
    np.testing.assert_allclose(law.sum(-1), 1.0, atol=1e-12)
    oracle, named = enumerate_responses(game), game.sequences()
    for prompt in range(game.n_prompts):
        assert {r.tokens for r in named[prompt]} == set(oracle[prompt])
        for n, response in enumerate(named[prompt]):
            steps = oracle[prompt][response.tokens]
            product = np.prod([np.exp(policy[:, s, a]) for s, a in steps], axis=0)
            np.testing.assert_allclose(law[:, prompt, n], product, atol=1e-14)
        assert (law[:, prompt, len(named[prompt]) :] == 0).all()


@given(games())
def test_policies_and_laws_are_in_bijection(case):
    game, rng = case
    policy = game.random_policy(rng, 0.3, batch=(3,))
    back = game.policy_from_law(game.sequence_law(policy))
    np.testing.assert_allclose(np.exp(back), np.exp(policy), atol=1e-12)
    law = rng.dirichlet(np.ones(game.responses.size)).reshape(game.responses.shape)
    law = np.where(game.responses >= 0, law, 0.0)
    law /= law.sum(-1, keepdims=True)
    np.testing.assert_allclose(game.sequence_law(game.policy_from_law(law)), law, atol=1e-14)


def test_the_bijection_keeps_log_laws_far_below_the_smallest_number():
    game = TokenMDP.tree(3, 3)
    rng = np.random.default_rng(0)
    logits = rng.uniform(-700, 0, size=(game.n_states, 3))
    policy = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    log_law = game.log_sequence_law(policy)
    assert log_law.min() < -900
    np.testing.assert_allclose(game.policy_from_log_law(log_law), policy, rtol=1e-12, atol=1e-9)
    np.testing.assert_allclose(game.log_occupancy(policy).min(), log_law.min())


def test_states_of_probability_zero_get_a_uniform_policy():
    game = TokenMDP.tree(3, 2)
    law = np.zeros((1, game.n_responses))
    law[0, 0] = 1.0
    policy = np.exp(game.policy_from_law(law))
    first = game.sequences()[0][0]
    assert first.tokens == (0,)
    np.testing.assert_array_equal(policy[0], [1.0, 0.0, 0.0])
    np.testing.assert_allclose(policy[1:], 1 / 3)


@given(games(tree=False))
def test_occupancies_are_sums_of_sequence_probabilities(case):
    game, rng = case
    policy = with_zeros(game.random_policy(rng), rng)
    law, expected = game.sequence_law(policy), np.zeros((game.n_states, game.n_actions))
    oracle = enumerate_responses(game)
    for prompt, named in enumerate(game.sequences()):
        for n, response in enumerate(named):
            for state, action in oracle[prompt][response.tokens]:
                expected[state, action] += law[prompt, n]
    np.testing.assert_allclose(game.occupancy(policy), expected, atol=1e-14)
    np.testing.assert_allclose(np.exp(game.log_occupancy(policy)), expected, atol=1e-14)
    reward = rng.normal(size=expected.shape)
    totals = (law * game.sequence_sum(reward)).sum(-1)
    np.testing.assert_allclose(game.expected_sum(policy, reward), totals, atol=1e-12)


@given(games(tree=False))
def test_kl_of_sequences_is_the_chain_rule(case):
    game, rng = case
    p, q = with_zeros(game.random_policy(rng), rng), game.random_policy(rng)
    law = game.sequence_law(p)
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(law > 0, law * (np.log(law) - game.log_sequence_law(q)), 0.0)
    np.testing.assert_allclose(game.kl(p, q), terms.sum(-1), atol=1e-12)
    outside = game.kl(q, p)
    missed = ((game.sequence_law(q) > 0) & (law == 0)).any(-1)
    np.testing.assert_array_equal(np.isinf(outside), missed)


def test_log_ratios_are_infinite_on_one_side_and_zero_where_both_are_absent():
    game = TokenMDP.tree(4, 1)
    p, q = np.array([[0.5, 0.5, 0, 0]]), np.array([[0.25, 0, 0.75, 0]])
    with np.errstate(divide="ignore"):
        u = game.conditional_logratio(np.log(p), np.log(q))
    np.testing.assert_allclose(u, [[np.log(2), np.inf, -np.inf, 0.0]])
    np.testing.assert_allclose(game.sequence_sum(u), u)


def test_infinities_that_meet_on_a_response_count_as_nothing():
    game = TokenMDP.tree(2, 2, eos=None)
    u = np.array([[np.inf, 1.0], [-np.inf, np.inf], [2.0, -np.inf]])
    np.testing.assert_array_equal(game.sequence_sum(u), [[0.0, np.inf, 3.0, -np.inf]])
