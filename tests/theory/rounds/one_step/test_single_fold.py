"""Which losses are convex, then concave: payoffs of known ``a'/s - a''`` and ``b'/s - b''``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from theory import objectives, xp
from theory.rounds.one_step_problem import single_fold


@dataclass(frozen=True)
class Payoffs:
    a: Callable[[Any], Any]
    b: Callable[[Any], Any]


def rising(r: Any) -> Any:
    return 1.0 * r


def wave(height: float) -> Callable[[Any], Any]:
    """b with ``b' - b'' = -r - height sin 2r``: one sign, and slopes of both beyond .5."""

    def b(r: Any) -> Any:
        turn = xp.sin(2.0 * r) - 0.5 * xp.cos(2.0 * r)
        return -0.5 * r * r - r - 0.2 * height * turn

    return b


def turns_far_out(r: Any) -> Any:
    """``a' - a'' = .999 + r/1000``: negative below -999."""
    return r + r * r / 2000.0


@pytest.mark.parametrize(
    ("a", "b", "single"),
    [
        (rising, wave(0.0), True),
        (rising, wave(0.4), True),
        (rising, wave(0.9), False),
        (turns_far_out, wave(0.0), False),
    ],
)
def test_one_fold_or_more(a, b, single):
    assert single_fold(Payoffs(a, b), 1.0, 50.0) == single


def test_spif_and_the_first_authors_payoffs_fold_once():
    for name in ("spif", "spif(alpha=0.2)", "nwj", "space"):
        assert single_fold(objectives.get(name), 0.7, 50.0)
