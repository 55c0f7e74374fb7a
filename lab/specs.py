"""What is trained, written as text: an objective and its parameters, or "sft"."""

from __future__ import annotations

from theory import objectives
from theory.errors import InvalidInput
from theory.objectives import Objective

SFT = "sft"


def objective_of(spec: str) -> Objective | None:
    """The objective of ``"spif"``, ``"spif(c=0.5)"`` or ``"file.py:name(k=0.3)"``; None for "sft".

    Raises:
        InvalidInput: unknown name, parameter or file.
    """
    path, colon, rest = spec.rpartition(":")
    if colon and not path:
        raise InvalidInput(f"{spec!r}: no file before the colon; needed is NAME or FILE.py:NAME")
    if path:
        found = objectives.load_file(path)
        if rest.partition("(")[0] not in found:
            raise InvalidInput(f"{spec}: {path} registers {', '.join(found)}")
    name, bracket, inner = rest.partition("(")
    if name == SFT and not bracket:
        return None
    if bracket and not inner.endswith(")"):
        raise InvalidInput(f"{spec!r}: needed is NAME, NAME(parameter=value) or FILE.py:NAME")
    parameters = {}
    for part in filter(None, (p.strip() for p in inner.removesuffix(")").split(","))):
        key, _, value = part.partition("=")
        if key.strip() in parameters:
            raise InvalidInput(f"{spec!r}: {key.strip()} is there twice")
        try:
            parameters[key.strip()] = float(value)
        except ValueError:
            raise InvalidInput(f"{spec!r}: {part!r}; needed is parameter=number") from None
    return objectives.get(name, **parameters)


def spec_problems(spec: str) -> list[str]:
    """What is wrong with a specification: the check of a setting."""
    try:
        objective_of(spec)
    except InvalidInput as error:
        return error.problems
    return []
