"""From evidence to status. Nobody types one: `statuses` computes them all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pandas as pd

from figures.report.claims import PROVABLE, Claim, Clause
from figures.report.empirical import OPEN, UNDECIDED, Cell, Measured, decide, judged, measured
from figures.report.records import Record
from lab.evidence import REGIMES

PROVED, CONFIRMED, OBSERVED, SHOWN, REFUTED = DEDUCED = (
    "proved",
    "confirmed",
    "observed",
    "shown",
    "refuted",
)
MEANING = {
    PROVED: "a linked proof, and algebra or exact games that agree with it, none that fails",
    CONFIRMED: "every instance within a tolerance that is derived; no proof",
    OBSERVED: "seen, by a threshold that the test chose",
    SHOWN: "an existence statement, of which an instance is shown",
    REFUTED: "fails with all its premises",
    "yes": "in every recorded cell the interval is beyond the margin",
    "no": "in some cell it is on the other side, by an interval corrected for their number too, "
    "and in none beyond the margin",
    "mixed": "cells, or seeds, contradict each other",
    "undecided": "some interval spans the margin",
    OPEN: "nothing decides it yet",
}


@dataclass(frozen=True)
class Status:
    """What the evidence says of one clause."""

    clause: Clause
    word: str
    sharp: tuple[str, ...] = ()
    """Premises that were dropped alone, and without which it was seen to fail."""
    regimes: tuple[str, ...] = ()
    records: tuple[Record, ...] = ()
    cells: tuple[Cell, ...] = ()
    why: str = ""

    def __str__(self) -> str:
        return self.word + (f", sharp in {', '.join(self.sharp)}" if self.sharp else "")


def statuses(
    claims: Sequence[Claim], records: Sequence[Record], table: pd.DataFrame
) -> dict[str, Status]:
    """Status of every clause by id; ``table`` holds the recorded rows with their arms."""
    clauses = [clause for claim in claims for clause in claim.clauses]
    compared = compare([c for c in clauses if c.comparison is not None], table)
    return {
        clause.id: compared.get(clause.id)
        or status(clause, [r for r in records if clause.id in r.clauses])
        for clause in clauses
    }


def compare(clauses: Sequence[Clause], table: pd.DataFrame) -> dict[str, Status]:
    """Empirical clauses by id, at one level of error for all of them together (Holm, 1979).

    With m clauses a first pass asks for intervals at 5 %/m. What it decides is no longer to be
    corrected for: the next pass asks at 5 % over the number that is left, until nothing more is
    decided. A bound that every run keeps has no interval, so it never makes way for others.
    """
    recorded = {c.id: measured(c.comparison, table) for c in clauses if c.comparison is not None}
    tested = [c.id for c in clauses if c.comparison is not None and c.comparison.bound is None]
    found: dict[str, Status] = {}
    left, settled = len(clauses), 0
    while True:
        for clause in clauses:
            if clause.id not in found or found[clause.id].word in (UNDECIDED, OPEN):
                found[clause.id] = _compared(clause, recorded[clause.id], left)
        decided = sum(found[id_].word not in (UNDECIDED, OPEN) for id_ in tested)
        if decided == settled:
            return found
        left, settled = len(clauses) - decided, decided


def _compared(clause: Clause, recorded: Sequence[Measured], divisor: int) -> Status:
    """One empirical clause, its level divided by ``divisor``."""
    assert clause.comparison is not None
    found = judged(clause.comparison, recorded, divisor)
    word, why = decide(clause.comparison, found)
    where = (clause.comparison.regime,) if found else ()
    return Status(clause, word, regimes=where, cells=tuple(found), why=why)


def status(clause: Clause, evidence: Iterable[Record]) -> Status:
    """The rule of what tests say: records whose numbers do not hold, or that measured nothing,
    do not count."""
    counted = tuple(r for r in evidence if r.counts)
    support = [r for r in counted if not (r.drops or r.refutes)]
    sharp = tuple(sorted({r.drops for r in counted if r.drops in clause.premises} - {""}))
    regimes = tuple(g for g in REGIMES if any(r.regime == g for r in support))
    word, why = OPEN, "no test supports it"
    if any(r.refutes for r in counted):
        word, why = REFUTED, ""
    elif support and clause.kind == "existence":
        word, why = SHOWN, ""
    elif support and clause.kind in PROVABLE:
        exact = any(r.regime in ("symbolic", "tabular") and r.derived for r in support)
        derived = any(r.derived for r in support)
        word = PROVED if clause.proof and exact else (CONFIRMED if derived else OBSERVED)
        why = ""
    return Status(clause, word, sharp, regimes, counted, why=why)
