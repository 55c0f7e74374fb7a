"""Objectives that see reward differences only: pairwise and group (shift-invariant, T3, T17)."""

from __future__ import annotations

from typing import Any, ClassVar

from theory import laws, xp
from theory.errors import InvalidInput
from theory.objectives import conic
from theory.objectives.base import Array
from theory.objectives.forms import Group, Pairwise
from theory.objectives.pointwise import ChiSquareMixture
from theory.objectives.registry import register
from theory.result import FloatArray


class Logistic(Pairwise):
    """Shared by the pairwise logistic objectives: link ``u``, potential ``KL(pi||p)``."""

    potential_name = "KL(pi||p)"

    def pair_loss(self, d: Array) -> Array:
        return xp.softplus(-d)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return u

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return laws.kl_stable(policy, expert)

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.kl(policy, expert)


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

    def kappa(self, delta: Array) -> Array:
        """Gain of the link at triangular discrimination ``delta`` (T9), in [m/2, m]."""
        return self.margin / (1.0 + 0.5 * delta)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        if delta is None:
            raise InvalidInput(f"{self.name}: its link needs delta = Delta(p, q), within [0, 2]")
        return self.kappa(delta) * xp.tanh(0.5 * u)

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


@register("centred_spif")
class CentredSpif(ChiSquareMixture, Group):
    """SPIF with a per-prompt baseline ``(E_p r + E_pi r)/2``: shift-invariant (T17)."""

    c: float = 1.0
    positive = ("c",)
    up_to_constant = True
    citation = "reconstruction, T17 (c times its L)"
    potential_name = "(2/c) KL(p||(p+pi)/2)"
    alpha = 0.5

    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        gap = xp.weighted_mean(r_y, w_y) - xp.weighted_mean(r_own, w_own)
        spread = 0.5 * (_variance(r_y, w_y) + _variance(r_own, w_own))
        return self.c * (spread + xp.square(0.5 * gap - 1.0 / self.c))


@register("renyi")
class Renyi(Group):
    """Renyi variational risk ``log E_p e^{-(1-a) r}/(1-a) + log E_pi e^{a r}/a``, a = order."""

    order: float = 0.5
    unit = ("order",)
    up_to_constant = True
    citation = "IRIS, arXiv 2604.20933 (abstract); Birrell et al., arXiv 2007.03814"
    notes = "IRIS adapts its order during training by a rule not known here; fixed order here."
    potential_name = "KL(pi||p)"
    absent: ClassVar[dict[str, str]] = {
        "loss": "a log of means, not a mean over examples; use risk",
        "saddle": "the value is a log of means, not separable over outcomes",
    }

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return u

    potential_formula = Logistic.potential_formula
    conic_potential = Logistic.conic_potential

    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        k = self.order
        on_expert = _log_mean_exp(-(1.0 - k) * r_y, w_y) / (1.0 - k)
        return on_expert + _log_mean_exp(k * r_own, w_own) / k


def _variance(r: Array, weight: Array | None) -> Array:
    mean = xp.weighted_mean(r, weight)
    return xp.weighted_mean(xp.square(r - xp.namespace(r).expand_dims(mean, axis=-1)), weight)


def _log_mean_exp(x: Array, weight: Array | None) -> Array:
    namespace = xp.namespace(x, weight)
    weight = namespace.ones_like(x) if weight is None else weight
    x, weight = namespace.broadcast_arrays(x, weight)
    low = namespace.full_like(x, -float("inf"))
    seen = weight > 0
    log_weight = namespace.where(seen, namespace.log(namespace.where(seen, weight, 1.0)), low)
    share = log_weight - namespace.expand_dims(xp.logsumexp(log_weight), axis=-1)
    return xp.logsumexp(namespace.where(seen, x + share, low))
