"""Iterates of two-step rounds on laws of any size: blocks that stay in cache, on all cores.

    pi_{t+1} ∝ pi_t e^{(R(log p/pi_t) - tau log pi_t/pi_ref)/(beta + tau)}                  (T1, T2)

One pass over memory a round: it measures ``pi_t`` (KL and largest log-ratio to the expert) and
writes the weights of ``pi_{t+1}``, which the next pass normalises. A block in which a mass is 0 or
leaves the range where quotients are exact is continued in logarithms, so that a diverging run
stays exact until its log-ratios themselves leave the floating-point range.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from theory import laws
from theory.objectives import Objective
from theory.result import FloatArray

BLOCK = 1 << 17  # entries: the few arrays of a block stay in cache, and calls cost little
THREADED = 1 << 18  # entries from which starting threads pays
SHARES = 4  # of the blocks for each core, so that a slow one is waited for less
SMALLEST = 1e-290  # masses below it are continued in logarithms
LARGEST = 1e300  # rewards of finite log-ratios are cut here, so that no law becomes NaN
CAREFUL_KL = 1e-5  # below it KL is summed from non-negative terms, outcome by outcome
SHORT = 1 << 13  # dot products of this length stay on the core that asks for them
FAR = 600.0  # log-ratios up to here lose no term of KL
TERMS = 9  # of a Taylor series, beyond which expm1 is the faster way


@dataclass(frozen=True)
class Iterates:
    """What rounds leave, the start first; ``...`` are prompts."""

    policies: FloatArray
    """(rounds + 1, ..., n)"""
    kl: FloatArray
    """(rounds + 1, ...) KL(p||pi_t), nats."""
    reach: FloatArray
    """(rounds + 1, ...) max |log p/pi_t| where p has mass."""
    log_ends: Callable[[], tuple[FloatArray, FloatArray]]
    """Logarithms of the expert and of the last policy (..., n)."""
    log_policies: FloatArray | None = None
    """(rounds + 1, ..., n) logs, where they were asked for."""

    @classmethod
    def of(cls, log_p: FloatArray, log_policies: list[FloatArray]) -> Iterates:
        """Those of normalised log-laws that were found otherwise."""
        path = np.stack(log_policies)
        policies = np.exp(path)
        with np.errstate(invalid="ignore"):
            ratio = np.where(np.isneginf(log_p), 0.0, log_p - path)
        kl = laws.kl_of_logratio(np.exp(log_p), ratio, policies)
        return cls(policies, kl, np.abs(ratio).max(-1), lambda: (log_p, path[-1]), path)


def two_step_rounds(
    obj: Objective,
    expert: FloatArray,
    start: FloatArray,
    betas: Iterable[float],
    count: int,
    ref: FloatArray | None = None,
    tau: float = 0.0,
    logs: tuple[FloatArray, ...] | None = None,
) -> Iterates:
    """``count`` rounds of an objective with a link whose opponent is the policy itself.

    Args:
        obj: objective with a link.
        expert, start, ref: laws (..., n) of one shape; ref is read where ``tau > 0``.
        betas: weights of the KL step, one a round.
        logs: logarithms of expert, start (and ref); given, the path is kept in logarithms too.
    """
    rounds = _Rounds(obj, [expert, start, *([] if ref is None else [ref])], logs, tau, count)
    with _crew(expert.size) as rounds.run:
        rounds.run(rounds.look, rounds.tiles)
        for t, beta in enumerate(betas):
            rounds.play(t, beta)
        rounds.finish(count)
    shape = (count + 1, *expert.shape)
    return Iterates(
        rounds.path.reshape(shape),
        rounds.kl.reshape(shape[:-1]),
        rounds.reach.reshape(shape[:-1]),
        lambda: rounds.log_ends(expert.shape),
        None if rounds.log_path is None else rounds.log_path.reshape(shape),
    )


@dataclass(frozen=True, eq=False)
class _Tile:
    """A block: several whole rows, or a part of one; ``part`` counts the parts of a row."""

    rows: slice
    columns: slice
    part: int

    @property
    def block(self) -> tuple[slice, slice]:
        return self.rows, self.columns

    @property
    def sums(self) -> tuple[slice, int]:
        return self.rows, self.part


def _tiles(rows: int, n: int) -> Iterator[_Tile]:
    if n <= BLOCK:
        many = BLOCK // n
        for first in range(0, rows, many):
            yield _Tile(slice(first, min(first + many, rows)), slice(0, n), 0)
        return
    for row in range(rows):
        for part, first in enumerate(range(0, n, BLOCK)):
            yield _Tile(slice(row, row + 1), slice(first, min(first + BLOCK, n)), part)


Task = Callable[[_Tile], None]
Run = Callable[[Task, list[_Tile]], None]


def _one_by_one(task: Task, tiles: list[_Tile]) -> None:
    for tile in tiles:
        task(tile)


@contextmanager
def _crew(size: int) -> Iterator[Run]:
    """Something that runs a task on every tile, on all cores where that pays."""
    cores = idle_cores() if size >= THREADED else 1
    if cores == 1:
        yield _one_by_one
        return
    with ThreadPoolExecutor(cores) as pool:

        def run(task: Task, tiles: list[_Tile]) -> None:
            shares = [tiles[k :: SHARES * cores] for k in range(SHARES * cores)]
            for _ in pool.map(lambda share: _one_by_one(task, share), shares):
                pass

        yield run


def idle_cores() -> int:
    """Cores that this process may use and that others leave idle: a round waits for the slowest."""
    try:
        return max(1, round(len(os.sched_getaffinity(0)) - max(0.0, os.getloadavg()[0] - 1.5)))
    except (AttributeError, OSError):  # not on every system
        return 1


class _Rounds:
    """The rounds of one path; rows are prompts, and every sum is kept by row and part of it."""

    run: Run

    def __init__(
        self,
        obj: Objective,
        given: list[FloatArray],
        logs: tuple[FloatArray, ...] | None,
        tau: float,
        count: int,
    ) -> None:
        n = given[0].shape[-1]
        self.obj, self.tau = obj, tau
        self.by_density = obj.has_gain or obj.writes("density_link")
        self.p, start, *ref = (x.reshape(-1, n) for x in given)
        self.ref = ref[0] if ref and tau > 0 else None
        rows = len(start)
        self.path = np.empty((count + 1, rows, n))
        self.path[0] = start
        self.given_logs = None if logs is None else [x.reshape(-1, n) for x in logs]
        self.log_path = None if logs is None else np.empty_like(self.path)
        self.tiles = list(_tiles(rows, n))
        parts = 1 + max((tile.part for tile in self.tiles), default=0)
        self.kl, self.reach = np.zeros((2, count + 1, rows))
        # by row and part: log of what the weights are to be multiplied by, their sum and least
        self.log_scale, self.mass, self.least = np.zeros((3, rows, parts))
        self.top, self.delta, self.excess, self.far, self.expert = np.zeros((5, rows, parts))
        self.clipped = np.zeros((rows, parts), dtype=bool)
        self.lost = np.full(rows, count + 1)  # from which policy on log-ratios are no numbers
        self.careful = True
        self.scratch = threading.local()  # a block's room for each thread: fresh pages cost time
        # of the tiles that are continued in logarithms: log p, log ref (or 0), log-weights
        self.logs: dict[_Tile, tuple[FloatArray, Any, FloatArray]] = {}

    def look(self, tile: _Tile) -> None:
        """Sums and least masses of a block, before the first round."""
        p, q = self.p[tile.block], self.path[0][tile.block]
        self.expert[tile.sums] = p.sum(-1)
        self.least[tile.sums] = np.minimum(p.min(-1), q.min(-1))
        if self.ref is not None:
            self.least[tile.sums] = np.minimum(self.least[tile.sums], self.ref[tile.block].min(-1))
        if self.given_logs is not None:
            self._leave(tile, *(x[tile.block] for x in self.given_logs))

    def play(self, t: int, beta: float) -> None:
        """Round ``t``: measure ``pi_t``, and write the weights of ``pi_{t+1}``."""
        if self.obj.has_gain:
            self.run(lambda tile: self._discriminate(t, tile), self.tiles)
        delta = self.delta.sum(-1)[:, None]
        self.run(lambda tile: self._visit(t, tile, beta, delta), self.tiles)
        self._measured(t)
        self.lost = np.where(self.clipped.any(-1), np.minimum(self.lost, t + 1), self.lost)
        top = self.top.max(-1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            weight = np.where(self.mass > 0, self.mass * np.exp(self.top - top), 0.0)
            self.log_scale = self.top - top - np.log(weight.sum(-1, keepdims=True))
        self.log_scale = np.where(np.isnan(self.log_scale), 0.0, self.log_scale)

    def finish(self, t: int) -> None:
        """Measure the last policy."""
        self.careful = True
        self.run(lambda tile: self._visit(t, tile), self.tiles)
        self._measured(t)
        for row in np.flatnonzero(
            self.lost <= t
        ):  # what the cut reward gives from there is no path
            first = self.lost[row]
            self.kl[first:, row] = self.reach[first:, row] = np.inf
            self.path[first + 1 :, row] = self.path[first, row]
            if self.log_path is not None:
                self.log_path[first + 1 :, row] = self.log_path[first, row]

    def log_ends(self, shape: tuple[int, ...]) -> tuple[FloatArray, FloatArray]:
        """Logarithms of the expert and of the last policy."""
        log_p, log_last = laws.log_law(self.p), laws.log_law(self.path[-1])
        for tile, (log_expert, _, weights) in self.logs.items():
            log_p[tile.block] = log_expert
            kept = (self.lost[tile.rows] >= len(self.path))[:, None]
            log_last[tile.block] = np.where(kept, weights, log_last[tile.block])
        return log_p.reshape(shape), log_last.reshape(shape)

    def _measured(self, t: int) -> None:
        self.reach[t] = self.far.max(-1)
        self.kl[t] = self.excess.sum(-1)
        if np.any(self.kl[t] < CAREFUL_KL) and not self.careful:  # fell faster than expected
            self.careful = True
            self.run(lambda tile: self._measure_again(t, tile), self.tiles)
            self.kl[t] = self.excess.sum(-1)
        self.careful = bool(np.any(self.kl[t] < CAREFUL_KL))

    def _discriminate(self, t: int, tile: _Tile) -> None:
        """``Delta(p, pi_t)``, which the link's gain depends on."""
        scale = np.exp(self.log_scale[tile.sums])[:, None]
        if tile in self.logs:
            q = np.exp(self.logs[tile][2] + self.log_scale[tile.sums][:, None])
        else:
            q = self.path[t][tile.block] * scale
        self.delta[tile.sums] = laws.triangular(self.p[tile.block], q)

    def _visit(self, t: int, tile: _Tile, beta: float | None = None, delta: Any = None) -> None:
        """Normalise and measure ``pi_t`` on a block; with a beta, weigh the next policy."""
        gain = None if delta is None or not self.obj.has_gain else delta[tile.rows]
        if tile not in self.logs:
            with np.errstate(over="ignore"):
                scale = np.exp(self.log_scale[tile.sums])
            if np.all(self.least[tile.sums] * np.minimum(scale, 1.0) >= SMALLEST):
                if self._plain(t, tile, scale, beta, gain):
                    return
            else:
                self._leave(tile, *self._logs_of(t, tile))
        self._in_logs(t, tile, beta, gain)

    # -- masses within range -----------------------------------------------------------------

    def _plain(self, t: int, tile: _Tile, scale: FloatArray, beta: float | None, gain: Any) -> bool:
        """A visit by quotients; False if a weight left the range: the tile is in logs by now."""
        p, q = self.p[tile.block], self.path[t][tile.block]
        if np.any(scale != 1.0):
            q *= scale[:, None]
        u = np.divide(p, q, out=self._room(p.shape))
        np.log(u, out=u)
        self.far[tile.sums] = np.maximum(-u.min(-1), u.max(-1))
        if self.careful:
            self.excess[tile.sums] = _careful_kl(p, u, float(self.far[tile.sums].max()))
        else:
            mass = self.mass[tile.sums] * scale
            self.excess[tile.sums] = _dot(p, u) + (mass - self.expert[tile.sums])
        if beta is None:
            return True
        with np.errstate(all="ignore"):
            if self.by_density:
                exponent = self.obj.density_link(p, q, gain)
            else:
                exponent = np.asarray(self.obj.link_formula(u, gain))
            if self.ref is not None:
                exponent = exponent - self.tau * np.log(q / self.ref[tile.block])
            if beta + self.tau != 1.0:
                exponent = np.multiply(exponent, 1.0 / (beta + self.tau), out=u)
            np.exp(exponent, out=u)
        weights = self.path[t + 1][tile.block]
        with np.errstate(all="ignore"):
            np.multiply(q, u, out=weights)
            total, least = weights.sum(-1), weights.min(-1)
        if not np.all((least >= SMALLEST) & (total <= LARGEST)):
            self.log_scale[tile.sums] = 0.0  # the policy is normalised by now
            self._leave(tile, *self._logs_of(t, tile))
            return False
        self.mass[tile.sums], self.least[tile.sums], self.top[tile.sums] = total, least, 0.0
        return True

    def _room(self, shape: tuple[int, ...]) -> FloatArray:
        """An array of this shape that the thread's next visit writes over."""
        size = shape[0] * shape[1]
        room: FloatArray | None = getattr(self.scratch, "room", None)
        if room is None or room.size < size:
            room = self.scratch.room = np.empty(size)
        return room[:size].reshape(shape)

    def _measure_again(self, t: int, tile: _Tile) -> None:
        """KL of a policy that is normalised by now, from non-negative terms."""
        if tile not in self.logs:
            p, q = self.p[tile.block], self.path[t][tile.block]
            u = np.log(p / q)
            self.excess[tile.sums] = _careful_kl(p, u, float(self.far[tile.sums].max()))

    # -- in logarithms -----------------------------------------------------------------------

    def _logs_of(self, t: int, tile: _Tile) -> list[FloatArray]:
        given = [self.p[tile.block], self.path[t][tile.block]]
        if self.ref is not None:
            given.append(self.ref[tile.block])
        return [laws.log_law(law) for law in given]

    def _leave(
        self, tile: _Tile, log_p: FloatArray, log_q: FloatArray, log_ref: Any = None
    ) -> None:
        """Continue a tile in logarithms."""
        self.logs[tile] = log_p, log_ref, np.array(log_q)

    def _in_logs(self, t: int, tile: _Tile, beta: float | None, gain: Any) -> None:
        log_p, log_ref, log_q = self.logs[tile]
        log_q += self.log_scale[tile.sums][:, None]
        p, q = self.p[tile.block], self.path[t][tile.block]
        np.exp(log_q, out=q)
        if self.log_path is not None:
            self.log_path[t][tile.block] = log_q
        without = np.isneginf(log_p)
        with np.errstate(invalid="ignore"):
            ratio = np.where(without, 0.0, log_p - log_q)
        self.far[tile.sums] = np.abs(ratio).max(-1)
        self.excess[tile.sums] = laws.kl_of_logratio(p, ratio, q)
        if beta is None:
            return
        out = np.isneginf(log_q)
        u = np.where(without & ~out, -np.inf, ratio)
        with np.errstate(all="ignore"):
            reward = np.asarray(self.obj.link_formula(u, gain))
            largest = LARGEST * min(1.0, beta + self.tau)  # so that it can be divided by them
            cut = np.isfinite(u) & ~(np.abs(reward) <= largest)
            self.clipped[tile.sums] = cut.any(-1)
            reward = np.where(cut, np.clip(reward, -largest, largest), reward)
            log_q *= beta / (beta + self.tau)
            log_q += reward / (beta + self.tau)
            if log_ref is not None and self.tau > 0:
                log_q += log_ref * (self.tau / (beta + self.tau))
        log_q[out] = -np.inf
        top = log_q.max(-1)
        top = np.where(np.isfinite(top), top, 0.0)
        self.mass[tile.sums] = np.exp(log_q - top[:, None]).sum(-1)
        log_q -= top[:, None]
        self.top[tile.sums] = top


