"""Best responses to pair losses found by numbers, against sums and roots written out here."""

import numpy as np
import pytest

from theory import xp
from theory.errors import InvalidInput, NotConverged
from theory.objectives import Pairwise, get, pair_response

P = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
Q = np.array([[0.2, 0.2, 0.6], [0.3, 0.4, 0.3]])
R = np.array([[0.4, -1.3, 2.0], [0.0, 0.7, -0.2]])


def logistic(d):
    return xp.softplus(-d)


def slope(d):
    return -1.0 / (1.0 + np.exp(d))


def squared(d):
    return xp.square(d - 0.8)


def by_sums(p, q, r):
    up = [p[i] * sum(q[j] * slope(r[i] - r[j]) for j in range(len(r))) for i in range(len(r))]
    down = [-q[i] * sum(p[j] * slope(r[j] - r[i]) for j in range(len(r))) for i in range(len(r))]
    return up, down


@pytest.mark.parametrize("chunk", [1, 4, 7, 2**20])
@pytest.mark.parametrize("reward", [R, np.zeros_like(R)], ids=["rewards", "no rewards"])
def test_pulls_of_pairs_are_sums_over_pairs(monkeypatch, chunk, reward):
    monkeypatch.setattr(pair_response, "CHUNK", chunk)
    exact = np.array([by_sums(*x) for x in zip(P, Q, reward, strict=True)])
    rows, up, down = pair_response.pulls_of_pairs(logistic, reward, P, Q)
    assert rows is None
    np.testing.assert_allclose(up, exact[:, 0], rtol=1e-13)
    np.testing.assert_allclose(down, exact[:, 1], rtol=1e-13)
    some = np.array([[2, 0], [1, 1]])
    _, up, down = pair_response.pulls_of_pairs(logistic, reward, P, Q, some)
    np.testing.assert_allclose(up, np.take_along_axis(exact[:, 0], some, -1), rtol=1e-13)
    np.testing.assert_allclose(down, np.take_along_axis(exact[:, 1], some, -1), rtol=1e-13)


def test_measures_of_another_mass_pull_by_their_mass():
    """The masses need not sum to 1: 3 p against 2 q."""
    exact = np.array(by_sums(3 * P[0], 2 * Q[0], np.zeros(3)))
    _, up, down = pair_response.pulls_of_pairs(logistic, np.zeros((1, 3)), 3 * P[:1], 2 * Q[:1])
    np.testing.assert_allclose([up[0], down[0]], exact, rtol=1e-13)


def test_large_laws_are_looked_at_in_part(monkeypatch):
    monkeypatch.setattr(pair_response, "MOST_PAIRS", 50)
    rng = np.random.default_rng(0)
    p, q, r = rng.dirichlet(np.ones(40)), rng.dirichlet(np.ones(40)), rng.standard_normal(40)
    rows, up, down = pair_response.pulls_of_pairs(logistic, r[None], p[None], q[None])
    assert rows.shape == up.shape == down.shape == (1, 8)
    assert r[rows[0]].tolist() == np.sort(r)[[0, 6, 11, 17, 22, 28, 33, 39]].tolist()
    exact = np.array(by_sums(p, q, r))[:, rows[0]]
    np.testing.assert_allclose([up[0], down[0]], exact, rtol=1e-12)


def centred(reward, law):
    return reward - (law * reward).sum(-1, keepdims=True)


def test_best_responses_of_pairs_by_their_closed_forms():
    """Logistic: log p/q. Squared margin m: kappa (p - q)/(p + q), kappa = m/(1 + Delta/2)."""
    found = pair_response.of_laws(P, Q, logistic)
    np.testing.assert_allclose(centred(found, P), centred(np.log(P / Q), P), rtol=1e-11)
    t = (P - Q) / (P + Q)
    kappa = 0.8 / (1 + 0.5 * ((P + Q) * t**2).sum(-1, keepdims=True))
    found = pair_response.of_laws(P, Q, squared)
    np.testing.assert_allclose(centred(found, P), centred(kappa * t, P), atol=1e-12)
    weight = P[:, :, None] * Q[:, None, :]
    pairs = pair_response.of_pairs(weight, logistic)
    ratio = np.log(P / Q)
    np.testing.assert_allclose(pairs, ratio - ratio.mean(-1, keepdims=True), rtol=1e-11)


