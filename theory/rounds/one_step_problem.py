"""Separable losses of the implicit reward, minimised over normalised policies (reconstruction, T4).

    min over laws pi of  sum_i f_i(r_i),   f_i = -p_i a - q_i b,   r_i = s log(pi_i / w_i)

with ``s = beta + tau`` and the prior ``w = pi_t^{beta/s} pi_ref^{tau/s}``. Read as a function of
``pi_i`` alone, ``F_i(pi_i) = f_i(r_i)`` has the slope ``h_i = s f_i'(r_i)/pi_i`` and its curvature
has the sign of ``D_i = f_i'' - f_i'/s``. A stationary law has ``h_i(pi_i) = lambda`` for all i (or
pi_i = 0 and ``h_i(0) >= lambda``). What is used:

*Shape.* Where every ``F_i`` is convex up to one *fold* and concave from there on, ``h_i = lambda``
has one root on each part: the near branch, increasing in lambda, and the far branch, decreasing.
With ``A = a'/s - a''`` and ``B = b'/s - b''``, ``D = p A + q B`` has that sign pattern for all p,
q >= 0 iff ``(A, B)`` starts in the first quadrant and turns clockwise once B < 0. Algebra for the
registered objectives: quadratic a, b (SPIF, IQ-Learn, policy-only, SPPO): (A, B) runs along a line
down and reaches B = 0 first; logistic (AIRL, SPACE): D / s(r) s(-r) is a concave quadratic in
s(r), positive at 0; exponential and NWJ: ``p e^{-r}(1+1/s) + q e^r (1-1/s)`` and ``p/s + q
e^{r-1}(1-1/s)`` change sign once if s < 1, never otherwise; Brier: once if s <= 1, twice (concave,
convex, concave) if s > 1. :func:`single_fold` checks the pattern on a grid of rewards for any
objective.

*At most one outcome is far.* At a local minimum the Hessian, diagonal with entries ``F_i''``, is
positive semidefinite on the plane ``sum v = 0``, so at most one entry is negative.

*Z >= 1* (the two-step weights ``w e^{R/s}`` sum to at least one): then lambda <= 0, all r_i <=
R_i, all outcomes are on the near branch and the minimum is unique; for concave a, b it is the
minimum of a convex problem (``sum pi <= 1`` is convex in r) whatever the shape.

*No fold* below mass one (NWJ and exponential at s >= 1): the problem is convex in pi.

*Z < 1*: with j far at mass m, the others solve a convex problem of mass 1 - m with value ``V_j(1 -
m)`` convex in m, while ``F_j(m)`` is concave: chords of ``F_j`` plus tangents of ``V_j`` (slope
-lambda) bound the risk from below on every interval of m. Bisecting the intervals with the lowest
bound gives the global minimum with a certificate.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from theory.objectives import Objective, derivatives
from theory.result import FloatArray

BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
LOWEST = -700.0
"""Log-probability (and reward over s) at which an outcome that wants no mass is given none."""


def slopes(formula: derivatives.Formula, r: FloatArray) -> list[FloatArray]:
    """First and second derivative of a formula at ``r``."""
    return derivatives.with_derivatives(formula, r, 2)[1:]


def payoff_slopes(obj: Objective, r: FloatArray) -> tuple[FloatArray, FloatArray]:
    """First and second derivatives (2, ...) of the payoffs a and b at ``r``, from one graph."""

    def both(at: Any) -> Any:
        return obj.a(at[0]) + obj.b(at[1])

    found = slopes(both, np.stack([r, r]))
    return np.stack([each[0] for each in found]), np.stack([each[1] for each in found])


@lru_cache(maxsize=256)
def single_fold(obj: Objective, s: float, largest: float) -> bool:
    """Whether every ``F_i`` is convex, then concave, on a grid of rewards up to ``largest``."""
    r = np.sinh(np.linspace(-np.arcsinh(1e3 * (1.0 + s)), np.arcsinh(largest), 4001))
    with np.errstate(all="ignore"):
        (a1, a2), (b1, b2) = payoff_slopes(obj, r)
        on_expert, on_own = a1 / s - a2, b1 / s - b2
    known = np.isfinite(on_expert) & np.isfinite(on_own)
    on_expert, on_own = on_expert[known], on_own[known]
    noise = 1e-12 * np.maximum(np.abs(on_expert), np.abs(on_own))
    folded = np.maximum.accumulate(on_own < -noise)
    angle = np.arctan2(on_own, on_expert)[folded]
    before = (on_expert >= -noise) & (on_own >= -noise)
    still = on_own[folded] <= noise[folded]
    return bool(np.all(before[~folded]) and np.all(still) and np.all(np.diff(angle) <= 1e-9))


@lru_cache(maxsize=256)
def concave(obj: Objective, s: float, largest: float) -> bool:
    """Whether a and b are concave on the same grid."""
    r = np.sinh(np.linspace(-np.arcsinh(1e3 * (1.0 + s)), np.arcsinh(largest), 4001))
    with np.errstate(all="ignore"):
        return bool(all(np.all(~(slopes(f, r)[1] > 1e-12)) for f in (obj.a, obj.b)))


@dataclass(frozen=True)
class OneStepProblem:
    """The losses ``f_i`` and the prior; arrays are (B, n), or (B, K, n) when :meth:`lifted`.

    Attributes:
        p, q: weights of ``-a`` and ``-b``, non-negative.
        log_w: log of the prior (unnormalised); -inf where the policy stays 0.
        best: the two-step reward ``R``, capped so that ``w e^{R/s}`` stays finite; may be -inf.
    """

    obj: Objective
    s: float
    p: FloatArray
    q: FloatArray
    log_w: FloatArray
    best: FloatArray

    @property
    def alive(self) -> BoolArray:
        """Outcomes that can have mass."""
        return np.isfinite(self.log_w)

    @property
    def start(self) -> FloatArray:
        """``log(w e^{R/s})``, the unnormalised two-step round; -inf where it has no mass."""
        return np.where(self.alive, self.log_w + self.best / self.s, -np.inf)

    @property
    def floor(self) -> FloatArray:
        """Lower end of the search for the log-probability."""
        prior = np.where(self.alive, self.log_w, 0.0)
        start = self.start
        vanishing = np.maximum(LOWEST, np.minimum(prior, 0.0) + LOWEST / self.s)
        return np.where(np.isfinite(start), np.minimum(start, 0.0) + LOWEST, vanishing)

    def rows(self, keep: Any) -> OneStepProblem:
        """The prompts that the index selects."""
        cut = (x[keep] for x in (self.p, self.q, self.log_w, self.best))
        return OneStepProblem(self.obj, self.s, *cut)

    def lifted(self) -> OneStepProblem:
        """The same problem with an axis of multipliers in the middle."""
        return self.rows((slice(None), None))

    def reward(self, log_pi: FloatArray) -> FloatArray:
        """Implicit reward ``s log(pi/w)``; 0 where nothing can have mass."""
        prior = np.where(self.alive, self.log_w, 0.0)
        return np.where(self.alive, self.s * (log_pi - prior), 0.0)

    def force(self, log_pi: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``f'`` and ``f''`` in the reward, 0 where nothing can have mass."""
        r = self.reward(np.where(np.isneginf(log_pi), self.floor, log_pi))
        with np.errstate(all="ignore"):
            (a1, a2), (b1, b2) = payoff_slopes(self.obj, r)
            first = -np.where(self.p > 0, self.p * a1, 0.0) - np.where(self.q > 0, self.q * b1, 0.0)
            second = -np.where(self.p > 0, self.p * a2, 0.0)
            second = second - np.where(self.q > 0, self.q * b2, 0.0)
        return np.where(self.alive, first, 0.0), np.where(self.alive, second, 0.0)

    def slope(self, log_pi: FloatArray) -> FloatArray:
        """``h = s f'/pi``, the slope of the loss in the outcome's mass."""
        with np.errstate(over="ignore", invalid="ignore"):
            h = self.s * self.force(log_pi)[0] * np.exp(-log_pi)
        return np.where(self.alive, np.where(np.isnan(h), 0.0, h), np.inf)  # 0 inf: at r = R

    def losses(self, log_pi: FloatArray) -> FloatArray:
        """``f_i`` per outcome."""
        r = self.reward(log_pi)
        with np.errstate(all="ignore"):
            a, b = np.asarray(self.obj.a(r)), np.asarray(self.obj.b(r))
            on_expert = np.where(self.p > 0, self.p * a, 0.0)
            return np.where(self.alive, -on_expert - np.where(self.q > 0, self.q * b, 0.0), 0.0)
