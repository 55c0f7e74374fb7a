"""Recorded tables of runs that `make figures` does not repeat."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd

from figures.catalogue import RESULTS
from llm_scale.campaign.plan import CHECKED_PRESET, PRESET, REAL_PRESET

LLM_TINY = RESULTS / "llm_tiny.json"
LLM_GAP = RESULTS / "llm_gap.json"
LLM_TEXT = "llm_text_*.json"
"""Records of the campaign, a file an experiment."""
TEXT, PRETRAINED = "real text", "135M"
REGIME = {PRESET: TEXT, REAL_PRESET: PRETRAINED, CHECKED_PRESET: PRETRAINED}
"""Of a record, by its preset."""


def llm_tiny(path: Path = LLM_TINY) -> pd.DataFrame:
    """Rows of `make llm-tiny`, a round each; ``name`` is the objective without its parameters.

    Raises:
        FileNotFoundError: nothing is recorded; the message says what to do.
    """
    return _named(path, "make llm-tiny")


def llm_gap(path: Path = LLM_GAP) -> pd.DataFrame:
    """Rows of `make llm-gap FULL=1`, a round each; ``name`` and errors as of `llm_tiny`."""
    return _named(path, "make llm-gap FULL=1")


def _named(path: Path, command: str) -> pd.DataFrame:
    if not path.is_file():
        raise FileNotFoundError(f"{path.name}: no such file in {path.parent.name}; {command}")
    table = pd.DataFrame(json.loads(path.read_text(encoding="utf-8"))["rows"])
    return table.assign(name=table.objective.str.partition("(")[0])


def llm_text(folder: Path = RESULTS) -> pd.DataFrame:
    """Rows of the text game, a round each, of all experiments that are recorded; maybe none."""
    rows = campaign(folder)
    return rows if rows.empty else rows[rows.regime == TEXT].dropna(axis="columns", how="all")


def campaign(folder: Path = RESULTS) -> pd.DataFrame:
    """Rows of `make llm-text`: ``regime`` is the text game, or the pretrained model."""
    rows = []
    for path in sorted(folder.glob(LLM_TEXT)):
        found = json.loads(path.read_text(encoding="utf-8"))
        regime = REGIME[found["provenance"]["preset"]]
        rows += [row | {"regime": regime} for row in found["rows"]]
    return pd.DataFrame(rows)


def since_start(rows: pd.DataFrame, column: str = "kl") -> pd.Series:
    """Change of a column (with a ``_before``) since the model that a seed's runs begin with."""
    first = rows[rows["round"] == 0].groupby("seed")[f"{column}_before"].first()
    return rows[column] - rows.seed.map(first)


def base(arm: str) -> str:
    """The objective whose colour an arm of the campaign has."""
    return "spif" if arm.startswith("author") else arm.partition(",")[0]


def at_temperatures(found: pd.DataFrame, chosen: str, points: str) -> pd.DataFrame:
    """Points at temperatures (study ``points``) of the models that validation chose (``chosen``):
    means over seeds of KL both ways by method and temperature, the highest first."""
    model = ["seed", "method", "arm", "steps", "lr"]
    mine = found[found.study == chosen].assign(arm=lambda rows: rows.setting)[model]
    own = found[found.study == points].merge(mine, on=model)
    means = own.groupby(["method", "temperature"])[["kl", "reverse_kl"]].mean()
    return means.reset_index().sort_values("temperature", ascending=False, kind="stable")


def by_name(found: pd.DataFrame, x: str) -> pd.DataFrame:
    """The rows sorted by x, with the objective's name for the objective: for `Rows.each`."""
    return found.assign(objective=found.name).sort_values(x, kind="stable")
