"""Recorded tables of runs that `make figures` does not repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from figures.catalogue import RESULTS

LLM_TINY = RESULTS / "llm_tiny.json"
LLM_TEXT = "llm_text_*.json"
"""Records of the campaign on the text game, a file an experiment."""


def llm_tiny(path: Path = LLM_TINY) -> pd.DataFrame:
    """Rows of `make llm-tiny`, a round each; ``name`` is the objective without its parameters.

    Raises:
        FileNotFoundError: nothing is recorded; the message says what to do.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent.name}; make llm-tiny")
    table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["rows"])
    return table.assign(name=table.objective.str.partition("(")[0])


def llm_text(folder: Path = RESULTS) -> pd.DataFrame:
    """Rows of `make llm-text`, a round each, of all experiments that are recorded; maybe none."""
    rows = [
        row
        for path in sorted(folder.glob(LLM_TEXT))
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
    ]
    return pd.DataFrame(rows)


def by_name(found: pd.DataFrame, x: str) -> pd.DataFrame:
    """The rows sorted by x, with the objective's name for the objective: for `Rows.each`."""
    return found.assign(objective=found.name).sort_values(x, kind="stable")
