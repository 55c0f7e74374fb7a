"""Formulas with corners, without limits, or that contradict each other: told before work."""

import numpy as np
import pytest

from theory import (
    check_objective,
    equilibrium,
    objectives,
    saddle_point,
    self_play,
    theory_card,
    xp,
)
from theory.errors import Unavailable
from theory.objectives import Pairwise, Pointwise
from theory.rounds.one_step import local_rate_one_step, one_step_round

P, Q = [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]


class Parabolas(Pointwise):
    """SPIF's payoffs at c = 1."""

    name = "parabolas"

    def a(self, r):
        return r - 0.5 * xp.square(r)

    def b(self, r):
        return -r - 0.5 * xp.square(r)


class NoLimit(Parabolas):
    """tanh(u/2) as a quotient, which is NaN where e^u is infinite."""

    def link_formula(self, u, delta):
        return (xp.exp(u) - 1.0) / (xp.exp(u) + 1.0)


def problem_of(obj):
    """The first line of its check."""
    return str(check_objective(obj)).splitlines()[0]


def test_a_link_without_a_limit_is_refused_before_work():
    for work in (
        lambda o: equilibrium([*P, 0.0], [0.25] * 4, o, tau=0.5),
        lambda o: saddle_point(P, [0.5, 0.5, 0.0], o, tau=0.5),
        lambda o: self_play(P, Q, o, beta=1.0),
        lambda o: o.reward_bounds,
    ):
        with pytest.raises(Unavailable, match="NaN at log-ratio inf"):
            work(NoLimit())
    assert "problem: parabolas: link_formula is NaN at log-ratio inf" in problem_of(NoLimit())


class SmoothL1(Pairwise):
    """Torch's smooth L1 loss of the margin's distance to 1: its slope has a corner at d = 0."""

    name = "smooth L1"

    def pair_loss(self, d):
        gap = xp.abs(d - 1.0)
        return xp.where(gap <= 1.0, 0.5 * gap * gap, gap - 0.5)


class OtherSide(SmoothL1):
    """The same, with the corner on the other branch."""

    def pair_loss(self, d):
        gap = xp.abs(d - 1.0)
        return xp.where(gap < 1.0, 0.5 * gap * gap, gap - 0.5)


class Hinge(Pairwise):
    """Rennie's smooth hinge."""

    name = "smooth hinge"

    def pair_loss(self, d):
        return xp.where(d < 0.0, 0.5 - d, 0.5 * xp.square(xp.relu(1.0 - d)))


@pytest.mark.parametrize("obj", [SmoothL1(), OtherSide(), Hinge()])
def test_a_pair_loss_whose_slope_has_a_corner_is_curved_by_both_sides(obj):
    """R'(0) = -l'(0)/(l''(0+) + l''(0-)) = 1, as of the best response itself."""
    assert obj.slope_at_zero == pytest.approx(1.0, rel=1e-9)
    p = np.array([0.4, 0.3, 0.2, 0.1])
    q = p * [1.001, 0.999, 1.0005, 0.999]
    q /= q.sum()
    u, reward = np.log(p / q), obj.reward(p, q)
    assert np.polyfit(u, reward, 1)[0] == pytest.approx(1.0, rel=1e-3)
    kl = self_play(p, q, obj, effective_step=1.25, rounds=8, progress=False).details["kl"]
    np.testing.assert_allclose(kl[6] / kl[5], 0.25**2, rtol=0.05)


class Lopsided(Pointwise):
    """A penalty four times as large on negative rewards: slopes 1/2 and 2 on the sides of 0."""

    name = "lopsided"

    def penalty(self, r):
        return xp.where(r > 0.0, 0.125 * xp.square(r), 0.5 * xp.square(r))

    def a(self, r):
        return r - self.penalty(r)

    def b(self, r):
        return -r - self.penalty(r)


class LopsidedLink(Lopsided):
    """The same with its link."""

    def link_formula(self, u, delta):
        return xp.where(u > 0.0, 4.0 * xp.tanh(0.5 * u), xp.tanh(0.5 * u))


