"""Which objectives an experiment can play: asked of its settings, before any work.

An experiment refuses an objective that it can do nothing with; a study of it that one cannot take
part in is `left_out`: it says so before work and in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from lab.specs import SFT, objective_of, spec_problems
from lab.sweep import Cell
from theory import theory_card
from theory.objectives import Objective


def untrainable(objective: Objective | None) -> str | None:
    """Why gradient steps on an expert's responses are not possible; None if they are (SFT: yes)."""
    if objective is None:
        return None
    return no_expert(objective) or objective.missing("risk")


def no_best_response(objective: Objective | None) -> str | None:
    """Why rounds of exact best responses to an expert are not possible; None if they are."""
    if objective is None:
        return None
    return no_expert(objective) or objective.missing("link")


def no_expert(objective: Objective) -> str | None:
    """Why it has no expert law to train on; None if it has."""
    if "preference" in objective.needs:
        return "it has no expert law: see the experiment 'preferences'"
    return None


def left_out(study: str, spec: str, why: str) -> Cell:
    """The part that stands for a study an objective cannot take part in: a line of the table."""
    row = {"left_out": study, "objective": spec, "why": why}
    return Cell(f"{study}-{spec} left out", said, row, resumes=False)


def said(left_out: str, objective: str, why: str) -> dict[str, list[str]]:
    """The line of the table."""
    return {"left_out": [left_out], "objective": [objective], "why": [why]}


def notes(cells: Sequence[Cell]) -> list[str]:
    """One line for every part that is left out, to be said before work."""
    every = [cell.arguments for cell in cells if cell.call is said]
    return [f"{e['left_out']} is without {e['objective']}: {e['why']}" for e in every]


def trainable(linked: bool = True, loss: bool = True) -> Callable[[str], list[str]]:
    """Check of a specification: wrong, `untrainable`, or of infinite effective step ``R'(0)/beta``.

    If it must be ``linked``, one without an effective step as well.
    """

    def check(spec: str) -> list[str]:
        if problems := named_problems(spec):
            return problems
        objective = objective_of(spec)
        assert objective is not None
        why = untrainable(objective) if loss else no_expert(objective)
        slope = theory_card(objective).slope_at_zero
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        return [f"{spec} cannot be trained here: {why}"] if why else []

    return check


def named_problems(spec: str) -> list[str]:
    """Check of a specification where SFT is no choice, as it always runs."""
    if spec == SFT:
        return [f"{SFT!r} always runs beside the others; leave it out"]
    return spec_problems(spec)
