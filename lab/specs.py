"""What is trained, written as text: an objective's specification (`objectives.get`), or "sft"."""

from __future__ import annotations

import re

from theory import objectives
from theory.errors import InvalidInput
from theory.objectives import Objective

SFT = "sft"
_FILE = re.compile(r"([^:]*\.py)(\(.*\))?")
"""A file without the name of what it registers, perhaps with parameters."""


def objective_of(spec: str) -> Objective | None:
    """The objective of a specification; None for "sft". InvalidInput: see `objectives.get`."""
    if alone := _FILE.fullmatch(spec):
        file = alone[1]
        found = ", ".join(objectives.load_file(file))
        raise InvalidInput(f"{file} registers {found}; say {file}:NAME")
    return None if spec == SFT else objectives.get(spec)


def named(spec: str) -> str:
    """A file of definitions that registers one objective as ``FILE.py:NAME``; all else as it is."""
    alone = _FILE.fullmatch(spec)
    try:
        found = objectives.load_file(alone[1]) if alone else []
    except InvalidInput:  # whoever checks the specification says so
        return spec
    return f"{alone[1]}:{found[0]}{alone[2] or ''}" if alone and len(found) == 1 else spec


def spec_problems(spec: str) -> list[str]:
    """What is wrong with a specification: the check of a setting."""
    try:
        objective_of(spec)
    except InvalidInput as error:
        return error.problems
    return []
