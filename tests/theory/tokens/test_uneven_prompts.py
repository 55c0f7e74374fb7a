"""Prompts with different numbers of responses: what fills their rows is ignored."""

import numpy as np
import pytest

from theory import InvalidInput, TokenMDP

# prompt 0: end, or two more tokens to choose from; prompt 1: one response only
UNEVEN = TokenMDP.from_arrays(
    next_state=[[-1, 2], [-1, -1], [-1, -1]],
    depth=[0, 0, 1],
    allowed=np.array([[True, True], [True, False], [True, True]]),
)
PRIOR = np.log([[0.5, 0.5], [1.0, 1.0], [0.25, 0.75]])
PRIOR[1, 1] = -np.inf


def test_rewards_of_responses_that_are_not_there_are_ignored():
    assert UNEVEN.n_responses == 3
    reward = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, np.inf]])
    found = UNEVEN.soft_value_iteration(0.0, PRIOR, beta=2.0, sequence_reward=reward)
    law = np.array([0.5, 0.5 * 0.25, 0.5 * 0.75])
    np.testing.assert_allclose(found.V[0], 2 * np.log((law * np.exp(reward[0] / 2)).sum()))
    np.testing.assert_allclose(found.V[1], 4.0)
    reward[0, 2] = np.nan
    with pytest.raises(InvalidInput, match="sequence_reward must be finite or -inf"):
        UNEVEN.soft_value_iteration(0.0, PRIOR, beta=2.0, sequence_reward=reward)
