"""What errors of the rewards do to rounds with opponent history (T6: history and errors).

With shares ``m_0, ..., m_h`` of own responses (the present policy's first) a small log-ratio x to
the expert obeys, at effective step s and weight beta of the KL step,

    x_{t+1} = x_t - s (m_0 x_t + m_1 x_{t-1} + ... + m_h x_{t-h}) + e_t/beta.

Everything here is reconstruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.linalg import solve_discrete_lyapunov
from scipy.signal import lfilter

from theory import arguments, laws, objectives
from theory.errors import Unavailable, refuse
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history import history_factor, history_threshold, shares_of, shares_problems

_ROUNDS = 10**6
"""Longest impulse response that is summed: steps nearer to the threshold are refused."""
_LEFT = 1e-17
"""Of an impulse response, at which its sum is taken to be done."""


def sampled_noise(step: Any, share: Any = 0.0) -> FloatArray:
    """``s (1+sm)/((1-sm)(2-s(1-2m)))``: stationary variance in units of the samples' own.

    Of log-ratios when every round draws one side anew: ``s/(2-s)`` without a share m of the last
    opponent, ``s^2`` times `history_noise` with it.

    Args:
        step: effective steps >= 0 below ``min(1/m, 2/(1-2m))``. share: m in [0, 1] (broadcast).

    Raises:
        InvalidInput: numbers out of range, or shapes that do not fit.

    >>> sampled_noise([0.5, 1.5], 0.25).round(4).tolist()
    [0.3673, 2.64]
    """
    shares = arguments.every("history", share, lambda m: (m >= 0) & (m <= 1), "in [0, 1]")
    problems = [*shares, *arguments.numbers("step", step, 0.0)]
    refuse(problems or arguments.fitting(step=step, history=share))
    s, m = np.asarray(step, dtype=float), np.asarray(share, dtype=float)
    age, room = s * m, 2.0 - s * (1.0 - 2.0 * m)
    stable = "effective steps in [0, 2)" if not np.any(m) else "steps at which this history holds"
    refuse(arguments.every("step", step, lambda _: (age < 1.0) & (room > 0.0), stable))
    return np.asarray(s * (1.0 + age) / ((1.0 - age) * room))


def history_noise(step: float, history: float | Sequence[float], correlation: float = 0.0) -> float:
    """Stationary variance of log-ratios, in units of ``(sd/beta)^2``, for errors of every round.

    ``(1+sm)/(s (1-sm) (2-s(1-2m)))`` for one share m of the last opponent and fresh errors, and
    ``1/(s(2-s))`` without: to first order in the errors, near the expert.

    Args:
        step: effective step ``R'(0)/beta``, below the threshold of the history.
        history: share of the last opponent, or those of the last, the one before it, ...
        correlation: ``k`` of errors whose correlation is ``k^lag``, in (-1, 1]; 0 are fresh ones,
            1 stay the same for ever and leave ``1/s^2``, whatever the history.

    Raises:
        InvalidInput: shares or a step out of range, a step beyond the threshold.

    >>> [round(history_noise(1.5, m), 4) for m in (0.0, 0.25)]
    [1.3333, 1.1733]
    """
    problems = _problems(step, history)
    if not (laws.is_real(correlation) and -1 < correlation <= 1):
        problems.append(f"correlation={correlation!r}; needed is a number in (-1, 1]")
    refuse(problems)
    if correlation == 1:
        return float(1.0 / step**2)
    if history_factor(step, history) >= 1:
        refuse([f"step={step!r}; needed is one that rounding tells from 0"])
    shares = shares_of(history)
    size = len(shares) + 1  # x_t, ..., x_{t-h}, e_t
    move = np.zeros((size, size))
    move[0, :-1] = -step * shares
    move[0, 0] += 1.0
    move[0, -1] = 1.0
    move[range(1, size - 1), range(size - 2)] = 1.0
    move[-1, -1] = correlation
    drawn = np.zeros((size, size))
    drawn[-1, -1] = 1.0 - correlation**2
    return float(solve_discrete_lyapunov(move, drawn)[0, 0])


def quietest_share(step: float) -> float:
    """Share of the last opponent at which fresh errors leave least: ``(sqrt(s) - 1)/s``, or 0.

    Old responses add to the noise of steps up to 1 and take from that of longer ones; the variance
    is then ``1/(s (2 - sqrt s)^2)``. The share that contracts most (`best_history`) is less beyond
    step 1, and positive below it, where it costs noise.

    Args:
        step: effective step, below 4, where nothing is stable.

    >>> quietest_share(0.5), round(quietest_share(2.25), 4)
    (0.0, 0.2222)
    """
    problems = arguments.number("step", step)
    if not problems and step >= 4:
        problems.append(f"step={step!r}; needed is less than 4, where a share can be stable")
    refuse(problems)
    return float(max(0.0, (np.sqrt(step) - 1.0) / step))


def history_reach(step: float, history: float | Sequence[float]) -> float:
    """Largest log-ratio that errors of any order leave, in units of ``oscillation/beta``.

    The sum of the moduli of the impulse response: errors with its signs attain it. At least
    ``1/s``, which errors that stay leave, with equality where it never changes its sign.

    Args:
        step, history: as of `history_noise`.

    Raises:
        InvalidInput: as of `history_noise`; a step so near to the threshold that a million rounds
            do not end the response.

    >>> [round(history_reach(s, m), 4) for s, m in ((1.5, 0.0), (1.5, 0.25), (1e-5, 0.25))]
    [2.0, 1.8465, 100000.0]
    """
    refuse(_problems(step, history))
    past = step * shares_of(history)
    past[0] -= 1.0
    roots = np.roots(np.append(1.0, past))
    roots = roots[np.argsort(-np.abs(roots))]
    first, second = np.abs(np.append(roots, 0.0)[:2])
    rounds, slow = _rounds_until_gone(first), False
    if rounds > _ROUNDS and roots[0].imag == 0 and roots[0].real > 0:
        # a small step: without the other roots the response keeps its sign, and its sum is 1/s
        rounds, slow = _rounds_until_gone(second / first), True
    if rounds > _ROUNDS:
        refuse([f"step={step!r}; needed is one farther below the threshold of the history"])
    one = np.zeros(2 * int(rounds))
    one[0] = 1.0
    response = lfilter([1.0], np.append(1.0, past), one)
    rest = 1.0 / step - response.sum() if slow else 0.0
    return float(np.abs(response).sum() + np.abs(rest))


def _rounds_until_gone(factor: float) -> float:
    """Rounds that leave nothing of what shrinks by ``factor`` a round."""
    if factor >= 1:
        return np.inf
    return 64.0 + float(np.log(_LEFT) / np.log(factor)) if factor > 0 else 64.0


def mean_age(history: float | Sequence[float]) -> float:
    """Rounds that own responses are old on average, ``sum_j j m_j``.

    >>> mean_age(0.25), mean_age([0.2, 0.3])
    (0.25, 0.8)
    """
    refuse(shares_problems(history))
    shares = shares_of(history)
    return float(shares @ np.arange(len(shares)))


def history_mean_bound(
    first_kl: Any, reward_range: float, beta: float, rounds: int, history: Any
) -> FloatArray:
    """Bound of the mean of ``D_Phi(q'_t||p)`` over the first 1, 2, ... rounds, at any beta.

    ``beta KL(p||pi_0)/T + (1 + 2a) G^2/(8 beta)``, with ``q'_t`` the law of own responses and a
    their mean age: no anchor. The average of these laws is within it too.

    Args:
        first_kl: ``KL(p||pi_0)`` (...), nats.
        reward_range: G >= largest minus smallest reward of a round, errors included, and of the
            link alone, nats.
        beta: weight of the KL step. rounds: how many. history: shares as of `self_play`.

    Returns:
        (rounds, ...), nats.

    >>> history_mean_bound(0.5, 2.0, 1.0, 2, 0.5).tolist()
    [1.5, 1.25]
    """
    refuse(
        [
            *shares_problems(history),
            *arguments.number("beta", beta),
            *arguments.number("reward_range", reward_range, 0.0),
            *arguments.whole("rounds", rounds, 1),
            *arguments.numbers("first_kl", first_kl, 0.0),
        ]
    )
    start = np.asarray(first_kl, dtype=float)
    so_far = np.arange(1.0, rounds + 1).reshape(-1, *[1] * start.ndim)
    floor = (1.0 + 2.0 * mean_age(history)) * reward_range**2 / (8.0 * beta)
    return np.asarray(beta * start / so_far + floor)


def driving_error(obj: Objective | str, expert: Any) -> FloatArray:
    """Oscillation of errors from which on they can drive out the rarest response, nats.

    ``R(inf) - R(log(1 - min p))``, of SPIF ``2/(c (2 - min p))``: more than rewards are bounded by.
    Of a link bounded from above smaller errors leave log-odds bounded: with two outcomes at any
    step and history, with more where ``x e^{R(-log x)/beta}`` is concave (SPIF: to effective step
    1/2) and no history. At larger steps smaller ones can do (SPIF: from 1.6 on), as the others
    swing (T6). Infinite where rewards are unbounded from above: no error outweighs the pull then,
    but a long step leads away without any (SPIN beyond effective step 2).

    Args:
        obj: an objective whose link depends on u alone, or its specification.
        expert: laws p (..., n), two outcomes or more, of positive mass.

    Returns:
        (...), nats.

    Raises:
        InvalidInput: no such laws. Unavailable: no link of u alone, or no expert law (SPPO).

    >>> float(driving_error("spif", [0.6, 0.4]).round(4)), float(driving_error("spin", [0.6, 0.4]))
    (1.25, inf)
    """
    obj = objectives.of(obj)
    if "preference" in obj.needs:
        raise Unavailable(f"{obj.name} has no driving error: it has no expert law")
    obj.require("link")
    if obj.has_gain:
        raise Unavailable(f"{obj.name} has no driving error: its link depends on both laws")
    high = obj.reward_bounds[1]
    (p,) = laws.check_laws(expert=expert)
    least = p.min(-1)
    if p.shape[-1] < 2 or not np.all(least > 0):
        refuse(["expert: needed are two outcomes or more, all of positive mass"])
    return np.asarray(high - obj.link(np.log1p(-least), np.zeros_like(least)))


def _problems(step: Any, history: Any) -> list[str]:
    """Of a step, and of shares at which it is to settle."""
    problems = [*shares_problems(history), *arguments.number("step", step)]
    # the least of steps leave the factor at 1 in rounding
    if not problems and history_factor(step, history) >= 1 and step >= history_threshold(history):
        problems.append(f"step={step!r}; needed is one at which history={history!r} is stable")
    return problems
