"""What cannot work is refused before any work, all of it at once, and nothing on disk changes."""

import dataclasses
import json
import os
import re
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

from llm_scale import processes
from llm_scale import train as training
from llm_scale.__main__ import app
from llm_scale.data import user_file
from llm_scale.models import byte_tokenizer, save, tiny
from llm_scale.settings import Settings
from llm_scale.store import identity as record
from llm_scale.store import state
from theory.errors import InvalidInput

SMALL = ("--prompts=8", "--held-out=4", "--rounds=1", "--steps-per-round=1", "--batch=2",
         "--sft-steps=1", "--cosines=0", "--device=cpu")  # fmt: skip
TEXTS = ["thou art gone", "he said unto them", "and they went out"] * 3
PAIRS = [{"prompt": f"say {i}", "response": "thou art gone"} for i in range(6)]
GOOD = "".join(json.dumps(pair) + "\n" for pair in PAIRS)


def line(**pair):
    return json.dumps(pair) + "\n"


def edited(path, name, edit):
    """Change a JSON file in place."""
    content = json.loads((path / name).read_text())
    edit(content)
    (path / name).write_text(json.dumps(content))


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
    "not text": (GOOD + "\n" + line(prompt="a", response=3), ":8: 'response' is a int; needed is"),
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
    "too few": (line(**PAIRS[0]) * 4, "4 pairs of 1 prompts; needed are held_out=4 pro"),
    "too few prompts": ((GOOD * 2)[: 4 * len(line(**PAIRS[0]))] * 2, "8 pairs of 4 prompts; neede"),
    "a key twice": (
        GOOD + '{"prompt": "a", "prompt": "b", "response": "c"}',
        ":7: .*'prompt' is t",
    ),
    "batch": (GOOD[: len(line(**PAIRS[0])) * 5], "batch=2; a round has 1 prompts"),
}
LINES = {
    "unknown option": (["--betta=1"], "No such option: --betta .*--beta"),
    "not a number": (["--lr=fast"], "Invalid value for '--lr'"),
    "not whole": (["--batch=1.5"], "Invalid value for '--batch'"),
    "no choice": (["--opponent=first"], "opponent='first'; needed is one of last, mixture, base"),
    "nothing before the colon": (["--objective=:spin"], "':spin': no file before the colon"),
    "objective typo": (["--objective=spni"], "unknown objective 'spni'. Did you mean 'spin'?"),
    "parameter": (["--objective=spif(d=1)"], "spif: unknown parameter 'd'; it takes c, alpha"),
    "parameter twice": (["--objective=spif(c=1,c=2)"], "c is there twice"),
    "parameter range": (["--objective=spif(c=-1)"], "spif: c=-1.0; needed is a number > 0"),
    "bracket": (["--objective=spif(c=1"], "needed is NAME, NAME"),
    "no loss (gail)": (["--objective=gail"], "'gail' has no loss to train: .*-inf"),
    "no loss (ipm)": (["--objective=ipm"], "'ipm' has no loss to train: .*no minimum"),
    "no oracle": (["--objective=sppo"], "needs preferences: set oracle to"),
    "no anchor": (["--objective=inpo"], "is anchored: set tau > 0"),
    "group of one": (["--objective=centred_spif"], "own_samples >= 2"),
    "no ratio to anchor": (["--objective=tspin", "--tau=1"], "reference-free: tau must be 0"),
    "two opponents": (["--objective=alpha_spin", "--opponent=base"], "opponent of its own"),
    "file with an error": (["--objective=ERROR:x"], "error.py: ZeroDivisionError"),
    "file without any": (["--objective=NONE:x"], "none.py: registers no objective"),
    "no file": (["--objective=/nowhere.py:x"], "nowhere.py: no such file; needed is a Python"),
    "oracle typo": (["--oracle=cyclc"], "needed is none, bradley-terry"),
    "oracle range": (["--oracle=cyclic(strength=2)", "--own-samples=2"], "> 0 and <= 1"),
    "oracle bracket": (["--oracle=cyclic(", "--own-samples=2"], "needed is none, bradley-terry"),
    "oracle of one": (["--oracle=cyclic"], "own_samples=1; needed is >= 2"),
    "oracle gives text": (["--oracle=WORD:f", "--own-samples=2"], "failed: ValueError.*'x'"),
    "objective of numpy": (["--objective=NUMPY:np"], "fails on torch tensors .*theory.xp"),
    "oracle that exits": (["--oracle=EXITS:f", "--own-samples=2"], "failed: SystemExit: 3"),
    "oracle unknown": (["--oracle=MOST:f", "--own-samples=2"], "takes any number of arguments"),
    "oracle beyond 1": (["--oracle=THREE:f", "--own-samples=2"], "gave 3; needed is within .0, 1"),
    "oracle and SFT": (["--oracle=cyclic", "--own-samples=2", "--objective=sft"], "oracle must be"),
    "comparisons": (["--comparisons=exact"], "is for an oracle"),
    "token mixture": (["--level=token", "--opponent=mixture"], "level must be sequence"),
    "phrases and a model": (["--model=MODEL"], "task='phrases' has its own words.*model='tiny'"),
    "phrases and a style": (["--prompt-style=plain"], "task='phrases' has its own format"),
    "task typo": (["--task=phrase"], "task='phrase': no such file; needed is .*'phrases'.*JSON li"),
    "task is a folder": (["--task=MODEL"], "a folder; needed is a file"),
    "hub name": (
        ["--model=some/model", "--task=TASK"],
        "model='some/model': no such directory here, and not to be had from the Hub.*hf download",
    ),
    "model typo": (["--model=tiyn", "--task=TASK"], "needed is 'tiny', a directory.*or ORG/NAME"),
    "width": (["--width=60", "--heads=8"], "width=60, heads=8; needed is a .*multiple of 2 heads"),
    "size of a model": (
        ["--model=MODEL", "--task=TASK", "--layers=3", "--width=8"],
        "width=8, layers=3: size of model='tiny'; another model has its own",
    ),
    "words of phrases": (["--vocabulary=600"], "vocabulary=600: task='phrases' has its own"),
    "chat without template": (
        ["--model=PLAIN", "--task=TASK", "--prompt-style=chat"],
        "prompt_style='chat': the tokenizer has no chat template",
    ),
    "two experts": (["--task=TASK", "--expert-samples=2"], "has 1 response to a prompt"),
    "horizon": (["--max-new-tokens=5000"], "beyond the model's context of 1024"),
    "batch": (["--batch=9"], "batch=9; a round has 8 prompts"),
    "preset typo": (["--preset=tiny-cpuu"], "unknown preset 'tiny-cpuu'; there are .*tiny-cpu"),
    "preset by path": (["--preset=../presets/tiny-cpu"], "unknown preset '../presets/tiny-cpu'"),
    "no GPU": (["--device=cuda"], "device='cuda': torch sees no CUDA device here; use auto or cpu"),
    "bfloat16": (["--dtype=bfloat16"], "dtype='bfloat16' is for CUDA; on the CPU use auto or flo"),
    "no SFT run": (["--sft-run=/nowhere"], "sft_run='/nowhere': not the folder of a finished run"),
    "SFT run of other words": (["--task=TASK", "--sft-run=RUN"], "its model has other tokens"),
    "unmeasured": (["--sft-run=RUN", "--held-out=0"], "set held_out > 0"),
    **{f"beyond {k}": ([f"--{k}={v + 1}"], f"{k}=.*; needed is >= 0 and <= {v}")
       for k, v in (("seed", 2**63 - 1), ("prompts", 10**7), ("rounds", 10**4))},
}  # fmt: skip
OTHERS = {
    "SFT by another name": (
        ["sft", "--objective=spin", "--beta=2"],
        ["objective: SFT", "beta: SFT"],
    ),
    "record with a typo": (["reproduce", "TYPO"], ["unknown setting 'bta'; there are"]),
    "record of other kinds": (["reproduce", "KINDS"], ["beta='x'; needed is a number"]),
    "record is a list": (["reproduce", "LIST"], ["not the record of a run"]),
    "record torn": (["reproduce", "TORN"], ["TORN|not the record of a run"]),
    "sweep": (
        ["sweep", "--seeds=0", "--objectives=gail,inpo", "--device=cuda", "--task=/no"],
        ["'gail' has no loss", "'inpo' is anchored", "device='cuda'", "task='/no'"],
    ),
}


