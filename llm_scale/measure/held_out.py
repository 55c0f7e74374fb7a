"""Held-out prompts: what is drawn and scored on them before and after a round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lab import streams
from llm_scale import models
from llm_scale.data.experts import Expert, known
from llm_scale.data.items import Item, Response, pack, unpack
from llm_scale.measure import telemetry
from llm_scale.models.player import Player
from llm_scale.models.score import Pair
from llm_scale.models.weights import Weights

References = Callable[[Sequence[Pair], Tensor], tuple[Tensor, Tensor]]
"""Pairs and their log pi_t to the opponent's and the anchor's log-laws (empty without anchor)."""


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts with an expert, an own and (as history) a random response, scored by pi_t.

    ``before``, ``opponent``, ``anchor`` (3 n,): log-laws of all expert, then all own, then all
    random responses; ``anchor`` may be empty.
    """

    items: list[Item]
    before: Tensor
    opponent: Tensor
    anchor: Tensor

    @classmethod
    def none(cls) -> HeldOut:
        """Nothing is held out."""
        return cls([], *(torch.empty(0),) * 3)

    @classmethod
    def draw(
        cls,
        player: Player,
        items: Sequence[Item],
        own: Sequence[Response],
        references: References | None = None,
    ) -> HeldOut:
        """Score expert and own responses and random tokens, which are like neither side."""
        full = [
            replace(i, expert=i.expert[:1], own=(r,), history=(random_response(player, i.id),))
            for i, r in zip(items, own, strict=True)
        ]
        pairs = held_pairs(full)
        before = player.score(pairs)
        opponent, anchor = (before, torch.empty(0))
        if references is not None:
            opponent, anchor = references(pairs, before)
        return cls(full, before, opponent, anchor)

    def tensors(self) -> dict[str, Tensor]:
        """As plain tensors, for a checkpoint."""
        return pack("items", self.items) | {
            name: getattr(self, name).clone() for name in ("before", "opponent", "anchor")
        }

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> HeldOut:
        """Inverse of `tensors`."""
        sides = (tensors[name] for name in ("before", "opponent", "anchor"))
        return cls(unpack("items", tensors), *sides)

    def measured(self, player: Player, expert: Expert | None) -> telemetry.Measured:
        """Log-probabilities before and after the round, and the expert's where known."""
        pairs = held_pairs(self.items)
        same = torch.equal(self.opponent, self.before)
        return telemetry.Measured(
            prompt=telemetry.prompt_numbers([p for p, _ in pairs]),
            side=np.array(["expert", "own", "other"]).repeat(len(self.items)),
            before=self.before.double().numpy(),
            after=player.score(pairs).double().numpy(),
            expert=known(expert, pairs),
            opponent=None if same else self.opponent.double().numpy(),
            anchor=self.anchor.double().numpy() if len(self.anchor) else None,
        )


def own_responses(
    player: Player, items: Sequence[Item], round_: int, key: str = "held out"
) -> list[Response]:
    """Responses of the player to held-out prompts as it enters a round: a function of both.

    ``key``: of the noise.
    """
    s = player.settings

    def number(i: int) -> np.ndarray:
        return streams.uniform(s.max_new_tokens, s.seed, key, round_, items[i].id)

    return player.sample([item.prompt for item in items], number, "held-out responses")[0]


def with_own(items: Sequence[Item], own: Sequence[Response]) -> list[Item]:
    """Held-out items with these responses as their own side."""
    return [replace(i, own=(r,), history=()) for i, r in zip(items, own, strict=True)]


def fresh(
    player: Player,
    before: Tensor,
    items: list[Item],
    expert: Expert | None,
    anchor: telemetry.Anchored | None = None,
) -> telemetry.Fresh:
    """Responses of pi_{t+1} with their log-probabilities; ``before`` (n,) is their log pi_t."""
    pairs = own_pairs(items)
    after = player.score(pairs).double().numpy()
    return telemetry.Fresh(items, before.double().numpy(), after, known(expert, pairs), anchor)


def anchored(
    player: Player, base: Weights, items: list[Item], expert: Expert | None, round_: int
) -> telemetry.Anchored:
    """Score the responses of pi_{t+1} by pi_0, and new responses of pi_0 by pi_{t+1}."""
    with player.frozen(base) as start:
        own = start.score(own_pairs(items))
        pairs = own_pairs(with_own(items, own_responses(start, items, round_, "anchor")))
    after = player.score(pairs)
    return telemetry.Anchored(own.double().numpy(), after.double().numpy(), known(expert, pairs))


def sft_distance(player: Player, folder: Path, held: HeldOut, items: list[Item]) -> telemetry.Row:
    """S7: how far pi_{t+1} is from the final model of an SFT run, on the same responses.

    ``sft_distance_*``: mean ``|log pi - log pi_sft|`` on expert and own responses;
    ``kl_to_sft``: KL(pi||pi_sft) on fresh responses of pi; ``kl_gap_to_sft``: the difference of
    their KL from the expert, ``E_p[log pi_sft - log pi]``, also where the expert is not known.
    """
    language = models.load(folder / "final", torch.float32, player.machine.device)
    sft = Player(language, player.settings, player.machine)
    n = len(held.items)
    pairs = [*held_pairs(held.items)[: 2 * n], *own_pairs(items)]
    apart = (player.score(pairs) - sft.score(pairs)).double().numpy()
    out = telemetry.mean("sft_distance_expert", np.abs(apart[:n]))
    out |= telemetry.mean("sft_distance_own", np.abs(apart[n : 2 * n]))
    out |= telemetry.mean("kl_gap_to_sft", -apart[:n])
    return out | telemetry.mean("kl_to_sft", apart[2 * n :])


def held_pairs(items: Sequence[Item]) -> list[Pair]:
    """(prompt, response) of all expert, then all own, then all random responses."""
    sides = [[item.responses[side] for item in items] for side in range(3)]
    return [(i.prompt, r.tokens) for side in sides for i, r in zip(items, side, strict=True)]


def own_pairs(items: Sequence[Item]) -> list[Pair]:
    """(prompt, first own response) of every item."""
    return [(item.prompt, item.own[0].tokens) for item in items]


def random_response(player: Player, ident: int) -> Response:
    """Tokens drawn uniformly, of random length with EOS: like neither expert nor model."""
    s, language = player.settings, player.language
    rng = streams.generator(s.seed, "other", ident)
    length = int(rng.integers(1, s.max_new_tokens + 1))
    words = np.setdiff1d(np.arange(len(language.tokenizer)), language.ends)
    drawn = words[rng.integers(len(words), size=length - 1)]
    return Response((*map(int, drawn), language.eos), False)
