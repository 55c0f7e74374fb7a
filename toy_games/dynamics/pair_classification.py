"""Rewards learned by SPIN's loss on pairs of an expert's and an own response (T18 e).

As `pair_regression`, with ``log(1 + e^-d)`` for ``(d - 1)^2/2``: a logistic regression, whose best
response is ``u = log p/q``. Its flow and its minimum have no closed form: both are computed, for
many draws at once.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import expit

from theory.arguments import number
from theory.errors import NotConverged, refuse
from theory.result import FloatArray
from toy_games.dynamics.pair_regression import Generalisation, Pairs

STEP = 0.25
"""Of Runge and Kutta, in units of the shortest time constant."""
MOST = 200


def margins(p: FloatArray, q: FloatArray) -> FloatArray:
    """``d_u = u(y) - u(y')`` (S,) of the pairs of laws (X, N), in the order of `Pairs.z`."""
    u = np.log(p) - np.log(q)
    return np.asarray((u[:, :, None] - u[:, None]).ravel())


def margin(z: FloatArray, theta: FloatArray) -> FloatArray:
    """``d`` (..., S) of parameters (..., P) on pairs (..., S, P), or on the same pairs (S, P)."""
    return theta @ z.T if z.ndim == 2 else np.asarray((z @ theta[..., None])[..., 0])


def pull(z: FloatArray, weight: FloatArray, theta: FloatArray) -> FloatArray:
    """``E sigma(-d) z`` (..., P), minus the loss's gradient; weights (..., S) of the pairs."""
    force = weight * expit(-margin(z, theta))
    return force @ z if z.ndim == 2 else np.asarray((force[..., None, :] @ z)[..., 0, :])


def curvature(z: FloatArray, weight: FloatArray, theta: FloatArray) -> FloatArray:
    """Fisher's matrix ``E sigma(d) sigma(-d) zz'`` (..., P, P), the loss's second derivative."""
    d = margin(z, theta)
    scaled = z * (weight * expit(d) * expit(-d))[..., None]
    return np.asarray(np.swapaxes(scaled, -1, -2) @ z)


def minimum(z: FloatArray, weight: FloatArray, ridge: float) -> FloatArray:
    """Parameters (..., P) of least ``E log(1 + e^-d) + ridge |theta|^2/2``, by Newton's steps.

    A step's length ``log(1 + x)/x``, x its largest change of a margin, makes the loss fall from
    everywhere (Sun and Tran-Dinh, generalised self-concordance).

    Raises:
        NotConverged: there is none, as of pairs that a reward tells apart, at ridge 0.
    """
    refuse(number("ridge", ridge, least=0.0))
    theta = np.zeros((*weight.shape[:-1], z.shape[-1]))
    for _ in range(MOST):
        second = curvature(z, weight, theta) + ridge * np.eye(z.shape[-1])
        force = pull(z, weight, theta) - ridge * theta
        try:
            step = np.linalg.solve(second, force[..., None])
        except np.linalg.LinAlgError:
            break
        most = np.abs(z @ step).max((-2, -1))
        length = np.log1p(most) / np.maximum(most, 1e-300)
        theta = theta + np.where(most > 0, length, 1.0)[..., None] * step[..., 0]
        if most.max() < 1e-9:
            return theta
    raise NotConverged("no minimum by Newton's steps; needed is a ridge, or more pairs")


def follow(
    force: Callable[[FloatArray], FloatArray], start: FloatArray, times: FloatArray, fastest: float
) -> FloatArray:
    """States (T, ...) of ``x' = force(x)`` at rising times (T,); ``fastest`` is its largest rate.

    Runge's and Kutta's steps of `STEP` over that rate.
    """
    x, before, out = start, 0.0, []
    for time in times:
        steps = int(np.ceil((time - before) * fastest / STEP))
        for _ in range(steps):
            h = (time - before) / steps
            a = force(x)
            b = force(x + 0.5 * h * a)
            c = force(x + 0.5 * h * b)
            x = x + h / 6.0 * (a + 2.0 * b + 2.0 * c + force(x + h * c))
        before = time
        out.append(x)
    return np.array(out)


def flow(z: FloatArray, weight: FloatArray, times: FloatArray) -> FloatArray:
    """Parameters (T, ..., P) of gradient flow from 0 at rising times (T,)."""
    start = np.zeros((*weight.shape[:-1], z.shape[-1]))
    fastest = np.linalg.eigvalsh(curvature(z, weight, start)).max()  # a margin lowers it
    return follow(lambda theta: pull(z, weight, theta), start, times, float(fastest))


def against(game: Pairs, link: FloatArray, theta: FloatArray) -> Generalisation:
    """Slope and correlation (...) of rewards (..., P) on a link of margins (S,), over all pairs."""
    d, signal = theta @ game.z.T, game.weight @ link**2
    slope = d @ (game.weight * link) / signal
    return Generalisation(slope, slope * np.sqrt(signal / (d**2 @ game.weight)))


def learned(
    game: Pairs,
    link: FloatArray,
    rng: np.random.Generator,
    count: int,
    runs: int,
    times: FloatArray | None = None,
    ridge: float = 0.0,
) -> Generalisation:
    """Slope and correlation of rewards that each learn from so many drawn pairs.

    By gradient flow (T, runs) for times (T,), or by the minimum (runs,) with a ridge.
    """
    if count < len(game.weight):
        z = game.z[rng.choice(len(game.weight), (runs, count), p=game.weight)]
        weight = np.full((runs, count), 1.0 / count)
    else:
        z, weight = game.z, rng.multinomial(count, game.weight, runs) / count
    theta = minimum(z, weight, ridge) if times is None else flow(z, weight, times)
    return against(game, link, theta)
