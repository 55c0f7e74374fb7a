"""Values, rewards and defaults of small games, and which of the cones' answers counts."""

import numpy as np
import pytest

from theory import equilibrium, objectives, saddle_point
from theory.equilibria import conic, newton
from theory.equilibria.problem import checked

P = np.array([[0.5, 0.3, 0.2, 0.0, 0.0], [0.2, 0.2, 0.6, 0.0, 0.0]])
REF = np.array([[0.2, 0.3, 0.3, 0.2, 0.0], [0.4, 0.3, 0.2, 0.1, 0.0]])


def kl(p, q):
    return np.where(p > 0, p * np.log(np.where(p > 0, p, 1.0) / np.where(p > 0, q, 1.0)), 0).sum(-1)


def test_the_value_and_reward_of_ipos_equilibrium():
    """2 kappa KL(p || (p + pi)/2) + tau KL(pi || ref), kappa = m/(1 + Delta/2) at the policy."""
    found = equilibrium(P, REF, "ipo(margin=0.7)", tau=0.2)
    total = np.where(P + found.policy > 0, P + found.policy, 1.0)
    kappa = 0.7 / (1 + 0.5 * ((P - found.policy) ** 2 / total).sum(-1))
    value = 2 * kappa * kl(P, 0.5 * (P + found.policy)) + 0.2 * kl(found.policy, REF)
    np.testing.assert_allclose(found.primal, value, rtol=1e-10)
    target = REF * np.exp(kappa[:, None] * (P - found.policy) / total / 0.2)
    np.testing.assert_allclose(found.policy, target / target.sum(-1, keepdims=True), atol=1e-10)


def test_rewards_of_outcomes_that_the_expert_never_plays():
    """-1 where the reference plays it, 0 where nobody does."""
    found = saddle_point(P, REF, "spif", tau=0.2)
    total = np.where(P + found.policy > 0, P + found.policy, 1.0)
    reward = (P - found.policy) / total
    assert (reward[:, 3] == -1).all()
    np.testing.assert_allclose(found.reward, reward, atol=1e-8)
    payoff = (P * (reward - reward**2 / 2) - found.policy * (reward + reward**2 / 2)).sum(-1)
    np.testing.assert_allclose(found.primal, payoff + 0.2 * kl(found.policy, REF), rtol=1e-10)


@pytest.mark.parametrize("solve", [saddle_point, equilibrium])
def test_the_anchor_weighs_a_tenth_by_default(solve):
    found, said = solve(P, REF, "spif"), solve(P, REF, "spif", 0.1)
    np.testing.assert_array_equal(found.policy, said.policy)
    assert np.abs(found.policy - solve(P, REF, "spif", 1.1).policy).max() > 0.05


@pytest.mark.parametrize("tau", [0.02, 0.2, 2.0])
def test_few_evaluations_of_the_pay_are_enough(tau):
    """The log-ratios move with the multiplier before they are solved for again."""
    for solve in (saddle_point, equilibrium):
        assert solve(P, REF, "spif", tau).iterations <= 7


def test_a_reward_that_jumps_is_found_within_the_jump():
    """The second prompt's expert is the reference, where every reward within the jump will do."""
    expert = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    ref = np.array([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]])
    for solve in (saddle_point, equilibrium):
        found = solve(expert, ref, "ipm", tau=0.3)
        assert (found.gap <= 1e-9).all()
        np.testing.assert_allclose(found.policy[1], ref[1], atol=1e-12)


@pytest.mark.parametrize(("kind", "solve"), [("saddle", saddle_point), ("eq", equilibrium)])
def test_cones_find_the_same_policy(kind, solve):
    found = solve(P[0, :4], REF[0, :4], "spif", 0.2, "convex").policy
    np.testing.assert_allclose(found, solve(P[0, :4], REF[0, :4], "spif", 0.2).policy, atol=2e-7)
    assert found.sum() == pytest.approx(1.0, abs=1e-12)


def test_the_answer_with_the_smallest_gap_counts(monkeypatch):
    """Attempt i returns the policy (i, 1 - i): gaps by table, loose and with nudges."""
    spif = objectives.get("spif")
    game = checked("saddle", [0.6, 0.4], [0.5, 0.5], spif, 1.0, "convex", None, 9)

    def answer(gaps):
        tried = []

        def attempt(game, delta, total_n, unit, settings):
            tried.append(settings["max_iter"])
            i = len(tried) / 100
            return (None if gaps[len(tried) - 1] is None else np.array([i, 1 - i])), 3, "done"

        def gap_of(problem, policy, nudges=()):
            loose, gap = gaps[round(100 * policy[0]) - 1]
            return np.array(gap if nudges else loose), None

        monkeypatch.setattr(conic, "_attempt", attempt)
        monkeypatch.setattr(newton, "certificate", gap_of)
        policy, iterations, status = conic.solve(game, 17)
        assert iterations == 3 * len(tried)
        assert set(tried) == {17}
        assert status == "Clarabel (done)"
        return round(100 * policy[0]), len(tried)

    count = len(conic.FORMULATIONS)
    others = [(1e-5, 1e-5)] * count
    assert answer([(1e-3, 1e-3), (1e-8, 1e-8), *others][:count]) == (2, count)
    assert answer([None, (1e-8, 1e-8), *others][:count]) == (2, count)
    assert answer([(1e-3, 1e-3), (1e-14, 1e-14), *others][:count]) == (2, 2)  # sharp
    assert answer([(1e-3, 1e-7), (1e-3, 1e-12), *others][:count]) == (2, 2)  # at a kink
    assert answer([(1e-10, 1e-12), *others][:count]) == (1, count)  # sharp at a kink only
