"""What a reward that is learned from few pairs says of other responses (T18).

Rewards linear in features, ``r = theta . phi``, from 0, on pairs of an expert's and an own
response with the squared loss ``(d - m)^2/2``, ``d = theta . z``, ``z = phi(y) - phi(y')``:
regression of the constant m on z. With ``H = E zz'``, its eigenvalues ``l_i``, and products
``<r, r'> = E dd'`` over fresh pairs, a learned reward's slope on the best response R and its
correlation with it are

    slope = sum w_i g_i,        correlation = slope / sqrt(sum w_i g_i^2 + noise),

``w_i`` the shares of ``|R|^2`` in the eigenfunctions, ``g_i`` what training lets through of each.
All reconstruction. Which features there are is the caller's: eigenvalues and shares of a kernel
are as good as features (`many_features`).

Example:
    >>> game = pairs(np.eye(2)[None], np.array([[0.7, 0.3]]), np.array([[0.4, 0.6]]))
    >>> float(after(game, np.inf).slope)  # exact laws, trained to the end
    1.0
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq

from theory.arguments import number
from theory.errors import refuse
from theory.result import FloatArray
from toy_games.dynamics.pair_regression import (
    Generalisation,
    Pairs,
    let_through,
    signal_of_pairs,
)


def after(game: Pairs, time: ArrayLike, count: ArrayLike = np.inf) -> Generalisation:
    """Slope and correlation (...) after gradient flow for a time (...) on so many pairs (...).

    Of leading order in 1/count at fixed features; exact for ``count = inf``.
    """
    time, count = np.broadcast_arrays(np.asarray(time, float), np.asarray(count, float))
    g = let_through(game.values, time)
    noise = np.array([deviation(game, t) for t in time.ravel()]).reshape(time.shape)
    return _generalisation(game.shares, g, noise / count / game.signal)


def deviation(game: Pairs, time: float) -> float:
    """Mean square ``E d^2``, at m = 1 and times n, by which n pairs move the learned reward.

    The variance of a pair's influence, the integral of ``e^{-H (t-s)} z (1 - z . theta(s))``.
    """
    values, best = game.values, game.best
    if np.isinf(time):
        influence = game.z * (1.0 - game.z @ best)[:, None] / values
    else:
        g = let_through(values, time)
        influence = game.z * (g / values - (game.z * best) @ _memory(values, time).T)
    centred = influence - game.weight @ influence
    return float(game.weight @ centred**2 @ values)


def _memory(values: FloatArray, time: float) -> FloatArray:
    """Integrals (P, P) of ``e^{-l_i (t-s)} (1 - e^{-l_j s})`` over s in [0, t]."""
    i, j = values[:, None], values[None]
    apart = np.where(np.isclose(i, j, rtol=1e-9), 1.0, i - j)
    between = (np.exp(-j * time) - np.exp(-i * time)) / apart
    between = np.where(np.isclose(i, j, rtol=1e-9), time * np.exp(-i * time), between)
    return let_through(values, time)[:, None] / i - between


def many_features(
    values: FloatArray, shares: FloatArray, signal: float, count: float, ridge: float
) -> Generalisation:
    """Slope and correlation of a ridge on so many pairs, however many features there are (T18 d).

    The deterministic equivalent: ``kappa = ridge + kappa/n sum l/(l + kappa)``, error
    ``(sum w (kappa/(l+kappa))^2 |R|^2 + gamma sigma^2)/(1 - gamma)`` with
    ``gamma = sum (l/(l + kappa))^2/n``, ``sigma^2 = 1 - |R|^2`` and what of R is not in the class.

    Args:
        values, shares: spectrum (P,) of H and the shares ``w`` in it; signal: ``|R|^2`` at m = 1.
        count: pairs n; ridge: of ``mean (d - 1)^2/2 + ridge |theta|^2/2``.
    """
    refuse(number("count", count) + number("ridge", ridge))

    def excess(log_kappa: float) -> float:
        kappa = np.exp(log_kappa)
        return float(1.0 - ridge / kappa - (values / (values + kappa)).sum() / count)

    top = np.log(ridge + values.sum() / count)  # sum l/(l + kappa) <= sum l/kappa
    kappa = np.exp(brentq(excess, np.log(ridge), top + 1e-9, xtol=1e-13))
    g = values / (values + kappa)
    gamma = float((g**2).sum() / count)
    inside = float(shares.sum())
    sigma2 = 1.0 - signal * inside
    error = (signal * (shares @ (1.0 - g) ** 2) + gamma * sigma2) / (1.0 - gamma)
    slope = float(shares @ g)
    square = error / signal + 2.0 * slope - inside
    return Generalisation(np.asarray(slope), np.asarray(slope / np.sqrt(square)))


def of_margins(d: FloatArray, delta: ArrayLike, margin: float = 1.0) -> Generalisation:
    """Slope and correlation (...) of any reward with IPO's link, from held-out margins alone.

    Args:
        d: margins ``r(y) - r(y')`` (..., S) of fresh independent pairs of one prompt's law.
        delta: triangular discrimination (...) of its laws; margin: m.
    """
    signal = signal_of_pairs(delta)
    mean, square = d.mean(-1), (d**2).mean(-1)
    return Generalisation(mean / (margin * signal), mean / np.sqrt(square * signal))


def in_mixture(found: Generalisation, delta: ArrayLike) -> Generalisation:
    """The same with IPO's link under the mixture of both laws, each reward centred: (...).

    ``<r, r'>`` is twice the mixture's product and ``E d E d'/2``; slopes are the same. Exact for
    one prompt, and for several of one Delta.
    """
    delta = np.asarray(delta, dtype=np.float64)
    signal = signal_of_pairs(delta)
    mean = found.slope * signal
    square = (found.slope / found.correlation) ** 2 * signal - 0.5 * mean**2
    link = signal / (1.0 + 0.5 * delta)
    return Generalisation(found.slope, found.slope * np.sqrt(link / square))


def least_noise(slope: ArrayLike, correlation: ArrayLike) -> FloatArray:
    """Share (...) of a learned reward's square that no shrinkage of the link explains, at least.

    ``max(0, 1 - correlation^2/slope)``: shrinkage alone has ``correlation^2 >= slope``, in the
    norm of the loss (pairs for IPO, the mixture for pointwise SPIF).
    """
    return np.maximum(0.0, 1.0 - np.asarray(correlation) ** 2 / np.asarray(slope))


def _generalisation(shares: FloatArray, g: FloatArray, noise: FloatArray) -> Generalisation:
    slope, square = g @ shares, g**2 @ shares
    return Generalisation(slope, slope / np.sqrt(square + noise))
