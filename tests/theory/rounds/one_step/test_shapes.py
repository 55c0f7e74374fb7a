"""The one-step solver as a tool: batches, padding, missing mass, long laws and preferences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tests.theory.rounds.one_step.minimisers import (
    IMITATION,
    POINTWISE,
    SPIF,
    newton_minimum,
    two_step,
)
from tests.theory.strategies import Instance, label
from theory import laws, objectives
from theory.rounds.one_step import one_step_round


@pytest.mark.parametrize("obj", POINTWISE, ids=label)
def test_batches_agree_with_single_prompts_and_padding_is_ignored(obj):
    rng = np.random.default_rng(5)
    p, q = laws.random_law(rng, (2, 3, 4)), laws.random_law(rng, (2, 3, 4))
    wins = {"preference": rng.random((2, 3, 4))} if "preference" in obj.needs else {}
    whole = one_step_round(p, q, obj, 0.8, branch="global", **wins)
    assert whole.multiplier.shape == (2, 3)
    single = {k: v[1, 2] for k, v in wins.items()}
    alone = one_step_round(p[1, 2], q[1, 2], obj, 0.8, branch="global", **single)
    np.testing.assert_allclose(whole.policy[1, 2], alone.policy, rtol=0, atol=1e-12)
    wide = [np.concatenate([x[1, 2], [0.0, 0.0]]) for x in (p, q)]
    if single:
        single = {"preference": np.concatenate([single["preference"], [0.3, 0.3]])}
    padded = one_step_round(*wide, obj, 0.8, branch="global", **single)
    np.testing.assert_allclose(padded.policy[:4], alone.policy, rtol=0, atol=1e-12)
    assert np.all(padded.policy[4:] == 0)
    assert np.all(padded.reward[4:] == 0)


@pytest.mark.parametrize("branch", ["near", "global"])
@pytest.mark.parametrize("obj", IMITATION, ids=label)
def test_outcomes_without_expert_or_own_mass(obj, branch):
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.4, 0.4, 0.0, 0.2])
    found = one_step_round(p, q, obj, 1.0, branch=branch)
    assert found.policy[2] == 0.0
    assert found.reward[2] == 0.0
    assert np.isfinite(found.policy).all()
    assert abs(found.policy.sum() - 1.0) < 1e-12
    assert found.converged


def test_one_outcome():
    for obj in IMITATION:
        found = one_step_round(np.array([1.0]), np.array([1.0]), obj, 0.5, branch="global")
        assert found.policy == pytest.approx([1.0])
        assert found.reward == pytest.approx([0.0])


def test_long_laws():
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (1, 100_000)), laws.random_law(rng, (1, 100_000))
    near = one_step_round(p, q, SPIF, 1.0)
    assert near.converged.all()
    game = Instance(p, q, q, rng)
    assert laws.total_variation(near.policy, two_step(game, SPIF, 1.0)) < 0.1
    found = one_step_round(
        p[:, :1500] / p[:, :1500].sum(), q[:, :1500] / q[:, :1500].sum(), SPIF, 0.7
    )
    assert found.converged.all()


def test_sppo_is_pointwise_spif_on_winners_and_losers():
    """T11: hard labels at weights p_w, p_l; for p_w, p_l around pi_t the prior is pi_t."""
    rng = np.random.default_rng(2)
    law, wins = laws.random_law(rng, (4,)), rng.random(4)
    found = one_step_round(law, law, objectives.get("sppo"), 0.5, preference=wins)
    game = Instance(law[None], law[None], law[None], rng)

    def risk(logits: Any) -> Any:
        ratio = torch.log_softmax(logits, -1) - torch.log(torch.tensor(law))
        labels = dict.fromkeys(("expert_preference", "policy_preference"), torch.tensor(wins))
        weight = torch.tensor(law)
        return objectives.get("sppo").risk(ratio, ratio, 0.5, weight, weight, **labels)

    independent = newton_minimum(risk, np.log(game.start[0]))
    np.testing.assert_allclose(found.policy, independent, rtol=0, atol=1e-9)
