"""The clock of all benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def timed(call: Callable[[], Any], repeat: int = 3) -> tuple[float, Any]:
    """Seconds of the fastest of `repeat` calls, and what the last one returned."""
    best, result = float("inf"), None
    for _ in range(repeat):
        start = time.perf_counter()
        result = call()
        best = min(best, time.perf_counter() - start)
    return best, result
