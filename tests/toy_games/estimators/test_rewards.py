"""What KL penalties, sampled preferences and policy gradients estimate."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.estimators.problems import (
    EXACT,
    FAMILIES,
    INSTANCES,
    named,
    on_class,
    problem_of,
)
from theory import TokenMDP
from toy_games.engine.policies import Tokens
from toy_games.estimators import rewards as reward_estimators
from toy_games.estimators.enumeration import audit
from toy_games.experiments.audit import shrinking

UNBIASED_KL = (
    "k2 as a loss",
    "k1 in the reward",
    "k1 in the reward to go",
    "vocabulary KL + score of prefixes",
    "k1 in the reward, old, reweighted",
)


@pytest.mark.parametrize("case", ["random", "text"])
def test_which_kl_penalties_are_unbiased(case):
    for estimator in reward_estimators.kl_penalties(problem_of(case)):
        bias = audit(estimator).relative_bias
        assert (bias < EXACT) if estimator.name in UNBIASED_KL else (bias > 0.02), estimator.name


def test_token_penalties_are_right_for_last_tokens_only():
    problem = problem_of("random")
    game = problem.policy.game
    last = torch.from_numpy((game.next_state < 0).all(-1).repeat(game.n_actions))
    found = reward_estimators.kl_penalties(problem)
    for name in ("k2 a token, as a loss", "vocabulary KL at prefixes"):
        estimator = named(found, name)
        off = (audit(estimator).mean - estimator.target).abs()
        assert off[last].max() < EXACT
        assert off[~last].max() > 0.01
    # A game of one token has last tokens only.
    single = on_class("tokens", 5)
    game = TokenMDP.random(vocab=4, horizon=1, seed=1)
    policy, rng = Tokens(game), np.random.default_rng(2)
    theta, theta_ref = (policy.initial(rng, 1.0) for _ in range(2))
    expert = torch.from_numpy(game.sequence_law(game.expert)[0].copy())
    single = dataclasses.replace(
        single, policy=policy, expert=expert, theta=theta, theta_t=theta, theta_ref=theta_ref
    )
    for name in ("k2 a token, as a loss", "vocabulary KL at prefixes", "k2 as a loss, old samples"):
        estimator = named(reward_estimators.kl_penalties(single), name)
        assert audit(estimator).relative_bias < EXACT


def test_the_vocabulary_takes_noise_away():
    found = reward_estimators.kl_penalties(problem_of("text"))
    noise = {e.name: audit(e).deviation for e in found if e.name in UNBIASED_KL}
    assert min(noise, key=noise.get) == "vocabulary KL + score of prefixes"
    assert noise["k1 in the reward to go"] < noise["k1 in the reward"]


@pytest.mark.claim("T11.sampled", regime="dynamics", of="games")
@settings(max_examples=4)
@given(case=FAMILIES, instance=INSTANCES, size=st.integers(2, 3))
def test_sampled_preferences_do_not_bias_a_squared_loss(claim, case, instance, size):
    found = reward_estimators.preference_targets(problem_of(case, instance), size)
    for name in (f"SPPO, {size} samples, others only", "SPPO, one coin flip a pair"):
        bias = audit(named(found, name)).relative_bias
        claim.close(bias, 0.0, EXACT, what="E g - gradient of SPPO's risk, relative")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="squared_loss", of="games")
def test_a_logit_of_sampled_preferences_does(claim):
    problem, sizes = problem_of("small"), np.array([3, 5, 9])
    found = [
        audit(named(shrinking(problem, m), f"logit target, {m} samples, others only"))
        for m in sizes
    ]
    bias = np.array([f.relative_bias for f in found])
    claim.exhibits(bias, 5e-4, what="relative bias of the gradient")
    left = np.array([f.unexplained for f in found])
    claim.below(left, 0.7 * bias, "bias beyond its leading order 1/(K-1)", because="chosen")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison", of="games")
def test_self_comparison_shrinks_targets(claim):
    problem = problem_of("random", instance=6)
    start = dataclasses.replace(problem, theta=problem.theta_t)
    for size in (2, 3):
        name = f"SPPO, {size} samples, itself too"
        here, first = (
            audit(named(reward_estimators.preference_targets(p, size), name))
            for p in (problem, start)
        )
        claim.close(here.unexplained, 0.0, EXACT, what="E g - that of targets x (K-1)/K, relative")
        claim.close(first.relative_bias, 1.0 / size, EXACT, what="relative bias at theta_t: 1/K")
        claim.exhibits(here.relative_bias, 1e-3, what="relative bias at theta")


@settings(max_examples=3)
@given(FAMILIES, INSTANCES, st.integers(2, 3))
def test_baselines_of_policy_gradients(case, instance, size):
    problem = problem_of(case, instance)
    plain, others, mean, scaled, _ = (
        audit(e) for e in reward_estimators.policy_gradients(problem, size)
    )
    assert plain.relative_bias < EXACT
    assert others.relative_bias < EXACT
    assert mean.relative_bias == pytest.approx(1.0 / size, abs=EXACT)
    assert mean.cosine == pytest.approx(1.0, abs=EXACT)
    assert scaled.cosine < 1.0 - 1e-7
