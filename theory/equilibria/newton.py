"""Convex problems that separate over outcomes, given one multiplier per prompt (T10).

    min_pi  sum_y D_y(pi(y)) + tau KL(pi || ref),      D_y'(pi(y)) = -k(log p(y)/pi(y))

with an increasing *pay* ``k(u)`` of the log-ratio ``u = log p/pi``: the reward ``R(u)`` for the
equilibrium of the rounds, ``-b(R(u))`` for the saddle point (envelope theorem). Stationarity is

    k(u) + tau u = tau log(p/ref) + c,      pi = p e^-u = ref e^{(k - c)/tau},      sum pi = 1,

so all outcomes share one scalar function, and ``c`` is the one number that is not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory import laws, xp
from theory.result import FloatArray

Pay = Callable[[FloatArray], FloatArray]
PayAndSlope = Callable[[FloatArray], tuple[FloatArray, FloatArray]]

EPS = float(np.finfo(np.float64).eps)
JUMP_WIDTH = 1e-200
TINY = 5e-324
NUDGES = (
    *((0.0, relative) for relative in (4e-16, 2e-15, 1e-14)),
    *((absolute, 0.0) for absolute in (1e-15, 1e-14, 1e-13, 1e-12, 1e-11, 1e-10, 1e-9)),
)
MAX_OUTER = 200
MAX_INNER = 400


@dataclass(frozen=True)
class Separable:
    """One such problem: laws ``p``, ``ref`` (..., n), ``tau > 0``, the pay and its slope.

    ``slope_pay(u)`` returns pay and slope at finite log-ratios; ``pay(u)`` also takes +-inf.
    """

    p: FloatArray
    ref: FloatArray
    tau: float
    pay: Pay
    slope_pay: PayAndSlope


def value_and_slope(formula: Callable[[Any], Any], u: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Value and derivative of a formula written for torch, in one pass (float64)."""
    import torch

    point = torch.from_numpy(np.array(u, dtype=np.float64)).requires_grad_(True)
    value = formula(point)
    if not value.requires_grad:
        return np.asarray(value.numpy()), np.zeros(u.shape)
    (slope,) = torch.autograd.grad(value.sum(), point)
    return np.asarray(value.detach().numpy()), np.asarray(slope.numpy())


# --- the solver ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stationary:
    """A stationary policy and where it goes as ``x = log tau`` moves.

    Attributes:
        policy: (..., n). c: multiplier (..., 1). u: log-ratios ``log p/pi`` (..., n).
        c_slope, u_slope: their derivatives in x (implicit function theorem).
        policy_slope: that of the policy, (..., n); sums to 0.
        evaluations: of the pay.
    """

    policy: FloatArray
    c: FloatArray
    u: FloatArray
    c_slope: FloatArray
    u_slope: FloatArray
    policy_slope: FloatArray
    evaluations: int

    def ahead(
        self, step: float, before: tuple[float, Stationary] | None = None
    ) -> tuple[FloatArray, FloatArray]:
        """Multiplier and log-ratios at ``x + step``, to start :func:`trace` from.

        To first order; with the point ``before``, a step (back) and what was found there, to second
        (Adams-Bashforth).
        """
        c_slope, u_slope = self.c_slope, self.u_slope
        if before is not None:
            bend = 0.5 * step / before[0]
            c_slope = c_slope + bend * (c_slope - before[1].c_slope)
            u_slope = u_slope + bend * (u_slope - before[1].u_slope)
        return self.c + step * c_slope, self.u + step * u_slope


def solve(problem: Separable, max_iterations: int = MAX_OUTER) -> tuple[FloatArray, int]:
    """Policy ``(..., n)`` and the number of evaluations of the pay, by safeguarded Newton.

    Newton acts on the multiplier (outside) and on all log-ratios at once (inside); both have
    brackets, so that flat, steep and set-valued pays (a sign link) end as well. The inner
    iterations are only as exact as the outer error needs.
    """
    mass = _Mass(problem)
    low, high = mass.bracket()
    c = mass.to_one(np.clip(mass.first_guess(), low, high), low, high, max_iterations)
    policy = mass.policy(c)
    return policy / policy.sum(-1, keepdims=True), mass.inner.evaluations


def trace(
    problem: Separable,
    start: tuple[FloatArray, FloatArray] | None = None,
    max_iterations: int = MAX_OUTER,
) -> Stationary:
    """As :func:`solve`, from a multiplier and log-ratios nearby, with the derivatives in log tau.

    ``k(u) + tau u = tau log(p/ref) + c`` and ``sum pi = 1``, differentiated:

        (k' + tau) u_x = tau (log(p/ref) - u) + c_x,      sum pi u_x = 0

    (outcomes of p = 0 < ref have ``log pi = log ref + (k(-inf) - c)/tau`` instead of a u).
    """
    mass = _Mass(problem)
    low, high = mass.bracket()
    if start is None:
        c = np.clip(mass.first_guess(), low, high)
    else:
        c = np.clip(start[0], low, high)
        mass.inner.begin(c, start[1])
    c = mass.to_one(c, low, high, max_iterations)
    return mass.stationary(c)


