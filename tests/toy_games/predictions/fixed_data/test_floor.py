"""T6, T16: the floor of rounds on one data set, by an exact chain of two outcomes and sampled."""

import numpy as np
import pytest
from scipy.special import expit, logit
from scipy.stats import binom, kstest

from tests.toy_games.predictions.fixed_data.sampled import EXPERT, play
from theory import objectives
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import fixed_data_floor, own_counts, own_noise

BENDS = {"spin": 0.0, "spif": 0.0, "ipo": 0.0, "iq_learn": -1.0, "gail": 0.5, "policy_only": 1.0}
"""R''(0)/R'(0) of links."""


def chain(name, step, counts, own=1, smoothing=0.5, points=801):
    """Stationary mean of KL(data||pi) and of pi: two outcomes, ``counts`` of each in the data.

    Nothing is drawn: the own samples' binomial law is summed over on a grid of log-odds, between
    whose points a policy is split. The grid reaches 9 standard deviations to each side.
    """
    obj, k, n = objectives.get(name), np.asarray(counts, dtype=float), int(sum(counts))
    data = k[0] / n
    spread = np.sqrt(own_noise(step, own) / (n * data * (1.0 - data)))
    grid = logit(data) + spread * np.linspace(-9.0, 9.0, points)
    low, high = (
        binom.ppf(1e-15, n * own, expit(grid[0])),
        binom.isf(1e-15, n * own, expit(grid[-1])),
    )
    drawn = np.arange(int(low), int(high) + 1)
    chance = binom.pmf(drawn, n * own, expit(grid[:, None]))
    p = (k + smoothing) / (n + 2 * smoothing)
    q = (np.stack([drawn, n * own - drawn], -1) / own + smoothing) / (n + 2 * smoothing)
    delta = ((p - q) ** 2 / (p + q)).sum(-1, keepdims=True)
    reward = np.asarray(obj.link(np.log(p / q), delta))
    after = grid[:, None] + (reward[:, 0] - reward[:, 1]) / float(beta_at(obj, step))
    at = np.clip((after - grid[0]) / (grid[1] - grid[0]), 0.0, points - 1 - 1e-9)
    below = at.astype(int)
    moves, rows = np.zeros((points, points)), np.arange(points)[:, None]
    np.add.at(moves, (rows, below), chance * (1.0 - at + below))
    np.add.at(moves, (rows, below + 1), chance * (at - below))
    moves = np.linalg.matrix_power(moves / moves.sum(-1, keepdims=True), 2**10)
    law, policy = moves[points // 2], expit(grid)
    kl = data * np.log(data / policy) + (1.0 - data) * np.log((1.0 - data) / (1.0 - policy))
    return law @ kl, law @ policy


@pytest.mark.claim("T6.fixed_data_floor", "T16.own_counts", regime="tabular")
@pytest.mark.parametrize("name", BENDS)
@pytest.mark.parametrize(("step", "own"), [(0.5, 1), (1.2, 1), (1.0, 3)])
def test_the_exact_stationary_excess_and_mean_of_two_outcomes(claim, name, step, own):
    """The excess over the data's own law is s/((2-s)K)/2n, off by order 1/n, and its mean k + b."""
    errors = []
    for n in (200, 800):
        k = np.array([0.3 * n, 0.7 * n])
        kl, mean = chain(name, step, k, own)
        errors.append(kl * 2 * n / own_noise(step, own) - 1.0)
        b = own_counts(step, BENDS[name], own)
        predicted = (k[0] + b) / (n + 2 * b)
        found, expected = n * mean - k[0], n * predicted - k[0]
        claim.close(found, expected, 0.0 if b else 1e-6, rtol=20.0 / n,
                    what="counts added to a mean policy", because="expansion")  # fmt: skip
    what = "excess over s/((2-s)K)/2n, less 1, times n: order 1/n"
    claim.close(800 * errors[1], 0.0, 40.0, what=what, because="expansion")
    what = "what is neglected, at 4 times the samples over before"
    if abs(errors[1]) > 1e-3:
        claim.close(errors[1] / errors[0], 0.25, 0.1, what=what, because="expansion")


@pytest.mark.claim("T6.fixed_data_floor", "T16.own_counts", regime="tabular", drops="many_counts")
def test_a_response_of_a_few_samples_is_beyond_the_first_order(claim):
    kl, mean = chain("gail", 1.0, (4, 396))
    claim.exhibits(kl * 2 * 400 / own_noise(1.0), 2.0, what="excess over the predicted, GAIL")
    b = own_counts(1.0, 0.5)
    claim.exhibits(400 * mean - 4 - b, 1.0, what="counts of the mean policy over 4 + b, GAIL")


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics")
def test_kl_on_one_data_set_is_a_multiple_of_chi_squared(claim):
    """n KL tends to (1 + s/((2-s)K))/2 times chi^2 of N - 1: a test of the whole law, 1 % level."""
    step, n = 1.0, 1000
    kl = play("spif", step, EXPERT, np.log(EXPERT), [15], 600, n)[0]
    scale = float(fixed_data_floor(step, 5, n)) / 4
    value = kstest(kl / scale, "chi2", args=(4,)).pvalue
    what = "p-value of Kolmogorov and Smirnov's test, 600 data sets"
    claim.exhibits(value, 0.01, what=what)
    half = kstest(kl / (scale / 2), "chi2", args=(4,)).pvalue
    claim.below(half, 1e-6, what="p-value without the own noise", because="chosen")


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics", drops="one_data_set")
def test_with_fresh_expert_samples_small_steps_go_below_the_likelihood(claim):
    kl = play("spif", 0.1, EXPERT, np.log(EXPERT), range(50, 91, 5), 60, fixed_data=False)
    predicted = float(fixed_data_floor(0.1, 5, 1000))
    claim.exhibits(predicted / kl.mean(), 5.0, what="floor of one data set over KL, fresh samples")
