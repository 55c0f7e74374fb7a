"""Models and files of pairs that cannot work are refused before any work."""

import json
import os
import shutil

import pytest
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from llm_scale.__main__ import app
from llm_scale.data import user_file
from llm_scale.models import byte_tokenizer
from tests.llm_scale.launch.refusals import GOOD, PAIRS, SMALL, TEXTS, edited, one


def line(**pair):
    return json.dumps(pair) + "\n"


def of_config(**changes):
    return lambda path: edited(path, "config.json", lambda c: c.update(changes))


def of_weights(edit):
    def change(path):
        tensors = load_file(path / "model.safetensors")
        edit(tensors)
        save_file(tensors, path / "model.safetensors", metadata={"format": "pt"})

    return change


def no_end(path):
    """Neither the tokenizer nor the template, and the model's is a letter."""
    edited(path, "tokenizer_config.json", lambda c: [c.pop(k) for k in ("eos_token", "pad_token")])
    for name in ("config.json", "generation_config.json"):
        edited(path, name, lambda c: c.update(eos_token_id=70))


def unreadable(name):
    return lambda path: (path / name).write_bytes(b'{"a": \xff')


def template(text):
    return lambda path: (path / "chat_template.jinja").write_text(text)


def into_final(path):
    (path / "final").mkdir()
    for file in [f for f in path.iterdir() if f.is_file()]:
        file.rename(path / "final" / file.name)


MODELS = {
    "the folder of a run": (into_final, "the folder of a run; its model is '.*/final'"),
    "config is not JSON": (unreadable("config.json"), "config.json is not JSON in UTF-8"),
    "config is a list": (lambda p: (p / "config.json").write_text("[]"), "is a list; needed is an"),
    "no config": (lambda p: (p / "config.json").unlink(), "no config.json there; needed is 'tiny'"),
    "no weights": (lambda p: (p / "model.safetensors").unlink(), "no file named model.safetensors"),
    "torn weights": (
        lambda p: os.truncate(p / "model.safetensors", 2000),
        "cannot be loaded: .*not fully covered",
    ),
    "wrong shapes": (of_config(hidden_size=32), r"config.json says: .*\(16,\) instead of \(32,\)"),
    "too few layers": (of_config(num_hidden_layers=2), r"no weights model.layers.1.* and \d+ more"),
    "a weight is missing": (
        of_weights(lambda t: t.pop("model.norm.weight")),
        "its files have no weights model.norm.weight",
    ),
    "NaN weights": (
        of_weights(lambda t: t["model.norm.weight"].fill_(float("nan"))),
        "weights that are not finite: model.norm.weight",
    ),
    "no causal LM": (of_config(model_type="vit"), "cannot be loaded: .*ViTConfig"),
    "unknown architecture": (of_config(model_type="nope"), "cannot be loaded: .*`nope`"),
    "quantised": (
        of_config(quantization_config={"quant_method": "gptq", "bits": 4}),
        r"weights are quantised \(gptq in config.json\).*dequantise them first",
    ),
    "quantised text part": (
        of_config(text_config={"quantization_config": {"quant_method": "awq"}}),
        r"weights are quantised \(awq",
    ),
    "adapter": (
        lambda p: (p / "adapter_config.json").write_text("{}"),
        "an adapter of the kind None; needed is LORA, or merge it",
    ),
    "no tokenizer": (lambda p: (p / "tokenizer.json").unlink(), "cannot be loaded: .*tokenizer"),
    "torn tokenizer": (unreadable("tokenizer.json"), "cannot be loaded"),
    "no end": (no_end, "no EOS token, its chat template .*no control token; set eos_token in"),
    "more tokens than rows": (
        lambda p: byte_tokenizer(TEXTS, 300).save_pretrained(p),
        r"\d+ tokens, but 260 rows of embeddings",
    ),
    "short context": (of_config(max_position_embeddings=12), "model's context of 12 tokens"),
    "template fails": (template("{{ raise_exception('no') }}"), "chat template fails .*no.*plain"),
    "template is no template": (template("{{ "), "chat template fails .*TemplateSyntaxError"),
    "template forgets the prompt": (template("{# nothing #}"), "is formatted to nothing"),
}
TASKS = {
    "not JSON": (GOOD + "{'prompt'\n", r":7: not JSON \(.* at column 2\)"),
    "a list": (GOOD + "[1]\n", ":7: a list; needed is an object with prompt and response"),
    "no key": ('{"prompt": "a", "answer": "b"}\n', ":1: no 'response'; it has 'prompt', 'answer'"),
    "not text": (GOOD + "\n" + line(prompt="a", response=3), ":8: 'response' is an int; needed is"),
    "blank text": (line(prompt=" ", response="b") + GOOD, ":1: 'prompt' is empty"),
    "nothing": ("\n\n", "no lines in it; needed are objects with prompt and response"),
    "not UTF-8": (GOOD.encode() + b'{"prompt": "\xe9"}', ":7: not UTF-8"),
    "UTF-16": (GOOD.encode("utf-16"), ":1: not UTF-8"),
    "half a character": (
        GOOD + '{"prompt": "a", "response": "\\ud83d"}',
        ":7: 'response' has half",
    ),
    "too deep": (GOOD + "[" * 10**5, ":7: not JSON that can be read"),
    "huge number": (GOOD + f'{{"prompt": {"1" * 5000}}}', ":7: not JSON that can be read"),
    "an end within": (GOOD + line(prompt="a", response="b</s>c"), ":7: .*end token '</s>' wi"),
    "long prompt": (
        GOOD + line(prompt="say " * 99, response="b"),
        r":7: its prompt has \d+ tokens; allowed are max_prompt_tokens=64",
    ),
    "too few": (line(**PAIRS[0]) * 4, "4 pairs of 1 prompt; needed are held_out=4 pro"),
    "too few prompts": ((GOOD * 2)[: 4 * len(line(**PAIRS[0]))] * 2, "8 pairs of 4 prompts; neede"),
    "a key twice": (
        GOOD + '{"prompt": "a", "prompt": "b", "response": "c"}',
        ":7: .*'prompt' is t",
    ),
    "batch": (GOOD[: len(line(**PAIRS[0])) * 5], "batch=2; a round has 1 prompts"),
}


