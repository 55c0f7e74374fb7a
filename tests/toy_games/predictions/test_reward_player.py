"""T18: slope and correlation of a reward learned from pairs, by closed forms and by sampling."""

import numpy as np
import pytest
from scipy.linalg import expm

from theory import laws, objectives
from theory.errors import InvalidInput
from toy_games.dynamics.pair_regression import learned, pairs
from toy_games.predictions import reward_player as player
from toy_games.predictions.power_spectrum import PowerSpectrum, Round, fitted

IPO, SPIN = objectives.get("ipo"), objectives.get("spin")
RUNS = 400


def game(seed, prompts=3, outcomes=6, features=8, spread=1.0):
    """Features (X, N, P) of uneven size with laws p, q (X, N)."""
    rng = np.random.default_rng(seed)
    p, q = (laws.random_law(rng, (prompts, outcomes), spread) for _ in range(2))
    size = np.linspace(0.2, 1.5, features)
    return rng.normal(size=(prompts, outcomes, features)) * size, p, q


def moments(features, p, q):
    """H (P, P) and E z (P,) from means over laws, without listing pairs."""
    mean_p, mean_q = (np.einsum("xn,xnp->xp", law, features) for law in (p, q))
    square = np.einsum("xn,xni,xnj->ij", p + q, features, features)
    cross = np.einsum("xi,xj->ij", mean_p, mean_q)
    return (square - cross - cross.T) / len(p), (mean_p - mean_q).mean(0)


def measured(rewards, p, q, link):
    """Slope and correlation of rewards (X, N) with a link (X, N), by listing all pairs."""
    weight = p[:, :, None] * q[:, None] / len(p)
    d, of_link = (r[:, :, None] - r[:, None] for r in (rewards, link))
    both, square = (weight * d * of_link).sum(), (weight * of_link**2).sum()
    return both / square, both / np.sqrt(square * (weight * d**2).sum())


def trained(h, b, time):
    """Parameters (P,) of gradient flow from 0."""
    return np.linalg.solve(h, (np.eye(len(b)) - expm(-h * time)) @ b)


@pytest.mark.claim("T18.margins", regime="tabular")
@pytest.mark.parametrize("seed", range(6))
def test_margins_give_slope_and_correlation(claim, seed):
    rng = np.random.default_rng(seed)
    p, q = (laws.random_law(rng, (1, 7), 1.5) for _ in range(2))
    reward = rng.normal(size=(1, 7)) + rng.normal() * np.log(p / q)
    weight = (p[0][:, None] * q[0]).ravel()
    d = (reward[0][:, None] - reward[0]).ravel()
    mean, square = weight @ d, weight @ d**2
    slope, correlation = measured(reward, p, q, IPO.reward(p, q))
    found = player.of_margins(
        np.array([mean - np.sqrt(square - mean**2), mean + np.sqrt(square - mean**2)]),
        laws.triangular(p, q)[0],
    )
    claim.close(found.slope, slope, 1e-10, what="slope from margins")
    claim.close(found.correlation, correlation, 1e-10, what="correlation from margins")


@pytest.mark.claim("T18.margins", regime="tabular", drops="squared_pairs")
def test_margins_do_not_give_the_slope_on_spins_link(claim):
    rng = np.random.default_rng(1)
    p, q = (laws.random_law(rng, (1, 7), 1.5) for _ in range(2))
    link = SPIN.reward(p, q)
    d = (link[0][:, None] - link[0]).ravel()
    mean = (p[0][:, None] * q[0]).ravel() @ d
    delta = laws.triangular(p, q)[0]
    claim.exhibits(mean * (2 + delta) / (2 * delta) - 1.0, 0.5, what="slope read off, less 1")


