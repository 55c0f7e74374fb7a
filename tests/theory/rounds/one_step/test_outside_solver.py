"""T4's rounds against scipy on losses written anew (outside_solver.py, beside this file).

Descent starts at ``pi_t``, searches also at the expert, next to vertices and at random.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from scipy.optimize import brentq

from tests.theory.rounds.one_step.outside_solver import (
    ENDS,
    PAYOFFS,
    Loss,
    apart,
    case,
    cases,
    constrained,
    descend,
    end_of_minimum,
    normal,
    search,
    settled,
    two_outcome_ends,
    two_outcome_slope,
)
from theory import laws
from theory.rounds.one_step import one_step_round

every_objective = pytest.mark.parametrize("name", PAYOFFS)


@every_objective
def test_the_derivatives_typed_here_are_those_of_the_loss(name):
    rng = np.random.default_rng(0)
    loss, z = case(name, rng, 6).loss, None
    z = loss.log_w + 0.3 * rng.normal(size=len(loss.p))
    for direction in np.eye(len(z)):
        step = 1e-5 * direction
        slope = (loss.value(z + step) - loss.value(z - step)) / 2e-5
        bend = (loss.gradient(z + step) - loss.gradient(z - step)) / 2e-5
        np.testing.assert_allclose(loss.gradient(z) @ direction, slope, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(loss.hessian(z) @ direction, bend, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(loss.gradient(z).sum(), 0.0, atol=1e-14)


SOLVED = 1e-6
"""Gradient, relative to the slopes that cancel in it, below which scipy has found a point."""


@pytest.mark.claim("T4.solvers", regime="tabular")
@every_objective
def test_descent_from_the_policy_ends_on_the_near_branch(claim, name):
    """Where no outcome is beyond its fold: there the law is also the only one of its kind."""
    there = 0
    for each in cases(name, 1, 16):
        found, log_pi = each.ours()
        if found.dumped >= 0:
            continue
        there += 1
        end = descend(each.loss, np.log(each.call["policy"]))
        claim.below(end.slack, SOLVED, what="gradient where scipy's descent ended")
        off = apart(end.log_pi, log_pi)
        claim.below(
            off, 1e-7, what="TV of the near branch from descent from pi_t", because="solver"
        )
        risk = each.loss.value(log_pi)
        claim.close(risk, end.risk, 1e-12, rtol=1e-9, what="risk on the near branch")
        values = np.linalg.eigvalsh(each.loss.hessian(log_pi))
        claim.exhibits(values[1:].min() / values[-1], 1e-12, what="curvature: it is a minimum")
    assert there >= 4


@pytest.mark.claim("T4.near_branch", regime="tabular")
@pytest.mark.parametrize(("eta", "exponent"), [(0.5, 1.5), (1.4, 1.5), (1.0, 2.0)])
def test_scipys_minimum_near_the_expert_and_the_two_step_round(claim, eta, exponent):
    """O(Delta^{3/2}), one order better at eta = 1: descent from pi_t against ``q e^{eta t}``."""
    rng = np.random.default_rng(3)
    for _ in range(4):
        p, direction = laws.random_law(rng, (6,)), rng.standard_normal(6)
        off, size = [], []
        for width in np.geomspace(0.1, 0.01, 5):
            q = p * np.exp(width * direction)
            q /= q.sum()
            loss = Loss(PAYOFFS["spif"], p, q, np.log(q), 1.0 / eta)
            end = settled(loss, descend(loss, np.log(q)).log_pi)
            two_step = normal(np.log(q) + eta * (p - q) / (p + q))
            off.append(apart(end, two_step))
            size.append(((p - q) ** 2 / (p + q)).sum())
        fit = np.polyfit(np.log(size), np.log(off), 1)[0]
        what = f"exponent of Delta in the TV gap at eta = {eta}"
        claim.close(fit, exponent, 0.1, what=what, because="expansion")


@pytest.mark.claim("T4.solvers", regime="tabular")
@every_objective
def test_no_other_search_finds_less(claim, name):
    """Three methods from pi_t, p, next to vertices and at random; laws of up to 50 outcomes."""
    for each in cases(name, 2, 6):
        found, log_pi = each.ours("global")
        near, log_near = each.ours()
        risk, n = each.loss.value(log_pi), len(log_pi)
        rng = np.random.default_rng(n)
        starts = [np.log(each.call["policy"]), np.log(each.call["expert"])]
        vertices = rng.choice(n, min(n, 6), replace=False)
        starts += [np.log(0.05 / n + 0.95 * np.eye(n)[j]) for j in vertices]
        starts += list(3.0 * rng.normal(size=(2, n)))
        ends = [search(each.loss, z) for z in starts]
        ends += [constrained(each.loss, z) for z in starts[:4]]
        best = min(end.risk for end in ends if np.isfinite(end.risk))
        scale = max(1.0, abs(risk))
        what = "risk of the global branch against the least that scipy found"
        claim.below(risk, best, atol=1e-9 * scale, what=what, because="solver")
        assert found.certified or name == "brier"
        assert risk <= each.loss.value(log_near) + 1e-12 * scale
        for end in ends:  # no outcome beyond its fold: there is at most one such law
            if end.slack < SOLVED and np.all(each.loss.bend(end.log_pi) > 0):
                assert near.dumped == -1
                off = apart(end.log_pi, log_near)
                what = "TV of the near branch from stationary laws without an outcome beyond it"
                claim.below(off, 1e-5, what=what, because="solver")


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize("law", ENDS, ids=str)
def test_the_near_branch_is_found_up_to_its_end_and_not_beyond(claim, law):
    log_pi, beta = end_of_minimum(law)
    p, q = law.laws()
    for off in (1e-3, 1e-5, 1e-8):
        before, beyond = (
            one_step_round(p, q, law.name, beta * np.exp(side * off), ref=law.ref, tau=law.tau)
            for side in (1.0, -1.0)
        )
        assert "ends at its fold" not in before.status
        assert "ends at its fold on 1 of 1" in beyond.status
        size = laws.total_variation(before.policy, np.exp(log_pi))
        what = "TV to the end over the root of the distance in log beta"
        claim.below(size / np.sqrt(off), 0.2, what=what, because="chosen")
        jump = laws.total_variation(beyond.policy, np.exp(log_pi))
        claim.exhibits(jump, 0.05, what="TV from the end to the law beyond it")
        if off < 1e-3:
            continue
        end = descend(law.loss(beta * np.exp(off)), log_pi, 0.02)
        near = np.log(before.policy)
        what = "TV of the near branch next to its end from descent"
        claim.below(apart(end.log_pi, near), 1e-7, what=what, because="solver")
        fallen = descend(law.loss(beta * np.exp(-off)), log_pi, 0.02)
        claim.exhibits(apart(fallen.log_pi, log_pi), 0.05, what="TV that descent leaves the end by")


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize(("own", "mass"), [(1e-6, 0.1), (1e-5, 0.15), (3e-4, 0.2)])
def test_two_outcomes_up_to_their_end(claim, own, mass):
    """The end in closed form; before it the round is a root of one scalar equation."""
    ends = list(two_outcome_ends(own, mass))
    assert ends
    for p, q, beta in ends:
        for off in (1e-3, 1e-5, 1e-7):
            at = beta * np.exp(off)
            low = own * 1e-3
            exact = brentq(partial(two_outcome_slope, p, q, at), low, mass, xtol=1e-16)
            before = one_step_round(p, q, "spif", at)
            claim.close(before.policy[0], exact, 1e-9, what="mass next to the end")
            assert "ends" not in before.status
            beyond = one_step_round(p, q, "spif", beta * np.exp(-off))
            masses = np.geomspace(low, beyond.policy[0] * (1 - 1e-6), 20001)
            slopes = two_outcome_slope(p, q, beta * np.exp(-off), masses)
            claim.below(slopes, 0.0, what="slope up to the law beyond the end: it is the first")
            assert "ends at its fold on 1 of 1" in beyond.status


def test_descent_from_the_policy_may_end_beside_another_outcome():
    """Beyond folds there are several minima, one an outcome at most. By the total mass the round
    comes to the outcome whose fold is first; descent from pi_t may come to another, exactly."""
    p, q, beta = next(iter(two_outcome_ends(1e-3, 0.2)))
    beta *= 1.001
    first = brentq(partial(two_outcome_slope, p, q, beta), 1e-6, 0.2, xtol=1e-16)
    loss = Loss(PAYOFFS["spif"], p, q, np.log(q), beta)
    end = descend(loss, np.log(q), 0.02)
    assert np.exp(end.log_pi[0]) == pytest.approx(first, abs=1e-7)
    found = one_step_round(p, q, "spif", beta)
    assert found.dumped == 0
    assert found.policy[0] > 3.0 * first
    assert np.argmin(loss.bend(end.log_pi)) == 1
