"""A model sampled at several temperatures: the frontier of its KL both ways from a known expert.

Dividing logits by T < 1 moves a model along a line that costs no training: nearer in KL(pi||p),
farther in KL(p||pi). What an objective gains beside SFT is a point beyond SFT's whole line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lab import streams
from llm_scale.data.experts import Expert, known
from llm_scale.data.items import Item
from llm_scale.measure.telemetry import mean
from llm_scale.models.player import Player
from llm_scale.models.score import Pair, over_laws

TEMPERATURES = (1.0, 0.95, 0.9, 0.85, 0.8)


def frontier(
    player: Player,
    expert: Expert,
    items: Sequence[Item],
    temperatures: Sequence[float] = TEMPERATURES,
) -> list[dict[str, Any]]:
    """A row a temperature, in nats a response, every number with its standard error (``_se``).

    ``kl`` is KL(p||pi_T) on the items' first expert responses; on one fresh response of pi_T a
    prompt: ``reverse_kl`` KL(pi_T||p), ``own_expert_nll`` -log p, ``entropy`` -log pi_T. The noise
    is the same at all temperatures, so that rows of one model are paired.
    """
    s = player.settings
    prompts = [item.prompt for item in items]

    def noise(i: int) -> np.ndarray:
        return streams.uniform(s.max_new_tokens, s.seed, "frontier", items[i].id)

    given = [(item.prompt, item.expert[0].tokens) for item in items]
    of_given = known(expert, given)
    rows = []
    for temperature in temperatures:
        told = f"responses at temperature {temperature:g}"
        own, _ = player.sample(prompts, noise, told, temperature=temperature)
        drawn = [(prompt, r.tokens) for prompt, r in zip(prompts, own, strict=True)]
        log_p = known(expert, drawn)
        log_given, log_own = (tempered(player, pairs, temperature) for pairs in (given, drawn))
        row: dict[str, Any] = {"temperature": temperature}
        row |= mean("kl", of_given - log_given) | mean("reverse_kl", log_own - log_p)
        row |= mean("own_expert_nll", -log_p) | mean("entropy", -log_own)
        rows.append(row | mean("own_length", [len(r.tokens) for r in own]))
    return rows


def tempered(player: Player, pairs: Sequence[Pair], temperature: float) -> np.ndarray:
    """``log pi_T(y|x)`` (n,): of every token the law whose logits are divided by T."""

    def read(laws: list[Tensor], targets: Tensor) -> Tensor:
        return (laws[0] / temperature).log_softmax(-1).gather(-1, targets)

    targets = [torch.tensor(response)[:, None] for _, response in pairs]
    size = player.settings.tokens_per_batch
    with player.machine.precision(), torch.no_grad():
        found = over_laws([player.scorer], pairs, targets, size, read)
    return np.array([float(tokens.double().sum()) for tokens in found])
