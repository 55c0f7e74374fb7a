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


def metrics(out: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics, of steps and of rounds."""
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
