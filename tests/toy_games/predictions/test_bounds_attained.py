"""Bounds of sampled rounds, worked by hand and where they are almost attained."""

import numpy as np
import pytest

from theory import objectives
from toy_games.predictions.stability import slowest_rate, tail_mass

SPIN, SPIF, GAIL, IPO = (objectives.get(name) for name in ("spin", "spif", "gail", "ipo"))


def test_the_slowest_rate_by_hand():
    """30 of 300 samples against none: a log-ratio log 61, of which SPIN takes the share s."""
    assert slowest_rate(SPIN, 0.5, 300, 0.1) == pytest.approx(0.5 * np.log(61.0))
    assert slowest_rate(SPIF, 0.5, 300, 0.1) == pytest.approx(0.5 * 2.0 * 60.0 / 62.0)
    assert slowest_rate(IPO, 0.5, 300, 0.1) == pytest.approx(0.5 * 60.0 / 62.0)  # gain halved
    gail = slowest_rate(GAIL, 0.5, 300, 0.1)  # R = log(1 + e^u), of slope 1/2 and log 2 at 0
    assert gail == pytest.approx(0.5 * 2.0 * (np.log(62.0) - np.log(2.0)))


def test_the_tail_of_a_response_never_given_by_hand():
    """Own once, expert never: log-ratio -log 3 with half a count more; SPIF takes 2 s tanh."""
    for smoothing, kept in ((0.5, np.exp(-0.25)), (1.0, np.exp(-0.25 * 2.0 / 3.0))):
        found = tail_mass(SPIF, 0.25, 1000, [50, 150], smoothing)
        np.testing.assert_allclose(found, 1.0 / ((1.0 - kept) * 1000 * np.array([50, 150])))
    assert tail_mass(IPO, 0.25, 10, 1) == pytest.approx(1.0 / ((1.0 - np.exp(-0.25)) * 10))
    assert tail_mass(GAIL, 0.25, 10, 1) == pytest.approx(1.0 / ((1.0 - (4 / 9) ** 0.25) * 10))
    assert tail_mass(SPIN, 0.25, 10, 1) == pytest.approx(1.0 / ((1.0 - 3.0**-0.25) * 10))


@pytest.mark.claim("T6.tail", regime="dynamics")
def test_the_tail_is_attained_by_small_steps(claim):
    """Small steps leave no spread between runs: the mean falls as its bound says, to 1 %."""
    rng = np.random.default_rng(5)
    step, samples, rounds = 0.01, 100, 20000
    mass = np.full(2000, 0.01)
    for _ in range(rounds):
        own = rng.binomial(samples, mass)
        mass = mass * np.exp(-2.0 * step * own / (own + 1.0))  # 2 s tanh(log(1/(1 + 2 own))/2)
    bound = float(tail_mass(SPIF, step, samples, rounds))
    claim.below(mass.mean(), bound, what="mean mass against 1/((1-g) n t)")
    claim.exhibits(mass.mean() / bound, 0.99, what="mean mass over that bound")
