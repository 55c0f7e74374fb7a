"""Weights of a model by name, of those that train: copied out, put back, swapped, told apart."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from llm_scale.models import sharded
from llm_scale.models.language import Language

Weights = dict[str, Tensor]


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that train, by name, tied ones once: all, or those of an adapter."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_of(language: Language) -> Weights:
    """What trains, by name: as in model.safetensors of transformers where that is everything."""
    return {name: p.detach().cpu().clone() for name, p in trained(language.model).items()}


@torch.no_grad()
def put(language: Language, tensors: Weights) -> None:
    """Copy what trains into the model; KeyError if one is missing."""
    for name, parameter in trained(language.model).items():
        parameter.copy_(sharded.like(tensors[name], parameter))


def everything(model: nn.Module) -> Weights:
    """All that a model's files hold, tied weights once: its parameters and its lasting buffers."""
    out = {name: p.detach() for name, p in model.named_parameters()}
    for path, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            if name not in module._non_persistent_buffers_set:
                out[f"{path}.{name}".lstrip(".")] = buffer
    return out


def digest(language: Language) -> str:
    """16 hexadecimal digits of what trains: on one base, the same for the same policy."""
    return _digest(trained(language.model))


def base_digest(model: Any) -> str:
    """16 hexadecimal digits of the weights that an adapter is for, on whichever layers it is."""
    return _digest(
        {
            name.replace(".base_layer.", "."): parameter
            for name, parameter in model.named_parameters()
            if ".lora_" not in name
        }
    )


def _digest(tensors: dict[str, nn.Parameter]) -> str:
    found = hashlib.sha256()
    for name, parameter in tensors.items():
        found.update(name.encode())
        # copied: a tensor that numpy looks into can never give its memory back
        plain = parameter.detach().cpu().clone().contiguous().view(-1).view(torch.uint8)
        found.update(memoryview(plain.numpy()))
    return found.hexdigest()[:16]


class Played(nn.Module):
    """A model played with other weights, in its own memory: they take their place in every call.

    Between calls, and after one that failed, the model has its own, so both can be played in turn;
    it is called as a model is. Beside the model's memory there is one copy of what trains.
    """

    def __init__(self, model: Any, weights: Weights) -> None:
        """KeyError: a weight that trains is missing."""
        super().__init__()
        self.model = model
        self.weights = {
            name: weights[name].to(device=p.device, dtype=p.dtype, copy=True)
            for name, p in trained(model).items()
        }

    @property
    def config(self) -> Any:
        return self.model.config

    def forward(self, **given: Any) -> Any:
        with self._swapped():
            return self.model(**given)

    def base_model(self, **given: Any) -> Any:
        """Of the model: to hidden states."""
        with self._swapped():
            return self.model.base_model(**given)

    def get_output_embeddings(self) -> Any:
        """Of the model: from hidden states to logits."""
        return self._head

    def _head(self, hidden: Tensor) -> Tensor:
        with self._swapped():
            logits: Tensor = self.model.get_output_embeddings()(hidden)
            return logits

    @contextlib.contextmanager
    def _swapped(self) -> Iterator[None]:
        parameters = trained(self.model)
        own = {name: p.data for name, p in parameters.items()}
        try:
            _point(parameters, self.weights)
            yield
        finally:
            _point(parameters, own)


def _point(parameters: dict[str, nn.Parameter], tensors: Weights) -> None:
    for name, parameter in parameters.items():
        parameter.data = tensors[name]
    torch.clear_autocast_cache()  # it knows a parameter's cast by the parameter, not by its values
