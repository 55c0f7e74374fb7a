"""What a reward learned by SPIN's loss says of other responses (T18 e).

The loss is ``log(1 + e^-d)``, the best response ``u = log p/q``; slopes and correlations are on it,
over fresh pairs, ``link`` its margins. Of leading order in 1/n around the reward of exact laws,
which is computed, and for many features by the fixed point of three numbers that is known for
Gaussian features. A time t is near to a ridge 1/t.

While margins are small all of it is the squared loss's (`reward_player`): the reward is twice
that of a quarter of the time, or of four times the ridge (`near_start`).

Example:
    >>> p, q = np.array([[0.7, 0.3]]), np.array([[0.4, 0.6]])
    >>> game = pairs(np.eye(2)[None], p, q)
    >>> float(with_ridge(game, margins(p, q), 0.0).slope)  # exact laws, trained to the end
    1.0
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import brentq, root
from scipy.special import expit

from theory.arguments import number
from theory.errors import NotConverged, refuse
from theory.result import FloatArray
from toy_games.dynamics.pair_classification import (
    against,
    curvature,
    flow,
    follow,
    minimum,
    pull,
)
from toy_games.dynamics.pair_regression import Generalisation, Pairs, let_through

NODES = 24
"""Of the noise of a margin."""
WIDTH = 0.02
"""Of what counts as one value of ``d_u``, in units of ``|u|``."""
BEFORE = 20
"""Plain rounds of the fixed point, from which a root is sought."""


def shares(game: Pairs, link: FloatArray) -> FloatArray:
    """Of ``|u|^2`` in every eigenfunction of H (P,); their sum is 1 iff u is in the class."""
    along = (game.weight * link) @ game.z
    return np.asarray(along**2 / game.values / (game.weight @ link**2))


def near_start(game: Pairs, link: FloatArray, time: ArrayLike) -> Generalisation:
    """Slope and correlation (...) of exact laws while margins are small: see the module's head."""
    return against(game, link, 2.0 * let_through(game.values, np.asarray(time) / 4.0) * game.best)


def after(
    game: Pairs, link: FloatArray, times: FloatArray, count: float = np.inf
) -> Generalisation:
    """Slope and correlation (T,) after gradient flow for rising times (T,) on so many pairs.

    The slope is that of exact laws; the correlation has the noise of leading order in 1/count, by
    the influence of single pairs, ``x_s' = -F(t) x_s + sigma(-d_s) z_s - E sigma(-d) z``.
    """
    z, weight = game.z, game.weight
    if np.isinf(count):
        return against(game, link, flow(z, weight, times))

    def force(state: FloatArray) -> FloatArray:
        theta, moved = state[0], state[1:]
        mean = pull(z, weight, theta)
        own = z * expit(-z @ theta)[:, None] - mean
        return np.vstack([mean, own - moved @ curvature(z, weight, theta)])

    start = np.zeros((1 + len(z), z.shape[-1]))
    fastest = np.linalg.eigvalsh(curvature(z, weight, start[0])).max()
    states = follow(force, start, times, float(fastest))
    noise = np.einsum("s,tsp,p->t", weight, states[:, 1:] ** 2, game.values)
    return _with(game, link, states[:, 0], noise / count)


def with_ridge(
    game: Pairs, link: FloatArray, ridge: float, count: float = np.inf
) -> Generalisation:
    """Slope and correlation at the minimum with a ridge, to first order in 1/count both.

    Exact laws solve ``E sigma(-d) z = ridge theta``. Pairs move it by noise and, other than the
    squared loss's, by a mean (Cox and Snell): near the expert they *lengthen* the reward.
    """
    z, weight = game.z, game.weight
    theta = minimum(z, weight, ridge)
    inverse = np.linalg.inv(curvature(z, weight, theta) + ridge * np.eye(len(theta)))
    d = z @ theta
    moved = (z * expit(-d)[:, None] - ridge * theta) @ inverse  # by a pair, times n; its mean is 0
    second = expit(d) * expit(-d)  # of the loss; the third derivative is second (1 - 2 sigma(d))
    spread = (moved.T * weight) @ moved
    third = second * (1.0 - 2.0 * expit(d)) * ((z @ spread) * z).sum(1)
    mean = (weight * (-second * (z * moved).sum(1) - 0.5 * third)) @ z
    noise = np.diag(spread) @ game.values
    return _with(game, link, theta + inverse @ mean / count, noise / count)


