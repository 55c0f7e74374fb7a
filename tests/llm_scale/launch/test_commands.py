"""The commands around runs, in process; and command lines that are refused before any work."""

import json
import re

import pytest
import torch

from llm_scale.launch import run_folder, sweep
from llm_scale.models import byte_tokenizer, save, tiny
from llm_scale.settings import Settings
from llm_scale.store.read import model_of, settings_of
from tests.llm_scale.commands import call, metrics
from theory.errors import InvalidInput

SIZE = ("--device=cpu", "--prompts=32", "--held-out=16", "--batch=8", "--rounds=1",
        "--steps-per-round=4", "--sft-steps=4")  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("commands") / "run"
    call("train", "--out", out, *SIZE, "--own-samples=2")
    return out


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A plain directory of a byte-level model, not of a run."""
    out = tmp_path_factory.mktemp("model") / "bytes"
    save(tiny(byte_tokenizer(["thou art gone"] * 9), 0, torch.device("cpu"), width=16), out)
    return out


@pytest.fixture
def pairs(tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "response": "thou art gone" * (1 + i)} for i in range(3)]
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


# -- generate ----------------------------------------------------------------------------------


def test_generate_writes_samples_of_a_run(run, tmp_path):
    out = tmp_path / "samples.jsonl"
    call("generate", run, "he", "and", "--count=40", "--out", out)
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(r["prompt"], r["sample"]) for r in rows] == [
        (p, k) for p in ("he", "and") for k in range(40)
    ]
    assert {r["truncated"] for r in rows} == {True, False}
    for row in rows:
        assert row["truncated"] == (row["tokens"] == len(row["response"].split()))
        assert row["log_prob"] < 0
    again = call("generate", run, "he", "and", "--count=40").stdout
    assert again == out.read_text(), "a function of the seed"
    assert call("generate", run, "he", "and", "--count=40", "--seed=1").stdout != again


def test_generate_from_a_model_and_a_file(model, pairs):
    lines = call("generate", model, "--file", pairs, "--max-new-tokens=5").stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    assert [r["prompt"] for r in rows] == ["say 0", "say 1", "say 2"]
    assert all(r["tokens"] <= 5 for r in rows)


# -- eval --------------------------------------------------------------------------------------


def test_eval_of_a_run_is_what_the_run_measured(run):
    row = json.loads(call("eval", run).stdout)
    last = metrics(run)[-1]
    assert row["responses"] == 16
    for name in ("nll", "nll_se", "kl", "kl_se"):
        assert row[name] == pytest.approx(last[name], abs=1e-4)


def test_eval_of_pairs_is_transformers_own_loss(model, pairs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    call("eval", model, "--data", pairs, "--out", tmp_path / "e.json", "--max-new-tokens=40")
    row = json.loads((tmp_path / "e.json").read_text())
    language, tokenizer = (
        kind.from_pretrained(model) for kind in (AutoModelForCausalLM, AutoTokenizer)
    )
    nll, tokens = [], 0
    for i in range(3):
        prompt = tokenizer(f"say {i}\n")["input_ids"]
        response = [*tokenizer("thou art gone" * (1 + i))["input_ids"], tokenizer.eos_token_id][:40]
        ids = torch.tensor([[*prompt, *response]])
        labels = torch.tensor([[*(-100,) * len(prompt), *response]])
        with torch.no_grad():
            nll.append(float(language(input_ids=ids, labels=labels).loss) * len(response))
        tokens += len(response)
    assert row["nll"] == pytest.approx(sum(nll) / 3, rel=1e-5)
    assert row["nll_per_token"] == pytest.approx(sum(nll) / tokens, rel=1e-5)
    assert row["nll_se"] == pytest.approx(torch.tensor(nll).std().item() / 3**0.5, rel=1e-4)


def test_a_run_that_is_not_finished_is_evaluated_at_its_newest_checkpoint(run, tmp_path):
    import shutil

    part = tmp_path / "part"
    shutil.copytree(run, part)
    shutil.rmtree(part / "final")
    assert model_of(part)[0].parent == part / "checkpoints"
    whole, part = (json.loads(call("eval", path).stdout) for path in (run, part))
    assert part["nll"] == pytest.approx(whole["nll"], abs=1e-6)


# -- baselines and sweeps ----------------------------------------------------------------------


def test_the_baselines_of_a_run_match_its_data_and_its_compute(run, tmp_path):
    call("sft", "--like", run, "--out", tmp_path / "sft")
    played = metrics(run)[-1]
    expert, own = played["tokens_expert"], played["tokens_own"]
    data, compute = (
        Settings(**settings_of(tmp_path / "sft" / name)) for name in ("equal-data", "equal-compute")
    )
    like = Settings(**settings_of(run))
    same = ("prompts", "batch", "rounds", "seed", "sft_steps", "lr")
    assert all(getattr(data, f) == getattr(like, f) == getattr(compute, f) for f in same)
    assert data.steps_per_round == like.steps_per_round == 4
    spent = like.steps_per_round * (expert + own)
    assert spent <= compute.steps_per_round * expert < spent + expert
    for name in ("equal-data", "equal-compute"):
        assert run_folder.finished(
            tmp_path / "sft" / name, Settings(**settings_of(tmp_path / "sft" / name))
        )


def test_a_sweep_runs_what_is_missing_and_reports_all(tmp_path):
    line = ("sweep", "--out", tmp_path / "s", *SIZE, "--objectives=sft,spif(c=0.5)",
            "--seeds=0,1", "--betas=2")  # fmt: skip
    call(*line)
    names = {p.name for p in (tmp_path / "s").iterdir()}
    assert names == {"report", "sft-seed-0", "sft-seed-1"} | {
        f"spif_c_0.5-beta-2-seed-{s}" for s in (0, 1)
    }
    before = {p: p.read_bytes() for p in (tmp_path / "s").glob("*/metrics.jsonl")}
    import shutil

    shutil.rmtree(tmp_path / "s" / "sft-seed-1")
    said = call(*line).stderr
    assert said.count("finished before, skipped") == 3
    assert "[2/4] sft-seed-1\n" in said
    assert {p: p.read_bytes() for p in (tmp_path / "s").glob("*/metrics.jsonl")} == before
    text = (tmp_path / "s" / "report" / "report.md").read_text()
    assert all(f"| {name} | 0 | 2 |" in text for name in ("sft", "spif(c=0.5, alpha=0.5)"))
    less = call(*(part.replace("sft,", "") if isinstance(part, str) else part for part in line))
    assert f"2 other runs in {tmp_path / 's'} are not in this report" in less.stderr
    assert "other runs" not in said


def test_a_plan_has_every_combination_and_sft_once_a_seed():
    planned = sweep.plan(Settings(), ["sft", "spin"], [0, 1], [1.0, 0.5])
    found = {n: (s.objective, s.seed, s.beta) for n, s in planned.items()}
    assert found == {f"sft-seed-{s}": ("sft", s, 1.0) for s in (0, 1)} | {
        f"spin-beta-{b:g}-seed-{s}": ("spin", s, b) for s in (0, 1) for b in (1.0, 0.5)
    }


def test_lists_keep_their_brackets():
    assert sweep.split("spin, spif(c=1,alpha=0.3),sft") == ["spin", "spif(c=1,alpha=0.3)", "sft"]
    with pytest.raises(InvalidInput, match="empty part"):
        sweep.split("spin,,sft")


# -- help and refusals -------------------------------------------------------------------------


def test_help_says_what_every_option_does_with_its_default():
    commands = ("train", "sft", "generate", "eval", "report", "reproduce", "sweep", "presets")
    for command in commands:
        assert call(command, "--help").stdout
    said = " ".join(call("train", "--help").stdout.split())
    for name, field in Settings.__dataclass_fields__.items():
        assert f"--{name.replace('_', '-')}" in said
        if len(str(field.default)) < 8:
            assert re.search(rf"default:? ?{re.escape(str(field.default))}", said), name


def test_help_of_a_command_has_its_own_defaults_and_leaves_out_what_it_refuses():
    said = " ".join(call("make-expert", "--help").stdout.split())
    assert "--steps-per-round <int> optimiser steps a round (>= 1; default: 1200)" in said
    for command, refused in (("make-expert", "history"), ("sft", "beta"), ("sweep", "seed")):
        assert f"--{refused} <" in call("train", "--help").stdout
        assert f"--{refused} <" not in call(command, "--help").stdout


BAD = {
    "no preset": (["train", "--preset=huge"], "unknown preset 'huge'; there are"),
    "two at once": (["train", "--beta=-1", "--batch=0"], "beta=-1.0.*batch=0|batch=0.*beta=-1.0"),
    "objective": (["train", "--objective=spun"], "spun"),
    "group": (["train", "--objective=centred_spif"], "own_samples >= 2"),
    "sft run": (["train", "--sft-run=/nowhere"], "not the folder of a finished run"),
    "cosines": (["train", "--cosines=-1"], "cosines=-1; needed is >= 0"),
    "like nothing": (
        ["sft", "--like=/nowhere"],
        "^error: /nowhere: neither the folder of a run .settings",
    ),
    "like and more": (["sft", "--like=RUN", "--beta=2"], "leave out beta"),
    "no record": (["reproduce", "MODEL"], "neither the folder of a run .* nor its record"),
    "no model": (["generate", "/nowhere", "hello", "-"], "neither the folder of a run"),
    "no prompt": (["generate", "RUN", "-"], "one of the two"),
    "prompt twice": (["generate", "RUN", "he", "--file=PAIRS", "-"], "one of the two"),
    "no file": (["generate", "RUN", "--file=/nowhere", "-"], "no such file"),
    "bad line": (["generate", "RUN", "--file=BAD", "-"], r":2: no 'prompt'.*:3: not JSON"),
    "no responses": (["generate", "RUN", "he", "--max-new-tokens=0", "-"], "max_new_tokens=0"),
    "context": (["generate", "RUN", "he", "--max-new-tokens=5000", "-"], "context is 1024"),
    "style": (["generate", "RUN", "he", "--prompt-style=loud", "-"], "prompt_style='loud'"),
    "no data": (["eval", "MODEL", "-"], "say --data"),
    "other words": (["eval", "MODEL", "--data=phrases", "-"], "has its own words"),
    "no pairs": (["eval", "RUN", "--data=BAD", "-"], r":2: no 'prompt'.*:3: not JSON"),
    "no texts": (["eval", "RUN", "--text-metrics", "-"], "sacrebleu|texts to compare"),
    "no runs": (["report", "/nowhere"], "neither a run nor a folder with runs"),
    "seeds": (["sweep", "--seeds=0,x"], "'x'; needed are whole numbers"),
    "seeds twice": (["sweep", "--seeds=1,1"], "the same number twice"),
    "betas": (["sweep", "--betas=1,-2"], "beta=-2.0"),
    "one seed": (["sweep", "--seed=1"], "use --objectives, --seeds, --betas for seed"),
    "objectives": (["sweep", "--objectives=spin,,ipo"], "empty part"),
    "no value": (["train", "--select=lr="], "--select lr '': an empty part"),
    "same twice": (["sweep", "--objectives=spin,spin"], "there twice"),
    "groups": (["sweep", "--objectives=spin,centred_spif"], "own_samples >= 2"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_command_line_is_refused_before_any_work(name, run, model, pairs, tmp_path):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"prompt": "he", "response": "said"}\n{"text": 1}\nprompt\n')
    line, said = BAD[name]
    places = {"RUN": run, "MODEL": model, "PAIRS": pairs, "BAD": bad}
    for word, path in places.items():
        line = [re.sub(rf"(^|=){word}$", rf"\g<1>{path}", part) for part in line]
    out = tmp_path / "out"
    line = line[:-1] if line[-1] == "-" else [*line, f"--out={out}"]
    result = call(*line, code=2)
    assert re.search(said, " ".join(result.stderr.split())), result.stderr
    assert "Traceback" not in result.output
    assert not out.exists()
