"""A round's data, and the objective's own risk of rewards on it: the function of theory/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from llm_scale.data.items import Item, pack, unpack
from llm_scale.models.player import Player
from llm_scale.models.score import Pair, sequence_log_probs
from theory.objectives import Objective

KNOWN = ("current", "opponent", "anchor")


@dataclass(frozen=True)
class Round:
    """A round's data: items, and what was computed once at its start.

    Flat tensors over all responses in the order of `Item.responses`, float32 on the CPU, in nats:

    Attributes:
        items: prompts with their responses; every item has as many of each side as the others.
        current: ``log pi_t``.
        opponent: the log-law that log-ratios divide by (that of pi_t unless said).
        anchor: ``log pi_0``; empty if no anchor, base or history is used.
    """

    items: list[Item]
    current: Tensor
    opponent: Tensor
    anchor: Tensor

    @classmethod
    def plain(cls, items: Sequence[Item]) -> Round:
        """Items for maximum likelihood, which reads no stored log-probability."""
        return cls(list(items), *(torch.zeros(sum(len(i.responses) for i in items)),) * 3)

    @property
    def log_anchor(self) -> Tensor | None:
        """``log pi_0``, or None where nothing reads it."""
        return self.anchor if len(self.anchor) else None

    @property
    def pairs(self) -> list[Pair]:
        """(prompt, response) of all responses."""
        return [(item.prompt, r.tokens) for item in self.items for r in item.responses]

    def subset(self, chosen: Sequence[int]) -> Round:
        """The round of some items."""
        each = len(self.items[0].responses) if self.items else 0
        rows = (torch.tensor(list(chosen))[:, None] * each + torch.arange(each)).flatten()
        known = {n: t[rows] if len(t) else t for n, t in self._known().items()}
        return replace(self, items=[self.items[i] for i in chosen], **known)

    def tensors(self) -> dict[str, Tensor]:
        """As plain tensors, for a checkpoint; the inverse is `llm_scale.rounds.begin.restore`."""
        return pack("items", self.items) | self._known()

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Round:
        """Inverse of `tensors` for this class."""
        rest = {k: v for k, v in tensors.items() if not k.startswith("items.")}
        return cls(unpack("items", tensors), **rest)

    def to(self, device: torch.device) -> Round:
        """The numbers on a device."""
        return replace(self, **{n: t.to(device) for n, t in self._known().items()})

    def _known(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in KNOWN}

    # -- what a model says of it ----------------------------------------------------------------

    def log_probs(self, scorer: nn.Module) -> Tensor:
        """``log pi_theta`` as ``current``, on the model's device; differentiable."""
        return sequence_log_probs(scorer, self.pairs)

    def smoothed(self, scorer: nn.Module, smoothing: float) -> Tensor:
        """As `log_probs`, with this share of every token's the mean over the vocabulary."""
        return sequence_log_probs(scorer, self.pairs, smoothing)

    def rescored(self, player: Player) -> Tensor:
        """``current`` computed again, in other batches."""
        return player.score(self.pairs)

    def risk(self, objective: Objective, reward: Tensor) -> Tensor:
        """The objective's loss per prompt (n,) of rewards in nats, as ``current``."""
        expert, own, history = self._sides(reward)
        extras = {"r_history": history} if "history" in objective.needs else {}
        return torch.as_tensor(objective.reward_risk(expert, own, **extras))

    def by_length(self, reward: Tensor) -> Tensor:
        """Rewards divided by their response's number of tokens."""
        lengths = [len(r.tokens) for item in self.items for r in item.responses]
        return reward / torch.tensor(lengths, dtype=reward.dtype, device=reward.device)

    def held_at_zero(self, reward: Tensor, terms: str) -> Tensor:
        """Rewards with those of the side that is not among ``terms`` at 0: its term of a pointwise
        loss is then the constant that it is at the round's start."""
        if terms == "both":
            return reward
        first = self.items[0]
        sizes = torch.tensor([len(first.expert), len(first.own), len(first.history)])
        stays = torch.tensor([terms == "expert", terms == "own", True]).repeat_interleave(sizes)
        return torch.where(
            stays.to(reward.device), reward.reshape(len(self.items), -1), 0.0
        ).flatten()

    def likelihood_loss(self, log_probs: Tensor) -> Tensor:
        """``-log pi(y|x)`` per prompt (n,): a sum over tokens, a mean over expert responses."""
        return -self._sides(log_probs)[0].mean(-1)

    def _sides(self, flat: Tensor) -> list[Tensor]:
        """(n, G), (n, K) and (n, history) of a flat tensor; empty stays empty."""
        first = self.items[0]
        sizes = [len(first.expert), len(first.own), len(first.history)]
        if not len(flat):
            return [flat.reshape(0, 0)] * 3
        return list(flat.reshape(len(self.items), sum(sizes)).split(sizes, dim=1))
