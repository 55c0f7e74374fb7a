"""The objective's own loss on a batch of prompts; the same function object as in theory/."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from llm_scale.samples import Item, pack, unpack
from theory.objectives import Objective


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

    def subset(self, chosen: Sequence[int]) -> Round:
        """The round of some items."""
        each = len(self.items[0].responses) if self.items else 0
        rows = (torch.tensor(list(chosen))[:, None] * each + torch.arange(each)).flatten()
        anchor = self.anchor[rows] if len(self.anchor) else self.anchor
        items = [self.items[i] for i in chosen]
        return Round(items, self.current[rows], self.opponent[rows], anchor)

    def tensors(self) -> dict[str, Tensor]:
        """As plain tensors, for a checkpoint."""
        known = {"current": self.current, "opponent": self.opponent, "anchor": self.anchor}
        return pack("items", self.items) | known

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Round:
        """Inverse of `tensors`."""
        sides = (tensors[name] for name in ("current", "opponent", "anchor"))
        return cls(unpack("items", tensors), *sides)

    def to(self, device: torch.device) -> Round:
        """The numbers on a device."""
        moved = {n: getattr(self, n).to(device) for n in ("current", "opponent", "anchor")}
        return replace(self, **moved)


def self_play_loss(
    objective: Objective, data: Round, log_probs: Tensor, beta: float, tau: float
) -> Tensor:
    """Loss per prompt (n,) from ``log pi_theta`` of all responses (flat, as in `Round`)."""
    new, opponent, anchor = (_sides(t, data.items) for t in (log_probs, data.opponent, data.anchor))
    free = objective.reference_free
    ratio = new if free else [a - b for a, b in zip(new, opponent, strict=True)]
    extras: dict[str, Any] = {}
    if not free and (tau > 0 or "anchor" in objective.needs):
        extras = {
            "tau": tau,
            "expert_anchor": new[0] - anchor[0],
            "policy_anchor": new[1] - anchor[1],
        }
    if "history" in objective.needs:
        extras["history_logratio"] = ratio[2]
    if "preference" in objective.needs:
        known = torch.tensor([item.preference for item in data.items], dtype=log_probs.dtype)
        sides = known.to(log_probs.device).split([new[0].shape[1], new[1].shape[1]], dim=1)
        extras |= dict(zip(("expert_preference", "policy_preference"), sides, strict=True))
    return torch.as_tensor(objective.risk(ratio[0], ratio[1], beta, **extras))


def sft_loss(data: Round, log_probs: Tensor) -> Tensor:
    """``-log pi(y|x)`` per prompt (n,): a sum over tokens, a mean over expert responses."""
    return -_sides(log_probs, data.items)[0].mean(-1)


def _sides(flat: Tensor, items: Sequence[Item]) -> list[Tensor]:
    """(n, G), (n, K) and (n, history) of a flat tensor; empty stays empty."""
    first = items[0]
    sizes = [len(first.expert), len(first.own), len(first.history)]
    if not len(flat):
        return [flat.reshape(0, 0)] * 3
    return list(flat.reshape(len(items), sum(sizes)).split(sizes, dim=1))
