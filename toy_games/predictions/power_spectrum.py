"""Slope and correlation of a trained model's reward from three numbers (T18 d).

The spectrum of a model's features is taken for a power law: eigenvalues ``i^-decay``, shares of
the link ``w_i`` in proportion to ``i^-falling``, and a training time of ``speed`` times the sum of
its learning rates, that acts like a ridge ``1/time``. Slopes and correlations are in the norm of
the mixture of expert and opponent, as `llm_scale` records them. Reconstruction.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

from theory.result import FloatArray
from toy_games.dynamics.pair_regression import Generalisation, signal_of_pairs
from toy_games.predictions import logistic_player
from toy_games.predictions.reward_player import in_mixture, many_features

MODES = 20_000


class Round(NamedTuple):
    """A trained round: its pairs, the sum of its learning rates, and Delta of its laws."""

    pairs: float
    rates: float
    delta: float


class PowerSpectrum(NamedTuple):
    """The three numbers (see the module's head); ``speed`` > 0 by its logarithm."""

    decay: float
    falling: float
    log_speed: float

    def ipo(self, made: Round) -> Generalisation:
        """Of the squared pair loss, n pairs: `signal_of_pairs`, in the pairs' norm."""
        signal = float(signal_of_pairs(made.delta))
        return in_mixture(self._learned(made, signal, 1.0), made.delta)

    def spif(self, made: Round) -> Generalisation:
        """Of the pointwise squared loss: 2n responses of the mixture, signal ``Delta/2``."""
        return self._learned(made, 0.5 * made.delta, 2.0)

    def spin(self, made: Round, width: int = MODES) -> Generalisation:
        """Of SPIN's loss, n pairs, and so many of the features: on its own link u.

        The shares of u are taken for IPO's, its margins for `binormal`. At IPO's effective step
        SPIN's rewards are twice as long, so its ridge is a quarter. The mixture's norm is IPO's at
        the Delta whose signal is the share of u's square that is ``E d_u``.
        """
        values, shares, ridge = self._features(made)
        link, weight = logistic_player.binormal(made.delta)
        found = logistic_player.many_features(
            values[:width], shares[:width], link, weight, made.pairs, 0.25 * ridge
        )
        signal = (weight @ link) ** 2 / (weight @ link**2)
        return in_mixture(found, 2.0 * signal / (2.0 - signal))

    def _learned(self, made: Round, signal: float, each: float) -> Generalisation:
        values, shares, ridge = self._features(made)
        return many_features(values / each, shares, signal, each * made.pairs, ridge / each)

    def _features(self, made: Round) -> tuple[FloatArray, FloatArray, float]:
        """Eigenvalues and shares, and the ridge that a round's training is like."""
        i = np.arange(1.0, MODES + 1.0)
        shares = i**-self.falling
        ridge = float(np.exp(-self.log_speed)) / made.rates
        return i**-self.decay, shares / shares.sum(), ridge


def fitted(rounds: list[Round], measured: list[Generalisation]) -> PowerSpectrum:
    """Least squares to measured slopes and correlations of IPO's rounds; at least two of them."""

    def errors(x: np.ndarray) -> np.ndarray:
        spectrum = PowerSpectrum(*x)
        return np.ravel([np.subtract(spectrum.ipo(r), m) for r, m in zip(rounds, measured,
                                                                        strict=True)])  # fmt: skip

    starts = ([1.0, 1.5, 5.0], [1.5, 1.2, 8.0], [0.7, 2.0, 4.0])
    found = [least_squares(errors, x, bounds=([0.3, 0.3, -5.0], [4.0, 4.0, 15.0])) for x in starts]
    return PowerSpectrum(*map(float, min(found, key=lambda f: f.cost).x))
