"""Expert responses in the place of a task's own: by which noise, and when they are the same."""

import dataclasses
import json

import pytest

from lab import streams
from llm_scale.data import tasks
from llm_scale.data.items import Response
from llm_scale.data.tasks import Answered
from llm_scale.data.tokenizers import byte_tokenizer
from llm_scale.data.user_file import pair_file
from llm_scale.settings import Settings

SMALL = Settings(prompts=6, held_out=3, expert_samples=2, max_new_tokens=3, expert="somewhere")


class Echo:
    """Says its prompt's last token and the tenths of its numbers; remembers what it was asked."""

    def __init__(self):
        self.asked = []

    def log_probs(self, pairs):
        raise NotImplementedError

    def sample(self, prompts, noise):
        self.asked.append(len(prompts))
        return [Response((p[-1], *(int(10 * u) for u in noise(i))), True)
                for i, p in enumerate(prompts)]  # fmt: skip


@pytest.fixture
def task(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "response": "gone"} for i in range(10)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))

    def made(**given):
        s = dataclasses.replace(SMALL, task=str(path), **given)
        return Answered(pair_file(path, byte_tokenizer(["say it"], 260), s), Echo(), s)

    return made


def test_prompts_are_the_task_s_and_responses_the_expert_s(task):
    made = task()
    for round_ in (-1, 0, 2):
        items = made.items(round_)
        asked = made.asked.items(round_)
        assert [(i.id, i.prompt) for i in items] == [(i.id, i.prompt) for i in asked]
        for item in items:
            for g, response in enumerate(item.expert):
                luck = streams.uniform(3, 0, "expert", round_ + 1, item.id, g)
                assert response.tokens == (item.prompt[-1], *(int(10 * u) for u in luck))
        assert [len(item.expert) for item in items] == [2] * 6
    assert made.expert.asked == [12, 12, 12], "all at once"


def test_fixed_responses_are_drawn_once(task):
    made, fresh = task(round_data="fixed"), task()
    assert made.items(0) == made.items(1) == made.items(5) == fresh.items(0)
    assert fresh.items(1) != fresh.items(0)
    assert made.items(-1) == fresh.items(-1)
    assert made.expert.asked == [12, 12]


def test_held_out_responses_are_one_a_prompt_and_stay(task):
    made = task()
    held = made.held_out()
    assert held == made.held_out()
    assert made.expert.asked == [3]
    assert [len(item.expert) for item in held] == [1, 1, 1]
    luck = streams.uniform(3, 0, "held-out expert", held[0].id, 0)
    assert held[0].expert[0].tokens[1:] == tuple(int(10 * u) for u in luck)


def test_phrases_are_fresh_unless_said(settings):
    fresh = tasks.phrases(settings)
    fixed = tasks.phrases(dataclasses.replace(settings, round_data="fixed"))
    assert fixed.items(0) == fixed.items(1) == fresh.items(0)
    assert not {i.id for i in fresh.items(1)} & {i.id for i in fresh.items(0)}
    assert fixed.items(-1) == fresh.items(-1)
    assert fixed.held_out() == fresh.held_out()
