"""Bounds of what a player can still gain, against maxima worked by hand."""

from types import SimpleNamespace

import numpy as np
import pytest

from theory import certificate, equilibrium, objectives, saddle_point, xp
from theory.equilibria import newton
from theory.equilibria.problem import checked
from theory.equilibria.solve import certified
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Pointwise

SPIF = objectives.get("spif")
P = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
Q = np.array([[0.3, 0.3, 0.4], [0.6, 0.3, 0.1]])
REF = np.array([0.2, 0.5, 0.3])


class Exponential(Pointwise):
    """a = r, b = -e^r: best at log(p/q), with p and q apart unbounded on each side."""

    name = "exponential pay"

    def a(self, r):
        return r

    def b(self, r):
        return -xp.exp(r)


@pytest.mark.parametrize("tau", [0.05, 1.0, 30.0, 1e3, 1e6])
def test_the_soft_maximum_to_its_last_digits(tau):
    """SPIN's bound is -tau log E_ref e^{r/tau}; r = log(p/q) near its mean, or far from it."""
    apart = np.array([[1.0, -2.0, 0.5], [0.1, 0.12, 0.1], [0.0, 0.0, 8.0]])
    p = 0.3 * np.exp(apart)
    p /= p.sum(-1, keepdims=True)
    q = np.full((3, 3), 1.0 / 3.0)
    r, ref = (np.log(p) - np.log(q)).astype(np.longdouble), REF.astype(np.longdouble)
    top = r.max(-1, keepdims=True)
    exact = top[:, 0] + tau * np.log((ref * np.exp((r - top) / tau)).sum(-1))
    _, bound = certificate.equilibrium_bounds(objectives.get("spin"), p, q, REF, tau)
    np.testing.assert_allclose(bound, -exact.astype(float), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("tau", [0.25, 1.0])
def test_an_anchor_of_any_weight_is_in_the_bounds(tau):
    reward = (P - Q) / (P + Q)
    value, bound = certificate.equilibrium_bounds(SPIF, P, Q, REF, tau)
    plain, _ = certificate.equilibrium_bounds(SPIF, P, Q, None, 0.0)
    np.testing.assert_allclose(value - plain, tau * (Q * np.log(Q / REF)).sum(-1), rtol=1e-11)
    best = tau * np.log((REF * np.exp(reward / tau)).sum(-1))
    np.testing.assert_allclose(bound, plain + (Q * reward).sum(-1) - best, rtol=1e-11)


def test_bounds_of_spifs_equilibrium():
    """D = 2 KL(p || (p+q)/2), whose gradient in q is -(p - q)/(p + q)."""
    divergence = (2 * P * np.log(2 * P / (P + Q))).sum(-1)
    reward = (P - Q) / (P + Q)
    linear = divergence + (Q * reward).sum(-1)
    value, bound = certificate.equilibrium_bounds(SPIF, P, Q, None, 0.0)
    np.testing.assert_allclose(value, divergence, rtol=1e-12)
    np.testing.assert_allclose(bound, linear - reward.max(-1), rtol=1e-11)
    value, bound = certificate.equilibrium_bounds(SPIF, P, Q, REF, 0.25)
    anchored = divergence + 0.25 * (Q * np.log(Q / REF)).sum(-1)
    np.testing.assert_allclose(value, anchored, rtol=1e-12)
    soft = 0.25 * np.log((REF * np.exp(reward / 0.25)).sum(-1))
    np.testing.assert_allclose(bound, linear - soft, rtol=1e-11)


def test_a_parabolas_gain_is_half_its_curvature_times_the_square():
    """(p - q) r - 0.3 (p + q) r^2/2, also where one side has no mass."""
    p, q = np.array([0.5, 0.1, 0.4, 0.0]), np.array([0.2, 0.3, 0.0, 0.5])
    best = (p - q) / (p + q) / 0.3
    for r in (best, np.zeros(4), best + 7.0, np.array([-30.0, 4.0, 3.0, 9.0])):
        gain = certificate.reward_gain(objectives.get("spif", c=0.3), p, q, r)
        np.testing.assert_allclose(gain, 0.15 * (p + q) * (best - r) ** 2, rtol=1e-11, atol=1e-15)


def test_the_gain_of_an_exponential_payoff_far_from_its_best():
    p, q = np.array([0.5, 0.1, 0.3]), np.array([0.25, 0.4, 0.3])
    best = np.log(p / q)
    for r in (best + 20.0, best - 20.0, best + 0.5):
        exact = p * (best - r) - q * (np.exp(best) - np.exp(r))
        gain = certificate.reward_gain(Exponential(), p, q, r)
        np.testing.assert_allclose(gain, exact, rtol=1e-9)
    endless = certificate.reward_gain(Exponential(), np.array([0.2]), np.zeros(1), np.zeros(1))
    assert endless.tolist() == [np.inf]


def test_one_bad_prompt_of_two_is_named():
    game = checked("equilibrium", P, REF, SPIF, 0.3, "fast", None, 10)
    good = equilibrium(P, REF, SPIF, 0.3).policy
    found = certified(game, np.array([good[0], [0.4, 0.4, 0.2]]), 0, "nobody", 1e-9, False)
    assert found.gap[0] < 1e-12 < 1e-3 < found.gap[1]
    assert not found.converged
    assert "certified gap" in found.status
    assert "above the tolerance" in found.status
    reward = (P[1] - found.policy[1]) / (P[1] + found.policy[1])
    target = REF * np.exp(reward / 0.3)
    log_target = np.log(target / target.sum())
    exact = 0.3 * (found.policy[1] * (np.log(found.policy[1]) - log_target)).sum()
    assert found.gap[1] == pytest.approx(exact, rel=1e-7)  # a reward nearby proves a bit more


class Parabola(Pointwise):
    """a = -(1 - r)^2, b = -(1 + r)^2: beyond +-1 each turns."""

    name = "parabola"

    def a(self, r):
        return -xp.square(1 - r)

    def b(self, r):
        return -xp.square(1 + r)


def test_the_gain_where_one_side_turns_at_the_best_reward():
    """Without own mass the best is 1, exactly where a turns; without expert mass it is -1."""
    p, q = np.array([0.5, 0.0, 0.5, 0.0]), np.array([0.0, 0.3, 0.0, 0.3])
    gain = certificate.reward_gain(Parabola(), p, q, np.array([0.25, 0.25, 4.0, -7.0]))
    exact = [0.5 * 0.75**2, 0.3 * 1.25**2, 0.5 * 9.0, 0.3 * 36.0]
    np.testing.assert_allclose(gain, exact, rtol=1e-12)


class Ratio(Pointwise):
    """a = log r, b = -r (r > 0) in a small unit: best at p/q, and a pulls without end at 0."""

    name = "density ratio"
    reward_domain = (0.0, np.inf)

    def a(self, r):
        return 1e-12 * xp.log(r)

    def b(self, r):
        return -1e-12 * r


def test_an_imbalance_has_no_unit_even_where_payoffs_are_infinite_at_reward_zero():
    right, p, q = P[0] / Q[0], P[0], Q[0]
    assert certificate.response_imbalance(Ratio(), p, q, right) <= certificate.BALANCE
    assert certificate.response_imbalance(Ratio(), p, q, 1.5 * right) > 0.1
    assert certificate.response_imbalance(Ratio(), p, q, right * [1.0, 1.0, 3.0]) > 0.1


def test_at_tau_zero_the_gap_is_what_the_reward_player_could_still_gain():
    game = checked("equilibrium", P, REF, SPIF, 0.0, "fast", None, 10)
    found = certified(game, P, 0, "nobody", 1e-9, False)
    np.testing.assert_allclose(found.gap, 0.0, atol=1e-15)


def test_a_reward_at_the_limit_of_its_link_has_nothing_to_gain():
    """Where only the expert goes the best reward is infinite; where nobody goes there is none."""
    p, q = np.array([0.2, 0.8, 0.0]), np.array([0.0, 0.8, 0.0])
    gain = certificate.reward_gain(Exponential(), p, q, np.array([np.inf, 0.0, 5.0]))
    np.testing.assert_array_equal(gain, 0.0)


def test_what_has_no_potential_and_no_loss_is_not_bounded_prompt_by_prompt():
    p, q = (np.broadcast_to(law, (4, 2, 3)) for law in (P, Q))
    for bound in certificate.equilibrium_bounds(objectives.get("ipo"), p, q, None, 0.0):
        assert bound.shape == (4, 2)
        assert np.isnan(bound).all()
    nothing = SimpleNamespace(missing=lambda what: f"no {what}")
    found = certificate.response_imbalance(nothing, p, q, np.zeros(3))
    np.testing.assert_array_equal(found, np.zeros((4, 2)))


@pytest.mark.parametrize("nudge", [0.001, 0.003, 0.02])
def test_a_certificate_with_nudges_is_no_less_than_what_is_lost(nudge):
    """Pay 4 u: 4 KL(pi || p) + tau KL(pi || ref) is least, in closed form, at a geometric mean."""
    rng = np.random.default_rng(7)
    p, ref, other = rng.dirichlet(np.ones(4), (3, 400))
    tau = 0.5

    def value(policy):
        kl = [(policy * np.log(policy / law)).sum(-1) for law in (p, ref)]
        return 4.0 * kl[0] + tau * kl[1]

    best = np.exp((4.0 * np.log(p) + tau * np.log(ref)) / (4.0 + tau))
    best /= best.sum(-1, keepdims=True)
    policy = 0.97 * best + 0.03 * other
    problem = newton.Separable(p, ref, tau, lambda u: 4.0 * u, lambda u: (4.0 * u, 4.0 + 0.0 * u))
    lost = value(policy) - value(best)
    plain, _ = newton.certificate(problem, policy)
    gap, pay = newton.certificate(problem, policy, ((nudge, 0.0),))
    assert (gap >= lost - 1e-14).all()
    assert (gap <= plain).all()
    assert (gap < 0.5 * plain).any()
    assert (pay != 4.0 * np.log(p / policy)).any()


def test_payoffs_that_both_rise_far_out_are_no_game():
    """However slowly: -b'/a' rises up to 3 nats, and then nothing holds the reward."""

    class Rising(Pointwise):
        name = "rising"
        citation = "an example"

        def a(self, r):
            return 0.5 * r

        def b(self, r):
            return xp.where(r < 3.0, -xp.square(r), r - 12.0)

    for solve in (equilibrium, saddle_point):
        with pytest.raises((InvalidInput, Unavailable), match="more than one peak or no maximum"):
            solve(P, Q, Rising(), 0.5)
