"""Runs are paired where held-out prompts and expert responses are the same, and nowhere else."""

import dataclasses
import json

import numpy as np
import pytest

from llm_scale.launch import run_folder, sweep
from llm_scale.report.findings import findings
from llm_scale.report.groups import gathered
from llm_scale.report.pairs import held_out_points, same_held_out
from llm_scale.settings import Settings
from llm_scale.store.read import read
from tests.llm_scale.report.test_findings import points_of
from tests.llm_scale.report.test_report import make_run

NONE = "no seed in common with the same held-out prompts"


def said(*paths):
    return "\n".join(findings(gathered(paths))["Is it better than SFT?"])


def pair(folder, settings=(), files=(), **both):
    """A run of SPIN and one of SFT with other settings or digests of files."""
    spin = make_run(folder / "spin", **both)
    sft = make_run(folder / "sft", objective="sft", **both | dict(settings))
    for path, more in ((spin, {}), (sft, dict(files))):
        told = json.loads((path / "settings.json").read_text())
        base = dict.fromkeys(files, "0")
        (path / "settings.json").write_text(json.dumps(told | {"files": base | more}))
    return read(spin), read(sft)


FILE = {"task": "/d/pairs.jsonl"}
EXPERT = {"task": "/d/pairs.jsonl", "expert": "/e/run"}
MADE = {"task": "text", "expert": "made"}
MODEL = {"task": "/d/pairs.jsonl", "model": "/m/one", "sft_run": "/s/run"}


@pytest.mark.parametrize(
    ("both", "settings"),
    [
        (MADE, {"measured_on": "test"}),
        (MADE, {"vocabulary": 700}),
        (MADE, {"expert": "none"}),
        (EXPERT, {"expert": "/e/other"}),
        (EXPERT, {"expert": "none"}),
        (FILE, {"task": "/d/others.jsonl"}),
        (FILE, {"vocabulary": 700}),
        (FILE, {"model": "/m/one"}),
        (FILE, {"prompt_date": "2024-02-01"}),
        (FILE, {"expert_samples": 2}),
        (MODEL, {"model": "/m/two"}),
        ({}, {"seed": 1}),
        ({}, {"held_out": 8}),
        ({}, {"max_new_tokens": 5}),
        ({}, {"prompt_style": "plain"}),
    ],
)
def test_settings_that_decide_what_is_held_out(both, settings, tmp_path):
    one, other = pair(tmp_path, settings, **both)
    assert not same_held_out(one, other, 2)
    assert not same_held_out(other, one, 2)
    assert NONE in said(tmp_path)


@pytest.mark.parametrize(
    ("both", "settings"),
    [
        ({}, {"lr": 0.5, "rounds": 7, "beta": 3.0, "sft_run": "/s", "prompts": 9, "validation": 4}),
        ({}, {"vocabulary": 700}),
        ({}, {"expert_samples": 2}),
        (EXPERT, {"vocabulary": 700}),
        (EXPERT, {"model": "/m/one"}),
        (EXPERT, {"expert_samples": 2}),
        (MODEL, {"vocabulary": 700}),
    ],
)
def test_settings_that_do_not(both, settings, tmp_path):
    """Words of a task of its own, and tokens that are the expert's."""
    one, other = pair(tmp_path, settings, **both)
    assert same_held_out(one, other, 2)
    assert "(paired by seed; over prompts, 1 seed)" in said(tmp_path)


@pytest.mark.parametrize(
    ("both", "name", "same"),
    [
        (FILE, "/d/pairs.jsonl", False),
        (EXPERT, "/e/run/final/model.safetensors", False),
        (EXPERT, "expert /e/run", False),
        (EXPERT, "/e/running/final/model.safetensors", True),
        (MADE, "models/text-expert-12/final/model.safetensors", False),
        (MODEL, "/m/one/tokenizer.json", False),
        (MODEL, "/m/one/chat_template.jinja", False),
        (MODEL, "/base/of/it/tokenizer_config.json", False),
        (MODEL, "/m/one/model.safetensors", True),
        (MODEL, "/s/run/final/tokenizer.json", True),
        (MODEL, "/mine.py", True),
    ],
)
def test_digests_that_decide_what_is_held_out(both, name, same, tmp_path):
    one, other = pair(tmp_path, files={name: "1"}, **both)
    assert same_held_out(one, other, 2) == same
    assert (NONE in said(tmp_path)) == (not same)
    without = dataclasses.replace(other, files={})
    assert same_held_out(one, without, 2), "what was not recorded is not compared"
    assert same_held_out(without, one, 2)


