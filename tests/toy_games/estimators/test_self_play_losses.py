"""T15, T17: what minibatch gradients of self-play losses estimate, and which are biased."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.stats import fit_line
from tests.toy_games.estimators.problems import (
    EXACT,
    FAMILIES,
    INSTANCES,
    PLAYED,
    on_class,
    problem_of,
)
from theory import TokenMDP, objectives
from theory.errors import InvalidInput
from theory.objectives.finite_groups import expected_group_loss
from toy_games.engine.policies import Tokens
from toy_games.estimators import losses as estimators
from toy_games.estimators.enumeration import audit, gradient

MISPLACED = ("inpo", "tspin", "alpha_spin")
"""Losses whose rewards are not 0 at theta_t."""
FROM_START = [n for n in PLAYED if n not in (*MISPLACED, "sppo")]


@pytest.mark.claim("T15.first_gradient", regime="dynamics", of="games")
@pytest.mark.parametrize("kind", ["neural", "log-linear", "softmax", "tokens"])
@settings(max_examples=3)
@given(seed=INSTANCES)
def test_first_gradients_are_those_of_sft(claim, kind, seed):
    problem = on_class(kind, seed)
    for name in FROM_START:
        found = audit(estimators.first_gradient(problem, objectives.get(name)))
        claim.close(found.relative_bias, 0.0, EXACT, what="E g - scale x SFT's, relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="at_start", of="games")
def test_later_gradients_are_not(claim):
    problem = problem_of(beta=0.8)
    for name in FROM_START:
        found = audit(estimators.first_gradient(problem, objectives.get(name), away=True))
        claim.exhibits(1.0 - found.cosine, 1e-4, what="1 - cosine with SFT's")


@pytest.mark.claim("T15.nwj", regime="dynamics", of="games")
@settings(max_examples=5)
@given(seed=INSTANCES)
def test_nwj_at_beta_one_is_sft_at_every_step(claim, seed):
    """Its own-response term is E_q e^(r-1) S = E_pi S / e = 0 wherever theta is."""
    problem = dataclasses.replace(on_class("log-linear", seed), beta=1.0)
    found = audit(estimators.first_gradient(problem, objectives.get("nwj"), away=True))
    claim.close(found.relative_bias, 0.0, EXACT, what="E g - SFT's, relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_reference", of="games")
@pytest.mark.parametrize("name", MISPLACED)
def test_displaced_losses_start_elsewhere(claim, name):
    found = audit(estimators.first_gradient(problem_of(), objectives.get(name)))
    claim.exhibits(1.0 - found.cosine, 2e-3, what="1 - cosine with SFT's")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_from_current", of="games")
@pytest.mark.parametrize("case", ["random", "text"])
def test_stale_own_samples_turn_the_first_gradient(claim, case):
    for estimator in estimators.stale_samples(problem_of(case)):
        found = audit(estimator)
        claim.exhibits(1.0 - found.cosine, 1e-4, what="1 - cosine with SFT's")
        claim.close(found.unexplained, 0.0, EXACT, what="E g - scale x (E_own S - E_p S), relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="sequence_ratios", of="games")
def test_dividing_by_length_turns_the_first_gradient(claim):
    found = audit(estimators.length_normalised(problem_of("text")))
    claim.exhibits(1.0 - found.cosine, 1e-2, what="1 - cosine with IPO's")
    claim.close(found.unexplained, 0.0, EXACT, what="E g - weighted SFT's and length's, relative")


def test_dividing_by_length_is_harmless_at_equal_lengths():
    problem = problem_of()
    fixed = Tokens(TokenMDP.random(vocab=2, horizon=3, seed=4, eos=None))
    rng = np.random.default_rng(8)
    theta, theta_t = (fixed.initial(rng, 1.0) for _ in range(2))
    expert = torch.from_numpy(fixed.game.sequence_law(fixed.game.expert)[0].copy())
    equal = dataclasses.replace(
        problem, policy=fixed, expert=expert, theta=theta, theta_t=theta_t, theta_ref=theta
    )
    for away in (False, True):
        assert audit(estimators.length_normalised(equal, away)).relative_bias < EXACT
    with pytest.raises(InvalidInput, match="end-of-sequence"):
        estimators.false_ends(equal, 2)


def test_false_ends_keep_the_prefix():
    problem = problem_of()
    rows = [r.tokens for r in problem.policy.game.sequences()[0]]
    law = dict(zip(rows, estimators.false_ends(problem, 1), strict=True))
    first = problem.policy.log_policy(problem.theta_t[None])[0, 0].exp()
    assert float(law[0,]) == pytest.approx(float(first[0]))
    assert float(law[2, 0]) == pytest.approx(float(first[2]))
    assert sum(float(v) for v in law.values()) == pytest.approx(1.0)


@settings(max_examples=3)
@given(FAMILIES, INSTANCES)
def test_pairs_and_u_statistics_are_unbiased(case, instance):
    problem = problem_of(case, instance)
    for name in PLAYED:
        loss = objectives.get(name)
        if loss.has_loss:
            assert audit(estimators.one_pair(problem, loss)).relative_bias < EXACT
    pairs = [audit(estimators.all_pairs(problem, objectives.get("ipo"), m)) for m in (1, 2)]
    assert pairs[1].relative_bias < EXACT
    assert pairs[1].deviation <= pairs[0].deviation  # four differences of four responses


@pytest.mark.claim("T17.finite_groups", regime="dynamics", of="games")
@settings(max_examples=4)
@given(instance=INSTANCES, size=st.integers(1, 3))
def test_plug_in_baselines_estimate_the_finite_group_risk(claim, instance, size):
    problem, centred = problem_of("small", instance), objectives.get("centred_spif")
    estimator = estimators.finite_groups(problem, centred, size)
    found = audit(estimator)
    claim.close(found.relative_bias, 0.0, EXACT, what="E g - gradient of the finite-group risk")

    def reward(theta):
        return problem.beta * (problem.log_law(theta) - problem.log_t)

    r, nudges = reward(problem.theta[None])[0].numpy(), np.eye(problem.expert.shape[0])
    p, q = (np.tile(law, (len(r), 1)) for law in (problem.expert, problem.log_t.exp()))
    # T17's risk is a quadratic of the rewards: central differences of any width are exact
    up, down = (
        expected_group_loss(p, q, r + sign * nudges, centred.c, size, size) for sign in (1.0, -1.0)
    )
    slope = torch.from_numpy(0.5 * (up - down))
    exact = gradient(lambda theta: reward(theta) @ slope, problem.theta)
    claim.close(estimator.target, exact, 1e-10, what="gradient of the risk against T17's form")


@pytest.mark.claim("T17.exact", regime="dynamics", drops="exact_baseline", of="games")
def test_plug_in_baselines_are_biased_for_the_exact_risk(claim):
    problem, centred = problem_of("small"), objectives.get("centred_spif")
    bias = [audit(estimators.grouped(problem, centred, m)).relative_bias for m in (1, 2, 4, 8)]
    claim.close(np.array(bias) * [1, 2, 4, 8], bias[0], 1e-9, what="bias x group size")
    claim.exhibits(bias[-1], 1e-3, what="relative bias at groups of 8")


def test_renyi_is_biased_by_one_over_m():
    problem, sizes = problem_of("small"), np.array([2, 4, 8])
    found = [audit(estimators.grouped(problem, objectives.get("renyi"), m)) for m in sizes]
    slope = fit_line(np.log(sizes), np.log([f.relative_bias for f in found])).slope
    assert -1.1 < slope < -0.85
    # What the leading order leaves is of second order.
    left = fit_line(np.log(sizes), np.log([f.unexplained for f in found])).slope
    assert left < -1.6
