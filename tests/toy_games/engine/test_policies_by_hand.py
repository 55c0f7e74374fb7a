"""Classes of policies: sizes, shapes, laws and starts written out in numpy."""

import numpy as np
import pytest
import torch

from theory import TokenMDP
from theory.errors import InvalidInput
from toy_games.engine.policies import LogLinearPolicy, Neural, Softmax, Tokens

RNG = np.random.default_rng(6)
THETA = RNG.standard_normal((2, 90))  # two rows, cut to size


def normal(size):
    return np.random.default_rng(1).standard_normal(size)


def generator():
    return np.random.default_rng(1)


def log_softmax(x):
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def laws_of(policy):
    return policy.log_law(torch.from_numpy(THETA[:, : policy.size])).numpy()


def test_softmax_is_one_logit_a_response():
    policy = Softmax(3, prompts=2)
    assert (policy.shape, policy.size) == ((2, 3), 6)
    assert (Softmax(3).shape, Softmax(3).size) == ((1, 3), 3)
    np.testing.assert_allclose(laws_of(policy), log_softmax(THETA[:, :6].reshape(2, 2, 3)))
    np.testing.assert_array_equal(policy.initial(generator(), 0.5), 0.5 * normal(6))
    log_law = torch.tensor([[-1.0, -2.0, -torch.inf], [-699.0, -701.0, -3.0]])
    found = policy.parameters_of(log_law.expand(4, 2, 3))
    assert found.shape == (4, 6)
    assert found[3].tolist() == [-1.0, -2.0, -700.0, -699.0, -700.0, -3.0]


def test_log_linear_laws_pair_parameters_with_features():
    own = RNG.standard_normal((2, 2, 3, 4))  # rows, prompts, responses, features
    for features in (own, own[1], own[1, 0]):
        policy = LogLinearPolicy(features)
        prompts = 1 if features.ndim == 2 else 2
        assert (policy.shape, policy.size) == ((prompts, 3), 4)
        found = laws_of(policy)
        for b, x in np.ndindex(2, prompts):
            mine = (own[b] if features.ndim == 4 else own[1])[x]
            np.testing.assert_allclose(found[b, x], log_softmax(mine @ THETA[b, :4]))
    np.testing.assert_array_equal(policy.initial(generator(), 0.5), 0.5 * normal(4))


def test_wrong_features_are_refused():
    broken = np.ones((3, 4))
    broken[1, 2] = np.nan
    for features in (np.ones(4), np.ones((1, 1, 2, 3, 4)), broken, np.full((2, 3, 4), np.inf)):
        with pytest.raises(InvalidInput, match="needed are finite numbers"):
            LogLinearPolicy(features)


FULL = TokenMDP.random(3, 2, prompts=2, rng=np.random.default_rng(0))  # the first token ends
ALLOWED = np.ones((6, 3), dtype=bool)
ALLOWED[5, 0] = False  # of the second prompt: it has one response less
PADDED = TokenMDP.from_arrays(FULL.next_state, FULL.depth, FULL.prompt, ALLOWED)


@pytest.mark.parametrize("game", [FULL, PADDED], ids=["full", "padded"])
@pytest.mark.parametrize("width", [None, 2])
def test_token_laws_are_sums_along_responses(game, width):
    """``width`` None is the table of next-token logits, else a network on the prefixes."""
    policy = Tokens(game) if width is None else Neural(game, width)
    tree, where = game.unrolled()
    tokens = tree.sequence_tokens
    assert policy.shape == tokens.shape[:2]
    found = laws_of(policy)
    for b in range(2):
        theta = THETA[b, : policy.size]
        logits = theta.reshape(game.n_states, -1) if width is None else network(game, theta, width)
        steps = log_softmax(np.where(game.allowed, logits, -np.inf))
        for x, n in np.ndindex(*policy.shape):
            state, total = x, 0.0
            for token in tokens[x, n]:
                if token >= 0:
                    total += steps[where[state], token]
                    state = tree.next_state[state, token]
            expected = -1e4 if (tokens[x, n] < 0).all() else total
            np.testing.assert_allclose(found[b, x, n], expected, rtol=1e-12)


def network(game, theta, width):
    """Logits (S, A) of weights and biases in their order."""
    inputs = np.array([
        [*np.eye(game.n_prompts)[game.prompt[s]], *np.eye(game.horizon)[game.depth[s]],
         *np.eye(game.n_actions + 1)[game.prefixes[s]].ravel()]
        for s in range(game.n_states)
    ])  # fmt: skip
    sizes = [inputs.shape[1] * width, width, width * game.n_actions, game.n_actions]
    first, bias, second, offset = np.split(theta, np.cumsum(sizes)[:-1])
    hidden = np.tanh(inputs @ first.reshape(-1, width) + bias)
    return hidden @ second.reshape(width, -1) + offset


def test_padding_has_probability_exactly_zero():
    law = laws_of(Tokens(PADDED))
    assert law[:, 1, -1].tolist() == [-1e4, -1e4]
    np.testing.assert_allclose(np.exp(law).sum(-1), 1.0)


def test_starts_of_token_policies():
    game = FULL
    table = Tokens(game)
    assert table.size == game.n_states * game.n_actions
    np.testing.assert_array_equal(table.initial(generator(), 0.5), 0.5 * normal(table.size))
    log_policy = -RNG.uniform(size=(game.n_states, game.n_actions))
    log_policy[0, 1], log_policy[1, 0] = -np.inf, -701.0
    found = table.parameters_of(log_policy).numpy()
    expected = log_policy.ravel().copy()
    expected[[1, game.n_actions]] = -700.0
    np.testing.assert_array_equal(found, expected)
    net = Neural(game, 4)
    inputs = game.n_prompts + game.horizon + game.prefixes.shape[1] * (game.n_actions + 1)
    sizes = [4 * inputs, 4, 4 * game.n_actions, game.n_actions]
    assert net.size == sum(sizes)
    first, bias, second, offset = np.split(net.initial(generator(), 0.5), np.cumsum(sizes)[:-1])
    drawn = normal(sizes[0] + sizes[2])
    np.testing.assert_allclose(first, drawn[: sizes[0]] * np.sqrt(4 / inputs))
    np.testing.assert_allclose(second, 0.5 * drawn[sizes[0] :] / np.sqrt(4))
    assert not bias.any()
    assert not offset.any()
    assert Neural(game).width == 16
