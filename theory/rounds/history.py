"""Own responses of earlier opponents: the law they come from, and which steps it keeps stable.

A round's own responses may be partly those of earlier rounds, as in SPIN's recipe, while log-ratios
divide by the present policy: the reward player then answers ``R(log p/q')`` with the mixture

    q' = (1 - m_1 - ... - m_h) pi_t + m_1 pi_{t-1} + ... + m_h pi_{t-h}

(before the first policy comes the first). Everything here is reconstruction (T6: history).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.polynomial import chebyshev
from scipy.optimize import brentq

from theory.arguments import number, whole
from theory.errors import refuse
from theory.result import FloatArray

AVERAGE = "average"
"""Equal shares of all policies so far: fictitious play."""
History = float | Sequence[float] | str


def history_problems(history: Any, name: str = "history") -> list[str]:
    """Why these are no shares of earlier opponents."""
    if isinstance(history, str):
        needed = f"needed are shares, or {AVERAGE!r}"
        return [] if history == AVERAGE else [f"{name}={history!r}; {needed}"]
    many = isinstance(history, Sequence) or np.ndim(history) == 1
    old = list(history) if many else [history]
    wrong = [share for share in old if number(name, share, least=0.0)]
    if wrong or sum(old) > 1.0 + 1e-12:
        kind = "numbers in [0, 1] with a sum of at most 1" if many else "a number in [0, 1]"
        return [f"{name}={history!r}; needed is {kind}, or {AVERAGE!r}"]
    return []


def shares_of(history: Any) -> FloatArray:
    """Shares ``(m_0, ..., m_h)`` of a history of numbers, the present policy's first; sum 1."""
    old = np.atleast_1d(np.asarray(history, dtype=float))
    return np.concatenate([[max(0.0, 1.0 - old.sum())], old])


class OwnResponses:
    """The law of own responses, round by round; laws are given by logarithms (..., n).

    >>> own = OwnResponses(0.25)
    >>> own.after(np.log([0.2, 0.8])).round(3), np.exp(own.after(np.log([0.6, 0.4]))).round(3)
    (array([-1.609, -0.223]), array([0.5, 0.5]))
    """

    def __init__(self, history: History) -> None:
        """Of shares as `self_play` takes them, or of the average."""
        self.shares = None if isinstance(history, str) else shares_of(history)
        self.seen: list[FloatArray] = []  # newest first; of the average that alone
        self.rounds = 0

    def after(self, log_law: FloatArray) -> FloatArray:
        """The mixture when ``log_law`` is the present policy."""
        self.rounds += 1
        if self.shares is None:
            before = self.seen or [log_law]
            shares = np.array([1.0, self.rounds - 1.0]) / self.rounds
            self.seen = [_mixture([log_law, *before], shares)]
            return self.seen[0]
        self.seen = [log_law, *self.seen][: len(self.shares)]
        missing = len(self.shares) - len(self.seen)
        return _mixture([*self.seen, *[self.seen[-1]] * missing], self.shares)


def _mixture(log_laws: Sequence[FloatArray], shares: FloatArray) -> FloatArray:
    """``log sum_j shares_j exp(log_laws_j)``; one law alone stays what it is to the bit."""
    used = [(law, share) for law, share in zip(log_laws, shares, strict=True) if share > 0]
    if len(used) == 1:
        return used[0][0]
    return np.asarray(np.logaddexp.reduce([law + np.log(share) for law, share in used]))


