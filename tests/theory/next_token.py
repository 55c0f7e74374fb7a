"""A class of next-token laws with logits linear in a few parameters, and one loss per token on it.

The loss is written from the trainer's description, with torch, and minimised without any link.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize, root

from theory import TokenMDP
from theory.result import FloatArray


class NextToken:
    """Next-token laws with logits ``features @ theta`` on the states of a tree, and its expert."""

    def __init__(
        self, seed: int, d: int = 3, horizon: int = 3, base: float = 0.0, full: bool = False
    ) -> None:
        """Of 3 tokens, eos included; the expert is outside of the class.

        Args:
            d: number of parameters.
            base: spread of a base measure.
            full: whether all laws are in the class: a logit each, the last token's is 0.
        """
        rng = np.random.default_rng(seed)
        self.game = TokenMDP.random(vocab=3, horizon=horizon, rng=rng, concentration=1.0)
        assert self.game.expert is not None
        self.expert = self.game.expert
        cells = self.expert.shape
        free = np.eye(cells[0] * cells[1]).reshape(*cells, *cells)[..., :-1].reshape(*cells, -1)
        self.features = torch.tensor(free if full else rng.standard_normal((*cells, d)))
        self.base = torch.tensor(base * rng.standard_normal(cells))
        self.p = torch.tensor(np.exp(self.expert))
        self.visits = torch.tensor(self.game.occupancy(self.expert).sum(-1))
        self.temperature = 1.0

    def log_policy(self, theta: Any) -> torch.Tensor:
        logits = self.base + self.features @ torch.as_tensor(theta, dtype=torch.float64)
        return torch.log_softmax(logits, -1)

    def sft(self, theta: Any) -> torch.Tensor:
        """``-E_p log pi`` of whole responses."""
        return -(self.visits[:, None] * self.p * self.log_policy(theta)).sum()

    def risk(self, theta: Any, old: FloatArray, obj: Any, beta: float, prefixes: Any = None) -> Any:
        """The trainer's loss in expectation: at expert prefixes, expert against own tokens.

        ``prefixes``: weights of the states for the own term, of a pointwise loss.
        """
        log_q = self.log_policy(old).detach()
        ratio = self.log_policy(theta) - log_q
        q = torch.softmax(log_q / self.temperature, -1)
        if prefixes is None:
            return (self.visits * obj.risk(ratio, ratio, beta, self.p, q)).sum()
        on_expert = -(self.visits[:, None] * self.p * obj.a(beta * ratio)).sum()
        return on_expert - (prefixes[:, None] * q * obj.b(beta * ratio)).sum()

    def gradient(self, loss: Any, theta: FloatArray, *args: Any) -> FloatArray:
        point = torch.tensor(theta, requires_grad=True)
        return np.asarray(torch.autograd.grad(loss(point, *args), point)[0])

    def hessian(self, loss: Any, theta: FloatArray, *args: Any) -> FloatArray:
        found = torch.autograd.functional.hessian(
            lambda x: loss(x, *args), torch.tensor(theta, dtype=torch.float64)
        )
        return np.asarray(found)

    def least(self, loss: Any, start: FloatArray, *args: Any) -> FloatArray:
        """Minimiser near a start, to the root of the gradient."""

        def both(x: FloatArray) -> tuple[float, FloatArray]:
            return float(loss(torch.tensor(x), *args)), self.gradient(loss, x, *args)

        near = minimize(both, start, jac=True, method="BFGS").x
        found = root(
            lambda x: self.gradient(loss, x, *args),
            near,
            jac=lambda x: self.hessian(loss, x, *args),
            tol=1e-13,
        )
        return np.asarray(found.x)

    def rounds(self, start: FloatArray, obj: Any, beta: float, count: int) -> list[FloatArray]:
        path = [start]
        for _ in range(count):
            path.append(self.least(self.risk, path[-1], path[-1], obj, beta))
        return path
