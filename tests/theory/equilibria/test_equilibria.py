"""T10 (and T1, T5, T9 where they meet it): the two equilibria, solved twice and certified."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, saddle_point, self_play, xp
from theory.certificate import reward_gain
from theory.equilibria import conic as convex
from theory.equilibria import newton as separable
from theory.equilibria.problem import Game
from theory.equilibria.solve import certified
from theory.errors import InvalidInput, NotConverged, Unavailable
from theory.objectives import Objective, Pairwise, Pointwise
from theory.result import FloatArray, Solution

EVERY = [objectives.get(name) for name in objectives.names()]
VARIANTS = [
    objectives.get("spif", c=0.7, alpha=0.2),
    objectives.get("spif", c=2.0, alpha=0.8),
    objectives.get("space", mu=3.0),
    objectives.get("ipm", bound=0.3),
    objectives.get("iq_learn", c=0.4),
]
NO_SADDLE = {
    "sppo": "preferences.nash",
    "spin": "use equilibrium",
    "dpo": "use equilibrium",
    "spin_hinge": "use equilibrium",
    "spin_exponential": "use equilibrium",
    "ipo": "use equilibrium",
    "inpo": "use equilibrium",
    "tspin": "use equilibrium",
    "alpha_spin": "use equilibrium",
    "renyi": "a log of means",
}
NO_EQUILIBRIUM = {
    "sppo": "preferences.nash",
    "spin_hinge": "a staircase",
    "tspin": "reference-free",
    "alpha_spin": "depends on beta and on the base",
}
SADDLE = [obj for obj in EVERY if obj.name not in NO_SADDLE] + VARIANTS
EQUILIBRIUM = [obj for obj in EVERY if obj.name not in NO_EQUILIBRIUM] + VARIANTS
BOTH = [obj for obj in SADDLE if obj.name not in NO_EQUILIBRIUM]
GAIN = [obj for obj in EQUILIBRIUM if obj.has_gain]
Solver = Callable[..., Solution]
CASES = [(saddle_point, obj) for obj in SADDLE] + [(equilibrium, obj) for obj in EQUILIBRIUM]
# where b(r) + r is constant: the two equilibria coincide, and the game's value is the potential
CANONICAL = {"iq_learn", "gail", "ipm"}


def case_label(value: object) -> str:
    return label(value) if isinstance(value, Objective) else getattr(value, "__name__", str(value))


# every game and potential once, with the parameters it is registered with
DISTINCT = [
    (solve, obj)
    for solve, obj in CASES
    if obj not in VARIANTS and obj.name not in ("dpo", "inpo", "renyi", "centred_spif")
]
COSTLY = settings(max_examples=max(3, settings().max_examples // 5))
every_case = pytest.mark.parametrize(("solve", "obj"), CASES, ids=case_label)


def over_both(clause: str, otherwise: str = "", drops: str = "") -> pytest.MarkDecorator:
    """Over BOTH: evidence for the clause where b(r) + r is constant, and for what where not."""

    def marked(obj: Objective) -> pytest.MarkDecorator:
        if obj.name in CANONICAL:
            return pytest.mark.claim(clause, regime="tabular")
        return pytest.mark.claim(otherwise or clause, regime="tabular", drops=drops)

    cases = [pytest.param(obj, marks=marked(obj)) for obj in BOTH]
    return pytest.mark.parametrize("obj", cases, ids=label)


class Anchored(NamedTuple):
    """Expert and reference (prompts, n), the anchor's weight, a generator."""

    expert: FloatArray
    ref: FloatArray
    tau: float
    rng: np.random.Generator


@st.composite
def anchored(
    draw: st.DrawFn, max_n: int = 40, max_spread: float = 2.0, prompts: int = 3, tau: float = 0.02
) -> Anchored:
    shape = (draw(st.integers(1, prompts)), draw(st.integers(1, max_n)))
    spread = draw(st.floats(0.1, max_spread))
    weight = float(np.exp(draw(st.floats(np.log(tau), np.log(10.0)))))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    expert, ref = (laws.random_law(rng, shape, spread) for _ in range(2))
    return Anchored(expert, ref, weight, rng)


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
    claim.close(
        direct_gap(solve, obj, g, sol), sol.gap, atol=1e-10 * float(scale.max()), what="gap"
    )
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


