"""Assumptions of the theory, checked at the start of every round and recorded with it."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm_scale.data.items import Item, Response, Tokens
from llm_scale.measure import telemetry
from llm_scale.models import weights
from llm_scale.models.language import Language
from llm_scale.models.player import Player
from llm_scale.models.shared_prompts import row_length, shared_rows
from llm_scale.rounds.begin import Started
from llm_scale.rounds.tokens import TokenRound

TEMPERATURE = 1.0
"""Of `llm_scale.models.sample`, which has no other."""
RECOMPUTED = 32
"""Items, spread over the round, whose stored log-probabilities are computed again."""


def of_round(player: Player, made: Started) -> dict[str, Any]:
    """Lengths, training tokens, and whether the stored log pi_t are what they should be.

    ``sampler_gap``: largest difference of the sampler's log pi_t(y') from the stored ones, where
    responses were sampled.
    ``stored_gap``: largest difference of stored ones from the same computed again, row by row: no
    batch and no padding is as it was. ``tokens_expert``: prompt and response tokens that SFT on an
    item's expert responses sends through the model, forward and backward, in one epoch.
    ``tokens_own``: those that the round's loss sends beside them, 0 where own tokens are drawn at
    the positions of expert responses.
    """
    items = made.data.items
    last = len(items) - 1
    part = made.data.subset(np.linspace(0, last, min(RECOMPUTED, last + 1)).astype(int).tolist())
    again, stored = part.rescored(_row_by_row(player)), part.current
    out: dict[str, Any] = {"stored_gap": float((again - stored).abs().max())}
    if len(made.sampler):
        gap = (made.sampler - made.own.double()).abs().max()
        out |= {"sampler_gap": float(gap), "temperature": TEMPERATURE}
    shares, by_token = bool(player.scorer.shares_prompts), isinstance(made.data, TokenRound)
    expert = np.mean([_sent(i.prompt, i.expert, shares) for i in items])
    whole = np.mean([_sent(i.prompt, i.responses, shares and not by_token) for i in items])
    out |= {"tokens_expert": float(expert), "tokens_own": float(whole - expert)}
    return out | telemetry.lengths(items)


def _sent(prompt: Tokens, responses: Sequence[Response], shares: bool) -> int:
    """Tokens through the model for responses to a prompt, which may go through once for several."""
    pairs = [(prompt, r.tokens) for r in responses]
    rows = shared_rows(pairs) if shares else [[i] for i in range(len(pairs))]
    return sum(row_length(pairs, row) for row in rows)


def _row_by_row(player: Player) -> Player:
    """The same player, every row in a forward pass of its own."""
    alone = copy.copy(player)
    alone.settings = dataclasses.replace(player.settings, tokens_per_batch=1)
    return alone


def of_policy(language: Language, items: Sequence[Item]) -> dict[str, Any]:
    """Which weights play pi_t, and how the first prompt looks to the model."""
    return {
        "weights": weights.digest(language),
        "prompt_format": str(language.tokenizer.decode(list(items[0].prompt))),
    }
