"""Rounds whose rewards are off, in logarithms."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.theory.strategies import Instance
from theory import objectives
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history import OwnResponses
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

MIXED = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4).map(
    lambda old: [m / max(1.0, sum(old)) for m in old]
)
"""Shares of one to four earlier opponents."""
SPIN, SPIF, IPM = (objectives.get(name) for name in ("spin", "spif", "ipm"))


def played(
    obj: Objective,
    game: Instance,
    errors: FloatArray,
    beta: float,
    tau: float = 0.0,
    slope: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Log-laws (rounds + 1, ...) of rounds of rewards ``slope R(u) + e``, and ``R(u)`` of each."""
    path, _, rewards = against(obj, game, errors, beta, 0.0, tau, slope)
    return path, rewards


def against(
    obj: Objective,
    game: Instance,
    errors: FloatArray,
    beta: float,
    history: Any,
    tau: float = 0.0,
    slope: float = 1.0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """The same against earlier opponents, with the laws of own responses between the two."""
    log_p, log_ref, own = np.log(game.expert), np.log(game.ref), OwnResponses(history)
    path, mixed, rewards = [np.log(game.start)], [], []
    for error in errors:
        mixed.append(own.after(path[-1]))
        rewards.append(reward_of_log_laws(obj, log_p, mixed[-1]))
        path.append(gibbs_step(path[-1], slope * rewards[-1] + error, beta, log_ref, tau))
    return np.stack(path), np.exp(np.stack(mixed)), np.stack(rewards)


def kl_of_logs(law: FloatArray, log_path: FloatArray) -> FloatArray:
    """``KL(law||pi_t)``; also where a probability is below the least number."""
    return np.asarray((law * (np.log(law) - log_path)).sum(-1))


def centred(law: FloatArray, values: FloatArray) -> FloatArray:
    return np.asarray(values - (law * values).sum(-1, keepdims=True))
