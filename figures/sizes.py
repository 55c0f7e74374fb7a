"""Two sizes of every figure: the usual one, and with FULL=1 the large one."""

from __future__ import annotations

import os
from typing import TypeVar

Value = TypeVar("Value")

FULL = os.environ.get("FULL", "") not in ("", "0")
"""Whether the large versions were asked for."""


def sized(usual: Value, large: Value) -> Value:
    """The value of the size that was asked for."""
    return large if FULL else usual
