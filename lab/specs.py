"""What is trained, written as text: an objective's specification (`objectives.get`), or "sft"."""

from __future__ import annotations

from theory import objectives
from theory.errors import InvalidInput
from theory.objectives import Objective

SFT = "sft"


def objective_of(spec: str) -> Objective | None:
    """The objective of a specification; None for "sft". InvalidInput: see `objectives.get`."""
    return None if spec == SFT else objectives.get(spec)


def spec_problems(spec: str) -> list[str]:
    """What is wrong with a specification: the check of a setting."""
    try:
        objective_of(spec)
    except InvalidInput as error:
        return error.problems
    return []
