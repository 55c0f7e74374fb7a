"""Preference mode: own responses compared by an oracle, or given pairs (T11, T12, S6).

The K own responses of a prompt are compared, each two of them once and none with itself. The
winner of a comparison takes the expert's place and the loser that of the own response, as one
dependent pair; the number of wins of a response estimates ``P(y > pi_t)`` for objectives that ask.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lab import streams
from llm_scale import processes
from llm_scale.data.items import Item
from llm_scale.data.oracles import Oracle
from llm_scale.rounds.sequence import Round
from theory.objectives import Objective

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class PreferenceRound(Round):
    """A round without an expert: every response is an own one.

    Attributes:
        wins: (n, K, K) ``wins[i, j]`` is 1 where response i won against j (drawn), or the oracle's
            ``P(y_i > y_j)`` (exact); 0 on the diagonal, and ``wins[i, j] + wins[j, i] = 1`` off it.
    """

    wins: Tensor

    def subset(self, chosen: Sequence[int]) -> Round:
        part = super().subset(chosen)
        return dataclasses.replace(part, wins=self.wins[list(chosen)])  # type: ignore[call-arg]

    def tensors(self) -> dict[str, Tensor]:
        return super().tensors() | {"wins": self.wins}

    def to(self, device: torch.device) -> Round:
        moved = super().to(device)
        return dataclasses.replace(moved, wins=self.wins.to(device))  # type: ignore[call-arg]

    def risk(self, objective: Objective, reward: Tensor) -> Tensor:
        """Mean loss (n,) over the comparisons of a prompt, winner and loser aligned.

        An objective without a loss of pairs sees all winners and all losers of a prompt at once,
        each as often as it was one.
        """
        count = len(self.items[0].own)
        r, wins = reward.reshape(-1, count), self.wins.to(reward.dtype)
        share = wins.sum(-1) / (count - 1)
        asked = "preference" in objective.needs

        def extras(winner: Tensor, loser: Tensor) -> dict[str, Tensor]:
            return {"expert_preference": winner, "policy_preference": loser} if asked else {}

        if not objective.has_loss:
            found = objective.reward_risk(r, r, wins.sum(-1), wins.sum(-2), **extras(share, share))
            return torch.as_tensor(found)
        shares = extras(share[:, :, None], share[:, None, :])
        each = objective.reward_loss(r[:, :, None], r[:, None, :], **shares)
        return (wins * each).sum((-2, -1)) / (count * (count - 1) / 2)

    def likelihood_loss(self, log_probs: Tensor) -> Tensor:
        """``-log pi(y|x)`` (n,), mean over winners: what the first gradient follows (T15)."""
        count = len(self.items[0].own)
        new = log_probs.reshape(-1, count)
        return -(self.wins.to(new.dtype).sum(-1) * new).sum(-1) / (count * (count - 1) / 2)


@dataclass(frozen=True)
class GivenPairs(Round):
    """A round of a winner, in the expert's place, and a loser, in the own one's, to each prompt.

    Attributes:
        share: flat as ``current``: ``P(y > pi_t)`` as the one comparison estimates it, 1 of a
            winner and 0 of a loser.
    """

    share: Tensor

    def _known(self) -> dict[str, Tensor]:
        return super()._known() | {"share": self.share}

    def risk(self, objective: Objective, reward: Tensor) -> Tensor:
        """Loss (n,) of each comparison: of the pair, or of winner and loser each."""
        winner, loser, _ = self._sides(reward)
        extras: dict[str, Tensor] = {}
        if "preference" in objective.needs:
            won, lost, _ = self._sides(self.share.to(reward.dtype))
            extras = {"expert_preference": won, "policy_preference": lost}
        if objective.has_loss:
            return objective.reward_loss(winner, loser, **extras).mean(-1)
        return torch.as_tensor(objective.reward_risk(winner, loser, **extras))


def given_pairs(data: Round) -> GivenPairs:
    """A round of given pairs from one of an expert and an own response each."""
    known = {name: getattr(data, name) for name in ("current", "opponent", "anchor")}
    share = torch.tensor([1.0, 0.0]).repeat(len(data.items))
    return GivenPairs(data.items, **known, share=share)


def judged(
    data: Round, oracle: Oracle, items: Sequence[Item], round_: int, seed: int, exact: bool
) -> PreferenceRound:
    """Compare each two own responses of every prompt.

    Args:
        data: a round of own responses. items: the same prompts with their references.
        oracle: the preference.
        round_, seed: key of the comparisons' noise.
        exact: keep probabilities instead of drawing who wins.
    """
    found = compare(oracle, items, [[r.tokens for r in item.own] for item in data.items])
    count = found.shape[-1]
    if exact:
        wins = found * (1.0 - np.eye(count))
    else:
        first, second = np.triu_indices(count, 1)
        wins = np.zeros_like(found)
        for i, item in enumerate(items):
            luck = streams.uniform(len(first), seed, "comparison", round_, item.id)
            won = luck < found[i, first, second]
            wins[i, first, second], wins[i, second, first] = won, ~won
    known = {name: getattr(data, name) for name in ("current", "opponent", "anchor")}
    return PreferenceRound(data.items, **known, wins=torch.from_numpy(wins))


def compare(oracle: Oracle, items: Sequence[Item], responses: Sequence[Any]) -> FloatArray:
    """``P`` (n, k, k) of k responses to every prompt; several processes share the work."""
    jobs = processes.mine(list(zip(items, responses, strict=True)))
    return np.stack(processes.together([oracle.compare(item, given) for item, given in jobs]))
