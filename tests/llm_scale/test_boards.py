"""Boards are asked for by name, refused before work where they are not installed, and fed."""

import subprocess
import sys
import types

import pytest

from llm_scale import boards
from llm_scale.launch.run_folder import problems
from llm_scale.settings import Settings
from llm_scale.store.journal import Journal
from tests.llm_scale.commands import call
from theory.errors import InvalidInput


@pytest.mark.parametrize("wrong", ["all", "tensorboard,none", "tensorboard,,wandb", ""])
def test_unknown_boards_are_refused(wrong):
    with pytest.raises(InvalidInput, match="needed is none, or tensorboard and wandb"):
        Settings(log=wrong)
    with pytest.raises(InvalidInput, match="named once"):
        Settings(log="wandb,wandb")


def test_a_package_that_is_missing_is_said_before_work(tmp_path, monkeypatch):
    monkeypatch.setattr(boards, "find_spec", lambda name: None)
    found = problems(tmp_path / "run", Settings(log="tensorboard,wandb"))
    assert [text.split(":")[0] for text in found] == ["log='tensorboard,wandb'"] * 2
    assert "the package tensorboard is not installed: pip install tensorboard" in found[0]
    assert "pip install -e '.[wandb]'" in found[1]
    assert problems(tmp_path / "run", Settings()) == []
    said = call("train", "--out", tmp_path / "run", "--log=wandb", code=2).output
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_nothing_is_written_or_imported_unless_asked_for(tmp_path, settings):
    assert settings.log == "none"
    assert boards.opened("none", tmp_path, {}) == ()
    code = "import sys, llm_scale.boards, llm_scale.store.journal as j; from pathlib import Path\n"
    code += "j.Journal(Path('.')).write({'round': 0, 'kl': 1.0}, 1)\n"
    code += "assert not {'tensorboard', 'wandb'} & set(sys.modules)"
    path = f"import sys; sys.path[:0] = {sys.path!r}\n"
    subprocess.run([sys.executable, "-c", path + code], cwd=tmp_path, check=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["metrics.jsonl"]


def rows(journal):
    journal.write({"at": "round 0", "step": 4, "loss": 0.5}, 7)
    journal.write({"round": 1, "kl": 0.25, "prediction": "words", "nll": float("nan")}, 9)


def test_tensorboard_gets_the_numbers_of_steps_and_of_rounds(tmp_path, monkeypatch):
    seen = []

    class Writer:
        def __init__(self, folder, purge_step):
            seen.append((folder, purge_step))

        def add_scalar(self, name, value, at):
            seen.append((name, value, at))

        def flush(self):
            pass

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    rows(Journal(tmp_path, boards.opened("tensorboard", tmp_path, {})))
    folder = tmp_path / "tensorboard"
    assert seen == [
        (str(folder / "steps"), 7), ("step/loss", 0.5, 7),
        (str(folder / "rounds"), 1), ("round/kl", 0.25, 1),
    ]  # fmt: skip


def test_wandb_is_offline_and_gets_the_same_numbers(tmp_path, monkeypatch):
    seen = []

    class Run:
        def define_metric(self, name, step_metric):
            seen.append((name, step_metric))

        def log(self, numbers):
            seen.append(numbers)

    def init(**how):
        seen.append((how["mode"], how["dir"], how["name"], how["config"]))
        return Run()

    module = types.ModuleType("wandb")
    module.init, module.Settings = init, lambda **how: how
    monkeypatch.setitem(sys.modules, "wandb", module)
    out = tmp_path / "run"
    rows(Journal(out, boards.opened("wandb", out, {"beta": 1.0})))
    assert seen == [
        ("offline", str(out), "run", {"beta": 1.0}),
        ("step/*", "step/number"), ("round/*", "round/number"),
        {"step/loss": 0.5, "step/number": 7}, {"round/kl": 0.25, "round/number": 1},
    ]  # fmt: skip


def test_a_package_that_cannot_be_imported_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InvalidInput, match="log='wandb': cannot be imported"):
        boards.opened("wandb", tmp_path, {})
