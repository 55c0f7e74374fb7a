"""T10 (and T1, T5, T9 where they meet it): what the two equilibria are, and are worth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given

from tests.theory.equilibrium_strategies import (
    COSTLY,
    EQUILIBRIUM,
    GAIN,
    NO_EQUILIBRIUM,
    SADDLE,
    Anchored,
    Solver,
    anchored,
    every_case,
)
from tests.theory.strategies import label
from theory import equilibrium, laws, objectives, saddle_point, self_play
from theory.equilibria import newton as separable
from theory.equilibria.problem import Game
from theory.objectives import Objective

BOTH = [obj for obj in SADDLE if obj.name not in NO_EQUILIBRIUM]
# where b(r) + r is constant: the two equilibria coincide, and the game's value is the potential
CANONICAL = {"iq_learn", "gail", "ipm"}


def over_both(clause: str, otherwise: str = "", drops: str = "") -> pytest.MarkDecorator:
    """Over BOTH: evidence for the clause where b(r) + r is constant, and for what where not."""

    def marked(obj: Objective) -> pytest.MarkDecorator:
        if obj.name in CANONICAL:
            return pytest.mark.claim(clause, regime="tabular")
        return pytest.mark.claim(otherwise or clause, regime="tabular", drops=drops)

    cases = [pytest.param(obj, marks=marked(obj)) for obj in BOTH]
    return pytest.mark.parametrize("obj", cases, ids=label)


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
        share = spread / np.abs(value).max()  # of values that may be thousands of nats
        claim.below(share, 0.0, what="value - D_Phi is constant", atol=1e-9)
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
