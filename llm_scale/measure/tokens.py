"""S1 at token level: the learned reward of a token against the link of its conditional ratio (T14).

At every prefix of the held-out expert responses all tokens are seen, so the expert's law ``p(.|s)``
and the policy's ``pi_t(.|s)`` are known exactly, and rewards are compared under their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab.stats import centred
from llm_scale.data.experts import NextTokens
from llm_scale.data.items import Item
from llm_scale.measure import telemetry
from llm_scale.measure.predicted import RewardTerms, where_near
from llm_scale.models import output
from llm_scale.models.player import Player
from llm_scale.rounds.opponent import over_positions
from theory import laws
from theory.errors import Unavailable
from theory.objectives.implicit import implicit_reward

FloatArray = NDArray[np.float64]
MOST_NUMBERS = 2**23
"""Of one table of whole laws, positions times tokens: 64 MiB."""
MOST_SOLVED, FEWEST_SOLVED = 2**16, 16
"""Numbers, and positions, of which one-step rounds are solved: up to 0.2 ms each."""


def measured(
    player: Player, start: Player, items: Sequence[Item], expert: Any, game: RewardTerms
) -> telemetry.Row:
    """Slope and correlation of ``beta log pi_{t+1}/pi_t`` on the predictions, centred per prefix.

    ``token_link_*`` against ``R(u_h)``; ``token_predicted_*`` against the prediction for the loss
    as it is trained (``token_prediction_reason``: why it is the same).

    Empty unless the expert's next-token laws are known (``laws_along``), the
    opponent is pi_t and there is no anchor. ``token_positions`` of the first responses are seen:
    all, or as many as `MOST_NUMBERS` allows.

    Args:
        player: plays pi_{t+1}. start: plays pi_t.
        items: held-out prompts with their expert response.
        expert: the known expert, or None.
        game: the objective and its weights.
    """
    known = isinstance(expert, NextTokens) and player.settings.opponent == "last"
    if not known or game.ablated or game.objective.missing("reward") or game.tau > 0:
        return {}
    pairs = [(item.prompt, item.expert[0].tokens) for item in items]
    most = MOST_NUMBERS // output.vocabulary(player.language.model)
    fitting = np.cumsum([len(y) for _, y in pairs]) <= most
    pairs = pairs[: max(1, int(fitting.sum()))]
    log_q, log_new = next_log_laws([start, player], pairs)
    p = np.exp(expert.laws_along(pairs))
    prefix = np.repeat(np.arange(len(pairs)), [len(y) for _, y in pairs])
    reward = implicit_reward(game.objective, log_new, log_q, game.beta)
    link, refined, why = predictions(p, np.exp(log_q), game)
    weight = 0.5 * (p + np.exp(log_q))
    out = regression("token_link", link, reward, weight, prefix)
    out |= {"token_positions": len(log_q)} if out else {}
    out |= {"token_prediction_reason": why} if why else {}
    return out | regression("token_predicted", refined, reward, weight, prefix)


def next_log_laws(players: Sequence[Player], pairs: Sequence[Any]) -> list[FloatArray]:
    """Log-laws (T, V) of the next token at all positions, float64, one table a player."""

    def read(laws_: list[Tensor], _: Tensor) -> Tensor:
        return torch.cat([law.double() for law in laws_], dim=-1)

    rows = [torch.zeros(len(y), 0) for _, y in pairs]
    table = torch.cat(over_positions(players, pairs, rows, read)).numpy()
    parts = np.split(table, len(players), axis=-1)
    return [part - np.logaddexp.reduce(part, axis=-1, keepdims=True) for part in parts]


def predictions(
    p: FloatArray, q: FloatArray, game: RewardTerms
) -> tuple[FloatArray, FloatArray, str]:
    """Rewards (T, V) of all tokens: ``R(u_h)``, and for the loss as it is trained, or why not.

    Every prefix has one expert token, so a group is 1 against K; a loss that sees the level of
    rewards moves each prefix's law in one step (T4). Prefixes where that has no near solution are
    NaN, and so are those beyond `MOST_SOLVED`.
    """
    link = game.objective.link_of(p, q)(laws.log_ratio(p, q))
    solved = len(p)
    if not game.objective.up_to_constant:  # a round is solved for every prefix
        solved = MOST_SOLVED // p.shape[-1]
        if solved < FEWEST_SOLVED:
            return link, link, f"one-step rounds of {p.shape[-1]} tokens take too long to solve"
    try:
        found = where_near(p[:solved], q[:solved], replace(game, expert_samples=1))
    except Unavailable as error:
        return link, link, str(error)
    if found is None:
        return link, link, ""
    refined = np.full_like(link, np.nan)
    refined[:solved] = found.reward
    return link, refined, ""


def regression(
    name: str, x: FloatArray, y: FloatArray, weight: FloatArray, cluster: NDArray[np.int64]
) -> telemetry.Row:
    """Weighted slope of y on x, both (T, V) and centred per row; its error is over clusters."""
    good = np.isfinite(x).all(-1)
    if not good.any():
        return {}
    x, y, weight, cluster = x[good], y[good], weight[good], cluster[good]
    share = weight / weight.sum(-1, keepdims=True)
    x, y = (centred(v, share) for v in (x, y))
    if not (np.any(x) and np.any(y)):
        return {}
    return telemetry.regression(name, x, y, weight=share, cluster=cluster[:, None])
