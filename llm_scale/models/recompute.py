"""Layers that are computed again in the backward pass: less memory, a third more time.

transformers' own switch (`gradient_checkpointing_enable`) acts on models in training mode alone,
where dropout makes ``log pi`` random; the same layers are wrapped here, in evaluation mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from theory.errors import InvalidInput


def switch_on(model: Any) -> None:
    """Keep only the inputs of the model's layers for the backward pass, from now on.

    InvalidInput: transformers knows no such layers in this class.
    """
    from transformers.modeling_layers import GradientCheckpointingLayer

    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    if not layers:
        raise InvalidInput(
            f"recompute=true: {type(model).__name__} has no layers that transformers can compute "
            "again; leave it out"
        )
    for layer in layers:
        # a partial of a bound method: a copy of the model (pi_0, say) is of its own layers
        layer.forward = functools.partial(_again, layer.forward)


def _again(forward: Callable[..., Any], *given: Any, **named: Any) -> Any:
    if not torch.is_grad_enabled():
        return forward(*given, **named)
    return checkpoint(forward, *given, use_reentrant=False, **named)