def test_the_good_neighbour_of_the_bad_inputs_is_not_refused(places, tmp_path):
    words = places[1]
    line = ["train", *SMALL, "--model", words["MODEL"], "--task", words["TASK"]]
    result = CliRunner().invoke(app, [*line, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, (result.output, result.exception)
    assert (tmp_path / "out" / "final" / "model.safetensors").exists()


@pytest.mark.parametrize("name", MODELS)
def test_model_directories(name, refused, places, tmp_path):
    edit, expected = MODELS[name]
    path = tmp_path / "model"
    shutil.copytree(places[1]["MODEL"], path)
    edit(path)
    said = refused("--task=TASK", f"--model={path}", "--max-new-tokens=8")
    one(said, expected)
    assert str(path) in said[0] or "template" in name or name == "short context"


@pytest.mark.parametrize("name", TASKS)
def test_files_of_pairs(name, refused, tmp_path):
    content, expected = TASKS[name]
    path = tmp_path / "pairs.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    said = refused(f"--task={path}", "--model=MODEL", "--max-prompt-tokens=64")
    one(said, expected)
    assert name == "batch" or str(path) in said[0]


def test_the_first_ten_bad_lines_are_said_and_the_rest_counted(refused, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("?\n" * 13)
    said = refused(f"--task={path}")
    assert [s.split(":")[1] for s in said[:10]] == [str(i) for i in range(1, 11)]
    assert said[10:] == ["and 3 more like these"]


def test_other_line_separators_within_a_text_end_no_line(tmp_path):
    from theory.files import json_lines

    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a\u2028b", "response": "c\x85"}\r\n', encoding="utf-8")
    assert json_lines(path, ("prompt", "response")) == [(1, ("a\u2028b", "c\x85"))]


def test_a_file_of_pairs_is_read_once_a_run(places, tmp_path, monkeypatch):
    real, seen = user_file.read_examples, []
    monkeypatch.setattr(user_file, "read_examples", lambda path: seen.append(path) or real(path))
    words = places[1]
    line = ["train", *SMALL, "--model", words["MODEL"], "--task", words["TASK"]]
    assert CliRunner().invoke(app, [*line, "--out", str(tmp_path / "out")]).exit_code == 0
    assert len(seen) == 1
