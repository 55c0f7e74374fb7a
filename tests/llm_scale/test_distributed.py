"""Two processes on the CPU give the run of one: loss curve, samples, one set of files, resuming."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from llm_scale.__main__ import app
from llm_scale.models.player import Machine
from llm_scale.settings import Settings
from tests.llm_scale.commands import metrics
from theory.errors import InvalidInput

ROOT = Path(__file__).parents[2]
SMALL = ("--prompts=16", "--held-out=5", "--rounds=2", "--steps-per-round=5", "--batch=8",
         "--sft-steps=3", "--cosines=2", "--checkpoint-every=4", "--device=cpu")  # fmt: skip
GAMES = {
    # held-out prompts, items of a step and forward passes that two do not share evenly
    "pairs": ("--objective=spin", "--batch=3", "--tokens-per-batch=20", "--held-out=1"),
    "tokens": ("--objective=spif", "--level=token"),
    "preferences": ("--objective=sppo", "--oracle=bradley-terry", "--own-samples=3", "--tau=0.1"),
    "shards": ("--objective=spin", "--opponent=mixture", "--batch=3", "--tokens-per-batch=20",
               "--held-out=1", "--no-reset-optimiser"),
    "shards of an adapter": ("--objective=alpha_spin", "--lora=3", "--batch=5"),
}  # fmt: skip
KILLED = ("preferences", "shards")
KILLED_AT = 9
# What torchrun starts and announces. The processes are forked after imports and texts, for speed;
# what is imported late, by each of 18, is imported here as well.
GROUP = f"""
import json, os, signal, sys
import peft, torch, torch.distributed.fsdp, torch.profiler
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast
torch.set_num_threads(1)
from llm_scale import train as training
from llm_scale.data import tasks
from llm_scale.__main__ import app
from llm_scale.launch import prepare, run_folder
from llm_scale.settings import Settings

tasks.phrases(Settings())  # its texts are kept

def play(rank, line, killed):
    os.environ |= dict(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    real, done = training.optimise, []
    def optimise(*arguments):
        done.append(None)
        if killed and rank == 1 and len(done) == {KILLED_AT}:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments)
    training.optimise = optimise
    app(line)

for port, line, killed in json.loads(sys.argv[1]):
    os.environ |= dict(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    ranks = []
    for rank in (0, 1):
        ranks.append(os.fork())
        if ranks[-1] == 0:
            play(rank, line, killed)
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks]
    print(json.dumps(codes), flush=True)
