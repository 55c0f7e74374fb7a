"""What an objective is: a few formulas from which everything else is derived.

A definition (see ``definitions.py``) writes formulas against numpy and torch alike (``theory.xp``):

* ``Pointwise``: the reward player's payoffs ``a(r)`` on expert and ``b(r)`` on own responses;
* ``Pairwise``: a loss ``pair_loss(d)`` of the reward difference ``d = r(y) - r(y')``;
* ``Group``: a risk ``group_risk`` of all rewards of a prompt at once;

and, where known, the reward link ``link_formula(u)``, the potential and two conic forms. A part
that does not exist is named in ``absent`` with the reason, which its verb then raises.
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

import numpy as np

from theory import derivatives, laws, xp
from theory.errors import InvalidInput, Unavailable, refuse
from theory.result import FloatArray

Form = Literal["pointwise", "pairwise", "group"]
Array = xp.Array

ANCHOR = ("tau", "expert_anchor", "policy_anchor")
PREFERENCE = ("expert_preference", "policy_preference")
HISTORY = ("history_logratio",)
_EXTRAS = {"anchor": ANCHOR, "preference": PREFERENCE, "history": HISTORY}


@dataclasses.dataclass(frozen=True)
class Objective:
    """A self-play objective; parameters are dataclass fields.

    Class attributes of a definition: ``form``, ``needs`` (extras it cannot do without), ``source``
    ("paper" where the formula was published, else "reconstruction"), ``citation``, ``notes``
    (where the published form differs or is unknown), ``absent`` (part -> reason), ``positive`` and
    ``unit`` (parameters that must be > 0, or in (0, 1)), ``potential_name``.
    """

    name: ClassVar[str] = "unnamed"
    form: ClassVar[Form]
    needs: ClassVar[frozenset[str]] = frozenset()
    source: ClassVar[str] = "reconstruction"
    citation: ClassVar[str] = ""
    notes: ClassVar[str] = ""
    absent: ClassVar[dict[str, str]] = {}
    positive: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[tuple[str, ...]] = ()
    potential_name: ClassVar[str] = ""
    up_to_constant: ClassVar[bool] = False
    """Whether rewards are defined up to a constant per prompt only."""
    optional_extras: ClassVar[tuple[str, ...]] = ()
    reference_free: ClassVar[bool] = False
    """Whether the loss reads log-probabilities instead of log-ratios (no anchor is possible)."""

    def __post_init__(self) -> None:
        """Refuse parameters that are no numbers or out of range, all at once."""
        problems = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not number or not np.isfinite(value):
                problems.append(f"{self.name}: {field.name}={value!r}; needed is a finite number")
            elif field.name in self.positive and value <= 0:
                problems.append(f"{self.name}: {field.name}={value!r}; needed is a number > 0")
            elif field.name in self.unit and not 0 < value < 1:
                problems.append(f"{self.name}: {field.name}={value!r}; needed is within (0, 1)")
        refuse(problems)

    # -- formulas that a definition may write -------------------------------------------------

    def a(self, r: Array) -> Array:
        """Reward player's payoff on expert responses: concave, increasing at the best response."""
        raise NotImplementedError

    def b(self, r: Array) -> Array:
        """Reward player's payoff on own responses: concave, decreasing at the best response."""
        raise NotImplementedError

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        """Reward link ``R(u)``; ``delta`` is ``Delta(p, q)`` for links that depend on it."""
        raise NotImplementedError

    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        """f-divergence ``D_Phi(policy || expert)`` with ``Phi'(x) = -R(-log x)`` (T5)."""
        raise NotImplementedError

    def conic_game(self, expert: Any, policy: Any) -> tuple[Any, list[Any]]:
        """Game value ``g(policy) = max_r E_p[a] + E_pi[b]`` in cvxpy: expression, constraints."""
        raise NotImplementedError

    def conic_potential(self, expert: Any, policy: Any) -> tuple[Any, list[Any]]:
        """Potential ``D_Phi(policy || expert)`` in cvxpy: expression and constraints."""
        raise NotImplementedError

    def opponent(self, log_current: Array, log_initial: Array, log_base: Array) -> Array:
        """Log-law that own responses are drawn from and log-ratios divide by; last axis normalised.

        Args:
            log_current: ``log pi_t``, shape (..., n); over a vocabulary in token-level use.
            log_initial: ``log pi_0``, same shape.
            log_base: ``log pi_ref``, same shape.
        """
        return log_current

    # -- what exists ---------------------------------------------------------------------------

    def _defines(self, method: str) -> bool:
        return getattr(type(self), method) is not getattr(Objective, method)

    def missing(self, part: str) -> str | None:
        """Why ``part`` (link, loss, saddle, potential, ...) does not exist; None if it does."""
        if part in self.absent:
            return self.absent[part]
        if part == "reward":
            return self.missing("link")
        methods = {
            "saddle": "a",
            "link": "link_formula",
            "potential": "link_formula",
            "conic_game": "conic_game",
            "conic_potential": "conic_potential",
        }
        if part in methods and not self._defines(methods[part]):
            return "the definition does not give it"
        if part == "potential" and self.missing("link"):
            return f"it is an integral of the link, and there is none: {self.missing('link')}"
        return None

    def require(self, part: str) -> None:
        """Raise :class:`Unavailable` with the reason if ``part`` does not exist."""
        reason = self.missing(part)
        if reason:
            raise Unavailable(f"{self.name} has no {part.replace('_', ' ')}: {reason}")

    @property
    def has_link(self) -> bool:
        """Whether the best response is a function ``R(u)`` of the log density ratio."""
        return self.missing("link") is None

    @property
    def has_loss(self) -> bool:
        """Whether a loss per pair of responses exists."""
        return self.missing("loss") is None

    @property
    def has_saddle(self) -> bool:
        """Whether the zero-sum game in (policy, reward) is implemented."""
        return self.missing("saddle") is None

    @property
    def label(self) -> str:
        """Name with parameters, as in ``spif(c=1, alpha=0.5)``."""
        fields = dataclasses.fields(self)
        inner = ", ".join(f"{f.name}={getattr(self, f.name):g}" for f in fields)
        return f"{self.name}({inner})" if inner else self.name

    # -- the link and what follows from it -------------------------------------------------------

    def link(self, u: Array, delta: Array | None = None) -> Array:
        """Reward link ``R(u)`` of log density ratios ``u`` (nats; +-inf gives the limit).

        Args:
            u: any shape, numpy, torch or a number.
            delta: ``Delta(p, q)``, broadcastable against ``u``; only IPO-like links depend on it.

        Raises:
            Unavailable: if the objective has no link, with the reason.
        """
        self.require("link")
        return self.link_formula(xp.as_array(u), delta)

    def slope(self, u: Array, delta: Array | None = None) -> FloatArray:
        """Derivative ``R'(u)`` by automatic differentiation of the one link formula (numpy)."""
        self.require("link")
        fixed = None if delta is None else float(np.asarray(delta))
        return derivatives.derivative(lambda v: self.link_formula(v, fixed), u)

    @property
    def reward_bounds(self) -> tuple[float, float]:
        """Infimum and supremum of the reward (over all laws), from the link at -+inf."""
        return float(self.link(-np.inf, 0.0)), float(self.link(np.inf, 0.0))

    def potential(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        """``D_Phi(policy || expert)``, shape (...), in nats (T5): closed form or quadrature."""
        self.require("potential")
        expert, policy = laws.check_laws(expert=expert, policy=policy)
        if self._defines("potential_formula"):
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
        """
        self.require("reward")
        self._check_extras(extras, PREFERENCE if "preference" in self.needs else (), ())
        p, q = laws.check_laws(expert=expert, policy=policy)
        r = self._best_response(p, q, **extras)
        r = np.where((p == 0) & (q == 0), 0.0, r)
        if self.up_to_constant:
            finite = np.isfinite(r)
            mass = np.where(finite, q, 0.0)
            mean = laws.expect(mass, np.where(finite, r, 0.0)) / np.maximum(mass.sum(-1), 1e-300)
            r = np.where((p == 0) & (q == 0), 0.0, r - mean[..., None])
        return r

    def _best_response(self, p: FloatArray, q: FloatArray, **extras: Any) -> FloatArray:
        return np.asarray(self.link(laws.log_ratio(p, q), laws.triangular(p, q)[..., None]))

    def value(self, expert: FloatArray, policy: FloatArray, reward: FloatArray) -> FloatArray:
        """Payoff ``E_p[a(r)] + E_pi[b(r)]`` of a given reward; any non-negative measures."""
        self.require("saddle")
        with np.errstate(all="ignore"):
            on_expert, on_own = np.asarray(self.a(reward)), np.asarray(self.b(reward))
        return laws.expect(expert, on_expert) + laws.expect(policy, on_own)

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
        r_y, r_own, rest = self._implicit(expert_logratio, policy_logratio, beta, extras)
        return self._loss(r_y, r_own, **rest)

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
        whatever stands at weight 0 is ignored.
        """
        self.require("risk")
        expert_logratio = _masked(expert_logratio, expert_weight)
        policy_logratio = _masked(policy_logratio, policy_weight)
        r_y, r_own, rest = self._implicit(expert_logratio, policy_logratio, beta, extras)
        return self._risk(r_y, r_own, expert_weight, policy_weight, **rest)

    def _loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        raise NotImplementedError

    def _risk(self, r_y: Array, r_own: Array, w_y: Any, w_own: Any, **extras: Any) -> Array:
        raise NotImplementedError

    def _implicit(
        self, expert_logratio: Array, policy_logratio: Array, beta: Any, extras: dict[str, Any]
    ) -> tuple[Array, Array, dict[str, Any]]:
        required = tuple(e for need in sorted(self.needs) for e in _EXTRAS[need])
        anchored = not self.reference_free and any(name in extras for name in ANCHOR)
        self._check_extras(extras, required + (ANCHOR if anchored else ()), self.optional_extras)
        if not np.all(np.isfinite(_detached(beta))) or np.any(_detached(beta) <= 0):
            raise InvalidInput(f"{self.name}: beta={beta!r}; needed is a finite number > 0")
        r_y, r_own = beta * xp.as_array(expert_logratio), beta * xp.as_array(policy_logratio)
        if anchored:
            tau = extras["tau"]
            if not np.all(_detached(tau) >= 0):
                raise InvalidInput(f"{self.name}: tau={tau!r}; needed is a number >= 0")
            r_y = r_y + tau * extras["expert_anchor"]
            r_own = r_own + tau * extras["policy_anchor"]
        rest = {k: v for k, v in extras.items() if k not in ANCHOR}
        if "history_logratio" in rest:
            rest["r_history"] = beta * xp.as_array(rest.pop("history_logratio"))
        return r_y, r_own, rest

    def _check_extras(
        self, extras: dict[str, Any], required: tuple[str, ...], optional: tuple[str, ...]
    ) -> None:
        known = set(required) | set(optional)
        refuse(
            [f"{self.name}: missing extra {e!r}" for e in required if e not in extras]
            + [
                f"{self.name}: unused extra {e!r}; it takes {sorted(known) or 'none'}"
                for e in extras
                if e not in known
            ]
        )


@dataclasses.dataclass(frozen=True)
class Pointwise(Objective):
    """Separable objective ``max_r E_p[a(r)] + E_q[b(r)]``; loss ``-a(r_y) - b(r_y')``."""

    form: ClassVar[Form] = "pointwise"

    def link_formula(self, u: Array, delta: Array | None) -> Array:
        """Solve ``log(-b'(r)/a'(r)) = u`` numerically (T1) where no closed form is written."""
        return derivatives.invert_link(self.a, self.b, u)

    def slope(self, u: Array, delta: Array | None = None) -> FloatArray:
        """``R'(u)``: of the closed form, else ``1/(b''/b' - a''/a')`` at ``r = R(u)``."""
        if type(self).link_formula is not Pointwise.link_formula:
            return super().slope(u, delta)
        self.require("link")
        return derivatives.implicit_slope(self.a, self.b, np.asarray(self.link(u)))

    def expert_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an expert response: ``-a(r)``."""
        return -self.a(r)

    def policy_term(self, r: Array, **extras: Any) -> Array:
        """Loss of an own response: ``-b(r)``."""
        return -self.b(r)

    def _loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.expert_term(r_y, **extras) + self.policy_term(r_own, **extras)

    def _risk(self, r_y: Array, r_own: Array, w_y: Any, w_own: Any, **extras: Any) -> Array:
        on_expert = xp.weighted_mean(self.expert_term(r_y, **extras), w_y)
        return on_expert + xp.weighted_mean(self.policy_term(r_own, **extras), w_own)

    def missing(self, part: str) -> str | None:
        """As :meth:`Objective.missing`; the risk exists where the loss does."""
        return super().missing("loss" if part == "risk" else part)


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
        if part == "reward" and part not in self.absent:
            return None  # without a link, Newton's method on the pairs
        return super().missing("loss" if part == "risk" else part)

    def _best_response(self, p: FloatArray, q: FloatArray, **extras: Any) -> FloatArray:
        if self.has_link:
            return super()._best_response(p, q, **extras)
        from theory.pairwise import best_response

        return best_response(p[..., :, None] * q[..., None, :], self.pair_loss)

    def _loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        return self.pair_loss(r_y - r_own)

    def _risk(self, r_y: Array, r_own: Array, w_y: Any, w_own: Any, **extras: Any) -> Array:
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
        return super().missing(part)

    def _risk(self, r_y: Array, r_own: Array, w_y: Any, w_own: Any, **extras: Any) -> Array:
        return self.group_risk(r_y, r_own, w_y, w_own)


def _masked(x: Array, weight: Array | None) -> Array:
    """Zero where the weight is 0, so that padding reaches neither value nor gradient."""
    x = xp.as_array(x)
    if weight is None:
        return x
    namespace = xp.namespace(x, weight)
    x, weight = namespace.broadcast_arrays(x, weight)
    return namespace.where(weight > 0, x, namespace.zeros_like(x))


def _pair(weight: Array | None, like: Array) -> Array | None:
    return None if weight is None else weight[..., None, :]


def _detached(x: Any) -> FloatArray:
    return np.asarray(x.detach().cpu() if hasattr(x, "detach") else x, dtype=np.float64)
