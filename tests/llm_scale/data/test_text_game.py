"""The text game: a verse's first tokens and the rest, parted so that no prompt is in two parts."""

import dataclasses
from collections import Counter

import pytest

from llm_scale import models
from llm_scale.data import text_game
from llm_scale.settings import Settings
from theory.errors import InvalidInput
from theory.tokens.text import load_pairs

SMALL = Settings(task="text", prompts=8, held_out=4, max_new_tokens=12, device="cpu")
ASKED = dataclasses.replace(SMALL, expert="somewhere")


@pytest.fixture(scope="module", autouse=True)
def texts():
    """Some books of the text: all of it takes seconds."""
    pairs = load_pairs()[:4000]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_game, "load_pairs", lambda: pairs)
        yield [pair.response for pair in pairs]


@pytest.fixture(scope="module")
def tokenizer(texts):
    return models.byte_tokenizer(texts[:300], 300)


@pytest.fixture(scope="module")
def parts(tokenizer):
    return text_game.parted(tokenizer, SMALL.max_new_tokens)


@pytest.fixture
def made(parts, tokenizer):
    return lambda settings: text_game.TextGame(tokenizer, parts, settings)


def test_every_verse_is_its_prompt_and_its_response(parts, texts, tokenizer):
    end = tokenizer.eos_token_id
    for part in parts.values():
        for item in part[:50]:
            whole = tokenizer(texts[item.id])["input_ids"]
            (response,) = item.expert
            assert list(item.prompt) == whole[:4]
            assert list(response.tokens) == [*whole[4:], end][:12]
            assert response.truncated == (end not in response.tokens) == (len(whole) - 4 >= 12)


def test_no_prompt_is_in_two_parts_and_all_are_somewhere(parts, texts, tokenizer):
    prompts = {name: [item.prompt for item in part] for name, part in parts.items()}
    different = Counter(p for some in prompts.values() for p in set(some))
    assert set(different.values()) == {1}
    assert all(len(set(p)) == len(p) for name, p in prompts.items() if name != "text")
    whole = [tuple(ids) for ids in tokenizer(texts)["input_ids"]]
    assert set(different) == {ids[:4] for ids in whole if len(ids) > 4}
    total = len(different)
    for name, share in text_game.PARTS.items():
        assert len(set(prompts[name])) / total == pytest.approx(share / 100, abs=0.03), name
    inside = Counter(ids[:4] for ids in whole if len(ids) > 4)
    assert len(prompts["text"]) == sum(inside[p] for p in set(prompts["text"])), "all its verses"


def test_whose_prompts_the_start_the_rounds_and_the_held_out_have(made, parts):
    task, test = made(ASKED), made(dataclasses.replace(ASKED, measured_on="test"))
    for part, items in (
        ("start", task.items(-1)), ("rounds", task.items(0)), ("rounds", task.items(1)),
        ("validation", task.held_out()), ("test", test.held_out()),
    ):  # fmt: skip
        assert {i.id for i in items} <= {i.id for i in parts[part]}, part
        assert len(items) == (4 if part in ("validation", "test") else 8)
    alone = made(SMALL)  # without an expert the text itself is learned
    for round_ in (-1, 0):
        assert {i.id for i in alone.items(round_)} <= {i.id for i in parts["text"]}


def test_fixed_data_are_those_of_the_first_round(made):
    fresh, fixed = made(ASKED), made(dataclasses.replace(ASKED, round_data="fixed"))
    assert fixed.items(0) == fixed.items(1) == fresh.items(0) != fresh.items(1)
    assert fixed.items(-1) == fresh.items(-1)


def test_more_prompts_than_there_are_come_again_with_other_ids(made, parts):
    pool = len(parts["rounds"])
    task = made(dataclasses.replace(ASKED, prompts=pool + 5))
    items = task.items(0)
    assert task.size == len(items) == len({item.id for item in items}) == pool + 5
    assert {item.prompt for item in items[:pool]} == {item.prompt for item in parts["rounds"]}
    assert all(item.id >= text_game.REPEATED for item in items[pool:])
    assert made(dataclasses.replace(ASKED, prompts=0)).size == pool
    text = len(parts["text"])
    assert made(dataclasses.replace(SMALL, prompts=text + 5)).size == text, "it has no others"


def test_what_cannot_be_is_refused(tokenizer):
    wrong = dataclasses.replace(SMALL, held_out=10**4, expert_samples=2)
    with pytest.raises(InvalidInput) as caught:
        text_game.text_game(wrong, tokenizer)
    first, second = caught.value.problems
    assert "prompts for validation" in first
    assert "1 continuation" in second
