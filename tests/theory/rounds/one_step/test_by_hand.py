"""One-step rounds of small laws: the equations by hand, the least risk by trying all laws."""

import numpy as np
import pytest

from theory import xp
from theory.objectives import Pointwise
from theory.rounds import one_step_global
from theory.rounds.one_step import one_step_round


def spif_slopes(r):
    return 1 - r, -1 - r


def airl_slopes(r):
    s = 1 / (1 + np.exp(-r))
    return 1 - s, -s


def spif_risk(p, q, r):
    return -p * (r - r**2 / 2) + q * (r + r**2 / 2)


def check_equations(found, p, q, beta, slopes):
    """beta f'(r) = lambda pi with f = -p a - q b and r = beta log(pi/q), and sum pi = 1."""
    assert found.policy.sum() == pytest.approx(1.0, abs=1e-12)
    np.testing.assert_allclose(found.reward, beta * np.log(found.policy / q), atol=1e-9)
    up, down = slopes(found.reward)
    force = -beta * (p * up + q * down)
    np.testing.assert_allclose(force, found.multiplier * found.policy, atol=1e-11)


def test_where_the_two_step_weights_exceed_one_the_minimum_is_certified_at_once():
    p, q = np.array([0.9, 0.1]), np.array([0.5, 0.5])
    for branch in ("near", "global"):
        found = one_step_round(p, q, "spif", 0.1, branch=branch)
        check_equations(found, p, q, 0.1, spif_slopes)
        assert found.multiplier < 0
        assert found.gap == 0
        assert found.certified
        assert (found.dumped, found.dumped_mass) == (-1, 0)
        assert found.status.startswith("certified: the least risk, to within 0.0e+00 nats")


@pytest.mark.parametrize(
    ("p", "q", "beta"),
    [
        ([0.6, 0.4], [0.5, 0.5], 1.0),
        ([0.2, 0.8], [0.3, 0.7], 3.0),
        ([1.0, 0.0], [0.1, 0.9], 0.7),
        ([0.999, 0.001], [0.001, 0.999], 2.0),
        ([0.5, 0.5], [1e-3, 0.999], 0.2),
        ([0.5, 0.5], [1e-6, 1 - 1e-6], 0.02),
    ],
)
def test_the_global_minimum_over_two_outcomes(p, q, beta):
    """Against the risk of all laws of two outcomes."""
    p, q = np.array(p), np.array(q)
    side = np.geomspace(1e-12, 0.5, 20001)
    law = np.stack([np.append(side, 1 - side), np.append(1 - side, side)], -1)
    least = spif_risk(p, q, beta * np.log(law / q)).sum(-1).min()
    found = one_step_round(p, q, "spif", beta, branch="global")
    check_equations(found, p, q, beta, spif_slopes)
    risk = spif_risk(p, q, found.reward).sum()
    assert found.certified
    assert risk - found.gap <= least + 1e-12
    assert risk == pytest.approx(least, abs=2e-6)
    assert risk <= least + 1e-9
    curvature = beta**2 * (p + q) - found.multiplier * found.policy
    assert found.dumped == (np.argmin(curvature) if curvature.min() < 0 else -1)
    said = "one outcome is on its far branch on 1 of 1" in found.status
    assert said == (found.dumped >= 0)
    assert found.dumped_mass == (found.policy[found.dumped] if found.dumped >= 0 else 0)


def test_a_search_that_stops_early_certifies_nothing(monkeypatch):
    given = [0.5, 0.5], [1e-3, 0.999], "spif", 0.2
    assert one_step_round(*given, branch="global").certified
    monkeypatch.setattr(one_step_global, "ROUNDS", 0)
    assert not one_step_round(*given, branch="global").certified


@pytest.mark.parametrize(
    ("p", "q", "beta", "ends"),
    [([0.5, 0.5], [1e-3, 0.999], 0.2, False), ([0.16, 0.84], [1e-6, 1 - 1e-6], 0.095, True)],
)
def test_the_near_branch_over_its_fold(p, q, beta, ends):
    """Beyond the fold the mass may rise to one, or have a peak below one."""
    p, q = np.array(p), np.array(q)
    found = one_step_round(p, q, "spif", beta)
    check_equations(found, p, q, beta, spif_slopes)
    assert (found.dumped, found.dumped_mass) == (0, found.policy[0])
    assert not found.certified
    assert "not certified on 1 of 1 prompts (near branch: a local minimum at Z < 1" in found.status
    assert "one outcome is on its far branch on 1 of 1 prompts" in found.status
    assert ("ends at its fold on 1 of 1" in found.status) == ends


@pytest.mark.parametrize(
    ("p", "q"), [([0.7, 0.3, 0.0], [0.3, 0.3, 0.4]), ([1.0, 0.0], [0.71, 0.29])]
)
def test_an_outcome_without_expert_mass_may_want_mass(p, q):
    """AIRL pays -inf there, its two-step mass 0; at Z = sum sqrt(p q) < 1 it has some."""
    p, q = np.array(p), np.array(q)
    found = one_step_round(p, q, "airl", 2.0)
    check_equations(found, p, q, 2.0, airl_slopes)
    assert found.multiplier > 0
    assert (found.policy > 0).all()
    assert found.dumped == -1
    assert "fold" not in found.status


def test_shift_invariant_rounds_of_two_prompts():
    p, q = np.array([[0.7, 0.3]] * 2), np.array([[0.4, 0.6], [0.1, 0.9]])
    ref = np.array([[0.5, 0.2, 0.3], [0.2, 0.5, 0.3]])
    padded = (np.pad(law, ((0, 0), (0, 1))) for law in (p, q))
    found = one_step_round(*padded, "spin", 0.8, ref, 0.5)
    assert (found.reward[:, 2] == 0).all()
    assert (found.policy[:, 2] == 0).all()
    law = found.policy[:, :2]
    weight = p ** (1 / 1.3) * q ** (-0.2 / 1.3) * ref[:, :2] ** (0.5 / 1.3)
    np.testing.assert_allclose(law, weight / weight.sum(-1, keepdims=True), atol=1e-14)
    reward = 0.8 * np.log(law / q) + 0.5 * np.log(law / ref[:, :2])
    np.testing.assert_allclose(found.reward[:, :2], reward, atol=1e-13)
    assert found.multiplier.tolist() == found.gap.tolist() == [0, 0]
    assert found.dumped.tolist() == [-1, -1]
    assert found.certified.all()
    assert found.certified.shape == (2,)


class Bumpy(Pointwise):
    """SPIF with a dent in its own payoff near r = 0.7, of curvature 40."""

    name = "bumpy"

    def a(self, r):
        return r - r**2 / 2

    def b(self, r):
        return -r - r**2 / 2 + 0.2 * xp.exp(-100 * xp.square(r - 0.7))

    def link_formula(self, u, delta):
        return xp.tanh(0.5 * u)


def test_a_loss_of_another_shape_certifies_nothing():
    found = one_step_round([0.52, 0.48], [0.5, 0.5], Bumpy(), 1.0)
    assert found.converged
    assert not found.certified
    assert "the loss is not convex, then concave, in each mass" in found.status
