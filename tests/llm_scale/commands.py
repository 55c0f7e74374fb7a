"""The command line called from a test, and the rows that a run wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from llm_scale.__main__ import app


def call(*arguments: object, code: int = 0) -> Result:
    """Run a command line in this process; it must end with this exit status."""
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    assert result.exit_code == code, (result.output, result.exception)
    return result


def train(out: Path, **settings: object) -> Result:
    """A training run by the command line, however it ends."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in settings.items()]
    return CliRunner().invoke(app, ["train", "--out", str(out), *flags])


def outcome(out: Path) -> list[bytes]:
    """All that must be equal of two runs: the metrics, byte for byte, and the final weights."""
    return [(out / name).read_bytes() for name in ("metrics.jsonl", "final/model.safetensors")]


def metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, of steps and of rounds."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
