"""The three forms of an objective: what a definition derives from."""

from __future__ import annotations

import dataclasses
from functools import lru_cache, partial
from typing import Any, ClassVar

import numpy as np

from theory import laws, xp
from theory.errors import Unavailable
from theory.objectives import derivatives, finite_groups, pair_response, risk_response
from theory.objectives.base import Objective
from theory.objectives.definition import Array, Form, Options, formula
from theory.result import FloatArray

Written = dict[str, Options]


@dataclasses.dataclass(frozen=True)
class Pointwise(Objective):
    """Separable objective ``max_r E_p[a(r)] + E_q[b(r)]``; loss ``-a(r_y) - b(r_y')``."""

    form: ClassVar[Form] = "pointwise"
    written: ClassVar[Written] = Objective.written | {
        "link": (("link_formula",), ("a", "b")),
        "loss": (("a", "b"), ("expert_term", "policy_term")),
    }

    @formula
    def link_formula(self, u: Array, delta: Array | None) -> Array:
        """Solve ``log(-b'(r)/a'(r)) = u`` numerically (T1) where no closed form is written."""
        return derivatives.invert_link(self.a, self.b, u, self.reward_domain)

    @formula
    def expert_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an expert response: ``-a(r)``."""
        return -self.a(r)

    @formula
    def policy_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an own response: ``-b(r)``."""
        return -self.b(r)

    @formula
    def slope_range(self) -> tuple[float, float]:
        """``(mu, L)`` of the link; of one solved from the payoffs, as far as they resolve it."""
        if self.writes("link_formula"):
            return super().slope_range()
        of, domain = (self.a, self.b), self.reward_domain
        return derivatives.slope_range(
            self.link_at_equal_laws,
            partial(derivatives.log_odds, *of, domain=domain),
            derivatives.held_from(*of, domain),
        )

    def pulls(
        self, reward: FloatArray, expert: FloatArray, policy: FloatArray, rows: Any = None
    ) -> tuple[Any, FloatArray, FloatArray]:
        """From the payoffs, (..., n); masses may be any measure's."""
        if self.missing("saddle"):
            return super().pulls(reward, expert, policy, rows)
        sides = ((self.a, expert), (self.b, policy))
        with np.errstate(all="ignore"):
            pulls = [np.where(m > 0, -m * derivatives.derivative(f, reward), 0.0) for f, m in sides]
        return None, pulls[0], pulls[1]

    @formula
    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.expert_term(r_y, **extras) + self.policy_term(r_own, **extras)

    @formula
    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        on_expert = xp.weighted_mean(self.expert_term(r_y, **extras), w_y)
        return on_expert + xp.weighted_mean(self.policy_term(r_own, **extras), w_own)


@dataclasses.dataclass(frozen=True)
class Relative(Objective):
    """What the pairwise and the group form share: without a link, the risk is minimised."""

    def _slope_of_risk(self) -> float:
        """``R'(0) = -A/V`` from the risk ``F`` at equal laws (:func:`slope_of_risk`)."""
        try:
            return risk_response.slope_of_risk(self.reward_risk)
        except ValueError as error:
            raise Unavailable(f"{self.name} has no slope at zero: {error}") from None


@dataclasses.dataclass(frozen=True)
class Pairwise(Relative):
    """Loss ``pair_loss(r(y) - r(y'))`` of independent pairs, invariant to a shift of the reward."""

    form: ClassVar[Form] = "pairwise"
    written: ClassVar[Written] = Objective.written | {
        "loss": (("pair_loss",),),
        "reward": (("link_formula",), ("gain",), ("pair_loss",)),
    }
    follows: ClassVar[dict[str, str]] = {
        part: other for part, other in Objective.follows.items() if part != "reward"
    }
    never: ClassVar[dict[str, str]] = {
        "saddle": "its payoff is a mean over pairs p x pi, not E_p[a] + E_pi[b]; use equilibrium"
    }
    numeric: ClassVar[tuple[str, ...]] = ("pair_loss",)

    @formula
    def pair_loss(self, d: Array) -> Array:
        """Loss of the reward difference ``d``: convex, decreasing at 0."""
        raise NotImplementedError

    @property
    def up_to_constant(self) -> bool:
        return True

    @formula
    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.pair_loss(r_y - r_own)

    @formula
    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        pairs = self.pair_loss(r_y[..., :, None] - r_own[..., None, :])
        return xp.weighted_mean(xp.weighted_mean(pairs, _pair(w_own)), w_y)

    def pulls(
        self, reward: FloatArray, expert: FloatArray, policy: FloatArray, rows: Any = None
    ) -> tuple[Any, FloatArray, FloatArray]:
        """From the slopes of the loss at all pairs (:func:`pulls_of_pairs`)."""
        if self.writes("reward_risk") or not self.writes("pair_loss"):
            return super().pulls(reward, expert, policy, rows)
        return pair_response.pulls_of_pairs(self.pair_loss, reward, expert, policy, rows)

    @formula
    def best_response(self, expert: FloatArray, policy: FloatArray, **extras: Any) -> FloatArray:
        """(..., n) by the link, or without one by Newton's method on all pairs."""
        if self.has_link:
            return super().best_response(expert, policy, **extras)
        return pair_response.of_laws(expert, policy, self.pair_loss)

    @formula
    def preference_response(self, preference: FloatArray, law: FloatArray) -> FloatArray:
        """Winner and loser of a comparison are dependent: Newton's method on their pairs (T11)."""
        return pair_response.of_preference(preference, law, self.pair_loss, self.name)

    @formula
    def reference_free_response(
        self, expert: FloatArray, policy: FloatArray, history: FloatArray | None = None
    ) -> FloatArray:
        """Of the pairs alone, (..., n); a history term is the definition's own."""
        if history is not None:
            raise Unavailable(f"{self.name} has no one-step round: its history term is not known")
        return pair_response.of_laws(expert, policy, self.pair_loss)

    def log_odds(
        self, r: FloatArray, reward: FloatArray, expert: FloatArray, policy: FloatArray
    ) -> FloatArray:
        """``u = log sum_j p_j (-l'(r_j - r)) / sum_j q_j (-l'(r - r_j))``.

        The stationarity of an outcome of masses ``p, q`` and reward ``r`` beside the rewards
        ``r_j``. For convex ``l`` the numerator increases in ``r`` and the denominator decreases, so
        ``u`` increases: below the interval where both are positive the reward is too low, above it
        too high.
        """
        far = np.clip(np.where(np.isnan(reward), 0.0, reward), -1e6, 1e6)
        d = np.asarray(r)[..., :, None] - far[..., None, :]
        up = -(expert[..., None, :] * derivatives.derivative(self.pair_loss, -d)).sum(-1)
        down = -(policy[..., None, :] * derivatives.derivative(self.pair_loss, d)).sum(-1)
        with np.errstate(all="ignore"):
            return np.where((up > 0) & (down > 0), np.log(up) - np.log(down), np.nan)


