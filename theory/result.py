"""The one result type of every solver."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

FloatArray = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class Solution:
    """What a solver found, and what certifies it.

    Attributes:
        policy: the policy, probabilities ``(..., n)`` (log-policy ``(S, A)`` for a TokenMDP).
        reward: the reward player's best response to it, same shape, in nats.
        primal: value of the policy, ``(...)`` in nats; what is minimised is named in ``status``.
        dual: a lower bound of the minimum, ``(...)``, from a feasible reward.
        gap: ``primal - dual >= 0``: a certificate that does not trust the solver.
        status: a sentence; it starts with "converged" when the tolerance was met.
        iterations: iterations or rounds spent.
        policies: for paths, every iterate ``(rounds + 1, ..., n)``, the start first.
        details: further measurements by name.
    """

    policy: FloatArray
    reward: FloatArray
    primal: FloatArray
    dual: FloatArray
    gap: FloatArray
    status: str
    iterations: int
    policies: FloatArray | None = None
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether the tolerance was met."""
        return self.status.startswith("converged")
