"""What is not an equilibrium is not certified, and the gap says how near a policy is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.equilibrium_strategies import (
    COSTLY,
    SADDLE,
    Anchored,
    Solver,
    anchored,
)
from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, saddle_point, xp
from theory.certificate import reward_gain
from theory.equilibria import conic as convex
from theory.equilibria import newton as separable
from theory.equilibria.problem import Game
from theory.equilibria.solve import certified
from theory.errors import NotConverged, Unavailable
from theory.objectives import Objective, Pairwise, Pointwise


def test_a_wrong_policy_is_not_certified() -> None:
    p, ref = np.array([0.2, 0.3, 0.5]), np.array([0.4, 0.3, 0.3])
    game = Game("saddle", p, ref, objectives.get("spif"), 0.5)
    with pytest.raises(NotConverged, match=r"spif, tau=0\.5: not converged.*gap 0\.0") as failure:
        certified(game, ref, 3, "nobody", 1e-9, True)
    sol = certified(game, ref, 3, "nobody", 1e-9, False)
    assert not sol.converged
    assert sol.gap == failure.value.solution.gap > 1e-3
    with pytest.raises(NotConverged, match="above the tolerance 1e-40"):
        saddle_point(p, ref, objectives.get("spif"), 0.5, tolerance=1e-40)


class Payoffs(Pointwise):
    """SPIF's payoffs with a link that is not their best response, or payoffs that have none."""

    curvature: float = -0.25
    times: float = 3.0

    def a(self, r):
        return r + self.curvature * r * r

    def b(self, r):
        return -r + self.curvature * r * r


class WrongLink(Payoffs):
    name = "wrong"

    def link_formula(self, u, delta):
        return 3.0 * u


class Convex(Payoffs):
    name = "convex"
    curvature = 0.25


class Linear(Payoffs):
    name = "linear"
    curvature = 0.0


@pytest.mark.parametrize("solve", [saddle_point, equilibrium])
def test_a_wrong_link_is_not_certified(solve: Solver) -> None:
    """The gap is that of the payoffs: the policy's value is right, and so is the lower bound."""
    p, ref = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])
    right = saddle_point(p, ref, objectives.get("spif", c=0.5), 0.5)
    with pytest.raises(NotConverged, match="not their best response"):
        solve(p, ref, WrongLink(), 0.5)
    found = saddle_point(p, ref, WrongLink(), 0.5, raise_on_failure=False)
    assert found.dual <= right.dual + 1e-12
    best = objectives.get("spif", c=0.5).reward(p, found.policy)
    value = right_value = Payoffs().value(p, found.policy, best)
    value = value + 0.5 * laws.kl(found.policy, ref)
    assert right_value > 0
    np.testing.assert_allclose(found.primal, value, rtol=1e-12)  # not that of the link's reward
    assert found.gap >= found.primal - right.primal - 1e-12


@pytest.mark.parametrize("solve", [saddle_point, equilibrium])
@pytest.mark.parametrize(
    ("obj", "reason"),
    [(Convex(), "more than one peak or no maximum"), (Linear(), "rises without end")],
)
def test_payoffs_without_a_best_response(solve: Solver, obj: Objective, reason: str) -> None:
    with pytest.raises(Unavailable, match=f"{obj.name} has no best response: .*{reason}"):
        solve([0.7, 0.3], [0.5, 0.5], obj, 0.5)


def test_a_link_that_is_not_the_losses_is_refused() -> None:
    class Flipped(Pairwise):
        name = "flipped"

        def pair_loss(self, d):
            return xp.softplus(-d)

        def link_formula(self, u, delta):
            return 2.0 * u

    with pytest.raises(Unavailable, match="the link's reward is not it"):
        equilibrium([0.7, 0.3], [0.5, 0.5], Flipped(), 0.5)


@pytest.mark.parametrize("obj", SADDLE, ids=label)
@given(g=anchored(max_n=20, max_spread=3.0), shift=st.floats(-2.0, 2.0))
@COSTLY
def test_gain_of_a_reward_is_bounded_by_the_payoffs(obj, g: Anchored, shift: float) -> None:
    """At any reward the bound covers the link's payoff, and at the link's reward it is rounding."""
    best = obj.link(laws.log_ratio(g.expert, g.ref))
    low, high = obj.reward_domain
    other = np.clip(best + shift, low if low < 0 else best, high)
    more = reward_gain(obj, g.expert, g.ref, other).sum(-1)
    gained = obj.value(g.expert, g.ref, best) - obj.value(g.expert, g.ref, other)
    size = 1.0 + np.abs(obj.value(g.expert, g.ref, other))
    assert (more >= gained - 1e-12 * size).all()
    assert (more <= gained + 1e-9 * size).all()
    assert (reward_gain(obj, g.expert, g.ref, best).sum(-1) <= 1e-14 * size).all()


def test_reference_masses_hundreds_of_nats_below() -> None:
    """The pay overflows at the first guess; the solution is an ordinary one."""
    tiny = float(np.exp(-600.0))
    found = saddle_point([0.5, 0.5], [1.0 - tiny, tiny], "policy_only", 1.0)
    assert found.gap < 1e-12
    law = np.array([1.0, 5e-324])
    with pytest.raises(NotConverged, match="the value is not finite"):
        equilibrium(law, [0.5, 0.5], objectives.get("centred_spif"), tau=1e-12)


def test_accuracy_from_the_gap() -> None:
    """|pi - minimiser| <= sqrt(gap / (2 tau)) (Pinsker), the criterion of the convex method."""
    rng = np.random.default_rng(9)
    for _ in range(50):
        p, ref = laws.random_law(rng, (2, 6), 1.0)
        game = Game("saddle", p, ref, objectives.get("spif"), 0.7)
        best = saddle_point(p, ref, game.obj, 0.7).policy
        other = laws.random_law(rng, (6,), 1.0)
        gap, _ = separable.certificate(game.separable(), other)
        assert np.abs(other - best).max() <= convex.accuracy(game, gap)
    assert convex.accuracy(game, convex.SHARP * game.tau) == pytest.approx(1e-7)
