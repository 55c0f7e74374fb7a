"""Two sizes of a figure, the usual and the large one (FULL=1), for its runs and its caption alike.

A figure whose caption names numbers that differ has a literal SIZES: name -> (usual, large). It
takes them by `sized(SIZES)`, and its CAPTION says {name}, or {name:word} for a number in words.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

FULL = os.environ.get("FULL", "") not in ("", "0")
"""Whether the large versions were asked for."""

WORDS = {5: "five", 10: "ten", 20: "twenty"}

_PLACE = re.compile(r"\{([A-Za-z_]\w*)(:word)?\}")


def sized(sizes: Mapping[str, tuple[Any, Any]], full: bool = FULL) -> dict[str, Any]:
    """The values of one size."""
    return {name: values[full] for name, values in sizes.items()}


def filled(caption: str, sizes: Mapping[str, tuple[Any, Any]], full: bool = FULL) -> str:
    """A caption with its numbers; {Name:word} begins a sentence.

    Raises:
        ValueError: a name that SIZES does not have, a number that WORDS does not have.
    """
    values = sized(sizes, full)

    def value(found: re.Match[str]) -> str:
        name, word = found.group(1), found.group(2)
        key = name.lower()
        if key not in values:
            raise ValueError(f"CAPTION has {{{name}}}, SIZES has {', '.join(values) or 'nothing'}")
        number = values[key]
        if not word:
            return f"{number:,}" if isinstance(number, int) and number >= 10_000 else str(number)
        if number not in WORDS:
            raise ValueError(f"CAPTION says {number} in words: add it to figures/sizes.py")
        return WORDS[number].capitalize() if name[0].isupper() else WORDS[number]

    return _PLACE.sub(value, caption)
