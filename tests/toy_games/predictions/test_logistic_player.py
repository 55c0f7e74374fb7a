"""T18 e: slope and correlation of a reward learned by SPIN's loss, by formulas and by descent."""

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.optimize import brentq, minimize
from scipy.special import expit

from theory import laws, objectives
from theory.errors import InvalidInput, NotConverged
from toy_games.dynamics import pair_classification as classes
from toy_games.dynamics import pair_regression
from toy_games.dynamics.pair_regression import pairs
from toy_games.predictions import logistic_player as player
from toy_games.predictions import reward_player
from toy_games.predictions.power_spectrum import PowerSpectrum, Round

SPIN = objectives.get("spin")
P, Q = np.array([[0.7, 0.3]]), np.array([[0.4, 0.6]])


def game(seed, shape=(3, 6), sizes=None, spread=1.0, scale=1.0):
    """Pairs of laws, and the margins of u; the features hold not all of u."""
    rng = np.random.default_rng(seed)
    p, q = (laws.random_law(rng, shape, spread) for _ in range(2))
    sizes = np.linspace(0.2, 1.5, 8) if sizes is None else sizes
    features = scale * rng.normal(size=(*shape, len(sizes))) * sizes
    return pairs(features, p, q), classes.margins(p, q)


def table(seed, shape=(3, 4), spread=1.0):
    """A feature a response: u is in the class."""
    rng = np.random.default_rng(seed)
    p, q = (laws.random_law(rng, shape, spread) for _ in range(2))
    number = shape[0] * shape[1]
    return pairs(np.eye(number).reshape(*shape, number), p, q), classes.margins(p, q)


def of_loss(z, weight, ridge):
    """Parameters (P,) of least loss by scipy's quasi-Newton, without any derivative."""
    found = minimize(
        lambda t: weight @ np.logaddexp(0.0, -z @ t) + 0.5 * ridge * t @ t,
        np.zeros(z.shape[-1]),
        tol=1e-12,
    )
    return found.x


def descended(z, weight, time, steps):
    """Parameters (P,) after so many plain gradient steps from 0."""
    theta = np.zeros(z.shape[-1])
    for _ in range(steps):
        theta = theta + time / steps * (weight / (1.0 + np.exp(z @ theta))) @ z
    return theta


def listed(z, weight, link, theta):
    """Slope and correlation by listing all pairs."""
    d = z @ theta
    both, square = (weight * d * link).sum(), (weight * link**2).sum()
    return both / square, both / np.sqrt(square * (weight * d**2).sum())


def two_responses():
    """Two responses, one feature: z is 1 with ``first``, -1 with ``second``, else 0."""
    found = pairs(np.array([[[1.0], [0.0]]]), P, Q)
    first, second = P[0, 0] * Q[0, 1], P[0, 1] * Q[0, 0]
    return found, classes.margins(P, Q), first, second


def test_the_link_s_margins_are_those_of_the_objective():
    rng = np.random.default_rng(0)
    p, q = (laws.random_law(rng, (2, 3)) for _ in range(2))
    link = SPIN.reward(p, q)
    by_hand = [link[x, y] - link[x, z] for x in range(2) for y in range(3) for z in range(3)]
    np.testing.assert_allclose(classes.margins(p, q), by_hand, atol=1e-12)


def test_two_responses_end_at_the_log_ratio_and_go_there_in_the_time_of_an_integral():
    found, link, first, second = two_responses()
    end = np.log(first / second)
    assert np.abs(classes.minimum(found.z, found.weight, 0.0)[0]) == pytest.approx(end)
    np.testing.assert_allclose(player.with_ridge(found, link, 0.0), [1.0, 1.0])
    reached = 0.6 * end
    time = quad(lambda x: 1.0 / (first * expit(-x) - second * expit(x)), 0.0, reached)[0]
    slope = player.after(found, link, np.array([0.5 * time, time])).slope
    np.testing.assert_allclose(slope[1], 0.6, rtol=1e-4)
    assert slope[0] < 0.5


def test_two_responses_with_a_ridge_solve_their_implicit_equation():
    found, link, first, second = two_responses()
    ridge = 0.03
    root = brentq(lambda x: first * expit(-x) - second * expit(x) - ridge * x, 0.0, 5.0)
    slope = player.with_ridge(found, link, ridge).slope
    assert slope == pytest.approx(root / np.log(first / second))


