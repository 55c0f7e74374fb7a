"""From evidence to verdict. Nobody types one: `verdict` computes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from figures.report.claims import RUNGS, Claim
from figures.report.records import Record

HOLDS, HOLDS_IF, REFUTED, UNTESTED = "holds", "holds if", "refuted", "not tested here"


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of one claim."""

    word: str
    conditions: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.word, "; ".join(self.conditions)]).strip()


def verdict(evidence: Iterable[Record]) -> Verdict:
    """The rule, for the records of one claim; records that measured nothing do not count.

    A counter-example without a condition under which the claim holds refutes it. So does one with
    a condition when nothing shows that the claim holds under it. Otherwise support makes it hold:
    under the conditions that the counter-examples and the necessity tests name, if there are any.
    Without support, necessity tests alone decide nothing.
    """
    counted = [record for record in evidence if record.counts]
    supported = any(record.kind == "supports" for record in counted)
    refuting = [record for record in counted if record.kind == "refutes"]
    if any(not record.condition for record in refuting) or (refuting and not supported):
        return Verdict(REFUTED)
    if not supported:
        return Verdict(UNTESTED)
    conditions = tuple(sorted({r.condition for r in counted if r.kind != "supports"}))
    return Verdict(HOLDS_IF, conditions) if conditions else Verdict(HOLDS)


def gaps(claim: Claim, evidence: Iterable[Record]) -> list[str]:
    """What is missing before the claim is carried as far up as it goes."""
    seen = {record.rung for record in evidence if record.counts}
    missing = [rung for rung in claim.rungs if rung not in seen]
    found = [claim.gaps] if claim.gaps else []
    if missing:
        found.append(f"No evidence yet on the rung{'s' * (len(missing) > 1)} {', '.join(missing)}.")
    return found


def reach(claim: Claim, evidence: Iterable[Record]) -> str:
    """How far up the verdict reaches: the highest rung with evidence, and the highest there is."""
    seen = [rung for rung in RUNGS if any(r.counts and r.rung == rung for r in evidence)]
    top = [rung for rung in RUNGS if rung in claim.rungs][-1]
    if not seen:
        return "–"
    return seen[-1] if RUNGS.index(seen[-1]) >= RUNGS.index(top) else f"{seen[-1]}, not yet {top}"