def history_threshold(history: float | Sequence[float]) -> float:
    """Effective step below which rounds near the expert are stable, for every link (T6: history).

    ``min(1/m, 2/(1-2m))`` for one share m; in general the least positive
    ``s = 2 sin(a/2)/sum_j m_j sin((j+1/2) a)`` over angles ``0 < a <= pi`` at which
    ``sum_j m_j cos((j+1/2) a) = 0``: there ``z - 1 + s sum_j m_j z^{-j}`` is 0 at ``z = e^{ia}``.

    Args:
        history: share of the last opponent, or those of the last, the one before it, ...

    Raises:
        InvalidInput: not numbers in [0, 1] with a sum of at most 1.

    Where several opponents are mixed, larger steps may be stable again.

    >>> [round(history_threshold(m), 6) for m in (0.25, 1.0, [0.0, 1.0])]
    [4.0, 1.0, 0.618034]
    """
    refuse(shares_problems(history))
    shares = shares_of(history)
    odd = np.zeros(2 * len(shares))
    # cos((j+1/2) a) = T_{2j+1}(cos(a/2)); a share that rounds away would only spoil the roots
    odd[1::2] = np.where(shares > 1e-15, shares, 0.0)
    found = chebyshev.chebroots(np.trim_zeros(odd, "b"))
    real = np.abs(found.imag) < 1e-7
    inside = real & (found.real > 3e-5)  # below are copies of the root a = pi, which always is one
    halves = np.append(np.arccos(found.real[inside]), np.pi / 2)
    levels = np.sin(np.outer(halves, 2 * np.arange(len(shares)) + 1)) @ shares
    return float((2.0 * np.sin(halves[levels > 0]) / levels[levels > 0]).min())


def history_factor(step: float, history: float | Sequence[float]) -> float:
    """Growth a round of a small log-ratio at effective step ``step``: the largest root's modulus.

    Roots of ``z^{h+1} - z^h + s sum_j m_j z^{h-j}``; ``|1 - s|`` without old responses.

    Raises:
        InvalidInput: as `history_threshold`, or a step that is not a number > 0.
    """
    refuse([*shares_problems(history), *number("step", step)])
    polynomial = step * np.append(0.0, shares_of(history))
    polynomial[:2] += [1.0, -1.0]
    return float(np.abs(np.roots(polynomial)).max())


def best_history(step: float, rounds: int) -> FloatArray:
    """Shares (rounds,) of earlier opponents that contract most (T6: history).

    From step 1 on their factor is ``step^{1/(h+1)} - 1``, all roots are equal, and nothing is
    stable from ``step = 2^{h+1}`` on. Below step 1 old responses help as well: ``1 - sqrt(step)``
    in place of ``1 - step``, by a share of the last opponent alone, down to step 1/4; at smaller
    steps by older ones, of two ages next to each other, or of the oldest alone. That no shares
    contract by less is proved for steps >= 1, for h <= 3, and where the oldest alone are best, and
    computed elsewhere.

    Args:
        step: effective step > 0. rounds: h >= 1.

    Raises:
        InvalidInput: a step that is no number > 0; no rounds.

    >>> best_history(4.0, 1), best_history(8.0, 2), best_history(0.25, 2), best_history(0.1, 2)
    (array([0.25]), array([0.375, 0.125]), array([1., 0.]), array([0., 1.]))
    """
    refuse([*number("step", step), *whole("rounds", rounds, 1)])
    if step < 1:
        return _best_below_one(step, rounds)
    factor = step ** (1.0 / (rounds + 1)) - 1.0
    return np.asarray(np.poly(np.full(rounds + 1, -factor))[2:] / step)


def _best_below_one(step: float, rounds: int) -> FloatArray:
    """Shares of ages k - 1 and k that make the largest root a double one: ``k a^{k-1}(1-a)^2 = s``.

    Without a k up to ``rounds`` the oldest alone, whose largest root is simple.
    """
    shares = np.zeros(rounds + 1)
    ages = np.arange(1.0, rounds + 1)
    double = np.flatnonzero(step * (ages + 1) >= (ages / (ages + 1)) ** ages)
    if not double.size:
        shares[-1] = 1.0
        return shares[1:]
    k = int(ages[double[0]])
    root = brentq(lambda a: k * a ** (k - 1) * (1.0 - a) ** 2 - step, (k - 1) / (k + 1), 1.0,
                  xtol=1e-15)  # fmt: skip
    shares[k] = min(1.0, root**k * max(0.0, k * root - (k - 1)) / step)
    shares[k - 1] = 1.0 - shares[k]
    return shares[1:]


def shares_problems(history: Any) -> list[str]:
    """Of shares alone: an average is of all rounds, and has no local recursion of fixed length."""
    if isinstance(history, str):
        return [f"history={history!r}; needed are shares of earlier opponents"]
    return history_problems(history)
