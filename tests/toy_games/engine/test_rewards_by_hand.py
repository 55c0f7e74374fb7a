"""Classes of rewards: sizes, shapes, values and starts written out in numpy."""

import numpy as np
import pytest
import torch

from theory import TokenMDP
from theory.errors import InvalidInput
from toy_games.engine.rewards import Linear, Network, Table, one_hot_tokens

RNG = np.random.default_rng(5)
PHI = RNG.standard_normal((2, 60))  # two rows, cut to size


def rewards_of(made):
    return made.reward(torch.from_numpy(PHI[:, : made.size])).numpy()


def test_a_table_is_one_number_a_response():
    made = Table(3, prompts=2)
    assert (made.shape, made.size) == ((2, 3), 6)
    assert (Table(3).shape, Table(3).size) == ((1, 3), 3)
    found = rewards_of(made)
    for b, x, n in np.ndindex(2, 2, 3):
        assert found[b, x, n] == PHI[b, 3 * x + n]
    expected = 0.5 * np.random.default_rng(1).standard_normal(6)
    np.testing.assert_array_equal(made.initial(np.random.default_rng(1), 0.5), expected)


def test_a_linear_reward_is_a_pairing_with_features():
    features = RNG.standard_normal((2, 3, 4))
    made = Linear(features)
    assert (made.shape, made.size) == ((2, 3), 4)
    found = rewards_of(made)
    for b, x, n in np.ndindex(2, 2, 3):
        np.testing.assert_allclose(found[b, x, n], PHI[b, :4] @ features[x, n], rtol=1e-13)
    expected = 0.5 * np.random.default_rng(1).standard_normal(4)
    np.testing.assert_array_equal(made.initial(np.random.default_rng(1), 0.5), expected)
    assert Linear(features[0]).shape == (1, 3)


def test_a_network_has_one_hidden_layer():
    inputs, width = RNG.standard_normal((2, 3, 5)), 4
    made = Network(inputs, width)
    assert (made.shape, made.size) == ((2, 3), 5 * 4 + 4 + 4 + 1)
    found = rewards_of(made)
    for b, x, n in np.ndindex(2, 2, 3):
        weights, bias = PHI[b, :20].reshape(5, 4), PHI[b, 20:24]
        hidden = np.tanh(inputs[x, n] @ weights + bias)
        expected = hidden @ PHI[b, 24:28] + PHI[b, 28]
        np.testing.assert_allclose(found[b, x, n], expected, rtol=1e-12)
    start = made.initial(np.random.default_rng(1), 0.5).numpy()
    normal = np.random.default_rng(1).standard_normal(28)
    np.testing.assert_allclose(start[:24], normal[:24])
    np.testing.assert_allclose(start[24:28], 0.5 * normal[24:] / 2.0)
    assert start[28:] == [0.0]
    assert Network(inputs[0], 1).size == 5 + 1 + 1 + 1
    assert Network(inputs[0]).width == 16


@pytest.mark.parametrize("kind", [Linear, Network])
def test_wrong_numbers_are_refused(kind):
    broken = np.ones((3, 4))
    broken[1, 2] = np.nan
    for numbers in (np.ones(4), np.ones((1, 2, 3, 4)), broken, np.full((2, 3, 4), np.inf)):
        with pytest.raises(InvalidInput, match="needed are finite numbers"):
            kind(numbers)
    with pytest.raises(InvalidInput, match="width=0"):
        Network(np.ones((3, 4)), 0)


def test_tokens_are_one_hot_by_position_with_a_place_for_ended():
    game = TokenMDP.from_text(["a b", "b", "b b a"], order=1, tree=True, vocab_size=4, horizon=3)
    tokens = game.unrolled()[0].sequence_tokens
    found = one_hot_tokens(game)
    wide = game.n_actions + 1
    assert found.shape == (*tokens.shape[:2], tokens.shape[2] * wide)
    assert (tokens < 0).any()
    for x, n, h in np.ndindex(*tokens.shape):
        at = tokens[x, n, h] if tokens[x, n, h] >= 0 else game.n_actions
        expected = (np.arange(wide) == at).astype(float)
        np.testing.assert_array_equal(found[x, n, h * wide : (h + 1) * wide], expected)