class _Mass:
    """Total mass ``sum pi`` of the stationary policy as a function of the multiplier."""

    def __init__(self, problem: Separable) -> None:
        p, ref, self.tau = problem.p, problem.ref, problem.tau
        self.core = (p > 0) & (ref > 0)
        self.log_p = laws.log_law(np.where(self.core, p, 0.0))
        self.shift = np.where(self.core, laws.log_ratio(p, ref), 0.0)
        self.uncovered = bool(np.any((p > 0) & (ref == 0)))
        # where p = 0 < ref, u = -inf and the pay is constant: mass ref e^{(k(-inf) - c)/tau}
        self.off = np.where((p == 0) & (ref > 0), ref, 0.0)
        mass_off = self.off.sum(-1, keepdims=True)
        with np.errstate(all="ignore"):
            self.bottom = problem.pay(np.full(mass_off.shape, -np.inf)) / self.tau
        self.log_off = np.where(mass_off > 0, laws.log_law(mass_off) + self.bottom, -np.inf)
        self.inner = _LogRatios(problem, self.tau * self.shift)

    def first_guess(self) -> FloatArray:
        """The multiplier if the pay were linear with its slope at 0 (exact for ``k = u``)."""
        slope = self.tau + self.inner.slope_at_zero
        theta = self.tau / slope
        start = xp.logsumexp(np.where(self.core, self.log_p - theta * self.shift, -np.inf))
        return self.inner.k_zero + slope * np.where(np.isfinite(start), start, 0.0)[..., None]

    def bracket(self) -> tuple[FloatArray, FloatArray]:
        """Multipliers of mass >= 1 and <= 1: every ``u`` of one sign, widened for supports."""
        inner, shift = self.inner, self.shift
        top = np.max(np.where(self.core, shift, -np.inf), -1, keepdims=True, initial=0.0)
        bottom = np.min(np.where(self.core, shift, np.inf), -1, keepdims=True, initial=0.0)
        low, high = inner.k_minus - self.tau * top, inner.k_plus - self.tau * bottom
        step = 1e-9 * (self.tau + high - low + abs(inner.k_zero))
        low, high = low - step, high + step
        if self.uncovered:
            low = self._widen(low, -(self.tau + high - low))
        if self.off.any():
            high = self._widen(high, self.tau + high - low)
        return low, high

    def _widen(self, end: FloatArray, step: FloatArray) -> FloatArray:
        for _ in range(1100):
            wrong = self.log_total(end)[0] * np.sign(step) > 0
            if not wrong.any():
                break
            end, step = np.where(wrong, end + step, end), 2.0 * step
        return end

    def log_total(self, c: FloatArray) -> tuple[FloatArray, FloatArray]:
        """``log sum pi`` and minus its derivative, at multipliers ``c`` (..., 1)."""
        self.inner.move_to(c)
        log_rest = self.log_off - c / self.tau
        while True:
            error = self.inner.step()
            log_pi = self.log_p - self.inner.u
            top = np.maximum(np.max(log_pi, -1, keepdims=True), log_rest)
            weight, rest = np.exp(log_pi - top), np.exp(log_rest - top)
            total = weight.sum(-1, keepdims=True) + rest
            excess = np.log(total) + top
            enough = np.all(error <= np.maximum(0.01 * np.abs(excess), 1e-16))
            if enough or self.inner.exhausted:
                break
        steep = np.sum(weight * self.inner.inverse_slope, -1, keepdims=True) + rest / self.tau
        return excess, steep / total

    def to_one(
        self, c: FloatArray, low: FloatArray, high: FloatArray, max_iterations: int
    ) -> FloatArray:
        """The multiplier at which the mass is one, by Newton's method within a bracket."""
        for _ in range(max_iterations):
            excess, slope = self.log_total(c)
            noise = 4e-15 + 2.0 * EPS * (1.0 + np.abs(c)) * slope
            done = (np.abs(excess) <= noise) | (high - low <= 2.0 * EPS * np.abs(c))
            if done.all():
                break
            low, high = np.where(excess > 0, c, low), np.where(excess > 0, high, c)
            with np.errstate(divide="ignore", invalid="ignore"):
                newton = c + excess / slope
            inside = (newton > low) & (newton < high)
            c = np.where(done, c, np.where(inside, newton, 0.5 * (low + high)))
        return c

    def stationary(self, c: FloatArray) -> Stationary:
        """The policy at the multiplier last evaluated, with the derivatives in log tau."""
        raw, inner, tau = self.policy(c), self.inner, self.tau
        policy = raw / raw.sum(-1, keepdims=True)
        lag = np.where(self.core, tau * (self.shift - inner.u), 0.0)
        inside = np.where(self.core, policy, 0.0) * inner.inverse_slope
        outside = np.where(self.off > 0, policy, 0.0).sum(-1, keepdims=True)
        above = np.where(outside > 0, self.bottom - c / tau, 0.0)
        pull = (inside * lag).sum(-1, keepdims=True) + outside * above
        with np.errstate(divide="ignore", invalid="ignore"):
            c_slope = -pull / (inside.sum(-1, keepdims=True) + outside / tau)
        c_slope = np.where(np.isfinite(c_slope), c_slope, 0.0)  # every log-ratio is held at a jump
        u_slope = np.where(self.core, inner.inverse_slope * (lag + c_slope), 0.0)
        log_slope = np.where(self.off > 0, -above - c_slope / tau, -u_slope)
        return Stationary(
            policy, c, inner.u, c_slope, u_slope, policy * log_slope, inner.evaluations
        )

    def policy(self, c: FloatArray) -> FloatArray:
        """The policy at the multiplier last evaluated, not normalised."""
        policy = np.exp(self.log_p - self.inner.u)
        if not self.off.any():
            return policy
        log_off = laws.log_law(self.off) + self.bottom - c / self.tau
        return np.where(self.off > 0, np.exp(log_off), policy)


