"""What an objective is: a few formulas from which everything else is derived.

A definition derives from one of three forms (:mod:`theory.objectives.forms`) and writes formulas
against numpy and torch alike (:mod:`theory.xp`):

* ``Pointwise``: the reward player's payoffs ``a(r)`` on expert and ``b(r)`` on own responses;
* ``Pairwise``: a loss ``pair_loss(d)`` of the reward difference ``d = r(y) - r(y')``;
* ``Group``: a risk ``group_risk`` of all rewards of a prompt at once;

and, where known, the reward link ``link_formula(u)``, the potential and two conic forms. A part
that does not exist is named in ``absent`` with the reason, which its verb then raises.
"""

from __future__ import annotations

import dataclasses
import numbers
from typing import Any, ClassVar, Literal

import numpy as np

from theory import laws, xp
from theory.errors import Unavailable, refuse
from theory.objectives import derivatives, inputs
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
            number = isinstance(value, numbers.Real) and not isinstance(value, bool)
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

    @property
    def opponent_factor(self) -> float:
        """How much of a change of ``log pi_t`` reaches the opponent: 1 if it is pi_t."""
        base = np.log(np.array([0.25, 0.75]))
        moved = base + np.array([0.0, 1e-6])
        before, after = (np.asarray(self.opponent(x, base, base)) for x in (base, moved))
        return round(float(np.diff(after - before)[0] / 1e-6), 6)

    # -- what exists ---------------------------------------------------------------------------

    def _defines(self, *methods: str) -> bool:
        """Whether the definition writes these formulas itself."""
        ours = (__name__, "theory.objectives.forms")
        return all(getattr(type(self), method).__module__ not in ours for method in methods)

    def missing(self, part: str) -> str | None:
        """Why ``part`` (link, loss, saddle, potential, ...) does not exist; None if it does."""
        if part in self.absent:
            return self.absent[part]
        if part == "reward":
            return self.missing("link")
        if part == "potential" and self.missing("link"):
            return f"it is an integral of the link, and there is none: {self.missing('link')}"
        methods: dict[str, tuple[str, ...]] = {
            "saddle": ("a", "b"),
            "link": ("link_formula",),
            "conic_game": ("conic_game",),
            "conic_potential": ("conic_potential",),
        }
        if not self._defines(*methods.get(part, ())):
            return f"the definition gives no {' and '.join(methods[part])}"
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
            Unavailable: if the objective has no link, with the reason. InvalidInput: u or delta.
        """
        self.require("link")
        return self.link_formula(
            inputs.numbers(u, "u"), None if delta is None else inputs.checked_delta(delta)
        )

    def slope(self, u: Array, delta: Array | None = None) -> FloatArray:
        """Derivative ``R'(u)`` by automatic differentiation of the one link formula (numpy)."""
        self.require("link")
        fixed = None if delta is None else float(np.asarray(inputs.checked_delta(delta)))
        u = inputs.detached(inputs.numbers(u, "u"))
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
        needed = PREFERENCE if "preference" in self.needs else ()
        problems = inputs.extras_problems(extras, needed, ())
        inputs.refuse_for(self.name, problems or inputs.preference_problems(**extras))
        p, q = laws.check_laws(expert=expert, policy=policy)
        inputs.refuse_for(self.name, inputs.shape_problems(expert=p, **extras))
        r = self._best_response(p, q, **extras)
        return self.centred(r, p, q)

    def centred(self, r: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
        """``r`` as :meth:`reward` gives it: 0 on padding, of mean 0 if only defined up to that."""
        padding = (p == 0) & (q == 0)
        if not self.up_to_constant:
            return np.where(padding, 0.0, r)
        finite = np.isfinite(r) & ~padding
        mass = np.where(finite, q, 0.0)
        mean = laws.expect(mass, np.where(finite, r, 0.0)) / np.maximum(mass.sum(-1), 1e-300)
        return np.where(padding, 0.0, r - mean[..., None])

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

    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        """:meth:`loss` as a function of rewards (nats), unchecked: the formula, for inner loops
        and explicit reward players. ``r_history`` stands in for ``history_logratio``."""
        raise NotImplementedError

    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        """:meth:`risk` as a function of rewards (..., G) and (..., K), unchecked, shape (...)."""
        raise NotImplementedError

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
        r_y, r_own = beta * expert_logratio, beta * policy_logratio
        if "tau" in extras:
            r_y = r_y + extras["tau"] * extras["expert_anchor"]
            r_own = r_own + extras["tau"] * extras["policy_anchor"]
        rest = {k: v for k, v in extras.items() if k not in ANCHOR}
        if "history_logratio" in rest:
            rest["r_history"] = beta * xp.as_array(rest.pop("history_logratio"))
        return r_y, r_own, rest
