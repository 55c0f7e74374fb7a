"""Options from settings: one each, with what it may be; a command gets those that were given."""

import dataclasses
import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lab.command import with_settings
from lab.settings import BaseSettings, make, option
from theory.command import Program


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    rate: float = option(0.3, "learning rate, SFT units", gt=0)
    own_samples: int = option(1, "own responses", ge=1)
    fresh: bool = option(True, "start afresh")


app = Program("A program.", rich_markup_mode=None)


@app.command()
@with_settings(Settings)
def train(out: Path, given: dict, preset: str = "") -> None:
    """Train, and say what was given."""
    typer.echo(json.dumps([str(out), preset, given, dataclasses.asdict(make(Settings, given))]))


@app.command()
def other() -> None:
    """Another command, so that the first has a name."""


def call(*arguments):
    return CliRunner().invoke(app, ["train", *arguments])


def test_only_what_was_given_is_passed_on():
    out, preset, given, made = json.loads(call("here", "--own-samples=3", "--no-fresh").stdout)
    assert (out, preset, given) == ("here", "", {"own_samples": 3, "fresh": False})
    assert made == {"rate": 0.3, "own_samples": 3, "fresh": False}


def test_help_says_what_every_setting_may_be():
    said = " ".join(call("--help").stdout.split())
    assert "Train, and say what was given." in said
    assert "learning rate, SFT units (> 0; default: 0.3)" in said
    assert "--fresh / --no-fresh start afresh (default: True)" in said


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--rate=fast", "Invalid value for '--rate'"),
        ("--rate=-1", "error: rate=-1.0; needed is > 0"),
    ],
)
def test_wrong_values_are_refused(argument, message):
    result = call("here", argument)
    assert result.exit_code == 2
    assert message in result.stderr
