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
from transformers.cache_utils import DynamicCache, DynamicLayer

from llm_scale.data.items import Response, Tokens
from llm_scale.models import output
from llm_scale.models.language import Past

Combine = Callable[[list[Tensor]], Tensor]
"""Next-token log-laws (B, V) of several models to the log-law that is sampled.

Rows come in the order of the batch, and of `places` after some have ended."""


STEP = 32
"""Tokens by which the room of a cache grows."""


class _Room(DynamicLayer):
    """Keys and values with room behind them: a token is written there, and nothing is copied.

    ``keys`` and ``values`` are views of what is filled, of the shapes that transformers keeps.
    """

    keys: Any
    is_initialized: bool
    values: Any

    def __init__(self) -> None:
        super().__init__()
        self.rooms: dict[str, Tensor] = {}

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values (B, heads, T, width), the new ones at the end."""
        if not self.is_initialized:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.is_initialized = True
        self.keys = self._with("keys", self.keys, key_states)
        self.values = self._with("values", self.values, value_states)
        return self.keys, self.values

    def _with(self, name: str, filled: Tensor | None, new: Tensor) -> Tensor:
        start = 0 if filled is None else filled.shape[-2]
        end, rows = start + new.shape[-2], new.shape[0]
        room = self.rooms.get(name)
        if room is None or room.shape[-2] < end:
            room = new.new_empty(*new.shape[:2], -(-end // STEP) * STEP, new.shape[-1])
            if filled is not None:
                room[:, :, :start] = filled
            self.rooms[name] = room
        room[:rows, :, start:end] = new
        return room[:rows, :, :end]

    def move(self, rows: int, to: Tensor, source: Tensor) -> None:
        """Rows ``source`` go to the places ``to``; the first ``rows`` are left."""
        if not self.is_initialized:
            return
        self.keys[to], self.values[to] = self.keys[source], self.values[source]
        self.keys, self.values = self.keys[:rows], self.values[:rows]


class _Cache(DynamicCache):
    """Keys and values as attention reads them: under autocast at its precision.

    Rotated keys come in float32 then, and the cache would keep both in twice the memory.
    """

    layers: list[Any]

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers = [_Room() if type(old) is DynamicLayer else old for old in self.layers]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        device = key_states.device.type
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            key_states, value_states = key_states.to(dtype), value_states.to(dtype)
        return super().update(key_states, value_states, *args, **kwargs)

    def batch_select_indices(self, indices: Tensor) -> None:
        """Rows ``indices``; only those that change their place are copied."""
        to = (indices != torch.arange(len(indices), device=indices.device)).nonzero()[:, 0]
        for layer in self.layers:
            if isinstance(layer, _Room):
                layer.move(len(indices), to, indices[to])
            else:
                layer.batch_select_indices(indices)


class _Cached:
    """Next-token laws of one model for a batch that grows; finished rows leave it."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        self.model, self.device = model, next(model.parameters()).device
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for i, prompt in enumerate(prompts):  # padded on the left: the last column predicts
            ids[i, longest - len(prompt) :] = torch.tensor(prompt)
            mask[i, longest - len(prompt) :] = 1
        self.ids, self.mask = ids.to(self.device), mask.to(self.device)
        self.cache = _Cache(config=model.config)

    def next(self) -> Tensor:
        """Log-law (B, V) of the next token of the rows that are left, float32."""
        positions = (self.mask.cumsum(-1) - 1).clamp_min(0)[:, -self.ids.shape[1] :]
        out = self.model(
            input_ids=self.ids,
            attention_mask=self.mask,
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
        )
        law: Tensor = out.logits[:, -1].float().log_softmax(-1)
        return law

    def go_on(self, keep: Tensor | None, drawn: Tensor) -> None:
        """Rows ``keep`` (None: all) stay, and have drawn tokens (rows, 1)."""
        if keep is not None:
            self.mask = self.mask[keep]
            self.cache.batch_select_indices(keep)
        self.ids = drawn
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)


