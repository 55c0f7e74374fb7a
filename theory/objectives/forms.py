"""The three forms of an objective: what a definition derives from."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from theory import xp
from theory.objectives import derivatives
from theory.objectives.base import Array, Form, Objective
from theory.result import FloatArray


@dataclasses.dataclass(frozen=True)
class Pointwise(Objective):
    """Separable objective ``max_r E_p[a(r)] + E_q[b(r)]``; loss ``-a(r_y) - b(r_y')``."""

    form: ClassVar[Form] = "pointwise"

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        """Solve ``log(-b'(r)/a'(r)) = u`` numerically (T1) where no closed form is written."""
        return derivatives.invert_link(self.a, self.b, u)

    def expert_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an expert response: ``-a(r)``."""
        return -self.a(r)

    def policy_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an own response: ``-b(r)``."""
        return -self.b(r)

    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.expert_term(r_y, **extras) + self.policy_term(r_own, **extras)

    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        on_expert = xp.weighted_mean(self.expert_term(r_y, **extras), w_y)
        return on_expert + xp.weighted_mean(self.policy_term(r_own, **extras), w_own)

    def missing(self, part: str) -> str | None:
        """As :meth:`Objective.missing`; the risk exists where the loss does."""
        part = "loss" if part == "risk" else part
        terms = self._defines("a", "b") or self._defines("expert_term", "policy_term")
        if part == "loss" and part not in self.absent and not terms:
            return "the definition gives no a and b"
        if part == "link" and part not in self.absent:
            given = self._defines("link_formula") or self._defines("a", "b")
            return None if given else "the definition gives neither link_formula nor a and b"
        return super().missing(part)


@dataclasses.dataclass(frozen=True)
class Pairwise(Objective):
    """Loss ``pair_loss(r(y) - r(y'))`` of independent pairs, invariant to a shift of the reward."""

    form: ClassVar[Form] = "pairwise"
    up_to_constant: ClassVar[bool] = True

    def pair_loss(self, d: Array) -> Array:
        """Loss of the reward difference ``d``: convex, decreasing at 0."""
        raise NotImplementedError

    def missing(self, part: str) -> str | None:
        """As :meth:`Objective.missing`; a pairwise payoff under p x pi is not a separable game."""
        if part == "saddle" and part not in self.absent:
            return "its payoff is a mean over pairs p x pi, not E_p[a] + E_pi[b]; use equilibrium"
        part = "loss" if part == "risk" else part
        if part in self.absent:
            return self.absent[part]
        if part == "loss" and not self._defines("pair_loss"):
            return "the definition gives no pair_loss"
        if part == "reward" and self._defines("pair_loss"):
            return None  # without a link, Newton's method on the pairs
        return super().missing(part)

    def _best_response(self, p: FloatArray, q: FloatArray, **extras: Any) -> FloatArray:
        if self.has_link:
            return super()._best_response(p, q, **extras)
        from theory.objectives.pair_response import best_response

        return best_response(p[..., :, None] * q[..., None, :], self.pair_loss)

    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.pair_loss(r_y - r_own)

    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        pairs = self.pair_loss(r_y[..., :, None] - r_own[..., None, :])
        return xp.weighted_mean(xp.weighted_mean(pairs, _pair(w_own, r_own)), w_y)


@dataclasses.dataclass(frozen=True)
class Group(Objective):
    """Risk of all rewards of a prompt at once; there is no loss per pair."""

    form: ClassVar[Form] = "group"

    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        """Risk of rewards (..., G) and (..., K) under the weights (None is uniform)."""
        raise NotImplementedError

    def missing(self, part: str) -> str | None:
        """As :meth:`Objective.missing`; a group objective has a risk in place of a loss."""
        if part == "loss" and part not in self.absent:
            return "a group objective needs all responses of a prompt at once; use risk"
        if part == "risk" and part not in self.absent and not self._defines("group_risk"):
            return "the definition gives no group_risk"
        return super().missing(part)

    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        return self.group_risk(r_y, r_own, w_y, w_own)


def _pair(weight: Array | None, like: Array) -> Array | None:
    return None if weight is None else weight[..., None, :]
