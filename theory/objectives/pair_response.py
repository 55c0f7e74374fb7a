"""Best responses to pair losses that no closed form gives, and what a reward is pulled by there.

``min_r sum_ij W_ij l(r_i - r_j)`` for a convex ``l``, by Newton's method on

    sum_j W_ij l'(r_i - r_j) - W_ji l'(r_j - r_i) = 0,   each row divided by its own mass m_i,

so that outcomes of mass 1e-300 are solved as accurately as the others. ``W = p q^T`` is the reward
player of pairwise self-play, ``W_ij = pi_i pi_j P_ij`` that of preference learning (T11), and sums
cover a history term. A full step shrinks every residual alike, which makes the largest residual a
merit for the damping.

*One-sided outcomes* (only expert or only own). A loss that increases in the end keeps their rewards
finite; one that falls forever sends them to +-inf, where they pull at no other outcome.

Risks of all rewards of a prompt at once: :mod:`theory.objectives.risk_response`.
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
IndexArray = np.ndarray[Any, np.dtype[np.intp]]
MAX_NEWTON = 200
MOST_PAIRS = 2**21
"""Pairs of outcomes of which pulls are computed; of larger laws some outcomes against all."""
CHUNK = 2**20


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
    return _solve(win, lose, law, pair_loss, (win - lose).sum(-1))


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
