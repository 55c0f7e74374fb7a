"""Which objectives an experiment can train: asked of its settings, before any work."""

from __future__ import annotations

import numpy as np

from lab.specs import objective_of, objective_problems
from theory import theory_card
from theory.objectives import Objective


def untrainable(objective: Objective, loss: bool = True) -> str | None:
    """Why an objective cannot be trained on an expert's responses; None if it can.

    Without ``loss`` exact rounds are enough.
    """
    if "preference" in objective.needs:
        return "it has no expert law: see the experiment 'preferences'"
    return objective.missing("risk") if loss else None


def trainable_problems(specs: tuple[str, ...], linked: bool = True, loss: bool = True) -> list[str]:
    """Objectives that are `untrainable`, or whose effective step ``R'(0)/beta`` is infinite.

    If they must be ``linked``, those without an effective step as well. Specifications that are
    wrong themselves are left to `objective_problems`.
    """
    out = []
    for spec in specs:
        if objective_problems((spec,)) or (objective := objective_of(spec)) is None:
            continue
        why, slope = untrainable(objective, loss), theory_card(objective).slope_at_zero
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        out += [f"objectives: {spec} cannot be trained here: {why}"] if why else []
    return out
