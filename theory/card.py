"""The theory card of an objective: what is predicted, computed from its formulas."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

from theory.errors import InvalidInput
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

NONE = "none: "
_TAIL = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0)


@dataclasses.dataclass(frozen=True)
class TheoryCard:
    """Predictions for one objective (reconstruction, T1-T9, T15); numbers are in nats.

    NaN numbers and strings that start with "none: " are absent, with the reason in ``reasons``
    or in the string.
    """

    objective: str
    form: str
    needs: tuple[str, ...]
    source: str
    citation: str
    L: float
    """``sup R'``: curvature of the potential relative to negative entropy, from above (T6)."""
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

    def rows(self) -> list[tuple[str, str]]:
        """(name, value) pairs for a table, absent parts with their reason."""
        out = []
        for field in dataclasses.fields(self):
            if field.name in ("reasons", "notes"):
                continue
            value = getattr(self, field.name)
            shown = _shown(value)
            absent = shown in ("nan", "nan, nan", "nothing", "no")
            reason = self.reasons.get(field.name)
            if reason and (absent or field.name == "conic"):
                shown = (
                    f"{shown}; {reason}"
                    if shown in ("no", "saddle", "equilibrium")
                    else NONE + reason
                )
            out.append((field.name, shown))
        if self.notes:
            out.append(("notes", self.notes))
        return out

    def __str__(self) -> str:
        """Plain text, one line a prediction."""
        return "\n".join(f"{name:>20}  {value}" for name, value in self.rows())


def theory_card(obj: Objective) -> TheoryCard:
    """Compute what theory predicts for an objective from its link and loss alone.

    Raises:
        InvalidInput: if ``obj`` is not an objective.
    """
    if not isinstance(obj, Objective):
        raise InvalidInput(f"obj={obj!r}; needed is an objective, as from objectives.get(name)")
    reasons: dict[str, str] = {}
    lower, upper, at_zero = math.nan, math.nan, math.nan
    bounds = (math.nan, math.nan)
    if obj.has_link:
        lower, upper, at_zero = _slopes(obj)
        bounds = obj.reward_bounds
    else:
        for name in ("L", "mu", "slope_at_zero", "reward_bounds", "stability_beta", "descent_beta"):
            reasons[name] = str(obj.missing("link"))
    factor = obj.opponent_factor
    stability, descent = at_zero * factor / (1.0 + factor), upper
    if "preference" in obj.needs:
        stability = descent = math.nan
        why = "a preference game is skew: see the anchored thresholds of T12"
        reasons["stability_beta"] = reasons["descent_beta"] = why
    if factor != 1.0:
        descent = math.nan
        reasons["descent_beta"] = "the rounds start from the opponent, not from pi_t"
    potential = obj.potential_name or "by quadrature of the link"
    if obj.missing("potential"):
        potential = NONE + str(obj.missing("potential"))
    kinds = {"saddle": "conic_game", "equilibrium": "conic_potential"}
    lacks = {k: obj.missing(k) or obj.missing(part) for k, part in kinds.items()}
    for kind, lack in lacks.items():
        if lack:
            reasons["conic"] = (
                reasons.get("conic", "") + f"{'; ' * ('conic' in reasons)}{kind}: {lack}"
            )
    gradient = _gradient_at_start(obj)
    if math.isnan(gradient[0]):
        reasons["gradient_at_start"] = str(obj.missing("risk"))
    exact, why_inexact = _one_step_exact(obj)
    mle, why_elsewhere = _fixed_point_is_mle(obj, gradient)
    found = {"one_step_exact": why_inexact, "fixed_point_is_mle": why_elsewhere}
    reasons |= {name: reason for name, reason in found.items() if reason}
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
        values = dict(one.rows())
        cells = [one.objective, one.form]
        cells += [values[c] for c in columns]
        cells += ["yes" if one.one_step_exact else "no", "yes" if one.fixed_point_is_mle else "no"]
        shown = ["–" if cell.startswith("none: ") else cell.replace("||", "‖") for cell in cells]
        lines.append("| " + " | ".join(shown) + " |")
    return "\n".join(lines)


