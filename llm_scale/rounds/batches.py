"""Which items a step takes, and in which forward passes: functions of the seed and the step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab import streams
from llm_scale import processes
from llm_scale.models.score import buckets
from llm_scale.rounds.sequence import Round


def order(seed: int, round_: int, step: int, batch: int, items: int) -> list[int]:
    """Items of a step: consecutive slices of one permutation an epoch, a function of the step."""
    chosen: list[int] = []
    for at in range(step * batch, (step + 1) * batch):
        epoch, within = divmod(at, items)
        chosen.append(int(_permutation(seed, round_, epoch, items)[within]))
    return chosen


def _permutation(seed: int, round_: int, epoch: int, items: int) -> np.ndarray:
    return streams.generator(seed, "order", round_ + 2, epoch).permutation(items)


def passes(data: Round, chosen: Sequence[int], tokens: int) -> tuple[list[list[int]], int]:
    """This process's items of a step in forward passes, and the most that any process has."""
    each = [micro_batches(data, share, tokens) for share in processes.shares(chosen)]
    return each[processes.rank()], max(map(len, each))


def micro_batches(data: Round, chosen: Sequence[int], tokens: int) -> list[list[int]]:
    """Items of a step in forward passes of at most ``tokens`` padded tokens."""
    sides = max(1, len(data.items[0].responses))
    longest = [
        len(data.items[i].prompt) + max(len(r.tokens) for r in data.items[i].responses)
        for i in chosen
    ]
    return [[chosen[i] for i in b] for b in buckets(longest, max(1, tokens // sides))]


def tokens_of(data: Round, chosen: Sequence[int]) -> int:
    """Tokens of a step's prompts, each once, and of all their responses."""
    items = [data.items[i] for i in chosen]
    return sum(len(i.prompt) + sum(len(r.tokens) for r in i.responses) for i in items)
