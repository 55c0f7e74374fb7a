"""T4 and C4: mass dumped on a neglected response, rewards without a bound, and who avoids both."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.theory.rounds.one_step.minimisers import (
    SPIF,
    gradient_of,
    newton_minimum,
    risk_of_logits,
    two_step,
)
from tests.theory.strategies import Instance
from theory import laws, objectives
from theory.rounds.one_step import one_step_round, partition_gap

TINY = 1e-9
DUMPING = np.array([0.6, 0.4, TINY]) / (1 + TINY), np.array([0.4, 0.6, TINY]) / (1 + TINY)
WARM = np.array([0.005, 0.005, 0.989, 1e-3]), np.array([0.5, 0.49, 0.009, 1e-3])


@pytest.mark.claim("T4.dumping", regime="tabular")
def test_the_example_of_mass_dumping(claim):
    p, q = DUMPING
    found = one_step_round(p, q, SPIF, 1.0, branch="global")
    assert found.certified
    assert found.dumped == 2
    printed = [0.4886, 0.4912, 0.0202]
    claim.close(found.policy, printed, 5e-5, what="one-step optimum as printed", because="theory")
    claim.close(found.reward[2], 16.8, 0.05, what="c r of the third as printed", because="theory")
    two = two_step(Instance(p, q, q, np.random.default_rng(0)), SPIF, 1.0)
    printed = [0.4986, 0.5014]
    claim.close(two[:2], printed, 5e-5, what="two-step round as printed", because="theory")
    missing = 1.0 - np.exp(partition_gap(p, q, SPIF, 1.0))
    claim.close(
        found.dumped_mass, missing, 1e-5, what="dumped mass against 1 - Z", because="expansion"
    )
    near = one_step_round(p, q, SPIF, 1.0)
    assert near.dumped == -1
    assert "not certified" in near.status


@pytest.mark.claim("T4.unbounded_rewards", regime="tabular")
@pytest.mark.parametrize("tiny", [1e-6, 1e-9, 1e-100])
def test_one_step_rewards_are_not_bounded(claim, tiny):
    p, q = (np.array([x, 1 - x, tiny]) / (1 + tiny) for x in (0.6, 0.4))
    found = one_step_round(p, q, SPIF, 1.0, branch="global")
    assert found.certified
    least = 0.9 * np.log(0.02 / tiny)  # the bound would be 1
    claim.exhibits(found.reward[2], max(least, 2.0), what="c r of the one-step pointwise loss")
    claim.exhibits(found.dumped_mass, 0.019, what="mass on a third outcome")


@pytest.mark.claim("T4.unbounded_rewards", regime="tabular")
def test_warm_starts_do_not_avoid_it(claim):
    """Gradient descent on the logits from pi_t ends where the near branch, over its fold, does."""
    p, q = WARM
    game = Instance(p[None], q[None], q[None], np.random.default_rng(0))
    risk, x = risk_of_logits(game, SPIF, 1.0, 0.0), torch.log(torch.tensor(q))
    for _ in range(4000):
        gradient = gradient_of(risk, x)
        x = x - gradient
        if gradient.abs().max() < 1e-11:
            break
    near = one_step_round(p, q, SPIF, 1.0)
    assert "fold" in near.status
    gap = laws.total_variation(np.asarray(torch.softmax(x, 0)), near.policy)
    claim.below(gap, 1e-6, what="TV of descent from pi_t to the branch continued over its fold")
    claim.exhibits(near.reward[3], 6.0, what="c r after descent from pi_t (4 outcomes)")
    claim.exhibits(near.dumped_mass, 0.5, what="mass on an outcome that p and q give 0.001")


@pytest.mark.claim("T4.shift_invariant", "T3.one_loss_is_a_round", regime="tabular")
@pytest.mark.parametrize("law", [DUMPING, WARM])
@pytest.mark.parametrize("name", ["ipo", "centred_spif"])
def test_no_dumping_by_shift_invariant_losses(claim, name, law):
    p, q = (x[None] for x in law)
    game, obj = Instance(p, q, q, np.random.default_rng(0)), objectives.get(name)
    found = one_step_round(p, q, obj, 1.0, branch="global")
    gap = laws.total_variation(found.policy, two_step(game, obj, 1.0))
    claim.below(gap, 1e-8, what="TV between one step and two steps")
    independent = newton_minimum(risk_of_logits(game, obj, 1.0, 0.0), np.log(q[0]))
    gap = laws.total_variation(found.policy[0], independent)
    claim.below(gap, 1e-8, what="TV from an independent minimiser")


@pytest.mark.claim("T4.no_dumping", regime="tabular", drops="room")
@pytest.mark.parametrize("name", ["airl", "space"])
def test_logistic_pointwise_losses_dump_mass_above_beta_one(claim, name):
    """Z = E_q (p/q)^{1/beta} < 1 for beta > 1, and the pull of an own response is bounded."""
    p, q = np.array([0.75, 0.249, 1e-3]), np.array([0.25, 0.749, 1e-3])
    found = one_step_round(p, q, objectives.get(name), 2.0, branch="global")
    claim.exhibits(found.dumped_mass, 0.1, what="mass on a third outcome at beta = 2")
    exact = one_step_round(p, q, objectives.get(name), 1.0, branch="global")
    assert exact.dumped == -1
