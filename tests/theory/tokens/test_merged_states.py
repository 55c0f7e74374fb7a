"""Token MDPs whose states are merged: what they determine, and their tree."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.tokens.trees import games
from theory import TokenMDP


@given(st.integers(2, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.booleans())
def test_merging_a_tree_and_building_merged_are_the_same(vocab, horizon, prompts, order, ends):
    eos = 0 if ends else None
    merged = TokenMDP.tree(vocab, horizon, prompts, eos).merged(order)
    direct = TokenMDP.tree(vocab, horizon, prompts, eos, order=order)
    for name in ("next_state", "depth", "prompt", "allowed"):
        np.testing.assert_array_equal(getattr(merged, name), getattr(direct, name))
    if order >= horizon - 1:
        np.testing.assert_array_equal(merged.source_state, np.arange(merged.n_states))


@given(
    st.integers(2, 4), st.integers(1, 4), st.integers(1, 2), st.integers(0, 2), st.integers(0, 99)
)
def test_what_merged_states_determine_is_the_same_on_the_tree(vocab, horizon, prompts, order, seed):
    rng = np.random.default_rng(seed)
    tree = TokenMDP.tree(vocab, horizon, prompts)
    game = tree.merged(order)
    policy, ref = game.random_policy(rng), game.random_policy(rng)
    reward = rng.normal(size=policy.shape)
    lifted = tree.soft_value_iteration(
        game.lift(reward), game.lift(policy), 0.8, 0.3, game.lift(ref)
    )
    merged = game.soft_value_iteration(reward, policy, 0.8, 0.3, ref)
    np.testing.assert_allclose(game.lift(merged.policy), lifted.policy, atol=1e-12)
    np.testing.assert_allclose(merged.V[: game.n_prompts], lifted.V[: game.n_prompts], atol=1e-12)
    np.testing.assert_allclose(game.sequence_law(policy), tree.sequence_law(game.lift(policy)))
    np.testing.assert_allclose(game.kl(policy, ref), tree.kl(game.lift(policy), game.lift(ref)))
    np.testing.assert_allclose(game.merge_policy(game.lift(policy)), policy, atol=1e-12)


@given(games(), st.integers(0, 10**6))
def test_a_merged_expert_keeps_its_occupancy(case, seed):
    rng = np.random.default_rng(seed)
    tree = TokenMDP.random(3, 4, rng=rng, prompts=2)
    game = tree.merged(1)
    pooled = np.zeros((game.n_states, 3))
    np.add.at(pooled, game.source_state, tree.occupancy(tree.expert))
    np.testing.assert_allclose(game.occupancy(game.expert), pooled, atol=1e-14)
    twice = game.merged(0)
    np.testing.assert_allclose(twice.expert, tree.merged(0).expert, atol=1e-12)


def test_a_merged_game_unrolls_to_its_tree():
    game = TokenMDP.tree(3, 4, prompts=2, order=1)
    tree, where = game.unrolled()
    np.testing.assert_array_equal(tree.next_state, TokenMDP.tree(3, 4, prompts=2).next_state)
    np.testing.assert_array_equal(tree.merged(1).source_state, where)
    assert game.n_responses == tree.n_responses == 2 * 2 * 2 * 3 + 1 + 2 + 4


def test_names_read_as_text():
    game = TokenMDP.tree(3, 2, 2, vocabulary=[".", "so", "be"], prompt_names=["why", "what"])
    assert game.sequences()[1][2] == (1, (1, 1), "so so")
    assert game.describe(3) == "state 3 (prompt 'why', after be)"
    assert repr(game) == "TokenMDP(tree, states=6, actions=3, horizon=2, prompts=2)"
