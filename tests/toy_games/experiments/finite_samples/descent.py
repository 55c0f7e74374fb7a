"""One round of gradient descent on samples, and the held-out seeds."""

import numpy as np
import pandas as pd

from theory import objectives
from toy_games.dynamics.flow import Flow
from toy_games.engine import simulator
from toy_games.experiments import finite_samples as finite

SEEDS = range(500, 508)
OWN = {"first_seed": SEEDS[0], "seeds": len(SEEDS)}


def one_round(name, p, q, data, own, beta, rate):
    """A round on one prompt's samples; numbers or arrays of rows."""
    rows = pd.DataFrame({"seed": 0, "beta": np.atleast_1d(beta), "rate": rate})
    q, data, own = (np.asarray(law)[None, None] for law in (q, data, own))
    return finite.on_both(objectives.get(name), rows, p, q, data, own)


def last_of(run, time, per_decade=25):
    """The flow's table at its end."""
    flow = Flow(run, time, per_decade)
    return simulator.run(flow, [flow.steps], progress=False)
