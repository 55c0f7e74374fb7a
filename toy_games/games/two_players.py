"""Random games for two explicit players, and their equilibria."""

from __future__ import annotations

import numpy as np
import pandas as pd

from lab.specs import objective_of
from lab.streams import Streams
from theory import equilibrium, laws, saddle_point
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import Softmax
from toy_games.engine.rewards import Table


def instance(seeds: int, outcomes: int, spread: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Expert and reference laws (seeds, 1, n), and a direction (seeds, 2, n) to be kicked in."""
    streams = Streams(range(seeds))
    drawn = [
        (laws.random_law(rng, (2, outcomes), spread), rng.standard_normal((2, outcomes)))
        for rng in (streams.generator(i, "game") for i in range(seeds))
    ]
    both = np.stack([law for law, _ in drawn])
    return both[:, :1], both[:, 1:], np.stack([kick for _, kick in drawn])


def solved(
    expert: FloatArray, ref: FloatArray, obj: Objective, tau: float, pay: str
) -> tuple[FloatArray, FloatArray]:
    """Policy and reward (seeds, 1, n) where the players should end (T10)."""
    point = (saddle_point if pay == "saddle" else equilibrium)(expert, ref, obj, tau)
    assert point.reward is not None
    return point.policy, point.reward


def tabular(
    spec: str,
    rows: pd.DataFrame,
    rules: Rules,
    tau: float,
    kick: float | FloatArray,
    size: tuple[int, int, float],
) -> tuple[Players, Players]:
    """Tabular players kicked off their equilibrium, and the same at rest there.

    Rows are seeds within whatever else; ``size`` is that of `instance`.
    """
    obj = objective_of(spec)
    assert obj is not None
    expert, ref, direction = (x[rows["seed"]] for x in instance(*size))
    law, reward = solved(expert, ref, obj, tau, rules.pay)
    n = law.shape[-1]
    starts = [
        (np.log(law[:, 0]) + k * direction[:, 0], reward[:, 0] + k * direction[:, 1])
        for k in (kick, 0.0)
    ]
    rows = rows.assign(tau=tau)
    common = {"rules": rules, "ref": np.log(ref), "target": (law, reward)}
    moving, resting = (
        Players(Softmax(n), Table(n), obj, rows, expert, start, **common) for start in starts
    )
    return moving, resting