class _LogRatios:
    """Solves ``k(u) + tau u = s`` for all outcomes at once, warm-started as ``s`` moves."""

    def __init__(self, problem: Separable, anchor: FloatArray) -> None:
        self.problem, self.anchor, self.tau = problem, anchor, problem.tau
        self.evaluations = 0
        around = np.array([-JUMP_WIDTH, 0.0, JUMP_WIDTH])
        around = np.broadcast_to(around, (*anchor.shape[:-1], 3))
        k, slope = problem.slope_pay(around)
        self.k_minus, self.k_zero, self.k_plus = k[..., :1], k[..., 1:2], k[..., 2:]
        self.slope_at_zero = np.where(np.isfinite(slope[..., 1:2]), slope[..., 1:2], 0.0)
        self.jumps = bool(np.any(self.k_plus - self.k_minus > 1e-9 * (1.0 + np.abs(self.k_zero))))
        self.u = np.zeros(anchor.shape)
        self.inverse_slope = np.ones(anchor.shape) / (self.tau + self.slope_at_zero)
        self.c: FloatArray | None = None

    def begin(self, c: FloatArray, u: FloatArray) -> None:
        """Log-ratios to start from at a multiplier."""
        self.c, self.u = c, np.broadcast_to(u, self.anchor.shape)

    def move_to(self, c: FloatArray) -> None:
        """Set new targets ``tau log(p/ref) + c``: brackets from ``k(0)``, u by a predictor step."""
        self.s = self.anchor + c
        above = np.maximum(self.s - self.k_plus, 0.0)
        below = np.minimum(self.s - self.k_minus, 0.0)
        widen = (1.0 + 1e-12) / self.tau
        self.low, self.high = widen * below, widen * above
        if self.c is None:
            self.u = self.inverse_slope * (self.s - self.k_zero)
        else:
            self.u = self.u + self.inverse_slope * (c - self.c)
        self.u = np.clip(self.u, self.low, self.high)
        self.c = c
        self.last = np.full(self.u.shape, np.inf)
        self.steps = 0

    @property
    def exhausted(self) -> bool:
        """Whether the brackets must have closed by now."""
        return self.steps >= MAX_INNER

    def step(self) -> FloatArray:
        """One safeguarded Newton step; returns an estimate of each log-ratio's error."""
        self.steps += 1
        self.evaluations += 1
        u, s = self.u, self.s
        with np.errstate(all="ignore"):
            k, slope = self.problem.slope_pay(u)
            residual = k + self.tau * u - s
            slope = slope + self.tau
            newton = u - residual / slope
            size = np.abs(residual)
            rounding = 4.0 * EPS * (np.abs(k) + np.abs(self.tau * u) + np.abs(s))
            solved = (size <= rounding) & np.isfinite(size)  # an infinite pay solves nothing
            self.inverse_slope = np.where(np.isfinite(slope), 1.0 / slope, 0.0)
        # "not (residual > 0)" would send NaN to the wrong side: compare each side explicitly
        self.low = np.where(residual < 0, u, self.low)
        self.high = np.where(residual > 0, u, self.high)
        good = (newton >= self.low) & (newton <= self.high) & (size <= 0.5 * self.last)
        middle = np.sinh(0.5 * (np.arcsinh(self.low) + np.arcsinh(self.high)))
        self.last = size
        new = np.where(solved, u, np.where(good, newton, middle))
        # a Newton step of size d leaves an error of about d^2, a bisection half the bracket
        error = np.where(good, np.square(new - u), self.high - self.low)
        closed = self.high - self.low <= 4.0 * EPS * np.abs(u)
        if self.jumps:
            pinned = (s >= self.k_minus) & (s <= self.k_plus)
            new = np.where(pinned, 0.0, new)
            closed |= pinned
        # at a jump of the pay the log-ratio does not move with the multiplier
        self.inverse_slope = np.where(closed & ~solved, 0.0, self.inverse_slope)
        self.u = new
        return np.where(solved | closed, 0.0, error)


