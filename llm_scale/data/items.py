"""Prompts and responses as tokens, and their plain-array form for checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

Tokens = tuple[int, ...]


class Response(NamedTuple):
    """Tokens of a response; the last is EOS unless it was cut at the horizon."""

    tokens: Tokens
    truncated: bool


@dataclass(frozen=True)
class Item:
    """One prompt of a round with its responses.

    Attributes:
        id: number of the prompt within the task; part of the key of its noise.
        prompt: formatted tokens.
        expert: G expert (or winning) responses.
        own: K own (or losing) responses; empty before they are sampled.
        history: responses of pi_0, for objectives with a history term.
    """

    id: int
    prompt: Tokens
    expert: tuple[Response, ...]
    own: tuple[Response, ...] = ()
    history: tuple[Response, ...] = ()

    @property
    def responses(self) -> tuple[Response, ...]:
        """All sides in one order: expert, own, history."""
        return (*self.expert, *self.own, *self.history)


def experts_only(items: Sequence[Item]) -> list[Item]:
    """Items without the losers that they came with, for maximum likelihood."""
    return [replace(item, own=(), history=()) for item in items]


def pack(name: str, items: Sequence[Item]) -> dict[str, Tensor]:
    """Items as integer tensors, for a safetensors file."""
    responses = [r for item in items for r in item.responses]
    lengths = [len(r.tokens) for r in responses]
    arrays = {
        "id": [item.id for item in items],
        "sides": [len(side) for item in items for side in (item.expert, item.own, item.history)],
        "prompt_length": [len(item.prompt) for item in items],
        "prompt": [t for item in items for t in item.prompt],
        "length": lengths,
        "truncated": [int(r.truncated) for r in responses],
        "tokens": [t for r in responses for t in r.tokens],
    }
    return {f"{name}.{k}": torch.tensor(v, dtype=torch.int64) for k, v in arrays.items()}


def unpack(name: str, tensors: dict[str, Tensor]) -> list[Item]:
    """Inverse of `pack`."""
    a = {
        k.removeprefix(f"{name}."): v.tolist()
        for k, v in tensors.items()
        if k.startswith(f"{name}.")
    }
    prompts = _split(a["prompt"], a["prompt_length"])
    tokens = _split(a["tokens"], a["length"])
    responses = [Response(t, bool(cut)) for t, cut in zip(tokens, a["truncated"], strict=True)]
    items, at = [], 0
    for i, (ident, prompt) in enumerate(zip(a["id"], prompts, strict=True)):
        sizes = a["sides"][3 * i : 3 * i + 3]
        ends = [at + sum(sizes[:side]) for side in range(4)]
        expert, own, history = (tuple(responses[b:c]) for b, c in pairwise(ends))
        items.append(Item(ident, prompt, expert, own, history))
        at = ends[-1]
    return items


def _split(flat: list[int], lengths: list[int]) -> list[Tokens]:
    ends = np.cumsum([0, *lengths])
    return [tuple(flat[a:b]) for a, b in pairwise(ends)]
