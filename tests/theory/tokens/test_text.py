"""Real text: loading, splitting by book, and n-gram experts estimated from it."""

import gzip
import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory import TokenMDP
from theory.errors import InvalidInput
from theory.tokens import text


@pytest.fixture(scope="module")
def pairs():
    return text.load_pairs()


def test_the_shipped_text_is_what_its_readme_says(pairs):
    readme = (text.SHIPPED.parent / "README.md").read_text()
    assert f"{len(pairs):,} lines" in readme
    assert f"{len({p.book for p in pairs})} books" in readme
    assert pairs[2].book == "Genesis"
    assert not any("¶" in p.prompt + p.response for p in pairs)
    assert pairs[2].prompt == "And God said, Let there be light: and there was light."
    assert pairs[2].response == "God said, “Let there be light,” and there was light."


def test_books_are_kept_whole(pairs):
    kept, held = text.split_by_book(pairs, 0.1, np.random.default_rng(0))
    assert len(kept) + len(held) == len(pairs)
    assert not {p.book for p in kept} & {p.book for p in held}
    assert 0.1 <= len(held) / len(pairs) < 0.2
    kept, held = text.split_by_book(pairs, ["Jude", "III John"])
    assert Counter(p.book for p in held) == {"Jude": 25, "III John": 14}


def lines(path, *records, opener=open):
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    return path


GOOD = {"ref": "II Kings 3:4", "prompt": "a", "response": "b"}


def test_any_json_lines_file_is_read(tmp_path):
    records = (GOOD, "", {"prompt": "a", "response": "b", "more": 1})
    expected = [("II Kings", "a", "b"), ("", "a", "b")]
    assert text.load_pairs(lines(tmp_path / "x.jsonl", *records)) == expected
    assert text.load_pairs(lines(tmp_path / "x.jsonl.gz", *records, opener=gzip.open)) == expected


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", r"not JSON \(Expecting property name"),
        ("[1]", "a list; needed is an object with prompt and response"),
        ({"response": "b"}, "no 'prompt'; it has 'response'"),
        (
            {"prompt": 3, "response": " "},
            "'prompt' is an int; needed is text; 'response' is empty",
        ),
        (GOOD | {"ref": 7}, "'ref' is an int; needed is text"),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_reason(tmp_path, line, reason):
    path = lines(tmp_path / "x.jsonl", GOOD, line)
    with pytest.raises(InvalidInput, match=rf"x\.jsonl:2: {reason}"):
        text.load_pairs(path)


def test_bad_files_are_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInput, match=r"nowhere\.jsonl: no such file$"):
        text.load_pairs(tmp_path / "nowhere.jsonl")
    with pytest.raises(InvalidInput, match="no lines in it"):
        text.load_pairs(lines(tmp_path / "empty.jsonl"))
    with pytest.raises(InvalidInput, match=r":1: .*:10: .*; and 2 more"):
        text.load_pairs(lines(tmp_path / "bad.jsonl", *["?"] * 12))
    whole = lines(tmp_path / "x.jsonl.gz", *[GOOD] * 99, opener=gzip.open).read_bytes()
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[:-20])
    with pytest.raises(InvalidInput, match="cannot be read"):
        text.load_pairs(tmp_path / "cut.jsonl.gz")
    monkeypatch.setattr(text, "SHIPPED", tmp_path / "data" / "modern_english.jsonl.gz")
    with pytest.raises(InvalidInput, match="comes with the repository, not with the installed"):
        text.load_pairs()


@pytest.mark.parametrize(
    ("held_out", "rng", "message"),
    [
        (1.5, np.random.default_rng(0), r"share in \(0, 1\)"),
        (0.5, None, "rng is required"),
        (["Jude", "Jud"], None, "no such book: 'Jud'"),
        ([], None, "one part is empty: 2 kept, 0 held out"),
    ],
)
def test_impossible_splits_are_refused(held_out, rng, message):
    with pytest.raises(InvalidInput, match=message):
        text.split_by_book(
            [text.Pair("Jude", "a", "b"), text.Pair("Mark", "a", "b")], held_out, rng
        )


def test_tokens_and_phrases():
    assert text.tokens("Don’t fear 40 days!") == ["don't", "fear", "40", "days", "!"]
    assert text.tokens("A  b\n", "char") == ["a", " ", "b"]
    assert text.phrases(["In him, light; he said, “Go.”"]) == ["In him", "light", "he said", "Go"]


# --- experts -------------------------------------------------------------------------------------

SENTENCES = ["a b a", "a b", "b", "a a b a", "c a"]


def test_the_expert_is_the_counted_model():
    game = TokenMDP.from_text(SENTENCES, vocab_size=4, horizon=3, order=1, smoothing=0.0)
    assert game.vocabulary == ("</s>", "a", "b", "<unk>")
    # first tokens: a 3 of 5, b 1, c (unknown) 1; after a (everywhere): end 3, b 3, a 1
    expected = {(): [0, 0.6, 0.2, 0.2], ("a",): [3 / 7, 1 / 7, 3 / 7, 0], ("<unk>",): [0, 1, 0, 0]}
    for context, law in expected.items():
        state = 0
        for token in context:
            state = game.next_state[state, game.vocabulary.index(token)]
        np.testing.assert_allclose(np.exp(game.expert[state]), law, atol=1e-15)


def test_contexts_before_the_order_are_those_at_the_start():
    game = TokenMDP.from_text(["x y z", "y y z"], vocab_size=4, horizon=4, order=2, smoothing=0.0)
    second = game.next_state[0, game.vocabulary.index("y")]
    np.testing.assert_allclose(np.exp(game.expert[second]), [0, 1, 0, 0])  # "y" begins "y y z"