# --- what they are ------------------------------------------------------------------------------


@pytest.mark.parametrize("obj", EQUILIBRIUM, ids=label)
@pytest.mark.claim("T10.fixed_point", regime="tabular")
@given(g=anchored(max_n=60, max_spread=2.5))
def test_equilibrium_is_the_fixed_point_of_the_rounds(claim, obj: Objective, g: Anchored) -> None:
    """r = R(log p/pi) and pi ∝ ref e^{r/tau}: a round with any beta leaves it where it is."""
    sol = equilibrium(g.expert, g.ref, obj, g.tau)
    gibbs = g.ref * np.exp((sol.reward - sol.reward.max(-1, keepdims=True)) / g.tau)
    gibbs /= gibbs.sum(-1, keepdims=True)
    claim.close(sol.policy, gibbs, atol=1e-10, what="pi against ref e^{r/tau}")
    if obj.name == "ipm":  # the best response to pi = p is set-valued; the equilibrium selects one
        return
    beta = float(g.rng.uniform(0.5, 5.0))
    after = self_play(g.expert, sol.policy, obj, beta=beta, rounds=1, ref=g.ref, tau=g.tau)
    claim.close(after.policy, sol.policy, atol=1e-10, what="after a round")


@pytest.mark.claim("T10.fixed_point", regime="tabular")
@given(g=anchored(max_n=200, max_spread=4.0, tau=1e-4))
def test_spin_in_closed_form(claim, g: Anchored) -> None:
    predicted = (g.expert * g.ref**g.tau) ** (1 / (1 + g.tau))
    predicted /= predicted.sum(-1, keepdims=True)
    for name in ("spin", "dpo", "airl", "nwj", "renyi", "brier", "space"):
        sol = equilibrium(g.expert, g.ref, objectives.get(name), g.tau)
        claim.close(sol.policy, predicted, atol=1e-13, what="p^{1/(1+tau)} ref^{tau/(1+tau)}")


@over_both("T10.coincide", otherwise="T10.differ")
@given(g=anchored(max_n=30))
def test_the_two_coincide_iff_b_plus_r_is_constant(claim, obj: Objective, g: Anchored) -> None:
    r = np.asarray(obj.link(np.linspace(-1.0, 1.0, 41)))
    constant = np.ptp(np.asarray(obj.b(r)) + r) < 1e-12
    assert constant == (obj.name in CANONICAL)
    one, two = (f(g.expert, g.ref, obj, g.tau).policy for f in (saddle_point, equilibrium))
    distance = laws.total_variation(one, two)
    if constant:
        claim.close(one, two, atol=1e-10, what="policies where b(r) + r is constant")
        return
    moved = laws.total_variation(one, g.expert).min()
    assume(moved > 0.01 and g.expert.shape[-1] > 2)  # the anchor does something
    claim.exhibits(distance, 1e-9, what="total variation of the two equilibria")


@pytest.mark.claim("T10.differ", regime="tabular")
def test_spif_has_two_different_equilibria(claim) -> None:
    """SPIF: total variation between them at tau = .05, .3, 2 on one instance."""
    rng = np.random.default_rng(0)
    p, ref = laws.random_law(rng, (20,), 1.0), laws.random_law(rng, (20,), 1.0)
    for tau, at_least in ((0.05, 1e-4), (0.3, 2e-3), (2.0, 5e-3)):
        one, two = (f(p, ref, objectives.get("spif"), tau) for f in (saddle_point, equilibrium))
        distance = laws.total_variation(one.policy, two.policy)
        claim.exhibits(
            distance, at_least, what=f"total variation of SPIF's two equilibria, tau = {tau}"
        )


@every_case
@pytest.mark.claim("T10.unanchored", regime="tabular")
@given(g=anchored(max_n=12))
def test_without_anchor_the_policy_is_the_expert(
    claim, solve: Solver, obj: Objective, g: Anchored
) -> None:
    sol = solve(g.expert, g.ref, obj, 0.0)
    claim.close(sol.policy, g.expert, atol=1e-15, what="policy at tau = 0")
    assert (sol.gap == 0).all()
    near = solve(g.expert, g.ref, obj, 1e-9)
    claim.close(near.policy, g.expert, atol=1e-6, what="policy at tau = 1e-9")


