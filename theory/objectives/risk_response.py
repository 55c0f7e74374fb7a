"""Best responses to risks of all rewards of a prompt at once that no closed form gives.

Damped Newton's method on the risk with exact derivatives (torch), all prompts at once; and what
follows from the risk alone: the log-ratio at which a further response would get a reward, and the
slope of the reward at equal laws. Pair losses: :mod:`theory.objectives.pair_response`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory.errors import NotConverged
from theory.objectives import derivatives
from theory.result import FloatArray

Risk = Callable[..., Any]
MAX_NEWTON = 200
BALANCED, ROUNDING = 1e-9, 1e-14
"""Differences of pulls, of what they are, that are accepted, and below which there are none."""
LEAST, HALVINGS = 1e-16, 50
"""Relative steps below which nothing moves, and how often one is halved."""
PHANTOM = 1e-10
"""Weight of a further response whose pull on the others is neglected."""


def risk_gradient(
    risk: Risk, r: FloatArray, expert: FloatArray, policy: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Risk (...), and its gradient (..., n) in the expert's and in the own rewards, at ``r``."""
    import torch

    with torch.enable_grad(), np.errstate(all="ignore"):
        sides = [
            torch.tensor(np.where(law > 0, r, 0.0), dtype=torch.float64, requires_grad=True)
            for law in (expert, policy)
        ]
        value = risk(*sides, torch.tensor(expert), torch.tensor(policy))
        on_expert, on_own = torch.autograd.grad(value.sum(), sides)
    return value.detach().numpy(), on_expert.numpy(), on_own.numpy()


def of_risk(risk: Risk, expert: FloatArray, policy: FloatArray, free: bool) -> FloatArray:
    """Minimiser of a risk of all rewards of a prompt, for valid laws (..., n).

    Args:
        risk: ``risk(r_y, r_own, w_y, w_own)``, convex in the rewards, written for torch.
        expert, policy: laws (..., n).
        free: whether a common shift of the rewards changes nothing.

    Raises:
        NotConverged: no minimiser was reached; ``solution`` holds the rewards.
    """
    shape, n = expert.shape, expert.shape[-1]
    p, q = expert.reshape(-1, n), policy.reshape(-1, n)
    used, r = p + q > 0, np.zeros(p.shape)
    scale = _pull(*risk_gradient(risk, r, p, q)[1:])
    unit = _unit(risk, p, q, scale)
    worst, going = np.full(len(p), np.inf), np.arange(len(p))  # prompts that are not at rest
    for _ in range(MAX_NEWTON):
        value, on_expert, on_own = risk_gradient(risk, r[going], p[going], q[going])
        gradient = np.where(used[going], on_expert + on_own, 0.0)
        if free:  # a pull at all rewards alike is rounding, of the largest
            both = np.abs(on_expert) + np.abs(on_own)
            gradient = gradient - gradient.sum(-1, keepdims=True) * both / _pull(on_expert, on_own)
        fine, rough = _balances(on_expert, on_own, p[going], q[going], scale[going])
        # of slopes that cancel no more is known than roughly: as near as steps lead is near enough
        worst[going] = np.where(rough <= ROUNDING, 0.0, fine).max(-1, initial=0.0)
        more = (fine > ROUNDING).any(-1)
        going, value, gradient, fine = going[more], value[more], gradient[more], fine[more]
        if not len(going):
            break
        here = r[going], p[going], q[going]
        step = _step(risk, *here, gradient, unit[going], free)
        r[going] = _backtracked(risk, *here, step, value, fine.max(-1), scale[going])
        going = going[(np.abs(r[going] - here[0]) > LEAST * (1.0 + np.abs(here[0]))).any(-1)]
        if not len(going):
            break
    if not (worst <= BALANCED).all():
        raise NotConverged(
            "group risk: the best response was not reached, its balance is off by "
            f"{worst.max():.2g} (a risk that is not convex or has no minimum, or a response of "
            "one side alone)",
            r.reshape(shape),
        )
    return np.where(used, r, 0.0).reshape(shape)


