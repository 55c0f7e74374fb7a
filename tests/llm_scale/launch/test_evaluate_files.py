"""`eval` and `generate` on files of all formats: the same tokens, the same refusals."""

import json
import sys
from types import SimpleNamespace

import pytest
import torch
from typer.testing import CliRunner

from llm_scale.__main__ import app
from llm_scale.data.formats import Turn
from llm_scale.data.items import Response
from llm_scale.launch import evaluate
from llm_scale.models import byte_tokenizer, save, tiny
from llm_scale.models.player import Player
from tests.llm_scale.commands import call, metrics, train
from theory.errors import InvalidInput

HISTORY = [
    {"role": "user", "content": "a"},
    {"role": "assistant", "content": "b"},
    {"role": "user", "content": "c"},
]
CHAT = {"messages": [*HISTORY, {"role": "assistant", "content": "answer"}]}
PREFERENCE = {"prompt": HISTORY, "chosen": "answer", "rejected": "</s>"}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m"
    save(tiny(byte_tokenizer(["thou"], 257), 0, torch.device("cpu"), width=16, layers=1), path)
    return path


@pytest.fixture
def opened(model):
    return evaluate.opened(model, {"max_new_tokens": 4, "device": "cpu"})


@pytest.fixture
def written(tmp_path):
    def write(*rows):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return write


@pytest.mark.parametrize("row", [CHAT, PREFERENCE])
def test_the_response_of_a_chat_is_scored_after_its_history(opened, written, row):
    """Of preferences the chosen one; the other is not read, whatever it is."""
    tokenizer = opened.player.language.tokenizer
    found = evaluate.examples(opened, str(written(row, row)), 1)
    said = "User: a\nAssistant: b\nUser: c\nAssistant:\n"
    expected = (tuple(tokenizer(said)["input_ids"]), tuple(tokenizer("answ")["input_ids"]))
    assert found.pairs == [expected]
    assert found.truncated == [True]
    prompt, response = found.texts[0]
    assert (prompt[-1], response) == (Turn("user", "c"), "answer")


@pytest.mark.parametrize("horizon", [40, 5])
def test_a_file_has_the_loss_that_training_measured_of_it(written, tmp_path, horizon):
    """The template's end closes a response and not the tokenizer's EOS; a cut one has none."""
    tokenizer = byte_tokenizer(["thou"], 260)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<e>"]})
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + '<e>' }}{% endfor %}"
    save(tiny(tokenizer, 0, torch.device("cpu"), width=16, layers=1), tmp_path / "m")
    path = written(*({"prompt": f"say {i}", "response": f"thou {i}"} for i in range(6)))
    train(
        tmp_path / "run", model=tmp_path / "m", task=path, held_out=5, batch=1, prompts=1, rounds=1,
        steps_per_round=20, lr=0.01, cosines=0, max_new_tokens=horizon, device="cpu",
    )  # fmt: skip
    row = metrics(tmp_path / "run")[-1]
    held = call("eval", tmp_path / "run", "--device=cpu")
    assert json.loads(held.stdout)["nll"] == pytest.approx(row["nll"], rel=1e-4)
    samples = (tmp_path / "run" / "samples" / "round-000.jsonl").read_text().splitlines()
    kept = [json.loads(line) for line in samples]
    same = written(*({"prompt": r["prompt"], "response": r["expert"]} for r in kept))
    given = call("eval", tmp_path / "run", "--data", same, "--device=cpu")
    assert json.loads(given.stdout)["nll"] == pytest.approx(row["nll"], rel=1e-4)


def test_texts_are_drawn_after_the_prompts_that_are_scored(model, written, tmp_path, monkeypatch):
    """Of the run's own held-out chats, system prompt and all, and of the same rows in a file."""
    scores = SimpleNamespace(score=0.0)
    counted = SimpleNamespace(corpus_bleu=lambda *_: scores, corpus_chrf=lambda *_: scores)
    monkeypatch.setitem(sys.modules, "sacrebleu", counted)
    asked = []

    def sample(self, prompts, *_, **__):
        asked.append(list(prompts))
        return [Response((self.language.eos,), False)] * len(prompts), [0.0] * len(prompts)

    system = {"role": "system", "content": "backwards"}
    rows = [
        {"messages": [system, {**HISTORY[0], "content": f"say {i}"}, CHAT["messages"][-1]]}
        for i in range(6)
    ]
    path = written(*rows)
    train(
        tmp_path / "run", model=model, task=path, held_out=5, batch=1, prompts=1, rounds=1,
        steps_per_round=1, device="cpu",
    )  # fmt: skip
    monkeypatch.setattr(Player, "sample", sample)
    there = evaluate.opened(tmp_path / "run", {"device": "cpu"})
    for data, count in (("", 5), (str(path), 6)):
        given = evaluate.examples(there, data, 0)
        evaluate.text_metrics(there, given, seed=0)
        assert asked.pop() == [prompt for prompt, _ in given.pairs]
        assert len(given.pairs) == count
        text = there.player.language.tokenizer.decode(given.pairs[0][0])
        assert text.startswith("System: backwards\nUser: say ")


def test_bad_rows_are_refused_by_line(opened, written):
    path = written(CHAT, {"messages": [*HISTORY, {"role": "assistant", "content": "</s>"}]})
    with pytest.raises(InvalidInput, match=r"rows.jsonl:2: response '</s>' has the end token"):
        evaluate.examples(opened, str(path), 0)
    with pytest.raises(InvalidInput, match=r"^/no.jsonl: no such file; needed is a file of JSON"):
        evaluate.examples(opened, "/no.jsonl", 0)


def test_prompts_of_a_file_are_answered(model, written):
    path = written({"prompt": "hi"}, {"prompt": HISTORY})
    line = ["generate", str(model), "--file", str(path), "--max-new-tokens", "3", "--device=cpu"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.output
    assert [json.loads(r)["prompt"] for r in result.stdout.splitlines()] == ["hi", HISTORY]
    assert CliRunner().invoke(app, [*line[:3], str(written(CHAT)), *line[4:]]).exit_code == 0


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": 3}, "rows.jsonl:2: 'prompt' is an int; needed is text"),
        ({"text": "a"}, "rows.jsonl:2: no 'prompt'; it has 'text'"),
        ({"prompt": "a</s>"}, "prompt 2: 'a</s>' has the special token '</s>' within"),
    ],
)
def test_bad_prompts_of_a_file(model, written, row, expected):
    line = ["generate", str(model), "--file", str(written({"prompt": "hi"}, row)), "--device=cpu"]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 2
    assert expected in result.stderr
