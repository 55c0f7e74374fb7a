"""What errors of the rewards do to rounds: bounds that a run's rows can be held against (T6).

A round of reward ``r_t + e_t`` in place of ``r_t``. The size of an error is its *oscillation*
``max e_t - min e_t`` over responses, in nats: a constant changes no policy. All reconstruction.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from theory import arguments, laws
from theory.errors import InvalidInput, refuse
from theory.result import FloatArray


def last_iterate_bound(
    first_kl: Any, oscillation: Any, beta: float, mu: float = 0.0, tau: float = 0.0
) -> FloatArray:
    """Bound of ``KL(pi*||pi_t)`` at ``beta >= L`` when rewards are off by so much a round (T6 vii).

    A round takes it to ``rho KL + (1 - rho) eps^2/(8 (mu + tau)^2)``, with
    ``rho = (beta - mu)/(beta + tau)``; ``pi*`` is the equilibrium of the rounds, the expert at
    tau = 0. SPIN attains the limit of errors that are small and stay the same.

    Args:
        first_kl: ``KL(pi*||pi_0)`` (...), nats.
        oscillation: ``eps``, largest minus smallest error of each round (rounds, ...), nats.
        beta: weight of the KL step; mu: ``inf R'`` (a card's ``mu``); tau: weight of the anchor.

    Returns:
        (rounds + 1, ...), nats, the start first.

    Raises:
        InvalidInput: numbers out of range; ``mu + tau = 0``, where nothing pulls errors back.

    >>> last_iterate_bound(1.0, [0.4, 0.4], beta=2.0, mu=1.0).round(3).tolist()
    [1.0, 0.51, 0.265]
    """
    problems = arguments.number("beta", beta)
    problems += [*arguments.number("mu", mu, 0.0), *arguments.number("tau", tau, 0.0)]
    if not problems and mu + tau == 0:
        problems.append("mu=0, tau=0: errors add up without end; needed is mu + tau > 0")
    if not problems and mu > beta:
        problems.append(f"beta={beta!r}; needed is at least L, which is not below mu={mu!r}")
    start, sizes = _sizes(problems, first_kl, oscillation, "oscillation")
    pull = mu + tau
    rho = (beta - mu) / (beta + tau)
    path = [start]
    for size in sizes:
        path.append(rho * path[-1] + (1.0 - rho) * size**2 / (8.0 * pull**2))
    return np.stack(path)


def mean_bound(first_kl: Any, ranges: Any, beta: float) -> FloatArray:
    """Bound of the mean of ``D_Phi(pi_t||p)`` over the first 1, 2, ... rounds, any beta (T6 viii).

    ``beta KL(p||pi_0)/T`` and the mean of ``G_t^2/(8 beta)``: without an anchor, for rewards as
    they were used. The average of the policies is within it too. With errors it bounds the mean of
    ``D_Phi(pi_t||p) - E_{pi_t}[e_t] + E_p[e_t]``. Hard-bounded rewards attain it.

    Args:
        first_kl: ``KL(p||pi_0)`` (...), nats.
        ranges: ``G_t``, largest minus smallest reward of each round (rounds, ...), nats.
        beta: weight of the KL step.

    Returns:
        (rounds, ...), nats.

    Raises:
        InvalidInput: numbers out of range.

    >>> mean_bound(0.5, [2.0, 2.0], beta=1.0).tolist()
    [1.0, 0.75]
    """
    start, sizes = _sizes(arguments.number("beta", beta), first_kl, ranges, "ranges")
    rounds = np.arange(1.0, len(sizes) + 1).reshape(-1, *[1] * (sizes.ndim - 1))
    return np.asarray((beta * start + np.cumsum(sizes**2, 0) / (8.0 * beta)) / rounds)


def error_spread(sd: Any, beta: float, step: float, correlation: float = 0.0) -> FloatArray:
    """Stationary standard deviation of log-ratios when every round's rewards are off (T6).

    ``(sd/beta) sqrt((1 + g k)/((1 - g k)(1 - g^2)))`` with ``g = 1 - step``: exact for linear
    links, elsewhere near the expert.

    Args:
        sd: standard deviation of the errors, less their mean over responses, nats (...).
        beta: weight of the KL step.
        step: effective step ``a R'(0)/beta`` of a reward ``a R(u) + e``, within (0, 2).
        correlation: ``k`` of errors whose correlation is ``k^lag`` rounds apart, in (-1, 1]; 0 are
            fresh ones, 1 the same for ever, which leave ``sd/(step beta) = sd/(a R'(0))``.

    Raises:
        InvalidInput: numbers out of range.

    >>> [round(float(error_spread(0.3, 1.0, 0.5, k)), 3) for k in (0.0, 1.0)]
    [0.346, 0.6]
    """
    problems = [*arguments.number("beta", beta), *arguments.number("step", step)]
    if not problems and step >= 2:
        problems.append(f"step={step!r}; needed is less than 2, where rounds settle")
    if not (laws.is_real(correlation) and -1 < correlation <= 1):
        problems.append(f"correlation={correlation!r}; needed is a number in (-1, 1]")
    size, problem = _numbers(sd, "sd")
    refuse([*problems, problem])
    g = 1.0 - step
    less = (1.0 - correlation) + correlation * step, step * (2.0 - step)  # 1 - gk and 1 - g^2
    kept = (1.0 + g * correlation) / (less[0] * less[1])
    return np.asarray(size / beta * np.sqrt(kept))


def _sizes(
    problems: list[str], first_kl: Any, sizes: Any, name: str
) -> tuple[FloatArray, FloatArray]:
    """Start (...) and sizes (rounds, ...), broadcast against each other, or a refusal."""
    start, problem = _numbers(first_kl, "first_kl")
    given, other = _numbers(sizes, name)
    if not other and given.ndim == 0:
        other = f"{name}={sizes!r}; needed is one a round, (rounds, ...)"
    refuse([*problems, problem, other])
    try:
        shape = np.broadcast_shapes(start.shape, given.shape[1:])
    except ValueError:
        raise InvalidInput(
            f"first_kl {start.shape} and {name} {given.shape} do not fit; needed are (...) and "
            "(rounds, ...)"
        ) from None
    given = given.reshape(len(given), *(1,) * (len(shape) + 1 - given.ndim), *given.shape[1:])
    return np.broadcast_to(start, shape), np.broadcast_to(given, (len(given), *shape))


def _numbers(value: Any, name: str) -> tuple[FloatArray, str]:
    """Numbers >= 0 as an array, and what is wrong with them."""
    try:
        array = laws.as_numbers(value)
    except (TypeError, ValueError) as error:
        return np.zeros(()), f"{name}: not an array of numbers ({error})"
    if not (np.all(np.isfinite(array)) and np.all(array >= 0)):
        return array, f"{name}={value!r}; needed are finite numbers >= 0"
    return array, ""
