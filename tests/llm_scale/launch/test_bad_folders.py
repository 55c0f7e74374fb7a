"""Folders that a run cannot have, and runs that cannot go on, stay as they are."""

import os
import re
import shutil

import pytest
from transformers import PreTrainedTokenizerBase
from typer.testing import CliRunner

from llm_scale.__main__ import app
from llm_scale.store import identity as record
from llm_scale.store import state
from tests.llm_scale.commands import call
from tests.llm_scale.launch.refusals import SMALL, contents, edited, one


def test_a_folder_that_is_a_file(refused, tmp_path):
    (tmp_path / "file").write_text("x")
    one(refused(out=tmp_path / "file"), "file: a file; needed is a folder")
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
    told = r"out: holds a run with other settings \({}\); choose another --out$"
    one(refused("--beta=2"), told.format(r"beta is 1\.0 there and 2\.0 here"))
    many = refused("--beta=2", "--held-out=0", "--objective=spif", "--lr=1", "--seed=3")
    first = "held_out is 4 there and 0 here, objective is 'spin' there and 'spif' here, beta is "
    one(many, told.format(rf"{first}1\.0 there and 2\.0 here, and 2 more"))
    edited(run, "settings.json", lambda record: record["settings"].pop("terms"))
    one(refused(), told.format("terms is unknown there and 'both' here"))


def test_the_run_of_other_versions(run, refused, monkeypatch):
    real = record.versions()
    monkeypatch.setattr(record, "versions", lambda: real | {"torch": "9.9"})
    one(refused(), rf"begun with other versions \(torch {re.escape(real['torch'])} -> 9.9\)")


def test_a_run_with_torn_settings(run, refused):
    os.truncate(run / "settings.json", 40)
    one(refused(), "out/settings.json: not the record of a run")


def test_a_checkpoint_that_was_changed_is_not_used(run):
    """Its numbers as well: a state that was edited would silently go on somewhere else."""
    older, newer = sorted((run / "checkpoints").iterdir())
    edited(newer, "state.json", lambda s: s.update(total=7))
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(run)])
    assert result.exit_code == 0
    assert result.stderr.count("state.json altered since it was written; using the one before") == 1
    assert f"resumed from {older.name}" in result.stderr


@pytest.mark.parametrize("name", ["state.json", "base.safetensors"])
def test_a_run_without_a_whole_checkpoint_keeps_what_it_measured(run, name):
    """All that it has would be trained anew; of weights that several lean on one file is enough."""
    for folder in (run / "checkpoints").iterdir():
        os.truncate(folder / name, 10)
    before = contents(run)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(run)])
    assert result.exit_code == 2
    assert len(re.findall(f"checkpoint .*{name}|torn", result.stderr)) == 2
    assert result.stderr.count("nothing was changed; put it back, or choose another --out") == 2
    assert contents(run) == before


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


# -- a finished run whose files are others now -----------------------------------------------------

CUT = ("--max-new-tokens=6", "--cosines=0", "--device=cpu")


@pytest.fixture
def done(places, tmp_path):
    """Words for a finished self-play run, its data, its expert and its model: copies."""
    words = {"DATA": tmp_path / "data.jsonl", "EXPERT": tmp_path / "e", "START": tmp_path / "m"}
    shutil.copy(places[1]["TASK"], words["DATA"])
    shutil.copytree(places[1]["MODEL"], words["EXPERT"])
    shutil.copytree(places[1]["MODEL"], words["START"])
    words["RUN"] = tmp_path / "run"
    call(*again(words))
    return words


def again(words):
    start = [f"--task={words['DATA']}", f"--expert={words['EXPERT']}", f"--model={words['START']}"]
    return ["train", *SMALL, *CUT, *start, "--out", words["RUN"]]


def added(path):
    path.write_bytes(path.read_bytes() + b" ")


CHANGED = {
    "data": lambda words: words["DATA"],
    "expert": lambda words: words["EXPERT"] / "model.safetensors",
    "model": lambda words: words["START"] / "tokenizer_config.json",
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_finished_run_is_not_that_of_other_files(name, done, tmp_path):
    file, before = CHANGED[name](done), contents(done["RUN"])
    added(file)
    told = f"begun with another content of {file}"
    lines = [again(done), ["sft", "--like", done["RUN"], "--out", tmp_path / "sft"]]
    lines.append(["eval", done["RUN"], "--device=cpu"])
    for line in lines[: 2 if name == "model" else 3]:  # a trained model is measured by itself
        said = call(*line, code=2).stderr.strip().splitlines()
        assert len(said) == 1
        assert told in said[0]
    assert contents(done["RUN"]) == before
    assert not (tmp_path / "sft").exists()
    call("eval", done["RUN"], "--data", done["DATA"], "--device=cpu")  # that is what is asked for
    file.write_bytes(file.read_bytes()[:-1])
    assert call(*again(done)).stderr == f"{done['RUN']}: finished before\n"


def test_a_finished_sweep_is_not_that_of_other_data(done, tmp_path):
    line = ["sweep", "--objectives=sft,spin", "--seeds=0", *SMALL, *CUT, f"--task={done['DATA']}"]
    call(*line, "--out", tmp_path / "sweep")
    added(done["DATA"])
    said = call(*line, "--out", tmp_path / "sweep", code=2).stderr
    assert said.count(f"begun with another content of {done['DATA']}") == 2
    call(*line, "--out", tmp_path / "other")


def test_baselines_do_not_ask_for_what_they_do_not_read(done, tmp_path):
    """The model of an SFT run is of the self-play run alone."""
    line = [f"--sft-run={done['RUN']}" if "--expert" in str(a) else a for a in again(done)[:-1]]
    call(*line, tmp_path / "played")
    added(done["RUN"] / "final" / "model.safetensors")
    assert "another content of" in call(*line, tmp_path / "played", code=2).stderr
    call("sft", "--like", tmp_path / "played", "--out", tmp_path / "sft")


def test_what_a_finished_run_was_made_of_may_be_gone(done):
    done["DATA"].unlink()
    shutil.rmtree(done["START"])
    assert call(*again(done)).stderr == f"{done['RUN']}: finished before\n"


def test_records_without_digests_stay_readable(done, tmp_path):
    edited(done["RUN"], "settings.json", lambda record: record.pop("files"))
    added(done["DATA"])
    assert call(*again(done)).stderr == f"{done['RUN']}: finished before\n"
    call("eval", done["RUN"], "--device=cpu")


def test_a_full_disk_is_one_sentence_whoever_says_it(places, tmp_path, monkeypatch):
    """The library of tokenizers has no kind of its own for it."""

    def full(self, directory, **more):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1, result.exception
    assert result.stderr.splitlines()[-1].endswith("No space left on device (os error 28)")
