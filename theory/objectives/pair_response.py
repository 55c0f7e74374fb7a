"""Best responses to pair losses that no closed form gives, and what a reward is pulled by there.

``min_r sum_ij W_ij l(r_i - r_j)`` for a convex ``l``, by Newton's method on

    sum_j W_ij l'(r_i - r_j) - W_ji l'(r_j - r_i) = 0,   each row divided by its own mass m_i,

so that outcomes of mass 1e-300 are solved as accurately as the others. ``W = p q^T`` is the reward
player of pairwise self-play, ``W_ij = pi_i pi_j P_ij`` that of preference learning (T11), and sums
cover a history term.

A full step shrinks every residual alike where the loss is smooth, and is taken where it does. Else,
as at a jump of l'', it is halved until the risk falls along all of it: the residuals times the
masses are the risk's gradient. What neither moves, such as outcomes too light to be felt in the
risk, is balanced one outcome after another, which never raises the risk either.

*One-sided outcomes* (only expert or only own). A loss that increases in the end keeps their rewards
finite; one that falls forever sends them to +-inf, where they pull at no other outcome.

Risks of all rewards of a prompt at once: :mod:`theory.objectives.risk_response`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from theory import laws
from theory.errors import InvalidInput, NotConverged
from theory.objectives import derivatives
from theory.objectives.derivatives import EPSILON, BoolArray
from theory.result import FloatArray

PairLoss = Callable[[Any], Any]
IndexArray = np.ndarray[Any, np.dtype[np.intp]]
MAX_NEWTON = 200
HALVINGS = 60
SHRINKS = 0.9
"""Share of the least largest residual so far down to which a full step is taken unquestioned."""
PATIENCE = 5
"""Steps without that, after which outcomes are balanced one after another."""
BENDS = 1e-6
"""Curvature of a pair, next to the slope at 0, from which on it holds two rewards together."""
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
    far = np.concatenate([[0.0], np.geomspace(1.0, 1e15, 16)])
    with np.errstate(all="ignore"):
        slope = derivatives.derivative(pair_loss, far)
    return bool((slope > 1e-12 * abs(slope[0])).any())  # a slope that ends at 0 may round to more


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
    slope, curvature = (float(derivatives.derivative(pair_loss, 0.0, k)) for k in (1, 2))
    scale = max(abs(slope), 1e-300)
    size = abs(slope / curvature) if curvature else 1.0
    r = np.where(settled, np.nan_to_num(start), 0.0) * min(size, 1e3)
    used = np.where(settled, mass, 0.0)
    used = used / np.maximum(used.sum(-1, keepdims=True), 1e-300)
    pairs = _Pairs(
        win.reshape(-1, n, n), lose.reshape(-1, n, n), used.reshape(-1, n), settled.reshape(-1, n),
        pair_loss, scale, size,
    )  # fmt: skip
    flat, last, worst = _newton(pairs, _within_range(pairs, r.reshape(-1, n)))
    r = flat.reshape(r.shape)
    if not (last <= 1e-8 and worst <= 1e-9):
        raise NotConverged(
            f"pairs: Newton's last step was {last:.2g}, the balance of an outcome {worst:.2g}; "
            "where the loss has no curvature, many rewards may be a best response",
            r,
        )
    r = r - (used * r).sum(-1, keepdims=True)
    return np.where(settled, r, np.where(wins, np.inf, np.where(loses, -np.inf, 0.0)))


@dataclass(frozen=True)
class _Pairs:
    """Pairs of some prompts (m, n, n) as :func:`_solve` has them, masses summing to 1."""

    win: FloatArray
    lose: FloatArray
    mass: FloatArray
    settled: BoolArray
    loss: PairLoss
    scale: float
    unit: float

    def of(self, prompts: IndexArray) -> _Pairs:
        if len(prompts) == len(self.mass):
            return self
        win, lose, mass = self.win[prompts], self.lose[prompts], self.mass[prompts]
        return replace(self, win=win, lose=lose, mass=mass, settled=self.settled[prompts])

    @property
    def keep(self) -> BoolArray:
        return self.settled[:, :, None] & self.settled[:, None, :]

    def centred(self, r: FloatArray) -> FloatArray:
        return np.asarray(r - (self.mass * r).sum(-1, keepdims=True))

    def balance(self, r: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Residuals (m, n) at rewards r, and their rounding."""
        with np.errstate(all="ignore"):
            slope = derivatives.derivative(self.loss, r[:, :, None] - r[:, None, :])
            up, down = self.win * slope, self.lose * np.swapaxes(slope, -1, -2)
            forces = np.where(self.keep, np.abs(up) + np.abs(down), 0.0).sum(-1)
            return np.where(self.keep, up - down, 0.0).sum(-1), 4.0 * EPSILON * forces

    def curvature(self, r: FloatArray, ahead: FloatArray | None = None) -> FloatArray:
        """Of each pair (m, n, n) in the row's balance, at ``r_i - r_j`` or ``ahead`` (m,) of it."""
        d = r[:, :, None] - r[:, None, :]
        shift = 0.0 if ahead is None else ahead[:, None, None]
        with np.errstate(all="ignore"):
            bend = derivatives.derivative(self.loss, d + shift, 2)
            back = bend if ahead is None else derivatives.derivative(self.loss, d - shift, 2)
            bends = self.win * bend + self.lose * np.swapaxes(back, -1, -2)
            return np.where(self.keep, bends, 0.0)

    def step(
        self, r: FloatArray, residual: FloatArray, damping: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Newton's (m, n), each row divided by its own curvature, and the rewards' rounding there.

        Damping is raised where the step is lost.
        """
        bends = self.curvature(r)
        n = r.shape[-1]
        rounding = EPSILON * np.abs(r).max(-1, initial=0.0)[:, None] * bends.sum(-1)
        found, lost = np.zeros_like(r), np.zeros(len(r), dtype=bool)
        for _ in range(3):
            own = bends.sum(-1) + damping
            row = np.where(own > 0, own, 1.0)
            matrix = self.mass[:, None, :] - bends / row[..., None]
            matrix[:, np.arange(n), np.arange(n)] += own / row
            matrix = np.where(self.settled[..., None], matrix, np.eye(n))
            with np.errstate(all="ignore"):
                try:
                    found = np.asarray(
                        np.linalg.solve(matrix, -(residual / row)[..., None])[..., 0]
                    )
                    lost[:] = ~np.isfinite(found).all(-1)
                except np.linalg.LinAlgError:
                    lost[:] = ~(np.abs(np.linalg.slogdet(matrix)[0]) > 0)
            if not lost.any():
                break
            raised = np.maximum(10.0 * damping, 1e-6 * self.scale)
            damping[lost] = raised[lost]
        return np.where(lost[:, None], 0.0, found), rounding

    def share(self, r: FloatArray, step: FloatArray, residual: FloatArray) -> FloatArray:
        """(m, 1): 1, 1/2, 1/4, ... of the step at whose end, with this residual, the risk falls.

        Along a line the risk of a convex loss falls up to its end where it falls there.
        """
        share = np.ones((len(r), 1))
        rising = np.arange(len(r))
        for _ in range(HALVINGS):
            with np.errstate(all="ignore"):
                rate = (self.mass[rising] * residual * step[rising]).sum(-1)
            rising = rising[~(rate <= 0)]
            if not len(rising):
                return share
            share[rising] *= 0.5
            residual, _ = self.of(rising).balance(r[rising] + share[rising] * step[rising])
        share[rising] = 0.0
        return share

    def sweep(self, r: FloatArray) -> FloatArray:
        """Each outcome at its balance against the others, heavy ones first."""
        r, at = r.copy(), np.arange(len(r))
        for i in np.argsort(-self.mass, axis=-1).T:
            others = np.where(np.arange(r.shape[-1]) == i[:, None], False, self.settled)
            win, lose = (np.where(others, x[at, i], 0.0) for x in (self.win, self.lose))

            def force(x: FloatArray, win: FloatArray = win, lose: FloatArray = lose) -> FloatArray:
                d = x[:, None] - r
                up, down = (derivatives.derivative(self.loss, sign * d) for sign in (1.0, -1.0))
                return np.asarray((win * up - lose * down).sum(-1))

            found = derivatives.invert(force, np.zeros(len(r)), r[at, i])
            known = self.settled[at, i] & (np.abs(found) < 1e100)
            r[at, i] = np.where(known, found, r[at, i])
        return r

    def unique(self, r: FloatArray, least: float) -> BoolArray:
        """(m,): whether no other rewards balance, by what bends by more than ``least`` beside them.

        A direction in which nothing bends raises some outcomes over others, and no pair of those
        bends as it grows: there is none if pairs that do lead from each outcome to each that pairs
        of any weight lead to.
        """
        near = 1e-14 * (1.0 + np.abs(r).max(-1, initial=0.0))
        grows, shrinks = self.curvature(r, near), self.curvature(r, -near)
        bends = np.maximum(grows, np.swapaxes(shrinks, -1, -2)) > least * self.scale
        pairs = self.keep & (self.win + self.lose > 0)
        return np.asarray((_leads(bends) | ~_leads(pairs)).all((-1, -2)))


def _within_range(pairs: _Pairs, r: FloatArray) -> FloatArray:
    """Rewards (m, n) of each prompt nearer to 0, as far as the formula of the loss overflows."""
    for _ in range(HALVINGS):
        residual, _ = pairs.balance(r)
        over = np.asarray(~np.isfinite(residual).all(-1))
        if not over.any():
            break
        r = np.where(over[:, None], 0.5 * r, r)
    return r


def _leads(steps: BoolArray) -> BoolArray:
    """(..., n, n): whether steps lead from one to another, none or several of them."""
    n = steps.shape[-1]
    leads = (steps | np.eye(n, dtype=bool)).astype(np.float64)
    for _ in range(max(1, int(np.ceil(np.log2(n))))):
        leads = ((leads @ leads) > 0).astype(np.float64)
    return np.asarray(leads > 0)


def _newton(pairs: _Pairs, r: FloatArray) -> tuple[FloatArray, float, float]:
    """Rewards (m, n) from the first ones on; the last step and residual, relative, of all."""
    r, m = r.copy(), len(r)
    residual, rounding = pairs.balance(r)
    balanced = (np.abs(residual) <= rounding).all(-1)
    least = np.abs(residual).max(-1, initial=0.0)
    step, idle, going = np.full_like(r, np.inf), np.zeros(m, dtype=int), np.ones(m, dtype=bool)
    best = r.copy()
    damping = np.zeros((m, 1))  # where the loss is flat, the step alone is too long
    for _ in range(MAX_NEWTON):
        at = np.flatnonzero(going)
        if not len(at):
            break
        part, here, force = pairs.of(at), r[at], damping[at]
        move, blur = part.step(here, residual[at], force)
        longest = 1e3 * pairs.unit + np.abs(here).max(-1, keepdims=True)  # or digits are lost
        move *= np.minimum(1.0, longest / np.maximum(np.abs(move).max(-1, keepdims=True), longest))
        after, rounding = part.balance(here + move)
        rounding += blur
        small = np.abs(move) <= 1e-12 * (1.0 + np.abs(here))
        falls = small | (np.abs(after) <= np.maximum(SHRINKS * least[at, None], rounding))
        jammed, share = np.flatnonzero(~falls.all(-1)), np.ones((len(at), 1))
        if len(jammed):
            share[jammed] = part.of(jammed).share(here[jammed], move[jammed], after[jammed])
        here = here + share * move
        if len(jammed):
            here[jammed] = part.of(jammed).centred(here[jammed])
            after[jammed], rounding[jammed] = part.of(jammed).balance(here[jammed])
            rounding[jammed] += blur[jammed]
        exact = (np.abs(after) <= rounding).all(-1)
        shrinks = np.abs(after).max(-1) <= SHRINKS * least[at]
        idle[at] = np.where(shrinks, 0, idle[at] + 1)
        jammed = np.flatnonzero(~exact & (idle[at] % PATIENCE == PATIENCE - 1))
        if len(jammed):
            some = part.of(jammed)
            here[jammed] = some.centred(some.sweep(here[jammed]))
            after[jammed], _ = some.balance(here[jammed])
        raised = np.maximum(10.0 * force, 1e-6 * pairs.scale)
        lowered = np.where(force > 1e-9 * pairs.scale, 0.1 * force, 0.0)
        damping[at] = np.where(share < 1e-3, raised, lowered)
        r[at], residual[at], step[at] = here, after, move
        worst = np.abs(after).max(-1)
        nearer = at[worst <= least[at]]
        best[nearer], least[nearer] = r[nearer], np.abs(residual[nearer]).max(-1)
        still = (np.abs(move) <= 1e-13 * (1.0 + np.abs(here))).all(-1) & (damping[at, 0] == 0.0)
        ended = (still & (worst <= 1e-9 * pairs.scale)) | (exact & (idle[at] >= PATIENCE))
        going[at] = ~ended & (idle[at] < 8 * PATIENCE)
    last = np.abs(step / (1.0 + np.abs(r))).max(-1, initial=0.0)
    last = np.where((damping[:, 0] > 0) & ~balanced, np.inf, last)
    worst = np.abs(residual).max(-1, initial=0.0) / pairs.scale
    # at a jump of l'' the curvature is on one side only, and steps hop to and fro
    doubted = np.flatnonzero(((last > 1e-8) | (worst > 1e-9)) & (least <= 1e-13 * pairs.scale))
    if len(doubted):
        held = doubted[pairs.of(doubted).unique(best[doubted], BENDS)]
        r[held], last[held], worst[held] = best[held], 0.0, least[held] / pairs.scale
    straight = ((pairs.curvature(r) == 0) & (pairs.win > 0) & pairs.keep).any((-1, -2))
    doubted = np.flatnonzero(straight & ~balanced & (last <= 1e-8))
    if len(doubted):
        last[doubted[~pairs.of(doubted).unique(r[doubted], 0.0)]] = np.inf
    return r, float(last.max(initial=0.0)), float(worst.max(initial=0.0))


def _refuse_separable(preference: FloatArray, law: FloatArray, name: str) -> None:
    """Refuse pairs whose losers never win, directly or in turn: the minimiser is at infinity."""
    drawn = (law > 0)[..., None] & (law > 0)[..., None, :]
    missing = drawn & ~_leads((preference > 0) & drawn)
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
