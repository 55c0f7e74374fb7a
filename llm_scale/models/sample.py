"""Exact samples of pi_t: the whole distribution, one uniform number a token.

At temperature 1, which alone samples pi_t; training and its measurements know no other.

A token is drawn by inversion of its cumulative law, with a number that depends on the response's
key and position alone: batch size, padding and order do not change what is drawn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from llm_scale.data.items import Response, Tokens

Combine = Callable[[list[Tensor]], Tensor]
"""Next-token log-laws (B, V) of several models to the log-law that is sampled."""


class _Cache(DynamicCache):
    """Keys and values as attention reads them: under autocast at its precision.

    Rotated keys come in float32 then, and the cache would keep both in twice the memory.
    """

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        device = key_states.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            key_states, value_states = key_states.to(dtype), value_states.to(dtype)
        return super().update(key_states, value_states, *args, **kwargs)


@torch.no_grad()
def generate(
    models: Sequence[Any],
    prompts: Sequence[Tokens],
    noise: Callable[[int], np.ndarray],
    horizon: int,
    eos: int,
    batch: int = 64,
    combine: Combine | None = None,
    advance: Callable[[int], None] = lambda n: None,
    temperature: float = 1.0,
) -> tuple[list[Response], list[float]]:
    """One response to every prompt, and its log-probability as seen by the sampler.

    Args:
        models: one model, or several whose next-token laws ``combine`` joins.
        prompts: formatted tokens.
        noise: index of a prompt to its (horizon,) uniform numbers.
        horizon: longest response, EOS included; one that is cut has no EOS and is marked.
        eos: token that ends a response.
        batch: responses at a time.
        combine: see `Combine`; None takes the first model's law.
        advance: told the number of finished responses, for a progress bar.
        temperature: that logits are divided by, >= 0; 0 takes the likeliest token. The
            log-probabilities stay those of the law itself.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    responses: list[Response | None] = [None] * len(prompts)
    log_probs = [0.0] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        given, numbers = [prompts[i] for i in chosen], [noise(i) for i in chosen]
        drawn = _batch(models, given, numbers, horizon, eos, combine, temperature)
        for i, (response, log_prob) in zip(chosen, drawn, strict=True):
            responses[i], log_probs[i] = response, log_prob
        advance(len(chosen))
    return [r for r in responses if r is not None], log_probs


def _batch(
    models: Sequence[Any],
    prompts: Sequence[Tokens],
    noise: Sequence[np.ndarray],
    horizon: int,
    eos: int,
    combine: Combine | None,
    temperature: float,
) -> list[tuple[Response, float]]:
    device = next(models[0].parameters()).device
    longest = max(map(len, prompts))
    ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for i, prompt in enumerate(prompts):  # padded on the left: the last column predicts
        ids[i, longest - len(prompt) :] = torch.tensor(prompt)
        mask[i, longest - len(prompt) :] = 1
    ids, mask = ids.to(device), mask.to(device)
    numbers = torch.from_numpy(np.stack(noise)).to(device)
    caches = [_Cache(config=model.config) for model in models]
    rows = torch.arange(len(prompts), device=device)
    tokens = torch.full((len(prompts), horizon), -1, dtype=torch.int64, device=device)
    total = torch.zeros(len(prompts), dtype=torch.float64, device=device)
    for h in range(horizon):
        laws = [_next(m, c, ids, mask) for m, c in zip(models, caches, strict=True)]
        law = laws[0] if combine is None else combine(laws)
        drawn = _tokens(law, numbers[rows, h][:, None], temperature)
        tokens[rows, h] = drawn[:, 0]
        total[rows] += law.gather(-1, drawn)[:, 0].double()
        alive = drawn[:, 0] != eos
        if h + 1 == horizon or not bool(alive.any()):
            break
        if not bool(alive.all()):
            keep = alive.nonzero()[:, 0]
            rows, drawn, mask = rows[keep], drawn[keep], mask[keep]
            for cache in caches:
                cache.batch_select_indices(keep)
        ids = drawn
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
    out = []
    for row, log_prob in zip(tokens.tolist(), total.tolist(), strict=True):
        kept = tuple(t for t in row if t >= 0)
        out.append((Response(kept, kept[-1] != eos), log_prob))
    return out


def _tokens(law: Tensor, numbers: Tensor, temperature: float) -> Tensor:
    """Tokens (B, 1) of log-laws (B, V) at a temperature; `inverted` at 1."""
    if temperature == 0:
        return law.argmax(-1, keepdim=True)
    if temperature != 1:
        law = (law / temperature).log_softmax(-1)
    return inverted(law, numbers)


def inverted(log_law: Tensor, numbers: Tensor) -> Tensor:
    """Tokens (B, m) of log-laws (B, V) at uniform numbers (B, m): inversion in float64."""
    cdf = log_law.double().exp().cumsum(-1)
    found = torch.searchsorted(cdf, numbers * cdf[:, -1:], right=True)
    return found.clamp_max(cdf.shape[-1] - 1)


def _next(model: Any, cache: DynamicCache, ids: Tensor, mask: Tensor) -> Tensor:
    """Log-law (B, V) of the next token, float32."""
    positions = (mask.cumsum(-1) - 1).clamp_min(0)[:, -ids.shape[1] :]
    out = model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return out.logits[:, -1].float().log_softmax(-1)
