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

from toy_games.dynamics.pair_regression import Generalisation, signal_of_pairs
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

    def _learned(self, made: Round, signal: float, each: float) -> Generalisation:
        i = np.arange(1.0, MODES + 1.0)
        shares = i**-self.falling
        ridge = np.exp(-self.log_speed) / made.rates
        return many_features(
            i**-self.decay / each, shares / shares.sum(), signal, each * made.pairs, ridge / each
        )


def fitted(rounds: list[Round], measured: list[Generalisation]) -> PowerSpectrum:
    """Least squares to measured slopes and correlations of IPO's rounds; at least two of them."""

    def errors(x: np.ndarray) -> np.ndarray:
        spectrum = PowerSpectrum(*x)
        return np.ravel([np.subtract(spectrum.ipo(r), m) for r, m in zip(rounds, measured,
                                                                        strict=True)])  # fmt: skip

    starts = ([1.0, 1.5, 5.0], [1.5, 1.2, 8.0], [0.7, 2.0, 4.0])
    found = [least_squares(errors, x, bounds=([0.3, 0.3, -5.0], [4.0, 4.0, 15.0])) for x in starts]
    return PowerSpectrum(*map(float, min(found, key=lambda f: f.cost).x))
