"""Rewards per token in the conditional form (T14): at every prefix of an expert response, the
expert's token against own tokens drawn from ``pi_t(.|s)`` there.

Both come from one hidden state, so a step reads expert texts only. Losses are summed along a
response. (Token losses along *own* responses as well would estimate occupancy ratios: another
algorithm.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from lab import streams
from llm_scale import processes
from llm_scale.data.items import Item
from llm_scale.models.player import Player
from llm_scale.models.sample import Combine, inverted
from llm_scale.models.score import Pair, buckets, collate
from llm_scale.models.weights import Weights
from llm_scale.rounds.opponent import (
    join,
    joined,
    needs_base,
    opponent_kind,
    over_positions,
)
from llm_scale.rounds.sequence import Round
from theory.objectives import Objective


@dataclass(frozen=True)
class TokenRound(Round):
    """A round whose items have expert responses only, with own tokens at their T positions.

    ``current``, ``opponent`` and ``anchor`` are (T, 1 + K): the expert's token, then the own ones.

    Attributes:
        own: (T, K) own tokens.
    """

    own: Tensor

    @cached_property
    def _positions(self) -> list[int]:
        """Number of positions of every item."""
        return [sum(len(r.tokens) for r in item.expert) for item in self.items]

    def subset(self, chosen: Sequence[int]) -> Round:
        ends = np.cumsum([0, *self._positions])
        rows = torch.cat([torch.arange(ends[i], ends[i + 1]) for i in chosen])
        known = {n: t[rows] if len(t) else t for n, t in self._known().items()}
        return dataclasses.replace(self, items=[self.items[i] for i in chosen], **known)

    def _known(self) -> dict[str, Tensor]:
        return super()._known() | {"own": self.own}

    def log_probs(self, scorer: nn.Module) -> Tensor:
        device = next(scorer.parameters()).device
        ids, mask, where, targets = collate(self.pairs, device)
        flat: Tensor = scorer(ids, mask, where, torch.cat([targets, self.own.to(device)], dim=1))
        return flat

    def rescored(self, player: Player) -> Tensor:
        return candidate_scores(player, self.pairs, _split(self.own, self.pairs))

    def risk(self, objective: Objective, reward: Tensor) -> Tensor:
        """Loss per prompt (n,): summed along each expert response, a mean over them."""
        return self._per_item(torch.as_tensor(objective.reward_risk(reward[:, :1], reward[:, 1:])))

    def held_at_zero(self, reward: Tensor, terms: str) -> Tensor:
        """As of whole responses; the expert's token is the first of a position."""
        is_expert = torch.arange(reward.shape[1], device=reward.device) == 0
        stays = is_expert if terms == "expert" else ~is_expert
        return reward if terms == "both" else torch.where(stays, reward, 0.0)

    def likelihood_loss(self, log_probs: Tensor) -> Tensor:
        return self._per_item(-log_probs[:, 0])

    def _per_item(self, flat: Tensor) -> Tensor:
        count = torch.tensor(self._positions, device=flat.device)
        index = torch.repeat_interleave(torch.arange(len(count), device=flat.device), count)
        total = torch.zeros(len(count), device=flat.device, dtype=flat.dtype)
        return total.index_add(0, index, flat) / len(self.items[0].expert)


