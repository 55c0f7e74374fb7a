"""The recorded rows of all regimes, and those that follow from them: what validation chose."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from llm_scale.campaign.plan import (
    BEST_LENGTH_STUDY,
    BEST_RATE_STUDY,
    BEST_STEP_STUDY,
    BEST_STUDY,
    FRESH_RATE_STUDY,
    FRESH_STUDY,
    RATE,
    REALISABLE_RATE_STUDY,
    REALISABLE_STUDY,
    TEMPERATURE,
    of_study,
)

LISTED = "listed"
SECOND = {
    BEST_STUDY: (BEST_RATE_STUDY, BEST_LENGTH_STUDY),
    FRESH_STUDY: (FRESH_RATE_STUDY,),
    REALISABLE_STUDY: (REALISABLE_RATE_STUDY,),
}
"""Studies of a method's rounds at one setting, and those at a second."""


def recorded_rows(tiny: pd.DataFrame, campaign: pd.DataFrame) -> pd.DataFrame:
    """The rows of all regimes, one below the other."""
    if campaign.empty:
        return with_arms(tiny)
    rows = since_first(with_own_link(beside_sft(campaign)))
    derived = [on_one_schedule(rows), *of_two_settings(rows), *at_each_other(rows)]
    rows = pd.concat([rows, *derived])
    return pd.concat([with_arms(tiny), rows], ignore_index=True)


def on_one_schedule(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of study ``chosen on one schedule``: of rounds on the same data or on new ones, those
    that validation chose where SFT too has only self-play's schedule, rate and rounds."""
    if "validation_nll" not in rows:
        return rows[:0]
    of = [rows.study.isin([BEST_STUDY, FRESH_STUDY]), rows.lr == RATE, rows.epochs == 4]
    of += [rows.arm.isin(rows.method) & (rows.arm != "sft") | (rows.arm == "sft, in rounds")]
    return _chosen(rows[np.logical_and.reduce(of)], "on one schedule")


def of_two_settings(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows of study ``chosen of two settings``: those that validation chose of all rounds on the
    same data of the methods that were run at both of SFT's rates or, where the lesser one breaks
    them, in rounds of two lengths, and of SFT's own; and of ``chosen of two settings,
    temperature``: of their best models and temperatures, by KL both ways. Where the learner can be
    the expert they are ``chosen realisable of two settings`` and so on, on new responses in each
    round ``chosen fresh of two settings``."""
    found = []
    for first, more in SECOND.items():
        if not rows.study.isin(more).any():
            continue
        mine = rows[rows.method.isin(["sft", *rows.method[rows.study.isin(more)]])]
        how = of_study(first, "of two settings")
        found.append(_chosen(mine[mine.study.isin([first, *more])], how))
        heated = mine[mine.study.isin([of_study(study, TEMPERATURE) for study in (first, *more)])]
        if not heated.empty:
            both = heated.validation_kl + heated.validation_reverse_kl
            found.append(_chosen(heated, f"{how}, {TEMPERATURE}", score=both))
    return found


def at_each_other(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Rows that validation chose of methods that were run at each other's effective step too, and
    of SFT: ``chosen at one step``, of the rounds at each step and that rate, and ``chosen of three
    settings``, of all their rounds on the same data."""
    other = rows[rows.study == BEST_STEP_STUDY]
    if other.empty:
        return []
    mine = rows[rows.study.isin([BEST_STUDY, BEST_RATE_STUDY, BEST_STEP_STUDY])]
    mine = mine[mine.method.isin(["sft", *other.method])]
    same = mine[mine.lr.isin(other.lr) & mine.method.isin(other.method)]
    by = ("method", "seed", "prompts", "effective_step")
    return [_chosen(same, "at one step", by), _chosen(mine, "of three settings")]


def _chosen(
    rows: pd.DataFrame,
    how: str,
    by: Sequence[str] = ("method", "seed", "prompts"),
    score: pd.Series | None = None,
) -> pd.DataFrame:
    """Of each method, seed and size the row that validation chose, as the method's own."""
    scores = rows.validation_nll if score is None else score
    least = scores.groupby([rows[key] for key in by]).idxmin()
    return rows.loc[least].assign(study=f"chosen {how}", arm=rows.method)


def beside_sft(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the campaign with ``sft_change``: what SFT changed KL by on the same data.

    Where SFT was run in several ways (a study that chooses) there is none.
    """
    same = ["study", "seed", "lr", "epochs", "round"]
    sft = rows[rows.arm == "sft"].drop_duplicates(same, keep=False)
    sft = sft.assign(sft_change=lambda rows: rows.kl - rows.kl_before)
    return rows.merge(sft[[*same, "sft_change"]], on=same, how="left")


def with_own_link(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the campaign with ``own_less_rival``, where the correlations are recorded: of the
    learned reward with the curve of the arm's link, less with the rival's (SPIN's is u)."""
    if "linear_correlation" not in rows:
        return rows
    less = rows.linear_correlation - rows.bounded_correlation
    return rows.assign(own_less_rival=np.where(rows.arm == "spin", less, -less))


def since_first(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the campaign with ``kl_before_first``, ``kl_step_first`` and ``kl_to_sft_first``, of
    the run's first round, where distances from the end of SFT's training are recorded."""
    if "kl_to_sft" not in rows:
        return rows
    same, told = ["study", "arm", "seed", "lr"], ["kl_before", "kl_step", "kl_to_sft"]
    first = rows[rows.kl_to_sft.notna() & (rows["round"] == 0)][[*same, *told]]
    return rows.merge(first, on=same, how="left", suffixes=("", "_first"), validate="m:1")


def with_arms(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of the tiny model with the arm's name: the objective, and what tells it from others."""
    level = table.level.map(lambda x: "" if pd.isna(x) else f", level {x:g}")
    compute = np.where(table.study == "equal compute", ", equal compute", "")
    return table.assign(arm=table.name + level + compute, regime=LISTED)
