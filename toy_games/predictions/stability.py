"""Rounds near the expert at an effective step s: factors, noise floors, burn-in, missing support.

All reconstruction: T6 linearised, with samples, and with k gradient steps a round (T15).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import arguments, objectives
from theory.errors import refuse
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import size_problems, unseen_fall


def inner_factor(step: Any, distance: Any, inner: float) -> FloatArray:
    """Factor of a small log-ratio over a round of ``k = distance/inner`` exact gradient steps.

    ``1 - s (1 - rho^k)`` with ``rho = 1 - inner/s``: to the best response a round goes by the
    effective step s, of which k steps make the share ``1 - rho^k`` (reconstruction, T6 and T15).

    Raises:
        InvalidInput: not ``step > 0``, ``distance >= 0`` and ``inner > 0``, shapes that do not fit,
            or a part of a gradient step where one goes beyond its goal (``inner > step``).
    """
    problems = arguments.numbers("step", step) + arguments.numbers("distance", distance, 0.0)
    problems += arguments.numbers("inner", inner)
    refuse(problems or arguments.fitting(step=step, distance=distance, inner=inner))
    s, each = np.asarray(step, dtype=float), np.asarray(inner, dtype=float)
    k = np.asarray(distance, dtype=float) / each
    whole = np.abs(k - np.rint(k)) < 1e-9
    if np.any((each > s) & ~whole):
        refuse([f"inner={inner!r}; needed is at most step={step!r}, or whole distance/inner"])
    k = np.where((each > s) & whole, np.rint(k), k)
    return np.asarray(1.0 - s * (1.0 - (1.0 - each / s) ** k))


def breaking_distance(step: Any, inner: float = 0.0) -> FloatArray:
    """Distance ``k rate lambda`` beyond which rounds diverge: `inner_factor` at -1.

    ``inner log(1 - 2/s) / log(1 - inner/s)``, and ``-s log(1 - 2/s)`` for small gradient steps;
    at most every s > 2 has one, it is +inf below and tends to 2 for large s.

    Raises:
        InvalidInput: not ``step > 0`` and ``inner >= 0``, or ``inner >= step > 2``.
    """
    refuse(arguments.numbers("step", step) + arguments.numbers("inner", inner, 0.0, single=True))
    s = np.asarray(step, dtype=float)
    if np.any((s > 2.0) & (inner >= s)):
        refuse([f"inner={inner!r}; needed is less than every step > 2 of step={step!r}"])
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.log(1.0 - 2.0 / s)
        found = -s * share if inner == 0 else inner * share / np.log(1.0 - inner / s)
    return np.where(s > 2.0, found, np.inf)


def noise_floor(step: Any, outcomes: int, samples: Any, own: Any = 0.0) -> FloatArray:
    """Stationary KL(p||pi) near the expert with fresh samples each round, ``(N-1)/n s/(2-s)``.

    For s < 2, n expert and n own samples. The log-ratio is an autoregression with factor 1 - s,
    driven by s times the errors of both empirical laws, whose variances under p sum to
    ``2 (N-1)/n`` (reconstruction, T6 linearised). That it vanishes with s is endless data's:
    on one data set it is `fixed_data.fixed_data_floor`. A share ``own`` of expert labels that are
    the policy's own makes the factor 1 - s (1 - own) and leaves the errors as they are.

    Raises:
        InvalidInput: a step that is not > 0, a share outside [0, 1), a factor of -1 or below, no
            outcomes or samples.
    """
    problems = arguments.numbers("step", step) + size_problems(outcomes, samples)
    problems += arguments.every("own", own, lambda x: (x >= 0) & (x < 1), "within [0, 1)")
    problems = problems or arguments.fitting(step=step, samples=samples, own=own)
    if not problems and np.any(np.asarray(step) * (1.0 - np.asarray(own)) >= 2):
        problems.append(f"step={step!r}; needed is step (1 - own) < 2")
    refuse(problems)
    s, pull = np.asarray(step, dtype=float), np.asarray(step) * (1.0 - np.asarray(own))
    return np.asarray((outcomes - 1) / np.asarray(samples) * s**2 / (pull * (2.0 - pull)))


def slowest_rate(obj: Objective | str, step: Any, samples: Any, share: float) -> FloatArray:
    """Nats a round by which sampled rounds at least raise a missing response of mass ``share``.

    ``(R(u) - R(0))/beta`` at the largest log-ratio that n samples with smoothing 1/2 can show.

    Raises:
        InvalidInput: no objective; a step, samples or a share that are not > 0, or shapes that do
            not fit.
    """
    obj = objectives.of(obj)
    given = {"step": step, "samples": samples, "share": share}
    problems = [line for name, value in given.items() for line in arguments.numbers(name, value)]
    refuse(problems or arguments.fitting(**given))
    shown = np.log((np.asarray(samples) * np.asarray(share) + 0.5) / 0.5)
    gain = np.asarray(obj.link(shown, 2.0)) - np.asarray(obj.link(0.0, 2.0))
    return np.asarray(gain / beta_at(obj, step))


def tail_mass(
    obj: Objective | str, step: float, samples: int, rounds: Any, smoothing: float = 0.5
) -> FloatArray:
    """Bound of the expected mass of a response that the expert never gives, after many rounds.

    A round sees it with probability about ``n q`` and then multiplies it at least once by
    ``g = e^{R(log a/(1+a))/beta}``, so that ``E q`` falls at least like ``1/((1-g) n t)``, not
    exponentially, whatever the objective (reconstruction, T6 with samples). Of first order in
    1/n, and for a response that begins with a few own samples a round at most: the drift of the
    normaliser, about s N/n a round, is left out (t much less than n/(s N)). Late in training the
    mean itself is `fixed_data.unseen_mass`, with ``log 1/g`` for ``1 - g`` and a swing.

    Raises:
        InvalidInput: samples or rounds that are not > 0, or as `fixed_data.unseen_fall`.
    """
    problems = arguments.numbers("samples", samples) + arguments.numbers("rounds", rounds)
    refuse(problems or arguments.fitting(samples=samples, rounds=rounds))
    kept = np.exp(-unseen_fall(obj, step, smoothing=smoothing))
    return np.asarray(1.0 / ((1.0 - kept) * np.asarray(samples) * np.asarray(rounds, dtype=float)))
