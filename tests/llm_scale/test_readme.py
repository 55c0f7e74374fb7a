"""What README.md tells a newcomer to type can be typed, and the metrics it names exist."""

import json
import re
import shlex
from pathlib import Path

import pytest
import typer

from llm_scale.__main__ import app
from llm_scale.launch.run_folder import run
from llm_scale.settings import Settings, resolve

FOLDER = Path(__file__).parents[2] / "llm_scale"
TEXT = (FOLDER / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^ {4}.*-m llm_scale (.+)$", TEXT, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_commands_are_understood(line):
    name, *arguments = shlex.split(line, comments=True)
    command = typer.main.get_command(app).commands[name]
    if "--help" in arguments:
        return
    context = command.make_context(name, arguments)
    if context.params.get("preset"):
        given = {k: v for k, v in context.params.items() if v is not None}
        own = {k: v for k, v in given.items() if k in resolve("", {}).__dataclass_fields__}
        if "my_objective.py" not in own.get("objective", ""):
            resolve(context.params["preset"], own)


def test_there_are_commands():
    assert len(COMMANDS) > 15


KINDS = {
    "sft": {"objective": "sft", "validation": 4},
    "pointwise": {"objective": "spif", "sft_run": "sft"},
    "anchored": {"objective": "spin", "tau": 20.0, "held_out": 256, "sft_steps": 30},
    "token": {"level": "token", "match": "exact"},
    "preferences": {"objective": "sppo", "oracle": "bradley-terry", "own_samples": 2},
    "cyclic": {"objective": "sppo", "oracle": "cyclic", "own_samples": 2},
    "verses": {"task": "verses", "max_prompt_tokens": 400, "max_new_tokens": 16},
}


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Names of all that runs of several kinds write."""
    out, names = tmp_path_factory.mktemp("runs"), set()
    small = {"prompts": 32, "held_out": 64, "rounds": 1, "steps_per_round": 2, "batch": 8}
    for name, given in KINDS.items():
        more = {"sft_run": str(out / "sft")} if "sft_run" in given else {}
        values = small | given | more
        if name == "verses":
            values["held_out"] = 4
        run(Settings(device="cpu", **values), out / name, lambda _: None)
        lines = (out / name / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        names |= json.loads(lines[-1]).keys()
    return names


def test_the_metrics_that_are_explained_are_written(measured):
    table = TEXT.split("## What is measured")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    names = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert len(names) > 35
    assert names - measured == set()