@dataclasses.dataclass(frozen=True)
class Group(Relative):
    """Risk of all rewards of a prompt at once; there is no loss per pair."""

    form: ClassVar[Form] = "group"
    written: ClassVar[Written] = Objective.written | {
        "risk": (("group_risk",),),
        "reward": (("link_formula",), ("gain",), ("group_risk",)),
    }
    follows: ClassVar[dict[str, str]] = {"potential": "link", "equilibrium": "reward"}
    never: ClassVar[dict[str, str]] = {
        "loss": "a group objective needs all responses of a prompt at once; use risk"
    }
    numeric: ClassVar[tuple[str, ...]] = ("group_risk",)

    @formula
    def group_risk(self, r_y: Array, r_own: Array, w_y: Array | None, w_own: Array | None) -> Array:
        """Risk of rewards (..., G) and (..., K) under the weights (None is uniform)."""
        raise NotImplementedError

    @property
    def up_to_constant(self) -> bool:
        """Whether the risk stays the same when all rewards shift, by its own numbers."""
        return self.missing("risk") is not None or _shift_invariant(self)

    @formula
    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        return self.group_risk(r_y, r_own, w_y, w_own)

    @formula
    def best_response(self, expert: FloatArray, policy: FloatArray, **extras: Any) -> FloatArray:
        """(..., n) by the link, or without one by Newton's method on the risk."""
        if self.has_link:
            return super().best_response(expert, policy, **extras)
        return risk_response.of_risk(self.reward_risk, expert, policy, self.up_to_constant)

    def _reward_of_rates(self, win: FloatArray, lose: FloatArray, law: FloatArray) -> FloatArray:
        """By the link, or without one the best response to the laws of winners and losers."""
        if self.has_link:
            return super()._reward_of_rates(win, lose, law)
        marginals = 2.0 * law * win, 2.0 * law * lose
        r = self.reward(*marginals)
        if law.all():
            return r
        # what was never drawn gets the reward of its win rate beside the others
        return np.where(
            law > 0, r, self.link_of(*marginals)(laws.log_law(win) - laws.log_law(lose))
        )

    @formula
    def finite_group_reward(
        self, expert: FloatArray, policy: FloatArray, expert_size: float, own_size: float
    ) -> FloatArray:
        """By Newton's method on the mean of the risk over all groups (:mod:`finite_groups`)."""
        finite_groups.check_sizes(expert_size, own_size)
        p, q = laws.check_laws(expert=expert, policy=policy)
        sizes = expert_size, own_size
        try:
            found = finite_groups.best_response_to_groups(
                self.reward_risk, p, q, self.reward, *sizes, self.up_to_constant
            )
        except ValueError as error:
            raise Unavailable(
                f"{self.name} has no best response to finite groups: {error}; the exact laws' is "
                "another one, and the definition writes no finite_group_reward"
            ) from None
        return self.centred(found, p, q)

    def log_odds(
        self, r: FloatArray, reward: FloatArray, expert: FloatArray, policy: FloatArray
    ) -> FloatArray:
        """(..., m), from the slopes of the risk in one more expert and one more own response."""
        return risk_response.log_odds_of_risk(self.reward_risk, r, reward, expert, policy)


@lru_cache(maxsize=256)
def _shift_invariant(obj: Objective) -> bool:
    """T3: the risk does not change when all rewards of a prompt shift by one number."""
    return not risk_response.level_is_seen(obj.reward_risk)


def _pair(weight: Array | None) -> Array | None:
    return None if weight is None else weight[..., None, :]
