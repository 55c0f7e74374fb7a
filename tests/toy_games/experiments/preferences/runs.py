"""Games of drawn preferences, rows of runs on them, and walks that record nothing."""

import numpy as np
import pandas as pd
import torch
from hypothesis import settings
from hypothesis import strategies as st

from theory import laws
from toy_games.dynamics.preference_rounds import games

SEED = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=5)
ONE_GAIN = ("sppo", "spif(c=0.7)", "ipo(margin=1.3)", "inpo", "centred_spif(c=2)")


def instance(seed, count, n, kind="random", strength=0.9):
    rng = [np.random.default_rng((seed, i)) for i in range(count)]
    P = games(kind, n, rng, strength)
    return P, np.stack([laws.random_law(g, (P.shape[-1],), 0.6) for g in rng])


def rows_of(count, **columns):
    return pd.DataFrame({"seed": range(count)}).assign(**columns)


def walk(run, steps):
    state = run.start()
    with torch.no_grad():
        for t in range(steps):
            state = run.advance(state, t)
    return state


def standard_error(values):
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))
