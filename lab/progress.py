"""How far a long call is: a bar in a terminal, a line every few seconds in a log."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm

EVERY_SECONDS = 5.0
LINE = "{desc}{n_fmt} of {total_fmt} {unit}s in {elapsed}, {remaining} left{postfix}"


class _Lines:
    """Where tqdm writes if no terminal is there: its lines one below the other."""

    def write(self, text: str) -> int:
        text = text.strip("\r\n \x1b[A")
        return sys.stderr.write(text + "\n") if text else 0

    def flush(self) -> None:
        sys.stderr.flush()


def progress(
    over: Iterable[Any] | None = None,
    total: int | None = None,
    unit: str = "part",
    show: bool = True,
    start: int = 0,
    what: str = "",
) -> Any:
    """A `tqdm` bar on standard error, or lines: only of calls that take longer than a moment.

    What its ``set_postfix_str(text, refresh=False)`` is told stands at the end of the bar or line.

    Args:
        over: what is gone through; None: call ``update`` and ``close`` (or use ``with``).
        total: how many there are. unit: what one is called. show: False shows nothing.
        start: how many were done before. what: words before the numbers.
    """
    how: dict[str, Any] = {"delay": 3.0, "leave": False}
    if not sys.stderr.isatty():
        how |= {"file": _Lines(), "bar_format": LINE, "miniters": 1}
        how |= dict.fromkeys(("delay", "mininterval", "maxinterval"), EVERY_SECONDS)
    what = f"{what}: " if what else ""
    return tqdm(over, what, total, unit=unit, initial=start, disable=not show, **how)
