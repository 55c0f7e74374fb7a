"""Empirical clauses: paired differences over seeds in every recorded cell, and what they decide."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from figures.report.claims import Comparison
from lab.stats import standard_error, student
from llm_scale.campaign.plan import (
    BEST_LENGTH_STUDY,
    BEST_RATE_STUDY,
    BEST_STEP_STUDY,
    BEST_STUDY,
    FRESH_STUDY,
    RATE,
    REALISABLE_RATE_STUDY,
    REALISABLE_STUDY,
)

TEMPERATURE = "temperature"
YES, NO, UNDECIDED, MIXED, OPEN = "yes", "no", "undecided", "mixed", "open"
CELL = ("effective_step", "steps", "lr", "round")
"""Columns that tell cells apart, where a comparison does not name others."""
LISTED = "listed"
SECOND = {
    BEST_STUDY: (BEST_RATE_STUDY, BEST_LENGTH_STUDY),
    REALISABLE_STUDY: (REALISABLE_RATE_STUDY,),
}
"""Studies of a method's rounds at one setting, and those at a second."""


@dataclass(frozen=True)
class Cell:
    """One comparison: an arm (less its rival), in one length, rate, step and round."""

    arm: str
    against: str
    at: dict[str, float]
    mean: float
    half: float
    """Half the 95 % interval of this cell alone."""
    seeds: int
    word: str
    """What the interval that is corrected for many clauses decides (`status.compare`)."""

    @property
    def name(self) -> str:
        """In words; rounds are counted from 1 here, from 0 in the record."""
        rival = f" less {self.against}" if self.against else ""
        shown = self.at | ({"round": self.at["round"] + 1} if "round" in self.at else {})
        at = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in shown.items())
        return f"{self.arm}{rival} ({at})"


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
    the expert they are ``chosen realisable of two settings`` and so on."""
    found = []
    for first, more in SECOND.items():
        if not rows.study.isin(more).any():
            continue
        mine = rows[rows.method.isin(["sft", *rows.method[rows.study.isin(more)]])]
        how = f"{first} of two settings".removeprefix(f"{BEST_STUDY} ")
        found.append(_chosen(mine[mine.study.isin([first, *more])], how))
        studies = [f"{study} {TEMPERATURE}" for study in (first, *more)]
        heated = mine[mine.study.isin([x.removeprefix(f"{BEST_STUDY} ") for x in studies])]
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


@dataclass(frozen=True)
class Measured:
    """What a cell compares: values by seed, and by how much a null predictor misses them."""

    arm: str
    against: str
    at: dict[str, float]
    values: np.ndarray
    missed: np.ndarray | None


def measured(ask: Comparison, table: pd.DataFrame) -> list[Measured]:
    """All cells that are recorded, whatever they decide."""
    if not {*ask.rows, *ask.by} <= set(table):
        return []  # what tells its runs apart comes with them
    keys = list(ask.by or CELL)
    asked = [table.regime == ask.regime, *(table[k].isin(v) for k, v in ask.rows.items())]
    named = _names(ask.quantity, ask.minus, ask.predicted, ask.null_predicted)
    named |= {"arm", "seed", *keys}  # of two hundred columns
    rows = table.loc[np.logical_and.reduce(asked), [c for c in table if c in named]]
    found: list[Measured] = []
    for arm in ask.arms:
        mine = rows[rows.arm == arm]
        for key, group in mine.groupby(keys, dropna=False):
            at = {k: float(v) for k, v in zip(keys, key, strict=True) if not pd.isna(v)}
            own = _values(group, ask)
            for rival in ask.against or ("",):
                values, missed = own, None
                if rival:
                    same = [rows[k].isin([v]) | rows[k].isna() for k, v in at.items()]
                    other = _values(rows[np.logical_and.reduce([*same, rows.arm == rival])], ask)
                    values = (own - other.reindex(own.index)).dropna()
                elif ask.predicted:
                    values = own - group.set_index("seed").eval(ask.predicted)
                    missed = own - group.set_index("seed").eval(ask.null_predicted)
                    missed = missed.reindex(values.dropna().index).to_numpy()
                values = values.dropna()
                if len(values):
                    found.append(Measured(arm, rival, at, values.to_numpy(), missed))
    return found


def judged(ask: Comparison, found: Sequence[Measured], clauses: int = 1) -> list[Cell]:
    """Cells with what each decides; ``clauses`` is what the level is divided by."""
    return [_cell(ask, one, clauses, among=len(found)) for one in found]


def _names(*expressions: str | None) -> set[str]:
    return set(re.findall(r"\w+", " ".join(filter(None, expressions))))


def _values(group: pd.DataFrame, ask: Comparison) -> pd.Series:
    """The quantity by seed."""
    by_seed = group.set_index("seed")
    if by_seed.index.has_duplicates:
        raise ValueError(f"{ask.quantity}: the rows do not single out one run a seed and cell")
    asked = _names(ask.quantity, ask.minus)
    named = by_seed[[c for c in by_seed if c in asked]]  # eval goes through all columns there are
    values = named.eval(ask.quantity)
    return values - named.eval(ask.minus) if ask.minus else values


def _cell(ask: Comparison, one: Measured, clauses: int, among: int) -> Cell:
    """``among``: cells of the clause.

    A clause says yes only if every cell does, and no if one of them does: for that word, and not
    for the other, a cell's interval is corrected for their number as well.
    """
    values, missed = one.values, one.missed
    mean, n = float(values.mean()), len(values)
    if n < 2:
        return Cell(one.arm, one.against, one.at, mean, np.nan, n, OPEN)
    half = student(n) * standard_error(values)
    if n < ask.seeds:
        word = OPEN
    elif ask.bound is not None:
        within = values <= ask.bound if ask.direction == "less" else values >= ask.bound
        word = YES if within.all() else (NO if not within.any() else MIXED)
    else:
        good = _beyond(ask, values, missed)
        low = min(x.mean() - _wide(x, clauses) for x in good)
        high = min(x.mean() + _wide(x, clauses * among) for x in good)
        if missed is not None and abs(missed.mean()) < 2.0 * abs(mean):
            low = -math.inf
        word = YES if low > 0 else (NO if high < 0 else UNDECIDED)
    return Cell(one.arm, one.against, one.at, mean, half, n, word)


def _beyond(ask: Comparison, values: np.ndarray, missed: np.ndarray | None) -> list[np.ndarray]:
    """By seed, what has to be positive: how far beyond the margin; of a prediction how far within
    its tolerance, and by how much the null predictor misses by more."""
    if missed is None:
        return [(-values if ask.direction == "less" else values) - ask.margin]
    apart = np.copysign(1.0, values.mean()) * values
    null = np.copysign(1.0, missed.mean()) * missed
    return [ask.tolerance - apart, null - apart]


def _wide(values: np.ndarray, tests: float) -> float:
    """Half the interval of a mean at 5 % over the number of tests."""
    return student(len(values), 1.0 - 0.05 / tests) * standard_error(values)


def decide(ask: Comparison, found: list[Cell]) -> tuple[str, str]:
    """The clause's word over all its cells, and why it is open if it is."""
    pairs = [(arm, rival) for arm in ask.arms for rival in ask.against or ("",)]
    seen = {(cell.arm, cell.against) for cell in found if cell.word != OPEN}
    missing = [" against ".join(filter(None, pair)) for pair in pairs if pair not in seen]
    if missing:
        few = [c for c in found if c.word == OPEN]
        why = f"{max(c.seeds for c in few)} of {ask.seeds} seeds" if few else "no runs"
        return OPEN, f"{why} of {', '.join(missing)}"
    words = [cell.word for cell in found if cell.word != OPEN]
    if MIXED in words or {YES, NO} <= set(words):
        return MIXED, ""
    for word in (NO, UNDECIDED):
        if word in words:
            return word, ""
    return YES, ""