def _careful_kl(p: FloatArray, u: FloatArray, reach: float) -> FloatArray:
    """``sum p (e^-u - 1 + u)`` by row: every term is non-negative, so nothing cancels."""
    if reach > FAR:
        return laws.kl_of_logratio(p, u, p * np.exp(-u))
    coefficients = [0.5]  # of (e^-u - 1 + u)/u^2, as many as can be seen
    while abs(coefficients[-1]) * reach ** (len(coefficients) - 1) > 1e-17:
        if len(coefficients) > TERMS:
            term = np.expm1(-u)
            term += u
            return _dot(p, term)
        coefficients.append(-coefficients[-1] / (len(coefficients) + 2))
    coefficients.pop()  # the first that cannot be seen
    weight = p * u
    if len(coefficients) == 1:
        return coefficients[0] * _dot(weight, u)
    weight *= u
    term = np.full_like(u, coefficients.pop())
    for coefficient in reversed(coefficients):
        term *= u
        term += coefficient
    return _dot(weight, term)


def _dot(x: FloatArray, y: FloatArray) -> FloatArray:
    """Dot products by row, in pieces that BLAS does not spread over cores that are busy already."""
    n = x.shape[-1]
    whole = n - n % SHORT
    pieces = (len(x), whole // SHORT, SHORT)
    head = np.vecdot(x[:, :whole].reshape(pieces), y[:, :whole].reshape(pieces)).sum(-1)
    return np.asarray(head + np.vecdot(x[:, whole:], y[:, whole:]))
