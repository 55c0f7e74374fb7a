"""Enumerated expectations of stochastic gradients against draws and closed forms."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from scipy import stats

from tests.toy_games.estimators.problems import FAMILIES, INSTANCES, on_class, problem_of
from theory import objectives
from theory.errors import InvalidInput
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.estimators import losses as estimators
from toy_games.estimators import rewards as reward_estimators
from toy_games.estimators.enumeration import Draws, audit, gradient, monte_carlo
from toy_games.experiments.audit import catalogue


@pytest.mark.parametrize("case", ["random", "text"])
def test_draws_agree_with_the_enumeration(case):
    """Held out: for every estimator the whole vector of draws' means, against exact moments."""
    surprise = []
    for estimator in catalogue(problem_of(case, instance=5), size=2):
        found = audit(estimator)
        samples = 400
        means = monte_carlo(estimator, [91, 92, 93, 94, 95], samples)
        off = (means.mean(0) - found.mean) * np.sqrt(5 * samples)
        values, vectors = np.linalg.eigh(found.covariance.numpy())
        live = values > 1e-9 * values.max()
        assert np.abs(vectors[:, ~live].T @ off.numpy()).max(initial=0.0) < 1e-5
        size = float((((vectors[:, live].T @ off.numpy()) ** 2) / values[live]).sum())
        surprise.append(stats.chi2.sf(size, live.sum()))
    surprise = np.array(surprise)
    # Gradients of rare responses are far from normal in 2000 draws, hence the generous end.
    assert surprise.min() > 1e-9
    assert 0.3 < np.median(surprise) < 0.7


def test_the_audited_loss_is_the_one_that_self_play_descends():
    """Batches of `SelfPlay`, whose loss is other code, have the enumerated mean gradient."""
    problem = on_class("neural", 3)
    rows = [{"seed": s, "beta": problem.beta, "steps_per_round": 10} for s in range(400)]
    for name, data in (("spif", Data(batch=16)), ("centred_spif", Data(batch=16, group=2))):
        loss = objectives.get(name)
        run = SelfPlay(problem.policy, loss, pd.DataFrame(rows), problem.expert,
                       problem.theta_t, data)  # fmt: skip
        point = problem.theta.expand(len(rows), -1).clone().requires_grad_()
        values = run.loss(point, run.start(), 0).sum()
        (drawn,) = torch.autograd.grad(values, point)
        one = estimators.one_pair if loss.has_loss else estimators.grouped
        exact = audit(one(problem, loss) if loss.has_loss else one(problem, loss, 2))
        batches = data.batch if loss.has_loss else data.batch // 2
        error = exact.covariance.diagonal().sqrt() / np.sqrt(len(rows) * batches)
        assert ((drawn.mean(0) - exact.mean).abs() < 4.5 * error + 1e-12).all()


def test_enumeration_counts_every_order():
    law = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    problem = problem_of("small")
    mean_of_squares = dataclasses.replace(
        reward_estimators.policy_gradients(problem, 2)[0],
        draws=(Draws(law, 3),),
        loss=lambda t, y: t[:, 0] * y.to(torch.float64).mean(-1) ** 2,
    )
    value = torch.arange(4, dtype=torch.float64)
    mean = law @ value
    expected = mean**2 + (law @ value**2 - mean**2) / 3
    assert float(audit(mean_of_squares).mean[0]) == pytest.approx(float(expected), abs=1e-14)


def test_too_many_tuples_are_refused():
    problem = problem_of("random")
    with pytest.raises(InvalidInput, match="tuples of draws"):
        audit(reward_estimators.policy_gradients(problem, 12)[0])


@settings(max_examples=3)
@given(FAMILIES, INSTANCES)
def test_every_closed_form_is_the_expectation(case, instance):
    """All that the docstrings say an estimator really estimates, but for leading orders."""
    for estimator in catalogue(problem_of(case, instance), size=2):
        if estimator.predicted is not None and estimator.exact:
            assert audit(estimator).unexplained < 1e-9, estimator.name


def test_the_true_gradients_are_those_of_finite_differences():
    """The targets come from automatic differentiation of exact sums; here from differences."""
    problem = problem_of("text")
    step = 1e-5 * torch.eye(problem.theta.numel(), dtype=torch.float64)

    def kl(theta):
        log_law = problem.log_law(theta)
        return (log_law.exp() * (log_law - problem.log_ref)).sum(-1)

    rough = (kl(problem.theta + step) - kl(problem.theta - step)) / 2e-5
    target = reward_estimators.kl_penalties(problem)[0].target
    torch.testing.assert_close(target, rough, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(target, gradient(kl, problem.theta))
