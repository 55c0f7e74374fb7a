"""Sampled rounds on one data set a seed, their data, and starts at a distance."""

import numpy as np
import pandas as pd

from theory import laws, objectives
from toy_games.dynamics.sampled_rounds import SampledRounds
from toy_games.engine import simulator
from toy_games.engine.trainable import beta_at

EXPERT = np.array([0.15, 0.2, 0.2, 0.2, 0.25])


def play(name, step, p, start, record, seeds, n=1000, value="kl", history=0.0, **given):
    """``value`` (record, seeds) of sampled rounds, a data set a seed, from ``start`` (..., N).

    ``history``: a share of the last opponent, or what `SampledRounds` takes for all rows.
    """
    obj = None if name == "sft" else objectives.get(name)
    rows = pd.DataFrame({"seed": np.arange(seeds) + 300, "beta": float(beta_at(obj, step))})
    if isinstance(history, float):
        rows["history"] = history
    else:
        given = given | {"history": history}
    wide = [np.array(np.broadcast_to(law, (seeds, len(p)))) for law in (p, start)]
    run = SampledRounds(obj, rows, *wide, **({"samples": n, "fixed_data": True} | given))
    table = simulator.run(run, record, progress=False)
    return table.pivot(index="step", columns="seed", values=value).to_numpy()


def data_of(p, seeds, n):
    """Frequencies (seeds, N) of the data sets that `play` has, by the engine's own counts."""
    rows = pd.DataFrame({"seed": np.arange(seeds) + 300, "beta": 1.0})
    wide = np.repeat(p[None], seeds, 0)
    run = SampledRounds(None, rows, wide, np.log(wide), samples=n, fixed_data=True)
    return run.counts("expert", run.expert, 0).numpy() / n


def start_at(p, share):
    """A log-law (N,) at about KL(p||pi) = share, along a fixed direction; and that KL."""
    v = np.array([1.0, -1.0, 0.5, -0.5, 0.3])
    v -= p @ v
    q = p * np.exp(v * np.sqrt(2.0 * share / (p @ v**2)))
    return np.log(q / q.sum()), float(laws.kl(p, q / q.sum()))