def test_an_outcome_of_one_side_alone():
    """A loss that falls for ever sends it to its side; the others do not feel it."""
    p, q = np.array([[0.5, 0.3, 0.2, 0.0]]), np.array([[0.2, 0.4, 0.0, 0.4]])
    found = pair_response.of_laws(p, q, logistic)[0]
    assert found[2:].tolist() == [np.inf, -np.inf]
    assert found[0] - found[1] == pytest.approx(np.log(0.5 / 0.2) - np.log(0.3 / 0.4), rel=1e-10)


def test_preferences_by_their_closed_forms():
    """Squared margin m on comparisons: m (2 P(y > pi) - 1), for a response that pi draws or not."""
    wins = np.array([[0.5, 0.8, 0.3], [0.2, 0.5, 0.9], [0.7, 0.1, 0.5]])
    law = np.array([0.6, 0.4, 0.0])
    found = pair_response.of_preference(wins, law, squared, "squares")
    np.testing.assert_allclose(found, 0.8 * (2 * wins @ law - 1), atol=1e-12)
    scores = np.array([0.3, -1.1, 0.6])
    chances = 1 / (1 + np.exp(scores[None] - scores[:, None]))
    found = pair_response.of_preference(chances, law, logistic, "logistic")
    np.testing.assert_allclose(found, scores - law @ scores, rtol=1e-10)


def test_certain_wins_are_refused_where_the_loss_has_no_end():
    chain = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.7], [0.0, 0.3, 0.5]])
    with pytest.raises(InvalidInput, match="logistic: separable pairs: outcome 1 never beats 0"):
        pair_response.of_preference(chain, np.array([0.5, 0.3, 0.2]), logistic, "logistic")
    undrawn = np.array([0.0, 0.6, 0.4])
    assert np.isfinite(pair_response.of_preference(chain, undrawn, logistic, "x")[1:]).all()
    circle = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
    even = np.full(3, 1 / 3)
    found = pair_response.of_preference(circle, even, logistic, "logistic")
    np.testing.assert_allclose(found, 0.0, atol=1e-12)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_pairs_of_weights_of_any_size_and_an_outcome_without_any(size):
    weight = np.zeros((4, 4))
    weight[:3, :3] = size * P[0][:, None] * Q[0][None, :]
    found = pair_response.of_pairs(weight, logistic)
    ratio = np.log(P[0] / Q[0])
    np.testing.assert_allclose(found[:3], ratio - ratio.mean(), rtol=1e-11)
    assert found[3] == 0.0


# losses whose curvature jumps, and their slopes
def rennie(d):
    return xp.where(d < 0, 0.5 - d, 0.5 * xp.square(xp.maximum(1.0 - d, 0.0 * d)))


def smooth_l1(d):
    return xp.where(xp.abs(1.0 - d) < 1.0, 0.5 * xp.square(1.0 - d), xp.abs(1.0 - d) - 0.5)


def huber(d):
    near = xp.minimum(xp.abs(1.0 - d), 0.5 + 0.0 * d)
    return near * (xp.abs(1.0 - d) - 0.5 * near)


KNEES = {rennie: (-1.0, 0.0), smooth_l1: (-1.0, 1.0), huber: (-0.5, 0.5)}
jumping = pytest.mark.parametrize("loss", KNEES, ids=lambda loss: loss.__name__)