def _step(
    risk: Risk,
    r: FloatArray,
    p: FloatArray,
    q: FloatArray,
    gradient: FloatArray,
    unit: FloatArray,
    free: bool,
) -> FloatArray:
    """Newton's step downhill, damped by what is not in balance; the gradient's where it is lost."""
    n = r.shape[-1]
    used, mass = p + q > 0, np.where(p + q > 0, p + q, 1.0)
    hessian = _hessian(risk, r, p, q)
    if free:
        share = np.where(used, p + q, 0.0) / 2.0
        pin = np.abs(np.trace(hessian, axis1=-2, axis2=-1))[:, None, None] / n
        hessian = hessian + pin * share[:, :, None] * share[:, None, :]
    # Between far laws the risk bends by their smaller masses alone, and hardly at all past its
    # minimum: what is not in balance adds to the curvature, so that no step is much longer.
    far = np.maximum(unit, np.abs(r).max(-1, keepdims=True))
    hessian = hessian + np.eye(n) * (np.abs(gradient) / far)[:, None, :]
    hessian = np.where(used[:, :, None] & used[:, None, :], hessian, np.eye(n))
    try:
        scaled = hessian / mass[:, :, None], -(gradient / mass)[..., None]
        step = np.asarray(np.linalg.solve(*scaled)[..., 0])
    except np.linalg.LinAlgError:
        step = np.full(r.shape, np.nan)
    downhill = (step * gradient).sum(-1, keepdims=True) < 0
    return np.where(downhill & np.isfinite(step), step, -gradient / mass)


def _pull(on_expert: FloatArray, on_own: FloatArray) -> FloatArray:
    """How hard both sides pull at the rewards of a prompt in all (..., 1)."""
    return np.maximum((np.abs(on_expert) + np.abs(on_own)).sum(-1, keepdims=True), 1e-300)


