"""Formulas that meet at 0, and rewards and losses in units of any size: nothing depends on them."""

import numpy as np
import pytest

from theory import check_objective, equilibrium, self_play, theory_card, xp
from theory.errors import Unavailable
from theory.objectives import Group, Pairwise, Pointwise
from theory.rounds.one_step import local_rate_one_step, one_step_round

P, Q = [0.5, 0.3, 0.15, 0.05], [0.2, 0.3, 0.1, 0.4]


class Huberised(Pointwise):
    """Squares of the distance to 1 and -1, linear from a distance of 1 on: they meet at r = 0."""

    name = "huberised"
    citation = "an example"

    def a(self, r):
        return -self.of(r - 1.0)

    def b(self, r):
        return -self.of(r + 1.0)

    def of(self, d):
        return xp.where(xp.abs(d) <= 1.0, 0.5 * xp.square(d), xp.abs(d) - 0.5)


class Below(Huberised):
    def of(self, d):
        return xp.where(xp.abs(d) < 1.0, 0.5 * xp.square(d), xp.abs(d) - 0.5)


class Linked(Huberised):
    def link_formula(self, u, delta):
        size = -xp.expm1(-xp.abs(u))
        return xp.where(u > 0, size, -size)


@pytest.mark.parametrize("obj", [Huberised(), Below(), Linked()], ids=["<=", "<", "link"])
def test_a_slope_is_that_of_both_sides_however_the_joint_is_written(obj):
    """R(u) = sign(u) (1 - e^-|u|): R'(0) = L = 1, whose derivative at 0 itself may be of none."""
    card = theory_card(obj)
    assert card.slope_at_zero == pytest.approx(1.0, rel=1e-6)
    assert card.stability_beta == pytest.approx(0.5, rel=1e-6)
    assert pytest.approx(1.0, rel=1e-6) == card.L
    assert not card.at(0.3).locally_stable
    near = np.array([0.5, 0.3, 0.2]), np.array([0.51, 0.3, 0.19])
    kl = {b: self_play(*near, obj, rounds=12, beta=b).details["kl"] for b in (0.45, 0.55)}
    assert kl[0.45][-1] > kl[0.45][0]
    assert kl[0.55][-1] < 0.2 * kl[0.55][0]


def of_shifts(loss_unit, reward_unit):
    """Sees the level of rewards."""

    class Squares(Group):
        name = "squares"
        citation = "an example"

        def group_risk(self, r_y, r_own, w_y, w_own):
            on_expert = xp.weighted_mean(xp.square(r_y / reward_unit - 1.0), w_y)
            on_own = xp.weighted_mean(xp.square(r_own / reward_unit + 1.0), w_own)
            return loss_unit * (on_expert + on_own)

    return Squares()


UNITS = [(1.0, 1.0), (1e-10, 1.0), (1e8, 1.0), (1.0, 1e6), (1.0, 1e-6), (1e-4, 1e9)]


@pytest.mark.parametrize(("loss", "reward"), UNITS)
def test_a_loss_that_sees_the_level_sees_it_in_every_unit(loss, reward):
    obj = of_shifts(loss, reward)
    assert not obj.up_to_constant
    assert not theory_card(obj).one_step_exact
    with pytest.raises(Unavailable, match="changes when all rewards shift"):
        one_step_round(P, Q, obj, 1.0)


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        *((f"{name}={value:g})", False)
          for name in ("spif(c", "iq_learn(c", "policy_only(c", "space(mu")
          for value in (1e-11, 1.0, 1e6)),
        *((f"centred_spif(c={c:g})", True) for c in (1e-6, 1e6)),
        *((f"renyi(order={order:g})", True) for order in (1e-7, 1e-6, 0.5)),
        ("ipo(margin=1e-6)", True),
    ],
)  # fmt: skip
def test_whether_one_loss_is_a_round_does_not_depend_on_the_unit(name, exact):
    assert theory_card(name).one_step_exact is exact


def test_a_small_bound_is_a_jump_all_the_same():
    card = theory_card("ipm(bound=4e-7)")
    assert card.slope_at_zero == np.inf
    assert not card.at(1.0).locally_stable


@pytest.mark.parametrize(("name", "beta"), [("spif(c=501)", 1 / 501), ("iq_learn(c=1e5)", 1e-5)])
def test_the_factor_of_a_one_step_round_in_small_rewards(name, beta):
    assert local_rate_one_step(name, beta) == pytest.approx(0.5)


def logistic(loss_unit, reward_unit):
    class Logistic(Pairwise):
        name = "logistic"
        citation = "an example"

        def pair_loss(self, d):
            return loss_unit * xp.softplus(-d / reward_unit)

    return Logistic()


@pytest.mark.parametrize(("loss", "reward"), UNITS)
def test_a_pair_loss_in_every_unit(loss, reward):
    obj = logistic(loss, reward)
    assert obj.slope_at_zero == pytest.approx(reward)
    assert theory_card(obj).one_step_exact
    found = equilibrium(P, Q, obj, tau=0.1 * reward)
    assert found.converged
    np.testing.assert_allclose(found.policy, equilibrium(P, Q, "spin", tau=0.1).policy, atol=1e-6)


def test_a_loss_without_curvature_at_zero_is_told_so():
    class Quartic(Pairwise):
        name = "quartic"
        citation = "an example"

        def pair_loss(self, d):
            return d**4 - d

    with pytest.raises(Unavailable, match="no curvature at equal laws"):
        _ = Quartic().slope_at_zero


@pytest.mark.parametrize("loss", [1e-12, 1.0, 1e12])
def test_a_wrong_link_is_found_in_every_unit_of_the_loss(loss):
    class Scaled(Pointwise):
        name = "scaled"
        citation = "an example"

        def a(self, r):
            return loss * (r - 0.5 * xp.square(r))

        def b(self, r):
            return -loss * (r + 0.5 * xp.square(r))

    class Wrong(Scaled):
        def link_formula(self, u, delta):
            return 0.9 * xp.tanh(0.5 * u)

    assert "the link contradicts a and b" in str(check_objective(Wrong()))
    assert "contradicts" not in str(check_objective(Scaled()))
    assert Scaled().slope_at_zero == pytest.approx(0.5)
