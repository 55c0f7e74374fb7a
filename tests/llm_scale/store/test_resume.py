"""A run that is killed at any moment and started again ends bitwise as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from llm_scale import train as training
from llm_scale.__main__ import app
from llm_scale.models import weights
from llm_scale.models.language import Language
from llm_scale.store import checkpoint
from tests.llm_scale.commands import call, metrics, outcome

ROOT = Path(__file__).parents[3]
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}  # as the run in this process
SMALL = {
    "prompts": 32,
    "held_out": 16,
    "sft_steps": 6,
    "rounds": 2,
    "steps_per_round": 8,
    "batch": 8,
    "checkpoint_every": 3,
}


def command(out, **more):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SMALL | more).items()]
    return ["train", "--out", str(out), "--device=cpu", *flags]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    call(*command(out))
    return out


def test_a_run_is_a_function_of_its_settings(whole, tmp_path):
    call("reproduce", whole, "--out", tmp_path / "again")
    assert outcome(tmp_path / "again") == outcome(whole)
    rows = metrics(whole)
    assert [r["at"] for r in rows if "at" in r] == ["SFT"] * 6 + ["round 0"] * 8 + ["round 1"] * 8
    assert [r["round"] for r in rows if "round" in r] == [0, 1]


@pytest.mark.parametrize("after", [2, 7, 14])
def test_an_interruption_changes_nothing(whole, tmp_path, interrupt, after):
    interrupt(after + 1)
    assert CliRunner().invoke(app, command(tmp_path / "run")).exit_code != 0
    call(*command(tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(whole)


@pytest.mark.parametrize("settings", [{"opponent": "mixture"}, {"tau": 0.2, "objective": "inpo"}])
def test_so_it_is_for_other_opponents_and_anchors(tmp_path, interrupt, settings):
    call(*command(tmp_path / "whole", **settings))
    interrupt(19)
    assert CliRunner().invoke(app, command(tmp_path / "run", **settings)).exit_code != 0
    call(*command(tmp_path / "run", **settings))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_kill_9_at_any_moment(whole, tmp_path):
    out = tmp_path / "run"
    line = [sys.executable, "-m", "llm_scale", *command(out)]
    written = out / "metrics.jsonl"
    for lines in (4, 12):  # within the SFT start, and within the first round: wherever that is
        process = subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, env=ONE_THREAD)
        began = time.monotonic()
        while time.monotonic() - began < 60:
            if written.exists() and written.read_bytes().count(b"\n") >= lines:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, "it was at work"
    call(*command(out))
    assert outcome(out) == outcome(whole)


@pytest.mark.parametrize("damage", ["torn", "altered", "no state", "no file"])
def test_a_damaged_checkpoint_is_said_and_the_one_before_is_used(
    whole, tmp_path, interrupt, damage
):
    out = tmp_path / "run"
    interrupt(14)
    CliRunner().invoke(app, command(out))
    newest = max((out / "checkpoints").iterdir())
    weights = newest / "model.safetensors"
    if damage == "torn":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "altered":
        weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    elif damage == "no state":
        (newest / "state.json").unlink()
    else:
        weights.unlink()
    said = call(*command(out)).stderr
    assert f"warning: checkpoint {newest}" in said
    assert "using the one before" in said
    assert outcome(out) == outcome(whole)


def test_another_run_is_never_overwritten(whole):
    before = outcome(whole)
    said = call(*command(whole, beta=2.0), code=2).stderr
    assert "holds a run with other settings" in said
    assert outcome(whole) == before


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_state(
    whole, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    real, seen = training.losses, []

    def broken(objective, *arguments):
        if objective is not None:
            seen.append(None)  # one of them is the measured direction of the first step
        return real(objective, *arguments) * (float("nan") if len(seen) > 6 else 1.0)

    monkeypatch.setattr(training, "losses", broken)
    result = call(*command(out), code=1)
    assert "stopped: round 0, step 5: the loss is nan" in result.stderr
    assert json.loads((out / "failure.json").read_text())["step"] == 5
    monkeypatch.setattr(training, "losses", real)
    call(*command(out))
    assert outcome(out) == outcome(whole)


def test_checkpoints_and_the_final_model_load_in_plain_transformers(whole):
    for folder in [whole / "final", *(whole / "checkpoints").iterdir()]:
        model = AutoModelForCausalLM.from_pretrained(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        ids = tokenizer("he said", return_tensors="pt")["input_ids"]
        assert torch.isfinite(model(input_ids=ids).logits).all()
    last = checkpoint.latest(whole / "checkpoints")[0]
    final = Language(AutoModelForCausalLM.from_pretrained(whole / "final"), tokenizer)
    stored = last.tensors("model")
    assert all(torch.equal(v, stored[k]) for k, v in weights.copy_of(final).items())
