"""The law that own responses are drawn from and that log-ratios divide by."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from llm_scale import processes
from llm_scale.models.player import Player
from llm_scale.models.sample import Combine
from llm_scale.models.score import Pair, over_laws
from llm_scale.models.weights import Weights
from theory.objectives import Objective

TWO = float(np.log(2.0))


def opponent_kind(player: Player, objective: Objective | None) -> str:
    """The setting's opponent, or "geometric" where the objective has one of its own."""
    geometric = objective is not None and objective.writes("opponent")
    return "geometric" if geometric else player.settings.opponent


def join(objective: Objective) -> Combine:
    """The objective's opponent as a rule for next-token laws: geometric, renormalised per token."""
    return lambda laws: objective.opponent(laws[0], laws[1], laws[1])


def needs_base(player: Player, objective: Objective | None) -> bool:
    """Whether pi_0's log-probabilities are read: an anchor, or an opponent made of pi_0."""
    anchored = objective is not None and "anchor" in objective.needs
    made_of = opponent_kind(player, objective) in ("base", "geometric")
    return anchored or made_of or player.settings.tau > 0


def references(
    player: Player,
    pairs: Sequence[Pair],
    current: Tensor,
    objective: Objective | None,
    previous: Weights,
    base: Weights,
) -> tuple[Tensor, Tensor]:
    """The opponent's log-law of responses and pi_0's (empty where nothing needs it).

    Args:
        player: plays pi_t; ``current`` is its log-law of the pairs.
        objective: decides the opponent and whether pi_0 is needed; None is SFT.
        previous: weights of pi_{t-1} (opponent "mixture"). base: weights of pi_0.
    """
    kind = opponent_kind(player, objective)
    anchor, opponent = torch.empty(0), current
    if needs_base(player, objective):
        with player.frozen(base) as other:
            anchor = other.score(pairs)
            if kind == "geometric":
                assert objective is not None
                own = [torch.tensor(response)[:, None] for _, response in pairs]
                parts = joined((player, other), pairs, own, join(objective))
                opponent = torch.stack([part.sum() for part in parts])
    if kind == "base":
        opponent = anchor
    elif kind == "mixture":
        with player.frozen(previous) as other:
            opponent = torch.logaddexp(current, other.score(pairs)) - TWO
    return opponent, anchor


def joined(
    players: Sequence[Player], pairs: Sequence[Pair], tokens: Sequence[Tensor], combine: Combine
) -> list[Tensor]:
    """Log-probabilities of tokens (length, k) at every position of every pair, under the law that
    the players' next-token laws are joined to."""
    return over_positions(
        players, pairs, tokens, lambda laws, chosen: combine(laws).gather(-1, chosen)
    )


def over_positions(
    players: Sequence[Player], pairs: Sequence[Pair], rows: Sequence[Tensor], read: Any
) -> list[Tensor]:
    """`over_laws` of these players at the run's precision, the work shared between processes."""
    share = processes.mine(range(len(pairs)))
    first = players[0]
    with first.machine.precision():
        part = over_laws(
            [player.scorer for player in players],
            [pairs[i] for i in share],
            [rows[i] for i in share],
            first.settings.tokens_per_batch,
            read,
        )
    return processes.together(part)
