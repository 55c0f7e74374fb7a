"""Token MDPs, policies and rewards that cannot be: refused with what is wrong, and where."""

import numpy as np
import pytest

from theory import TokenMDP
from theory.errors import InvalidInput

GAME = TokenMDP.tree(3, 2)
UNIFORM = GAME.uniform_policy()


def broken(where, value):
    policy = UNIFORM.copy()
    policy[where] = value
    return policy


BAD = {
    "vocab": (lambda: TokenMDP.tree(1, 2), "vocab must be at least 2, got 1"),
    "horizon": (lambda: TokenMDP.tree(3, 0), "horizon must be at least 1, got 0"),
    "two at once": (lambda: TokenMDP.tree(0, 2.5), "vocab must be .*; horizon must be a whole"),
    "eos": (lambda: TokenMDP.tree(3, 2, eos=3), r"token index in 0..2 or None, got 3"),
    "too large": (
        lambda: TokenMDP.tree(50, 12),
        r"has 199,563,782,688,.* state-action pairs, more than max_state_actions=20,000,000",
    ),
    "concentration": (lambda: TokenMDP.random(concentration=0.0), "concentration must be positive"),
    "next_state type": (lambda: TokenMDP.from_arrays([[0.5]]), "array of integers, got dtype"),
    "next_state range": (lambda: TokenMDP.from_arrays([[1, -2]]), "0..0; other values at states 0"),
    "cycle": (lambda: TokenMDP.from_arrays([[1], [2], [1]]), "every response must end"),
    "root entered": (
        lambda: TokenMDP.from_arrays([[0]], depth=[0]),
        "leads back to a prompt's first state 0",
    ),
    "stuck": (
        lambda: TokenMDP.from_arrays([[-1, -1]], allowed=np.zeros((1, 2), bool)),
        "no action is allowed at states 0",
    ),
    "depth jump": (
        lambda: TokenMDP.from_arrays([[1, 2], [2, -1], [-1, -1]], depth=[0, 1, 2]),
        "one depth further; not so at 0",
    ),
    "orphan": (
        lambda: TokenMDP.from_arrays([[-1], [-1]], depth=[0, 1], prompt=[0, 0]),
        "no action leads to states 1",
    ),
    "unsorted": (lambda: TokenMDP.from_arrays([[-1], [0]]), "states must be sorted by depth"),
    "prompts": (
        lambda: TokenMDP.from_arrays([[-1], [-1]], prompt=[0, 5]),
        r"prompts 0, 1, 2, .* got \[0, 5\]",
    ),
    "other prompt": (
        lambda: TokenMDP.from_arrays([[2], [2], [-1]]),
        "another prompt's state at 0",
    ),
    "names": (
        lambda: TokenMDP.tree(3, 2, vocabulary="ab"),
        "vocabulary must have 3 entries, got 2",
    ),
    "eos goes on": (
        lambda: TokenMDP.from_arrays([[1, -1], [-1, -1]], eos=0),
        "token 0 must end every response",
    ),
    "expert": (
        lambda: TokenMDP.from_arrays([[-1, -1]], expert=[[0.0, 0.0]]),
        r"expert: probabilities do not sum to 1 at state 0 .*sum 2\)",
    ),
    "policy shape": (
        lambda: GAME.occupancy(UNIFORM[0]),
        r"\(..., 3 states, 3 actions\), got \(3,\)",
    ),
    "policy of text": (lambda: GAME.occupancy("uniform"), "array of log-probabilities, got str"),
    "probabilities": (lambda: GAME.occupancy(np.exp(UNIFORM)), "above 0 .*given as they are"),
    "nan": (
        lambda: GAME.occupancy(broken((2, 1), np.nan)),
        r"NaN at state 2 \(prompt 0, after 2\)",
    ),
    "unnormalised": (
        lambda: GAME.sequence_law(broken((1, 0), -np.inf)),
        r"sum to 1 at state 1 \(prompt 0, after 1\) \(sum 0.6666",
    ),
    "which of a batch": (
        lambda: GAME.occupancy(np.stack([UNIFORM, broken((0, 0), -5.0)])),
        r"at policy 1, state 0 \(prompt 0, after no tokens\)",
    ),
    "forbidden action": (
        lambda: TokenMDP.from_arrays([[-1, -1]], allowed=[[True, False]]).validate_policy(
            np.log([[0.5, 0.5]])
        ),
        "on actions that are not allowed at state 0",
    ),
    "law shape": (
        lambda: GAME.policy_from_law(np.ones(7)),
        r"1 prompts, 7 responses\), got \(7,\)",
    ),
    "law sum": (lambda: GAME.policy_from_law(np.ones((1, 7))), "law of prompt 0 sums to 7, not 1"),
    "law sign": (lambda: GAME.policy_from_law([[2.0, -1.0, 0, 0, 0, 0, 0]]), "negative entries"),
    "law of merged": (
        lambda: TokenMDP.tree(3, 3, order=0).policy_from_law(np.ones((1, 7)) / 7),
        "merged states do not tell apart",
    ),
    "weights": (
        lambda: GAME.soft_value_iteration(0.0, UNIFORM, beta=-1.0, tau=np.nan),
        "beta=-1.0; needed is .*; tau=nan; needed is",
    ),
    "no weight": (
        lambda: GAME.soft_value_iteration(0.0, beta=0.0),
        "beta \\+ tau must be positive",
    ),
    "no prior": (lambda: GAME.soft_value_iteration(0.0), "log_prior is required when beta > 0"),
    "no ref": (lambda: GAME.soft_value_iteration(0.0, UNIFORM, tau=1.0), "log_ref is required"),
    "reward": (
        lambda: GAME.soft_value_iteration(broken((0, 0), np.inf), UNIFORM),
        "finite or -inf, it has NaN or \\+inf",
    ),
    "order": (lambda: GAME.merged(-1), "order must be a whole number >= 0, got -1"),
    "merge clash": (
        lambda: TokenMDP.from_arrays(
            [[1, 2], [-1, -1], [-1, -1]], allowed=[[True, True], [True, True], [True, False]]
        ).merged(0),
        "share the last 0 tokens allow different actions: state 1 .* and state 2",
    ),
    "no source": (lambda: GAME.merge_policy(UNIFORM), "a game made by merged"),
    "summand": (lambda: GAME.sequence_sum(np.ones(3)), r"shape \(..., 3 states, 3 actions\), got"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_what_and_where(name):
    call, message = BAD[name]
    with pytest.raises(InvalidInput, match=message):
        call()


def test_a_tree_too_large_to_unroll_is_refused_with_its_size():
    game = TokenMDP.tree(50, 12, order=1)
    assert game.n_states < 1000
    with pytest.raises(
        InvalidInput, match=r"the tree behind .* has 199,563,782,688,.* cannot be enumerated"
    ):
        game.sequence_law(game.uniform_policy())
