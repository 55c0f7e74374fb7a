"""A user's file as a task: what is left to it, groups, given pairs, and what is said aloud."""

import dataclasses
import json

import pytest

from llm_scale.data.items import Response
from llm_scale.data.user_file import pair_file
from llm_scale.models import byte_tokenizer
from llm_scale.settings import Settings
from theory.errors import InvalidInput

TEXTS = ["thou art gone", "he said unto them"]
SMALL = Settings(held_out=2, batch=2, device="cpu")


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(TEXTS, 257)  # a token a byte


@pytest.fixture
def task(tokenizer, tmp_path):
    def made(rows, room=None, **given):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return pair_file(path, tokenizer, dataclasses.replace(SMALL, **given), room)

    return made


def rows(lengths):
    return [{"prompt": f"p{i}", "response": "r" * n} for i, n in enumerate(lengths)]


def answered(times, prompts=4):
    """``times`` different responses to each of some prompts."""
    return [
        {"prompt": f"p{i}", "response": f"r{i}{g}"} for g in range(times) for i in range(prompts)
    ]


@pytest.mark.parametrize(
    ("longest", "room", "given", "horizon", "over"),
    [
        (9, None, 0, 10, []),  # with its end
        (511, None, 0, 512, []),
        (600, None, 0, 512, [89]),
        (600, 100, 0, 97, [504]),  # the longest prompt has 3 tokens: "p4" and a line feed
        (600, None, 4, 4, [1, 2, 2, 597]),
        (9, None, 400, 400, []),
    ],
)
def test_the_horizon_of_a_file(task, longest, room, given, horizon, over):
    made = task(rows([1, 4, 5, 5, longest]), room, max_new_tokens=given)
    assert (made.settings.max_new_tokens, made.settings.data) == (horizon, "responses")
    if not over:
        assert "cuts no expert response" in made.notes[0]
        return
    mean = sum(over) / len(over)
    assert (
        f"horizon {horizon} tokens (max_new_tokens) cuts {len(over)} of 5 expert responses, by "
        f"{mean:.0f} tokens in the mean and {over[-1]} at most"
    ) in made.notes[0]
    last = made.pairs[4].expert[0]
    assert (len(last.tokens), last.truncated) == (horizon, True)


def test_all_prompts_of_a_file_are_used_and_it_says_what_the_steps_read(task):
    made = task(rows(range(1, 13)), steps_per_round=3)
    assert (made.size, made.settings.prompts, len(made.items(0))) == (10, 10, 10)
    assert (
        "2 prompts held out, 10 of 10 used a round (of which its 3 steps of 2 read 6)"
        in (made.notes[0])
    )
    assert "12 pairs, 12 prompts, 1 response a prompt" in made.notes[0]
    assert "longest prompt 4 tokens, longest response 13" in made.notes[0]
    few = task(rows(range(1, 13)), prompts=3)
    assert (few.size, few.settings.prompts) == (3, 3)
    assert "3 of 10 used a round;" in few.notes[0]


def test_groups_are_drawn_from_the_responses_of_a_prompt(task):
    made = task(answered(4), expert_samples=2, held_out=1)
    assert len(made.pairs) == 4
    assert [len(item.expert) for item in made.pairs] == [4] * 4
    seen = {}
    for round_ in range(12):
        items = made.items(round_)
        assert items == made.items(round_)
        for item in items:
            assert len(set(item.expert)) == 2
            assert set(item.expert) <= set(made.pairs[item.id].expert)
            seen.setdefault(item.id, set()).update(item.expert)
    assert [len(group) for group in seen.values()] == [4] * 3, "in time all of them are drawn"
    assert [len(item.expert) for item in made.held_out()] == [1]
    assert "4 responses a prompt" in made.notes[0]


def test_too_few_responses_for_a_group(task):
    with pytest.raises(InvalidInput) as seen:
        task([*answered(3), {"prompt": "p9", "response": "r"}], expert_samples=3, held_out=1)
    assert "expert_samples=3: 1 of 5 prompts" in str(seen.value)
    assert "that of line 13 has 1 response to a prompt" in str(seen.value)


def test_texts_of_an_array_on_one_line_are_those_of_their_prompts(tokenizer, tmp_path):
    """What answers are compared with; every row had been taken for the last one of its line."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(answered(2)))
    made = pair_file(path, tokenizer, SMALL)
    for item, (prompt, response) in zip(made.held_out(), made.held_out_texts(), strict=True):
        assert tokenizer.decode(item.prompt) == prompt + "\n"
        assert tokenizer.decode(item.expert[0].tokens[:-1]) == response


PREFERENCES = [{"prompt": f"p{i}", "chosen": f"c{i}", "rejected": f"no{i}"} for i in range(4)]
SPIN = [
    {
        "real": [{"role": "user", "content": f"p{i}"}, {"role": "assistant", "content": f"c{i}"}],
        "generated": [
            {"role": "user", "content": f"p{i}"},
            {"role": "assistant", "content": f"no{i}"},
        ],
    }
    for i in range(4)
]


@pytest.mark.parametrize(
    ("data", "given", "use", "said"),
    [
        (PREFERENCES, {}, "pairs", "given pairs of winner and loser"),
        (PREFERENCES, {"data": "responses"}, "responses", "chosen responses imitated, rejected o"),
        (PREFERENCES, {"oracle": "bradley-terry"}, "responses", "chosen responses measured, not i"),
        (PREFERENCES, {"oracle": "cyclic", "sft_steps": 1}, "responses", "imitated by the SFT sta"),
        (PREFERENCES, {"expert": "runs/expert"}, "responses", "answered by the expert, its respo"),
        (PREFERENCES, {"level": "token"}, "responses", "chosen responses imitated"),
        (SPIN, {}, "responses", "real responses imitated, generated ones not read"),
        (SPIN, {"data": "pairs"}, "pairs", "given pairs of winner and loser"),
    ],
)
def test_what_a_file_of_pairs_is_for(task, tokenizer, data, given, use, said):
    made = task(data, **given)
    assert made.settings.data == use
    assert said in made.notes[0]

    def tokens(text):
        return Response((*tokenizer(text)["input_ids"], tokenizer.eos_token_id), False)

    for i, item in enumerate(made.pairs):
        assert item.expert == (tokens(f"c{i}"),)
        assert item.own == ((tokens(f"no{i}"),) if use == "pairs" else ())
    longest = 4 if use == "pairs" else 3
    assert made.settings.max_new_tokens == longest


def test_a_file_without_losers_is_none_of_pairs(task):
    with pytest.raises(InvalidInput, match=r"rows.jsonl:1: data='pairs': it has no response that"):
        task(rows([1, 2, 3]), data="pairs")


def test_what_is_odd_is_counted(task):
    odd = [*PREFERENCES, {"prompt": "a", "chosen": "b", "rejected": "b", "score": 1}]
    note = task(odd).notes[0]
    assert "1 pair of equal responses" in note
    assert note.endswith("not read: score")


def test_all_problems_of_all_kinds_by_line(task):
    bad = [
        {"prompt": "p0", "response": "b</s>"},
        {"prompt": "p", "text": "r"},
        {"prompt": "long" * 99, "response": "c</s>"},
    ]
    with pytest.raises(InvalidInput) as seen:
        task([*rows([1, 2, 3]), *bad])
    assert [p.split(": ")[0].rpartition(":")[2] for p in seen.value.problems] == list("4566")
    assert [p.split(": ", 1)[1][:15] for p in seen.value.problems] == [
        "response 'b</s>", "no 'response'; ", "its prompt has ", "response 'c</s>",
    ]  # fmt: skip
