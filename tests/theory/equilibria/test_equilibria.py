"""T10: the two equilibria where they exist, solved twice and certified."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given

from tests.theory.equilibrium_strategies import (
    CASES,
    COSTLY,
    EVERY,
    NO_EQUILIBRIUM,
    NO_SADDLE,
    SADDLE,
    VARIANTS,
    Anchored,
    Solver,
    Typed,
    anchored,
    case_label,
    every_case,
)
from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, saddle_point
from theory.equilibria import newton as separable
from theory.equilibria.problem import Game
from theory.errors import NotConverged, Unavailable
from theory.objectives import Objective, Pointwise
from theory.result import FloatArray, Solution

# every game and potential once, with the parameters it is registered with
DISTINCT = [
    (solve, obj)
    for solve, obj in CASES
    if obj not in VARIANTS and obj.name not in ("dpo", "inpo", "renyi", "centred_spif")
]


def direct_gap(solve: Solver, obj: Objective, g: Anchored, sol: Solution) -> FloatArray:
    """Primal minus dual as two numbers, the dual straight from the reward by its definition."""
    if solve is saddle_point:
        on_expert = laws.expect(g.expert, np.asarray(obj.a(sol.reward)))
        cost = np.asarray(obj.b(sol.reward))
        free = (g.ref * np.exp(-(cost - cost.min(-1, keepdims=True)) / g.tau)).sum(-1)
        return sol.primal - (on_expert + cost.min(-1) - g.tau * np.log(free))
    top = sol.reward.max(-1, keepdims=True)
    free = g.tau * np.log((g.ref * np.exp((sol.reward - top) / g.tau)).sum(-1)) + top[..., 0]
    if obj.has_gain:
        gain = obj.gain(laws.triangular(g.expert, sol.policy))
        bent = 2 * gain * laws.kl(g.expert, 0.5 * (g.expert + sol.policy))
    else:
        bent = obj.potential(sol.policy, g.expert)
    return sol.primal - (bent + laws.expect(sol.policy, sol.reward) - free)


# --- what is absent -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["fast", "convex"])
@pytest.mark.parametrize(
    ("solve", "absent"), [(saddle_point, NO_SADDLE), (equilibrium, NO_EQUILIBRIUM)]
)
def test_what_is_absent_says_why(solve: Solver, absent: dict[str, str], method: str) -> None:
    law = np.array([0.3, 0.7])
    for obj in EVERY:
        if obj.name in absent:
            with pytest.raises(Unavailable, match=re.escape(absent[obj.name])):
                solve(law, law, obj, method=method)
        else:
            assert solve(law, law, obj).converged


def test_without_a_conic_form_the_convex_method_says_so() -> None:
    law = np.array([0.3, 0.7])
    for solve in (saddle_point, equilibrium):
        with pytest.raises(Unavailable, match="typed has no conic "):
            solve(law, law, Typed(), method="convex")


# --- solved twice, certified --------------------------------------------------------------------


@every_case
@pytest.mark.claim("T10.saddle_point", regime="tabular")
@given(g=anchored(prompts=1, max_n=30))
@COSTLY
def test_fast_and_convex_policies_agree(claim, solve: Solver, obj: Objective, g: Anchored) -> None:
    if obj.has_gain:  # a conic program at each trial of the gain
        g = g._replace(expert=g.expert[0, :6], ref=g.ref[0, :6])
        g = g._replace(expert=g.expert / g.expert.sum(), ref=g.ref / g.ref.sum())
    fast = solve(g.expert, g.ref, obj, g.tau)
    try:
        other = solve(g.expert, g.ref, obj, g.tau, "convex")
    except NotConverged:  # Clarabel is not certified: then it says nothing
        assume(False)
    # tau KL(pi||pi*) <= gap, and a mass differs by no more than sqrt(KL/2)
    reach = np.sqrt(0.5 * float(np.max(other.gap)) / g.tau)
    what = "policy, Newton and Clarabel"
    claim.close(other.policy, fast.policy, atol=1e-7 + reach, what=what, because="solver")
    claim.below(fast.gap, 1e-10, what="certified gap of Newton", because="solver")
    claim.close(other.primal, fast.primal, atol=1e-8, rtol=1e-8, what="value")


@pytest.mark.parametrize(("solve", "obj"), DISTINCT, ids=case_label)
@pytest.mark.claim("T10.saddle_point", regime="tabular")
def test_fast_and_convex_agree_at_1000_outcomes(claim, solve: Solver, obj: Objective) -> None:
    n = 100 if obj.has_gain else 1000
    rng = np.random.default_rng(7)
    p, ref = laws.random_law(rng, (n,), 1.5), laws.random_law(rng, (n,), 1.0)
    fast, other = (solve(p, ref, obj, 0.1, method) for method in ("fast", "convex"))
    claim.close(other.policy, fast.policy, atol=1e-7, what="policy, Newton against Clarabel")
    claim.below(fast.gap, 1e-10, what="certified gap of Newton", because="solver")


@every_case
@pytest.mark.claim("T10.saddle_point", regime="tabular")
@given(g=anchored(max_n=60, max_spread=3.0))
def test_certificate_is_the_duality_gap(claim, solve: Solver, obj: Objective, g: Anchored) -> None:
    """The gap in closed form is primal minus dual, each evaluated by its definition."""
    sol = solve(g.expert, g.ref, obj, g.tau)
    claim.below(sol.gap, 1e-10, what="certified gap", because="solver")
    claim.below(-sol.gap, 0.0, what="gap is not negative")
    scale = 1.0 + np.abs(sol.primal) + np.abs(np.where(g.expert > 0, sol.reward, 0)).max()
    apart = (direct_gap(solve, obj, g, sol) - sol.gap) / scale.max()
    claim.close(apart, 0.0, atol=1e-10, what="gap by its definition less the certified one")
    np.testing.assert_array_equal(sol.dual, sol.primal - sol.gap)
    assert sol.status.startswith("converged")


@every_case
@given(g=anchored(max_n=20))
@COSTLY
def test_certificate_holds_for_any_policy(solve: Solver, obj: Objective, g: Anchored) -> None:
    """It bounds the true suboptimality from above, and is no more than a multiple of it nearby."""
    assume(g.expert.shape[-1] > 1)
    kind = "saddle" if solve is saddle_point else "equilibrium"
    game = Game(kind, g.expert, g.ref, obj, g.tau)
    best = solve(g.expert, g.ref, obj, g.tau)
    other = 0.9 * best.policy + 0.1 * laws.random_law(g.rng, g.expert.shape, 1.0)
    if obj.has_gain:  # the gain moves with the policy: compare values at a fixed one
        problem = game.separable(game.delta_of(best.policy))
        gain = obj.gain(laws.triangular(g.expert, best.policy))

        def value(law: FloatArray) -> FloatArray:
            bent = 2 * gain * laws.kl(g.expert, 0.5 * (g.expert + law))
            return bent + g.tau * laws.kl(law, g.ref)
    else:
        problem, value = game.separable(), game.value
    excess = value(other) - value(best.policy)
    for nudges in ((), separable.NUDGES):
        gap, _ = separable.certificate(problem, other, nudges)
        assert (excess >= -1e-12 * (1 + np.abs(value(other)))).all()
        assert (gap >= excess - 1e-11 * (1 + np.abs(value(other)))).all()


@pytest.mark.parametrize("obj", SADDLE, ids=label)
@pytest.mark.claim("T10.saddle_point", regime="tabular")
@given(g=anchored(max_n=20))
def test_weak_duality(claim, obj: Objective, g: Anchored) -> None:
    """Any feasible reward bounds the value from below: E_p a - tau log E_ref e^{-b/tau}."""
    sol = saddle_point(g.expert, g.ref, obj, g.tau)
    low, high = obj.reward_bounds
    reward = sol.reward + g.rng.normal(0.0, g.rng.choice([1e-4, 0.1, 1.0]), sol.reward.shape)
    reward = np.clip(reward, max(low, -50.0) + 1e-9, min(high, 50.0) - 1e-9)
    cost = np.asarray(obj.b(reward)) / g.tau
    least = (-cost).max(-1)
    free = g.tau * (np.log((g.ref * np.exp(-cost - least[..., None])).sum(-1)) + least)
    dual = laws.expect(g.expert, np.asarray(obj.a(reward))) - free
    claim.below(dual, sol.primal, what="dual value of a random reward", atol=1e-9)


@pytest.mark.parametrize("domain", [(-0.5, 0.5), (-1.0, 0.2)])
def test_a_saddle_point_of_rewards_in_a_range_against_a_grid(domain: tuple[float, float]) -> None:
    """Two outcomes: the best reward and the best policy of all that are allowed."""

    class Box(Pointwise):
        name = "box"
        reward_domain = domain

        def a(self, r: Any) -> Any:
            return r - 0.5 * r * r

        def b(self, r: Any) -> Any:
            return -r - 0.5 * r * r

    p, ref, tau = np.array([0.1, 0.9]), np.array([0.9, 0.1]), 0.2
    found = saddle_point(p, ref, Box(), tau=tau)
    first = np.linspace(1e-4, 1.0 - 1e-4, 20_001)[:, None]
    policy = np.concatenate([first, 1.0 - first], -1)
    reward = np.clip((p - policy) / (p + policy), *domain)
    value = (p * Box().a(reward) + policy * Box().b(reward)).sum(-1) + tau * laws.kl(policy, ref)
    best = int(np.argmin(value))
    np.testing.assert_allclose(found.policy, policy[best], atol=1e-4)
    assert found.primal == pytest.approx(value[best], abs=1e-8)
    assert found.dual <= value[best] + 1e-12
    assert np.all((found.reward >= domain[0]) & (found.reward <= domain[1]))


@pytest.mark.parametrize("tau", [1e6, 1e8, 1e10, 1e12])
def test_the_value_keeps_its_digits_at_a_strong_anchor(tau: float) -> None:
    """It is below g(ref) by Var_ref(b(r))/(2 tau), and so is the equilibrium's."""
    p, ref = np.array([0.5, 0.3, 0.2]), np.array([0.15, 0.25, 0.6])
    spif = objectives.get("spif")
    reward = spif.link(np.log(p / ref))
    found, held = saddle_point(p, ref, spif, tau=tau), equilibrium(p, ref, spif, tau=tau)
    at_ref = {"saddle": float(spif.value(p, ref, reward)), "held": float(spif.potential(ref, p))}
    for name, slope, one in (("saddle", spif.b(reward), found), ("held", -reward, held)):
        below = ref @ (slope - ref @ slope) ** 2 / (2.0 * tau)
        rounding = 1e-16 + 1e-5 * below
        assert at_ref[name] - one.primal == pytest.approx(below, abs=2 * rounding)
        assert one.dual <= one.primal + rounding
        assert one.primal - one.dual <= rounding