def _balances(
    on_expert: FloatArray, on_own: FloatArray, p: FloatArray, q: FloatArray, scale: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """By how much the pulls at each outcome differ (..., n), of what they are, and roughly.

    What they are is what both sides pull there, or could by the lesser mass: so the reward of an
    outcome that one side hardly gives is as exact. Roughly is by the greater mass, which is where
    rounding ends if a slope is a difference. Outcomes of one side alone are settled only where
    nothing pulls at them any more, beside what pulled at reward 0 (``scale``).
    """
    off, most = np.abs(on_expert + on_own), np.maximum(scale, _pull(on_expert, on_own))
    whole = most * np.where(p + q > 0, p + q, 1.0)
    least = np.maximum(most * np.minimum(p, q), np.abs(on_expert) + np.abs(on_own))
    return off / np.where((p > 0) & (q > 0), np.maximum(least, 1e-300), whole), off / whole


def _unit(risk: Risk, p: FloatArray, q: FloatArray, pull: FloatArray) -> FloatArray:
    """What the pull at reward 0 is worth in rewards (..., 1), by curvature between equal laws."""
    mean = (p + q) / 2.0
    bend = np.trace(_hessian(risk, np.zeros(p.shape), mean, mean), axis1=-2, axis2=-1)[:, None]
    known = (bend > 0) & np.isfinite(bend)
    return np.where(known, pull / np.where(known, bend, 1.0), 1.0)


def _hessian(risk: Risk, r: FloatArray, p: FloatArray, q: FloatArray) -> FloatArray:
    import torch

    with torch.enable_grad(), np.errstate(all="ignore"):
        point = torch.tensor(r, dtype=torch.float64, requires_grad=True)
        value = risk(point, point, torch.tensor(p), torch.tensor(q))
        (first,) = torch.autograd.grad(value.sum(), point, create_graph=True)
        rows = [
            torch.autograd.grad(first[:, i].sum(), point, retain_graph=True)[0]
            for i in range(r.shape[-1])
        ]
    return np.stack([row.numpy() for row in rows], axis=-2)


def _backtracked(
    risk: Risk,
    r: FloatArray,
    p: FloatArray,
    q: FloatArray,
    step: FloatArray,
    value: FloatArray,
    worst: FloatArray,
    scale: FloatArray,
) -> FloatArray:
    """Halve the step, per prompt, until the risk falls or, where it is flat, the balance does;
    where neither does before it is lost in rounding, no step is taken."""
    out, flat = r.copy(), 1e-12 * (1.0 + np.abs(value))
    at = np.arange(len(r))  # prompts whose step is too long yet
    for _ in range(HALVINGS):
        moved = r[at] + step[at]
        after, on_expert, on_own = risk_gradient(risk, moved, p[at], q[at])
        with np.errstate(all="ignore"):  # a step too long leaves the range of numbers
            balance = _balances(on_expert, on_own, p[at], q[at], scale[at])[0].max(-1)
            good = after < value[at] - flat[at]
            good |= (after <= value[at] + flat[at]) & (balance < worst[at])
        out[at[good]] = moved[good]
        step = 0.5 * step
        at = at[~good]
        at = at[(np.abs(step[at]) > LEAST * (1.0 + np.abs(r[at]))).any(-1)]
        if not len(at):
            break
    return out


def log_odds_of_risk(
    risk: Risk, r: FloatArray, reward: FloatArray, expert: FloatArray, policy: FloatArray
) -> FloatArray:
    """``u = log(G_own'/-G_expert')`` of a further response of reward ``r`` (..., m) and no mass.

    With ``G(r)`` the change of the risk per mass of one more response of that reward on a side, an
    outcome of masses ``p, q`` is at rest where ``p G_expert'(r) + q G_own'(r) = 0``: its log-ratio
    is a function of its reward alone, the inverse of the link of these laws. For a pair loss it is
    ``sum_j p_j (-l'(r_j - r)) / sum_j q_j (-l'(r - r_j))``. NaN where a slope has the wrong sign.
    """
    import torch

    known = np.isfinite(reward)
    base = np.where(known, reward, 0.0)[..., None, :]
    width = (*np.shape(r), base.shape[-1])
    with torch.enable_grad(), np.errstate(all="ignore"):
        one = torch.tensor(np.asarray(r, dtype=np.float64), requires_grad=True)
        rest = torch.tensor(np.broadcast_to(base, width).copy())
        slopes = []
        for side in (0, 1):
            rewards, weights = [rest, rest], []
            for law in (expert, policy):
                masses = np.where(known, law, 0.0)[..., None, :]
                weights.append(torch.tensor(np.broadcast_to(masses, width).copy()))
            rewards[side] = torch.cat([rest, one[..., None]], -1)
            extra = torch.full((*np.shape(r), 1), PHANTOM, dtype=torch.float64)
            weights[side] = torch.cat([weights[side], extra], -1)
            (slope,) = torch.autograd.grad(risk(*rewards, *weights).sum(), one)
            slopes.append(slope.numpy() / PHANTOM)
        up, down = slopes[1], -slopes[0]
        return np.where((up > 0) & (down > 0), np.log(up) - np.log(down), np.nan)


def level_is_seen(risk: Risk) -> bool:
    """Whether the risk changes when all rewards of a prompt shift by one number (T3).

    In rewards of any unit: near its own scale it changes by a share of what a shift of the expert's
    rewards alone does. Rounding does so too, but not with one sign over a decade of scales.
    """
    rng = np.random.default_rng(0)
    x, y, shift = rng.normal(size=(4, 3)), rng.normal(size=(4, 4)), rng.normal(size=(4, 1))
    decade = 8
    scale = np.logspace(-12, 12, 24 * decade + 1)[:, None, None]
    with np.errstate(all="ignore"):
        before, *moved = (
            np.asarray(risk(scale * (x + a * shift), scale * (y + b * shift)))
            for a, b in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
        )
        expert, own, both = (other - before for other in moved)
        share = both / np.abs(expert)
    for side in (expert, own):  # lost in rounding at this scale, and not at others
        share = np.where((side == 0) & (side != 0).any(0), np.nan, share)
    runs = np.lib.stride_tricks.sliding_window_view(share, decade + 1, axis=0)
    seen = ((runs > 1e-7).all(-1) | (runs < -1e-7).all(-1)).any(0)
    return bool(seen.mean() >= 0.5)


def slope_of_risk(risk: Risk) -> float:
    """``R'(0) = -A/V`` of a risk ``F`` that depends on the laws of the rewards alone.

    At equal laws the best response is a constant ``c`` (0 if shifts are free). There the gradient
    in the rewards is ``A (p_i - q_i)``, ``A`` the slope of ``F`` in a shift of the expert's rewards
    alone, and along a direction ``v`` with ``E_q v = 0`` the curvature is ``V E_q v^2``. So next to
    it ``r_i - c = -(A/V) (p_i - q_i)/q_i = -(A/V) u_i`` + const. For a pair loss ``A = l'(0)`` and
    ``V = 2 l''(0)``.

    Raises:
        ValueError: no such constant, no curvature, or another slope for other laws.
    """
    found = []
    for law in ([0.5, 0.5], [0.2, 0.3, 0.5]):
        q = np.array(law)
        v = np.array([1.0, -1.0, 0.4][: len(q)])
        v = v - q @ v
        v = v / np.sqrt(q @ np.square(v))

        def at(
            c: float, on_expert: Any, on_own: Any, order: int, t: float = 0.0, q: FloatArray = q
        ) -> float:
            def along(t: Any) -> Any:
                import torch

                weight = torch.tensor(q)
                sides = (c + t[..., None] * torch.as_tensor(side) for side in (on_expert, on_own))
                return risk(*sides, weight, weight)

            return float(derivatives.derivative(along, np.full(1, t), order)[0])

        one, none = np.ones(len(q)), np.zeros(len(q))
        c = push = 0.0
        for _ in range(50):
            push, bend = at(c, one, one, 1), at(c, one, one, 2)
            if not abs(push) > 1e-13 * abs(at(c, one, none, 1)) or not bend > 0:
                break
            c -= push / bend
        down, curvature = at(c, one, none, 1), at(c, v, v, 2)
        # a loss whose slope has a corner is curved by both its sides, and says so however near:
        # one that only bends in less than its rewards is smooth from nearer
        nat = abs(down / curvature) if curvature > 0 else 1.0  # in rewards
        steps = nat * derivatives.BESIDE * np.array([1.0, 1e-2, 1e-4, 1e-6])
        sides = ((at(c, v, v, 2, step), at(c, v, v, 2, -step)) for step in steps)
        if not any(abs(sum(two) - 2.0 * curvature) <= 1e-4 * sum(two) for two in sides):
            ahead, behind, nearer = (at(c, v, v, 2, x) for x in (steps[0], -steps[0], steps[1]))
            if abs(ahead - behind) > 1e-4 * (ahead + behind):
                raise ValueError("its risk has a corner at equal laws")
            curvature = 0.5 * (ahead + behind) if nearer > 0.5 * ahead else curvature
        if not abs(push) <= 1e-9 * abs(down):
            raise ValueError("at equal laws no constant reward is a best response")
        if not (np.isfinite(curvature) and curvature > 1e-12 * abs(down)):
            raise ValueError("its risk has no curvature at equal laws")
        found.append(-down / curvature)
    if abs(found[0] - found[1]) > 1e-6 * abs(found[0]):
        raise ValueError("its risk is no function of the laws of the rewards alone")
    return found[0]
