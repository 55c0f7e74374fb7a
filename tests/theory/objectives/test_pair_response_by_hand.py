"""Best responses to pair losses found by numbers, against sums and roots written out here."""

import numpy as np
import pytest

from theory import xp
from theory.errors import InvalidInput
from theory.objectives import pair_response

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
