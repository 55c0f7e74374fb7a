"""What an objective is: a few formulas from which everything else is derived.

A definition derives from one of three forms (:mod:`theory.objectives.forms`) and writes formulas
(:mod:`theory.objectives.definition`):

* ``Pointwise``: the reward player's payoffs ``a(r)`` on expert and ``b(r)`` on own responses;
* ``Pairwise``: a loss ``pair_loss(d)`` of the reward difference ``d = r(y) - r(y')``;
* ``Group``: a risk ``group_risk`` of all rewards of a prompt at once;

and, where known, the reward link ``link_formula(u)``, the potential and two conic forms. What is
not written is derived here where it can be: the link of payoffs, the best response to a pair loss
or a group risk, the potential; and the losses of log-ratios.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from theory import laws, xp
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import derivatives, finite_groups, inputs, pair_response, risk_response
from theory.objectives.definition import Array, Definition, formula
from theory.objectives.implicit import of_logratios
from theory.result import FloatArray

ANCHOR = ("tau", "expert_anchor", "policy_anchor")
PREFERENCE = ("expert_preference", "policy_preference")
HISTORY = ("history_logratio",)
_EXTRAS = {"anchor": ANCHOR, "preference": PREFERENCE, "history": HISTORY}


@dataclasses.dataclass(frozen=True)
class Objective(Definition):
    """A self-play objective: what follows from its formulas; parameters are dataclass fields."""

    # -- best responses that a definition may write itself ------------------------------------

    def pulls(
        self,
        reward: FloatArray,
        expert: FloatArray,
        policy: FloatArray,
        rows: pair_response.IndexArray | None = None,
    ) -> tuple[pair_response.IndexArray | None, FloatArray, FloatArray]:
        """Gradient of the risk in the rewards of expert and of own responses, unchecked.

        Args:
            reward: (..., n), nats. expert, policy: laws (..., n).
            rows: outcomes (..., m) to look at; None is all, or as many as are cheap.

        Returns:
            The outcomes that were looked at (None: all), and both gradients (..., m or n).
        """
        self.require("risk")
        _, up, down = risk_response.risk_gradient(self.reward_risk, reward, expert, policy)
        return None, up, down

    @formula
    def best_response(self, expert: FloatArray, policy: FloatArray, **extras: Any) -> FloatArray:
        """:meth:`reward` (..., n) of valid laws by the link, up to a constant if that is free."""
        delta = laws.triangular(expert, policy)[..., None]
        return np.asarray(self.link(laws.log_ratio(expert, policy), delta))

    @formula
    def preference_response(self, preference: FloatArray, law: FloatArray) -> FloatArray:
        """Best response to pairs of a general preference ``(..., n, n)`` drawn from ``law`` (T11).

        Pointwise and group objectives see only the marginals of winner and loser, whose log-ratio
        is ``logit P(y > law)``.
        """
        win = (preference @ law[..., None])[..., 0]
        lose = (np.swapaxes(preference, -1, -2) @ law[..., None])[..., 0]
        r = self._reward_of_rates(win, lose, law)
        # winner and loser laws have the mean pi, so E_pi is the mean over both
        return r - laws.expect(law, r)[..., None] if self.up_to_constant else r

    def _reward_of_rates(self, win: FloatArray, lose: FloatArray, law: FloatArray) -> FloatArray:
        """Up to a constant where that is free, from each outcome's rates against ``law``."""
        return np.asarray(self.link(laws.log_law(win) - laws.log_law(lose)))

    @formula
    def finite_group_reward(
        self, expert: FloatArray, policy: FloatArray, expert_size: float, own_size: float
    ) -> FloatArray:
        """Best response (..., n) to the expected risk of groups of G expert and K own responses.

        A risk that is a mean over responses or pairs has the expectation of the exact laws, so it
        is :meth:`reward`; a group risk has plug-in estimates in it, whose error is learned too.

        Raises:
            Unavailable: no closed form is known, with the reason. InvalidInput: laws or sizes.
        """
        finite_groups.check_sizes(expert_size, own_size)
        return self.reward(expert, policy)

    # -- the link and what follows from it -------------------------------------------------------

    def link(self, u: Array, delta: Array | None = None) -> Array:
        """Reward link ``R(u)`` of log density ratios ``u`` (nats; +-inf gives the limit).

        Args:
            u: any shape, numpy, torch or a number.
            delta: ``Delta(p, q)``, broadcastable against ``u``; only links with a gain need it.

        Raises:
            Unavailable: if the objective has no link, with the reason. InvalidInput: u or delta.
        """
        self.require("link")
        u = inputs.numbers(u, "u")
        if delta is not None:
            delta = inputs.checked_delta(delta)
            refuse(inputs.shape_problems(u=u, delta=delta))
        return self.link_formula(u, delta)

    def link_of(self, expert: FloatArray, policy: FloatArray) -> Callable[[Any], FloatArray]:
        """The link for these laws ``(..., n)``, of any form: a function of ``u`` ``(..., m)``.

        Of the written link with its gain at ``Delta(p, q)``; of a pair loss or group risk without
        one, the reward that a further response of log-ratio ``u`` and no mass would get beside the
        best response, with ``E_policy[r] = 0`` (:func:`risk_response.log_odds_of_risk`).

        Raises:
            Unavailable: no best response exists. InvalidInput: laws.
        """
        self.require("reward")
        p, q = laws.check_laws(expert=expert, policy=policy)
        if self.has_link:
            delta = laws.triangular(p, q)[..., None]
            return lambda u: np.asarray(self.link(u, delta))
        reward = self.reward(p, q)
        inside = np.where((p > 0) & (q > 0), reward, np.nan)
        middle = np.nanmean(inside, axis=-1, keepdims=True)
        return lambda u: derivatives.invert(
            lambda r: self.log_odds(r, reward, p, q), np.asarray(u, dtype=np.float64), middle
        )

    def log_odds(
        self, r: FloatArray, reward: FloatArray, expert: FloatArray, policy: FloatArray
    ) -> FloatArray:
        """``u`` (..., m), nats, at which a further response would get reward ``r`` (..., m) beside
        ``reward`` (..., n); NaN: none."""
        raise Unavailable(f"{self.name} has no link of laws: it has one of u")

    def slope(self, u: Array, delta: Array | None = None) -> FloatArray:
        """Derivative ``R'(u)`` by automatic differentiation of the one link formula (numpy).

        Raises:
            Unavailable: no link, with the reason. InvalidInput: u, or not one delta for all.
        """
        self.require("link")
        if delta is not None and math.prod(np.shape(delta)) != 1:
            raise InvalidInput(f"delta={delta!r}; needed is one number for all of u")
        fixed = None if delta is None else float(np.asarray(inputs.checked_delta(delta)))
        u = inputs.detached(inputs.numbers(u, "u"))
        return derivatives.derivative(lambda v: self.link_formula(v, fixed), u)

    @property
    def slope_at_zero(self) -> float:
        """``R'(0)``: of every reward near ``p = q``, ``r = R'(0) u`` + const; inf at a jump.

        Raises:
            Unavailable: no best response, or none with a slope, with the reason.
        """
        self.require("reward")
        if not self.has_link:
            return self._slope_of_risk()
        step = 1e-9
        below, above, far = (float(self.link(u, 0.0)) for u in (-step, step, 1.0))
        *near, at_zero = self.slope(np.array([1e-3, 1e-6, step, 1e-12, 0.0]), np.asarray(0.0))
        if above - below - 2.0 * step * max(near) > 1e-6 * abs(far):
            return math.inf
        if np.isnan(near).any():
            raise Unavailable(f"{self.name} has no slope at zero: its link's derivative is NaN")
        left, right = self._secants()
        if abs(left - right) > 1e-3 * max(left, right) > 1e-7 * abs(far):
            sides = f"{left:.4g} on its left and {right:.4g} on its right"
            raise Unavailable(f"{self.name} has no slope at zero: its link has a corner, {sides}")
        if left == right == 0:  # a dead zone, of which payoffs with a corner tell a slope
            return 0.0
        end = derivatives.end_of(near, 1.5)
        slope = end if np.isnan(at_zero) or end in (0.0, math.inf) else float(at_zero)
        seen = (left + right) / 2.0
        if abs(slope - seen) <= 1e-3 * seen or not self._steady(seen):
            return slope
        # where two formulas meet, the derivative at the very point may be of neither side
        beside = (float(x) for x in reversed(near))
        return next((x for x in beside if abs(x - seen) <= 1e-3 * seen), seen)

    def _steady(self, slope: float) -> bool:
        """Whether it is that over a thousandth of a nat too, on both sides."""
        sides = self._secants(1e3 * derivatives.BESIDE)
        return max(abs(side - slope) for side in sides) <= 0.01 * slope

    def _secants(self, step: float = derivatives.BESIDE) -> tuple[float, float]:
        """Slopes of the link over a millionth of a nat on the left and on the right of 0."""
        below, at, above = (float(self.link(u, 0.0)) for u in (-step, 0.0, step))
        return (at - below) / step, (above - at) / step

    def _slope_of_risk(self) -> float:
        raise Unavailable(f"{self.name} has no slope at zero: {self.missing('link')}")

    def beta_at(self, effective_step: float) -> float:
        """``beta = R'(0)/effective_step``: rounds near the expert contract by ``1 - step``.

        Raises:
            Unavailable: the reward has no finite slope at 0, with the reason. InvalidInput: step.
        """
        if not (laws.is_real(effective_step) and 0 < float(effective_step) < math.inf):
            raise InvalidInput(f"effective_step={effective_step!r}; needed is a finite number > 0")
        slope = self.slope_at_zero
        if not math.isfinite(slope):
            raise Unavailable(f"{self.name} has no effective step: its link jumps at 0")
        if slope == 0:
            raise Unavailable(f"{self.name} has no effective step: its link is flat at 0")
        return slope / float(effective_step)

    @property
    def reward_bounds(self) -> tuple[float, float]:
        """Infimum and supremum of the reward (over all laws, nats), from the link at -+inf.

        Raises:
            Unavailable: no link, or one that depends on both laws, with the reason.
        """
        low, high = float(self.link(-np.inf, 0.0)), float(self.link(np.inf, 0.0))
        rounding = 1e-15 * min(abs(high - low), 1.0)  # of a link solved from payoffs
        return low if abs(low) > rounding else 0.0, high if abs(high) > rounding else 0.0

    def potential(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        """``D_Phi(policy || expert)``, shape (...), in nats (T5): closed form or quadrature."""
        self.require("potential")
        expert, policy = laws.check_laws(expert=expert, policy=policy)
        if self.writes("potential_formula"):
            return self.potential_formula(policy, expert)
        u = laws.log_ratio(expert, policy)
        inside = expert * derivatives.potential_density(self.link, np.where(expert > 0, u, 0.0))
        # p Phi(pi/p) -> -R(-inf) pi as p -> 0
        outside = np.where(policy > 0, -self.reward_bounds[0], 0.0) * policy
        return np.asarray(np.where(expert > 0, inside, outside).sum(-1))

    def reward(self, expert: FloatArray, policy: FloatArray, **extras: Any) -> FloatArray:
        """Exact best response of the reward player to laws ``(..., n)``, in nats.

        Padding (0 on both sides) gets 0. Where rewards are defined up to a constant per prompt,
        ``E_policy[r] = 0`` over the outcomes with a finite reward.

        Raises:
            Unavailable: if there is no such best response. InvalidInput: laws or extras.
            NotConverged: a numeric best response was not reached.
        """
        self.require("reward")
        needed = PREFERENCE if "preference" in self.needs else ()
        problems = inputs.extras_problems(extras, needed, ())
        inputs.refuse_for(self.name, problems or inputs.preference_problems(**extras))
        p, q = laws.check_laws(expert=expert, policy=policy)
        inputs.refuse_for(self.name, inputs.shape_problems(expert=p, **extras))
        return self.centred(self.best_response(p, q, **extras), p, q)

    def centred(self, r: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
        """``r`` (..., n) as :meth:`reward` gives it: 0 on padding, of mean 0 if only defined up to
        that."""
        padding = (p == 0) & (q == 0)
        if not self.up_to_constant:
            return np.where(padding, 0.0, r)
        finite = np.isfinite(r) & ~padding
        mass = np.where(finite, q, 0.0)
        mean = laws.expect(mass, np.where(finite, r, 0.0)) / np.maximum(mass.sum(-1), 1e-300)
        return np.where(padding, 0.0, r - mean[..., None])

    def value(self, expert: FloatArray, policy: FloatArray, reward: FloatArray) -> FloatArray:
        """Payoff ``E_p[a(r)] + E_pi[b(r)]`` of a given reward; any non-negative measures."""
        self.require("saddle")
        with np.errstate(all="ignore"):
            on_expert, on_own = np.asarray(self.a(reward)), np.asarray(self.b(reward))
        return laws.expect(expert, on_expert) + laws.expect(policy, on_own)

    @property
    def gradient_at_start(self) -> tuple[float, float]:
        """Derivatives of the risk of one expert and one own response at reward 0 (T15).

        Raises:
            Unavailable: no risk exists, with the reason.
        """
        self.require("risk")
        rest: dict[str, Any] = {}
        if "preference" in self.needs:
            rest |= {"expert_preference": 1.0, "policy_preference": 0.0}

        def on(side: int) -> float:
            def risk(x: Any) -> Any:
                zero = 0.0 * x.detach()
                extras = rest | ({"r_history": zero} if "history" in self.needs else {})
                return self.reward_risk(*((x, zero) if side == 0 else (zero, x)), **extras)

            return float(derivatives.derivative(risk, np.zeros(1))[0])

        return on(0), on(1)

    @property
    def rewards_expert(self) -> bool:
        """Whether expert responses are rewarded: the loss falls in their reward, and R increases.

        Where this is False a round moves the policy away from the expert.
        """
        if not self.missing("risk") and self.gradient_at_start[0] > 0:
            return False
        try:
            slope = self.slope_at_zero
        except Unavailable:
            return True
        if slope == 0 and self.has_link:  # flat at 0 alone
            return float(self.link(1.0, 0.0)) > float(self.link(-1.0, 0.0))
        return slope > 0

    # -- losses ---------------------------------------------------------------------------------

    def loss(
        self, expert_logratio: Array, policy_logratio: Array, beta: Any, **extras: Any
    ) -> Array:
        """Loss per pair, elementwise after broadcasting; implicit reward ``beta * logratio``.

        Args:
            expert_logratio: ``log pi/pi_t`` of expert (or winner) responses, in nats.
            policy_logratio: the same of own (or loser) responses.
            beta: weight of the policy player's KL step, > 0.
            **extras: ``tau, expert_anchor, policy_anchor`` (adds ``tau log pi/pi_ref`` to the
                reward), ``expert_preference, policy_preference`` (``P(y > pi_t)``),
                ``history_logratio``. A missing or unused extra is an error.

        Raises:
            Unavailable: no loss per pair exists. InvalidInput: beta or extras.
        """
        self.require("loss")
        x, y = self._logratios(expert_logratio, policy_logratio, beta, extras)
        shapes = {"expert_logratio": x, "policy_logratio": y, "beta": beta, **extras}
        inputs.refuse_for(self.name, inputs.shape_problems(**shapes))
        r_y, r_own, rest = self._implicit(x, y, beta, self._extras(extras))
        return self.reward_loss(r_y, r_own, **rest)

    def risk(
        self,
        expert_logratio: Array,
        policy_logratio: Array,
        beta: Any,
        expert_weight: Array | None = None,
        policy_weight: Array | None = None,
        **extras: Any,
    ) -> Array:
        """Risk per prompt of (..., G) expert and (..., K) own responses, all pairs: shape (...).

        Weights (non-negative, normalised here; None is uniform) carry laws, groups and masks;
        whatever stands at weight 0 is ignored, in the extras as well.
        """
        self.require("risk")
        x, y = self._logratios(expert_logratio, policy_logratio, beta, extras)
        sides = {"expert": expert_weight, "policy": policy_weight}
        sides = {k: w if w is None else inputs.numbers(w, f"{k}_weight") for k, w in sides.items()}
        expert_weight, policy_weight = sides.values()
        extras = self._extras(extras)
        inputs.refuse_for(
            self.name,
            [
                *inputs.kind_problems(x=x, **sides),
                *inputs.response_problems("expert", "G", x, expert_weight),
                *inputs.response_problems("policy", "K", y, policy_weight),
                *inputs.prompt_problems(x, y, extras),
            ],
        )
        sides["history"] = extras.get("history_law")
        extras = {k: inputs.masked(v, sides.get(k.split("_")[0])) for k, v in extras.items()}
        x, y = inputs.masked(x, expert_weight), inputs.masked(y, policy_weight)
        r_y, r_own, rest = self._implicit(x, y, beta, extras)
        return self.reward_risk(r_y, r_own, expert_weight, policy_weight, **rest)

    def _logratios(
        self, expert_logratio: Array, policy_logratio: Array, beta: Any, extras: dict[str, Any]
    ) -> tuple[Array, Array]:
        """Both log-ratios as arrays, after refusing unusable arguments of a loss or risk."""
        required = tuple(e for need in sorted(self.needs) for e in _EXTRAS[need])
        if not self.reference_free and any(name in extras for name in ANCHOR):
            required += ANCHOR
        x = inputs.numbers(expert_logratio, f"{self.name}: expert_logratio")
        y = inputs.numbers(policy_logratio, f"{self.name}: policy_logratio")
        inputs.refuse_for(
            self.name,
            [
                *inputs.extras_problems(extras, required, self.optional_extras),
                inputs.beta_problem(beta),
                inputs.tau_problem(extras.get("tau", 0.0)),
                *inputs.kind_problems(expert_logratio=x, policy_logratio=y, **extras),
            ],
        )
        return x, y

    def _extras(self, extras: dict[str, Any]) -> dict[str, Any]:
        """Extras with lists as arrays; single numbers stay, as they go with numpy and torch."""
        return {
            k: inputs.numbers(v, f"{self.name}: {k}") if isinstance(v, (list, tuple)) else v
            for k, v in extras.items()
        }

    def _implicit(
        self, expert_logratio: Array, policy_logratio: Array, beta: Any, extras: dict[str, Any]
    ) -> tuple[Array, Array, dict[str, Any]]:
        """Implicit rewards of both sides, and the extras that are no anchor."""
        tau = extras.get("tau", 0.0)
        r_y = of_logratios(expert_logratio, beta, extras.get("expert_anchor"), tau)
        r_own = of_logratios(policy_logratio, beta, extras.get("policy_anchor"), tau)
        rest = {k: v for k, v in extras.items() if k not in ANCHOR}
        if "history_logratio" in rest:
            rest["r_history"] = of_logratios(xp.as_array(rest.pop("history_logratio")), beta)
        return r_y, r_own, rest
