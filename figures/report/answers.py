"""Answers that a person wrote, locked to the statuses that they rest on (answers.toml)."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from figures.report.claims import HERE, OF_THE_PAPER, Claim
from figures.report.empirical import Cell
from figures.report.status import OPEN, Status
from figures.report.words import cell_number, tally

_NUMBER = re.compile(r"\{([CTS]\d+\.\w+)(?:: ?([^}]*))?\}")


@dataclass(frozen=True)
class Answer:
    """What a reader takes away about one claim, or one piece of advice.

    Attributes:
        answer: in a sentence or two; true_where, not_where, number, change: what qualifies
            it; "{C6.x: steps=64}" stands for the number of that cell, "{C6.x: cells}" for how all
            fall, "{T7.path}" for a status.
        figure: name of a figure; command: what repeats the evidence.
        because, against: status of every clause that speaks for and against it.
        regimes: where it is known.
    """

    id: str
    answer: str
    because: dict[str, str]
    regimes: tuple[str, ...]
    against: dict[str, str] | None = None
    true_where: str = ""
    not_where: str = ""
    number: str = ""
    figure: str = ""
    command: str = ""
    change: str = ""

    @property
    def cited(self) -> dict[str, str]:
        """Every cited clause with the status that the answer relies on."""
        return self.because | (self.against or {})


def read_answers(path: Path = HERE / "answers.toml") -> dict[str, Answer]:
    """All answers by id. ValueError names unknown and missing keys."""
    known = {f.name for f in fields(Answer)} - {"id"}
    found, wrong = {}, []
    for id_, row in tomllib.loads(path.read_text(encoding="utf-8")).items():
        strange = [*(row.keys() - known), *({"answer", "because", "regimes"} - row.keys())]
        wrong += [f"{id_}: {key} is unknown or missing" for key in sorted(strange)]
        if not strange:
            found[id_] = Answer(id_, **{**row, "regimes": tuple(row["regimes"])})
    if wrong:
        raise ValueError("\n".join([f"{path.name}:", *wrong]))
    return found


def problems(
    answers: Mapping[str, Answer],
    claims: Sequence[Claim],
    statuses: Mapping[str, Status],
    figures: Sequence[str],
) -> list[str]:
    """Where an answer says more, less or something else than the evidence."""
    wrong: list[str] = []
    for id_, answer in answers.items():
        for clause, word in answer.cited.items():
            if clause not in statuses:
                wrong.append(f"{id_} cites {clause}, which is no clause")
            elif statuses[clause].word != word:
                wrong.append(f"{id_} cites {clause} as {word!r}; it is {statuses[clause].word!r}")
        cited = [statuses[clause] for clause in answer.cited if clause in statuses]
        known = {regime for s in cited if s.word != OPEN for regime in s.regimes}
        wrong += [f"{id_}: no cited clause has evidence in the regime {regime!r}"
                  for regime in answer.regimes if regime not in known]  # fmt: skip
        if answer.figure and answer.figure not in figures:
            wrong.append(f"{id_}: no figure {answer.figure!r}")
        for text in (answer.answer, answer.true_where, answer.not_where, answer.number,
                     answer.change):  # fmt: skip
            try:
                filled(text, statuses)
            except ValueError as error:
                wrong.append(f"{id_}: {error}")
    for claim in claims:
        if claim.source != OF_THE_PAPER:
            continue
        own = {clause.id for clause in claim.clauses}
        answer_ = answers.get(claim.id)
        if answer_ is None:
            wrong.append(f"{claim.id} has no answer")
        else:
            wrong += [f"{claim.id} leaves out {left}" for left in sorted(own - set(answer_.cited))]
    return wrong


def filled(text: str, statuses: Mapping[str, Status]) -> str:
    """The text with its numbers. ValueError: a number that singles out no cell."""

    def number(match: re.Match[str]) -> str:
        id_, where = match.groups()
        if id_ not in statuses:
            raise ValueError(f"{match.group()}: no such clause")
        if where is None:
            return str(statuses[id_].word)
        comparison = statuses[id_].clause.comparison
        if comparison is None:
            raise ValueError(f"{match.group()}: {id_} compares nothing")
        if where.strip() == "cells":
            return tally(statuses[id_].cells, comparison)
        found = [cell for cell in statuses[id_].cells if _fits(cell, where)]
        if len(found) != 1:
            raise ValueError(f"{match.group()} fits {len(found)} cells; needed is one")
        return cell_number(found[0], comparison)

    return _NUMBER.sub(number, text)


def _fits(cell: Cell, where: str) -> bool:
    wanted = dict(part.strip().split("=", 1) for part in where.split(";"))
    have = {"arm": cell.arm, "against": cell.against} | {k: f"{v:g}" for k, v in cell.at.items()}
    return all(have.get(key.strip()) == value.strip() for key, value in wanted.items())