# --- the certificate ----------------------------------------------------------------------------


def certificate(
    problem: Separable, policy: FloatArray, nudges: tuple[tuple[float, float], ...] = ()
) -> tuple[FloatArray, FloatArray]:
    """Upper bound of the suboptimality of *any* policy, and the pay that proves it.

    Tangents of the ``D_y`` with slopes ``-k`` bound the value from below, by a minimum in closed
    form. Primal minus that bound is, without a difference of large numbers,

        tau KL(pi || ref e^{k/tau} / Z)  +  sum_y (D_y(pi) - [tangent of D_y with slope -k](pi)).

    With ``k = k(log p/pi)`` the second sum is 0. A pay that is set-valued at the policy, or a
    policy with the errors of another solver, needs ``k`` from nearby: each outcome then gets the
    pay nearest to ``tau log(pi/ref) + c`` that is a slope of ``D_y`` within ``nudge`` of ``pi(y)``,
    and the second sum is at most ``sum nudge |k - k(log p/pi)|``. Nudges are pairs (absolute,
    relative to pi); the best counts.

    Returns:
        The gap (...) >= 0 and the pay (..., n).
    """
    p, ref, tau = problem.p, problem.ref, problem.tau
    used = ref > 0

    def pay(law: FloatArray) -> FloatArray:
        u = laws.log_ratio(p, np.maximum(law, TINY))
        return np.where(used, problem.pay(u), 0.0)

    at_policy = pay(policy)
    best_pay = at_policy
    best = tau * laws.kl_stable(policy, gibbs(ref, at_policy, tau))
    held = policy > 0
    wanted = tau * laws.log_ratio(np.where(held, policy, 1.0), np.where(held, ref, 1.0))
    for absolute, relative in nudges:
        nudge = absolute + relative * policy
        lowest, highest = pay(policy + nudge), pay(np.maximum(policy - nudge, 0.0))
        c = _centre(np.where(held, lowest - wanted, 0.0), highest - wanted, policy)
        chosen = np.where(held, np.clip(wanted + c, lowest, highest), at_policy)
        with np.errstate(invalid="ignore"):
            moved = nudge * np.where(chosen == at_policy, 0.0, np.abs(chosen - at_policy))
        total = tau * laws.kl_stable(policy, gibbs(ref, chosen, tau)) + moved.sum(-1)
        better = total < best
        best = np.where(better, total, best)
        best_pay = np.where(better[..., None], chosen, best_pay)
    return best, best_pay


def gibbs(ref: FloatArray, pay: FloatArray, tau: float) -> FloatArray:
    """``ref e^{pay/tau}`` normalised: what minimises ``-E_pi[pay] + tau KL(pi || ref)``."""
    with np.errstate(invalid="ignore"):  # an infinite pay has no Gibbs law: NaN, not certified
        return np.asarray(np.exp(xp.log_normalise(laws.log_law(ref) + pay / tau)))


def _centre(low: FloatArray, high: FloatArray, weight: FloatArray) -> FloatArray:
    """The largest number nearest to all intervals [low, high] in weighted squares, by bisection.

    The largest, because outcomes that the policy has left prove it only under a large multiplier.
    """
    left = np.min(np.where(weight > 0, low, np.inf), -1, keepdims=True)
    high = np.where(weight > 0, np.minimum(high, 1e300), 0.0)
    right = np.max(np.where(weight > 0, high, -np.inf), -1, keepdims=True)
    for _ in range(100):
        c = 0.5 * left + 0.5 * right
        pull = weight * (np.maximum(low - c, 0.0) - np.maximum(c - high, 0.0))
        below = pull.sum(-1, keepdims=True) >= 0
        left, right = np.where(below, c, left), np.where(below, right, c)
    return 0.5 * left + 0.5 * right