"""


def train(out, name, processes=1):
    sharded = ["--sharded"] if "shards" in name and processes > 1 else []
    return ["train", "--out", str(out), *SMALL, *GAMES[name], *sharded]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Every game by one process and by two; a run by two of which one was killed, then resumed."""
    out = tmp_path_factory.mktemp("world")
    for name in GAMES:
        result = CliRunner().invoke(app, train(out / f"{name}-1", name))
        assert result.exit_code == 0, (result.output, result.exception)
    jobs = [[free_port(), train(out / f"{name}-2", name, 2), False] for name in GAMES]
    for name in KILLED:
        line = train(out / f"{name}-killed", name, 2)
        jobs += [[free_port(), line, True], [free_port(), line, False]]
    done = subprocess.run(
        [sys.executable, "-c", GROUP, json.dumps(jobs)],
        cwd=ROOT, capture_output=True, text=True, timeout=600, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    codes = [json.loads(line) for line in done.stdout.splitlines()]
    return out, codes, done.stderr


def rows(out):
    return metrics(out)


@pytest.mark.parametrize("name", GAMES)
def test_two_processes_give_the_trajectory_of_one(runs, name):
    """Losses as close as float32 sums in another order can be; see test_metamorphic."""
    out, codes, said = runs
    assert codes[list(GAMES).index(name)] == [0, 0], said
    one, two = rows(out / f"{name}-1"), rows(out / f"{name}-2")
    assert [row.keys() for row in one] == [row.keys() for row in two]
    losses = [np.array([row["loss"] for row in r if "loss" in row]) for r in (one, two)]
    assert np.abs(losses[0] - losses[1]).max() <= 1e-5 * np.abs(losses[0]).max()
    counted = ("prompt_format", "length_own", "truncated_own", "after_length_own", "tokens_own")
    for a, b in zip(one, two, strict=True):
        assert [a.get(k) for k in counted] == [b.get(k) for k in counted]
        if "cosine" in a:
            assert a["cosine"] == pytest.approx(b["cosine"], abs=1e-4)


@pytest.mark.parametrize("name", GAMES)
def test_two_processes_draw_the_samples_of_one(runs, name):
    """Of the last checkpoint within a round: own responses, tokens or comparisons, and held-out."""
    out = runs[0]
    found = 0
    for path in (out / f"{name}-1" / "checkpoints").glob("*/*.safetensors"):
        if path.stem in ("round", "held_out"):
            one = load_file(path)
            two = load_file(out / f"{name}-2" / path.relative_to(out / f"{name}-1"))
            assert one.keys() == two.keys()
            for key, value in one.items():
                if value.dtype == torch.int64 or key == "wins":
                    assert torch.equal(value, two[key]), key
                    found += value.numel()
    assert found > 100


@pytest.mark.parametrize("name", GAMES)
def test_two_processes_write_the_files_of_one(runs, name):
    out = runs[0]
    one, two = (
        sorted(
            str(p.relative_to(root))
            for p in root.rglob("*")
            if "tfevents" not in p.name  # of TensorBoard, with the time and the process in its name
        )
        for root in (out / f"{name}-1", out / f"{name}-2")
    )
    assert one == two
    for root in (out / f"{name}-1", out / f"{name}-2"):
        assert len((root / "timing.jsonl").read_text().splitlines()) == 2


@pytest.mark.parametrize("name", KILLED)
def test_a_group_that_lost_a_process_resumes_bitwise(runs, name):
    out, codes, said = runs
    killed, resumed = codes[len(GAMES) + 2 * KILLED.index(name) :][:2]
    assert killed[1] == -signal.SIGKILL
    assert killed[0] != 0, "the other one noticed"
    assert resumed == [0, 0], said
    assert said.count("resumed from") == len(KILLED)
    for file in ("metrics.jsonl", "final/model.safetensors"):
        one, two = (out / f"{name}-{kind}" / file for kind in ("killed", "2"))
        assert one.read_bytes() == two.read_bytes()


@pytest.mark.parametrize("name", [name for name in GAMES if "shards" in name])
def test_shards_are_written_whole(runs, name):
    """Weights as far from those of one process as rounding is; so are moments."""
    files = ["final/model.safetensors"]
    last = max((runs[0] / f"{name}-1" / "checkpoints").iterdir()).name
    files += [f"checkpoints/{last}/optimiser.safetensors"] * (name == "shards")
    for file in files:
        one, two = (load_file(runs[0] / f"{name}-{n}" / file) for n in (1, 2))
        assert one.keys() == two.keys()
        for key, tensor in one.items():
            torch.testing.assert_close(two[key], tensor, rtol=1e-2, atol=1e-4)


def test_shards_of_one_process_are_refused(tmp_path):
    result = CliRunner().invoke(app, [*train(tmp_path / "out", "shards"), "--sharded"])
    assert (result.exit_code, result.stderr) == (
        2,
        "error: sharded is for several processes: start them with torchrun, or leave it out\n",
    )


def test_only_one_process_speaks(runs):
    lines = [line for line in runs[2].splitlines() if re.match(r"round \d+  ", line)]
    assert len(lines) == 2 * (len(GAMES) + len(KILLED))


def test_a_batch_smaller_than_the_group_is_refused(tmp_path, monkeypatch):
    """Before the processes meet: each of them sees the same."""
    monkeypatch.setenv("WORLD_SIZE", "4")
    line = ["train", *SMALL, "--batch=3", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, line)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: batch=3; 4 processes need one prompt each\n",
    )
    assert not (tmp_path / "out").exists()


def test_each_process_takes_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Machine.of(Settings(device="cuda")).device == torch.device("cuda")
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert Machine.of(Settings(device="auto")).device == torch.device("cuda", 1)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(InvalidInput, match=r"3 processes; needed is a CUDA device for each.* 2"):
        Machine.of(Settings(device="cuda"))
