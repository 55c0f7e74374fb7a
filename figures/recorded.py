"""Recorded tables of runs that `make figures` does not repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from figures.tidy import MEASURED, Rows
from lab.stats import intervals

ROOT = Path(__file__).parents[1]
LLM_TINY = ROOT / "results" / "llm_tiny.json"


def llm_tiny(path: Path = LLM_TINY) -> pd.DataFrame:
    """Rows of `make llm-tiny`, a round each; ``name`` is the objective without its parameters.

    Raises:
        FileNotFoundError: nothing is recorded; the message says what to do.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent.name}; make llm-tiny")
    table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["rows"])
    return table.assign(name=table.objective.str.partition("(")[0])


def add(rows: Rows, panel: str, part: pd.DataFrame, x: str, y: str, series: str = "") -> None:
    """Means over seeds with their 95 % Student intervals, one curve an objective."""
    for name in part.name.unique():
        found = intervals(part[part.name == name], [x], y).sort_values(x)
        ends = found[["mean", "low", "high"]].to_numpy().T
        rows.add(panel, name, series or y, MEASURED, found[x], *ends)
