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
from tests.llm_scale.launch.refusals import SMALL, contents, edited, one


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


def test_a_full_disk_is_one_sentence_whoever_says_it(places, tmp_path, monkeypatch):
    """The library of tokenizers has no kind of its own for it."""

    def full(self, directory, **more):
        raise Exception("No space left on device (os error 28)")

    monkeypatch.setattr(PreTrainedTokenizerBase, "save_pretrained", full)
    result = CliRunner().invoke(app, ["train", *SMALL, "--out", str(tmp_path / "out")])
    assert result.exit_code == 1, result.exception
    assert result.stderr.splitlines()[-1].endswith("No space left on device (os error 28)")
