"""Weights of a model by name: copied out, put back, and told apart."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from llm_scale.models.language import Language

Weights = dict[str, Tensor]


def copy_of(language: Language) -> Weights:
    """The parameters by name, tied ones once: as in model.safetensors of transformers."""
    return {name: p.detach().cpu().clone() for name, p in language.model.named_parameters()}


@torch.no_grad()
def put(language: Language, tensors: Weights) -> None:
    """Copy parameters into the model; KeyError if one is missing."""
    for name, parameter in language.model.named_parameters():
        parameter.copy_(tensors[name])


def digest(language: Language) -> str:
    """16 hexadecimal digits of the parameters: the same for the same policy."""
    found = hashlib.sha256()
    for name, parameter in language.model.named_parameters():
        found.update(name.encode())
        plain = parameter.detach().cpu().contiguous().view(-1).view(torch.uint8)
        found.update(memoryview(plain.numpy()))
    return found.hexdigest()[:16]
