"""Random anchored games for property tests, and which objectives have which equilibrium."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, saddle_point
from theory.objectives import Objective, Pointwise
from theory.result import FloatArray, Solution

EVERY = [objectives.get(name) for name in objectives.names()]
VARIANTS = [
    objectives.get("spif", c=0.7, alpha=0.2),
    objectives.get("spif", c=2.0, alpha=0.8),
    objectives.get("space", mu=3.0),
    objectives.get("ipm", bound=0.3),
    objectives.get("iq_learn", c=0.4),
]
NO_SADDLE = {
    "sppo": "preferences.nash",
    "spin": "use equilibrium",
    "dpo": "use equilibrium",
    "spin_hinge": "use equilibrium",
    "spin_exponential": "use equilibrium",
    "ipo": "use equilibrium",
    "inpo": "use equilibrium",
    "tspin": "use equilibrium",
    "alpha_spin": "use equilibrium",
    "renyi": "a log of means",
}
NO_EQUILIBRIUM = {
    "sppo": "preferences.nash",
    "spin_hinge": "a staircase",
    "tspin": "reference-free",
    "alpha_spin": "depends on beta and on the base",
}
SADDLE = [obj for obj in EVERY if obj.name not in NO_SADDLE] + VARIANTS
EQUILIBRIUM = [obj for obj in EVERY if obj.name not in NO_EQUILIBRIUM] + VARIANTS
GAIN = [obj for obj in EQUILIBRIUM if obj.has_gain]
Solver = Callable[..., Solution]
CASES = [(saddle_point, obj) for obj in SADDLE] + [(equilibrium, obj) for obj in EQUILIBRIUM]


def case_label(value: object) -> str:
    return label(value) if isinstance(value, Objective) else getattr(value, "__name__", str(value))


COSTLY = settings(max_examples=max(3, settings().max_examples // 5))
every_case = pytest.mark.parametrize(("solve", "obj"), CASES, ids=case_label)


class Anchored(NamedTuple):
    """Expert and reference (prompts, n), the anchor's weight, a generator."""

    expert: FloatArray
    ref: FloatArray
    tau: float
    rng: np.random.Generator


@st.composite
def anchored(
    draw: st.DrawFn, max_n: int = 40, max_spread: float = 2.0, prompts: int = 3, tau: float = 0.02
) -> Anchored:
    shape = (draw(st.integers(1, prompts)), draw(st.integers(1, max_n)))
    spread = draw(st.floats(0.1, max_spread))
    weight = float(np.exp(draw(st.floats(np.log(tau), np.log(10.0)))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    expert, ref = (laws.random_law(rng, shape, spread) for _ in range(2))
    return Anchored(expert, ref, weight, rng)


class Typed(Pointwise):
    """A stranger's objective: payoffs alone, so its link is found by bisection."""

    name = "typed"

    def a(self, r):
        return r - 0.5 * r * r

    def b(self, r):
        return -r - 0.5 * r * r
