"""A small experiment for the tests of the machinery: two objectives and SFT, one batch each."""

import dataclasses

import numpy as np
import pandas as pd

from lab.settings import BaseSettings, option
from lab.specs import objective_of, spec_problems
from lab.sweep import Cell
from theory import laws
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax

SUMMARY = "Self-play on one random expert."


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    objectives: tuple[str, ...] = option(("spin", "spif"), "objectives", check=spec_problems)
    seeds: int = option(3, "number of seeds", ge=1)
    steps: int = option(40, "gradient steps", ge=1)
    rate: float = option(0.3, "learning rate, SFT units", ge=0)


def cells(settings):
    common = {"seeds": settings.seeds, "steps": settings.steps, "rate": settings.rate}
    names = (*settings.objectives, "sft")
    return [Cell(name, one, {"spec": name, **common}) for name in names]


def one(spec, seeds, steps, rate, checkpoint=None, progress=True):
    run = batch(spec, range(seeds), rate)
    table = simulator.run(run, range(0, steps + 1, 10), checkpoint, progress)
    table.insert(0, "objective", spec)
    return table


def batch(spec, seeds, rate=0.3, **settings):
    """A simulation of the given seeds, at beta 1 and 2 each."""
    rng = np.random.default_rng(7)
    p, q = laws.random_law(rng, (6,), 1.0), laws.random_law(rng, (6,), 1.0)
    rows = [{"seed": s, "beta": b, "rate": rate, **settings} for s in seeds for b in (1.0, 2.0)]
    rows = pd.DataFrame(rows).assign(steps_per_round=15)
    data = Data(batch=8, expert_samples=20, own_samples=10, group=4)
    return SelfPlay(Softmax(6), objective_of(spec), rows, p, np.log(q), data)