class _KeptRows(_Cached):
    """The same for caches that cannot drop a row: finished ones go on, unread."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        super().__init__(model, prompts)
        self.left = torch.arange(len(prompts), device=self.device)

    def next(self) -> Tensor:
        return super().next()[self.left]

    def go_on(self, keep: Tensor | None, drawn: Tensor) -> None:
        self.left = self.left if keep is None else self.left[keep]
        ids = torch.zeros_like(self.mask[:, :1])
        ids[self.left] = drawn
        super().go_on(None, ids)


class _Whole:
    """The same without a cache: all tokens again for each, padded on the right as for scores."""

    def __init__(self, model: Any, prompts: Sequence[Tokens]) -> None:
        self.model, self.device = model, next(model.parameters()).device
        longest = max(map(len, prompts))
        ids = torch.tensor([[*p, *(0,) * (longest - len(p))] for p in prompts])
        self.ids, self.sizes = ids.to(self.device), torch.tensor([*map(len, prompts)])

    def next(self) -> Tensor:
        last = output.states(self.model, self.ids)[torch.arange(len(self.sizes)), self.sizes - 1]
        return output.logits(self.model, last).float().log_softmax(-1)

    def go_on(self, keep: Tensor | None, drawn: Tensor) -> None:
        if keep is not None:
            self.ids, self.sizes = self.ids[keep], self.sizes[keep.cpu()]
        room = torch.zeros_like(self.ids[:, :1])
        self.ids = torch.cat([self.ids, room], dim=1)
        self.ids[torch.arange(len(self.sizes)), self.sizes] = drawn[:, 0]
        self.sizes = self.sizes + 1
        self.ids = self.ids[:, : int(self.sizes.max())]


PASTS: dict[Past, Callable[[Any, Sequence[Tokens]], _Cached | _Whole]] = {
    "cache": _Cached,
    "kept rows": _KeptRows,
    "none": _Whole,
}


@torch.no_grad()
def generate(
    models: Sequence[Any],
    prompts: Sequence[Tokens],
    noise: Callable[[int], np.ndarray],
    horizon: int,
    ends: Sequence[int],
    batch: int = 64,
    combine: Combine | None = None,
    advance: Callable[[int], None] = lambda n: None,
    past: Past = "cache",
    temperature: float = 1.0,
) -> tuple[list[Response], list[float]]:
    """One response to every prompt, and its log-probability as seen by the sampler.

    Args:
        models: one model, or several whose next-token laws ``combine`` joins.
        prompts: formatted tokens.
        noise: index of a prompt to its (horizon,) uniform numbers.
        horizon: longest response, its end included; one that is cut has none and is marked.
        ends: tokens that end a response.
        batch: responses at a time.
        combine: see `Combine`; None takes the first model's law.
        advance: told the number of finished responses, for a progress bar.
        past: how to go from token to token, as the models' class allows.
        temperature: that logits are divided by, >= 0; 0 takes the likeliest token. The
            log-probabilities stay those of the law itself.
    """
    order = sorted(range(len(prompts)), key=lambda i: (len(prompts[i]), i))
    responses: list[Response | None] = [None] * len(prompts)
    log_probs = [0.0] * len(prompts)
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        some, numbers = [prompts[i] for i in chosen], [noise(i) for i in chosen]
        laws = [PASTS[past](m, some) for m in models]
        drawn = _batch(laws, numbers, horizon, ends, combine, temperature)
        for i, (response, log_prob) in zip(chosen, drawn, strict=True):
            responses[i], log_probs[i] = response, log_prob
        advance(len(chosen))
    return [r for r in responses if r is not None], log_probs


def _batch(
    laws: Sequence[_Cached | _Whole],
    noise: Sequence[np.ndarray],
    horizon: int,
    ends: Sequence[int],
    combine: Combine | None,
    temperature: float,
) -> list[tuple[Response, float]]:
    device, count = laws[0].device, len(noise)
    numbers, stop = torch.from_numpy(np.stack(noise)).to(device), torch.tensor(ends, device=device)
    rows = torch.arange(count, device=device)
    tokens = torch.full((count, horizon), -1, dtype=torch.int64, device=device)
    total = torch.zeros(count, dtype=torch.float64, device=device)
    for h in range(horizon):
        seen = [each.next() for each in laws]
        law = seen[0] if combine is None else combine(seen)
        drawn = _tokens(law, numbers[rows, h][:, None], temperature)
        tokens[rows, h] = drawn[:, 0]
        total[rows] += law.gather(-1, drawn)[:, 0].double()
        alive = ~torch.isin(drawn[:, 0], stop)
        if h + 1 == horizon or not bool(alive.any()):
            break
        keep = None if bool(alive.all()) else places(alive)
        rows, drawn = (rows, drawn) if keep is None else (rows[keep], drawn[keep])
        for each in laws:
            each.go_on(keep, drawn)
    out = []
    for row, log_prob in zip(tokens.tolist(), total.tolist(), strict=True):
        kept = tuple(t for t in row if t >= 0)
        out.append((Response(kept, kept[-1] not in ends), log_prob))
    return out


def places(alive: Tensor) -> Tensor:
    """Rows that are left, in an order that moves the fewest: the last ones fill the gaps."""
    left = int(alive.sum())
    keep = torch.arange(left, device=alive.device)
    keep[~alive[:left]] = alive[left:].nonzero()[:, 0] + left
    return keep


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