@pytest.mark.claim("T18.shrinkage", regime="tabular")
@pytest.mark.parametrize("seed", range(6))
def test_exact_laws_shrink_every_eigenfunction(claim, seed):
    features, p, q = game(seed)
    found = pairs(features, p, q)
    for time in (0.3, 3.0, 30.0):
        theta = trained(*moments(features, p, q), time)
        slope, correlation = measured(features @ theta, p, q, IPO.reward(p, q))
        predicted = player.after(found, time)
        claim.close(predicted.slope, slope, 1e-8, what="slope")
        claim.close(predicted.correlation, correlation, 1e-8, what="correlation")


@pytest.mark.claim("T18.shrinkage", "T18.least_noise", regime="dynamics", drops="exact_laws")
def test_few_pairs_are_noisier_than_shrinkage(claim):
    found = pairs(*game(0, spread=0.5))
    slope, correlation = learned(found, np.random.default_rng(0), 60, RUNS)
    bare = float(player.after(found, np.inf).correlation)
    claim.exhibits(bare - correlation.mean(), 0.1, what="correlation of exact laws, less")
    share = player.least_noise(slope.mean(), correlation.mean())
    claim.exhibits(share, 0.1, what="share of noise, at least")


@pytest.mark.claim("T18.least_noise", regime="tabular")
@pytest.mark.parametrize("seed", range(6))
def test_shrinkage_has_at_least_the_root_of_the_slope(claim, seed):
    found = pairs(*game(seed))
    times = np.geomspace(0.01, 1e4, 40)
    after = player.after(found, times)
    claim.below(
        after.slope, after.correlation**2, what="slope under correlation squared", atol=1e-12
    )
    claim.below(np.diff(-after.slope), 0.0, what="slope falls with time by", atol=1e-12)


@pytest.mark.claim("T18.least_noise", regime="tabular")
def test_the_root_is_attained(claim):
    """Trained to the end, in a class without the link."""
    after = player.after(pairs(*game(2, features=4)), np.inf)
    claim.close(after.correlation**2 / after.slope, 1.0, 1e-10, what="correlation^2 over slope")
    claim.below(after.slope, 0.9, what="and the slope is less than 1")


@pytest.mark.claim("T18.few_pairs", regime="tabular")
@pytest.mark.parametrize("time", [0.5, 5.0, np.inf])
def test_the_deviation_is_that_of_the_influence(claim, time):
    """Weights of single pairs are raised by 1e-5 and the reward is trained anew."""
    found = pairs(*game(3, prompts=1, outcomes=4, features=3))
    total, small = 0.0, 1e-5

    def theta(weight):
        h, b = (found.z * weight[:, None]).T @ found.z, weight @ found.z
        return np.linalg.solve(h, b) if np.isinf(time) else trained(h, b, time)

    for s in np.flatnonzero(found.weight):
        one = np.eye(len(found.weight))[s] - found.weight
        moved = (theta(found.weight + small * one) - theta(found.weight - small * one)) / 2 / small
        total += found.weight[s] * moved**2 @ found.values
    claim.close(
        player.deviation(found, time), total, 0.0, 1e-4, what="n E d^2", because="expansion"
    )


@pytest.mark.claim("T18.few_pairs", regime="dynamics")
@pytest.mark.parametrize("spread", [0.5, 1.5])
@pytest.mark.parametrize("time", [1.0, 5.0, 30.0, np.inf])
def test_sampled_pairs_have_the_predicted_slope_and_noise(claim, spread, time):
    """400 pairs for 8 features, 400 runs; 1 % is left to the next order in 1/n."""
    found = pairs(*game(0, spread=spread))
    slope, correlation = learned(found, np.random.default_rng(1), 400, RUNS, time)
    predicted = player.after(found, time, 400)
    for what, got, exact in zip(("slope", "correlation"), (slope, correlation), predicted,
                                strict=True):  # fmt: skip
        tolerance = 4 * got.std() / np.sqrt(RUNS) + 0.01 * float(exact)
        claim.close(got.mean(), exact, tolerance, what=what, because="sampling")


