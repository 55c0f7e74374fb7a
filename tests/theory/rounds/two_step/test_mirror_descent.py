"""T5: a two-step round is mirror descent on an f-divergence, for which objectives; its rewards."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given

from tests.theory.rounds.two_step.links import FIXED
from tests.theory.strategies import Instance, games, label
from theory import laws, objectives, self_play
from theory.objectives import Objective
from theory.result import FloatArray

ABSENT = {"sppo", "spin_hinge", "ipo", "inpo", "tspin", "alpha_spin"}


def test_every_objective_is_here_or_named_absent() -> None:
    assert {obj.name for obj in FIXED} | ABSENT == set(objectives.names())
    for name in ABSENT:
        obj = objectives.get(name)
        assert obj.missing("link") or obj.missing("potential")


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T5.mirror_descent", regime="tabular")
@given(game=games())
def test_reward_is_minus_gradient_of_potential(claim, obj: Objective, game: Instance) -> None:
    """d/dpi D_Phi(pi||p) = -r + const: directional derivatives along random tangents."""
    p, q = game.expert, game.start
    if obj.name == "ipm":  # kinks where p = pi: stay on one side of all of them
        assume(np.abs(np.log(p / q)).min() > 1e-2)
    direction = q * game.rng.standard_normal(q.shape)
    direction -= q * direction.sum(-1, keepdims=True)
    step = 1e-5 / np.abs(direction / q).max()
    ahead, behind = obj.potential(q + step * direction, p), obj.potential(q - step * direction, p)
    slope = (ahead - behind) / (2 * step)
    predicted = -(obj.reward(p, q) * direction).sum(-1)
    scale = np.abs(obj.reward(p, q) * direction).sum(-1).max() + obj.potential(q, p).max()
    atol = 2e-5 * scale + 1e-9  # of differences 1e-5 wide
    what = "directional derivative of D_Phi"
    claim.close(slope, predicted, atol, what=what, because="expansion")


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T5.mirror_descent", "T2.gibbs", regime="tabular")
@given(game=games())
def test_round_is_the_mirror_descent_step(claim, obj: Objective, game: Instance) -> None:
    """pi_{t+1} minimises <-r_t, pi> + beta KL(pi||pi_t): no random policy does better."""
    beta = float(game.rng.uniform(0.3, 3.0))
    after = self_play(game.expert, game.start, obj, beta=beta, rounds=1).policy
    # an unbounded reward can push mass to where numbers have fewer digits, or to 0
    assume((after >= np.finfo(float).tiny).all())
    reward = obj.reward(game.expert, game.start)

    def surrogate(policy: FloatArray) -> FloatArray:
        return -laws.expect(policy, reward) + beta * laws.kl(policy, game.start)

    for other in (game.start, game.ref, game.expert, 0.99 * after + 0.01 * game.ref):
        # strong convexity: the excess is beta KL(other || pi_{t+1}) exactly
        excess = surrogate(other) - surrogate(after)
        size = 1.0 + np.abs(reward).max()
        predicted = beta * laws.kl(other, after) / size
        claim.close(excess / size, predicted, 1e-12, rtol=1e-9, what="excess = beta KL")


@pytest.mark.parametrize("name", ["iq_learn", "policy_only"])
@pytest.mark.claim("T8.bounded", regime="tabular", drops="penalty_on_mixture")
def test_one_sided_penalties_are_unbounded(claim, name: str) -> None:
    """Penalties on one side: the reward grows without bound with the mismatch; SPIF stays in."""
    mismatch = np.array([1e-2, 1e-4, 1e-6])
    p = np.stack([1 - mismatch, mismatch], -1)
    q = p[:, ::-1]
    largest = np.abs(objectives.get(name).reward(p, q)).max(-1)
    growth = largest[1:] / largest[:-1]  # of 1/mismatch - 2
    claim.exhibits(growth, 100.0, what="reward growth per 100x mismatch", because="theory")
    claim.below(np.abs(objectives.get("spif").reward(p, q)).max(), 1.0, what="SPIF reward <= 1/c")
