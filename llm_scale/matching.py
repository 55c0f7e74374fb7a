"""Whether a response answers as its reference does: by text, by number, by a user's function."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from llm_scale.oracle_spec import needed_arguments, user_function
from theory.errors import InvalidInput

Match = Callable[[str, str, str], float]
"""(prompt, response, reference) to how well the response answers: 1 is right, 0 is wrong."""
NONE = "none"
_NUMBER = re.compile(
    r"(?:(?<![\w.)])[-\u2212])?"  # a sign stands after nothing that it could be subtracted from
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\w)\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+)?"
)


def problems(spec: str) -> list[str]:
    """What is wrong with a specification: none, exact, number or FILE.py:FUNCTION."""
    try:
        build(spec)
    except InvalidInput as error:
        return list(error.problems)
    return []


def build(spec: str) -> Match | None:
    """The comparison of a specification; None for "none". InvalidInput: it cannot be used."""
    built_in: dict[str, Match | None] = {NONE: None, "exact": exact, "number": number}
    if spec in built_in:
        return built_in[spec]
    path, _, name = spec.rpartition(":")
    if not path:
        raise InvalidInput(f"{spec!r}; needed is {', '.join(built_in)} or FILE.py:FUNCTION")
    function = user_function(path, name)
    if needed_arguments(function) != 3:
        raise InvalidInput(
            f"{spec} takes {needed_arguments(function) or 'any number of'} arguments without a "
            "default; needed are (prompt, response, reference)"
        )
    return _UserMatch(function, spec)


def probe(match: Match, texts: Sequence[tuple[str, str]]) -> None:
    """Try a comparison before work: the first reference as its own answer, and an empty answer.

    Args:
        texts: prompts with their references.

    Raises:
        InvalidInput: a user's function fails, or references without the number they are to give.
    """
    if match is number:
        lacking = [reference for _, reference in texts if last_number(reference) is None]
        if lacking:
            raise InvalidInput(
                f"match='number': {len(lacking)} of {len(texts)} references have no number, as "
                f"{lacking[0][:40]!r}"
            )
    for prompt, reference in texts[:1]:
        for response in (reference, ""):
            match(prompt, response, reference)


def exact(prompt: str, response: str, reference: str) -> float:
    """1 if the texts are equal, but for white space at both ends."""
    return float(response.strip() == reference.strip())


def number(prompt: str, response: str, reference: str) -> float:
    """1 if the last number of the response equals that of the reference."""
    found = last_number(response)
    return float(found is not None and found == last_number(reference))


def last_number(text: str) -> Decimal | None:
    """The last number in a text, None without one.

    Commas between groups of three digits belong to it, as do a decimal point followed by digits, an
    exponent, and a minus that follows no word, number or bracket ("10-3" ends with 3). One whose
    exponent is beyond what a decimal can hold is none: nothing is said of it but no match.
    """
    found = _NUMBER.findall(text)
    try:
        return Decimal(found[-1].replace(",", "").replace("\u2212", "-")) if found else None
    except InvalidOperation:  # an exponent of nineteen digits
        return None


class _UserMatch:
    """A user's function, whose failures are one line."""

    def __init__(self, function: Callable[..., Any], spec: str) -> None:
        self.function, self.spec = function, spec

    def __call__(self, prompt: str, response: str, reference: str) -> float:
        try:
            given = self.function(prompt, response, reference)
            value = float(given)
        except (Exception, SystemExit) as error:
            raise InvalidInput(
                f"match={self.spec!r} failed on the response {response[:40]!r}: "
                f"{type(error).__name__}: {error}"
            ) from error
        if isinstance(given, str) or not math.isfinite(value):
            raise InvalidInput(
                f"match={self.spec!r} gave {given!r}; needed is true, false or a finite number"
            )
        return value
