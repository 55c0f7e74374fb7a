"""Which objectives an experiment can train: asked of its settings, before any work."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lab.specs import SFT, objective_of, spec_problems
from theory import theory_card
from theory.objectives import Objective


def untrainable(objective: Objective, loss: bool = True) -> str | None:
    """Why an objective cannot be trained on an expert's responses; None if it can.

    Without ``loss`` exact rounds are enough.
    """
    if "preference" in objective.needs:
        return "it has no expert law: see the experiment 'preferences'"
    return objective.missing("risk") if loss else None


def trainable(linked: bool = True, loss: bool = True) -> Callable[[str], list[str]]:
    """Check of a specification: wrong, `untrainable`, or of infinite effective step ``R'(0)/beta``.

    If it must be ``linked``, one without an effective step as well.
    """

    def check(spec: str) -> list[str]:
        if problems := named_problems(spec):
            return problems
        objective = objective_of(spec)
        assert objective is not None
        why, slope = untrainable(objective, loss), theory_card(objective).slope_at_zero
        if why is None and (np.isinf(slope) or (linked and np.isnan(slope))):
            why = "no reward link with a slope at 0, hence no effective step"
        return [f"{spec} cannot be trained here: {why}"] if why else []

    return check


def named_problems(spec: str) -> list[str]:
    """Check of a specification where SFT is no choice, as it always runs."""
    if spec == SFT:
        return [f"{SFT!r} always runs beside the others; leave it out"]
    return spec_problems(spec)
