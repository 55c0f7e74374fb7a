"""T1 with rewards held in a range: where the payoffs' own best reward leaves it, an end is best."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from theory import check_objective, equilibrium, saddle_point, theory_card, xp
from theory.objectives import Pointwise, get

U = np.linspace(-4.0, 4.0, 33)


class Box(Pointwise):
    """SPIF's payoffs, whose best reward is tanh(u/2)."""

    name = "box"
    citation = "an example"
    reward_domain = (-1.0, 1.0)

    def a(self, r):
        return r - 0.5 * xp.square(r)

    def b(self, r):
        return -r - 0.5 * xp.square(r)


class Below(Box):
    """The best reward is (e^u - 1)/2."""

    def a(self, r):
        return r

    def b(self, r):
        return -r - xp.square(r)


def held(kind: type[Box], low: float, high: float) -> Box:
    return type("Held", (kind,), {"reward_domain": [low, high]})()  # as any two numbers


@pytest.mark.parametrize("domain", [(-0.5, 0.5), (-1.0, 0.3), (0.1, 2.0), (0.2001, 0.2002)])
def test_rewards_solved_from_payoffs_stop_at_the_range_that_is_allowed(domain):
    box = held(Box, *domain)
    r = np.clip(get("spif").link(U), *domain)
    np.testing.assert_allclose(box.link(U), r, atol=1e-12)
    assert box.reward_bounds == pytest.approx((max(domain[0], -1.0), min(domain[1], 1.0)))
    inside = (r > domain[0]) & (r < domain[1])
    np.testing.assert_allclose(box.slope(U), np.where(inside, 0.5 * (1 - r**2), 0), atol=1e-9)
    assert not [line for line in str(check_objective(box)).splitlines() if "domain" in line]


@pytest.mark.parametrize(
    ("kind", "domain", "largest"),
    [
        (Box, (-0.5, 0.3), 0.5),
        (Box, (0.1, 0.9), 0.5 * (1 - 0.1**2)),
        (Box, (-0.9, -0.5), 0.5 * (1 - 0.5**2)),
        (Box, (-2.0, 2.0), 0.5),
        *[(Below, (-math.inf, high), 0.5 + high) for high in (0.3, 1.0, 5.0, 50.0)],
    ],
)
def test_the_card_knows_where_the_slope_ends(kind, domain, largest):
    """Within the range the slope is that of the payoffs, beyond it 0."""
    card = theory_card(held(kind, *domain))
    assert (card.mu, card.L) == (0.0, pytest.approx(largest, rel=1e-6))


def test_all_checks_hold_of_rewards_that_are_held():
    assert "checks hold" in str(check_objective(held(Below, -math.inf, 5.0), thorough=True))


@pytest.mark.parametrize("tau", [0.1, 1.0])
@pytest.mark.parametrize("domain", [(-0.1, 0.9), (-0.5, 0.3), (-2.0, 0.5)])
def test_games_of_held_rewards_are_solved(domain, tau):
    """The slope of the pay is 0 where the reward is held; certificates come from the payoffs."""
    for solve in (saddle_point, equilibrium):
        found = solve([0.7, 0.2, 0.1], [0.05, 0.15, 0.8], held(Box, *domain), tau)
        assert found.gap <= 1e-14
        assert domain[0] <= np.min(found.reward) <= np.max(found.reward) <= domain[1]


def test_payoffs_that_rise_again_beyond_the_range_are_solved_within():
    """Squared Hellinger's: ``-r/(1 - r)`` has another branch beyond its pole."""

    class Hellinger(Box):
        reward_domain = (-math.inf, 1.0)

        def a(self, r):
            return r

        def b(self, r):
            return -r / (1.0 - r)

    u = np.append(U, [-30.0, 60.0, np.inf])
    np.testing.assert_allclose(Hellinger().link(u), -np.expm1(-0.5 * u), rtol=1e-9, atol=1e-15)


def test_linear_payoffs_in_a_range_are_best_at_its_ends():
    class Linear(Box):
        reward_domain = (-1.0, 2.0)

        def a(self, r):
            return r

        def b(self, r):
            return -r

    assert Linear().link(np.array([-np.inf, -1e-3, 1e-3, 5.0])).tolist() == [-1, -1, 2, 2]
    assert -1.0 <= Linear().link(0.0) <= 2.0
    assert Linear().slope_at_zero == math.inf


def test_rewards_are_known_beyond_where_their_slope_is():
    """Far out a' leaves the floating-point range: the gradient is NaN there, and no reward is."""

    class Far(Box):
        reward_domain = (-math.inf, math.inf)

        def a(self, r):
            return -2.0 * xp.softplus(-r)

        def b(self, r):
            return -r - 0.25 * xp.square(r)

    far = np.array([3.0, 700.0, 740.0])
    exact = Far().link(far)
    for kind, digits in ((torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 1e-2)):
        u = torch.tensor(far, dtype=kind, requires_grad=True)
        r = Far().link(u)
        assert r.dtype == kind
        np.testing.assert_allclose(r.detach().double(), exact, rtol=digits)
        (slope,) = torch.autograd.grad(r.sum(), u)
        assert slope[:2].isfinite().all()
        assert slope[2].isnan()
