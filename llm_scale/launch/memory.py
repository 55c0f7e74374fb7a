"""Memory that a run needs on its device, from shapes alone.

With P weights of the model, of which P_lin are in linear layers but the output, T those that train
(all, or the A and B of an adapter), in bytes:

| part | computed in float32 | in bfloat16 |
|---|---|---|
| weights | 4 P, and 4 T of an adapter | the same; under an adapter 2 P_lin + 4 (P - P_lin) + 4 T |
| casts of weights for one pass | 0 | 2 T of linear layers |
| gradients | 4 T | 4 T |
| AdamW's two moments | 8 T | 8 T |
| reference: pi_0 or an earlier pi_t, played at the start of a round | 4 T | 4 T |
| activations, a layer and token | 4 (8 d + 2 kv + 4 f + h + 2) | 30 d + 4 kv + 8 f + 4 (h + 2) |
| ... with an adapter of rank r | the same - 8 d + 28 r | the same - 6 d + 14 r |

with d hidden units, f in the MLP, kv those of keys (values as many), h heads: the tensors that
torch keeps for the backward pass of a Llama layer (norm, attention, gated MLP). Where activations
are computed again there are 4 d a layer and token and all of one layer. The output adds one chunk
of logits three times. Key-value caches of sampling and what the allocator wastes are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from llm_scale.models import lora
from llm_scale.models.score import CHUNK_LOGITS
from llm_scale.settings import LINEAR

WIDE, NARROW = 4, 2
"""Bytes of a number in float32, in bfloat16."""


@dataclass(frozen=True)
class Memory:
    """Bytes of every part; see the module."""

    weights: int
    casts: int
    gradients: int
    optimiser: int
    reference: int
    activations: int
    logits: int

    @property
    def states(self) -> int:
        """What is there whatever the batch: weights, gradients, optimiser, reference."""
        return self.weights + self.gradients + self.optimiser + self.reference

    @property
    def peak(self) -> int:
        """The larger of a training step and the start of a round, which has no gradients."""
        step = self.gradients + self.activations + self.logits + self.casts
        return self.weights + self.optimiser + max(step, self.reference + self.casts)


@dataclass(frozen=True)
class Sizes:
    """Numbers of weights: all, those of linear layers but the output, those that train."""

    all: int
    linear: int
    trained: int


def needed(
    config: Any,
    tokens: int,
    rank: int = 0,
    targets: str = LINEAR,
    recompute: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Memory:
    """Memory of a run by the formulas of the module.

    Args:
        config: of transformers, of a causal LM.
        tokens: padded tokens of a forward pass in training.
        rank, targets: of an adapter, as `lora.add` takes them; rank 0 trains all weights.
        recompute: activations of a layer are computed again in the backward pass.
        dtype: float32, or bfloat16 for autocast.
    """
    size = sizes(config, rank, targets)
    narrow = dtype == torch.bfloat16
    held = WIDE * size.all
    if rank:
        held += WIDE * size.trained - narrow * (WIDE - NARROW) * size.linear
    casts = narrow * NARROW * (size.trained if rank else size.linear)
    chunk = min(CHUNK_LOGITS, tokens * config.vocab_size)
    layer, layers = layer_activations(config, rank, narrow), config.num_hidden_layers
    kept = layers * WIDE * config.hidden_size + layer if recompute else layers * layer
    return Memory(
        weights=held,
        casts=casts,
        gradients=WIDE * size.trained,
        optimiser=2 * WIDE * size.trained,
        reference=WIDE * size.trained,
        activations=tokens * kept,
        logits=3 * WIDE * chunk,
    )


def sizes(config: Any, rank: int = 0, targets: str = LINEAR) -> Sizes:
    """Counted on a model without memory, tied weights once."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    total = sum(p.numel() for p in model.parameters())
    linear = sum(_weight(model, name) for name in lora.layers_of(model, LINEAR))
    if not rank:
        return Sizes(total, linear, total)
    chosen = (model.get_submodule(name).weight for name in lora.layers_of(model, targets))
    return Sizes(total, linear, rank * sum(sum(weight.shape) for weight in chosen))


def layer_activations(config: Any, rank: int, narrow: bool) -> int:
    """Bytes that one layer keeps for the backward pass, a token."""
    d, heads = config.hidden_size, config.num_attention_heads
    f = getattr(config, "intermediate_size", None) or 4 * d
    each = getattr(config, "head_dim", None) or d // heads
    kv = each * (getattr(config, "num_key_value_heads", None) or heads)
    if narrow:
        found = 30 * d + 4 * kv + 8 * f + 4 * (heads + 2)
        return int(found - 6 * d + 14 * rank if rank else found)
    found = 4 * (8 * d + 2 * kv + 4 * f + heads + 2)
    return int(found - 8 * d + 28 * rank if rank else found)


def _weight(model: nn.Module, name: str) -> int:
    return int(model.get_submodule(name).weight.numel())