def test_smoothing_adds_counts_and_unseen_contexts_are_uniform():
    game = TokenMDP.from_text(SENTENCES, vocab_size=4, horizon=2, order=1, smoothing=0.5)
    np.testing.assert_allclose(np.exp(game.expert[0]), np.array([0.5, 3.5, 1.5, 1.5]) / 7)
    alone = TokenMDP.from_text(["a a", "b"], vocab_size=4, horizon=3, order=2, smoothing=0.0)
    never = alone.next_state[alone.next_state[0, 2], 1]  # after "b a"
    np.testing.assert_allclose(np.exp(alone.expert[never]), 0.25)


def test_prompts_are_first_words_and_share_strength():
    game = TokenMDP.from_text(SENTENCES, vocab_size=4, horizon=2, order=0, prompts=2, smoothing=0.0)
    assert game.prompt_names == ("a", "b")
    # the rest after "a": "b a", "b", "a b a": end 3, b 3, a 3
    np.testing.assert_allclose(np.exp(game.expert[0]), [3 / 9, 3 / 9, 3 / 9, 0])
    np.testing.assert_allclose(np.exp(game.expert[1]), [1, 0, 0, 0])
    # half a pseudo-count a token, four tokens, as the model of all prompts has them
    pooled = (np.array([5, 4, 3, 0]) + 0.5) / 14
    some = TokenMDP.from_text(SENTENCES, vocab_size=4, horizon=2, order=0, prompts=2, smoothing=0.5)
    np.testing.assert_allclose(np.exp(some.expert[0]), ([3, 3, 3, 0] + 2 * pooled) / 11)
    both = TokenMDP.from_text(SENTENCES, vocab_size=4, horizon=2, order=0, prompts=2, smoothing=1e9)
    np.testing.assert_allclose(both.expert[0], both.expert[1], atol=1e-6)


def test_pairs_model_the_response_after_the_first_word_of_the_prompt():
    game = TokenMDP.from_text(
        [("q x", "a b"), ("q", "a"), ("r", "b")], vocab_size=4, horizon=2, prompts=2, smoothing=0.0
    )
    assert game.prompt_names == ("q", "r")
    np.testing.assert_allclose(np.exp(game.expert[:2]), [[0, 1, 0, 0], [0, 0, 1, 0]])


@given(
    st.lists(st.text("abc ", min_size=1, max_size=12), min_size=3, max_size=12),
    st.integers(1, 4),
    st.integers(0, 3),
    st.sampled_from([0.0, 0.3]),
    st.sampled_from(["word", "char"]),
)
def test_every_expert_is_a_policy_and_the_tree_has_the_same_law(texts, horizon, order, k, unit):
    texts = ["a b", *texts]
    settings = {"vocab_size": 3, "horizon": horizon, "order": order, "smoothing": k, "unit": unit}
    merged = TokenMDP.from_text(texts, **settings)
    tree = TokenMDP.from_text(texts, tree=True, **settings)
    merged.validate_policy(merged.expert)
    assert tree.is_tree
    np.testing.assert_allclose(merged.sequence_law(merged.expert), tree.sequence_law(tree.expert))


def test_the_shipped_text_makes_an_expert(pairs):
    kept, _ = text.split_by_book(pairs, ["Mark"])
    settings = {"vocab_size": 30, "horizon": 5}
    known = TokenMDP.from_text(text.phrases(p.response for p in kept[:8000]), **settings)
    assert {"the", "of", "and", "<unk>"} < set(known.vocabulary)
    assert np.isfinite(known.expert).all()
    start = np.exp(known.expert[0])
    assert start[known.vocabulary.index("the")] > 2 * start[known.vocabulary.index("of")]


@pytest.mark.parametrize(
    ("texts", "settings", "message"),
    [
        ("one string", {}, "a sequence of texts or pairs, got one string"),
        ([], {}, "texts is empty"),
        (["a", 3], {}, r"texts\[1\] must be a text, got int"),
        (
            [("a", "b"), "c"],
            {},
            r"texts\[1\] must be a \(prompt, response\) pair of texts, got str",
        ),
        (["a b"], {"unit": "byte"}, "unit must be 'word' or 'char', got 'byte'"),
        (["a b"], {"smoothing": -1.0, "order": -1}, "smoothing must be .*; order must be"),
        (["a b"], {"vocab_size": 2}, "vocab_size must be a whole number of at least 3"),
        (["a b"], {"vocab_size": 9}, "needs 7 different tokens, the text has 2"),
        (["a b"], {"vocab_size": 3, "prompts": 2}, "only 1 different first tokens"),
        (["a b"], {"vocab_size": 3, "horizon": 0}, "horizon must be at least 1"),
        (["a b"], {"vocab_size": 90, "horizon": 9, "tree": True}, "more than max_state_actions"),
    ],
)
def test_impossible_experts_are_refused(texts, settings, message):
    with pytest.raises(InvalidInput, match=message):
        TokenMDP.from_text(texts, **settings)


def test_books_are_drawn_until_the_share_is_reached():
    """Of books of 1, 2 and 3 pairs in any order: those that begin before half of the pairs."""
    counts = dict(zip("abc", (1, 2, 3), strict=True))
    pairs = [text.Pair(b, f"{i}", f"{i}") for b, n in counts.items() for i in range(n)]
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(3)
        sizes = [(1, 2, 3)[i] for i in order]
        begun = [order[k] for k in range(3) if sum(sizes[:k]) < 3]
        wanted = {"abc"[i] for i in begun}
        if len(wanted) < 3:
            _, held = text.split_by_book(pairs, 0.5, np.random.default_rng(seed))
            assert {p.book for p in held} == wanted