@pytest.mark.parametrize("obj", [Lopsided(), LopsidedLink()])
def test_a_link_with_a_corner_at_zero_has_no_slope_there(obj):
    with pytest.raises(Unavailable, match=r"a corner, 0\.5 on its left and 2 on its right"):
        obj.beta_at(1.0)
    card = theory_card(obj)
    np.testing.assert_allclose([card.mu, card.L], [0.0, 2.0], atol=1e-6)
    with pytest.raises(Unavailable, match="corner at 0"):
        local_rate_one_step(obj, 1.0)
    assert problem_of(obj).startswith("checked: lopsided")


class DeadZone(Parabolas):
    """A payoff with a corner at 0: 0 is the best response to log-ratios from log .8 to log 4/3."""

    def a(self, r):
        return r - 0.25 * xp.abs(r) - 0.5 * xp.square(r)


def test_payoffs_with_a_corner_have_a_dead_zone_and_no_slope_in_it():
    obj = DeadZone()
    np.testing.assert_allclose(obj.link(np.log([0.81, 1.0, 1.33])), 0.0, atol=1e-9)
    assert obj.slope_at_zero == 0.0
    with pytest.raises(Unavailable, match="flat at 0"):
        obj.beta_at(1.0)
    with pytest.raises(Unavailable, match="corner at 0"):
        local_rate_one_step(obj, 1.0)
    assert problem_of(obj).startswith("checked: parabolas")


class Mixing(Parabolas):
    """Own responses are in part those of the base."""

    def opponent(self, log_current, log_initial, log_base):
        return xp.log_normalise(0.5 * log_current + 0.5 * log_base)


class NoLaw(Parabolas):
    """The same, not normalised."""

    def opponent(self, log_current, log_initial, log_base):
        return 0.5 * log_current + 0.5 * log_base


def test_rounds_from_another_law_have_no_equilibrium_of_the_game():
    """They rest elsewhere: SPIF's equilibrium with this anchor is not where they end."""
    with pytest.raises(Unavailable, match=r"its opponent, which is not pi_t"):
        equilibrium(P, Q, Mixing(), tau=0.1)
    rest = self_play(P, Q, Mixing(), beta=1.0, rounds=300, ref=Q, tau=0.1, progress=False).policy
    assert np.abs(rest - equilibrium(P, Q, "spif", tau=0.1).policy).max() > 0.05
    assert "do not sum to 1" in problem_of(NoLaw())
    assert problem_of(Mixing()).startswith("checked: parabolas")


class Held(Parabolas):
    """Rewards within a range, which a loss of implicit rewards cannot hold."""

    @property
    def reward_domain(self):
        return -0.2, 0.6

    def link_formula(self, u, delta):
        free = xp.tanh(0.5 * u)
        return xp.minimum(xp.maximum(free, 0.0 * free - 0.2), 0.0 * free + 0.6)


def test_rewards_that_are_held_in_a_range_have_no_loss():
    with pytest.raises(Unavailable, match=r"held within \(-0\.2, 0\.6\), implicit ones are not"):
        one_step_round(P, Q, Held(), 1.0)
    assert self_play(P, Q, Held(), beta=1.0, rounds=5, progress=False).primal.size == 1


class OtherTerm(Parabolas):
    """Trains another term than it solves."""

    def policy_term(self, r, **extras):
        return 0.3 * (r + 0.5 * xp.square(r))


class OtherMargin(Pairwise):
    """Trains another margin than it solves."""

    name = "other margin"

    def pair_loss(self, d):
        return xp.square(d - 1.0)

    def reward_loss(self, r_y, r_own, **extras):
        return xp.square(r_y - r_own - 3.0)


class OtherRisk(OtherMargin):
    """Its risk is not the mean of its loss."""

    def reward_loss(self, r_y, r_own, **extras):
        return self.pair_loss(r_y - r_own)

    def reward_risk(self, r_y, r_own, w_y=None, w_own=None, **extras):
        return 2.0 * super().reward_risk(r_y, r_own, w_y, w_own)


@pytest.mark.parametrize(
    ("obj", "said"),
    [
        (OtherTerm(), "the loss that is trained is not -a(r) - b(r')"),
        (OtherMargin(), "the loss that is trained is not pair_loss"),
        (OtherRisk(), "where the mean loss is"),
    ],
)
def test_the_loss_that_is_trained_is_the_one_that_is_solved(obj, said):
    assert said in problem_of(obj)


def test_all_built_in_objectives_pass():
    for name in objectives.names():
        assert str(check_objective(name)).startswith("checked"), name
