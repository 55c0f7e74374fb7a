"""`show`: the examples by token, what is cut, what is there twice and what is held out."""

import json

import pytest
import torch
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as kinds
from transformers import PreTrainedTokenizerFast
from typer.testing import CliRunner

from llm_scale.__main__ import app
from llm_scale.data.user_file import pair_file
from llm_scale.launch.show import columns, piece_of
from llm_scale.models import byte_tokenizer, save, tiny
from llm_scale.settings import Settings

ROWS = [
    {"prompt": "a|b\nc", "response": "yes"},
    {"prompt": "d", "response": "é" + "x" * 300},
    {"prompt": "a|b\nc", "response": "yes"},
    {"prompt": "a|b\nc", "response": "no"},
    {"prompt": "e", "response": "\u4f60"},
]


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("show")
    tokenizer = byte_tokenizer(["thou"], 257)  # a token a byte
    tokenizer.chat_template = "{{ '<u>' + messages[0]['content'] + '</u>' }}"
    save(tiny(tokenizer, 0, torch.device("cpu"), width=16, layers=1), root / "m")
    (root / "m" / "model.safetensors").write_bytes(b"weights are not read")
    (root / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return root


def show(*arguments, code=0):
    result = CliRunner().invoke(app, ["show", *map(str, arguments)])
    assert result.exit_code == code, (result.output, result.exception)
    lines = (result.stdout if code == 0 else result.stderr).splitlines()
    assert code or max(map(columns, lines)) <= 100
    return lines


def test_examples_are_shown_as_the_model_sees_them(places):
    file = places / "rows.jsonl"
    lines = show("--task", file, "--model", places / "m", "--held-out", 1, "--count", 2,
                 "--max-new-tokens", 5)  # fmt: skip
    at = lines.index(f"example 1, {file}:1")
    assert lines[at + 1 : at + 6] == [
        "  prompt, 12 tokens; a response begins after the last",
        r"    |<|u|>|a|\||b|\n|c|<|/|u|>|",
        "  response, 4 tokens, with its end",
        "    |y|e|s|</s>|",
        "",
    ]
    at = lines.index(f"example 2, {file}:2")
    first, second = byte_tokenizer(["thou"], 257)("é")["input_ids"]  # parts of one character
    assert lines[at + 3 : at + 7] == [
        "  response, 303 tokens, cut to 5 by the horizon, without an end",
        f"    |#{first}|#{second}|x|x|x|",
        "  ... cut off, 298 tokens, the first 40",
        "    |" + "x|" * 40,
    ]
    at = next(i for i, line in enumerate(lines) if line.startswith("tokens, quantiles"))
    head, prompt, response = lines[at : at + 3]
    assert head.split() == ["tokens,", "quantiles", "least", "10%", "50%", "90%", "99%", "most"]
    assert prompt.split() == ["prompt", "8", "8", "12", "12", "12", "12"]
    assert response.split() == ["response", "3", "3", "4", "303", "303", "303"]
    told = "\n".join(lines)
    assert "prompts that are there more than once: 1 (in 3 rows)" in told
    assert "pairs that are there again: 1: 3 is 1" in told


def test_what_would_be_held_out_is_what_training_holds_out(places):
    file = places / "rows.jsonl"
    lines = show("--task", file, "--held-out", 1, "--seed", 3, "--count", 0)
    settings = Settings(task=str(file), held_out=1, seed=3)
    tokenizer = byte_tokenizer(["thou"], 257)
    text = tokenizer.decode(pair_file(file, tokenizer, settings).held_out()[0].prompt)[:-1]
    numbers = [str(i) for i, row in enumerate(ROWS, 1) if row["prompt"] == text]
    expected = f"held out by seed 3: 1 prompt (in {len(numbers)} rows): {', '.join(numbers)}"
    assert lines[-1] == expected
    assert not any(line.startswith("example") for line in lines)


def test_given_pairs_of_a_tiny_model(tmp_path):
    file = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"p{i}", "chosen": "good", "rejected": "bad"} for i in range(3)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = show("--task", file, "--held-out", 1, "--count", 1)
    assert any(line.startswith("  winner, ") for line in lines)
    assert any(line.startswith("  loser, ") for line in lines)
    assert any("given pairs of winner and loser" in line for line in lines)


@pytest.mark.parametrize("task", ["phrases", "verses"])
def test_tasks_that_are_no_file(task):
    lines = show("--task", task, "--held-out", 4, "--prompts", 5, "--count", 1,
                 "--max-prompt-tokens", 400)  # fmt: skip
    assert lines[0] == f"{task}: 5 prompts a round, 4 prompts held out"
    assert "example 1" in lines


def test_what_training_refuses_is_refused(places, tmp_path):
    assert show("--task", tmp_path, code=2)[0].endswith("a folder; needed is a file")
    assert (
        "no config.json there"
        in show("--task", places / "rows.jsonl", "--model", tmp_path, code=2)[0]
    )
    said = show("--task", places / "rows.jsonl", code=2)
    assert "needed are held_out=64 prompts" in said[0]


def test_spaces_of_a_tokenizer_that_marks_them(places):
    core = Tokenizer(kinds.WordLevel({"\u2581the": 0, "x" * 200: 1, "</s>": 2}, unk_token="</s>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    made = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>")
    assert piece_of(made, 0) == " the"
    assert piece_of(made, 1) == "x" * 42 + "..."
