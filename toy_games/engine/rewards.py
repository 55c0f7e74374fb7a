"""Classes of reward functions for an explicit reward player, batched: (B, R) to (B, X, N), nats.

The classes mirror `toy_games.engine.policies`: X prompts, N complete responses of each.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from theory import TokenMDP
from theory.errors import InvalidInput
from theory.result import FloatArray


class Rewards(Protocol):
    """A class of rewards with ``size`` real parameters over ``shape = (X, N)`` responses."""

    size: int
    shape: tuple[int, int]

    def reward(self, phi: Tensor) -> Tensor:
        """Rewards (B, X, N) of parameters (B, R), float64, in nats."""
        ...

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        """A random start (R,); ``scale`` 0 is the reward 0."""
        ...


class Table:
    """Unrestricted: one number a response."""

    def __init__(self, responses: int, prompts: int = 1) -> None:
        self.shape = (prompts, responses)
        self.size = prompts * responses

    def reward(self, phi: Tensor) -> Tensor:
        return phi.reshape(-1, *self.shape)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        return torch.from_numpy(scale * generator.standard_normal(self.size))


class Linear:
    """``r(x, y) = phi . features(x, y)``: what it can tell apart are moments of the features."""

    def __init__(self, features: FloatArray) -> None:
        """Features (N, d) or (X, N, d)."""
        self.features = _per_response(features, "features")
        self.shape = (self.features.shape[0], self.features.shape[1])
        self.size = self.features.shape[2]

    def reward(self, phi: Tensor) -> Tensor:
        return torch.einsum("bd,xnd->bxn", phi, self.features)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        return torch.from_numpy(scale * generator.standard_normal(self.size))


class Network:
    """Multilayer perceptron with one hidden layer (tanh) on given inputs of every response."""

    def __init__(self, inputs: FloatArray, width: int = 16) -> None:
        """Inputs (N, d) or (X, N, d), for instance `one_hot_tokens`."""
        self.inputs = _per_response(inputs, "inputs")
        if width < 1:
            raise InvalidInput(f"width={width!r}; needed is a whole number >= 1")
        self.width = width
        self.shape = (self.inputs.shape[0], self.inputs.shape[1])
        self._parts = (self.inputs.shape[2] * width, width, width, 1)
        self.size = sum(self._parts)

    def reward(self, phi: Tensor) -> Tensor:
        first, bias, second, offset = phi.split(self._parts, dim=1)
        weights = first.unflatten(1, (-1, self.width))
        hidden = torch.einsum("xnd,bdw->bxnw", self.inputs, weights) + bias[:, None, None, :]
        return torch.einsum("bxnw,bw->bxn", torch.tanh(hidden), second) + offset[:, :, None]

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        """``scale`` multiplies the output layer; the first layer keeps its usual size."""
        first = generator.standard_normal(self._parts[0] + self.width)
        second = scale * generator.standard_normal(self.width) / np.sqrt(self.width)
        return torch.from_numpy(np.concatenate([first, second, np.zeros(1)]))


def one_hot_tokens(game: TokenMDP) -> FloatArray:
    """Inputs (X, N, H (A+1)) of every response: its tokens, one-hot by position, or "ended"."""
    tokens = game.unrolled()[0].sequence_tokens
    return np.eye(game.n_actions + 1)[tokens].reshape(*tokens.shape[:2], -1)


def _per_response(numbers: FloatArray, name: str) -> Tensor:
    array = np.asarray(numbers, dtype=np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3 or not np.isfinite(array).all():
        raise InvalidInput(
            f"{name}: shape {np.shape(numbers)}; needed are finite numbers (N, d) or (X, N, d)"
        )
    return torch.from_numpy(array)