def begin(
    player: Player,
    items: Sequence[Item],
    round_: int,
    objective: Objective | None,
    base: Weights,
) -> tuple[TokenRound, Tensor, Tensor]:
    """Draw own tokens at every position of the expert responses and score all tokens once.

    Args:
        player: plays pi_t.
        items: prompts with their expert responses.
        round_: number of the round, part of the key of the noise.
        objective: decides the opponent and whether pi_0 is needed.
        base: weights of pi_0.

    Returns:
        The round, and log-probabilities (T K,) of the own tokens, as the sampler saw them and as
        they are stored.
    """
    kind = opponent_kind(player, objective)
    pairs = [(item.prompt, r.tokens) for item in items for r in item.expert]
    keys = [(item.id, g) for item in items for g in range(len(item.expert))]
    luck = [_luck(player, len(r), round_, key) for (_, r), key in zip(pairs, keys, strict=True)]
    anchor: Tensor | None = None
    if not needs_base(player, objective):
        own, seen = draw([player], pairs, luck)
        opponent = current = candidate_scores(player, pairs, own)
    else:
        with player.frozen(base) as other:
            players, combine = {"base": [other]}.get(kind, [player]), None
            if kind == "geometric":
                assert objective is not None
                players, combine = [player, other], join(objective)
            own, seen = draw(players, pairs, luck, combine)
            opponent = current = candidate_scores(player, pairs, own)
            anchor = candidate_scores(other, pairs, own)
            if kind == "base":
                opponent = anchor
            elif combine is not None:
                opponent = torch.cat(joined(players, pairs, _beside(pairs, own), combine))
    plain = [dataclasses.replace(item, own=(), history=()) for item in items]
    past = torch.empty(0) if anchor is None else anchor
    data = TokenRound(plain, current, opponent, past, own=torch.cat(own))
    return data, seen.flatten(), opponent[:, 1:].flatten()


def draw(
    players: Sequence[Player],
    pairs: Sequence[Pair],
    luck: Sequence[Tensor],
    combine: Combine | None = None,
) -> tuple[list[Tensor], Tensor]:
    """Own tokens at all positions of responses, by inversion with one uniform number a token.

    Args:
        players: one, or several whose next-token laws ``combine`` joins.
        pairs: prompts and responses. luck: (length, K) uniform numbers of each response.

    Returns:
        (length, K) tokens of each response, and all their log-probabilities (T, K) in float64.
    """

    def read(laws: list[Tensor], numbers: Tensor) -> Tensor:
        law = laws[0] if combine is None else combine(laws)
        tokens = inverted(law, numbers)
        return torch.cat([tokens.double(), law.gather(-1, tokens).double()], dim=1)

    drawn = [t.chunk(2, dim=1) for t in over_positions(players, pairs, luck, read)]
    return [tokens.long() for tokens, _ in drawn], torch.cat([seen for _, seen in drawn])


def candidate_scores(player: Player, pairs: Sequence[Pair], candidates: Sequence[Tensor]) -> Tensor:
    """``log pi(a|s)`` (T, 1 + K) of the response's own token and of the candidates (length, K) at
    every position, float32 on the CPU: the forward pass of training."""
    share = processes.mine(range(len(pairs)))
    found: dict[int, Tensor] = {}
    device = player.machine.device
    lengths = [len(pairs[i][0]) + len(pairs[i][1]) for i in share]
    with torch.no_grad(), player.machine.precision():
        for batch in buckets(lengths, player.settings.tokens_per_batch):
            chosen = [share[j] for j in batch]
            ids, mask, where, targets = collate([pairs[i] for i in chosen], device)
            extra = torch.cat([candidates[i] for i in chosen]).to(device)
            flat = player.scorer(ids, mask, where, torch.cat([targets, extra], dim=1)).cpu()
            found |= dict(zip(chosen, _split(flat, [pairs[i] for i in chosen]), strict=True))
    return torch.cat(processes.together([found[i] for i in share]))


def _beside(pairs: Sequence[Pair], own: Sequence[Tensor]) -> list[Tensor]:
    """The response's own token and the candidates (length, 1 + K) of every pair."""
    return [
        torch.cat([torch.tensor(r)[:, None], o], dim=1)
        for (_, r), o in zip(pairs, own, strict=True)
    ]


def _luck(player: Player, length: int, round_: int, key: tuple[int, int]) -> Tensor:
    s = player.settings
    each = [
        streams.uniform(length, s.seed, "own token", round_, *key, k) for k in range(s.own_samples)
    ]
    return torch.from_numpy(np.stack(each, axis=1))


def _split(flat: Tensor, pairs: Sequence[Pair]) -> list[Tensor]:
    """Rows of all positions, response by response."""
    return list(flat.split([len(r) for _, r in pairs]))