def imbalance(loss, p, q, r):
    """Largest residual of an outcome divided by its mass, of every prompt."""
    slope = np.clip(r[..., :, None] - r[..., None, :] - 1.0, *KNEES[loss])
    up = p[..., :, None] * q[..., None, :] * slope
    down = q[..., :, None] * p[..., None, :] * np.swapaxes(slope, -1, -2)
    return np.abs((up - down).sum(-1) / (p + q)).max(-1)


@jumping
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_jumps_of_the_curvature_jam_no_step(loss, alpha):
    """300 laws of 2 to 12 outcomes, some at once, and some of them alone."""
    rng = np.random.default_rng(0)
    for n in range(2, 13):
        p, q = rng.dirichlet(np.full(n, alpha), (2, 28))
        found = pair_response.of_laws(p, q, loss)
        assert imbalance(loss, p, q, found).max() <= 1e-12
        alone = [pair_response.of_laws(p[k], q[k], loss) for k in range(2)]
        np.testing.assert_allclose(found[:2], alone, atol=1e-9)


@jumping
def test_two_outcomes_at_their_closed_form(loss):
    """The margin is ``1 - k x`` at odds ratio x < 1, k the largest slope."""
    least, _ = KNEES[loss]
    ratio = np.array([0.0048581 * 0.64573171 / (0.9951419 * 0.35426829), 0.99, 1e-3, 1e-12])
    p = np.stack([ratio / (1.0 + ratio), 1.0 / (1.0 + ratio)], axis=-1)
    found = pair_response.of_laws(p, np.full((4, 2), 0.5), loss)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 1.0 + least * ratio, atol=1e-12)
    p, q = np.array([0.0048581, 0.9951419]), np.array([0.35426829, 0.64573171])
    found = pair_response.of_laws(p, q, loss)
    assert found[1] - found[0] == pytest.approx(1.0 + least * ratio[0], abs=1e-12)


@pytest.mark.parametrize("loss", [rennie, smooth_l1], ids=lambda loss: loss.__name__)
def test_a_best_response_at_the_jump_itself(loss):
    """Laws all but equal: the margin is 1 - x, on the jump where nothing bends on one side."""
    for far in (0.0, 1e-15, 1e-13, 1e-9):
        p = np.array([0.5 - far, 0.5 + far])
        found = pair_response.of_laws(p, np.array([0.5, 0.5]), loss)
        expected = 1.0 - (0.5 - far) / (0.5 + far)
        assert found[1] - found[0] == pytest.approx(expected, abs=1e-12)


@jumping
@pytest.mark.parametrize("light", [1e-9, 1e-30, 1e-250])
def test_outcomes_too_light_for_the_risk_are_balanced_all_the_same(loss, light):
    rng = np.random.default_rng(1)
    for _ in range(20):
        p, q = rng.dirichlet(np.ones(5), 2)
        p[3:], q[3:] = light * p[3:], light * q[3:]
        p, q = p / p.sum(), q / q.sum()
        found = pair_response.of_laws(p, q, loss)
        assert imbalance(loss, p, q, found) <= 1e-12, (p, q)


def test_logistic_rewards_of_laws_almost_apart():
    """log p/q, where the pairs that tie some outcomes to others bend by 1e-15 only."""
    p = np.array([[1.0 - 2e-12, 1e-12, 1e-12], [0.7, 0.3 - 1e-14, 1e-14]])
    q = np.array([[3e-4, 0.2, 0.7997], [1e-16, 1e-9, 1.0 - 1e-9 - 1e-16]])
    found = pair_response.of_laws(p, q, logistic)
    np.testing.assert_allclose(centred(found, p), centred(np.log(p / q), p), atol=1e-10)


