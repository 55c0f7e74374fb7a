"""Certificates that trust nobody: neither the solver nor the link that a definition gives.

Two bounds are all there is. A policy's suboptimality against a reward ``r`` is a KL to its Gibbs
law; a reward's suboptimality against a policy is bounded here from the payoffs alone. The payoffs
of one response trace a curve ``(a(r), b(r))``; a best response to all pairs of masses exists where
that curve is concave, which is ``log(-b'/a')`` increasing. Concave payoffs are so, and Brier's.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from theory import laws, xp
from theory.errors import Unavailable
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

IndexArray = NDArray[np.intp]
EPS = float(np.finfo(np.float64).eps)
ROUNDING = 16.0 * EPS  # relative slope that is no slope
TIGHT = 1e-13  # bounds above it (per unit of mass) are worth a bisection
FURTHEST = 1e150  # rewards beyond which a payoff that still rises has no maximum
BISECTIONS = 60
BALANCE = 1e-8
"""Largest :func:`response_imbalance` of a best response."""
LIMIT = 1e3  # reward (nats) that stands for an infinite one


def equilibrium_bounds(
    obj: Objective, expert: FloatArray, policy: FloatArray, ref: FloatArray | None, tau: float
) -> tuple[FloatArray, FloatArray]:
    """``F = D_Phi(pi||p) + tau KL(pi||ref)`` at the policy, and a lower bound of ``min F``.

    ``D_Phi`` is convex with gradient ``-r`` (T5), so
    ``F(pi') >= D_Phi(pi) + E_pi[r] - E_pi'[r] + tau KL(pi'||ref)``, whose minimum over ``pi'`` is
    closed: ``-tau log sum ref e^{r/tau}``, or ``-max r`` at tau = 0 (a Frank-Wolfe bound). What the
    reward player could still gain on the link's ``r`` is taken off (:func:`reward_gain`).
    NaN where the objective has no potential; -inf where a reward is unbounded, or where the loss
    says that the link's is no best response to these laws (:func:`response_imbalance`).
    """
    if obj.missing("potential"):
        nothing = np.full(expert.shape[:-1], np.nan)
        return nothing, nothing
    divergence = obj.potential(policy, expert)
    reward = np.asarray(obj.link(laws.log_ratio(expert, policy)))
    live = (expert > 0) | (policy > 0)
    with np.errstate(invalid="ignore"):
        linear = divergence + laws.expect(policy, reward)
        linear = linear - reward_gain(obj, expert, policy, reward).sum(-1)
        right = response_imbalance(obj, expert, policy, reward) <= BALANCE
        linear = np.where(right, linear, -np.inf)
        if tau == 0 or ref is None:
            return divergence, linear - np.where(live, reward, -np.inf).max(-1)
        anchor = tau * laws.kl_stable(policy, ref)
        return divergence + anchor, linear - _soft_maximum(ref, reward, tau)


def _soft_maximum(law: FloatArray, x: FloatArray, tau: float) -> FloatArray:
    """``tau log E_law e^{x/tau}`` (...), also at a tau at which the exponentials are 1 but for
    their last digits."""
    weight = np.where(law > 0, laws.log_law(law) + x / tau, -np.inf)
    mean = laws.expect(law, x)[..., None]
    apart = np.where(law > 0, (x - mean) / tau, 0.0)
    near = np.abs(apart).max(-1) < 0.1
    apart = np.where(near[..., None], apart, 0.0)
    beyond = (law * (np.expm1(apart) - apart)).sum(-1)
    return np.where(near, mean[..., 0] + tau * np.log1p(beyond), tau * xp.logsumexp(weight))


def reward_gain(
    obj: Objective, expert: FloatArray, policy: FloatArray, reward: FloatArray
) -> FloatArray:
    """Bound of ``max_s [p a(s) + q b(s)] - [p a(r) + q b(r)]`` by outcome, whoever found ``r``.

    With ``m = -b'/a'`` increasing, ``p a' + q b' = a' (p - q m)`` falls behind its tangent in the
    coordinate ``a``: up to a point ``s`` at which the slope has changed its sign the gain is at
    most ``slope (a(s) - a(r))/a'(r)``, and downwards ``slope (b(s) - b(r))/b'(r)``. Bounds that
    are not small are tightened by bisection.

    Args:
        obj: objective; without payoffs of one response there is nothing to bound, and it is 0.
        expert, policy: masses (..., n), any non-negative measures; reward: (..., n), nats.

    Returns:
        (..., n), >= 0; inf where a maximum was not found.
    """
    gain = np.zeros(np.broadcast_shapes(expert.shape, reward.shape))
    if obj.missing("saddle"):
        return gain
    p, q, r = (np.broadcast_to(x, gain.shape) for x in (expert, policy, reward))
    seen = (p > 0) | (q > 0)
    finite = seen & np.isfinite(r)
    with np.errstate(all="ignore"):
        gain[finite] = _gain(obj, p[finite], q[finite], r[finite])
        limit = seen & ~finite
        if limit.any():  # a limit of the link: finite rewards must not be better
            gain[limit] = _gain_at_limit(obj, p[limit], q[limit], r[limit])
    return gain


class _Payoff:
    """``p a(r) + q b(r)`` of outcomes, with slopes by autograd; a mass of 0 counts as nothing."""

    def __init__(self, obj: Objective, p: FloatArray, q: FloatArray) -> None:
        self.obj, self.p, self.q = obj, p, q

    def at(self, which: IndexArray) -> _Payoff:
        return _Payoff(self.obj, self.p[which], self.q[which])

    def sum(self, on_expert: FloatArray, on_own: FloatArray) -> FloatArray:
        first = np.where(self.p > 0, self.p * on_expert, 0.0)
        return first + np.where(self.q > 0, self.q * on_own, 0.0)

    def value(self, r: FloatArray) -> FloatArray:
        return self.sum(np.asarray(self.obj.a(r)), np.asarray(self.obj.b(r)))

    def slopes(self, r: FloatArray, order: int = 1) -> tuple[FloatArray, FloatArray]:
        return (
            derivatives.derivative(self.obj.a, r, order),
            derivatives.derivative(self.obj.b, r, order),
        )

    def slope(self, r: FloatArray) -> FloatArray:
        return self.sum(*self.slopes(r))


def _gain(obj: Objective, p: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
    whole = _Payoff(obj, p, q)
    up, down = whole.slopes(r)
    slope = whole.sum(up, down)
    size = whole.sum(np.abs(up), np.abs(down))
    gain = np.zeros(r.shape)
    todo = np.flatnonzero(~(np.abs(slope) <= ROUNDING * size))
    if not len(todo):
        return gain
    payoff, r, slope = whole.at(todo), r[todo], slope[todo]
    up, down = up[todo], down[todo]
    sign = np.sign(slope)
    curvature = -payoff.sum(*payoff.slopes(r, 2))
    step = np.where(curvature > 0, 2.0 * np.abs(slope) / curvature, 1.0 + np.abs(r))
    step = np.where(np.isfinite(step), step, 1.0 + np.abs(r))
    low, high = obj.reward_domain
    far, open_ = np.clip(r + sign * step, low, high), np.ones(r.shape, dtype=bool)
    for _ in range(600):
        at = np.flatnonzero(open_)
        passed = ~(sign[at] * payoff.at(at).slope(far[at]) > 0)  # NaN: outside the payoffs' range
        open_[at] = ~(passed | (far[at] <= low) | (far[at] >= high) | (np.abs(far[at]) > FURTHEST))
        if not open_.any():
            break
        step = np.where(open_, 4.0 * step, step)
        far = np.where(open_, np.clip(r + sign * step, low, high), far)
    lost = np.abs(far) > FURTHEST
    found = _tangent(payoff, r, far, slope, up, down)
    loose = np.flatnonzero(~(found <= TIGHT * (payoff.p + payoff.q)) & ~lost)
    if len(loose):
        found[loose] = np.fmin(found[loose], _bisected(payoff.at(loose), r[loose], far[loose]))
    gain[todo] = np.where(lost | np.isnan(found), np.inf, np.maximum(found, 0.0))
    return gain


def _tangent(
    payoff: _Payoff,
    r: FloatArray,
    far: FloatArray,
    slope: FloatArray,
    up: FloatArray,
    down: FloatArray,
) -> FloatArray:
    """What the maximum between ``r`` and ``far`` is above the payoff at ``r``, at most.

    NaN where the coordinate turns before ``far``: the bracket has to be closer.
    """
    obj = payoff.obj
    up_far, down_far = payoff.slopes(far)
    rise = (np.asarray(obj.a(far)) - np.asarray(obj.a(r))) / up
    fall = (np.asarray(obj.b(far)) - np.asarray(obj.b(r))) / down
    rise, fall = np.where(up_far >= 0, rise, np.nan), np.where(down_far <= 0, fall, np.nan)
    return np.abs(slope) * np.abs(np.where(slope > 0, rise, fall))


def _bisected(payoff: _Payoff, r: FloatArray, far: FloatArray) -> FloatArray:
    """The same from a bracket of the maximum that bisection has closed."""
    near, start, sign = r, payoff.value(r), np.sign(far - r)
    for _ in range(BISECTIONS):
        middle = 0.5 * (near + far)
        before = sign * payoff.slope(middle) > 0
        near, far = np.where(before, middle, near), np.where(before, far, middle)
    up, down = payoff.slopes(near)
    slope = payoff.sum(up, down)
    rest = _tangent(payoff, near, far, slope, up, down)
    rest = np.where(np.isnan(rest), np.abs(slope * (far - near)), rest)
    return payoff.value(near) - start + rest


def _gain_at_limit(obj: Objective, p: FloatArray, q: FloatArray, r: FloatArray) -> FloatArray:
    """At an infinite reward the value is a limit; rewards on the way to it must not exceed it."""
    payoff = _Payoff(obj, p, q)
    start = payoff.value(r)
    probes = np.sign(r) * np.geomspace(1e-3, 500.0, 20)[:, None]
    probes = np.clip(probes, *obj.reward_domain)
    best = np.max([np.nan_to_num(payoff.value(s), nan=-np.inf) for s in probes], axis=0)
    excess = np.maximum(best - start, 0.0)
    excess = np.where(excess > EPS * np.abs(start), excess, 0.0)
    # an infinite payoff cannot grow; a loss without end, or no value at all, is no best response
    return np.where(np.isposinf(start), 0.0, np.where(np.isfinite(start), excess, np.inf))


# --- whether there is a best response at all ------------------------------------------------------


def require_best_response(obj: Objective) -> None:
    """Raise :class:`Unavailable` where payoffs, or loss and link, have no best response.

    Payoffs of one response: their curve must be concave, over a grid of rewards. A link of a pair
    loss or group risk must make the risk's gradient vanish on two laws.
    """
    problem = _no_best_response(obj)
    if problem:
        raise Unavailable(f"{obj.name} has no best response: {problem}")


@lru_cache(maxsize=256)
def _no_best_response(obj: Objective) -> str | None:
    if obj.missing("saddle") is None:
        return _not_concave(obj)
    if obj.has_link and obj.missing("risk") is None and "preference" not in obj.needs:
        return _not_the_links(obj)
    return None


def require_potential(obj: Objective) -> None:
    """Raise :class:`Unavailable` where a written potential is not the integral of the link."""
    problem = _not_the_integral(obj)
    if problem:
        raise Unavailable(f"{obj.name}: {problem}")


@lru_cache(maxsize=256)
def _not_the_integral(obj: Objective) -> str | None:
    if obj.missing("potential") or not obj.writes("potential_formula"):
        return None
    p, q = np.array([[0.4, 0.3, 0.2, 0.1], [0.1, 0.35, 0.15, 0.4]])
    far = np.array([0.6, 0.3, 0.0999, 0.0001])
    for expert, policy in ((p, q), (q, p), (p, far), (far, p)):
        u = laws.log_ratio(expert, policy)
        exact = float((expert * derivatives.potential_density(obj.link, u)).sum())
        written = float(obj.potential_formula(policy, expert))
        if not abs(written - exact) <= 1e-6 * abs(exact):
            return (
                f"potential_formula is {written:.6g} where the integral of the link is {exact:.6g}"
            )
    return None


def _not_concave(obj: Objective) -> str | None:
    low, high = obj.reward_domain
    r = np.sinh(np.linspace(-12.0, 12.0, 1201))
    r = r[(r > low) & (r < high)]
    with np.errstate(all="ignore"):
        up, down = derivatives.derivative(obj.a, r), -derivatives.derivative(obj.b, r)
        known = np.isfinite(np.asarray(obj.a(r)) + np.asarray(obj.b(r)) + up + down)
        r, up, down = r[known], up[known], down[known]
        wrong = (up < 0) & (down < 0)
        odds = np.where(up > 0, np.where(down > 0, np.log(down) - np.log(up), -np.inf), np.inf)
        keep = (up > 0) | (down > 0)  # both 0: neither side moves
        r, odds, wrong = r[keep | wrong], odds[keep | wrong], wrong[keep | wrong]
        if not len(r):
            return "no reward was found at which a increases or b decreases (a' > 0 > b')"
        top = np.maximum.accumulate(odds)
        rounding = 1e-7 * (1.0 + np.where(np.isfinite(odds), np.abs(odds), 0.0))
        falls = wrong | (odds < top - rounding)
    if falls.any():
        at = r[np.argmax(falls)]
        return (
            f"p a(r) + q b(r) has more than one peak or no maximum, as -b'/a' falls at r = {at:.3g}"
            " (it increases for concave payoffs)"
        )
    bounded = np.isfinite([low, high]).all()
    if not bounded and not (odds.min() < 0 < odds.max()):
        return (
            "p a(r) + q b(r) rises without end at masses p, q next to each other "
            f"(log(-b'/a') stays within [{odds.min():.3g}, {odds.max():.3g}])"
        )
    return None


def _not_the_links(obj: Objective) -> str | None:
    p, q = np.array([[0.5, 0.2, 0.2, 0.1], [0.1, 0.6, 0.1, 0.2]])
    far = np.array([0.6, 0.3, 0.0999, 0.0001])
    for expert, policy in ((p, q), (q, p), (q, far), (far, q)):
        worst = float(response_imbalance(obj, expert, policy, obj.best_response(expert, policy)))
        if not worst <= BALANCE:
            return (
                f"the link's reward is not it; there the risk's gradient is {worst:.2g} of its two "
                "sides, not 0"
            )
    return None


def response_imbalance(
    obj: Objective, expert: FloatArray, policy: FloatArray, reward: FloatArray
) -> FloatArray:
    """How far a reward is from the best response to these laws, by the loss or payoffs alone (...).

    The largest, over outcomes, of the sum of both sides' pulls at a reward relative to their size:
    half the error of the log-ratio (nats) that the reward would be the best response to. It has no
    unit, is 0 at a best response, however it was found, and :data:`BALANCE` is rounding. Pulls
    below ``1e-4 BALANCE`` of those at reward 0 are none; a kink or bound of the payoffs is at rest
    where nothing is to gain (:func:`reward_gain`), a reward at a limit where it pulls outwards.

    Args:
        obj: objective; without a loss, risk or payoffs there is nothing to compare, and it is 0.
        expert, policy: laws (..., n). reward: (..., n), nats, may be infinite.
    """
    p, q, reward = np.broadcast_arrays(expert, policy, reward)
    if obj.missing("risk") and obj.missing("saddle"):
        return np.zeros(p.shape[:-1])
    held = np.where(np.isfinite(reward), reward, np.where(reward > 0, LIMIT, -LIMIT))
    rows, up, down = obj.pulls(held, p, q)
    _, up_at_zero, down_at_zero = obj.pulls(np.zeros(p.shape), p, q, rows)

    def seen(x: FloatArray) -> FloatArray:
        return x if rows is None else np.take_along_axis(x, rows, axis=-1)

    with np.errstate(all="ignore"):
        total, pull = up + down, np.abs(up) + np.abs(down)
        mass = seen(p + q)
        scale = np.fmax(_mean(pull, mass), _mean(np.abs(up_at_zero) + np.abs(down_at_zero), mass))
        off = np.abs(total) / (pull + 1e-4 * mass * scale)
        outwards = ~np.isfinite(seen(reward)) & (total * seen(held) <= 0)
        off = np.where((mass == 0) | (total == 0) | outwards, 0.0, off)
        if not obj.missing("saddle") and not np.all(off <= BALANCE):
            off = np.where(seen(reward_gain(obj, p, q, reward)) <= TIGHT * pull, 0.0, off)
    return np.asarray(np.where(np.isnan(off), np.inf, off).max(-1, initial=0.0))


def _mean(pull: FloatArray, mass: FloatArray) -> FloatArray:
    """Pull per mass (..., 1) of the outcomes where it is finite."""
    good = np.isfinite(pull)
    total = np.where(good, mass, 0.0).sum(-1, keepdims=True)
    return np.asarray(np.where(good, pull, 0.0).sum(-1, keepdims=True) / total)