def test_texts_and_log_probabilities_of_the_expert_are_compared(tmp_path):
    one, other = pair(tmp_path)
    for run, expert in ((one, "a"), (other, "b")):
        (run.path / "samples").mkdir()
        row = json.dumps({"prompt": "p", "expert": expert, "after": run.path.name})
        (run.path / "samples" / "round-002.jsonl").write_text(f"{row}\n")
    assert not same_held_out(one, other, 2)
    assert same_held_out(one, other, 1), "no texts were kept of it"
    (other.path / "samples" / "round-002.jsonl").unlink()
    assert same_held_out(one, other, 2)
    points_of(one.path, 2, (-3, -3), (-1, -2))
    assert not same_held_out(one, other, 2), "two prompts and one"
    points_of(other.path, 2, (-3, -3), (-1, -2))
    assert same_held_out(one, other, 2)
    table = other.path / "rounds" / "round-002.csv"
    for value, same in (("-1.05", True), ("-1.5", False), ("", True)):
        table.write_text(table.read_text().replace("0,expert,-1,", f"0,expert,{value},"))
        assert same_held_out(one, other, 2) == same
        table.write_text(table.read_text().replace(f"0,expert,{value},", "0,expert,-1,"))


def test_a_gap_is_called_what_both_sides_measured(tmp_path):
    one, _ = pair(tmp_path)
    rows = [json.loads(line) for line in (one.path / "metrics.jsonl").read_text().splitlines()]
    without = [{k: v for k, v in r.items() if k != "kl"} | {"nll_before": 3.0} for r in rows]
    told = "".join(json.dumps(row) + "\n" for row in without)
    (tmp_path / "sft" / "metrics.jsonl").write_text(told)
    assert "NLL of expert responses +0.000" in said(tmp_path)
    assert "KL" not in said(tmp_path)


# -- runs that were made ---------------------------------------------------------------------------


@pytest.fixture
def played(tmp_path):
    """Settings of a run on a file, its folder and its baseline's."""
    rows = [{"prompt": f"say {i}", "response": f"thou art {i % 7}"} for i in range(30)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = Settings(
        task=str(tmp_path / "pairs.jsonl"), held_out=6, rounds=1, steps_per_round=2, batch=2,
        cosines=0, device="cpu", max_new_tokens=12,
    )  # fmt: skip
    run_folder.run(settings, tmp_path / "spin", lambda text: None)
    sweep.execute(sweep.baselines(tmp_path / "spin"), tmp_path / "sft", lambda text: None)
    return settings


def test_a_run_and_its_baselines_are_paired(played, tmp_path):
    text = said(tmp_path / "spin", tmp_path / "sft")
    assert text.count("paired by seed; over prompts, 1 seed") == 2
    one, two = (read(tmp_path / n) for n in ("spin", "sft/equal-data"))
    gap = held_out_points(two, 0)["after"] - held_out_points(one, 0)["after"]
    assert f"NLL of expert responses {np.mean(gap):+.3f}" in text


def test_data_that_was_edited_between_two_runs_is_not_paired(played, tmp_path):
    """With the same texts held out, as is not known of more prompts than are kept as text."""
    path = tmp_path / "pairs.jsonl"
    path.write_text(path.read_text() + " \n")
    again = dataclasses.replace(played, objective="sft")
    run_folder.run(again, tmp_path / "edited", lambda text: None)
    assert NONE in said(tmp_path / "spin", tmp_path / "edited")


def test_a_model_that_was_trained_from_another_has_its_tokens(played, tmp_path):
    base = str(tmp_path / "sft" / "equal-data" / "final")
    on = dataclasses.replace(played, model=base)
    run_folder.run(on, tmp_path / "on", lambda text: None)
    assert "paired by seed" in said(tmp_path / "on", tmp_path / "sft" / "equal-data")
    fewer = dataclasses.replace(played, vocabulary=258, objective="sft")
    run_folder.run(fewer, tmp_path / "fewer", lambda text: None)
    assert NONE in said(tmp_path / "on", tmp_path / "fewer")
