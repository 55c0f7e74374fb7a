"""Parametric policies, batched: parameters (B, P), one row a run, to log-laws (B, X, N).

X prompts, N complete responses of each. Where a prompt has fewer, the rest is padding with
log-probability ``PADDING``: its probability is exactly 0 and its log-ratio exactly 0.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from theory import TokenMDP
from theory.errors import InvalidInput

PADDING = -1e4


class Policy(Protocol):
    """A class of policies with ``size`` real parameters over ``shape = (X, N)`` responses."""

    size: int
    shape: tuple[int, int]

    def log_law(self, theta: Tensor) -> Tensor:
        """``log pi_theta(y|x)`` (B, X, N) of parameters (B, P), float64, in nats."""
        ...

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        """A random start (P,); ``scale`` 0 is the policy that the class takes for uninformed."""
        ...


class Softmax:
    """Unrestricted: one logit a response."""

    def __init__(self, responses: int, prompts: int = 1) -> None:
        self.shape = (prompts, responses)
        self.size = prompts * responses

    def log_law(self, theta: Tensor) -> Tensor:
        return theta.reshape(-1, *self.shape).log_softmax(-1)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        return torch.from_numpy(scale * generator.standard_normal(self.size))

    def parameters_of(self, log_law: Tensor) -> Tensor:
        """Parameters (..., P) of log-laws (..., X, N); log-probability -inf becomes -700."""
        return log_law.clamp_min(-700.0).reshape(*log_law.shape[:-2], self.size)


class LogLinearPolicy:
    """``pi_theta(y|x) ∝ exp(theta . features(x, y))``: convex losses stay convex (T15).

    One class for all rows of a batch, or one a row. The same class solved exactly is
    `theory.rounds.log_linear.LogLinear`.
    """

    def __init__(self, features: ArrayLike) -> None:
        """Features (N, d) or (X, N, d), or (rows, X, N, d): a class of its own in every row.

        InvalidInput: other shapes, or numbers that are not finite.
        """
        array = np.asarray(features, dtype=np.float64)
        array = array[None] if array.ndim == 2 else array
        if array.ndim not in (3, 4) or not np.isfinite(array).all():
            raise InvalidInput(
                f"features: shape {np.shape(features)}; needed are finite numbers (N, d), "
                "(X, N, d) or (rows, X, N, d)"
            )
        self.features = torch.from_numpy(array)
        self.shape = (array.shape[-3], array.shape[-2])
        self.size = array.shape[-1]

    def log_law(self, theta: Tensor) -> Tensor:
        pairing = "bd,bxnd->bxn" if self.features.ndim == 4 else "bd,xnd->bxn"
        return torch.einsum(pairing, theta, self.features).log_softmax(-1)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        return torch.from_numpy(scale * generator.standard_normal(self.size))


class _OnTokens:
    """Shared by policies that choose token by token: next-token logits (B, S, A) to log-laws."""

    def __init__(self, game: TokenMDP) -> None:
        self.game = game
        tree, where = game.unrolled()
        # Position (state, action) of every token of every response; the last index is a zero.
        zero = game.n_states * game.n_actions
        tokens = tree.sequence_tokens
        state = np.broadcast_to(np.arange(tree.n_prompts)[:, None], tokens.shape[:2]).copy()
        visited = np.full(tokens.shape, zero, dtype=np.int64)
        for h in range(tokens.shape[-1]):
            live = tokens[..., h] >= 0
            visited[..., h][live] = (where[state] * game.n_actions + tokens[..., h])[live]
            state[live] = tree.next_state[state[live], tokens[..., h][live]]
        self._visited = torch.from_numpy(visited)
        self._padding = torch.from_numpy((tokens < 0).all(-1))
        self._forbidden = torch.from_numpy(~np.asarray(game.allowed))
        self.shape = (tokens.shape[0], tokens.shape[1])

    def _logits(self, theta: Tensor) -> Tensor:
        raise NotImplementedError

    def log_policy(self, theta: Tensor) -> Tensor:
        """Next-token log-probabilities (B, S, A)."""
        return self._logits(theta).masked_fill(self._forbidden, -torch.inf).log_softmax(-1)

    def along(self, per_token: Tensor) -> Tensor:
        """Values (B, S, A) of tokens along every response (B, X, N, H), 0 after its end."""
        flat = per_token.flatten(1)
        return torch.cat([flat, torch.zeros_like(flat[:, :1])], dim=1)[:, self._visited]

    def log_law(self, theta: Tensor) -> Tensor:
        return self.along(self.log_policy(theta)).sum(-1).masked_fill(self._padding, PADDING)


class Tokens(_OnTokens):
    """Tabular token policy: one logit a state and action.

    On a tree it is unrestricted; on merged states (the last k tokens) it is the class of order-k
    models.
    """

    def __init__(self, game: TokenMDP) -> None:
        super().__init__(game)
        self.size = game.n_states * game.n_actions

    def _logits(self, theta: Tensor) -> Tensor:
        return theta.reshape(-1, self.game.n_states, self.game.n_actions)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        return torch.from_numpy(scale * generator.standard_normal(self.size))

    def parameters_of(self, log_policy: np.ndarray) -> Tensor:
        """Parameters (P,) of a log-policy (S, A); log-probability -inf becomes -700."""
        return torch.from_numpy(np.maximum(log_policy, -700.0).reshape(-1).copy())


class Neural(_OnTokens):
    """Multilayer perceptron with one hidden layer (tanh) on the prefix, one-hot by position.

    The same weights serve every state, so a change in one state moves others: the smallest model
    with the generalisation (and the misspecification) of a language model.
    """

    def __init__(self, game: TokenMDP, width: int = 16) -> None:
        super().__init__(game)
        self.width = width
        prefixes = game.prefixes
        columns = [np.eye(game.n_prompts)[game.prompt], np.eye(game.horizon)[game.depth]]
        columns += [np.eye(game.n_actions + 1)[prefixes[:, h]] for h in range(prefixes.shape[1])]
        self._inputs = torch.from_numpy(np.concatenate(columns, axis=1))
        self._parts = (self._inputs.shape[1] * width, width, width * game.n_actions, game.n_actions)
        self.size = sum(self._parts)

    def _logits(self, theta: Tensor) -> Tensor:
        first, bias, second, offset = theta.split(self._parts, dim=1)
        rows = theta.shape[0]
        hidden = torch.tanh(
            self._inputs @ first.reshape(rows, -1, self.width) + bias.reshape(rows, 1, self.width)
        )
        return hidden @ second.reshape(rows, self.width, -1) + offset.reshape(rows, 1, -1)

    def initial(self, generator: np.random.Generator, scale: float) -> Tensor:
        """``scale`` multiplies the output layer; the first layer keeps its usual size."""
        first = generator.standard_normal(self._parts[0]) / np.sqrt(self._inputs.shape[1] / 4)
        second = scale * generator.standard_normal(self._parts[2]) / np.sqrt(self.width)
        zeros = np.zeros
        return torch.from_numpy(
            np.concatenate([first, zeros(self._parts[1]), second, zeros(self._parts[3])])
        )