def test_two_responses_have_the_moments_of_a_log_of_counts():
    """``log k/k'`` of multinomial counts: mean ``(1/b - 1/a)/2n`` too long, variance by Fisher."""
    found, link, first, second = two_responses()
    end, count = np.log(first / second), 50_000
    exact = player.with_ridge(found, link, 0.0, count)
    assert count * (exact.slope - 1.0) == pytest.approx((1 / second - 1 / first) / (2 * end))
    variance = (1.0 / first + 1.0 / second) / count
    mean = float(exact.slope) * end
    assert exact.correlation == pytest.approx(mean / np.sqrt(mean**2 + variance))
    counts = np.random.default_rng(0).multinomial(400, [first, second, 1 - first - second], 200_000)
    drawn = np.log(counts[:, 0] / counts[:, 1]).mean() / end
    assert player.with_ridge(found, link, 0.0, 400).slope == pytest.approx(drawn, abs=0.002)


@pytest.mark.parametrize("ridge", [0.0, 0.01, 0.3])
def test_newton_s_minimum_is_that_of_another_solver(ridge):
    """Also for runs that each have their own pairs, and that share them with other weights."""
    found, _ = game(1)
    rng = np.random.default_rng(0)
    weight = rng.dirichlet(np.ones(len(found.weight)), size=3)
    shared = classes.minimum(found.z, weight, ridge)
    own = classes.minimum(np.broadcast_to(found.z, (3, *found.z.shape)), weight, ridge)
    np.testing.assert_allclose(own, shared, rtol=1e-7)
    for theta, some in zip(shared, weight, strict=True):
        np.testing.assert_allclose(theta, of_loss(found.z, some, ridge), atol=2e-5)


def test_far_starts_do_not_throw_newton():
    """Features of very different size, laws far apart; where pairs tell apart there is none."""
    found, _ = game(2, sizes=np.geomspace(1e-2, 30.0, 8), spread=3.0)
    theta = classes.minimum(found.z, found.weight, 1e-4)
    left = classes.pull(found.z, found.weight, theta) - 1e-4 * theta
    assert np.abs(left).max() < 1e-12 * np.abs(found.z).max()
    with pytest.raises(NotConverged, match="needed is a ridge"):
        classes.minimum(np.array([[1.0], [2.0]]), np.array([0.5, 0.5]), 0.0)
    with pytest.raises(NotConverged, match="needed is a ridge"):
        classes.minimum(np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([0.5, 0.5]), 0.0)
    with pytest.raises(InvalidInput, match="ridge=-1"):
        classes.minimum(found.z, found.weight, -1)


def test_the_flow_is_many_small_steps():
    """On drawn pairs; the error of plain steps falls in proportion to their length."""
    found, link = game(3)
    rng = np.random.default_rng(0)
    z = found.z[rng.choice(len(found.weight), 40, p=found.weight)]
    even = np.full(40, 1.0 / 40)
    flow = classes.flow(z, even, np.array([2.0, 20.0]))
    coarse, fine = (descended(z, even, 20.0, k) for k in (4_000, 8_000))
    np.testing.assert_allclose(flow[1], 2 * fine - coarse, rtol=1e-4, atol=1e-6)
    got = classes.against(found, link, flow[1])
    np.testing.assert_allclose(got, listed(found.z, found.weight, link, flow[1]), rtol=1e-12)


@pytest.mark.claim("T18.spin_start", regime="tabular")
@pytest.mark.parametrize("time", [0.1, 10.0, 300.0])
def test_near_the_start_it_is_twice_the_squared_loss_at_a_quarter_of_the_time(claim, time):
    """Small features keep margins small; also on drawn pairs, by a ridge of four times."""
    found, link = game(4, spread=0.05)
    times = np.array([time])
    theta = classes.flow(found.z, found.weight, times)[0]
    through = pair_regression.let_through(found.values, times[0] / 4.0)
    claim.close(theta, 2.0 * through * found.best, 1e-4, 2e-2, "parameters", because="expansion")
    near = player.near_start(found, link, times)
    np.testing.assert_allclose(
        np.ravel(near), np.ravel(player.after(found, link, times)), rtol=5e-3
    )


def test_near_the_start_a_ridge_is_four_times_as_strong():
    found, _ = game(4)
    draw = np.random.default_rng(0).choice(len(found.weight), 30, p=found.weight)
    z, even = found.z[draw], np.full(30, 1 / 30)
    for ridge, tolerance in ((3.0, 0.02), (30.0, 2e-4)):
        squared = np.linalg.solve(z.T @ z / 30 + 4.0 * ridge * np.eye(8), z.mean(0))
        got = classes.minimum(z, even, ridge)
        assert np.linalg.norm(got - 2.0 * squared) < tolerance * np.linalg.norm(got)


