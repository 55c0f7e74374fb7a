"""Occupancy games of one token, whose policies are closed forms, and their ends."""

import mpmath
import numpy as np
import pytest

from theory import TokenMDP, objectives, xp
from theory.occupancy import newton, problem
from theory.occupancy.solve import occupancy_game

GAME = TokenMDP.tree(5, 1, eos=None)
P = np.array([0.5, 0.3, 0.2, 0.0, 0.0])
REF = np.array([0.2, 0.3, 0.1, 0.4, 0.0])
with np.errstate(divide="ignore"):
    LOG_P, LOG_REF = np.log(P)[None], np.log(REF)[None]


@pytest.mark.parametrize("method", ["fast", "convex"])
def test_spins_policy_is_the_geometric_mixture(method):
    """KL(pi||p) + tau KL(pi||ref): p^(1/(1+tau)) ref^(tau/(1+tau)), only where both go."""
    found = occupancy_game(GAME, LOG_P, LOG_REF, "spin", 0.25, "equilibrium", method)
    weight = P**0.8 * REF**0.2
    policy = weight / weight.sum()
    np.testing.assert_allclose(np.exp(found.policy[0]), policy, atol=2e-7)
    assert np.isneginf(found.policy[0, 3:]).all()
    np.testing.assert_allclose(found.details["occupancy"][0], policy, atol=2e-7)
    assert found.primal == pytest.approx(-1.25 * np.log(weight.sum()), abs=1e-9)
    used = slice(0, 3)
    reward = np.log(P[used] / policy[used])
    np.testing.assert_allclose(found.reward[0, used], reward, atol=1e-6)
    assert (found.reward[0, 3:] == 0).all()


def test_spifs_policy_is_level_where_it_goes():
    """Against r = (p - pi)/(p + pi), and -1 where the expert does not go: r + r^2/2."""
    found = occupancy_game(GAME, LOG_P, LOG_REF, "spif", 0.25)
    policy = np.exp(found.policy[0])
    reward = (P[:4] - policy[:4]) / (P[:4] + policy[:4])
    level = reward + reward**2 / 2 - 0.25 * np.log(policy[:4] / REF[:4])
    np.testing.assert_allclose(level, level[0], atol=1e-8)
    np.testing.assert_allclose(found.reward[0], np.append(reward, 0.0), atol=1e-8)
    assert found.reward[0, 3] == -1
    value = (P[:4] * (reward - reward**2 / 2) - policy[:4] * (reward + reward**2 / 2)).sum()
    anchor = 0.25 * (policy[:4] * np.log(policy[:4] / REF[:4])).sum()
    assert found.primal == pytest.approx(value + anchor, abs=1e-10)
    assert found.gap <= 1e-10
    assert found.iterations <= 12


def test_the_anchor_weighs_a_tenth_by_default():
    found = occupancy_game(GAME, LOG_P, LOG_REF, "spif")
    np.testing.assert_array_equal(
        found.policy, occupancy_game(GAME, LOG_P, LOG_REF, "spif", 0.1).policy
    )


def test_states_that_no_policy_reaches_keep_a_law():
    """The reference never begins with b: after b there is a policy all the same."""
    ref = np.array([[1.0, 0.0], [0.5, 0.5], [0.4, 0.6]])
    expert = np.array([[1.0, 0.0], [0.3, 0.7], [0.5, 0.5]])
    with np.errstate(divide="ignore"):
        given = np.log(expert), np.log(ref)
    found = occupancy_game(TokenMDP.tree(2, 2, eos=None), *given, "spif", 0.25)
    policy = np.exp(found.policy)
    np.testing.assert_allclose(policy.sum(-1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(policy[0], [1.0, 0.0], atol=1e-12)
    assert 0.3 < policy[1, 0] < 0.5


@pytest.mark.parametrize("tau", [0.1, 0.5, 3.0])
def test_a_round_of_inertia_beta_is_the_softmax_of_reward_anchor_and_policy(tau):
    """pi' = softmax((R + tau log ref + beta log pi)/(beta + tau)), beta tau/4 or fourfold so."""
    game = problem.OccupancyProblem.build(
        TokenMDP.tree(3, 1, eos=None), LOG_P[:, :3] - np.log(P[:3].sum()),
        LOG_REF[:, :3] - np.log(REF[:3].sum()), objectives.get("spif"), tau, "equilibrium",
    )  # fmt: skip
    policy = np.array([0.1, 0.2, 0.7])
    found = newton._round(game, game.evaluate(np.log(policy)[None]))
    expert, ref = P[:3] / P[:3].sum(), REF[:3] / REF[:3].sum()
    reward = (expert - policy) / (expert + policy)
    distances = []
    for beta in 0.25 * tau * 4.0 ** np.arange(6):
        logits = (reward + tau * np.log(ref) + beta * np.log(policy)) / (beta + tau)
        weight = np.exp(logits)
        distances.append(np.abs(found.policy[0] - weight / weight.sum()).max())
    assert min(distances) < 1e-12


def test_a_potential_far_beyond_the_experts_mass_keeps_its_digits():
    """GAIL's Phi is all but 0 there, of which a difference of masses of order one keeps none."""
    gail = objectives.get("gail")
    expert, mass = np.array([1e-12, 1e-9, 0.3]), np.array([0.9, 0.5, 0.2])
    ratio = np.log(expert / mass)
    found = problem._potential(gail, expert, mass, ratio, problem._offset(gail))

    def slope(v):  # R(v) e^-v, of which Phi(e^-u) is the integral from 0 to u
        return mpmath.log1p(mpmath.exp(v)) * mpmath.exp(-v)

    exact = [float(mpmath.quad(slope, [0, u / 2, u])) for u in ratio] * expert
    np.testing.assert_allclose(found, exact, rtol=1e-9)


class Clipped(objectives.Pointwise):
    """The reward (p - q)/(p + q) within [-0.2, 0.6], where its link has corners."""

    name = "clipped"

    def a(self, r):
        return r - 0.5 * r * r

    def b(self, r):
        return -r - 0.5 * r * r

    def link_formula(self, u, delta):
        t = xp.tanh(0.5 * u)
        t = xp.where(t < -0.2, -0.2 + 0.0 * t, t)
        return xp.where(t > 0.6, 0.6 + 0.0 * t, t)


def test_a_potential_of_a_clipped_link_is_integrated_piece_by_piece():
    """Of tanh(v/2): ``2 log(2/(1 + x)) - (1 - x)`` at x = e^-v; of a bound: its multiple of x."""
    ratio = np.array([-700.0, -30.0, -1.0, -0.1, 0.0, 0.4, 1.3, 2.0, 40.0, 690.0, np.inf])
    low, high = -2 * np.arctanh(0.2), 2 * np.arctanh(0.6)

    def inside(x):
        return 2 * np.log(2 / (1 + x)) - (1 - x)

    x, ends = np.exp(-ratio), np.exp(-np.array([low, high]))
    exact = inside(np.clip(x, ends[1], ends[0]))
    exact += 0.2 * np.maximum(x - ends[0], 0.0) + 0.6 * np.maximum(ends[1] - x, 0.0)
    found = problem.integrated_link(Clipped(), ratio)
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-16)
    np.testing.assert_allclose(
        problem._potential(Clipped(), np.ones(11), x, ratio, 0.0), exact, rtol=1e-12, atol=1e-16
    )
