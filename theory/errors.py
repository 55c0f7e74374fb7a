"""The three ways in which a call can fail, each with a sentence for the person who made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class InvalidInput(ValueError):
    """The caller's input cannot be used; the message lists every problem found, not the first.

    A problem is one line, also where it quotes an array or an error that has several.
    """

    def __init__(self, problems: str | Iterable[str]) -> None:
        every = [problems] if isinstance(problems, str) else problems
        self.problems = [in_one_line(problem) for problem in every]
        super().__init__("; ".join(self.problems))


class Unavailable(InvalidInput):
    """The objective has no such part (link, loss, saddle form, potential); the message says why."""


class NotConverged(RuntimeError):
    """A solver stopped before its tolerance; ``solution`` holds what it had."""

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution


def in_one_line(text: str) -> str:
    """The text with a space wherever lines end in it."""
    lines = text.splitlines()
    return " ".join(filter(None, map(str.strip, lines))) if len(lines) > 1 else text


def gist(error: Exception) -> str:
    """What a library says first: a line, or where that is a heading what follows as well."""
    lines = str(error).strip().splitlines()
    return in_one_line("\n".join(lines[: 4 if lines and lines[0].rstrip().endswith(":") else 1]))


def refuse(problems: Iterable[str | None], most: int | None = None) -> None:
    """Raise one :class:`InvalidInput` if any problem was found; it names at most so many."""
    found = [p for p in problems if p]
    if most is not None and len(found) > most:
        found[most:] = [f"and {len(found) - most} more like these"]
    if found:
        raise InvalidInput(found)
