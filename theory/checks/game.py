"""What a check of the theorems has at hand: a random game, what it reports to, and other ways.

The other ways are optimisers that know the payoffs or the risk alone, and the extras of losses.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import elementwise

from theory import laws
from theory.objectives import Objective, derivatives
from theory.result import FloatArray


class Instance(NamedTuple):
    """Expert, start and reference laws (prompts, n), and a generator for further draws."""

    expert: FloatArray
    start: FloatArray
    ref: FloatArray
    rng: np.random.Generator


class Comparisons:
    """What a check reports to: AssertionError if a comparison fails. A recorder keeps margins too.

    ``because`` is the reason of the tolerance: rounding, solver, expansion, chosen...
    """

    def close(
        self,
        actual: Any,
        predicted: Any,
        atol: float,
        rtol: float = 0.0,
        what: str = "",
        because: str = "rounding",
    ) -> None:
        """``|actual - predicted| <= atol + rtol |predicted|``."""
        a, p = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (actual, predicted)))
        with np.errstate(all="ignore"):
            error = np.where(a == p, 0.0, np.abs(a - p))
            over = ~(error <= atol + rtol * np.where(np.isfinite(p), np.abs(p), 0.0))
        if over.any():
            raise AssertionError(f"{what}: {a[over][0]:.6g} against {p[over][0]:.6g}")

    def below(
        self,
        value: Any,
        bound: Any,
        what: str = "",
        atol: float = 0.0,
        because: str = "rounding",
    ) -> None:
        """``value <= bound + atol``."""
        v, b = np.broadcast_arrays(np.asarray(value, float), np.asarray(bound, float))
        over = ~(v <= b + atol)
        if over.any():
            raise AssertionError(f"{what}: {v[over][0]:.6g} is above {b[over][0]:.6g}")

    def exhibits(
        self, value: Any, at_least: float, what: str = "", because: str = "chosen"
    ) -> None:
        """``value >= at_least``."""
        if not np.all(np.asarray(value) >= at_least):
            raise AssertionError(f"{what}: {np.min(value):.6g} is below {at_least:.6g}")


Check = Callable[[Objective, Instance, Comparisons], None]


def extras_for(obj: Objective, on_expert: Any, on_own: Any, tau: float = 0.0) -> dict[str, Any]:
    """The extras that a loss needs, shaped like the log-ratios: hard labels, history = own."""
    extras: dict[str, Any] = {}
    if "anchor" in obj.needs:
        extras |= {"tau": tau, "expert_anchor": 0 * on_expert, "policy_anchor": 0 * on_own}
    if "preference" in obj.needs:
        extras |= {"expert_preference": 0 * on_expert + 1, "policy_preference": 0 * on_own}
    if "history" in obj.needs:
        extras |= {"history_logratio": 0 * on_own}
    return extras


def reward_extras(obj: Objective, law: Any) -> dict[str, Any]:
    """The extras that a best response needs: hard preferences."""
    return extras_for(obj, law, law) if "preference" in obj.needs else {}


def as_torch(x: Any) -> Any:
    """A torch tensor of the numbers."""
    import torch

    return torch.as_tensor(x)


def numeric_best_response(obj: Objective, p: FloatArray, q: FloatArray) -> FloatArray:
    """``argmax_r p a(r) + q b(r)`` per outcome, by root finding on the derivative alone; without a
    root in the rewards' domain that end of it to which the derivative points."""

    def marginal(r: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
        return p * derivatives.derivative(obj.a, r) + q * derivatives.derivative(obj.b, r)

    low, high = obj.reward_domain
    first = max(low, min(-1.0, high - 2.0)) + min(0.5, 0.25 * (high - low))
    start = (np.full(p.shape, first), np.full(p.shape, first + min(0.25, 0.25 * (high - low))))
    with np.errstate(all="ignore"):
        bracket = elementwise.bracket_root(marginal, *start, xmin=low, xmax=high, args=(p, q))
        found = elementwise.find_root(marginal, bracket.bracket, args=(p, q))
        end = np.where(marginal(start[0], p, q) > 0, high, low)
    held = ~bracket.success & np.isfinite(end)
    hold((bracket.success | held).all(), f"{obj.name}: no sign change of p a' + q b' was found")
    hold((found.success | held).all(), f"{obj.name}: the root of p a' + q b' was not found")
    return np.where(held, end, found.x)


def risk_of_rewards(obj: Objective, p: FloatArray, q: FloatArray) -> Callable[[Any], Any]:
    """Risk of a reward (n,) for laws (n,), written for torch."""
    weights = as_torch(p), as_torch(q)

    def risk(r: Any) -> Any:
        return obj.risk(r, r, 1.0, *weights, **extras_for(obj, r.detach(), r.detach()))

    return risk


def centred(r: FloatArray, law: FloatArray) -> FloatArray:
    """``r - E_law[r]``, (..., n) in nats."""
    return r - laws.expect(law, r)[..., None]


def hold(condition: Any, sentence: str) -> None:
    """AssertionError with the sentence where the condition fails."""
    if not condition:
        raise AssertionError(sentence)
