"""Two tabular players on drawn games, kicked off their solution.

Games here have other sizes, steps and seeds than those of the figure.
"""

import numpy as np
import pandas as pd

from theory import equilibrium, laws, saddle_point
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import Softmax
from toy_games.engine.rewards import Table


def games(count, n, seed, spread=0.5):
    """Expert and anchor (count, 1, n), and two directions (count, n)."""
    rng = np.random.default_rng(seed)
    p, ref = (laws.random_law(rng, (count, 1, n), spread) for _ in range(2))
    return p, ref, rng.standard_normal((2, count, n))


def solution(obj, p, ref, tau, pay):
    solve = saddle_point if pay == "saddle" and obj.has_saddle else equilibrium
    return solve(p, ref, obj, tau)


PLAIN = Rules()


def tabular(obj, p, ref, kick, tau=0.0, rules=PLAIN, step=0.5, size=1e-2, seeds=None, **rows):
    """Tabular players kicked by size times the directions off the solution of theory."""
    found = solution(obj, p, ref, tau, rules.pay)
    n, count = p.shape[-1], len(p)
    frame = pd.DataFrame({"seed": range(count) if seeds is None else seeds})
    frame = frame.assign(**{"tau": tau, "step_policy": step, "step_reward": step, **rows})
    start = np.log(found.policy[:, 0]) + size * kick[0], found.reward[:, 0] + size * kick[1]
    target = found.policy, found.reward
    return Players(Softmax(n), Table(n), obj, frame, p, start, rules, np.log(ref), target)
