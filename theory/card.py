"""The theory card of an objective: what is predicted, computed from its formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import numpy as np

from theory import arguments, objectives
from theory.errors import Unavailable, refuse
from theory.objectives import Objective, risk_response
from theory.objectives.base import PREFERENCE

NONE = "none: "
SCANNED = "from a grid of log-ratios and its limits, not proved"
Of = Objective | str


@dataclasses.dataclass(frozen=True)
class StepCard:
    """What a card says of rounds at one beta; NaN where the objective has no such number."""

    beta: float
    effective_step: float
    """``R'(0)/beta``: a small log-ratio is multiplied by 1 minus this (T6 iv)."""
    largest_move: tuple[float, float]
    """Reward bounds over beta, nats: of a two-step round's log-ratio up to a constant. SPIF's with
    alpha = 1/2 are ``-eta, eta``. One step of a pointwise loss does not keep them (T4)."""
    locally_stable: bool | None
    """Whether beta is above the local threshold; None where there is none."""

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a table."""
        stable = "unknown" if self.locally_stable is None else _shown(self.locally_stable)
        numbers = ("beta", "effective_step", "largest_move")
        return [(n, _shown(getattr(self, n))) for n in numbers] + [("locally_stable", stable)]


@dataclasses.dataclass(frozen=True)
class TheoryCard:
    """Predictions for one objective (reconstruction, T1-T9, T15); numbers are in nats.

    What is absent is NaN, empty or False, and ``reasons`` says why.
    """

    objective: str
    form: str
    needs: tuple[str, ...]
    source: str
    citation: str
    L: float
    """``sup R'``: curvature of the potential relative to negative entropy, from above (T6).

    Where the definition writes no ``slope_range`` it is read off a grid (``reasons`` says so); inf
    where the slope goes on growing towards a log-ratio or an end of the grid."""
    mu: float
    """``inf R'``: the same from below."""
    slope_at_zero: float
    """``R'(0)``; the effective step of a round is ``R'(0)/beta``."""
    reward_bounds: tuple[float, float]
    stability_beta: float
    """Rounds are locally stable at the expert iff beta exceeds this: ``R'(0)/2`` (T6 iv)."""
    descent_beta: float
    """At or above this beta the potential (IPO: the KL) decreases from everywhere: ``L``."""
    potential: str
    conic: tuple[str, ...]
    """Which problems have a cvxpy form: "saddle", "equilibrium"."""
    one_step_exact: bool
    """Whether one loss on one model equals the two-step round for every beta (T3)."""
    fixed_point_is_mle: bool
    """Whether T15's premise holds, so that self-play ends where maximum likelihood does."""
    gradient_at_start: tuple[float, float]
    """Derivative of the loss in the expert's and the own log-ratio at ``pi = pi_t``, beta = 1."""
    reasons: dict[str, str]
    notes: str

    def is_absent(self, name: str) -> bool:
        """Whether a prediction does not exist."""
        value = getattr(self, name)
        parts = value if isinstance(value, tuple) else (value,)
        return name in self.reasons and all(p == "" or p != p for p in parts)

    def at(self, beta: float) -> StepCard:
        """What follows for rounds at this beta.

        Raises:
            InvalidInput: beta is not a finite number > 0.

        >>> theory_card("spif(c=2.02)").at(0.1).locally_stable
        False
        """
        refuse(arguments.number("beta", beta))
        known = not math.isnan(self.stability_beta)
        return StepCard(
            beta=float(beta),
            effective_step=self.slope_at_zero / beta,
            largest_move=(self.reward_bounds[0] / beta, self.reward_bounds[1] / beta),
            locally_stable=bool(beta > self.stability_beta) if known else None,
        )

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a table, absent parts with their reason."""
        out = []
        for field in dataclasses.fields(self):
            name, value = field.name, getattr(self, field.name)
            if name in ("reasons", "notes"):
                continue
            reason = self.reasons.get(name)
            if self.is_absent(name):
                out.append((name, f"{NONE}{reason}"))
            else:
                out.append((name, _shown(value) + (f"; {reason}" if reason else "")))
        if self.notes:
            out.append(("notes", self.notes))
        return out

    def __str__(self) -> str:
        """Plain text, one line a prediction."""
        return "\n".join(f"{name:>20}  {value}" for name, value in self.rows())


def theory_card(obj: Of) -> TheoryCard:
    """Compute what theory predicts for an objective from its formulas alone.

    Args:
        obj: an objective, or its specification as in ``objectives.get``.

    Returns:
        A :class:`TheoryCard`; what an objective does not have is NaN or empty, and ``reasons`` says
        why.

    Raises:
        InvalidInput: if ``obj`` is neither, or a formula fails.

    >>> card = theory_card("spif(c=0.5)")
    >>> card.slope_at_zero, card.stability_beta, card.reward_bounds
    (1.0, 0.5, (-2.0, 2.0))
    """
    obj = objectives.of(obj)
    reasons: dict[str, str] = {}

    def found(names: str, compute: Callable[[], Any], absent: Any) -> Any:
        """What is computed, or what stands for its absence, with the reason under the names."""
        try:
            return compute()
        except Unavailable as error:
            reason = str(error).partition(": ")[2]
            reasons.update(dict.fromkeys(names.split(), reason))
            return absent

    nothing = math.nan, math.nan
    at_zero = found("slope_at_zero stability_beta", lambda: obj.slope_at_zero, math.nan)
    lower, upper = found("mu L descent_beta", lambda: _slope_range(obj), nothing)
    bounds = found("reward_bounds", lambda: obj.reward_bounds, nothing)
    if not obj.writes("slope_range") and not math.isnan(upper):
        reasons |= dict.fromkeys(("L", "mu", "descent_beta"), SCANNED)
    factor = obj.opponent_factor
    stability, descent = at_zero * factor / (1.0 + factor), upper
    if "preference" in obj.needs:
        stability = descent = math.nan
        why = "a preference game is skew: see the anchored thresholds of T12"
        reasons["stability_beta"] = reasons["descent_beta"] = why
    if factor != 1.0:
        descent = math.nan
        reasons["descent_beta"] = "the rounds start from the opponent, not from pi_t"
    potential = (
        "" if obj.missing("potential") else obj.potential_name or "by quadrature of the link"
    )
    if not potential:
        reasons["potential"] = str(obj.missing("potential"))
    kinds = {"saddle": "conic_game", "equilibrium": "conic_potential"}
    lacks = {k: obj.missing(k) or obj.missing(part) for k, part in kinds.items()}
    lacking = [f"{kind}: {lack}" for kind, lack in lacks.items() if lack]
    if lacking:
        reasons["conic"] = "; ".join(lacking)
    gradient = found("gradient_at_start", lambda: obj.gradient_at_start, nothing)
    exact, why_inexact = _one_step_exact(obj)
    mle, why_elsewhere = _fixed_point_is_mle(obj, gradient)
    verdicts = {"one_step_exact": why_inexact, "fixed_point_is_mle": why_elsewhere}
    reasons |= {name: reason for name, reason in verdicts.items() if reason}
    return TheoryCard(
        objective=obj.label,
        form=obj.form,
        needs=tuple(sorted(obj.needs)),
        source=obj.source,
        citation=obj.citation,
        L=upper,
        mu=lower,
        slope_at_zero=at_zero,
        reward_bounds=bounds,
        stability_beta=stability,
        descent_beta=descent,
        potential=potential,
        conic=tuple(kind for kind, why in lacks.items() if not why),
        one_step_exact=exact,
        fixed_point_is_mle=mle,
        gradient_at_start=gradient,
        reasons=reasons,
        notes=obj.notes,
    )


def markdown_table(cards: list[TheoryCard]) -> str:
    """One row an objective; what is absent shows as a dash."""
    columns = ("L", "mu", "slope_at_zero", "stability_beta", "reward_bounds", "potential")
    heads = ["objective", "form", "L", "mu", "R'(0)", "stable iff beta >", "reward bounds"]
    heads += ["potential", "one step exact", "ends at the MLE"]
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for one in cards:
        cells = [one.objective, one.form]
        cells += ["–" if one.is_absent(c) else _shown(getattr(one, c)) for c in columns]
        cells += ["yes" if one.one_step_exact else "no", "yes" if one.fixed_point_is_mle else "no"]
        lines.append("| " + " | ".join(cell.replace("||", "‖") for cell in cells) + " |")
    return "\n".join(lines)


@lru_cache(maxsize=64)
def _slope_range(obj: Objective) -> tuple[float, float]:
    """``(mu, L)``; of a link that jumps, no step is small enough."""
    obj.require("link")
    lower, upper = obj.slope_range()
    if math.isnan(lower + upper):
        raise Unavailable(f"{obj.name}: its slope is beyond the floating-point range")
    try:
        jumps = math.isinf(obj.slope_at_zero)
    except Unavailable:  # a corner at 0, on whose sides there are slopes
        jumps = False
    return (0.0, math.inf) if jumps else (lower, upper)


def _one_step_exact(obj: Objective) -> tuple[bool, str]:
    """T3: the risk must not change when the reward is shifted by a constant of the prompt."""
    if obj.missing("risk"):
        return False, str(obj.missing("risk"))
    if obj.missing("reward"):
        return False, f"there is no two-step round to compare with: {obj.missing('reward')}"
    rng = np.random.default_rng(0)
    x, y, shift = rng.normal(size=(2, 3)), rng.normal(size=(2, 4)), rng.normal(size=(2, 1))
    extras = dict(zip(PREFERENCE, (1.0, 0.0), strict=True)) if "preference" in obj.needs else {}
    with np.errstate(invalid="ignore"):  # some payoffs are undefined at some rewards
        change = obj.reward_risk(x + shift, y + shift, **extras) - obj.reward_risk(x, y, **extras)
    if not np.all(np.isfinite(change)):
        return False, "the loss is not defined at every implicit reward"
    if not risk_response.level_is_seen(partial(obj.reward_risk, **extras)):
        return True, ""
    return False, "the loss changes when the reward is shifted by a constant (partition gap, T4)"


def _fixed_point_is_mle(obj: Objective, gradient: tuple[float, float]) -> tuple[bool, str]:
    """T15's premises: a differentiable one-step loss in log pi/pi_t that rewards the expert."""
    premises = [
        (obj.missing("risk"), f"no one-step loss: {obj.missing('risk')}"),
        ("preference" in obj.needs, "no expert law: the first gradient is SFT on winners"),
        ("anchor" in obj.needs, "the anchor moves the fixed point"),
        (obj.reference_free, "reference-free: the reward is not zero at pi = pi_t"),
        (obj.opponent_factor != 1.0, "the opponent is not pi_t"),
        (not np.all(np.isfinite(gradient)), "the loss has no finite gradient at pi = pi_t"),
        (not gradient[0] < 0, "the loss does not reward expert responses at pi = pi_t"),
    ]
    for fails, why in premises:
        if fails:
            return False, why
    return True, ""


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if value == ():
        return "nothing"
    if isinstance(value, tuple):
        return ", ".join(_shown(v) for v in value)
    return str(value)
