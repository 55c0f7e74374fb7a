"""Best responses that no closed form gives: minimisers of pair losses and of group risks.

Pairs: ``min_r sum_ij W_ij l(r_i - r_j)`` for a convex ``l``, by Newton's method on

    sum_j W_ij l'(r_i - r_j) - W_ji l'(r_j - r_i) = 0,   each row divided by its own mass m_i,

so that outcomes of mass 1e-300 are solved as accurately as the others. ``W = p q^T`` is the reward
player of pairwise self-play, ``W_ij = pi_i pi_j P_ij`` that of preference learning (T11), and sums
cover a history term. A full step shrinks every residual alike, which makes the largest residual a
merit for the damping.

*One-sided outcomes* (only expert or only own). A loss that increases in the end keeps their rewards
finite; one that falls forever sends them to +-inf, where they pull at no other outcome.

Groups: damped Newton's method on the risk with exact derivatives (torch), all prompts at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from theory import laws
from theory.errors import InvalidInput, NotConverged
from theory.objectives import derivatives
from theory.result import FloatArray

PairLoss = Callable[[Any], Any]
Risk = Callable[..., Any]
BoolArray = np.ndarray[Any, np.dtype[np.bool_]]
IndexArray = np.ndarray[Any, np.dtype[np.intp]]
MAX_NEWTON = 200
PHANTOM = 1e-10
"""Weight of a further response whose pull on the others is neglected."""
MOST_PAIRS = 2**21
"""Pairs of outcomes of which pulls are computed; of larger laws some outcomes against all."""
CHUNK = 2**20


# --- pairs ---------------------------------------------------------------------------------------


def of_laws(expert: FloatArray, policy: FloatArray, pair_loss: PairLoss) -> FloatArray:
    """Minimiser of ``E_p E_q l(r - r')`` for valid laws (..., n), up to a constant per prompt.

    Raises:
        NotConverged: no minimiser was reached, as of a loss without curvature.
    """
    mass = np.where(expert + policy > 0, expert + policy, 1.0)[..., None]
    win = expert[..., :, None] / mass * policy[..., None, :]
    lose = policy[..., :, None] / mass * expert[..., None, :]
    half = np.clip(0.5 * laws.log_ratio(expert, policy), -300.0, 300.0)
    start = np.tanh(half) if _turns_up(pair_loss) else half
    return _solve(win, lose, expert + policy, pair_loss, start)


def of_pairs(weight: FloatArray, pair_loss: PairLoss) -> FloatArray:
    """Minimiser of ``sum_ij W_ij l(r_i - r_j)`` of mean zero over the outcomes with a weight.

    Args:
        weight: pair weights (..., n, n), non-negative; outcomes without any weight get 0.
        pair_loss: convex loss ``l`` of the difference, written for torch.

    Raises:
        NotConverged: no minimiser was reached.
    """
    back = np.swapaxes(weight, -1, -2)
    mass = weight.sum(-1) + back.sum(-1)
    share = np.where(mass > 0, mass, 1.0)[..., None]
    r = _solve(weight / share, back / share, mass, pair_loss, np.zeros(mass.shape))
    used = np.isfinite(r) & (mass > 0)
    count = np.maximum(used.sum(-1, keepdims=True), 1)
    mean = np.where(used, r, 0.0).sum(-1, keepdims=True) / count
    return np.where(mass > 0, r - mean, 0.0)


def of_preference(
    preference: FloatArray, law: FloatArray, pair_loss: PairLoss, name: str
) -> FloatArray:
    """Minimiser for pairs of one comparison, ``W_ij = pi_i pi_j P_ij``, with ``E_pi[r] = 0``.

    Solves ``E_{y'~pi}[P(y > y') l'(r(y) - r(y')) - P(y' > y) l'(r(y') - r(y))] = 0`` for every
    outcome, also for one that the policy never draws.

    Raises:
        InvalidInput: pairs that a loss without a finite minimiser can separate. NotConverged.
    """
    if not _turns_up(pair_loss):
        _refuse_separable(preference, law, name)
    win = preference * law[..., None, :]
    lose = np.swapaxes(preference, -1, -2) * law[..., None, :]
    r = _solve(win, lose, law, pair_loss, (win - lose).sum(-1))
    settled = np.isfinite(r)
    return np.asarray(r - laws.expect(law, np.where(settled, r, 0.0))[..., None])


def _turns_up(pair_loss: PairLoss) -> bool:
    """Whether the loss increases in the end, so that every pair alone has a minimiser."""
    with np.errstate(all="ignore"):
        return bool(derivatives.derivative(pair_loss, np.array([1e3]))[0] > 0)


def _solve(
    win: FloatArray, lose: FloatArray, mass: FloatArray, pair_loss: PairLoss, start: FloatArray
) -> FloatArray:
    """Newton's method on the balance of every outcome; +-inf where the balance has no root.

    Args:
        win, lose: (..., n, n), weight of the pair (i, j) with i as winner and as loser, divided by
            the mass of i. Rows with neither are left alone.
        mass: of each outcome (..., n); the flat direction, a common shift, is pinned along it.
        start: first rewards, in units of the loss's own scale.
    """
    n = win.shape[-1]
    wins, loses = win.sum(-1) > 0, lose.sum(-1) > 0
    settled = wins | loses if _turns_up(pair_loss) else wins & loses
    keep = settled[..., :, None] & settled[..., None, :]
    win, lose = np.where(keep, win, 0.0), np.where(keep, lose, 0.0)
    slope, curvature = (float(derivatives.derivative(pair_loss, 0.0, k)) for k in (1, 2))
    scale = max(abs(slope), 1e-300)
    pin = np.where(settled, mass, 0.0)
    pin = pin / np.maximum(pin.sum(-1, keepdims=True), 1e-300) * max(abs(curvature), scale)

    def balance(r: FloatArray, order: int) -> FloatArray:
        """First: residuals (..., n). Second: the curvature of each pair (..., n, n)."""
        d = r[..., :, None] - r[..., None, :]
        with np.errstate(all="ignore"):
            ahead = derivatives.derivative(pair_loss, d, order)
            behind = np.swapaxes(ahead, -1, -2)
            if order == 2:
                return np.where(keep, win * ahead + lose * behind, 0.0)
            return np.where(keep, win * ahead - lose * behind, 0.0).sum(-1)

    size = abs(slope / curvature) if curvature else 1.0
    r = np.where(settled, np.nan_to_num(start), 0.0) * min(size, 1e3)
    residual = after = balance(r, 1)
    step = np.full_like(r, np.inf)
    rises = np.zeros(r.shape[:-1], dtype=bool)
    damping = np.zeros((*r.shape[:-1], 1))  # where the loss is flat, the step alone is too long
    for _ in range(MAX_NEWTON):
        pairs = balance(r, 2)
        matrix = pin[..., None, :] - pairs
        matrix[..., np.arange(n), np.arange(n)] += pairs.sum(-1) + damping
        matrix = np.where(settled[..., None], matrix, np.eye(n))
        try:
            step = np.asarray(np.linalg.solve(matrix, -residual[..., None])[..., 0])
        except np.linalg.LinAlgError:
            damping = np.maximum(10.0 * damping, 1e-6 * scale)
            continue
        before, share = np.abs(residual).max(-1), np.ones((*r.shape[:-1], 1))
        for _ in range(40):
            after = balance(r + share * step, 1)
            rises = ~(np.abs(after).max(-1) <= before + 1e-15 * scale)
            if not rises.any():
                break
            share = np.where(rises[..., None], 0.5 * share, share)
        r = np.where(rises[..., None], r, r + share * step)
        residual = np.where(rises[..., None], residual, after)
        stuck = rises[..., None] | (share < 1e-3)
        lower = np.where(damping > 1e-9 * scale, 0.1 * damping, 0.0)
        damping = np.where(stuck, np.maximum(10.0 * damping, 1e-6 * scale), lower)
        if np.all((np.abs(step) <= 1e-13 * (1.0 + np.abs(r))) & (damping == 0.0)):
            break
    worst = float(np.abs(residual).max(initial=0.0)) / scale
    last = float(np.abs(step / (1.0 + np.abs(r))).max(initial=0.0))
    if not (last <= 1e-8 and worst <= 1e-9):
        raise NotConverged(
            f"pairs: Newton's last step was {last:.2g}, the balance of an outcome {worst:.2g}; "
            "where the loss has no curvature, many rewards may be a best response",
            r,
        )
    r = r - np.where(settled, mass * r, 0.0).sum(-1, keepdims=True) / np.maximum(
        np.where(settled, mass, 0.0).sum(-1, keepdims=True), 1e-300
    )
    return np.where(settled, r, np.where(wins, np.inf, np.where(loses, -np.inf, 0.0)))


def _refuse_separable(preference: FloatArray, law: FloatArray, name: str) -> None:
    """Refuse pairs whose losers never win, directly or in turn: the minimiser is at infinity."""
    n = law.shape[-1]
    drawn = law > 0
    beats = ((preference > 0) & drawn[..., None] & drawn[..., None, :]).astype(np.float64)
    for _ in range(max(1, int(np.ceil(np.log2(n))))):
        beats = ((beats @ beats) > 0).astype(np.float64)
    missing = drawn[..., None] & drawn[..., None, :] & (beats == 0)
    if missing.any():
        *prompt, i, j = (int(k) for k in np.argwhere(missing)[0])
        where = f" (prompt {tuple(prompt)})" if prompt else ""
        raise InvalidInput(
            f"{name}: separable pairs: outcome {i} never beats {j}, directly or in turn"
            f"{where}; the loss has no finite minimiser: use a squared loss, or no certain wins"
        )


def pulls_of_pairs(
    pair_loss: PairLoss,
    r: FloatArray,
    expert: FloatArray,
    policy: FloatArray,
    rows: IndexArray | None = None,
) -> tuple[IndexArray | None, FloatArray, FloatArray]:
    """Gradient of ``E_p E_q l(r - r')`` in the expert's and in the own rewards, O(pairs).

        up_i = p_i sum_j q_j l'(r_i - r_j),   down_i = -q_i sum_j p_j l'(r_j - r_i)

    Args:
        pair_loss: the loss l. r: finite rewards (..., n). expert, policy: laws p, q (..., n).
        rows: outcomes (..., m) to look at. None is all, or where they make more than
            :data:`MOST_PAIRS` as many as make that, evenly spaced in the order of the rewards.

    Returns:
        The rows, None if all; up and down (..., m).
    """
    shape, n = r.shape, r.shape[-1]
    if not r.any():
        push = float(derivatives.derivative(pair_loss, 0.0))
        up, down = push * expert * policy.sum(-1)[..., None], policy * expert.sum(-1)[..., None]
        down = -push * down
        if rows is not None:
            up, down = (np.take_along_axis(x, rows, axis=-1) for x in (up, down))
        return rows, up, down
    most = max(MOST_PAIRS // max(r.size, 1), 8)
    if rows is None and most < n:
        spread = np.linspace(0, n - 1, most).round().astype(np.intp)
        rows = np.argsort(r, axis=-1)[..., spread]
    which = np.broadcast_to(np.arange(n), shape) if rows is None else rows
    which = which.reshape(-1, which.shape[-1])
    r, p, q = (x.reshape(-1, n) for x in (r, expert, policy))
    up, down = np.zeros(which.shape), np.zeros(which.shape)
    wide = max(CHUNK // n, 1)  # outcomes at once: some of a prompt, or all of some prompts
    deep = max(wide // which.shape[-1], 1)
    for first in range(0, len(r), deep):
        prompts = np.arange(first, min(first + deep, len(r)))[:, None]
        for left in range(0, which.shape[-1], wide):
            at = which[prompts[:, 0], left : left + wide]
            d = r[prompts, at][..., None] - r[prompts]
            for out, own, law, sign in ((up, p, q, 1.0), (down, q, p, -1.0)):
                slope = derivatives.derivative(pair_loss, sign * d)
                weight = own[prompts, at][..., None] * law[prompts]
                with np.errstate(invalid="ignore"):  # an infinite slope at no mass
                    sums = np.where(weight > 0, weight * slope, 0.0).sum(-1)
                out[prompts[:, 0], left : left + wide] = sign * sums
    shown = (*shape[:-1], which.shape[-1])
    return rows, up.reshape(shown), down.reshape(shown)


# --- risks of all rewards at once ----------------------------------------------------------------


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
    mass = np.where(p + q > 0, p + q, 1.0)
    used = p + q > 0
    share = np.where(used, p + q, 0.0) / 2.0
    r = np.zeros(p.shape)
    worst = np.inf
    scale = _pull(*risk_gradient(risk, r, p, q)[1:])
    for _ in range(MAX_NEWTON):
        value, on_expert, on_own = risk_gradient(risk, r, p, q)
        gradient = np.where(used, on_expert + on_own, 0.0)
        size = np.maximum(scale, _pull(on_expert, on_own))
        balance = np.abs(gradient) / (mass * size)
        worst = float(balance.max(initial=0.0))
        if worst <= 1e-14:
            break
        hessian = _hessian(risk, r, p, q)
        if free:
            pin = np.abs(np.trace(hessian, axis1=-2, axis2=-1))[:, None, None] / n
            hessian = hessian + pin * share[:, :, None] * share[:, None, :]
        hessian = np.where(used[:, :, None] & used[:, None, :], hessian, np.eye(n))
        try:
            scaled = hessian / mass[:, :, None], -(gradient / mass)[..., None]
            step = np.asarray(np.linalg.solve(*scaled)[..., 0])
        except np.linalg.LinAlgError:
            break
        downhill = (step * gradient).sum(-1, keepdims=True) < 0
        step = np.where(downhill & np.isfinite(step), step, -gradient / mass)
        moved = _backtracked(risk, r, step, p, q, value, balance.max(-1), mass, scale)
        if np.all(np.abs(moved - r) <= 1e-16 * (1.0 + np.abs(r))):
            break
        r = moved
    if not worst <= 1e-9:
        raise NotConverged(
            f"group risk: the best response was not reached, its balance is off by {worst:.2g} "
            "(a risk that is not convex or has no minimum, or a response of one side alone)",
            r.reshape(shape),
        )
    return np.where(used, r, 0.0).reshape(shape)


def _pull(on_expert: FloatArray, on_own: FloatArray) -> FloatArray:
    """How hard both sides pull at the rewards of a prompt in all (..., 1).

    Balances are relative to the pull at reward 0 too: outcomes of one side alone are settled only
    where nothing pulls at them any more.
    """
    return np.maximum((np.abs(on_expert) + np.abs(on_own)).sum(-1, keepdims=True), 1e-300)


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
    step: FloatArray,
    p: FloatArray,
    q: FloatArray,
    value: FloatArray,
    worst: FloatArray,
    mass: FloatArray,
    scale: FloatArray,
) -> FloatArray:
    """Halve the step, per prompt, until the risk falls or, where it is flat, the balance does."""
    share, good = np.ones((len(r), 1)), np.zeros(len(r), dtype=bool)
    for _ in range(50):
        after, on_expert, on_own = risk_gradient(risk, r + share * step, p, q)
        with np.errstate(all="ignore"):  # a step too long leaves the range of numbers
            size = np.maximum(scale, _pull(on_expert, on_own))
            balance = (np.abs(on_expert + on_own) / (mass * size)).max(-1)
        flat = 1e-12 * (1.0 + np.abs(value))
        good = (after < value - flat) | ((after <= value + flat) & (balance < worst))
        if good.all():
            return np.asarray(r + share * step)
        share = np.where(good[:, None], share, 0.5 * share)
    return np.where(good[:, None], r + share * step, r)


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

        def at(c: float, on_expert: Any, on_own: Any, order: int, q: FloatArray = q) -> float:
            def along(t: Any) -> Any:
                import torch

                weight = torch.tensor(q)
                sides = (c + t[..., None] * torch.as_tensor(side) for side in (on_expert, on_own))
                return risk(*sides, weight, weight)

            return float(derivatives.derivative(along, np.zeros(1), order)[0])

        one, none = np.ones(len(q)), np.zeros(len(q))
        c = push = 0.0
        for _ in range(50):
            push, bend = at(c, one, one, 1), at(c, one, one, 2)
            if not abs(push) > 1e-13 * max(1.0, abs(at(c, one, none, 1))) or not bend > 0:
                break
            c -= push / bend
        down, curvature = at(c, one, none, 1), at(c, v, v, 2)
        if not abs(push) <= 1e-9 * max(1.0, abs(down)):
            raise ValueError("at equal laws no constant reward is a best response")
        if not (np.isfinite(curvature) and curvature > 1e-12 * abs(down)):
            raise ValueError("its risk has no curvature at equal laws")
        found.append(-down / curvature)
    if abs(found[0] - found[1]) > 1e-6 * abs(found[0]):
        raise ValueError("its risk is no function of the laws of the rewards alone")
    return found[0]
