"""Random preference games for property tests, and which objectives a statement is about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from theory import laws, objectives, preferences
from theory.errors import Unavailable
from theory.objectives import Objective
from theory.result import FloatArray

SPIF = objectives.get("spif")
# The reward of a certain win, written down here apart from the code that computes it.
SCALES = {
    objectives.get("spif"): 1.0,
    objectives.get("spif", c=0.4): 2.5,
    objectives.get("centred_spif", c=2.0): 0.5,
    objectives.get("sppo"): 0.5,
    objectives.get("ipo", margin=0.7): 0.7,
    objectives.get("inpo"): 0.5,
}
SCALED = list(SCALES.items())
EVERY = [
    *(objectives.get(name) for name in objectives.names()),
    objectives.get("spif", c=0.7, alpha=0.2),
    objectives.get("space", mu=3.0),
    objectives.get("renyi", order=0.3),
    *(obj for obj in SCALES if obj != objectives.get(obj.name)),
]
NO_REWARD = {"spin_hinge", "tspin"}
REWARDED = [obj for obj in EVERY if obj.name not in NO_REWARD]
KINKED = {"ipm"}
SMOOTH = [obj for obj in REWARDED if obj.name not in KINKED]


class PreferenceGame(NamedTuple):
    """Preference (prompts, n, n), start and reference (prompts, n), a generator for more."""

    P: FloatArray
    start: FloatArray
    ref: FloatArray
    rng: np.random.Generator


@st.composite
def preference_games(draw: st.DrawFn, min_n: int = 2, max_n: int = 7) -> PreferenceGame:
    """General, cyclic (low rank) and Bradley-Terry preferences without certain wins."""
    kind = draw(st.sampled_from(["general", "low rank", "scores"]))
    prompts, n = draw(st.integers(1, 2)), draw(st.integers(min_n, max_n))
    spread = draw(st.floats(0.1, 2.0))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if kind == "general":
        P = preferences.random_preference(rng, n, (prompts,), strength=min(0.98, spread))
    elif kind == "low rank":
        P = preferences.low_rank(rng, n, 2, (prompts,), spread)
    else:
        P = preferences.bradley_terry(spread * rng.standard_normal((prompts, n)))
    start, ref = (laws.random_law(rng, (prompts, n), spread) for _ in range(2))
    return PreferenceGame(P, start, ref, rng)


def interior_game(rng: np.random.Generator, n: int, spread: float) -> tuple[FloatArray, FloatArray]:
    """A preference with an interior Nash equilibrium ``z``: ``(2P - 1) z = 0``."""
    z = laws.random_law(rng, (n,), spread)
    root = np.sqrt(z)
    flat = np.eye(n) - np.outer(root, root)
    raw = rng.standard_normal((n, n))
    skew = flat @ (raw - raw.T) @ flat / np.outer(root, root)
    skew = 0.5 * (skew - skew.T)
    return 0.5 + 0.5 * rng.uniform(0.3, 1.0) * skew / np.abs(skew).max(), z


@st.composite
def interior_games(draw: st.DrawFn, max_n: int = 6) -> tuple[FloatArray, FloatArray]:
    """Preference and its interior equilibrium; n >= 3, as two outcomes have no cycle."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return interior_game(rng, draw(st.integers(3, max_n)), draw(st.floats(0.1, 1.0)))


def has_scale(obj: Objective) -> bool:
    """Whether the code says that the reward is a multiple of 2P - 1."""
    try:
        preferences.payoff_scale(obj)
    except Unavailable:
        return False
    return True
