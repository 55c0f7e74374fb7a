"""What a pass in training does otherwise than one that scores: dropout, and layers computed again.

Log-probabilities that are kept or measured have no dropout. transformers copies rates of the
configuration into modules when a model is made, either into a `torch.nn.Dropout` or as a number
beside the code that reads it; they are set there, and the configuration stays as it is.

Layers that are computed again in the backward pass take less memory and a third more time.
transformers' own switch (`gradient_checkpointing_enable`) acts on models in training mode alone,
where dropout makes ``log pi`` random; the same layers are wrapped here, in evaluation mode.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from theory.errors import InvalidInput

WHOLE_LAYERS = "layerdrop"
"""In the names of rates at which whole layers are left out, which stay as they are."""


def set_dropout(model: Any, rate: float) -> None:
    """Every dropout of the model at this rate. InvalidInput: it has none."""
    found = 0
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p, found = rate, found + 1
        for name in _rates(module):
            setattr(module, name, rate)
            found += 1
    if not found:
        raise InvalidInput(f"dropout={rate:g}: {type(model).__name__} has no dropout; leave it out")


@contextlib.contextmanager
def dropped(model: Any, seed: int) -> Iterator[None]:
    """Dropout for a while, its noise from the seed; other random numbers of torch are untouched.

    Only what drops goes into training mode, as other modules may do other things there.
    """
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    modules = _droppers(model)
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        try:
            for module in modules:
                module.training = True
            yield
        finally:
            for module in modules:
                module.training = False


def _droppers(model: Any) -> list[nn.Module]:
    """Dropouts, modules that hold one (some read its rate), and those with a rate of their own."""
    return [
        module
        for module in model.modules()
        if isinstance(module, nn.Dropout)
        or any(isinstance(inner, nn.Dropout) for inner in module.children())
        or _rates(module)
    ]


def _rates(module: nn.Module) -> list[str]:
    return [
        name
        for name, value in vars(module).items()
        if "drop" in name and WHOLE_LAYERS not in name and type(value) in (int, float)
    ]


def recompute(model: Any) -> None:
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