@over_both("T5.value_is_potential", drops="b_is_minus_r")
@given(g=anchored(max_n=20))
def test_game_value_is_the_potential_iff_b_is_minus_r(claim, obj: Objective, g: Anchored) -> None:
    """T5: max_r E_p a + E_pi b = D_Phi + const exactly for the canonical payoffs."""
    assume(g.expert.shape[-1] > 1)
    policies = np.stack([g.ref, laws.random_law(g.rng, g.ref.shape, 1.0), g.expert])
    expert = np.broadcast_to(g.expert, policies.shape)
    value = Game("saddle", expert, policies, obj, 0.0).value(policies)
    rest = value - obj.potential(policies, expert)
    spread = np.ptp(rest, axis=0)
    if obj.name in CANONICAL:
        claim.below(spread, 0.0, what="value - D_Phi is constant", atol=1e-9 * np.abs(value).max())
    else:
        assume(laws.total_variation(g.ref, g.expert).min() > 0.05)
        claim.exhibits(spread, 1e-7, what="range of value - D_Phi, nats")
    if obj.name == "spif" and obj.alpha == 0.5:
        predicted = laws.triangular(expert, policies) / (2 * obj.c)
        claim.close(value, predicted, atol=1e-12, what="SPIF's value is Delta/(2c)")


@pytest.mark.claim("T10.value", regime="tabular")
@given(g=anchored(max_n=30))
def test_known_game_values(claim, g: Anchored) -> None:
    p, q = g.expert, g.ref
    for name, predicted in (
        ("airl", 2 * laws.js(p, q) - 2 * np.log(2)),
        ("gail", 2 * laws.js(p, q) - 2 * np.log(2)),
        ("nwj", laws.kl(p, q)),
        ("ipm", 2 * laws.total_variation(p, q)),
        ("exponential", -2 * np.sqrt(p * q).sum(-1)),
        ("iq_learn", laws.pearson(q, p) / 4),
    ):
        value = Game("saddle", p, q, objectives.get(name), 0.0).value(q)
        claim.close(value, predicted, atol=1e-11, rtol=1e-11, what=f"value of {name}")


@pytest.mark.parametrize("obj", GAIN, ids=label)
@pytest.mark.claim("T9.link", regime="tabular")
@given(g=anchored(max_n=30, max_spread=4.0))
@COSTLY
def test_gain_of_the_squared_margin(claim, obj: Objective, g: Anchored) -> None:
    """kappa lies in [m/2, m], is that of the policy found, and one start is as good as another."""
    sol = equilibrium(g.expert, g.ref, obj, g.tau)
    gain = obj.gain(laws.triangular(g.expert, sol.policy))
    claim.below(gain, obj.margin, what="kappa <= m", atol=1e-15)
    claim.below(np.full_like(gain, 0.5 * obj.margin), gain, what="m/2 <= kappa")
    u = laws.log_ratio(g.expert, sol.policy)
    predicted = obj.centred(gain[..., None] * np.tanh(0.5 * u), g.expert, sol.policy)
    claim.close(sol.reward, predicted, atol=1e-13, what="r = kappa tanh(u/2)")
    # the excess Delta(p, pi(delta)) - delta changes its sign once on a grid of delta
    game = Game("equilibrium", g.expert, g.ref, obj, g.tau)
    grid = np.linspace(0.0, 2.0, 9)
    signs = []
    for delta in grid:
        policy, _ = separable.solve(game.separable(np.full((*gain.shape, 1), delta)))
        signs.append(laws.triangular(g.expert, policy) - delta > 0)
    assert (np.diff(np.stack(signs).astype(int), axis=0) <= 0).all()


# --- supports, extremes, strangers --------------------------------------------------------------


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


class Typed(Pointwise):
    """A stranger's objective: payoffs alone, so its link is found by bisection."""

    name = "typed"

    def a(self, r):
        return r - 0.5 * r * r

    def b(self, r):
        return -r - 0.5 * r * r


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


# --- failure and bad input ----------------------------------------------------------------------


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
