"""The three ways in which a call can fail, each with a sentence for the person who made it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


class InvalidInput(ValueError):
    """The caller's input cannot be used; the message lists every problem found, not the first."""

    def __init__(self, problems: str | Iterable[str]) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        super().__init__("; ".join(self.problems))


class Unavailable(InvalidInput):
    """The objective has no such part (link, loss, saddle form, potential); the message says why."""


class NotConverged(RuntimeError):
    """A solver stopped before its tolerance; ``solution`` holds what it had."""

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution


def refuse(problems: Iterable[str | None], most: int | None = None) -> None:
    """Raise one :class:`InvalidInput` if any problem was found; it names at most so many."""
    found = [p for p in problems if p]
    if most is not None and len(found) > most:
        found[most:] = [f"and {len(found) - most} more like these"]
    if found:
        raise InvalidInput(found)
