"""The shipped verses as a task: held out by book, formatted in one place, used lazily."""

import dataclasses
import json

import numpy as np
import pytest
from typer.testing import CliRunner

from llm_scale import models
from llm_scale.__main__ import app
from llm_scale.data import verses
from llm_scale.data.prompts import format_prompt
from llm_scale.settings import Settings
from tests.llm_scale.commands import metrics
from theory.errors import InvalidInput
from theory.tokens.text import load_pairs, split_by_book

SMALL = Settings(
    task="verses", prompts=12, held_out=8, rounds=1, steps_per_round=2, batch=4,
    max_new_tokens=24, device="cpu", max_prompt_tokens=400, cosines=0,
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    return models.byte_tokenizer([pair.response for pair in load_pairs()[:300]])


@pytest.fixture(scope="module")
def task(tokenizer):
    return verses.verses(SMALL, tokenizer)


def test_no_book_is_on_both_sides(task):
    assert {p.book for p in task.held} == set(verses.HELD_OUT_BOOKS)
    assert not {p.book for p in task.held} & {p.book for p in task.train}
    assert len(task.held) + len(task.train) == len(load_pairs())
    assert not {p.response for p in task.held} & {p.response for p in task.train}


def test_items_are_a_function_of_seed_and_round(task, tokenizer):
    ids = [[item.id for item in task.items(r)] for r in (0, 1, 0)]
    assert ids[0] == ids[2] != ids[1]
    assert [i.id for i in task.held_out()] == [i.id for i in task.held_out()]
    more = verses.verses(dataclasses.replace(SMALL, held_out=16), tokenizer)
    assert more.held_out()[:8] == task.held_out(), "more verses keep the first ones"
    other = verses.verses(dataclasses.replace(SMALL, seed=1), tokenizer)
    assert [i.id for i in other.items(0)] != ids[0]
    assert max(ids[0]) < len(task.train) <= min(i.id for i in task.held_out())


def test_a_prompt_is_the_instruction_and_the_verse(task, tokenizer):
    for item, (prompt, response) in zip(task.held_out(), task.held_out_texts(), strict=True):
        assert prompt.startswith(verses.INSTRUCTION)
        assert list(item.prompt) == format_prompt(tokenizer, prompt)
        whole = tokenizer(response)["input_ids"]
        assert list(item.expert[0].tokens) == [*whole, tokenizer.eos_token_id][:24]
        assert item.expert[0].truncated == (len(whole) >= 24)
    assert task.longest_prompt == max(len(i.prompt) for i in [*task.held_out(), *task.items(0)])


def test_archaic_words_tell_the_two_sides_apart():
    pairs = split_by_book(load_pairs(), verses.HELD_OUT_BOOKS)[1]
    old = np.mean([verses.archaic(p.prompt) for p in pairs])
    new = np.mean([verses.archaic(p.response) for p in pairs])
    assert old > 0.04 > 0.001 > new
    assert verses.archaic("Thou shalt not KILL.") == 0.5
    assert verses.archaic("12:3") == 0.0


def test_what_cannot_be_is_refused(tokenizer):
    wrong = dataclasses.replace(SMALL, held_out=10**4, expert_samples=2)
    with pytest.raises(InvalidInput) as caught:
        verses.verses(wrong, tokenizer)
    assert len(caught.value.problems) == 2
    with pytest.raises(InvalidInput, match="max_prompt_tokens=20"):
        verses.verses(dataclasses.replace(SMALL, max_prompt_tokens=20), tokenizer)


def test_the_tiny_model_trains_on_it_and_is_evaluated(tmp_path):
    given = {k: v for k, v in dataclasses.asdict(SMALL).items() if v != getattr(Settings(), k)}
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in given.items()]
    out = tmp_path / "run"
    done = CliRunner().invoke(app, ["train", "--out", str(out), *flags])
    assert done.exit_code == 0, done.output
    rows = metrics(out)
    assert {"archaic", "archaic_se", "archaic_before"} <= rows[-1].keys()
    done = CliRunner().invoke(app, ["eval", str(out), "--device=cpu"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["data"] == "verses"
    assert found["nll"] == pytest.approx(rows[-1]["nll"], rel=1e-5)
    done = CliRunner().invoke(app, ["eval", str(out), "--data=verses", "--count=3", "--device=cpu"])
    assert json.loads(done.stdout)["responses"] == 3