PROGRAMS = ("error", "none", "word", "three", "exits", "most", "numpy")


def contents(folder):
    """Every path of a folder with its bytes."""
    paths = sorted(folder.rglob("*"))
    return {p: p.read_bytes() if p.is_file() else None for p in paths}


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """Files and folders that command lines name by a word in capitals."""
    root = tmp_path_factory.mktemp("bad")
    save(tiny(byte_tokenizer(TEXTS, 260), 0, torch.device("cpu"), width=16, layers=1), root / "m")
    shutil.copytree(root / "m", root / "plain")
    (root / "plain" / "chat_template.jinja").unlink()
    (root / "task.jsonl").write_text(GOOD)
    (root / "error.py").write_text("x = 1 / 0\n")
    (root / "none.py").write_text("x = 1\n")
    (root / "word.py").write_text("def f(prompt, response):\n    return 'x'\n")
    (root / "three.py").write_text("def f(prompt, first, second):\n    return 3\n")
    (root / "exits.py").write_text("def f(prompt, response):\n    raise SystemExit(3)\n")
    (root / "most.py").write_text("f = max\n")
    (root / "numpy.py").write_text(
        "import numpy\nfrom theory.objectives import Pairwise, register\n\n\n"
        "@register('np')\nclass Np(Pairwise):\n    citation = 'here'\n\n"
        "    def pair_loss(self, d):\n        return numpy.log1p(numpy.exp(-d))\n"
    )
    (root / "typo.json").write_text('{"settings": {"bta": 1}}')
    (root / "kinds.json").write_text('{"settings": {"beta": "x"}}')
    (root / "list.json").write_text("[]")
    (root / "torn.json").write_text('{"settings": {"beta"')
    result = CliRunner().invoke(app, ["train", "--out", str(root / "run"), *SMALL])
    assert result.exit_code == 0, result.output
    names = {"MODEL": "m", "PLAIN": "plain", "TASK": "task.jsonl", "RUN": "run"}
    names |= {n.upper(): f"{n}.py" for n in PROGRAMS}
    names |= {n.upper(): f"{n}.json" for n in ("typo", "kinds", "list", "torn")}
    return root, {word: str(root / name) for word, name in names.items()}


