"""Rounds at one effective step, on experts and directions of held-out seeds."""

import numpy as np
import pandas as pd

from lab.specs import objective_of
from theory import laws
from toy_games.dynamics.sampled_rounds import SampledRounds
from toy_games.engine import simulator
from toy_games.engine.trainable import beta_at

LINKS = ("spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential", "nwj", "gail")


def game(seeds, outcomes, spread=0.7, first=100):
    """Experts and directions of seeds that no figure uses."""
    rng = np.random.default_rng(first)
    return laws.random_law(rng, (seeds, outcomes), spread), rng.standard_normal((seeds, outcomes))


def play(name, step, rounds, p, start, record=None, **given):
    """Rounds of one objective, a row a law, all at one effective step."""
    obj = objective_of(name)
    rows = pd.DataFrame({"seed": np.arange(len(p)) + 50})
    rows["beta"] = beta_at(obj, np.full(len(p), step))
    for column in ("label_noise",):
        if column in given:
            rows[column] = given.pop(column)
    run = SampledRounds(obj, rows, p, start, **given)
    return simulator.run(run, [rounds] if record is None else record, progress=False)


def mean_and_error(table, value="kl"):
    """Mean over seeds of the mean over rounds, and its standard error."""
    each = table.groupby("seed")[value].mean()
    return each.mean(), each.std() / np.sqrt(len(each))
