"""Preference games: the same rounds with winners and losers as expert and own laws (T11, T12).

A general preference ``P`` has ``P[i, j] = P(y_i > y_j)``, ``P + P^T = 1``; ``P(y > pi)`` is its
mean under ``y' ~ pi``. Pairs drawn from a policy have the winner law ``p_w = 2 pi P(y > pi)`` and
the loser law ``p_l = 2 pi (1 - P(y > pi))``, which take the places of expert and own law.
"""

from theory.preferences.games import (
    bradley_terry,
    check_preference,
    low_rank,
    random_preference,
    rock_paper_scissors,
    win_rate,
    winner_loser,
)
from theory.preferences.predictions import (
    anchored_beta,
    anchored_rate,
    average_gap_bound,
    cycle_speed,
    local_gain,
    local_growth,
    local_threshold,
    log_partition,
    nash_md_bound,
    payoff_scale,
)
from theory.preferences.rewards import preference_logit, reward
from theory.preferences.rounds import nash_md, self_play
from theory.preferences.solve import (
    duality_gap,
    exploitability,
    nash,
    regularised_gap,
    regularised_nash,
)

__all__ = [
    "anchored_beta",
    "anchored_rate",
    "average_gap_bound",
    "bradley_terry",
    "check_preference",
    "cycle_speed",
    "duality_gap",
    "exploitability",
    "local_gain",
    "local_growth",
    "local_threshold",
    "log_partition",
    "low_rank",
    "nash",
    "nash_md",
    "nash_md_bound",
    "payoff_scale",
    "preference_logit",
    "random_preference",
    "regularised_gap",
    "regularised_nash",
    "reward",
    "rock_paper_scissors",
    "self_play",
    "win_rate",
    "winner_loser",
]