@pytest.fixture
def refused(places, tmp_path, monkeypatch):
    """Run a command line; the problems it says, after checking that nothing else happened."""
    root, words = places
    monkeypatch.setattr(training, "train", None)  # that would be work

    def call(*arguments, out=None):
        named = [re.sub(r"\b[A-Z]{3,5}\b", lambda m: words.get(m[0], m[0]), a) for a in arguments]
        out = tmp_path / "out" if out is None else out
        before = contents(root), contents(tmp_path)
        other = named[:1] and named[0] in ("sft", "reproduce", "sweep")
        command = named if other else ["train", *SMALL, *named]
        result = CliRunner().invoke(app, [*command, "--out", str(out)])
        assert result.exit_code == 2, (result.output, result.exception)
        assert (contents(root), contents(tmp_path)) == before
        said = result.stderr.strip().splitlines()
        if said[0].startswith("Usage:"):
            return said[-1:]
        assert all(sentence.startswith("error: ") for sentence in said), result.stderr
        return [sentence.removeprefix("error: ") for sentence in said]

    return call


def one(said, expected):
    """Exactly one problem, and it says this."""
    assert len(said) == 1, said
    assert re.search(expected, said[0]), said


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


@pytest.mark.parametrize("name", LINES)
def test_flags_and_their_combinations(name, refused):
    if name == "no GPU" and torch.cuda.is_available():
        pytest.skip("there is one")
    arguments, expected = LINES[name]
    one(refused(*arguments), expected)


@pytest.mark.parametrize("name", OTHERS)
def test_other_commands(name, refused):
    arguments, expected = OTHERS[name]
    said = refused(*arguments)
    assert len(said) == len(expected), said
    for pattern in expected:
        assert any(re.search(pattern, sentence) for sentence in said), (pattern, said)


def flags(kind):
    return [f.name for f in dataclasses.fields(Settings) if type(f.default) is kind]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "-1"])
def test_every_number_is_checked_and_all_problems_are_said_at_once(value, refused):
    said = refused(*(f"--{name.replace('_', '-')}={value}" for name in flags(float)))
    expected = [f"{name}={float(value)!r}; needed is " for name in flags(float)]
    assert sorted(s.partition("needed is ")[0] for s in said) == sorted(
        e.partition("needed is ")[0] for e in expected
    )
    assert all(("a finite number" in s) == (value != "-1") for s in said)


def test_every_count_is_checked_and_all_problems_are_said_at_once(refused):
    said = refused(*(f"--{name.replace('_', '-')}=-1" for name in flags(int)))
    assert sorted(s.split("=")[0] for s in said) == sorted(flags(int))
    assert all(re.search(r"=-1; needed is >= \d+( and <= \d+)?$", s) for s in said)


