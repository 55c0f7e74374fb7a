"""Assumptions of the theory, checked at the start of every round and recorded with it."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from llm_scale.data.items import Item, Response, Tokens
from llm_scale.measure import telemetry
from llm_scale.models import weights
from llm_scale.models.language import Language
from llm_scale.models.player import Player
from llm_scale.models.shared_prompts import row_length, shared_rows
from llm_scale.rounds.begin import Started
from llm_scale.rounds.tokens import TokenRound
from llm_scale.settings import Settings

TEMPERATURE = 1.0
"""Of `llm_scale.models.sample`, which has no other."""
ROUNDED = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Nats a token that rounding stays far below, by the precision of computation (float32: 1e-5)."""
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


def warnings(row: Mapping[str, Any], settings: Settings, dtype: torch.dtype) -> list[str]:
    """What is wrong with a round at its start, each with what helps against it.

    Args:
        row: `of_round`. settings: of the run. dtype: of computation.

    Rounding errors of a response add up as a random walk: far above is `ROUNDED` times the root of
    its longest length.
    """
    out, far = [], ROUNDED[dtype] * math.sqrt(settings.max_new_tokens)
    told = {
        "sampler_gap": "own responses are not samples of pi_t as it is scored",
        "stored_gap": "log pi of a response depends on what is beside it in a batch",
    }
    for name, what in told.items():
        if not row.get(name, 0.0) <= far:
            out.append(
                f"{name} is {row[name]:.2g} nats, rounding stays below {far:.2g}: {what}; the "
                "round's rewards are off by as much; try --dtype float32, or another model class"
            )
    horizon = f"max_new_tokens={settings.max_new_tokens}"
    if row.get("truncated_expert") == 1.0:
        out.append(
            f"all expert responses are cut at {horizon}: no end is trained, and the model will not "
            "learn to stop; raise max_new_tokens"
        )
    if row.get("truncated_own") == 1.0:
        out.append(
            f"all own responses are cut at {horizon}: the model does not end them; raise "
            "max_new_tokens, or begin with more sft_steps"
        )
    return [f"WARNING: {line}" for line in out]


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