def _with(game: Pairs, link: FloatArray, theta: FloatArray, noise: ArrayLike) -> Generalisation:
    """Of mean parameters (..., P) and a mean square (...) of margins that is noise."""
    bare = against(game, link, theta)
    square = (bare.slope / bare.correlation) ** 2 + np.asarray(noise) / (game.weight @ link**2)
    return Generalisation(bare.slope, bare.slope / np.sqrt(square))


def many_features(
    values: FloatArray,
    of_link: FloatArray,
    link: FloatArray,
    weight: FloatArray,
    count: float,
    ridge: float,
) -> Generalisation:
    """Slope and correlation of a ridge on so many pairs, however many features there are (T18 e).

    A margin is ``m d_u/|u|^2`` and Gaussian noise; ``m = <r, u>``, ``q = |r|^2`` and V, by which
    a pair's own pull moves its margin, solve the fixed point of Loureiro et al., in which ``d_u``
    has the law that is given here, not a Gaussian one.

    Args:
        values, of_link: spectrum (P,) of H and `shares` of ``|u|^2`` in it.
        link, weight: values (S,) of ``d_u`` and their probabilities.
        count: pairs n; ridge: of ``mean log(1 + e^-d) + ridge |theta|^2/2``.
    """
    refuse(number("count", count) + number("ridge", ridge))
    x, gauss = np.polynomial.hermite_e.hermegauss(NODES)
    link, weight = _few(link, weight)
    joint = weight[:, None] * gauss / gauss.sum()
    signal = float(weight @ link**2)

    def again(state: FloatArray) -> FloatArray:
        m, q, own = np.exp(state)
        noise = np.sqrt(max(q - m**2 / signal, 0.0))
        force = expit(-_settled(m / signal * link[:, None] + noise * x, own))
        bend = force * (1.0 - force)
        stiff = count * float((joint * bend / (1.0 + own * bend)).sum())
        square = count * float((joint * force**2).sum())
        along = (count * float((joint * force * link[:, None]).sum()) + stiff * m) / signal
        through = values / (count * ridge + stiff * values)
        m = along * signal * (of_link @ through)
        q = square * (through**2).sum() + along**2 * signal * (of_link @ through**2)
        return np.log([m, q, through.sum()])

    state = np.log([0.1 * signal, 0.2 * signal, 1.0])
    for _ in range(BEFORE):
        state = again(state)
    found = root(lambda s: again(s) - s, state, tol=1e-10)
    if np.abs(found.fun).max() > 1e-6:
        raise NotConverged(f"no fixed point: {found.message}", found.x)
    m, q, _ = np.exp(found.x)
    return Generalisation(np.asarray(m / signal), np.asarray(m / np.sqrt(q * signal)))


def _few(link: FloatArray, weight: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Values and probabilities (fewer,) of bins of `WIDTH`, each at its mean."""
    bins = np.round(link / (WIDTH * np.sqrt(weight @ link**2))).astype(int)
    bins -= bins.min()
    mass, sums = np.bincount(bins, weight), np.bincount(bins, weight * link)
    kept = mass > 0
    return np.asarray(sums[kept] / mass[kept]), np.asarray(mass[kept], dtype=np.float64)


def _settled(before: FloatArray, own: float) -> FloatArray:
    """Margins d with ``d = before + own sigma(-d)``.

    Newton's steps from 0 all go one way, as the excess bends down above 0 and up below it.
    """
    d = np.zeros_like(before)
    for _ in range(100):
        s = expit(-d)
        step = (before + own * s - d) / (1.0 + own * s * (1.0 - s))
        d = d + step
        if np.abs(step).max() < 1e-11:
            break
    return d


def binormal(delta: float) -> tuple[FloatArray, FloatArray]:
    """``d_u`` (S,) and probabilities of many responses with normal logits, of this Delta.

    u is normal, ``N(v/2, v)`` under p and ``N(-v/2, v)`` under q, so d_u is ``N(v, 2v)``.
    """
    x, gauss = np.polynomial.hermite_e.hermegauss(4 * NODES)
    gauss = gauss / gauss.sum()

    def excess(v: float) -> float:
        u = 0.5 * v + np.sqrt(v) * x
        return float(gauss @ (-np.expm1(-u) * np.tanh(0.5 * u))) - delta

    v = brentq(excess, 1e-9, 60.0, xtol=1e-12)
    return v + np.sqrt(2.0 * v) * x, gauss