def test_problems_of_all_kinds_are_said_at_once(refused):
    said = refused("--beta=-1", "--batch=0", "--level=tokn", "--objective=spni", "--oracle=cyclc")
    assert len(said) == 5
    said = refused(
        "--device=cuda", "--objective=inpo", "--sft-run=/no", "--model=/no", "--task=/no.jsonl"
    )  # each value is right by itself
    assert len(said) == 5
    places = ("objective=", "sft_run=", "device=", "task=", "model=")
    assert [s[: len(p)] for s, p in zip(said, places, strict=True)] == list(places)


# -- folders of runs -----------------------------------------------------------------------------


def test_a_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    one(refused(out=tmp_path / "file"), "file is a file; needed is a folder")
    one(refused(out=tmp_path / "file" / "run"), "file is a file; needed is a folder")


def test_a_folder_that_cannot_be_written(refused, tmp_path, monkeypatch):
    real = os.access
    monkeypatch.setattr(os, "access", lambda p, mode: p != tmp_path and real(p, mode))
    one(refused(), f"no permission to write in {tmp_path}")


def test_a_folder_of_something_else(refused, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.jsonl").write_text("precious\n")
    one(refused(), r"not a run's folder, and not empty \(metrics.jsonl\); choose another --out")


@pytest.fixture
def run(places, tmp_path):
    """A copy of a run that has not finished."""
    shutil.copytree(places[1]["RUN"], tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "final")
    return tmp_path / "out"


def test_the_run_of_other_settings(run, refused):
    one(refused("--beta=2"), "out: holds a run with other settings; choose another --out")


def test_the_run_of_other_versions(run, refused, monkeypatch):
    real = record.versions()
    monkeypatch.setattr(record, "versions", lambda: real | {"torch": "9.9"})
    one(refused(), rf"begun with other versions \(torch {re.escape(real['torch'])} -> 9.9\)")


def test_a_run_with_torn_settings(run, refused):
    os.truncate(run / "settings.json", 40)
    one(refused(), "out/settings.json: not the record of a run")


def test_a_checkpoint_that_was_changed_is_not_used(run):
    """Its numbers as well: a state that was edited would silently go on somewhere else."""
    for told in (run / "checkpoints").glob("*/state.json"):
        edited(told.parent, "state.json", lambda s: s.update(total=7))
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(run)])
    assert result.exit_code == 0
    assert result.stderr.count("state.json altered since it was written; using the one before") == 1
    assert result.stderr.count("state.json altered since it was written; starting again") == 1


def test_a_checkpoint_of_another_run_is_not_used(run, monkeypatch):
    """Settings are the same, but what wrote the checkpoint was not what goes on."""
    before = contents(run)
    monkeypatch.setattr(state, "mark", lambda settings: "0" * 32)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(run)])
    assert result.exit_code == 2
    assert "a checkpoint of a run with other settings or versions" in result.stderr
    assert contents(run) == before


def test_a_run_that_finished_stays_as_it_is(places):
    run = places[0] / "run"
    before = contents(run)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(run)])
    assert (result.exit_code, result.stderr) == (0, f"{run}: finished before\n")
    assert contents(run) == before


# -- the machine ---------------------------------------------------------------------------------


def test_what_launchers_leave_in_the_environment(monkeypatch):
    for left in ("", " "):
        monkeypatch.setenv("WORLD_SIZE", left)
        assert processes.announced() == 1
    monkeypatch.setenv("WORLD_SIZE", "two")
    with pytest.raises(InvalidInput, match="WORLD_SIZE='two' in the environment"):
        processes.announced()


def test_a_full_disk_is_one_sentence_whoever_says_it(places, tmp_path, monkeypatch):
    """The library of tokenizers has no kind of its own for it."""

    def full(self, directory, **more):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1, result.exception
    assert result.stderr.splitlines()[-1].endswith("No space left on device (os error 28)")


def test_a_file_of_pairs_is_read_once_a_run(places, tmp_path, monkeypatch):
    real, seen = user_file.read_examples, []
    monkeypatch.setattr(user_file, "read_examples", lambda path: seen.append(path) or real(path))
    words = places[1]
    line = ["train", *SMALL, "--model", words["MODEL"], "--task", words["TASK"]]
    assert CliRunner().invoke(app, [*line, "--out", str(tmp_path / "out")]).exit_code == 0
    assert len(seen) == 1