def test_the_first_step_is_half_the_squared_loss_s():
    found, _ = game(5)
    step = classes.pull(found.z, found.weight, np.zeros(8))
    np.testing.assert_allclose(step, 0.5 * found.weight @ found.z)


@pytest.mark.claim("T18.spin_start", regime="tabular", drops="small_margins")
def test_far_from_the_start_it_goes_on_where_the_squared_loss_stops(claim):
    found, link = table(3)
    slope = player.after(found, link, np.array([2e3])).slope
    claim.exhibits(slope - player.near_start(found, link, np.array([2e3])).slope, 0.1,
                   what="slope over that foretold")  # fmt: skip


@pytest.mark.claim("T18.spin_end", regime="tabular")
@pytest.mark.parametrize("seed", range(4))
def test_exact_laws_end_at_u_and_never_go_back(claim, seed):
    """With u in the class: the distance to u falls, in parameters, and slope and correlation end
    at 1."""
    found, link = table(seed)
    times = np.geomspace(0.1, 3e4, 30)
    theta = classes.flow(found.z, found.weight, times)
    end = classes.minimum(found.z, found.weight, 0.0)
    claim.below(np.diff(np.linalg.norm(theta - end, axis=-1)), 0.0, "growth of the distance", 1e-9)
    claim.close(found.z @ end, link, 1e-6, what="margins at the end")
    claim.close(np.ravel(player.with_ridge(found, link, 0.0)), 1.0, 1e-9, what="slope, correlation")


@pytest.mark.claim("T18.spin_end", regime="tabular", drops="realisable_link")
def test_without_u_in_the_class_the_slope_may_exceed_one(claim):
    """Three responses, one feature, exact laws: the squared loss's never does (T18 b)."""
    u, q = np.array([0.5, -0.5, 5.0]), np.array([[0.5, 0.49, 0.01]])
    p = q * np.exp(u) / (q * np.exp(u)).sum()
    found = pairs(np.array([[[0.5], [-0.5], [10.0]]]), p, q)
    link = classes.margins(p, q)
    slope, correlation = player.with_ridge(found, link, 0.0)
    by_hand = listed(found.z, found.weight, link, of_loss(found.z, found.weight, 0.0))
    np.testing.assert_allclose([slope, correlation], by_hand, rtol=1e-5)
    claim.exhibits(slope - 1.0, 0.1, what="slope above 1")
    assert correlation**2 < slope - 0.1
    squared = reward_player.after(found, np.inf)
    assert squared.slope <= 1.0
    assert squared.correlation**2 >= squared.slope - 1e-12


@pytest.mark.claim("T18.spin_pairs", regime="tabular")
@pytest.mark.parametrize("time", [2.0, 40.0])
def test_the_noise_of_the_flow_is_that_of_the_influence(claim, time):
    """Weights of single pairs are raised by 1e-5 and the reward is trained anew."""
    found, link = game(6, shape=(1, 4), sizes=np.array([0.5, 1.0, 1.5]), spread=1.5)
    total, small, times = 0.0, 1e-5, np.array([time])
    for s in np.flatnonzero(found.weight):
        one = small * (np.eye(len(found.weight))[s] - found.weight)
        up, down = (classes.flow(found.z, found.weight + m * one, times)[0] for m in (1, -1))
        moved = (up - down) / 2 / small
        total += found.weight[s] * (found.z @ moved) ** 2 @ found.weight
    bare, noisy = (player.after(found, link, times, n) for n in (np.inf, 300))
    np.testing.assert_allclose(noisy.slope, bare.slope, rtol=1e-6)
    signal = found.weight @ link**2
    square = (bare.slope / bare.correlation) ** 2 + total / 300 / signal
    foretold = bare.slope / np.sqrt(square)
    claim.close(noisy.correlation, foretold, 0.0, 1e-6, "correlation by one pair's influence")


