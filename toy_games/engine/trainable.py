"""Which objectives an experiment can play: asked of its settings, before any work.

An experiment refuses an objective that it can do nothing with; a study of it that one cannot take
part in is `left_out`: it says so before work and in the table.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.specs import objective_of, objective_problems
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


def trainable_problems(specs: tuple[str, ...], linked: bool = True, loss: bool = True) -> list[str]:
    """Objectives that are `untrainable`, or whose effective step ``R'(0)/beta`` is infinite.

    If they must be ``linked``, those without an effective step as well. Specifications that are
    wrong themselves are left to `objective_problems`.
    """
    out = []
    for spec in specs:
        if objective_problems((spec,)) or (objective := objective_of(spec)) is None:
            continue
        why = untrainable(objective) if loss else no_expert(objective)
        slope = theory_card(objective).slope_at_zero
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        out += [f"objectives: {spec} cannot be trained here: {why}"] if why else []
    return out
