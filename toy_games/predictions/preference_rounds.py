"""What theory predicts of preference self-play from samples (reconstruction; T4, T11, T12)."""

from __future__ import annotations

import numpy as np
from scipy.linalg import solve_discrete_lyapunov

from theory import objectives, preferences, xp
from theory.errors import Unavailable
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round


def plug_in_bias(samples: float, self_comparison: bool) -> float:
    """Bias of the estimate of ``P(y > pi)`` from a group of K own responses, in units of 1/2 - P.

    With self-comparison the estimate is ``((K-1) mean + 1/2)/K``, hence 1/K; without it, 0.
    """
    return 1.0 / samples if self_comparison else 0.0


def plug_in_variance(samples: float, self_comparison: bool) -> float:
    """Variance of the same estimate in units of P (1 - P): K - 1 independent comparisons."""
    return (samples - 1) / samples**2 if self_comparison else 1.0 / (samples - 1)


def effective_scale(scale: float, samples: float, self_comparison: bool) -> float:
    """The payoff scale that sampled rounds have in expectation: ``g (K-1)/K`` or ``g``.

    With an anchor another scale is another equilibrium.
    """
    return scale * (samples - 1) / samples if self_comparison else scale


def local_map(
    preference: FloatArray, law: FloatArray, beta: float, tau: float, scale: float
) -> FloatArray:
    """Linearisation (n, n) of a round in ``x = pi/z - 1`` at its fixed point z (T12 d)."""
    n = len(law)
    centre = np.eye(n) - np.outer(np.ones(n), law)
    payoff = scale * (2.0 * preference - 1.0) * law
    return np.asarray(centre @ (beta * np.eye(n) + payoff) @ centre / (beta + tau))


def noise_floor(
    preference: FloatArray,
    law: FloatArray,
    beta: float,
    tau: float,
    scale: float,
    samples: float,
) -> float:
    """Stationary mean of ``KL(z||pi_t)`` to leading order in 1/K, nats; +inf if unstable.

    The round is linear near its equilibrium z, and the estimate from K comparisons a response adds
    independent noise of variance ``4 g^2 P (1 - P)/K`` to its reward: the covariance of x solves a
    discrete Lyapunov equation, and ``KL = E_z[x^2]/2``.
    """
    linear = local_map(preference, law, beta, tau, scale)
    if np.abs(np.linalg.eigvals(linear)).max() >= 1.0:
        return float("inf")
    win = preference @ law
    variance = 4.0 * scale**2 * win * (1.0 - win) / samples
    centre = np.eye(len(law)) - np.outer(np.ones(len(law)), law)
    noise = centre * variance @ centre.T / (beta + tau) ** 2
    return float(0.5 * law @ np.diag(solve_discrete_lyapunov(linear, noise)))


def round_noise(
    preference: FloatArray, law: FloatArray, beta: float, scale: float, samples: float
) -> FloatArray:
    """Mean TV (...) of a round from K comparisons a response to the exact round, tau = 0.

    To leading order in 1/K: the new policy's relative errors ``x`` are independent normal ones
    less their mean, and ``TV = sum pi' E|x|/2``.
    """
    win = preferences.win_rate(preference, law)
    log_new = np.log(law) + scale * (2.0 * win - 1.0) / beta
    new = np.exp(xp.log_normalise(log_new))
    variance = 4.0 * (scale / beta) ** 2 * win * (1.0 - win) / samples
    mixed = variance * (1.0 - 2.0 * new) + (new**2 * variance).sum(-1, keepdims=True)
    return np.asarray((0.5 * new * np.sqrt(2.0 / np.pi * mixed)).sum(-1))


def one_loss_round(
    preference: FloatArray, law: FloatArray, obj: Objective, beta: float
) -> FloatArray:
    """The policy (..., n) at which gradient steps on one loss come to rest, at tau = 0.

    SPPO's loss, and SPIF's on winners and losers, which has the same gradient, miss the round by
    the partition gap (T4); pairwise and group losses do not, being invariant to a shift (T3).
    """
    if obj.up_to_constant:
        return np.asarray(preferences.self_play(preference, law, obj, beta, 1).policy)
    if not np.isclose(preferences.payoff_scale(obj), 0.5, rtol=1e-12):
        raise Unavailable(f"{obj.label}: known is the one-loss round of payoff scale 1/2, SPPO's")
    win = preferences.win_rate(preference, law)
    return one_step_round(law, law, objectives.get("sppo"), beta, preference=win).policy
