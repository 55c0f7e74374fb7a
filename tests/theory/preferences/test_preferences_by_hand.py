"""Preference games of two and three outcomes: equilibria, gaps and rounds by hand."""

import numpy as np
import pytest

from theory import laws, objectives, preferences, xp
from theory.objectives import Group
from theory.preferences.games import preference_problems

ROCK = preferences.rock_paper_scissors()
START, REF = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.3, 0.1])


@pytest.mark.parametrize("shape", [(3,), (2, 3), (0, 0), (4, 1, 2)])
def test_a_preference_compares_as_many_with_as_many(shape):
    assert preference_problems(np.full(shape, 0.5)) == [
        f"P: shape {shape}; needed is (..., n, n) with n >= 1"
    ]
    assert preference_problems(np.full((2, 3, 3), 0.5)) == []


def test_what_is_wrong_with_a_preference_is_named_where_it_is():
    bad = np.array([[0.5, 0.9], [0.3, 0.6]])
    diagonal, lopsided = preference_problems(bad)
    assert diagonal == ("P: diagonal at (1, 1) (0.6, 1 in all); needed is 1/2 against itself")
    assert lopsided == ("P: P + P^T at (0, 1) (1.2, 2 in all); needed is P(y > y') + P(y' > y) = 1")


def gibbs(law, payoff, tau):
    weight = law * np.exp(payoff / tau)
    return weight / weight.sum()


def test_gaps_of_a_policy():
    """Paper's margin over (0.5, 0.3, 0.2) is 0.3; the soft response knows the anchor."""
    margin = (2 * ROCK - 1) @ START
    np.testing.assert_allclose(margin, [-0.1, 0.3, -0.2])
    assert preferences.duality_gap(ROCK, START) == pytest.approx(0.3)
    assert preferences.exploitability(ROCK, START) == pytest.approx(0.15)
    answer = gibbs(REF, 0.7 * margin, 0.4)
    gap = 0.4 / 0.7 * (START * np.log(START / answer)).sum()
    assert preferences.regularised_gap(ROCK, START, REF, 0.4, 0.7) == pytest.approx(gap)


def test_an_equilibrium_that_is_not_reached_says_by_how_much():
    """One pivot is not enough: the uniform policy, and what the best answers win and lose."""
    rng = np.random.default_rng(0)
    game = preferences.random_preference(rng, 7)
    found = preferences.nash(game, raise_on_failure=False, max_iterations=1)
    assert not found.converged
    won = game @ found.policy
    assert found.primal == pytest.approx(won.max())
    assert found.dual == pytest.approx(1 - won.max())
    assert found.gap == pytest.approx(2 * won.max() - 1)
    np.testing.assert_allclose(found.reward, 2 * won - 1)
    assert found.gap > 0.01
    exact = preferences.nash(game)
    assert exact.gap < 1e-12
    assert exact.primal == pytest.approx(0.5)


def test_the_anchored_equilibrium_is_its_own_soft_response():
    found = preferences.regularised_nash(ROCK, REF, 0.05, 0.7)
    payoff = 0.7 * (2 * ROCK - 1) @ found.policy
    np.testing.assert_allclose(found.policy, gibbs(REF, payoff, 0.05), atol=1e-12)
    np.testing.assert_allclose(found.reward, payoff, atol=1e-14)
    assert found.iterations <= 40
    off = preferences.regularised_nash(
        ROCK, REF, 0.05, 0.7, raise_on_failure=False, max_iterations=1
    )
    answer = gibbs(REF, 0.7 * (2 * ROCK - 1) @ off.policy, 0.05)
    gap = 0.05 / 0.7 * (off.policy * np.log(off.policy / answer)).sum()
    assert off.gap == pytest.approx(gap, rel=1e-9)
    assert off.primal == pytest.approx(0.5 + gap / 2)
    assert off.dual == pytest.approx(0.5 - gap / 2)


