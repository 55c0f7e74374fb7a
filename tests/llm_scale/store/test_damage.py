"""What was damaged, lost or blown up: it is noticed, and nothing wrong is kept or shown."""

import dataclasses
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from llm_scale import models
from llm_scale import train as training
from llm_scale.__main__ import app
from llm_scale.data.user_file import pair_file
from llm_scale.launch import prepare, run_folder
from llm_scale.settings import Settings
from llm_scale.store import read, state
from llm_scale.train import Diverged, assemble, train
from tests.llm_scale.commands import call, outcome
from tests.llm_scale.launch.refusals import contents
from theory.errors import InvalidInput

SMALL = ("--device=cpu", "--prompts=16", "--held-out=8", "--batch=4", "--rounds=2", "--cosines=0",
         "--steps-per-round=6", "--sft-steps=3", "--checkpoint-every=2",
         "--opponent=base")  # fmt: skip


def stopped(out, name, at, *more):
    """A run whose call number ``at`` of a function of `llm_scale.train` was interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        real, calls = getattr(training, name), []

        def once(*arguments):
            calls.append(None)
            if len(calls) == at:
                raise KeyboardInterrupt
            return real(*arguments)

        patch.setattr(training, name, once)
        assert CliRunner().invoke(app, ["train", "--out", str(out), *SMALL, *more]).exit_code == 130
    return out


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    call("train", "--out", out, *SMALL)
    return outcome(out)


@pytest.fixture(scope="module")
def within(tmp_path_factory):
    """Stopped within the last round."""
    return stopped(tmp_path_factory.mktemp("within") / "run", "optimise", 14)


@pytest.fixture(scope="module")
def between(tmp_path_factory):
    """Stopped where the last round begins: the checkpoint before is of the round before."""
    return stopped(tmp_path_factory.mktemp("between") / "run", "begin", 2)


@pytest.fixture
def copy(tmp_path):
    def copy(run):
        return Path(shutil.copytree(run, tmp_path / "run"))

    return copy


def newest(out):
    return max((out / "checkpoints").iterdir())


def altered(path):
    path.write_bytes(path.read_bytes()[:-1] + b"\0\0")


# -- resuming ------------------------------------------------------------------------------------


def test_the_checkpoint_of_the_round_before_has_the_weights_of_that_round(between, whole, copy):
    out = copy(between)
    altered(newest(out) / "model.safetensors")
    said = call("train", "--out", out, *SMALL).stderr
    assert "using the one before" in said
    assert "resumed from 000007000011: round 0, step 4\n" in said
    assert outcome(out) == whole


@pytest.mark.parametrize("name", ["base", "current"])
def test_weights_that_a_run_leans_on_are_put_back(name, within, between, whole, copy):
    out = copy(between if name == "base" else within)
    (out / f"{name}.safetensors").unlink()
    call("train", "--out", out, *SMALL)
    assert outcome(out) == whole


def test_weights_of_another_run_are_not_used(between, whole, copy):
    out = copy(between)
    tensors = {k: v + 1.0 for k, v in load_file(out / "base.safetensors").items()}
    save_file(tensors, out / "base.safetensors")
    call("train", "--out", out, *SMALL)
    assert outcome(out) == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda p: os.truncate(p, p.stat().st_size // 2),
        lambda p: p.unlink(),
        lambda p: p.write_bytes(p.read_bytes().replace(b"0", b"1", 1)),
    ],
    ids=["torn", "lost", "edited"],
)
def test_metrics_that_are_not_what_they_were_are_not_gone_on_with(damage, within, copy):
    out = copy(within)
    damage(out / "metrics.jsonl")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert (
        "metrics.jsonl: not what it was when" in call("train", "--out", out, *SMALL, code=2).stderr
    )
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def test_files_that_no_checkpoint_wrote_are_not_read(within, whole, copy):
    out = copy(within)
    (newest(out) / "previous.safetensors").write_bytes(b"junk")
    (out / "checkpoints" / "999").write_text("no folder")
    call("train", "--out", out, *SMALL)
    assert outcome(out) == whole


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_later(between, whole, copy, monkeypatch):
    out = copy(between)

    def full(*arguments):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(state, "save_file", full)
        said = call("train", "--out", out, *SMALL, code=1).stderr
    assert said.splitlines()[-1] == "error: I/O error: No space left on device (os error 28)"
    call("train", "--out", out, *SMALL)
    assert outcome(out) == whole


@pytest.mark.parametrize("steps", [2, 6])
def test_a_blow_up_leaves_no_broken_weights(steps, tmp_path):
    """Weights of 1e36 are finite, what they give is not; the last step has no loss after it."""
    more = ("--sft-steps=0", "--lr=3e36", "--clip=0", "--checkpoint-every=1")
    out = tmp_path / "run"
    line = ("train", "--out", out, *SMALL, *more, f"--steps-per-round={steps}")
    assert "stopped: round 0, step" in call(*line, code=1).stderr
    assert not (out / "final").exists()
    ids = torch.arange(5)[None]
    for folder in (out / "checkpoints").iterdir():
        assert torch.isfinite(
            AutoModelForCausalLM.from_pretrained(folder)(input_ids=ids).logits
        ).all()
    assert (out / "failure.json").exists()


def test_an_infinite_gradient_updates_nothing(task, language, settings, tmp_path, monkeypatch):
    parts = assemble(dataclasses.replace(settings, sft_steps=0), tmp_path, language, task)
    weights = {k: v.clone() for k, v in language.model.state_dict().items()}
    real = training.accumulate

    def broken(*given, **more):
        loss = real(*given, **more)
        next(language.model.parameters()).grad[0] = torch.inf
        return loss

    monkeypatch.setattr(training, "accumulate", broken)
    with pytest.raises(Diverged, match="round 0, step 0: the gradient's norm is inf"):
        train(parts)
    assert all(torch.equal(weights[k], v) for k, v in language.model.state_dict().items())
    assert read.stopped(tmp_path / "failure.json") == (
        "stopped: gradient's norm inf in round 0, step 0"
    )


def test_a_failure_is_forgotten_when_the_run_goes_on(within, copy):
    out = copy(within)
    (out / "failure.json").write_text('{"round": 1, "step": 2, "what": "loss", "value": "nan"}')
    stopped(out, "optimise", 2)
    assert read.read(out).state == "unfinished"


def test_what_a_killed_process_was_writing_is_removed_and_a_users_files_stay(within, whole, copy):
    out = copy(within)
    written = ["base.safetensors", "current.safetensors", "settings.json", "failure.json",
               "rounds/round-001.csv", "samples/round-001.jsonl"]  # fmt: skip
    folders = ["final", "best", "checkpoints/000000000123"]
    lost = [out / f"{name}.0123abcd.tmp" for name in written + folders]
    for path in lost:
        path.parent.mkdir(exist_ok=True)
        path.mkdir() if str(path.relative_to(out)).startswith(tuple(folders)) else path.touch()
    own = [out / "current.safetensors.tmp", out / "mine.0123abcd.tmp", out / "checkpoints/my.tmp"]
    for path in own:
        path.write_text("mine")
    call("train", "--out", out, *SMALL)
    assert not any(path.exists() for path in lost)
    assert [path.read_text() for path in own] == ["mine"] * 3
    assert sorted(out.rglob("*.tmp")) == sorted(own)
    for path in own:
        path.unlink()
    assert outcome(out) == whole


@pytest.mark.parametrize("name", ["pairs.jsonl", "objective.py", "oracle.py"])
def test_a_file_that_changed_is_not_gone_on_with(name, tmp_path):
    """The run would be of two kinds; what it was can still be sampled without its files."""
    own = f"mine_{name.partition('.')[0]}"  # a process knows a name once
    (tmp_path / "pairs.jsonl").write_text(
        "".join(
            json.dumps({"prompt": f"say {i}", "response": "thou art"}) + "\n" for i in range(24)
        )
    )
    (tmp_path / "objective.py").write_text(
        "from theory import xp\nfrom theory.objectives import Pairwise, register\n\n\n"
        f"@register('{own}')\nclass Mine(Pairwise):\n    citation = 'here'\n\n"
        "    def pair_loss(self, d):\n        return xp.softplus(-d)\n"
    )
    (tmp_path / "oracle.py").write_text("def score(prompt, response):\n    return len(response)\n")
    given = (f"--task={tmp_path}/pairs.jsonl", f"--objective={tmp_path}/objective.py:{own}",
             f"--oracle={tmp_path}/oracle.py:score", "--own-samples=2")  # fmt: skip
    out = stopped(tmp_path / "run", "optimise", 5, *given)
    before = (tmp_path / name).read_text()
    (tmp_path / name).write_text(before + "\n")
    said = call("train", "--out", out, *SMALL, *given, code=2).stderr
    assert f"begun with another content of {tmp_path / name}" in said
    (tmp_path / name).unlink()
    call("generate", out, "say", "--count=1")
    (tmp_path / name).write_text(before)
    call("train", "--out", out, *SMALL, *given)


def test_two_processes_do_not_train_in_one_folder(within, whole, copy):
    out = copy(within)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    with run_folder._alone(out):
        said = call("train", "--out", out, *SMALL, code=2).stderr
        assert said == f"error: {out}: another process is training there; nothing was done\n"
        assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    call("train", "--out", out, *SMALL)
    assert outcome(out) == whole


@pytest.mark.parametrize("left", ["other settings", "whole"])
def test_what_another_process_left_while_this_one_loaded_is_seen(
    left, within, tmp_path, monkeypatch
):
    """Both began with an empty folder: the later one neither trains nor writes over it."""
    out, real, seen = tmp_path / "run", prepare.load, []

    def slow(*given):
        loaded = real(*given)
        shutil.copytree(within, out)
        if left == "whole":
            (out / "final").mkdir()
            (out / "final" / "config.json").write_text("{}")
        seen.append(contents(out))
        return loaded

    monkeypatch.setattr(prepare, "load", slow)
    if left == "whole":
        assert call("train", "--out", out, *SMALL).stderr == f"{out}: finished before\n"
    else:
        said = call("train", "--out", out, *SMALL, "--lr=0.5", code=2).stderr
        assert "holds a run with other settings" in said
    assert seen == [contents(out)]


# -- data and reports ----------------------------------------------------------------------------


def test_a_held_out_prompt_is_not_trained_on_with_another_response(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i % 6}", "response": f"thou art {i}"} for i in range(30)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    settings = Settings(held_out=3, prompts=0, device="cpu")
    tokenizer = models.byte_tokenizer(["thou art gone"] * 9)
    task = pair_file(path, tokenizer, settings)
    train, held = task.items(0), task.held_out()
    assert (len(held), len(train), task.size) == (3, 15, 15)
    assert len({i.prompt for i in held}) == 3
    assert not {i.prompt for i in train} & {i.prompt for i in held}


def test_a_report_of_a_run_that_is_being_written(within, copy):
    out = copy(within)
    whole = read.read(out)
    with (out / "metrics.jsonl").open("a") as file:
        file.write('{"at": "round 1", "st')
    assert read.read(out) == whole


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("metrics.jsonl", b"\xff\n", "metrics.jsonl:1: not JSON in UTF-8"),
        ("metrics.jsonl", b"{}\n3\n", "metrics.jsonl:2: an int; needed is an object"),
        ("failure.json", b"{}", "failure.json: not what a run wrote that stopped"),
        (
            "rounds/round-000.csv",
            b"a,b\n1,2\n",
            r"round-000.csv: not the points of a round \('prom",
        ),
    ],
)
def test_a_report_of_damaged_files(name, content, expected, within, copy):
    out = copy(within)
    (out / name).write_bytes(content)
    with pytest.raises(InvalidInput, match=expected):
        read.points(read.read(out), 0)


def test_a_file_that_is_there_is_not_overwritten(within, tmp_path):
    (tmp_path / "precious").write_text("x")
    for command in (("generate", within, "he"), ("eval", within)):
        assert "there already" in call(*command, "--out", tmp_path / "precious", code=2).stderr
    assert (tmp_path / "precious").read_text() == "x"


def test_presets_say_what_they_set():
    said = CliRunner().invoke(app, ["presets"]).stdout
    assert "tiny-cpu       tiny model" in said
    assert "  max_new_tokens = 4\n" in said
