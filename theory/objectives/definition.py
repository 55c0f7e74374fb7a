"""What a definition of an objective writes, and which parts it has by that.

Formulas are written against numpy and torch alike (:mod:`theory.xp`): payoffs, a loss of pairs or a
risk; where known the reward link, the potential and two conic forms. Which parts exist follows from
the formulas that are written (``parts``); a part that does not exist for another reason is named in
``absent`` with it, and its verb raises that reason. What follows from the formulas is
:class:`theory.objectives.base.Objective`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np

from theory import laws, xp
from theory.errors import InvalidInput, Unavailable, refuse
from theory.objectives import derivatives
from theory.result import FloatArray

Form = Literal["pointwise", "pairwise", "group"]
Array = xp.Array

LEAST = 1e-18
"""A smaller weight of a penalty changes no payoff of the rewards that are looked at."""

Options = tuple[tuple[str, ...], ...]
"""Alternatives: each a tuple of formulas, or of other parts, that together make a part."""
Method = TypeVar("Method", bound=Callable[..., Any])


def formula(method: Method) -> Method:
    """Mark a method as a formula that a definition may write; this body holds where it does not."""
    method.unwritten = True  # type: ignore[attr-defined]
    return method


@dataclasses.dataclass(frozen=True)
class Definition:
    """The formulas of a self-play objective; parameters are dataclass fields.

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
    optional_extras: ClassVar[tuple[str, ...]] = ()
    reference_free: ClassVar[bool] = False
    """Whether the loss reads log-probabilities instead of log-ratios (no anchor is possible)."""
    written: ClassVar[dict[str, Options]] = {
        "link": (("link_formula",), ("gain",)),
        "saddle": (("a", "b"),),
        "conic_game": (("conic_game",),),
        "conic_potential": (("conic_potential",),),
    }
    """Parts, and the alternatives of formulas any of which makes them."""
    follows: ClassVar[dict[str, str]] = {
        "reward": "link",
        "potential": "link",
        "equilibrium": "reward",
        "risk": "loss",
    }
    """Parts that exist where another one does."""
    never: ClassVar[dict[str, str]] = {}
    """Parts that a form never has, with the reason."""
    numeric: ClassVar[tuple[str, ...]] = ()
    """Formula whose minimiser over rewards is found numerically where no link is written."""

    def __post_init__(self) -> None:
        """Refuse parameters that are no numbers or out of range, all at once."""
        problems = []
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not laws.is_real(value) or not np.isfinite(value):
                problems.append(f"{self.name}: {field.name}={value!r}; needed is a finite number")
            elif field.name in self.positive and value < LEAST:
                needed = "> 0" if value <= 0 else f">= {LEAST:g}: rounding hides smaller ones"
                problems.append(f"{self.name}: {field.name}={value!r}; needed is a number {needed}")
            elif field.name in self.unit and not 0 < value < 1:
                problems.append(f"{self.name}: {field.name}={value!r}; needed is within (0, 1)")
        refuse(problems)

    # -- formulas that a definition may write -------------------------------------------------

    @formula
    def a(self, r: Array) -> Array:
        """Reward player's payoff on expert responses: concave, increasing at the best response."""
        raise NotImplementedError

    @formula
    def b(self, r: Array) -> Array:
        """Reward player's payoff on own responses: concave, decreasing at the best response."""
        raise NotImplementedError

    @formula
    def concave_in(self, r: Array) -> Array:
        """Increasing function of the reward in which ``a`` and ``b`` are concave: ``r`` itself."""
        return r

    @formula
    def gain(self, delta: Array) -> Array:
        """Gain of a link ``gain(Delta(p, q)) tanh(u/2)``, as IPO's; delta within [0, 2]."""
        raise NotImplementedError

    @formula
    def link_formula(self, u: Array, delta: Array | None) -> Array:
        """Reward link ``R(u)``; ``delta`` is ``Delta(p, q)`` for links that depend on it."""
        if delta is None:
            raise InvalidInput(f"{self.name}: its link needs delta = Delta(p, q), within [0, 2]")
        return self.gain(delta) * xp.tanh(0.5 * u)

    def link_at_equal_laws(self, u: Array) -> Array:
        """The link at ``Delta = 0``."""
        return self.link_formula(u, 0.0)

    @formula
    def density_link(self, expert: FloatArray, policy: FloatArray, delta: Any) -> FloatArray:
        """The link from positive densities, for one that needs no logarithm: large laws go faster.

        Of a link with a gain, as ``tanh(u/2) = (p - q)/(p + q)``.
        """
        return np.asarray(self.gain(delta) * ((expert - policy) / (expert + policy)))

    @formula
    def slope_range(self) -> tuple[float, float]:
        """``(mu, L)``, infimum and supremum of ``R'`` over all log-ratios, at ``Delta = 0``."""
        return derivatives.slope_range(self.link_at_equal_laws)

    @formula
    def potential_formula(self, policy: FloatArray, expert: FloatArray) -> FloatArray:
        """f-divergence ``D_Phi(policy || expert)`` with ``Phi'(x) = -R(-log x)`` (T5)."""
        raise NotImplementedError

    @formula
    def conic_game(self, expert: Any, policy: Any) -> tuple[Any, list[Any]]:
        """Game value ``g(policy) = max_r E_p[a] + E_pi[b]`` in cvxpy: expression, constraints."""
        raise NotImplementedError

    @formula
    def conic_potential(self, expert: Any, policy: Any) -> tuple[Any, list[Any]]:
        """Potential ``D_Phi(policy || expert)`` in cvxpy: expression and constraints."""
        raise NotImplementedError

    @formula
    def opponent(self, log_current: Array, log_initial: Array, log_base: Array) -> Array:
        """Log-law that own responses are drawn from and log-ratios divide by; last axis normalised.

        Args:
            log_current: ``log pi_t``, shape (..., n); over a vocabulary in token-level use.
            log_initial: ``log pi_0``, same shape.
            log_base: ``log pi_ref``, same shape.
        """
        return log_current

    @formula
    def reward_loss(self, r_y: Array, r_own: Array, **extras: Any) -> Array:
        """:meth:`loss` as a function of rewards (nats), unchecked: the formula, for inner loops
        and explicit reward players. ``r_history`` stands in for ``history_logratio``."""
        raise NotImplementedError

    @formula
    def reward_risk(
        self, r_y: Array, r_own: Array, w_y: Any = None, w_own: Any = None, **extras: Any
    ) -> Array:
        """:meth:`risk` as a function of rewards (..., G) and (..., K), unchecked, shape (...)."""
        raise NotImplementedError

    @formula
    def reference_free_response(
        self, expert: FloatArray, policy: FloatArray, history: FloatArray | None = None
    ) -> FloatArray:
        """Minimiser (..., n) of the risk over rewards that are ``beta log pi``, not centred."""
        raise Unavailable(f"{self.name} has no one-step round: no best response in beta log pi")

    @property
    def link_without_limit(self) -> str | None:
        """Why the written link has no value where one side has no mass; None if it has."""
        return _no_limit(self) if self.writes("link_formula") else None

    @property
    def plays_itself(self) -> bool:
        """Whether own responses come from the current policy as it is."""
        current, initial, base = np.log([[0.5, 0.5], [0.4, 0.6], [0.3, 0.7]])
        own = self.writes("opponent")
        return not own or np.array_equal(np.asarray(self.opponent(current, initial, base)), current)

    @property
    def opponent_factor(self) -> float:
        """How much of a change of ``log pi_t`` reaches the opponent: 1 if it is pi_t."""
        base = np.log(np.array([0.25, 0.75]))
        moved = base + np.array([0.0, 1e-6])
        before, after = (np.asarray(self.opponent(x, base, base)) for x in (base, moved))
        return round(float(np.diff(after - before)[0] / 1e-6), 6)

    # -- what exists ---------------------------------------------------------------------------

    @classmethod
    def writes(cls, *formulas: str) -> bool:
        """Whether the definition writes these formulas itself."""
        return not any(getattr(getattr(cls, name), "unwritten", False) for name in formulas)

    def missing(self, part: str) -> str | None:
        """Why ``part`` (link, loss, saddle, potential, ...) does not exist; None if it does."""
        reason = self.absent.get(part) or self.never.get(part)
        if reason:
            return reason
        if part == "link" and self.law_dependent:
            return "it depends on both laws; link_of(expert, policy) gives it"
        if part == "loss" and any(map(math.isfinite, self.reward_domain)):
            low, high = self.reward_domain
            return f"its rewards are held within ({low:g}, {high:g}), implicit ones are not"
        if part in ("potential", "equilibrium") and not self.plays_itself:
            return "the rounds start from its opponent, which is not pi_t, and rest elsewhere"
        if part in self.follows:
            return self.missing(self.follows[part])
        options = self.written[part]
        if any(self.writes(*option) for option in options):
            return self.link_without_limit if part == "link" else None
        either = "neither" if len(options) > 1 else "no"
        return f"the definition gives {either} {' nor '.join(map(' and '.join, options))}"

    def require(self, part: str) -> None:
        """Raise :class:`Unavailable` with the reason if ``part`` does not exist."""
        reason = self.missing(part)
        if reason:
            raise Unavailable(f"{self.name} has no {part.replace('_', ' ')}: {reason}")

    @property
    def law_dependent(self) -> bool:
        """Whether the best response exists, but as a function of ``u`` only for given laws."""
        linked = self.writes("link_formula") or self.has_gain
        return (
            bool(self.numeric)
            and self.writes(*self.numeric)
            and not (linked or self.reference_free or {"link", "reward"} & set(self.absent))
        )

    @property
    def has_gain(self) -> bool:
        """Whether the link is ``gain(Delta(p, q)) tanh(u/2)``."""
        return self.writes("gain")

    @property
    def has_link(self) -> bool:
        """Whether the best response is a function ``R(u)`` of the log density ratio (and Delta)."""
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
    def up_to_constant(self) -> bool:
        """Whether rewards are defined up to a constant per prompt only (T3)."""
        return False

    @property
    def reward_domain(self) -> tuple[float, float]:
        """Rewards ``(low, high)`` that the objective allows: a hard constraint."""
        return -math.inf, math.inf

    @property
    def label(self) -> str:
        """Name with parameters, as in ``spif(c=1, alpha=0.5)``."""
        fields = dataclasses.fields(self)
        inner = ", ".join(f"{f.name}={getattr(self, f.name):g}" for f in fields)
        return f"{self.name}({inner})" if inner else self.name


@lru_cache(maxsize=256)
def _no_limit(definition: Definition) -> str | None:
    ends = np.array([-np.inf, np.inf])
    try:
        with np.errstate(all="ignore"):
            missing = np.isnan(np.asarray(definition.link_at_equal_laws(ends), dtype=np.float64))
    except Exception:  # a formula that fails is told of where formulas are checked
        return None
    if not missing.any():
        return None
    return (
        f"link_formula is NaN at log-ratio {ends[missing][0]:g}, where one side has no mass; write "
        "it with functions that have a limit there (xp.tanh, xp.sigmoid, xp.softplus)"
    )
