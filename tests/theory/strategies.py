"""Random games for property tests; sizes and spreads shrink, the draw itself is by seed."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from theory import laws, objectives
from theory.checks.game import Instance
from theory.objectives import Objective

__all__ = ["Instance", "games", "label", "with_fixed_link"]


@st.composite
def games(draw: st.DrawFn, max_n: int = 12, max_spread: float = 3.0) -> Instance:
    """Laws of 2..max_n outcomes for 1..3 prompts, logits of standard deviation up to max_spread."""
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, max_n)))
    spread = draw(st.floats(0.1, max_spread))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    expert, start, ref = (laws.random_law(rng, shape, spread) for _ in range(3))
    return Instance(expert, start, ref, rng)


def with_fixed_link() -> list[Objective]:
    """Objectives to which T5 and T6 apply: a link of u alone, a potential, the opponent pi_t."""
    every = [objectives.get(name) for name in objectives.names()]
    every += [objectives.get("spif", c=0.7, alpha=a) for a in (0.2, 0.8)]
    every += [objectives.get("space", mu=3.0), objectives.get("renyi", order=0.3)]
    return [obj for obj in every if obj.has_link and obj.missing("potential") is None]


def label(obj: Objective) -> str:
    """Readable test id."""
    return obj.label.replace(" ", "")
