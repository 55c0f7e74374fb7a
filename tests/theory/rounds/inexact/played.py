"""Rounds whose rewards are off, in logarithms."""

from __future__ import annotations

import numpy as np

from tests.theory.strategies import Instance
from theory import objectives
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

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
    log_p, log_ref = np.log(game.expert), np.log(game.ref)
    path, rewards = [np.log(game.start)], []
    for error in errors:
        rewards.append(reward_of_log_laws(obj, log_p, path[-1]))
        path.append(gibbs_step(path[-1], slope * rewards[-1] + error, beta, log_ref, tau))
    return np.stack(path), np.stack(rewards)


def kl_of_logs(law: FloatArray, log_path: FloatArray) -> FloatArray:
    """``KL(law||pi_t)``; also where a probability is below the least number."""
    return np.asarray((law * (np.log(law) - log_path)).sum(-1))


def centred(law: FloatArray, values: FloatArray) -> FloatArray:
    return np.asarray(values - (law * values).sum(-1, keepdims=True))
