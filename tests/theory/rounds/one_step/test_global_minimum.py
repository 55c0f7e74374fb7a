"""T4: the global minimum of a pointwise risk, its stationarity and its certificate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from tests.theory.rounds.one_step.minimisers import IMITATION, POINTWISE, risk_of_logits
from tests.theory.strategies import Instance, games, label
from theory import laws, objectives
from theory.objectives import Pointwise
from theory.result import FloatArray
from theory.rounds.one_step import _problem, one_step_round
from theory.rounds.one_step_global import _bounds, _grid
from theory.rounds.one_step_near import fold_toward
from theory.rounds.one_step_problem import single_fold


def multistart(risk: Any, game: Instance) -> float:
    """Least risk from BFGS on the logits: from pi_t, from p and towards every vertex."""
    n = game.start.shape[-1]

    def with_gradient(x: FloatArray) -> tuple[float, FloatArray]:
        point = torch.tensor(x, requires_grad=True)
        value = risk(point)
        value.backward()
        return float(value.detach()), np.asarray(point.grad)

    starts = [np.log(game.start[0]), np.log(game.expert[0])]
    starts += [np.log(0.05 / n + 0.95 * np.eye(n)[j]) for j in range(n)]
    found = [minimize(with_gradient, x, jac=True, method="BFGS") for x in starts]
    return min(float(result.fun) for result in found)


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize("obj", IMITATION, ids=label)
@given(
    game=games(max_n=4, max_spread=2.0),
    beta=st.floats(0.3, 3.0),
    tau=st.sampled_from([0.0, 0.0, 0.4]),
)
@settings(max_examples=3)
def test_global_minimum_against_a_multistart_optimiser(claim, obj, game, beta, tau):
    found = one_step_round(
        game.expert, game.start, obj, beta, ref=game.ref, tau=tau, branch="global"
    )
    proved = single_fold(obj, beta + tau, 1024.0)
    assert found.certified.all() or not proved
    risk = risk_of_logits(game, obj, beta, tau)
    prior = beta * np.log(game.start) + tau * np.log(game.ref)
    ours = float(risk(torch.tensor((found.reward + prior)[0] / (beta + tau))))  # no underflow
    other = multistart(risk, game)
    scale = max(1.0, abs(ours))
    claim.below(
        ours,
        other,
        atol=1e-9 * scale,
        what="risk of the one step against a multistart optimiser",
        because="solver",
    )
    if found.certified[0]:
        claim.below(ours - other, found.gap[0] + 1e-9 * scale, what="certified gap")


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize("obj", IMITATION, ids=label)
@given(game=games(max_n=12), beta=st.floats(0.4, 4.0))
@settings(max_examples=4)
def test_stationarity_and_the_two_branches(claim, obj, game, beta):
    """(beta+tau) f'(r) = lambda pi; the global minimum is never above the near branch."""
    p, q = game.expert, game.start
    rounds = [one_step_round(p, q, obj, beta, branch=b) for b in ("near", "global")]
    risks = []
    for found in rounds:
        claim.close(found.policy.sum(-1), 1.0, 1e-10, what="mass of the law")
        point = torch.tensor(found.reward, requires_grad=True)
        value = (torch.tensor(p) * -obj.a(point) - torch.tensor(q) * obj.b(point)).sum()
        value.backward()
        force = beta * np.asarray(point.grad)
        size = np.maximum(1.0, np.abs(force).max())
        pull = found.multiplier[..., None] * found.policy
        claim.close(force / size, pull / size, 1e-8, what="beta f'(r) = lambda pi")
        log_ratio = found.reward / beta
        risks.append(np.asarray(obj.risk(log_ratio, log_ratio, beta, p, q)))
    scale = 1e-9 * np.maximum(1.0, np.abs(risks[0]))
    assert np.all(risks[1] <= risks[0] + scale)


