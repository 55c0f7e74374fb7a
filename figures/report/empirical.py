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

YES, NO, UNDECIDED, MIXED, OPEN = "yes", "no", "undecided", "mixed", "open"
CELL = ("effective_step", "steps", "lr", "round")
"""Columns that tell cells apart, where a comparison does not name others."""


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