def test_where_many_rewards_are_best_there_is_none():
    """Outcome 2 may move beside outcome 0 by half a unit; a hinge has no balance at all."""
    weight = np.zeros((3, 3))
    weight[0, 1], weight[1, 0], weight[0, 2], weight[2, 0] = 1.0, 0.1, 1.0, 1.0
    with pytest.raises(NotConverged, match="many rewards may be a best response") as failed:
        pair_response.of_pairs(weight, huber)
    assert failed.value.solution.shape == (3,)
    with pytest.raises(NotConverged, match="many rewards may be a best response"):
        pair_response.of_laws(P, Q, lambda d: xp.maximum(1.0 - d, 0.0 * d))
    level = np.array([[0.3, 0.7], [0.2, 0.8]])  # where nothing is to be learnt, that is the answer
    assert not pair_response.of_laws(level, level, huber).any()
    apart = np.zeros((4, 4))  # no pair ties the two groups together
    apart[0, 1] = apart[2, 3] = 1.0
    apart[1, 0] = apart[3, 2] = 0.1
    expected = [0.475, -0.475, 0.475, -0.475]
    np.testing.assert_allclose(pair_response.of_pairs(apart, huber), expected, atol=1e-12)


class Soft(Pairwise):
    """It says nothing of its link."""

    def pair_loss(self, d):
        return logistic(d)


def test_a_response_that_is_never_drawn_does_not_move_the_link_of_laws():
    """``sigmoid(-r)``-masses balance at ``log p/q`` plus a constant, which E_q[r] = 0 fixes."""
    u = np.linspace(-3.0, 3.0, 13)
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.4, 0.0])
    drawn = np.log(p[:2] / q[:2])
    shift = (q[:2] * drawn).sum()
    for expert, own, sign in ((p, q, 1.0), (q, p, -1.0)):
        reward = Soft().reward(expert, own)
        assert reward[2] == sign * np.inf
        if sign > 0:
            np.testing.assert_allclose(reward[:2], drawn - shift, atol=1e-9)
        link = Soft().link_of(expert, own)(u)
        assert np.isfinite(link).all()
        np.testing.assert_allclose(Soft().log_odds(link, reward, expert, own), u, atol=1e-8)


@pytest.mark.parametrize("margin", [1.0, 999.0, 1000.0, 1e9])
def test_a_squared_loss_keeps_rewards_finite_whatever_its_margin(margin):
    """One-sided outcomes too: the loss rises in the end, however far that is; T9's link by m."""
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    found = pair_response.of_laws(p, q, lambda d: xp.square(d - margin)) / margin
    np.testing.assert_allclose(found - q @ found, get("ipo").reward(p, q), atol=1e-9)


@pytest.mark.parametrize("loss", [logistic, lambda d: xp.exp(-d), lambda d: (1 + d * d) ** 0.5 - d])
def test_a_loss_that_falls_for_ever_sends_one_sided_rewards_to_infinity(loss):
    found = pair_response.of_laws(np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5]), loss)
    assert np.isfinite(found[:2]).all()
    assert found[2] == -np.inf


@pytest.mark.parametrize("margin", [1.0, 12.0, 15.0])
@pytest.mark.parametrize(
    "tube",
    [lambda d: xp.log(xp.cosh(d)), lambda d: xp.log1p(xp.exp(-2.0 * d)) + d],
    ids=["log cosh", "as a softplus"],
)
def test_a_formula_that_overflows_far_out_is_solved_within_its_range(tube, margin):
    """``log cosh(d - m)`` is flat at 0, and infinite in numbers from 710 nats on."""
    p, q = np.array([0.3, 0.5, 0.2, 0.0]), np.array([0.2, 0.2, 0.3, 0.3])
    found = pair_response.of_laws(p, q, lambda d: tube(d - margin))
    pull = np.tanh(found[:, None] - found - margin)
    left = ((p[:, None] * q * pull - q[:, None] * p * pull.T).sum(-1)) / (p + q)
    np.testing.assert_allclose(left, 0.0, atol=1e-12)
    alone = pair_response.of_laws(
        np.array([1.0, 0.0]), np.array([0.5, 0.5]), lambda d: tube(d - margin)
    )
    assert alone[0] - alone[1] == pytest.approx(margin, abs=1e-9)
