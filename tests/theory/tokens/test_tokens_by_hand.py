"""Small layouts, random laws and refusals, each against what was worked out by hand."""

import numpy as np
import pytest
from scipy.special import digamma

from theory import TokenMDP
from theory.errors import InvalidInput
from theory.tokens import text
from theory.tokens.ngram import ngrams
from theory.tokens.tree import tree_size

ROOT = [[-1, 1, 2], [-1, -1, -1], [-1, -1, -1]]
"""A tree of three states; token 0 ends."""


@pytest.mark.parametrize(
    ("sizes", "states"),
    [
        ((3, 4, 1, 0, None), 1 + 2 + 4 + 8),
        ((3, 4, 2, None, None), 2 * (1 + 3 + 9 + 27)),
        ((3, 4, 1, 0, 1), 1 + 2 + 2 + 2),
        ((2, 1, 5, 0, None), 5),
    ],
)
def test_how_many_states_a_tree_has(sizes, states):
    assert tree_size(*sizes) == states
    assert TokenMDP.tree(*sizes[:4], order=sizes[4]).n_states == states


def test_a_single_token_needs_no_end():
    game = TokenMDP.tree(1, 3, eos=None)
    assert (game.n_states, game.n_responses) == (3, 1)


@pytest.mark.parametrize("eos", [True, 1.5, "end"])
def test_an_end_that_is_no_token(eos):
    with pytest.raises(InvalidInput, match="eos must be a token index or None, got"):
        TokenMDP.tree(3, 2, eos=eos)


def test_an_end_must_end_everywhere():
    TokenMDP.from_arrays(ROOT, eos=0)
    with pytest.raises(InvalidInput, match="token 1 must end every response"):
        TokenMDP.from_arrays(ROOT, eos=1)


def test_an_expert_that_is_no_policy():
    good = TokenMDP.from_arrays(ROOT).uniform_policy()
    np.testing.assert_array_equal(TokenMDP.from_arrays(ROOT, expert=good).expert, good)
    with pytest.raises(InvalidInput, match=r"expert: .*do not sum to 1 at state 0"):
        TokenMDP.from_arrays(ROOT, expert=good - 1.0)
    with pytest.raises(InvalidInput, match="expert must be one"):
        TokenMDP.from_arrays(ROOT, expert=np.stack([good, good]))


@pytest.mark.parametrize("prompt", [[0, 0], [0.0, 0.0, 0.0]])
def test_prompts_are_one_whole_number_a_state(prompt):
    with pytest.raises(InvalidInput, match="prompt must be 3 integers"):
        TokenMDP.from_arrays(ROOT, prompt=prompt)
    assert TokenMDP.from_arrays(ROOT, prompt=[0, 0, 0]).prompt.tolist() == [0, 0, 0]


def test_of_many_bad_states_three_are_named():
    with pytest.raises(InvalidInput, match=r"allowed at states 0, 1, 2 and 2 more"):
        TokenMDP.from_arrays(np.full((5, 2), -1), allowed=np.zeros((5, 2), dtype=bool))
    with pytest.raises(InvalidInput, match=r"allowed at states 0, 1, 2$"):
        TokenMDP.from_arrays(np.full((3, 2), -1), allowed=np.zeros((3, 2), dtype=bool))


@pytest.mark.parametrize("concentration", [0.5, 3.0])
def test_random_policies_are_dirichlet(concentration):
    """Of three actions: E log p = psi(c) - psi(3c), E p^2 = (c + 1)/(3 (3c + 1))."""
    game = TokenMDP.tree(3, 1)
    drawn = game.random_policy(np.random.default_rng(0), concentration, (20_000,))
    np.testing.assert_allclose(np.exp(drawn).sum(-1), 1.0, rtol=1e-12)
    expected = digamma(concentration) - digamma(3 * concentration)
    assert drawn.mean() == pytest.approx(expected, rel=0.03)
    square = (concentration + 1) / (3 * (3 * concentration + 1))
    assert np.exp(2 * drawn).mean() == pytest.approx(square, rel=0.02)


def test_a_random_expert_is_of_concentration_one():
    game = TokenMDP.random(3, 2, seed=4)
    again = game.random_policy(np.random.default_rng(4), 1.0)
    np.testing.assert_array_equal(game.expert, again)


def test_a_vocabulary_needs_its_tokens():
    texts = ["a b", "b a a"]
    names = ("</s>", "a", "b", "<unk>")
    assert TokenMDP.from_text(texts, vocab_size=4, horizon=2).vocabulary == names
    with pytest.raises(InvalidInput, match="vocab_size=5 needs 3 different tokens, the text has 2"):
        TokenMDP.from_text(texts, vocab_size=5, horizon=2)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_one_table_of_laws_for_every_length_of_context(order):
    """Of "a b" and "b a a" (0 ends): how often each token comes first, and after which."""
    model = ngrams(["a b", "b a a"], None, 4, order, 1, 0.0, "word", False, 1000)
    assert model.vocabulary == ("</s>", "a", "b")
    assert [law.shape for law in model.laws] == [(1, 2**k, 3) for k in range(order + 1)]
    if order == 0:
        np.testing.assert_allclose(model.laws[0], [[[2 / 7, 3 / 7, 2 / 7]]])
    else:
        np.testing.assert_allclose(model.laws[0], [[[0, 0.5, 0.5]]])
    if order == 1:
        np.testing.assert_allclose(model.laws[1], [[[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]])


def test_a_prompt_without_a_response_is_named_in_any_batch():
    game = TokenMDP.tree(2, 1, prompts=2)
    reward = np.zeros((3, 2, 2))
    reward[2, 1] = -np.inf
    with pytest.raises(InvalidInput, match=r"^no response of state 1 \(prompt 1") as error:
        game.soft_value_iteration(reward, game.uniform_policy())
    assert len(error.value.problems) == 1


def test_common_phrases_use_few_words():
    texts = ["the cat, the cat; a dog: the dog", "one two three. the cat"]
    # counted: "the cat" 3, "a dog" 1, "the dog" 1, "one two three" is too long
    assert text.common_phrases(texts, 2, 2, 2) == ["the cat", "the cat", "the cat"]
    three = ["the cat", "the cat", "the dog", "the cat"]
    assert text.common_phrases(texts, 3, 2, 2) == three
    assert text.common_phrases(texts, 3, 3, 9) == ["one two three"]


def test_books_are_held_out_until_their_pairs_reach_the_share():
    """Ten books of one pair: 0, 1, 2, 3 < 3.5."""
    pairs = [text.Pair(f"book {i}", "x", "y") for i in range(10)]
    kept, held = text.split_by_book(pairs, 0.35, np.random.default_rng(0))
    assert (len(kept), len(held)) == (6, 4)
