"""Pointwise objectives: payoffs ``a`` and ``b``, link, potential, conic forms of each."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from theory import laws, xp
from theory.objectives import conic
from theory.objectives.base import Objective
from theory.objectives.definition import Array
from theory.objectives.forms import Pointwise
from theory.objectives.registry import register
from theory.result import FloatArray


class ToReverseKL(Objective):
    """Shared by the objectives whose link is ``u`` (+ const): potential ``KL(pi||p)``."""

    potential_name = "KL(pi||p)"

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return u

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return laws.kl_stable(policy, expert)

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.kl(policy, expert)


class ChiSquareMixture(Objective):
    """Shared by SPIF and centred SPIF: the game of the chi^2 penalty on the mixture."""

    c: float
    alpha: float

    def a(self, r: Array) -> Array:
        return r - self.c * self.alpha * xp.square(r)

    def b(self, r: Array) -> Array:
        return -r - self.c * (1 - self.alpha) * xp.square(r)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        t = xp.tanh(0.5 * u)  # e^u = (1+t)/(1-t) turns (e^u-1)/(2c(alpha e^u+1-alpha)) into:
        return t / (self.c * (1.0 + (2.0 * self.alpha - 1.0) * t))

    def density_link(self, expert: FloatArray, policy: FloatArray, delta: Any) -> FloatArray:
        mixture = expert * (2.0 * self.c * self.alpha)
        mixture += policy * (2.0 * self.c * (1.0 - self.alpha))
        return np.asarray(np.divide(expert - policy, mixture, out=mixture))

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        mixture = self.alpha * expert + (1 - self.alpha) * policy
        return laws.kl_stable(expert, mixture) / (2 * self.c * (1 - self.alpha) ** 2)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        mixture = self.alpha * expert + (1 - self.alpha) * policy
        return conic.scaled(0.25 / self.c, conic.squared_over(expert - policy, mixture))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        mixture = self.alpha * expert + (1 - self.alpha) * policy
        return conic.scaled(0.5 / (self.c * (1 - self.alpha) ** 2), conic.kl(expert, mixture))


@register("spif")
class Spif(ChiSquareMixture, Pointwise):
    """chi^2 mixture penalty: ``a = r - c alpha r^2``, ``b = -r - c (1 - alpha) r^2``."""

    c: float = 1.0
    alpha: float = 0.5
    positive = ("c",)
    unit = ("alpha",)
    citation = "arXiv 2602.01357 (abstract: chi^2 variational objective); LS-IQ, arXiv 2303.00599"
    notes = (
        "Only the abstract is known: the loss is reconstructed from LS-IQ's mixture penalty. "
        "A loss in code of the first author is this one with c = 2.02 or 1.01 at beta = 0.1 "
        "(github.com/TobyLeelsz/reasoning-distillation-flowrl, branch sft_reward_model, commit "
        "d1c2931): beyond the local threshold, effective step 2.48 or 4.95."
    )
    potential_name = "KL(p||alpha p+(1-alpha)pi)/(2c(1-alpha)^2)"


@register("iq_learn")
class IqLearn(Pointwise):
    """chi^2 penalty on the expert only: ``a = r - c r^2``, ``b = -r``."""

    c: float = 1.0
    positive = ("c",)
    source = "paper"
    citation = "IQ-Learn, arXiv 2106.12142 (phi(x) = x - x^2/(4 alpha), c = 1/(4 alpha))"
    potential_name = "Pearson chi^2(pi||p)/(4c)"

    def a(self, r: Array) -> Array:
        return r - self.c * xp.square(r)

    def b(self, r: Array) -> Array:
        return -r

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return -xp.expm1(-u) / (2 * self.c)

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return laws.pearson(policy, expert) / (4 * self.c)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.weighted_squares(policy - expert, 0.25 / (self.c * np.asarray(expert)))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return self.conic_game(expert, policy)


@register("policy_only")
class PolicyOnly(Pointwise):
    """chi^2 penalty on own responses only: ``a = r``, ``b = -r - c r^2``."""

    c: float = 1.0
    positive = ("c",)
    citation = "the mirror image of IQ-Learn's penalty (for comparison)"
    potential_name = "KL(p||pi)/(2c)"

    def a(self, r: Array) -> Array:
        return r

    def b(self, r: Array) -> Array:
        return -r - self.c * xp.square(r)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return xp.expm1(u) / (2 * self.c)

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return laws.kl_stable(expert, policy) / (2 * self.c)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(0.25 / self.c, conic.squared_over(expert - policy, policy))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(0.5 / self.c, conic.kl(expert, policy))


@register("nwj")
class Nwj(ToReverseKL, Pointwise):
    """KL variational bound: ``a = r``, ``b = -e^{r-1}``."""

    source = "paper"
    citation = "Nguyen, Wainwright, Jordan, arXiv 0809.0853"

    def a(self, r: Array) -> Array:
        return r

    def b(self, r: Array) -> Array:
        return -xp.exp(r - 1.0)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return 1.0 + u

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.kl(expert, policy)


@register("exponential")
class Exponential(Pointwise):
    """``a = -e^{-r}``, ``b = -e^r`` (boosting; game value ``-2 sum sqrt(p pi)``)."""

    citation = "exponential loss of boosting as a density-ratio game"
    potential_name = "KL(pi||p)/2"

    def a(self, r: Array) -> Array:
        return -xp.exp(-r)

    def b(self, r: Array) -> Array:
        return -xp.exp(r)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return 0.5 * u

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return 0.5 * laws.kl_stable(policy, expert)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(-2.0, conic.root_product(expert, policy))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(0.5, conic.kl(policy, expert))


@register("gail")
class Gail(Pointwise):
    """GAIL with reward ``-log(1 - D)``: ``a = log(1 - e^{-r})``, ``b = -r``, ``r >= 0``."""

    source = "paper"
    citation = "Ho and Ermon, arXiv 1606.03476"
    absent: ClassVar[dict[str, str]] = {
        "loss": "the implicit reward starts at r = 0, where log(1 - e^-r) is -inf; use the rounds"
    }
    potential_name = "2 JS(pi,p)"

    def a(self, r: Array) -> Array:
        return xp.log(-xp.expm1(-r))

    def b(self, r: Array) -> Array:
        return -r

    @property
    def reward_domain(self) -> tuple[float, float]:
        return 0.0, math.inf

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return xp.softplus(u)

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return 2.0 * laws.js(policy, expert)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        total = expert + policy
        return conic.plus(conic.kl(expert, total), conic.kl(policy, total))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        value, constraints = self.conic_game(expert, policy)
        return value + 2.0 * math.log(2.0), constraints


@register("airl")
class Airl(ToReverseKL, Pointwise):
    """Pointwise logistic: ``a = log s(r)``, ``b = log s(-r)`` (game value ``2 JS - 2 log 2``)."""

    source = "paper"
    citation = "Fu, Luo, Levine, arXiv 1710.11248; logistic density-ratio estimation"

    def a(self, r: Array) -> Array:
        return xp.log_sigmoid(r)

    def b(self, r: Array) -> Array:
        return xp.log_sigmoid(-r)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        total = expert + policy
        return conic.plus(conic.kl(expert, total), conic.kl(policy, total))


@register("space")
class Space(ToReverseKL, Pointwise):
    """NCE with ratio ``mu``: ``a = log s_mu(r)``, ``b = mu log s_{1/mu}(-r)``."""

    mu: float = 1.0
    positive = ("mu",)
    source = "paper"
    citation = "SPACE, arXiv 2512.07175 (formula from a secondary note)"
    notes = (
        "Published without a beta; with r = beta log-ratio the link is u for every beta, "
        "but one loss on one model is exact at beta = 1 only."
    )

    def a(self, r: Array) -> Array:
        return -xp.softplus(math.log(self.mu) - r)  # s_mu(x) = 1/(1 + mu e^-x)

    def b(self, r: Array) -> Array:
        return -self.mu * xp.softplus(r - math.log(self.mu))

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        total = expert + self.mu * policy
        return conic.plus(conic.kl(expert, total), conic.kl(self.mu * policy, total))


@register("brier")
class Brier(ToReverseKL, Pointwise):
    """Brier score of ``s(r)``: ``a = -(1 - s(r))^2``, ``b = -s(r)^2``."""

    source = "paper"
    citation = "GSIL, arXiv 2410.10093 (its Brier loss)"
    notes = (
        "a and b are not concave in r, so the loss is not convex; they are concave in s(r), so "
        "the best response is unique (r = u) and the saddle point exists. GSIL adds an offset to "
        "the implicit reward (starts at r = 2, not 0), which is left out here."
    )

    def a(self, r: Array) -> Array:
        return -xp.square(xp.sigmoid(-r))

    def b(self, r: Array) -> Array:
        return -xp.square(xp.sigmoid(r))

    def concave_in(self, r: Array) -> Array:
        """The probability ``s(r)``."""
        return xp.sigmoid(r)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        # -sum p pi/(p+pi), as 4 p pi/(p+pi) = (p+pi) - (p-pi)^2/(p+pi)
        value, cones = conic.squared_over(expert - policy, expert + policy)
        import cvxpy as cp

        return 0.25 * (value - cp.sum(policy) - np.sum(expert)), cones


@register("ipm")
class Ipm(Pointwise):
    """Hard-bounded integral probability metric: ``a = r``, ``b = -r``, ``|r| <= bound``."""

    bound: float = 1.0
    positive = ("bound",)
    source = "paper"
    citation = "Mueller 1997; Wasserstein-type imitation"
    absent: ClassVar[dict[str, str]] = {
        "loss": "the bound on r is a constraint; the loss itself is linear and has no minimum"
    }
    potential_name = "2 bound TV(pi,p)"

    def a(self, r: Array) -> Array:
        return r

    def b(self, r: Array) -> Array:
        return -r

    @property
    def reward_domain(self) -> tuple[float, float]:
        return -self.bound, self.bound

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return self.bound * xp.sign(u)

    def slope_range(self) -> tuple[float, float]:
        return 0.0, math.inf  # a jump at 0

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        return 2.0 * self.bound * laws.total_variation(policy, expert)

    def conic_game(self, expert: Any, policy: Any) -> conic.Conic:
        return conic.scaled(self.bound, conic.absolute(expert - policy))

    def conic_potential(self, expert: Any, policy: Any) -> conic.Conic:
        return self.conic_game(expert, policy)


@register("sppo")
class Sppo(Pointwise):
    """Squared loss to ``P(y > pi_t) - 1/2``; hard labels give pointwise SPIF with c = 2."""

    needs = frozenset({"preference"})
    source = "paper"
    citation = "SPPO, arXiv 2405.00675, eq. 4.7 (its eta is 1/beta here)"
    notes = "link(u) reads u = logit P(y > pi_t); a and b are the hard-label (P in {0, 1}) case."
    absent: ClassVar[dict[str, str]] = {
        "saddle": "its equilibrium is a Nash equilibrium of the preference: preferences.nash",
        "potential": "a general preference gives a skew operator without a potential (T12)",
    }

    def a(self, r: Array) -> Array:
        return -xp.square(r - 0.5)

    def b(self, r: Array) -> Array:
        return -xp.square(r + 0.5)

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        return 0.5 * xp.tanh(0.5 * u)

    def expert_term(self, r: Array, **extras: Any) -> Array:
        return xp.square(r - (extras["expert_preference"] - 0.5))

    def policy_term(self, r: Array, **extras: Any) -> Array:
        return xp.square(r - (extras["policy_preference"] - 0.5))

    def best_response(self, expert: FloatArray, policy: FloatArray, **extras: Any) -> FloatArray:
        total = np.where(expert + policy > 0, expert + policy, 1.0)
        wins = expert * extras["expert_preference"] + policy * extras["policy_preference"]
        return np.asarray(wins / total - 0.5)
