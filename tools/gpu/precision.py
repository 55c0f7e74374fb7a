"""What bfloat16 costs in correctness: against float32, and the sampler against the scorer."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from llm_scale import models
from llm_scale.data import verses
from llm_scale.measure import monitors
from llm_scale.models.player import Machine, Player
from llm_scale.models.score import Pair, buckets, collate
from llm_scale.rounds.begin import begin
from theory import objectives
from tools.gpu.bench import NO_MODEL, Bench
from tools.gpu.clock import release

PART = "precision"


def of_shape(bench: Bench, _deadline: float) -> None:
    """Of the model of SmolLM2-135M's shape."""
    compare(bench, bench.shape, "random shape")


def of_given(bench: Bench, _deadline: float) -> None:
    """Of the trained model."""
    if bench.given is None:
        bench.record.write(PART, "given model", skipped=NO_MODEL)
        return
    compare(bench, bench.given, "given model")


def compare(bench: Bench, model: Path, name: str) -> None:
    """Sample in each precision and score in both; gaps in nats.

    Responses are the bfloat16 player's own. A row for the gap of the precisions, a token and a
    response, and one a precision for sampler against scorer (``sampler_gap``, a response) and
    stored against rescored log-probabilities (``stored_gap``).
    """
    settings = dataclasses.replace(bench.settings, prompts=bench.size.checked)
    language = bench.load(model)
    task = verses.verses(settings, language.tokenizer, language.ends)
    items, spin = task.items(0), objectives.get("spin")
    players, pairs = {}, list[Pair]()
    for dtype in (torch.bfloat16, torch.float32):
        player = Player(language, task.settings, Machine(bench.device, dtype))
        players[dtype] = player
        made = begin(player, items, 0, spin, {}, {})
        seen = monitors.of_round(player, made)
        kept = {key: seen[key] for key in ("sampler_gap", "stored_gap")}
        tokens = sum(len(r.tokens) for item in made.data.items for r in item.own)
        bench.record.write(
            PART, f"sampler against scorer, {short(dtype)}, {name}", **kept,
            responses=len(items), tokens=tokens, rounding=monitors.ROUNDED[dtype],
        )  # fmt: skip
        pairs = pairs or made.data.pairs
    narrow, wide = (token_log_probs(p, pairs) for p in players.values())
    gap, lengths = (narrow - wide).double(), [len(r) for _, r in pairs]
    whole = torch.stack([part.sum() for part in gap.split(lengths)])
    bench.record.write(
        PART, f"bfloat16 against float32, {name}", tokens=len(gap), responses=len(pairs),
        largest_token=gap.abs().max(), rms_token=gap.square().mean().sqrt(),
        mean_token=gap.mean(), largest_response=whole.abs().max(),
        rms_response=whole.square().mean().sqrt(), nll_token=-wide.double().mean(),
    )  # fmt: skip
    del language, players
    release(bench.device)


@torch.no_grad()
def token_log_probs(player: Player, pairs: Sequence[Pair]) -> Tensor:
    """``log pi`` of every response token, response after response in their order, float32."""
    found: dict[int, Tensor] = {}
    lengths = [len(p) + len(r) for p, r in pairs]
    for batch in buckets(lengths, player.settings.tokens_per_batch):
        some = [pairs[i] for i in batch]
        with player.machine.precision():
            each = player.scorer(*collate(some, player.machine.device))[:, 0].float().cpu()
        found |= dict(zip(batch, each.split([len(r) for _, r in some]), strict=True))
    return torch.cat([found[i] for i in range(len(pairs))])


def short(dtype: torch.dtype) -> str:
    """A dtype's name."""
    return str(dtype).removeprefix("torch.")


def parameters(language: models.Language) -> int:
    """How many weights a model has, tied ones once."""
    return sum(p.numel() for p in language.model.parameters())
