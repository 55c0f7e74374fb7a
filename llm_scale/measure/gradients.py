"""Direction of the round's gradient against the SFT gradient of the same prompts (S7, T15)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from llm_scale.models.sharded import whole


def points(steps: int, count: int) -> list[int]:
    """``count`` steps of a round at about equal distance, the first one always among them."""
    if count < 1 or steps < 1:
        return []
    last = steps - 1
    return sorted({round(i * last / max(count - 1, 1)) for i in range(count)})


def cosine_to_sft(
    accumulate: Callable[[bool], float], parameters: Sequence[nn.Parameter]
) -> dict[str, float]:
    """Cosine of the loss's gradient with the SFT gradient, and how much longer it is.

    Nothing but ``.grad`` is touched, and that is cleared: neither weights nor optimiser change.

    Args:
        accumulate: adds the gradient of the self-play loss (False) or of the SFT loss (True) on
            the same fixed items to ``.grad``.
        parameters: of the model.

    Returns:
        ``cosine`` and ``gradient_ratio`` (norm over SFT norm); empty if a gradient vanishes.
    """
    _clear(parameters)
    accumulate(False)
    played = [None if p.grad is None else p.grad.clone() for p in parameters]
    _clear(parameters)
    accumulate(True)
    inner = own = sft = 0.0
    for left, parameter in zip(played, parameters, strict=True):
        right = parameter.grad
        own += _square(left)
        sft += _square(right)
        if left is not None and right is not None:
            inner += float(whole((left.double() * right.double()).sum()))
    _clear(parameters)
    if not (own > 0 and sft > 0):
        return {}
    return {"cosine": inner / (own * sft) ** 0.5, "gradient_ratio": (own / sft) ** 0.5}


def _square(gradient: torch.Tensor | None) -> float:
    return 0.0 if gradient is None else float(whole(gradient.double().square().sum()))


def _clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None