def test_three_rounds_of_inpo_one_by_one():
    """Reward (2P - 1)/2 against the policy, pi^(beta/s) ref^(tau/s) e^(r/s), s = beta + tau."""
    betas, tau = [1.0, 2.0, 4.0], 0.5
    found = preferences.self_play(ROCK, START, "inpo", betas, 3, REF, tau)
    scale = found.details["scale"]
    path = [START]
    for beta in betas:
        reward = scale * (2 * ROCK - 1) @ path[-1]
        weight = (path[-1] ** beta * REF**tau * np.exp(reward)) ** (1 / (beta + tau))
        path.append(weight / weight.sum())
    np.testing.assert_allclose(found.policies, path, atol=1e-14)
    np.testing.assert_allclose(found.reward, scale * (2 * ROCK - 1) @ path[-1], atol=1e-14)
    average = (path[0] + path[1] / 2 + path[2] / 4) / 1.75
    np.testing.assert_allclose(found.details["average"], average)
    margins = (2 * ROCK - 1) @ np.array([*path, average]).T
    gaps = margins.max(0)
    np.testing.assert_allclose(found.details["duality_gap"], gaps[:4])
    assert found.details["average_gap"] == pytest.approx(gaps[4])
    last = preferences.regularised_gap(ROCK, path[-1], REF, tau, scale)
    assert found.gap == pytest.approx(last, rel=1e-9)
    assert found.primal == found.gap
    moved = laws.total_variation(path[-1], path[-2])
    assert f"the last round moved {moved:.1e}" in found.status
    assert "beta 1 to 4, tau 0.5" in found.status
    assert found.iterations == 3


class Centred(Group):
    """Centred SPIF at c = 1, which says nothing of its link."""

    name = "centred"
    citation = "an example"

    def group_risk(self, r_y, r_own, w_y, w_own):
        up, down = xp.weighted_mean(r_y, w_y), xp.weighted_mean(r_own, w_own)
        spread = xp.weighted_mean(xp.square(r_y - up[..., None]), w_y)
        spread = spread + xp.weighted_mean(xp.square(r_own - down[..., None]), w_own)
        return 0.5 * spread + xp.square(0.5 * (up - down) - 1.0)


def test_a_group_risk_without_a_link_has_the_reward_of_its_link():
    """Of mean 0 under the policy; for outcomes that are never drawn as well; at rare ones too."""
    rng = np.random.default_rng(0)
    ours, written = Centred(), objectives.get("centred_spif")
    for law in ([0.5, 0.3, 0.2], [0.6, 0.4, 0.0], [1e-18, 0.7, 0.3]):
        wins = rng.uniform(0.1, 0.9, (3, 3))
        P = np.triu(wins, 1) + np.tril(1.0 - wins.T, -1) + 0.5 * np.eye(3)
        P[0, 1:], P[1:, 0] = (1.0, 0.0) if law[0] < 1e-9 else (P[0, 1:], P[1:, 0])
        found = preferences.reward(P, law, ours)
        np.testing.assert_allclose(found, preferences.reward(P, law, written), atol=1e-9)
        assert abs(np.dot(law, found)) <= 1e-12
    assert preferences.payoff_scale(ours) == pytest.approx(1.0, abs=1e-12)


def test_an_average_weighs_rounds_by_1_over_beta():
    """Of policies that rewards were given to, steps longer than a nat as well."""
    path = preferences.self_play(ROCK, START, "sppo", [0.25, 4.0], 2)
    weights = np.array([4.0, 0.25])
    expected = weights @ np.asarray(path.policies)[:2] / weights.sum()
    np.testing.assert_allclose(path.details["average"], expected, atol=1e-12)


def test_an_equilibrium_for_prompts_on_several_axes():
    rng = np.random.default_rng(0)
    wins = rng.uniform(0.1, 0.9, (2, 3, 4, 4))
    P = np.triu(wins, 1) + np.tril(1.0 - np.swapaxes(wins, -1, -2), -1) + 0.5 * np.eye(4)
    together = preferences.nash(P)
    assert together.policy.shape == (2, 3, 4)
    for at in np.ndindex(2, 3):
        np.testing.assert_allclose(together.policy[at], preferences.nash(P[at]).policy, atol=1e-9)
        assert (P[at] @ together.policy[at]).max() <= 0.5 + 1e-9
