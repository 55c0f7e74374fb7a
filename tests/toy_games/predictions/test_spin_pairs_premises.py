"""T18 e: what SPIN's noise and length from n pairs rest on."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import expit

from theory import laws
from theory.result import FloatArray
from toy_games.dynamics import pair_classification as classes
from toy_games.dynamics.pair_regression import pairs
from toy_games.predictions import logistic_player as player

PHI, PSI = np.array([1.0, -1.0, 1.0, -1.0]), np.array([1.0, 1.0, -1.0, -1.0])
TRUE = 0.02


def lengthening(bend: float) -> tuple[float, float]:
    """``n`` times the mean of slope - 1 from n pairs, of rewards ``theta phi + theta^2 bend psi``.

    Four responses, the link in the class and near 0: half the second differences of the slope in
    the weight of every pair. Beside it that of a linear reward of the same gradient.
    """
    u, q = TRUE * PHI + TRUE**2 * bend * PSI, np.full(4, 0.25)
    p = q * np.exp(u) / (q * np.exp(u)).sum()
    first, second, link = ((f[:, None] - f).ravel() for f in (PHI, bend * PSI, u))
    weight = np.outer(p, q).ravel()

    def slope(at: FloatArray) -> float:
        def force(theta: float) -> float:
            d = theta * first + theta**2 * second
            return float(at @ (expit(-d) * (first + 2.0 * theta * second)))

        theta = brentq(force, TRUE - 0.03, TRUE + 0.03, xtol=1e-15)
        d = theta * first + theta**2 * second
        return float((weight * d) @ link / (weight @ link**2))

    small, shift = 1e-3, 0.0
    for s, own in enumerate(weight):
        one = small * (np.eye(len(weight))[s] - weight)
        change = slope(weight + one) + slope(weight - one) - 2.0 * slope(weight)
        shift += 0.5 * own * change / small**2
    features = (PHI + 2.0 * TRUE * bend * PSI)[None, :, None]
    linear = player.with_ridge(pairs(features, p[None], q[None]), link, 0.0, 1e6)
    exact = player.with_ridge(pairs(features, p[None], q[None]), link, 0.0)
    return shift, float(1e6 * (linear.slope - exact.slope))


@pytest.mark.claim("T18.spin_pairs", regime="tabular", drops="linear_rewards")
def test_a_reward_that_bends_is_shortened_by_few_pairs(claim) -> None:
    """One parameter near the expert: 2/n longer if linear, 6/n shorter if its square counts."""
    straight, foretold = lengthening(0.0)
    claim.close(straight, foretold, 0.0, 1e-3, "n times the lengthening, linear", "expansion")
    bent, foretold = lengthening(2.0)
    claim.close(foretold, 2.0, 0.05, what="n times that of a linear reward", because="expansion")
    claim.exhibits(-bent, 5.5, what="n times the shortening of the one that bends")


@pytest.mark.claim("T18.spin_pairs", regime="dynamics", drops="few_features")
def test_with_many_features_noise_and_length_are_beyond_their_first_order(claim) -> None:
    """A table of 12 responses with a weak ridge: at 60,000 pairs the noise is as foretold."""
    rng = np.random.default_rng(3)
    p, q = (laws.random_law(rng, (3, 4)) for _ in range(2))
    found, link = pairs(np.eye(12).reshape(3, 4, 12), p, q), classes.margins(p, q)
    ridge, noise, length = 1e-5, [], []
    exact = player.with_ridge(found, link, ridge)
    for count in (60, 60_000):
        few = player.with_ridge(found, link, ridge, count)
        drawn = classes.learned(found, link, np.random.default_rng(1), count, 300, ridge=ridge)
        length.append((drawn.slope.mean() - exact.slope) / (few.slope - exact.slope))
        square = np.mean((drawn.slope / drawn.correlation) ** 2) - drawn.slope.mean() ** 2
        noise.append(square / ((few.slope / few.correlation) ** 2 - few.slope**2))
    claim.close(noise[1], 1.0, 0.1, what="noise over that foretold, many pairs", because="sampling")
    claim.exhibits(noise[0], 2.5, what="noise over that foretold, few pairs")
    claim.exhibits(length[0], 1.5, what="lengthening over that foretold, few pairs")
