"""Pairwise objectives: losses of reward differences, invariant to a shift (T3)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from theory import laws, xp
from theory.objectives import conic, pair_response
from theory.objectives.definition import Array
from theory.objectives.forms import Pairwise
from theory.objectives.pointwise import ToReverseKL
from theory.objectives.registry import register
from theory.result import FloatArray


class Logistic(ToReverseKL, Pairwise):
    """Shared by the pairwise logistic objectives."""

    def pair_loss(self, d: Array) -> Array:
        return xp.softplus(-d)


@register("spin")
class Spin(Logistic):
    """Pairwise logistic loss of expert against own response."""

    source = "paper"
    citation = "SPIN, arXiv 2401.01335, eq. 4.7 (its lambda is beta here)"


@register("dpo")
class Dpo(Logistic):
    """SPIN's loss on preference pairs (winner, loser)."""

    source = "paper"
    citation = "DPO, arXiv 2305.18290, eq. 7"
    notes = (
        "The link u is that of independent winner and loser; on pairs of one comparison the best "
        "response solves E_{y'~pi_t} s(r(y) - r(y')) = P(y > pi_t) instead (T11)."
    )


@register("spin_hinge")
class SpinHinge(Pairwise):
    """SPIN with the hinge loss ``max(0, 1 - d)``."""

    source = "paper"
    citation = "SPIN, arXiv 2401.01335 (its list of losses)"
    absent: ClassVar[dict[str, str]] = {
        "link": "the best response is a staircase, the solution of a linear program",
        "reward": "the best response is a staircase, a linear program with many solutions",
    }

    def pair_loss(self, d: Array) -> Array:
        return xp.relu(1.0 - d)


@register("spin_exponential")
class SpinExponential(Pairwise):
    """SPIN with the exponential loss ``e^{-d}``."""

    source = "paper"
    citation = "SPIN, arXiv 2401.01335 (its list of losses)"
    potential_name = "KL(pi||p)/2"

    def pair_loss(self, d: Array) -> Array:
        return xp.exp(-d)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return 0.5 * u

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return 0.5 * laws.kl_stable(policy, expert)

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(0.5, conic.kl(policy, expert))


class SquaredMargin(Pairwise):
    """Shared by the pairwise squared losses: ``R = kappa tanh(u/2)``, ``kappa = m/(1+Delta/2)``."""

    margin: float
    absent: ClassVar[dict[str, str]] = {
        "potential": "the step kappa_t changes with Delta_t: descent on 2 KL(p||(p+pi)/2) (T9)"
    }

    def pair_loss(self, d: Array) -> Array:
        return xp.square(d - self.margin)

    def gain(self, delta: Array) -> Array:
        """``kappa`` at triangular discrimination ``delta`` (T9), in [m/2, m]."""
        return self.margin / (1.0 + 0.5 * delta)

    def preference_response(self, preference: FloatArray, law: FloatArray) -> FloatArray:
        """``m (2P(y > law) - 1)``: no kappa, because the pairs of a preference are dependent."""
        win = (preference @ law[..., None])[..., 0]
        lose = (np.swapaxes(preference, -1, -2) @ law[..., None])[..., 0]
        return np.asarray(self.margin * (win - lose))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        """Potential at gain kappa = 1; the fixed point multiplies it by its own kappa (T9)."""
        return conic.scaled(2.0, conic.kl(expert, 0.5 * (expert + policy)))


@register("ipo")
class Ipo(SquaredMargin):
    """Pairwise squared loss ``(d - margin)^2``."""

    margin: float = 1.0
    positive = ("margin",)
    source = "paper"
    citation = "IPO, arXiv 2310.12036, eq. 17 (margin = 1/2 in units of the implicit reward)"


@register("inpo")
class Inpo(SquaredMargin):
    """IPO on the anchored reward ``beta log pi/pi_t + tau log pi/pi_ref``."""

    margin: float = 0.5
    needs = frozenset({"anchor"})
    positive = ("margin",)
    source = "paper"
    citation = "INPO, arXiv 2407.00617 (its eta is beta + tau here; formula from a secondary note)"


@register("tspin")
class Tspin(Pairwise):
    """Reference-free logistic loss with a history term; its alpha is beta here.

    ``l(r_y - r_y') + history_weight l(r_y' - r_0)`` with ``r = beta log pi`` and y0 ~ pi_0.
    """

    history_weight: float = 0.1
    needs = frozenset({"history"})
    source = "paper"
    citation = "T-SPIN, arXiv 2601.08198 (formula from its prose)"
    notes = "With history_weight 0 the fixed point is proportional to p^(1/(1+beta)), not p."
    reference_free = True
    optional_extras = ("history_law",)
    absent: ClassVar[dict[str, str]] = {
        "link": "reference-free: no KL step from pi_t, so no best response followed by a step",
        "reward": "reference-free, and the history term adds a third law; use one_step",
    }

    def pair_loss(self, d: Array) -> Array:
        return xp.softplus(-d)

    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        history = self.history_weight * self.pair_loss(r_own - extras["r_history"])
        return self.pair_loss(r_y - r_own) + history

    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        r_0, w_0 = extras["r_history"], extras.get("history_law")
        first = super().reward_risk(r_y, r_own, w_y, w_own)
        return first + self.history_weight * super().reward_risk(r_own, r_0, w_own, w_0)

    def reference_free_response(
        self, expert: FloatArray, policy: FloatArray, history: FloatArray | None = None
    ) -> FloatArray:
        pairs = expert[..., :, None] * policy[..., None, :]
        if history is not None:
            pairs = pairs + self.history_weight * policy[..., :, None] * history[..., None, :]
        return pair_response.of_pairs(pairs, self.pair_loss)


@register("alpha_spin")
class AlphaSpin(Logistic):
    """SPIN against the geometric mixture ``pi_t^(1-w) base^w`` of the current law and the base."""

    base_weight: float = 0.5
    unit = ("base_weight",)
    citation = "alpha-SPIN, arXiv 2404.04291 (abstract only)"
    notes = (
        "Fixed point p^(1/beta) base^((1-1/beta) w), to a power: p only if beta = 1 or base = p."
    )
    absent: ClassVar[dict[str, str]] = {
        "potential": "the rounds start from the mixture, not from pi_t",
        "equilibrium": "the fixed point depends on beta and on the base, unlike a game's",
    }

    def opponent(self, log_current: Array, log_initial: Array, log_base: Array) -> Array:
        mixed = (1.0 - self.base_weight) * log_current + self.base_weight * log_base
        return xp.log_normalise(mixed)
