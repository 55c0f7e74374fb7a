"""Which objectives an experiment can play: asked of its settings, before any work.

An experiment refuses an objective that it can do nothing with; a study of it that one cannot take
part in is `left_out`: it says so before work and in the table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lab.specs import SFT, objective_of, spec_problems
from lab.sweep import Cell
from theory.check import check_objective
from theory.errors import Unavailable
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
    return no_expert(objective) or objective.missing("reward")


def no_expert(objective: Objective) -> str | None:
    """Why it has no expert law to train on; None if it has."""
    if "preference" in objective.needs:
        return "it has no expert law: see the experiment 'preferences'"
    return None


@cache
def slope_of(objective: Objective) -> float:
    """``R'(0)``; NaN where the reward has none, inf at a jump."""
    try:
        return objective.slope_at_zero
    except Unavailable:
        return np.nan


def beta_at(objective: Objective | None, effective_step: ArrayLike) -> Any:
    """``beta`` at which a round's effective step ``R'(0)/beta`` is the given one.

    1 for SFT, which has none; SPIN's, ``1/step``, for losses whose reward has no slope at 0.
    """
    step = np.asarray(effective_step, dtype=np.float64)
    slope = step if objective is None else slope_of(objective)
    return (slope if np.isfinite(slope).all() else 1.0) / step


def starts_as_sft(objective: Objective | None) -> bool:
    """T15's premise: the first gradient of every round is SFT's, times a positive number."""
    return objective is None or (
        not objective.needs & {"anchor", "history", "preference"}
        and not objective.reference_free
        and objective.opponent_factor == 1.0
        and untrainable(objective) is None
        and -np.inf < objective.gradient_at_start[0] < 0
    )


def grouped(objective: Objective | None) -> bool:
    """Whether its loss reads whole groups of responses: it has a risk, and none of a pair."""
    return objective is not None and not objective.has_loss and not objective.missing("risk")


def of_pairs(objective: Objective | None) -> bool:
    """Whether its loss reads the reward's difference over each pair of responses."""
    return objective is not None and objective.has_loss and objective.up_to_constant


def bends(objective: Objective | None) -> bool:
    """Whether its loss is curved at reward 0, so that a round has one smooth minimum (SFT: yes).

    A hinge is not: its minimisers are many, and full-batch steps hop over its kinks.
    """
    if objective is None or untrainable(objective):
        return objective is None

    def risk(r: Tensor) -> Tensor:
        extras = {"r_history": r[4:]} if "history" in objective.needs else {}
        return torch.as_tensor(objective.reward_risk(r[:2], r[2:4], **extras))

    with torch.enable_grad():
        at = torch.zeros(6, dtype=torch.float64)
        return bool(torch.autograd.functional.hessian(risk, at).diagonal().sum() > 0)


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
        why, slope = untrainable(objective) if loss else no_expert(objective), slope_of(objective)
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        return [f"{spec} cannot be trained here: {why}"] if why else []

    return check


def named_problems(spec: str) -> list[str]:
    """Check of a specification where SFT is no choice, as it always runs.

    The formulas of one's own file are checked against each other before anything runs on them.
    """
    if spec == SFT:
        return [f"{SFT!r} always runs beside the others; leave it out"]
    if (problems := spec_problems(spec)) or ":" not in spec:
        return problems
    return [f"{spec}: {problem}" for problem in check_objective(spec).problems]
