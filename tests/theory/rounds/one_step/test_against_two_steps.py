"""T3: which losses on one model return the two-step round, and which another policy."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rounds.one_step.minimisers import (
    IMITATION,
    NO_ONE_STEP,
    POINTWISE,
    SHIFT_INVARIANT,
    SPIN,
    newton_minimum,
    risk_of_logits,
    two_step,
)
from tests.theory.strategies import Instance, games, label
from theory import laws, objectives
from theory.errors import InvalidInput, Unavailable
from theory.rounds.one_step import one_step_round


@pytest.mark.claim("T3.one_loss_is_a_round", regime="tabular")
@pytest.mark.parametrize("obj", SHIFT_INVARIANT, ids=label)
@given(game=games(max_n=6, max_spread=1.5), beta=st.floats(0.3, 3.0), tau=st.floats(0.0, 1.0))
@settings(max_examples=5)
def test_one_step_minimises_a_shift_invariant_risk(claim, obj, game, beta, tau):
    tau = 0.0 if obj.reference_free or tau < 0.3 else tau
    given_ = {"history": game.ref} if "history" in obj.needs else {"ref": game.ref, "tau": tau}
    found = one_step_round(game.expert, game.start, obj, beta, **given_)
    assert found.certified.all()
    assert "certified" in found.status
    start = np.log(game.start[0])
    independent = newton_minimum(risk_of_logits(game, obj, beta, tau), start)
    gap = laws.total_variation(found.policy[0], independent)
    claim.below(gap, 1e-8, what="TV of the one step from an independent minimiser of the risk")
    if obj.has_link:
        gap = laws.total_variation(found.policy, two_step(game, obj, beta, tau))
        claim.below(gap, 1e-10, what="TV of the one step from the two-step round")


def test_the_objectives_without_a_one_step_round_say_why():
    covered = {o.name for o in SHIFT_INVARIANT + POINTWISE}
    assert covered | set(NO_ONE_STEP) == set(objectives.names())
    law = np.array([0.5, 0.5])
    for name, reason in NO_ONE_STEP.items():
        with pytest.raises(Unavailable, match=reason):
            one_step_round(law, law, objectives.get(name), 1.0)


@pytest.mark.claim("T3.pointwise_differ", regime="tabular")
@pytest.mark.parametrize("obj", IMITATION, ids=label)
def test_pointwise_losses_differ_from_the_two_step_round(claim, obj):
    law = np.array([[0.5, 0.3, 0.2]]), np.array([[0.2, 0.2, 0.6]])
    game = Instance(*law, law[1], np.random.default_rng(0))
    found = one_step_round(*law, obj, 1.7, branch="global")
    gap = laws.total_variation(found.policy, two_step(game, obj, 1.7))
    claim.exhibits(gap, 1e-3, what="TV between one step and two steps at beta = 1.7")


@pytest.mark.claim("T3.one_loss_is_a_round", regime="tabular", drops="attained_minimum")
def test_no_round_where_the_least_risk_is_not_attained(claim):
    """SPIN on disjoint laws: its risk falls to 0 along a ray of policies, and no law attains it."""
    p, q = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    prior = np.log([0.5, 0.5])  # pi_t, of which q is a sample
    risks = []
    for size in (5.0, 10.0, 20.0, 40.0):
        log_pi = np.array([0.0, -size]) - np.log1p(np.exp(-size))
        risks.append(float(SPIN.risk(log_pi - prior, log_pi - prior, 1.0, p, q)))
    claim.close(risks, np.log1p(np.exp([-5.0, -10.0, -20.0, -40.0])), 1e-12, what="risk: -> 0")
    claim.exhibits(-np.diff(np.log(risks)), 4.9, what="its fall along the ray, nats")
    with pytest.raises(InvalidInput, match="no law follows"):
        one_step_round(p, q, SPIN, 1.0)
    bounded = one_step_round(p, q, objectives.get("ipo", margin=1.0), 1.0)
    assert bounded.converged.all()  # a squared loss attains its least risk there as well


@pytest.mark.claim("T3.one_beta", regime="tabular")
@pytest.mark.parametrize(
    ("name", "beta"),
    [("airl", 1.0), ("nwj", 1.0), ("space", 1.0), ("brier", 1.0), ("exponential", 0.5)],
)
@given(game=games(max_n=8))
@settings(max_examples=6)
def test_pointwise_losses_can_be_exact_at_one_beta(claim, name, beta, game):
    """Z = 1 where R(u) = beta u; NWJ's own term is constant at beta = 1."""
    obj = objectives.get(name, mu=3.0) if name == "space" else objectives.get(name)
    found = one_step_round(game.expert, game.start, obj, beta, branch="global")
    gap = laws.total_variation(found.policy, two_step(game, obj, beta))
    claim.below(gap, 1e-9, what=f"TV between one step and two steps at beta = {beta}")
    assert found.certified.all()
