"""Rewards learned by regression on pairs of an expert's and an own response (T18).

Rewards linear in features, ``r = theta . phi``, from 0, with the loss ``(d - 1)^2/2`` of
``d = theta . z``, ``z = phi(y) - phi(y')``: exact moments by enumeration, and draws of pairs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theory import laws
from theory.errors import InvalidInput
from theory.result import FloatArray


class Generalisation(NamedTuple):
    """Of a learned reward against the best response: (...) each, without unit."""

    slope: FloatArray
    correlation: FloatArray


class Pairs(NamedTuple):
    """Every pair that a draw can give, in the eigenvectors of H that are not flat.

    Attributes:
        values: eigenvalues (P,) of H, rising.
        z: differences of features (S, P); weight: their probabilities (S,).
        best: parameters (P,) of least expected loss at m = 1.
        signal: ``|R|^2`` at m = 1, a number: the mean of `signal_of_pairs` over prompts.
    """

    values: FloatArray
    z: FloatArray
    weight: FloatArray
    best: FloatArray
    signal: float

    @property
    def shares(self) -> FloatArray:
        """``w`` (P,): of ``|R|^2`` in every eigenfunction; their sum is 1 iff R is in the class."""
        return self.values * self.best**2 / self.signal


def signal_of_pairs(delta: ArrayLike) -> FloatArray:
    """``|R|^2`` (...) of IPO's link at m = 1 over pairs of laws of triangular discrimination Delta.

    ``2 Delta/(2 + Delta)``.
    """
    delta = np.asarray(delta, dtype=np.float64)
    return np.asarray(2.0 * delta / (2.0 + delta))


def pairs(features: FloatArray, p: FloatArray, q: FloatArray) -> Pairs:
    """Enumerate the pairs of equally likely prompts.

    Args:
        features: (X, N, P).
        p, q: laws (X, N) of the expert's and of own responses.

    Raises:
        InvalidInput: shapes that do not fit, or no feature that tells two responses apart.
    """
    p, q = np.asarray(p, dtype=np.float64), np.asarray(q, dtype=np.float64)
    if features.ndim != 3 or p.shape != features.shape[:2] or q.shape != p.shape:
        raise InvalidInput(
            f"features {features.shape}, p {p.shape}, q {q.shape}; needed are (X, N, P), (X, N), "
            "(X, N)"
        )
    z = (features[:, :, None] - features[:, None]).reshape(-1, features.shape[-1])
    weight = (p[:, :, None] * q[:, None]).ravel() / len(p)
    values, vectors = np.linalg.eigh((z * weight[:, None]).T @ z)
    kept = values > 1e-10 * max(values.max(), 1e-300)
    if not kept.any():
        raise InvalidInput("features: the same for all responses; needed is one that differs")
    values, z = values[kept], z @ vectors[:, kept]
    signal = float(np.mean(signal_of_pairs(laws.triangular(p, q))))
    return Pairs(values, z, weight, (weight @ z) / values, signal)


def let_through(values: FloatArray, time: ArrayLike) -> FloatArray:
    """``g = 1 - e^{-l t}`` (..., P) of gradient flow for times (...); infinity is the minimum.

    k steps of size s are ``1 - (1 - s l)^k``, near to ``t = k s``; a ridge ``l/(l + 1/t)``.
    """
    return -np.expm1(-np.asarray(time, dtype=np.float64)[..., None] * values)


def learned(
    game: Pairs,
    rng: np.random.Generator,
    count: int,
    runs: int,
    time: float = np.inf,
    ridge: float = 0.0,
) -> Generalisation:
    """Slope and correlation (runs,) of rewards that each learn from so many drawn pairs.

    By gradient flow for a time, or, if ``ridge > 0``, by the minimum with a ridge.
    """
    z = game.z[rng.choice(len(game.weight), (runs, count), p=game.weight)]
    h, b = np.swapaxes(z, 1, 2) @ z / count, z.mean(1)
    values, basis = np.linalg.eigh(h)
    if ridge > 0:
        through = 1.0 / (values + ridge)
    else:
        safe = np.where(values > 1e-9, values, 1.0)  # the others' share of b is 0
        through = np.where(values > 1e-9, let_through(safe, time) / safe, 0.0)
    theta = np.einsum("spi,si,sqi,sq->sp", basis, through, basis, b, optimize=True)
    d = theta @ game.z.T
    mean, square = d @ game.weight, d**2 @ game.weight
    return Generalisation(mean / game.signal, mean / np.sqrt(square * game.signal))