@pytest.mark.claim("T18.few_pairs", regime="dynamics", drops="few_features")
def test_leading_order_fails_with_many_features(claim):
    """60 pairs, 150 features: the leading order knows nothing of the shrinkage by few data."""
    found = pairs(*game(4, prompts=20, outcomes=20, features=150, spread=1.5))
    slope, _ = learned(found, np.random.default_rng(2), 60, 30)
    claim.exhibits(player.after(found, np.inf).slope - slope.mean(), 0.2, what="slope, less")


@pytest.mark.claim("T18.many_features", regime="dynamics")
@pytest.mark.parametrize("count", [100, 300])
@pytest.mark.parametrize("ridge", [0.02, 0.2])
def test_many_features_have_the_deterministic_equivalent(claim, count, ridge):
    """150 features of falling size; 60 runs; 8 % is left to heteroscedastic noise."""
    rng = np.random.default_rng(5)
    p, q = (laws.random_law(rng, (20, 20), 1.5) for _ in range(2))
    features = rng.normal(size=(20, 20, 150)) * np.arange(1, 151) ** -0.6
    found = pairs(features, p, q)
    slope, correlation = learned(found, rng, count, 60, ridge=ridge)
    predicted = player.many_features(found.values, found.shares, found.signal, count, ridge)
    for what, got, exact in zip(("slope", "correlation"), (slope, correlation), predicted,
                                strict=True):  # fmt: skip
        claim.close(got.mean(), exact, 0.0, 0.08, what=what, because="chosen")


def test_many_features_with_much_data_is_the_ridge():
    values, shares = np.array([2.0, 0.1]), np.array([0.6, 0.4])
    found = player.many_features(values, shares, 0.5, 1e12, 0.1)
    g = values / (values + 0.1)
    np.testing.assert_allclose(found.slope, shares @ g, rtol=1e-9)
    np.testing.assert_allclose(found.correlation, shares @ g / np.sqrt(shares @ g**2), rtol=1e-9)


def test_features_must_tell_responses_apart():
    p = np.array([[0.5, 0.5]])
    with pytest.raises(InvalidInput, match="needed is one that differs"):
        pairs(np.ones((1, 2, 3)), p, p)
    with pytest.raises(InvalidInput, match="needed are"):
        pairs(np.ones((2, 3)), p, p)
    for p_, q_ in ((p.T, p.T), (p, p.T)):
        with pytest.raises(InvalidInput, match="needed are"):
            pairs(np.ones((1, 2, 3)), p_, q_)
    with pytest.raises(InvalidInput, match="ridge=0"):
        player.many_features(np.ones(1), np.ones(1), 0.5, 10, 0)


def test_the_unit_of_features_does_not_matter():
    features, p, q = game(5)
    large, small = (pairs(scale * features, p, q) for scale in (1.0, 1e-6))
    np.testing.assert_allclose(small.values, 1e-12 * large.values, rtol=1e-6)
    np.testing.assert_allclose(small.shares, large.shares, rtol=1e-6)


def noise_over_signal(p, q):
    """Of IPO and of pointwise SPIF in a table, to leading order in 1/n, times n, in the mixture."""
    mix, delta, t = 0.5 * (p + q), laws.triangular(p, q), (p - q) / (p + q)
    centre = np.eye(len(p)) - mix
    pair = np.outer(p, q)
    h = np.diag(p + q) - pair - pair.T

    def square(moves, first, second):
        both = (centre @ moves).T @ (mix[:, None] * (centre @ moves))
        own = np.diag(both)
        return (
            pair * (first**2 * own[:, None] + second**2 * own + 2 * first * second * both)
        ).sum()

    kappa = 1.0 / (1.0 + 0.5 * delta)
    left = 1.0 - kappa * (t[:, None] - t)
    ipo = square(np.linalg.pinv(h, rcond=1e-12), left, -left) / (0.5 * kappa**2 * delta)
    ones = np.ones_like(pair)
    spif = square(np.diag(1.0 / (p + q)), (1.0 - t)[:, None] * ones, -(1.0 + t) * ones)
    return ipo, spif / (0.5 * delta), delta