def test_a_response_that_loses_all_mass_has_the_best_reward():
    """IQ-Learn's R = (1 - e^-u)/2 at u = -10.2, where e^{R/beta} is no number."""
    p, q = np.array([5.34e-6, 0.6, 1.0 - 0.6 - 5.34e-6]), np.array([0.1497, 0.25, 0.6003])
    reward = 0.5 * (1.0 - q[0] / p[0])
    for branch in ("near", "global"):
        found = one_step_round(p, q, "iq_learn(c=1)", 0.5, branch=branch)
        assert found.policy[0] == 0
        assert found.reward[0] == pytest.approx(reward, rel=1e-12)


@pytest.mark.claim("T4.stationarity", regime="tabular")
@given(game=games(max_n=10), beta=st.floats(0.2, 3.0), c=st.floats(0.3, 3.0))
def test_stationarity_of_spif_as_stated(claim, game, beta, c):
    """``(p+q) r = (p-q)/c + pi_{t+1} S``, ``S = E_p r + E_q r``."""
    p, q = game.expert, game.start
    found = one_step_round(p, q, objectives.get("spif", c=c), beta, branch="global")
    total = ((p + q) * found.reward).sum(-1, keepdims=True)
    claim.close((p + q) * found.reward, (p - q) / c + found.policy * total, 1e-9, what="(p+q) r")


@pytest.mark.claim("T4.solvers", regime="tabular")
@pytest.mark.parametrize(("name", "beta"), [("spif", 0.7), ("airl", 1.6), ("iq_learn", 0.9)])
def test_lower_bounds_hold_on_coarse_grids(claim, name, beta):
    """Chords and tangents bound every dumped minimum from below, whatever the multipliers."""
    rng, obj = np.random.default_rng(7), objectives.get(name)
    p, q = laws.random_law(rng, (80, 5), 1.3), laws.random_law(rng, (80, 5), 1.3)
    found = one_step_round(p, q, obj, beta, branch="global")
    assert found.certified.all()
    dumped = found.dumped >= 0
    assert dumped.sum() >= 10
    prob = _problem(obj, p, q, beta * np.log(q), beta).rows(dumped)
    least = prob.losses(np.log(found.policy[dumped])).sum(-1)
    fold = fold_toward(prob, np.zeros_like(prob.p))
    at = (np.arange(len(least)), slice(None), found.dumped[dumped])
    for points in (2, 5, 12):
        share = np.concatenate([[0.0], np.geomspace(1e-8, 1.0, points)])
        lam = prob.slope(fold).min(-1)[:, None] * share
        bound = _bounds(prob, _grid(prob, lam, np.minimum(prob.floor, fold), fold))
        claim.below(bound[at].min(-1), least, atol=1e-9, what="lower bound against the least risk")


def test_shapes_that_are_not_convex_then_concave_are_not_certified():
    brier = objectives.get("brier")
    assert single_fold(brier, 1.0, 64.0)
    assert not single_fold(brier, 2.0, 64.0)
    p, q = np.array([0.6, 0.4]), np.array([0.3, 0.7])
    found = one_step_round(p, q, brier, 2.0, branch="global")
    assert not found.certified
    assert "not certified" in found.status


def test_every_other_shape_is_convex_then_concave():
    for obj in POINTWISE:
        for scale in (0.1, 0.7, 1.0, 3.0, 20.0):
            assert single_fold(obj, scale, 256.0) or obj.name == "brier", (obj.label, scale)


class Stranger(Pointwise):
    """Not registered: ``a = r - r^4``, ``b = -r - r^4``."""

    def a(self, r: Any) -> Any:
        return r - r**4

    def b(self, r: Any) -> Any:
        return -r - r**4


def test_a_stranger_objective_has_a_one_step_round():
    p, q = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5])
    found = one_step_round(p, q, Stranger(), 1.0, branch="global")
    game = Instance(p[None], q[None], q[None], np.random.default_rng(0))
    risk = risk_of_logits(game, Stranger(), 1.0, 0.0)
    ours = float(risk(torch.tensor(np.log(found.policy))))
    assert ours <= multistart(risk, game) + 1e-9
