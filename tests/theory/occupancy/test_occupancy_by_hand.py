"""Occupancy games of one token, whose policies are closed forms, and their ends."""

import numpy as np
import pytest

from theory import TokenMDP
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
