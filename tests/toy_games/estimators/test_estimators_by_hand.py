"""Moments of an estimate by hand, and closed forms of estimators on a tree of seven responses."""

import numpy as np
import pytest
import torch

from theory import TokenMDP, objectives, preferences
from toy_games.engine.policies import Tokens
from toy_games.estimators import losses, rewards
from toy_games.estimators.enumeration import Draws, Estimator, audit, gradient

TABLE = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-1.0, 1.0]], dtype=torch.float64)
LAW = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)


def estimator(table, target, **more):
    """The estimate is the mean of the drawn responses' rows."""
    return Estimator(
        "by hand", "rows", torch.zeros(2, dtype=torch.float64), "a vector",
        torch.tensor(target, dtype=torch.float64), (Draws(LAW, 2),),
        lambda theta, y: (table[y].mean(1) * theta).sum(-1), "the same", **more,
    )  # fmt: skip


def test_the_moments_of_a_mean_of_two_rows():
    mean = (LAW @ TABLE).numpy()
    covariance = ((TABLE.T * LAW) @ TABLE).numpy() / 2 - np.outer(mean, mean) / 2
    target = np.array([3.0, 4.0])
    found = audit(estimator(TABLE, target, predicted=torch.tensor(mean + [0.0, 0.5])))
    np.testing.assert_allclose(found.mean, mean)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-15)
    assert found.relative_bias == pytest.approx(np.linalg.norm(mean - target) / 5)
    assert found.cosine == pytest.approx(mean @ target / (5 * np.linalg.norm(mean)))
    assert found.deviation == pytest.approx(np.sqrt(2 * np.trace(covariance)) / 5)
    assert found.unexplained == pytest.approx(0.5 / 5)
    spent = audit(estimator(TABLE, target, predicted=None, responses=3))
    assert spent.deviation == pytest.approx(np.sqrt(3 * np.trace(covariance)) / 5)
    assert np.isnan(spent.unexplained)


def test_an_estimate_of_nothing_has_no_direction():
    found = audit(estimator(TABLE - LAW @ TABLE, [3.0, 4.0], predicted=None))
    assert (found.cosine, found.relative_bias) == (0.0, 1.0)


def test_the_gradient_of_a_square():
    theta = torch.tensor([1.0, -2.0], dtype=torch.float64)
    torch.testing.assert_close(gradient(lambda t: (t**2).sum(-1), theta), 2 * theta)


@pytest.fixture(scope="module")
def problem():
    """A tree of seven responses of unequal length, everything on it random."""
    rng = np.random.default_rng(2)
    game = TokenMDP.random(vocab=3, horizon=2, rng=rng)
    policy = Tokens(game)
    theta = [policy.initial(rng, 0.8) for _ in range(3)]
    expert = torch.from_numpy(game.sequence_law(game.expert)[0].copy())
    payoff = torch.from_numpy(rng.standard_normal(7))
    wins = torch.from_numpy(preferences.random_preference(rng, 7, strength=0.8))
    return losses.EstimationProblem(policy, expert, *theta, payoff, wins, beta=1.3)


def test_divergences_of_two_laws(problem):
    kl = rewards._Kl(problem)
    p, ref = problem.law(problem.theta), problem.log_ref.exp()
    theta = problem.theta[None]
    assert float(kl.divergence(theta)) == pytest.approx(float((p * (p / ref).log()).sum()))
    assert float(kl.reverse(theta)) == pytest.approx(float((ref * (ref / p).log()).sum()))


@pytest.mark.parametrize("family", ["kl_penalties", "preference_targets", "policy_gradients"])
def test_closed_forms_are_the_expectation(problem, family):
    size = () if family == "kl_penalties" else (2,)
    for found in getattr(rewards, family)(problem, *size):
        if found.exact and found.predicted is not None:
            assert audit(found).unexplained < 1e-10, found.name


def test_first_gradients_of_a_loss_on_log_ratios_a_token(problem):
    for away in (False, True):
        found = losses.length_normalised(problem, away)
        if not away:
            assert audit(found).unexplained < 1e-10
    for found in losses.stale_samples(problem):
        assert audit(found).unexplained < 1e-10, found.name


def test_the_square_penalty_on_old_samples(problem):
    """E_old[(log pi - log ref)^2]/2: its mean gradient over draws of the old law."""
    (found,) = [e for e in rewards.kl_penalties(problem) if e.name == "k2 as a loss, old samples"]
    theta = problem.theta.clone().requires_grad_()
    apart = problem.log_law(theta[None])[0] - problem.log_ref
    (exact,) = torch.autograd.grad(0.5 * (apart**2 * problem.log_t.exp()).sum(), theta)
    np.testing.assert_allclose(audit(found).mean, exact, atol=1e-12)
    torch.testing.assert_close(found.predicted, exact)


def test_what_is_learned_from_groups_is_known_of_single_responses_and_of_quadratic_risks():
    names = ("spif", "spin", "centred_spif", "renyi")
    known = [losses.known_of_groups(objectives.get(name)) for name in names]
    assert known == [True, True, True, False]
