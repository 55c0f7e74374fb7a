"""Assumptions of the theory, checked at the start of every round and recorded with it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm_scale import checkpoint, telemetry
from llm_scale.models import Language
from llm_scale.player import Player
from llm_scale.rounds import Started
from llm_scale.samples import Item

TEMPERATURE = 1.0
"""Of `llm_scale.generate`, which has no other."""
RECOMPUTED = 32
"""Items, spread over the round, whose stored log-probabilities are computed again."""


def of_round(player: Player, made: Started) -> dict[str, Any]:
    """Lengths, training tokens, and whether the stored log pi_t are what they should be.

    ``sampler_gap``: largest difference of the sampler's log pi_t(y') from the stored ones.
    ``stored_gap``: largest difference of stored ones from the same computed again, row by row: no
    batch and no padding is as it was. ``tokens_expert``, ``tokens_own``: prompt and response tokens
    an item's side sends through the model, forward and backward, in one epoch.
    """
    items = made.data.items
    last = len(items) - 1
    part = made.data.subset(np.linspace(0, last, min(RECOMPUTED, last + 1)).astype(int).tolist())
    again, stored = part.rescored(_row_by_row(player)), part.current
    out: dict[str, Any] = {
        "sampler_gap": float((made.sampler - made.own.double()).abs().max()),
        "stored_gap": float((again - stored).abs().max()),
        "temperature": TEMPERATURE,
    }
    for side in ("expert", "own"):
        sizes = [sum(len(i.prompt) + len(r.tokens) for r in getattr(i, side)) for i in items]
        out[f"tokens_{side}"] = float(np.mean(sizes))
    return out | telemetry.lengths(items)


def _row_by_row(player: Player) -> Player:
    """The same player, every row in a forward pass of its own."""
    alone = copy.copy(player)
    alone.settings = dataclasses.replace(player.settings, tokens_per_batch=1)
    return alone


def of_policy(language: Language, items: Sequence[Item]) -> dict[str, Any]:
    """Which weights play pi_t, and how the first prompt looks to the model."""
    return {
        "weights": checkpoint.weights_digest(language),
        "prompt_format": str(language.tokenizer.decode(list(items[0].prompt))),
    }