@pytest.mark.claim("T18.spin_pairs", regime="tabular")
@pytest.mark.parametrize("ridge", [0.0, 0.02])
def test_the_shift_by_pairs_is_the_second_derivative_in_their_weights(claim, ridge):
    """``n`` times the shift is half the sum of ``w_s`` times second differences in weight s."""
    found, link = game(6, shape=(1, 4), sizes=np.array([0.5, 1.0, 1.5]), spread=0.5)
    small, centre, shift = 1e-3, classes.minimum(found.z, found.weight, ridge), 0.0
    for s in np.flatnonzero(found.weight):
        one = small * (np.eye(len(found.weight))[s] - found.weight)
        up, down = (classes.minimum(found.z, found.weight + m * one, ridge) for m in (1, -1))
        shift = shift + 0.5 * found.weight[s] * (up + down - 2.0 * centre) / small**2
    exact, few = (player.with_ridge(found, link, ridge, n) for n in (np.inf, 500))
    bare = listed(found.z, found.weight, link, centre + shift / 500)[0]
    shifts = few.slope - exact.slope, bare - exact.slope
    claim.close(*shifts, 0.0, 5e-3, "shift of the slope", because="expansion")


@pytest.mark.claim("T18.spin_pairs", regime="tabular")
def test_few_pairs_lengthen_the_reward_near_the_expert_by_a_feature_a_pair(claim):
    """``1 + P/n`` for alike pairs; the squared loss has no such term."""
    rng = np.random.default_rng(0)
    q = np.full((1, 12), 1 / 12)
    p = laws.random_law(rng, (1, 12), 0.02)
    found, link = pairs(np.eye(12)[None], p, q), classes.margins(p, q)
    excess = player.with_ridge(found, link, 0.0, 1000).slope - 1.0
    d = found.z @ classes.minimum(found.z, found.weight, 0.0)
    leverage = (found.z**2 / found.values).sum(1)
    assert 1000 * excess == pytest.approx(
        found.weight @ (d**2 * leverage) / (found.weight @ d**2), rel=0.05
    )
    claim.close(1000 * excess, 11.0, 0.0, 0.1, "n times the lengthening", because="expansion")


@pytest.mark.claim("T18.spin_pairs", regime="dynamics")
@pytest.mark.parametrize("count", [400, 1600])
def test_drawn_pairs_have_the_predicted_noise_and_length(claim, count):
    """A table of 12 responses, 300 runs; to .01 and twice the shift's square for the next order."""
    found, link = table(3)
    times = np.array([20.0, 200.0])
    drawn = classes.learned(found, link, np.random.default_rng(1), count, 300, times)
    predicted = player.after(found, link, times, count)
    for got, exact in zip(drawn, predicted, strict=True):
        allowed = 4 * got.std(-1) / np.sqrt(300) + 0.01
        claim.close(got.mean(-1), exact, allowed, what="slope or correlation", because="sampling")
    drawn = classes.learned(found, link, np.random.default_rng(1), count, 300, ridge=0.001)
    predicted = player.with_ridge(found, link, 0.001, count)
    shift = float(predicted.slope - player.with_ridge(found, link, 0.001).slope)
    assert shift > 0.0
    assert drawn.slope.mean() == pytest.approx(predicted.slope, abs=0.01 + 2 * shift**2)
    assert drawn.correlation.mean() == pytest.approx(predicted.correlation, abs=0.01)


@pytest.mark.claim("T18.spin_end", regime="dynamics", drops="exact_laws")
def test_from_few_pairs_spin_overshoots_and_the_squared_loss_does_not(claim):
    """100 pairs, to the end: SPIN's slope is past 1.2 where the squared loss's mean stays at 1."""
    found, link = table(3)
    spin = classes.learned(
        found, link, np.random.default_rng(1), 100, 100, np.array([2000.0])
    ).slope.mean()
    squared = pair_regression.learned(found, np.random.default_rng(1), 100, 100).slope.mean()
    claim.exhibits(spin - 1.0, 0.2, what="slope above 1")
    assert squared == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize(("count", "ridge"), [(100, 0.0125), (400, 0.0125), (200, 0.002)])
def test_many_features_have_the_fixed_point(count, ridge):
    """150 features of falling size; 20 runs; 6 % is left to features that are not Gaussian."""
    found, link = game(5, (20, 20), np.arange(1, 151) ** -0.6, 1.5)
    drawn = classes.learned(found, link, np.random.default_rng(1), count, 20, ridge=ridge)
    shares = player.shares(found, link)
    exact = player.many_features(found.values, shares, link, found.weight, count, ridge)
    for got, want in zip(drawn, exact, strict=True):
        assert got.mean() == pytest.approx(float(want), rel=0.06)


