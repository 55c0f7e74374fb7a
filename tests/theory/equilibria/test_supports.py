"""Equilibria at missing supports and extreme laws, of links with jumps, of a stranger."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.equilibrium_strategies import (
    GAIN,
    SADDLE,
    Solver,
    Typed,
    every_case,
)
from theory import equilibrium, laws, objectives, saddle_point
from theory.equilibria import newton as separable
from theory.equilibria.problem import Game
from theory.errors import InvalidInput
from theory.objectives import Objective, Pointwise


@every_case
@pytest.mark.parametrize("uncovered", [False, True])
def test_supports(solve: Solver, obj: Objective, uncovered: bool) -> None:
    """p = 0 < ref, ref = 0 < p where the value stays finite, and padding."""
    rng = np.random.default_rng(11 + uncovered)
    p, ref = laws.random_law(rng, (2, 12), 1.0), laws.random_law(rng, (12,), 1.0)
    p[:, :3] = 0.0
    infinite = {"policy_only"} | ({"nwj"} if solve is saddle_point else set())
    if uncovered and obj.name not in infinite:
        ref[3:5] = 0.0
    p[:, -1], ref[-1] = 0.0, 0.0
    p, ref = p / p.sum(-1, keepdims=True), ref / ref.sum()
    sol = solve(p, ref, obj, 0.3)
    assert (sol.gap <= 1e-10).all()
    assert not np.isnan(sol.reward).any()
    assert (sol.policy[:, ref == 0] == 0).all()
    assert (sol.reward[:, -1] == 0).all()
    np.testing.assert_allclose(sol.policy.sum(-1), 1.0, rtol=1e-14)
    alive = (sol.policy > 0)[:, :3]
    bottom = Game("saddle" if solve is saddle_point else "equilibrium", p, ref, obj, 0.3)
    reachable = np.isfinite(bottom.separable(np.zeros(())).pay(np.asarray(-np.inf)))
    assert (alive == reachable).all()
    other = solve(p[0], ref, obj, 0.3, "convex")
    np.testing.assert_allclose(other.policy, sol.policy[0], atol=1e-7)


def test_the_reference_must_cover_the_expert_where_the_value_is_infinite() -> None:
    p, ref = np.array([0.5, 0.3, 0.2]), np.array([0.5, 0.5, 0.0])
    for solve, name in ((saddle_point, "policy_only"), (saddle_point, "nwj")):
        with pytest.raises(InvalidInput, match=r"expert has mass at \(2,\) where ref has none"):
            solve(p, ref, objectives.get(name))
    with pytest.raises(InvalidInput, match="expert has mass"):
        equilibrium(p, ref, objectives.get("policy_only"))
    with pytest.raises(InvalidInput, match="share no outcome"):
        equilibrium(np.array([0.0, 1.0]), np.array([1.0, 0.0]), objectives.get("spin"))
    apart = equilibrium(np.array([0.0, 1.0]), np.array([1.0, 0.0]), objectives.get("spif"))
    np.testing.assert_array_equal(apart.policy, [1.0, 0.0])


@every_case
@pytest.mark.parametrize("tau", [1e-8, 0.1, 1e4])
def test_extreme_laws(solve: Solver, obj: Objective, tau: float) -> None:
    """Log-probabilities spread over 20 to 60 nats, n = 1 and n = 2 included."""
    rng = np.random.default_rng(3)
    for n, spread in ((1, 1.0), (2, 5.0), (200, 20 / 6), (200, 10.0)):
        p, ref = laws.random_law(rng, (2, n), spread), laws.random_law(rng, (n,), spread)
        sol = solve(p, ref, obj, tau, raise_on_failure=False)
        assert (sol.gap <= 1e-10).all(), (n, spread)


def test_prompts_are_solved_independently() -> None:
    rng = np.random.default_rng(4)
    p, ref = laws.random_law(rng, (2, 3, 9), 2.0), laws.random_law(rng, (3, 9), 2.0)
    for solve, obj in ((saddle_point, SADDLE[0]), (equilibrium, GAIN[0])):
        sol = solve(p, ref, obj, 0.2)
        assert sol.policy.shape == (2, 3, 9)
        assert sol.primal.shape == sol.dual.shape == sol.gap.shape == (2, 3)
        one = solve(p[1, 2], ref[2], obj, 0.2)
        np.testing.assert_allclose(sol.policy[1, 2], one.policy, rtol=1e-12)
        np.testing.assert_allclose(sol.primal[1, 2], one.primal, rtol=1e-12)


class Staircase(Pointwise):
    """A link with two jumps away from zero: -1, 0, 1 below -1/2, in between and above 1/2."""

    name = "staircase"

    def a(self, r):
        return r

    def b(self, r):
        return -r

    def link_formula(self, u, delta):
        return 0.5 * ((u > 0.5) * 1.0 - (u < -0.5) * 1.0 + (u > -0.5) * 1.0 - (u < 0.5) * 1.0)


@pytest.mark.parametrize("solve", [saddle_point, equilibrium])
def test_a_strangers_objective(solve: Solver) -> None:
    rng = np.random.default_rng(5)
    p, ref = laws.random_law(rng, (2, 15), 1.5), laws.random_law(rng, (15,), 1.5)
    sol = solve(p, ref, Typed(), 0.2)
    same = solve(p, ref, objectives.get("spif"), 0.2)  # c = 1, alpha = 1/2
    np.testing.assert_allclose(sol.policy, same.policy, atol=1e-9)
    np.testing.assert_allclose(sol.primal, same.primal, atol=1e-9)


def test_jumps_of_the_link_anywhere() -> None:
    """A set-valued pay is met by bisection: pi = ref e^{k/tau}/Z with k within the jump."""
    rng = np.random.default_rng(6)
    p, ref = laws.random_law(rng, (30,), 1.5), laws.random_law(rng, (30,), 1.5)
    game = Game("equilibrium", p, ref, Staircase(), 0.4)
    policy, _ = separable.solve(game.separable())
    gap, pay = separable.certificate(game.separable(), policy, separable.NUDGES)
    assert gap <= 1e-10
    assert (np.abs(pay) <= 1.0 + 1e-12).all()
    u = np.log(p / policy)
    jump = np.isclose(np.abs(u), 0.5, atol=1e-9)
    assert jump.any()
    assert not jump.all()
    assert (pay[~jump] == np.asarray(Staircase().link(u[~jump]))).all()


def test_ipm_in_closed_form() -> None:
    """pi = median of p and ref times two constants: the reward is +-B off p, between them on p."""
    rng = np.random.default_rng(8)
    p, ref = laws.random_law(rng, (50,), 1.5), laws.random_law(rng, (50,), 1.5)
    for tau in (0.3, 2.0, 10.0):
        sol = equilibrium(p, ref, objectives.get("ipm", bound=1.5), tau)
        scale = np.log(sol.policy / ref) * tau - sol.reward  # -c, one constant
        np.testing.assert_allclose(scale, scale[0], atol=1e-11)
        ends = [ref * np.exp((scale[0] + sign * 1.5) / tau) for sign in (-1, 1)]
        np.testing.assert_allclose(sol.policy, np.median([p, *ends], axis=0), atol=1e-14)
        two = saddle_point(p, ref, objectives.get("ipm", bound=1.5), tau)
        np.testing.assert_allclose(two.policy, sol.policy, atol=1e-14)
        np.testing.assert_allclose(two.reward, sol.reward, atol=1e-9)


@pytest.mark.parametrize("tau", [1e-4, 1e-3, 0.05])
def test_ipm_where_the_policy_leaves_outcomes(tau: float) -> None:
    """The expert has no mass on the last outcome: for small tau the equilibrium is the expert."""
    p, ref = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.3, 0.5])
    for solve in (equilibrium, saddle_point):
        sol = solve(p, ref, objectives.get("ipm"), tau)
        assert sol.gap <= 1e-9
        np.testing.assert_allclose(sol.policy, p, atol=1e-12)
