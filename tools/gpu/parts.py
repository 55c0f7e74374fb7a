"""Parts one after the other, each within its time; one that fails does not stop the others."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tools.gpu.clock import OutOfTime, limit
from tools.gpu.record import Record

LAST_LINES = 3


@dataclass(frozen=True)
class Part:
    """Something to measure.

    Attributes:
        until: share of the whole time at which it must be over; what one leaves the next has.
        least: seconds without which it is not begun.
        work: measures and writes rows; it is told when it must end (`time.monotonic`).
    """

    name: str
    until: float
    least: float
    work: Callable[[float], None]


def run_parts(parts: Sequence[Part], record: Record, seconds: float) -> None:
    """All parts that fit into the seconds; rows say why others were skipped, cut, or failed."""
    began = time.monotonic()
    for part in parts:
        deadline = began + part.until * seconds
        left = deadline - time.monotonic()
        if left < part.least:
            why = f"{max(left, 0.0):.1f} s of the time are left, needed are {part.least:g} s"
            record.write(part.name, part.name, skipped=why)
        else:
            record.say(f"{part.name}: begins, {left:.0f} s for it")
            _run(part, record, deadline)
        record.summarise()


def _run(part: Part, record: Record, deadline: float) -> None:
    seconds = deadline - time.monotonic()
    try:
        with limit(seconds):
            part.work(deadline)
    except OutOfTime:
        record.write(part.name, part.name, cut=f"its {seconds:.1f} s were over")
    except Exception as error:  # whatever it is, the others go on
        where = " <- ".join(
            f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})"
            for frame in reversed(traceback.extract_tb(error.__traceback__)[-LAST_LINES:])
        )
        first = " ".join(str(error).split())[:300]
        record.write(part.name, part.name, error=f"{type(error).__name__}: {first} [{where}]")
