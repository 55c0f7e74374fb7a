"""Wrong calls of tokens: each is refused before any work, in words that help."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.wrong_calls import GAME, Call, Calls, refused
from theory import TokenMDP
from theory.tokens import text

CALLS: Calls = {
    # token MDPs
    "tree: sizes": (
        lambda: TokenMDP.tree(vocab=1, horizon=0),
        r"vocab must be at least 2, got 1; horizon must be at least 1, got 0",
    ),
    "tree: no whole number": (
        lambda: TokenMDP.tree(vocab=3, horizon=2.5),
        r"horizon must be a whole number, got 2\.5",
    ),
    "tree: too large": (
        lambda: TokenMDP.tree(vocab=50, horizon=9),
        r"has 1,696,.* state-action pairs, more than .*merge states \(order=k\)",
    ),
    "tree: eos": (
        lambda: TokenMDP.tree(vocab=3, horizon=2, eos=3),
        r"eos must be a token index in 0\.\.2 or None, got 3",
    ),
    "random_policy: rng": (
        lambda: GAME.random_policy(3),
        r"^rng: a int; needed is a numpy Generator$",
    ),
    "policy_from_law: text": (
        lambda: GAME.policy_from_law("x"),
        r"^law must be an array of numbers \(<U1 values\)$",
    ),
    "policy_from_law: shape": (
        lambda: GAME.policy_from_law([0.5, 0.5]),
        r"^law must have shape \(\.\.\., 1 prompts, 7 responses\), got \(2,\)$",
    ),
    "lift: shape": (
        lambda: GAME.lift([0.5, 0.5]),
        r"^per_state must have shape \(\.\.\., 3 states, 3 actions\), got \(2,\)$",
    ),
    "decode: no token": (
        lambda: GAME.decode([0, 3]),
        r"^tokens must be token indices in 0\.\.2, got \[0, 3\]$",
    ),
    "random: concentration": (
        lambda: TokenMDP.random(concentration=0.0),
        r"concentration must be positive and finite, got 0",
    ),
    "random: concentration of text": (
        lambda: TokenMDP.random(concentration="x"),
        r"concentration must be positive and finite, got 'x'",
    ),
    "random: seed": (
        lambda: TokenMDP.random(seed="x"),
        r"^seed must be a whole number >= 0 or None, got 'x'$",
    ),
    "random: negative seed": (lambda: TokenMDP.random(seed=-1), r"seed must be .* got -1"),
    "random: truth value": (lambda: TokenMDP.random(seed=True), r"seed must be .* got True"),
    "random: rng": (
        lambda: TokenMDP.random(seed=0.5, rng=3),
        r"seed must be .* got 0\.5; rng must be a numpy Generator or None, got int",
    ),
    "tree: names": (
        lambda: TokenMDP.tree(3, 2, prompt_names=3),
        r"prompt_names must be a sequence of names, got int",
    ),
    "tree: size": (
        lambda: TokenMDP.tree(3, 2, max_state_actions="x"),
        r"max_state_actions must be a number, got 'x'",
    ),
    "from_arrays: expert": (
        lambda: TokenMDP.from_arrays([[-1]], expert="x"),
        r"expert must be an array of log-probabilities \(could not convert",
    ),
    "from_arrays: no integers": (
        lambda: TokenMDP.from_arrays([[0.5]]),
        r"next_state must be .* array of integers, got dtype float64",
    ),
    "from_arrays: unknown state": (
        lambda: TokenMDP.from_arrays([[5, -1]]),
        r"next_state must be -1 .* or a state 0\.\.0; other values at states 0",
    ),
    "from_arrays: cycle": (
        lambda: TokenMDP.from_arrays([[1, -1], [2, -1], [1, -1]]),
        r"cycle|another prompt|depth",
    ),
    "policy: probabilities": (
        lambda: GAME.sequence_law(np.exp(GAME.expert)),
        r"log-probabilities above 0 \(probabilities given as they are\?\) at state 0",
    ),
    "policy: not normalised": (
        lambda: GAME.sequence_law(GAME.expert - 1.0),
        r"probabilities do not sum to 1 at state 0 .*\(sum 0\.367879441\)",
    ),
    "policy: shape": (
        lambda: GAME.log_sequence_law(np.zeros((2, 2))),
        r"policy must have shape \(\.\.\., 3 states, 3 actions\), got \(2, 2\)",
    ),
    "law of a policy": (
        lambda: GAME.policy_from_law(np.full((1, 7), 0.2)),
        r"law of prompt 0 sums to 1\.4, not 1",
    ),
    "soft value iteration": (
        lambda: GAME.soft_value_iteration(np.zeros((2, 2)), GAME.expert, -1.0),
        r"beta=-1\.0; needed is a finite number >= 0; reward must be .*got \(2, 2\)",
    ),
    "merged: order": (lambda: GAME.merged(-1), r"order must be a whole number >= 0, got -1"),
    # real text
    "from_text: one string": (
        lambda: TokenMDP.from_text("some words"),
        r"texts must be a sequence of texts or pairs, got one string",
    ),
    "from_text: a number": (
        lambda: TokenMDP.from_text(5),
        r"texts must be a sequence of texts or pairs, got int",
    ),
    "from_text: smoothing of text": (
        lambda: TokenMDP.from_text(["a b"], smoothing="x"),
        r"smoothing must be a finite number >= 0, got 'x'",
    ),
    "from_text: too few words": (
        lambda: TokenMDP.from_text(["a b", "c"], vocab_size=9, horizon=2),
        r"vocab_size=9 needs 7 different tokens, the text has 3",
    ),
    "from_text: settings": (
        lambda: TokenMDP.from_text(["a b"], unit="syllable", smoothing=-1.0),
        r"unit must be 'word' or 'char', got 'syllable'; smoothing must be .* got -1",
    ),
    "load_pairs: nothing there": (
        lambda: text.load_pairs("nowhere.jsonl"),
        r"nowhere\.jsonl: no such file",
    ),
    "split_by_book: no such book": (
        lambda: text.split_by_book([text.Pair("Job", "x", "y")], ["Ruth"]),
        r"no such book: 'Ruth'",
    ),
    # all problems at once
    "tree: all at once": (
        lambda: TokenMDP.tree(vocab=0, horizon=-1, prompts=0, order=-2),
        ["vocab", "horizon", "prompts", "order"],
    ),
}


@pytest.mark.parametrize(("call", "said"), CALLS.values(), ids=CALLS)
def test_wrong_call(call: Call, said: str | list[str]) -> None:
    refused(call, said)