@pytest.mark.claim("T18.ipo_noisier", regime="tabular")
def test_ipo_s_noise_is_larger_by_the_level(claim):
    rng = np.random.default_rng(0)
    for spread in (0.2, 0.5, 1.0):
        p, q = (laws.random_law(rng, (200,), spread) for _ in range(2))
        ipo, spif, delta = noise_over_signal(p, q)
        claim.close(ipo / spif, 1 + delta / 2, 0.0, 0.05, what="ratio of noises",
                    because="chosen")  # fmt: skip
        claim.exhibits(ipo / spif, 1.0, what="IPO's noise over SPIF's")


@pytest.mark.claim("T18.ipo_noisier", regime="tabular", drops="near_expert")
def test_far_from_the_expert_that_factor_is_less(claim):
    rng = np.random.default_rng(0)
    p, q = (laws.random_law(rng, (200,), 2.5) for _ in range(2))
    ipo, spif, delta = noise_over_signal(p, q)
    claim.exhibits(1 + delta / 2 - ipo / spif, 0.3, what="ratio foretold, less")


def test_the_mixtures_norm_by_listing():
    rng = np.random.default_rng(3)
    p, q = (laws.random_law(rng, (1, 7), 1.5) for _ in range(2))
    link, reward = IPO.reward(p, q), rng.normal(size=(1, 7)) + np.log(p / q)
    found = player.in_mixture(
        player.Generalisation(*map(np.asarray, measured(reward, p, q, link))),
        laws.triangular(p, q)[0],
    )
    mix = 0.5 * (p + q)
    a, b = (r - (mix * r).sum() for r in (reward, link))
    both, square = (mix * a * b).sum(), (mix * b**2).sum()
    np.testing.assert_allclose(found.slope, both / square)
    pairs_square, half = measured(reward, p, q, link)[1] ** 2, laws.triangular(p, q)[0] / 2
    in_mixture = pairs_square / (1.0 + (1.0 - pairs_square) * half)
    np.testing.assert_allclose(found.correlation**2, in_mixture)
    np.testing.assert_allclose(found.correlation, both / np.sqrt(square * (mix * a**2).sum()))


def test_a_power_spectrum_is_found_again():
    law = PowerSpectrum(1.4, 1.1, 7.0)
    rounds = [Round(n, n / 20000.0, 0.7) for n in (500, 2000, 8000)]
    found = fitted(rounds, [law.ipo(r) for r in rounds])
    for made in (Round(30000, 2.0, 0.7), Round(500, 1.0, 0.7)):
        np.testing.assert_allclose(found.spif(made), law.spif(made), atol=2e-3)


def test_a_power_spectrum_by_hand():
    """Its eigenvalues and shares in a list; SPIF has twice the responses at half the curvature."""
    law, made = PowerSpectrum(1.3, 1.2, 5.0), Round(400.0, 2.0, 0.5)
    number = range(1, 20_001)
    values = np.array([k**-1.3 for k in number])
    falling = np.array([k**-1.2 for k in number])
    shares, ridge = falling / falling.sum(), 1 / (2.0 * np.e**5)
    ipo = player.many_features(values, shares, 2 * 0.5 / 2.5, 400.0, ridge)
    np.testing.assert_allclose(law.ipo(made), player.in_mixture(ipo, 0.5), rtol=1e-9)
    spif = player.many_features(values / 2, shares, 0.25, 800.0, ridge / 2)
    np.testing.assert_allclose(law.spif(made), spif, rtol=1e-9)
    least = law.ipo(Round(1e9, 2.0, 0.5)).slope
    np.testing.assert_allclose(least, (shares * values / (values + ridge)).sum(), rtol=1e-4)


def test_what_shrinkage_does_not_explain_by_hand():
    found = player.least_noise([0.8, 0.8, 0.5], [0.8, 0.6, 0.9])
    np.testing.assert_allclose(found, [0.2, 0.55, 0.0], atol=1e-15)