def _slopes(obj: Objective) -> tuple[float, float, float]:
    """``inf R'``, ``sup R'`` and ``R'(0)`` over all log-ratios; links of Delta at Delta = 0."""
    step = 1e-9
    jump = float(obj.link(step, 0.0)) - float(obj.link(-step, 0.0))
    if jump > 1e-6 * max(1.0, abs(float(obj.link(1.0, 0.0)))):
        return 0.0, math.inf, math.inf  # discontinuous at 0: no step is small enough
    side = np.concatenate([np.linspace(0.0, 40.0, 2001), _TAIL])
    grid = np.concatenate([-side[:0:-1], side])
    with np.errstate(over="ignore"):
        slopes = obj.slope(grid, np.asarray(0.0))
    at_zero = float(slopes[len(side) - 1])
    known = ~np.isnan(slopes)  # of payoffs alone, the slope is lost where they underflow
    grid, slopes = grid[known], slopes[known]
    return _extreme(obj, grid, slopes, -1), _extreme(obj, grid, slopes, 1), at_zero


def _extreme(obj: Objective, grid: FloatArray, slopes: FloatArray, sign: int) -> float:
    """Supremum (sign 1) or infimum (-1) of the slope: refined inside, a limit at the ends."""
    at = int(np.argmax(sign * slopes))
    inside = 2 <= at < len(grid) - 2
    for far, near in ((0, 1), (-1, -2)):
        ends = float(slopes[far]), float(slopes[near])
        if not np.isfinite(ends[0]) or abs(ends[0]) > 1.01 * abs(ends[1]) + 1e-12:
            if sign > 0:
                return math.inf  # still growing at 700 nats
        elif sign < 0 and ends[0] < 0.99 * ends[1] + 1e-12:
            return 0.0  # still decaying
    if not inside:
        return float(slopes[at])
    best, left, right = sign * float(slopes[at]), grid[at - 1], grid[at + 1]
    for _ in range(4):
        points = np.linspace(left, right, 41)
        values = sign * obj.slope(points, np.asarray(0.0))
        top = int(np.argmax(values))
        best = max(best, float(values[top]))
        left, right = points[max(top - 1, 0)], points[min(top + 1, 40)]
    return sign * best


def _extras(obj: Objective, anchor: float = 0.0) -> dict[str, Any]:
    extras: dict[str, Any] = {}
    if "anchor" in obj.needs:
        extras |= {"tau": 1.0, "expert_anchor": anchor, "policy_anchor": anchor}
    if "preference" in obj.needs:
        extras |= {"expert_preference": 1.0, "policy_preference": 0.0}
    if "history" in obj.needs:
        extras |= {"history_logratio": np.zeros(1)}
    return extras


def _gradient_at_start(obj: Objective) -> tuple[float, float]:
    """Derivatives of the risk of one expert and one own response at log-ratio 0, beta = 1."""
    if obj.missing("risk"):
        return math.nan, math.nan
    extras = _extras(obj)

    def on(side: int) -> float:
        def risk(x: Any) -> Any:
            import torch

            zero = torch.zeros((1,), dtype=torch.float64)
            given = {k: torch.as_tensor(v, dtype=torch.float64) for k, v in extras.items()}
            pair = (x, zero) if side == 0 else (zero, x)
            return obj.risk(*pair, 1.0, **given)

        return float(derivatives.derivative(risk, np.zeros(1))[0])

    return on(0), on(1)


def _one_step_exact(obj: Objective) -> tuple[bool, str]:
    """T3: the risk must not change when the reward is shifted by a constant of the prompt."""
    if obj.missing("risk"):
        return False, str(obj.missing("risk"))
    if obj.missing("reward"):
        return False, f"there is no two-step round to compare with: {obj.missing('reward')}"
    rng = np.random.default_rng(0)
    x, y, shift = rng.normal(size=(2, 3)), rng.normal(size=(2, 4)), rng.normal(size=(2, 1))
    extras = _extras(obj)
    with np.errstate(invalid="ignore"):  # some payoffs are undefined at some rewards
        change = obj.risk(x + shift, y + shift, 1.0, **extras) - obj.risk(x, y, 1.0, **extras)
    if not np.all(np.isfinite(change)):
        return False, "the loss is not defined at every implicit reward"
    if np.max(np.abs(change)) <= 1e-10:
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
