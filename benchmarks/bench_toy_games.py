"""A batch of self-play runs against the same runs one after the other, in the same process.

The peer is our own simulator with one row at a time: the ratio says what batching over seeds and
settings is worth, with the tables equal.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from benchmarks.timing import timed
from theory import laws, objectives
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax

OUTCOMES, STEPS = 12, 300


def run(full: bool) -> list[dict[str, Any]]:
    """One row for minibatches of 64, one for exact expectations."""
    seeds = 50 if full else 20
    return [_row("spif", Data(batch=64), seeds), _row("spin", Data(batch=None), seeds)]


def _row(name: str, data: Data, seeds: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    expert, start = (laws.random_law(rng, (OUTCOMES,), 1.0) for _ in range(2))
    rows = pd.DataFrame([{"seed": s, "beta": b} for s in range(seeds) for b in (0.5, 1, 2, 4)])

    def play(part: pd.DataFrame) -> pd.DataFrame:
        objective = objectives.get(name)
        simulation = SelfPlay(Softmax(OUTCOMES), objective, part, expert, np.log(start), data)
        return simulator.run(simulation, [0, STEPS], progress=False)

    ours_s, ours = timed(lambda: play(rows))
    alone = [rows.iloc[[i]] for i in range(len(rows))]
    peer_s, peer = timed(lambda: pd.concat([play(row) for row in alone]), 1)
    both = (table.sort_values(["step", "seed", "beta"]).kl.to_numpy() for table in (ours, peer))
    apart = float(np.abs(np.subtract(*both)).max())
    what = "exact expectations" if data.batch is None else f"batches of {data.batch}"
    return {
        "name": f"self-play SGD, {name}, {what}",
        "size": f"{len(rows)} runs, {STEPS} steps",
        "ours_s": ours_s,
        "peer": "one run at a time",
        "peer_s": peer_s,
        "aim": 20.0,
        "note": f"KL of all runs within {apart:.0e}",
    }
