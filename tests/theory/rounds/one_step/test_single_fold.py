"""Which losses are convex, then concave: payoffs of known ``a'/s - a''`` and ``b'/s - b''``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from theory import objectives, xp
from theory.rounds.one_step_problem import OneStepProblem, concave, single_fold


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


def partly(r: Any) -> Any:
    """Defined above -1 alone."""
    return xp.sqrt(1.0 + r)


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
        (partly, wave(0.0), True),
    ],
)
def test_one_fold_or_more(a, b, single):
    assert single_fold(Payoffs(a, b), 1.0, 50.0) == single


def test_spif_and_the_first_authors_payoffs_fold_once():
    for name in ("spif", "spif(alpha=0.2)", "nwj", "space"):
        assert single_fold(objectives.get(name), 0.7, 50.0)


def test_forces_of_a_problem_by_differences():
    """Of outcomes that one side alone has, that both have, and that can have no mass."""
    obj = objectives.get("nwj")
    prior = np.log([[0.2, 0.3, 0.5, 1.0]]) + [[0.0, 0.0, 0.0, -np.inf]]
    p, q = np.array([[0.4, 0.0, 0.6, 0.0]]), np.array([[0.0, 0.7, 0.3, 0.0]])
    problem = OneStepProblem(obj, 0.8, p, q, prior, np.zeros_like(p))
    x, h = np.log([[0.1, 0.6, 0.3, 1.0]]), 1e-5
    first, second = problem.force(x)
    losses = [problem.losses(x + k * h / 0.8) for k in (-1, 0, 1)]
    np.testing.assert_allclose(first, (losses[2] - losses[0]) / (2 * h), atol=1e-8)
    np.testing.assert_allclose(
        second, (losses[2] - 2 * losses[1] + losses[0]) / h**2, rtol=1e-4, atol=1e-5
    )
    assert first[0, 3] == second[0, 3] == 0.0


def bends_up_far_out(r: Any) -> Any:
    """Concave above -1500."""
    return -r - (r + 1500.0) ** 3 / 1e6


def test_concave_payoffs_are_looked_at_far_out():
    assert concave(Payoffs(rising, wave(0.0)), 1.0, 50.0)
    assert not concave(Payoffs(rising, bends_up_far_out), 1.0, 50.0)
    assert not concave(Payoffs(lambda r: -bends_up_far_out(r), wave(0.0)), 0.0, 50.0)


def test_where_a_problem_starts():
    """The two-step round; nothing where there can be no mass."""
    prior, best = np.array([[-0.5, -1.0, -np.inf]]), np.array([[0.2, -0.4, 3.0]])
    problem = OneStepProblem(objectives.get("spif"), 0.8, best, best, prior, best)
    np.testing.assert_allclose(problem.start[0, :2], [-0.25, -1.5])
    assert problem.start[0, 2] == -np.inf