def test_many_features_that_are_gaussian_are_met_closer():
    """Drawn Gaussian margins with a logistic law of signs, 80 features, 30 runs: 3 %."""
    rng = np.random.default_rng(0)
    values, count, ridge = np.arange(1, 81) ** -1.0, 160, 0.004
    best = rng.normal(size=80)
    best *= 3.0 / np.sqrt(values @ best**2)
    z = rng.normal(size=(30, count, 80)) * np.sqrt(values)
    first = rng.random((30, count)) < expit(z @ best)
    theta = classes.minimum(
        z * np.where(first, 1.0, -1.0)[..., None], np.full((30, count), 1 / count), ridge
    )
    along, square = theta @ (values * best), theta**2 @ values
    grid = np.linspace(-15, 15, 601)
    weight = np.exp(-(grid**2) / 18.0) * 2 * expit(grid)
    found = player.many_features(
        values, values * best**2 / 9.0, grid, weight / weight.sum(), count, ridge
    )
    assert along.mean() / 9.0 == pytest.approx(float(found.slope), rel=0.03)
    assert (along / 3 / np.sqrt(square)).mean() == pytest.approx(float(found.correlation), rel=0.03)


def test_many_features_near_the_start_are_the_squared_loss_s():
    """A strong ridge: the slope on u is twice that of the squared loss at four times the ridge,
    in units of the link it has there, half of u."""
    values, shares = np.arange(1, 51) ** -1.0, np.full(50, 0.02)
    x = np.array([-0.19, 0.21])
    weight = np.array([expit(-0.19), expit(0.21)]) / (expit(-0.19) + expit(0.21))
    signal = float((weight @ x) ** 2 / (weight @ x**2))
    spin = player.many_features(values, shares, x, weight, 100, 0.5)
    squared = reward_player.many_features(values, shares, signal, 100, 2.0)
    ratio = 2.0 * (weight @ x) / (weight @ x**2)
    assert spin.slope == pytest.approx(ratio * float(squared.slope), rel=2e-3)
    assert spin.correlation == pytest.approx(float(squared.correlation), rel=2e-3)


def test_shares_are_those_of_u():
    found, link = game(7)
    theta = (found.weight * link) @ found.z / found.values  # the projection of u
    of_class = player.shares(found, link)
    signal = found.weight @ link**2
    assert of_class.sum() == pytest.approx(found.weight @ (found.z @ theta) ** 2 / signal)
    assert 0.1 < of_class.sum() < 0.9
    assert player.shares(*table(1)).sum() == pytest.approx(1.0)


def test_the_binormal_law_is_that_of_many_responses_with_normal_logits():
    rng = np.random.default_rng(0)
    p, q = (laws.random_law(rng, (1, 200_000), 1.0) for _ in range(2))
    delta = float(laws.triangular(p, q)[0])
    link, weight = player.binormal(delta)
    u = np.log(p / q)[0]
    mean = (p[0] - q[0]) @ u
    spread = p[0] @ u**2 - (p[0] @ u) ** 2 + q[0] @ u**2 - (q[0] @ u) ** 2
    assert weight @ link == pytest.approx(mean, rel=0.03)
    assert weight @ link**2 == pytest.approx(mean**2 + spread, rel=0.05)
    assert weight @ link == pytest.approx(weight @ link**2 - (weight @ link) ** 2 - weight @ link)


def test_a_power_spectrum_s_spin_by_hand():
    law, made = PowerSpectrum(1.3, 1.2, 5.0), Round(400.0, 2.0, 0.5)
    k = np.arange(1, 2_001)
    shares = np.arange(1, 20_001) ** -1.2
    link, weight = player.binormal(0.5)
    v = weight @ link
    found = player.many_features(
        k**-1.3, k**-1.2 / shares.sum(), link, weight, 400.0, np.exp(-5.0) / 2.0 / 4.0
    )
    wide = law.spin(made, 2_000)
    np.testing.assert_allclose(wide.slope, found.slope)
    # in the mixture's norm: 2 cov = <r, r'> - E d E d'/2, and E d_r is E d_u times the slope
    square = (found.slope / found.correlation) ** 2 * (2 * v + v**2)
    own = square - 0.5 * (found.slope * v) ** 2
    np.testing.assert_allclose(
        wide.correlation, found.slope * np.sqrt((2 * v + v**2 / 2) / own), rtol=1e-6
    )
    assert law.spin(made).slope > wide.slope
