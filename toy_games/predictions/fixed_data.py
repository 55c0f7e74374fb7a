"""Rounds on one data set: n expert samples in every round, K fresh own samples to each of them.

All reconstruction (T16, "One data set"). Near the expert a direction of effective step s follows

    z_{t+1} = (1 - s) z_t + s (d + e_t),

z the log-ratio of the policy to the expert, d that of the data, which stays, and e_t that of the
round's own samples. Under p the squares of d and e_t have mean 1/n and 1/(nK) a direction, of
which there are N - 1. Everything here is of first order in 1/n, with all N outcomes in the data.
Arrays broadcast; shapes that do not fit are InvalidInput throughout.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from scipy.special import gamma

from theory import arguments, objectives
from theory.errors import refuse
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history_errors import sampled_noise
from toy_games.engine.trainable import beta_at


def own_noise(step: Any, per_expert: Any = 1, history: Any = 0.0) -> FloatArray:
    """``s/((2-s)K)``: stationary noise of own samples, in units of the data's own; s < 2.

    With a share of them from the last round's policy (``history``) as
    `theory.rounds.history_errors.sampled_noise` says. Fresh expert samples add K times as much.

    Raises:
        InvalidInput: a step outside [0, 2), or outside what a history allows; not
            ``K > 0``, or a share outside [0, 1].

    >>> float(own_noise(1.0, 4)), round(float(own_noise(1.5, 1, 0.25)), 4)
    (0.25, 2.64)
    """
    refuse(arguments.numbers("per_expert", per_expert))
    noise = sampled_noise(step, history)
    refuse(arguments.fitting(step=step, per_expert=per_expert, history=history))
    return np.asarray(noise / np.asarray(per_expert, dtype=float))


def _step_problems(step: Any, name: str = "step") -> list[str]:
    return arguments.every(name, step, lambda s: (s >= 0) & (s < 2), "effective steps in [0, 2)")


def size_problems(outcomes: Any, samples: Any) -> list[str]:
    """What is wrong with N, a whole number, and with n > 0."""
    return arguments.whole("outcomes", outcomes, 1) + arguments.numbers("samples", samples)


def fixed_data_floor(
    step: Any, outcomes: int, samples: Any, per_expert: Any = 1, history: Any = 0.0
) -> FloatArray:
    """Stationary KL(p||pi) near the expert on one data set of n: ``(N-1)/2n (1 + s/((2-s)K))``.

    For s < 2. The data's own error, ``(N-1)/2n``, is the maximum-likelihood law's and stays, for
    every objective and step; around that law the fresh own samples, K an expert sample, make the
    rest (T16). At K = 1 that is 2/(2-s) times SFT's KL, never below it; ``history`` as of
    `own_noise`.

    Raises:
        InvalidInput: a step outside [0, 2), no outcomes, or not ``samples > 0`` and ``K > 0``.
    """
    refuse(size_problems(outcomes, samples))
    noise = own_noise(step, per_expert, history)
    refuse(arguments.fitting(step=noise, samples=samples))
    return np.asarray((outcomes - 1) / (2.0 * np.asarray(samples)) * (1.0 + noise))


def own_counts(step: Any, bend: Any = 0.0, per_expert: Any = 1) -> FloatArray:
    """Pseudo-counts b that own noise adds to every response: mean policy ``k + b`` over its sum.

    ``b = (1 + R''(0)/R'(0))/((2-s)K)`` with k the response's expert samples, to first order in
    1/k and whatever the smoothing; ``bend`` is ``R''(0)/R'(0)``: 0 for odd links, -1 for IQ-Learn,
    whose mean policy is the data's law itself.

    Raises:
        InvalidInput: a step outside [0, 2), a bend that is not finite, or not ``K > 0``.
    """
    problems = _step_problems(step) + arguments.numbers("per_expert", per_expert)
    problems += arguments.every("bend", bend, np.isfinite, "a finite number")
    refuse(problems or arguments.fitting(step=step, bend=bend, per_expert=per_expert))
    s, own = np.asarray(step, dtype=float), np.asarray(per_expert, dtype=float)
    return np.asarray((1.0 + np.asarray(bend)) / ((2.0 - s) * own))


def kl_after(
    rounds: Any,
    steps: Any,
    samples: Any,
    per_expert: Any = 1,
    start: Any = 0.0,
    learned: float = 0.0,
) -> FloatArray:
    """Mean KL(p||pi_t) after so many rounds on one data set, summed over the directions.

    ``f^2 start + ((1-f)^2 + v (1-g^2))/2n`` each, ``g = (1-s)^t``, ``f = (1 - learned) g`` and v
    `own_noise`: what is left of the start, what has come in of the data's error, and of own
    samples'. As t grows it is `fixed_data_floor`.

    Args:
        rounds: t >= 0, ``+inf`` for the stationary law.
        steps: effective steps in (0, 2) of the N - 1 directions (..., N - 1).
        samples: n.
        per_expert: K.
        start: KL(p||pi_0) of each direction, half its squared log-ratio, nats; of a start that does
            not depend on the data.
        learned: share of the way to the data's law that supervised fine-tuning on the same data has
            brought that start before the rounds, in [0, 1].

    Raises:
        InvalidInput: a value outside these.

    >>> kl_after([0, 1], [[0.5, 0.5]], 100, start=[0.1, 0.1])
    array([0.2  , 0.055])
    """
    problems = arguments.every("rounds", rounds, lambda t: t >= 0, "numbers >= 0")
    problems += arguments.numbers("samples", samples) + arguments.numbers("start", start, 0.0)
    problems += _step_problems(steps, "steps") + arguments.numbers("per_expert", per_expert)
    refuse(problems + arguments.every("learned", learned, _is_share, "within [0, 1]"))
    s = np.asarray(steps, dtype=float)
    t = np.asarray(rounds, dtype=float)[..., None]
    sizes = {"samples": samples, "per_expert": per_expert, "start": start, "learned": learned}
    refuse(arguments.fitting(**{"rounds (..., 1)": t, "steps": s}, **sizes))
    odd = (s > 1.0) & (np.mod(np.where(np.isfinite(t), t, 0.0), 2) == 1)
    g = np.where(odd, -1.0, 1.0) * np.abs(1.0 - s) ** t
    left = (1.0 - np.asarray(learned)) * g
    error = (1.0 - left) ** 2 + own_noise(s, per_expert) * (1.0 - g**2)
    return np.asarray((left**2 * start + error / (2.0 * np.asarray(samples))).sum(-1))


def _is_share(learned: FloatArray) -> Any:
    return (learned >= 0) & (learned <= 1)


class Stop(NamedTuple):
    """The best moment to stop: ``(1-s)^t`` there, KL in nats, and t where s < 1 (else NaN)."""

    left: FloatArray
    kl: FloatArray
    rounds: FloatArray


def best_stop(
    step: Any,
    outcomes: int,
    samples: Any,
    per_expert: Any = 1,
    start: Any = 0.0,
    learned: float = 0.0,
) -> Stop:
    """Least mean KL over the rounds, all directions at one step: a shrinkage to the start.

    With F the maximum-likelihood law's KL ``(N-1)/2n``, D = ``start`` that of the whole start, c =
    ``learned`` < 1 and ``w = v/(1-c)^2``, `kl_after` is least where ``f = F/(D + F(1-w))``, at
    ``F(1+v) - F^2/(D + F(1-w))``; the rounds do not improve on where they begin iff
    ``D <= F (c/(1-c) + w)``. At c = 0 the least is below F iff ``D < F (1/v - 1 + v)`` for v < 1,
    and iff ``D < F`` else.

    Raises:
        InvalidInput: a step outside [0, 2), or another value outside these.

    >>> round(float(best_stop(1.0, 3, 100, 2, start=0.01).kl), 6)
    0.008333
    """
    problems = size_problems(outcomes, samples) + arguments.numbers("start", start, 0.0)
    begun = arguments.every("learned", learned, lambda c: _is_share(c) & (c < 1), "within [0, 1)")
    problems += begun + _step_problems(step) + arguments.numbers("per_expert", per_expert)
    refuse(problems or arguments.fitting(step=step, samples=samples, per_expert=per_expert,
                                         start=start, learned=learned))  # fmt: skip
    s, d = np.asarray(step, dtype=float), np.asarray(start, dtype=float)
    f, v = (outcomes - 1) / (2.0 * np.asarray(samples)), own_noise(s, per_expert)
    known = np.asarray(learned, dtype=float)
    kept = 1.0 - known
    w = v / kept**2
    at_start = d <= f * (known / kept + w)
    with np.errstate(divide="ignore", invalid="ignore"):
        left = f / (d + f * (1.0 - w))
        g = np.where(at_start, 1.0, left / kept)
        kl = np.where(at_start, kept**2 * d + known**2 * f, f * (1.0 + v) - f * left)
        rounds = np.where(s < 1.0, np.log(g) / np.log1p(-s), np.nan)
    return Stop(g, kl, rounds)


def smoothed_steps(step: Any, counts: Any, smoothing: float) -> FloatArray:
    """Effective steps ``s k/(k+a)`` of responses with k expert samples, a counts added to each.

    Raises:
        InvalidInput: a step < 0, counts < 0, smoothing < 0, or the last two both 0.
    """
    problems = arguments.numbers("step", step, 0.0) + arguments.numbers("counts", counts, 0.0)
    problems += arguments.numbers("smoothing", smoothing, 0.0)
    refuse(problems or arguments.fitting(step=step, counts=counts, smoothing=smoothing))
    k, a = np.asarray(counts, dtype=float), np.asarray(smoothing, dtype=float)
    if np.any(k + a == 0):
        refuse(["counts: 0 without smoothing; needed is counts + smoothing > 0"])
    return np.asarray(np.asarray(step, dtype=float) * k / (k + a))


def smoothed_excess(step: Any, counts: Any, smoothing: float, per_expert: Any = 1) -> FloatArray:
    """Stationary excess of KL over the maximum-likelihood law's with a counts added on both sides.

    ``sum_y (1 - k_y/n) s_y/((2-s_y)K)/2n`` at `smoothed_steps`: exact in the linearised round for
    equal counts (..., N), else above it in second order of the steps' differences (5 % seen).

    Raises:
        InvalidInput: smoothed steps outside [0, 2), no counts at all, or as for `smoothed_steps`
            and `own_noise`.
    """
    noise = own_noise(smoothed_steps(step, counts, smoothing), per_expert)
    k = np.atleast_1d(np.asarray(counts, dtype=float))
    n = k.sum(-1, keepdims=True)
    if np.any(n == 0):
        refuse(["counts: 0 in all; needed is one count or more"])
    return np.asarray(((1.0 - k / n) * noise / (2.0 * n)).sum(-1))


# -- a response that the data do not show ---------------------------------------------------------


def unseen_fall(
    obj: Objective | str, step: Any, per_expert: int = 1, smoothing: float = 0.5
) -> float:
    """Nats that one own sample takes off a response without expert samples, ``L``.

    ``(R(0) - R(log a/(a + 1/K)))/beta``, +inf for an unbounded link without smoothing: the first
    own sample ends the response.

    Raises:
        InvalidInput: no objective, or not ``step > 0``, ``K > 0`` and ``smoothing >= 0``.
    """
    obj = objectives.of(obj)
    given = {"step": step, "per_expert": per_expert}
    problems = [line for n, x in given.items() for line in arguments.numbers(n, x, single=True)]
    refuse(problems + arguments.numbers("smoothing", smoothing, 0.0, single=True))
    with np.errstate(divide="ignore"):
        shown = np.log(smoothing / (smoothing + 1.0 / per_expert))
    gain = float(np.asarray(obj.link(shown, 0.0))) - float(np.asarray(obj.link(0.0, 0.0)))
    return float(-gain / beta_at(obj, np.asarray(step)))


def unseen_mass(
    fall: float, own: Any, rounds: Any, start: Any = None
) -> tuple[FloatArray, FloatArray]:
    """Mean mass of such a response late in training, and mean of its logarithm (nats).

    With m own samples a round in all, t rounds, L the `unseen_fall`, Euler's gamma and
    ``w_n = 2 pi n/L``, both sums over all integers ``n != 0`` (T16 e; the swings are those of
    Flajolet's "Approximate counting", 1985):

    ``m t L E q = 1 + sum_n Gamma(1 + i w_n) (m t q_0)^(-i w_n)``, and
    ``E log q = -log(m t) - gamma - L/2 + L sum_j 1/(e^{jL} - 1) + sum_n Gamma(i w_n) (...)``.

    Valid for ``m t L`` well above 1/q_0, ``m q_0`` at most about 1, and t well below ``m/(s N)``,
    where the drift of the normaliser sets in.

    Args:
        start: q_0, the mass it begins with. None: the sums are left out, which is the mean over
            an e^L-fold of rounds (by log t), or of starts.

    Raises:
        InvalidInput: L, m, t or q_0 is not a finite number > 0; shapes that do not fit.

    >>> mass, log_mass = unseen_mass(3.8, 3000, [20, 80])
    >>> (mass * 3.8 * 3000 * np.array([20, 80])).round(2)
    array([1., 1.])
    >>> (unseen_mass(3.8, 3000, [20, 80], start=1e-3)[0] / mass).round(2)
    array([1.45, 0.51])
    """
    problems = arguments.numbers("fall", fall, single=True) + arguments.numbers("own", own)
    problems += [] if start is None else arguments.numbers("start", start)
    problems += arguments.numbers("rounds", rounds)
    refuse(problems or arguments.fitting(own=own, rounds=rounds, start=start))
    seen = np.asarray(own, dtype=float) * np.asarray(rounds, dtype=float)
    mass, log = np.asarray(1.0 / (seen * fall)), np.asarray(_log_shift(fall) - np.log(seen))
    if start is None:
        return mass, log
    turn = 2j * np.pi / fall * np.arange(1, int(4.0 * fall) + 2)  # the others are below 1e-16
    swing = np.asarray(seen * np.asarray(start, dtype=float))[..., None] ** -turn
    of_mass, of_log = (2.0 * (gamma(k + turn) * swing).real.sum(-1) for k in (1, 0))
    return np.asarray(mass * (1.0 + of_mass)), np.asarray(log + of_log)


def _log_shift(fall: float) -> float:
    """``-gamma - L/2 + L sum_j 1/(e^{jL} - 1)``; for small L by the series of the sum."""
    if fall < 0.05:
        return float(-np.log(fall) - fall / 4.0 - fall**2 / 144.0 - fall**4 / 86_400.0)
    j = np.arange(1, int(40.0 / fall) + 2)
    return float(-np.euler_gamma - fall / 2.0 + fall * (1.0 / np.expm1(j * fall)).sum())


# -- several gradient steps in a round ------------------------------------------------------------


def inner_steps(step: Any, rate: Any, eigenvalues: Any, steps: Any) -> FloatArray:
    """Effective steps ``s (1 - (1 - rate lambda/s)^k)`` of rounds of k exact gradient steps.

    Of directions of eigenvalue lambda of Fisher's matrix, ``diag p - p p^T`` for a softmax; rate in
    SFT units. At s = 1 they are those of k steps of SFT. They take the place of s in `kl_after`
    where own samples are drawn once a round.

    Raises:
        InvalidInput: not ``step > 0``, ``rate > 0``, ``eigenvalues > 0`` and ``steps >= 0``, or a
            part of a step where one goes beyond its goal (``rate lambda > s``).

    >>> inner_steps(2.0, 0.5, [1.0, 0.5], 2)
    array([0.875  , 0.46875])
    """
    refuse(_inner_problems(step, rate, eigenvalues, steps))
    s = np.asarray(step, dtype=float)
    way = np.asarray(rate) * np.asarray(eigenvalues)
    if np.any((way > s) & (np.asarray(steps) % 1 != 0)):
        refuse([f"steps={steps!r}; needed are whole numbers where rate lambda > step"])
    return np.asarray(s * (1.0 - (1.0 - way / s) ** np.asarray(steps)))


def _inner_problems(step: Any, rate: Any, eigenvalues: Any, steps: Any) -> list[str]:
    positive = {"step": step, "rate": rate, "eigenvalues": eigenvalues}
    problems = [line for name, value in positive.items() for line in arguments.numbers(name, value)]
    problems += arguments.numbers("steps", steps, 0.0)
    return problems or arguments.fitting(**positive, steps=steps)


def _directions(name: str, value: Any) -> list[str]:
    """Finite numbers of the directions, not all 0: angles are between vectors that point."""
    problems = arguments.every(name, value, np.isfinite, "finite numbers")
    if not problems and not np.all(np.any(np.atleast_1d(value), axis=-1)):
        problems.append(f"{name}: 0 in all directions; needed is one that is not")
    return problems


def inner_cosine(eigenvalues: Any, gradient: Any, moved: Any) -> FloatArray:
    """Cosine between SFT's first gradient and what a round has moved, in parameters.

    Args:
        eigenvalues: of Fisher's matrix (D,), positive.
        gradient: SFT's first gradient in its eigenbasis (..., D); on one data set its squares are
            lambda/n in the mean.
        moved: effective steps so far (..., D), `inner_steps`: the parameters went
            ``moved gradient/lambda``.

    Raises:
        InvalidInput: eigenvalues that are not positive, numbers that are not finite, or a gradient
            or a way that is 0.

    >>> round(float(inner_cosine([1.0, 0.5], [1.0, 1.0], [0.875, 0.46875])), 4)
    0.9994
    """
    problems = arguments.numbers("eigenvalues", eigenvalues)
    problems += _directions("gradient", gradient) + _directions("moved", moved)
    refuse(problems or arguments.fitting(eigenvalues=eigenvalues, gradient=gradient, moved=moved))
    g = np.asarray(gradient, dtype=float)
    path = np.asarray(moved) * g / np.asarray(eigenvalues)
    refuse(_directions("moved", path))
    along = (g * path).sum(-1)
    return np.asarray(along / np.sqrt((g**2).sum(-1) * (path**2).sum(-1)))


def inner_angle(step: Any, rate: Any, eigenvalues: Any, gradient: Any, steps: Any) -> FloatArray:
    """That angle to first order, radians: ``(k-1) rate/(2s)`` times the spread of lambda.

    The spread is lambda's standard deviation at weights ``gradient^2``. SFT's own k steps bend as
    at s = 1.

    Raises:
        InvalidInput: as `inner_steps`, ``steps >= 1``, or a gradient that is not finite or 0.

    >>> round(float(inner_angle(2.0, 0.5, [1.0, 0.5], [1.0, 1.0], 2)), 4)
    0.0312
    """
    problems = _inner_problems(step, rate, 1, 1) + arguments.numbers("steps", steps, 1.0)
    problems += arguments.numbers("eigenvalues", eigenvalues) + _directions("gradient", gradient)
    refuse(problems or arguments.fitting(eigenvalues=eigenvalues, gradient=gradient))
    eigenvalues = np.asarray(eigenvalues, dtype=float)
    weight = np.asarray(gradient, dtype=float) ** 2
    weight = weight / weight.sum(-1, keepdims=True)
    mean = (weight * eigenvalues).sum(-1, keepdims=True)
    spread = np.sqrt((weight * (eigenvalues - mean) ** 2).sum(-1))
    refuse(arguments.fitting(step=step, rate=rate, steps=steps, gradient=spread))
    bend = (np.asarray(steps) - 1.0) * np.asarray(rate) / (2.0 * np.asarray(step))
    return np.asarray(bend * spread)


def least_cosine(step: Any, rate: Any, eigenvalues: Any, steps: Any) -> FloatArray:
    """Least `inner_cosine` over all gradients, ``2 sqrt(r)/(1 + r)``; two directions attain it.

    r is the least over the largest ``moved/lambda`` of the eigenvalues (..., D), Cassels'
    inequality.

    Raises:
        InvalidInput: as `inner_steps`, ``steps > 0``, and only with ``rate lambda < s``.

    >>> round(float(least_cosine(2.0, 0.5, [1.0, 0.5], 2)), 4)
    0.9994
    """
    problems = arguments.numbers("steps", steps)
    refuse(problems or _inner_problems(step, rate, eigenvalues, steps))
    if not np.all(np.asarray(rate) * np.asarray(eigenvalues) < np.asarray(step)):
        refuse([f"rate={rate!r}; needed is rate lambda < step={step!r} for all eigenvalues"])
    way = inner_steps(step, rate, eigenvalues, steps) / np.asarray(eigenvalues)
    ratio = way.min(-1) / way.max(-1)
    return np.asarray(2.0 * np.sqrt(ratio) / (1.0 + ratio))
