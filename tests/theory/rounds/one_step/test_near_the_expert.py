"""T4: one-step rounds near the expert: the near branch, the fixed point and the local factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.theory.rounds.one_step.minimisers import (
    IMITATION,
    SHIFT_INVARIANT,
    SPIF,
    gradient_of,
    two_step,
)
from tests.theory.strategies import Instance, games, label
from theory import laws
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.one_step import local_rate_one_step, one_step_round

# alpha_spin divides by a mixture, not by pi_t: its local rate is that of another map
LINKED = [o for o in SHIFT_INVARIANT if o.has_link and o.name != "alpha_spin"]


@pytest.mark.claim("T4.near_branch", regime="tabular")
@pytest.mark.parametrize(("eta", "slope"), [(0.5, 1.5), (0.8, 1.5), (1.4, 1.5), (1.0, 2.0)])
def test_gap_to_the_two_step_round_on_the_near_branch(claim, eta, slope):
    """O(Delta^{3/2}); one order better at eta = 1, where pi/(p+q) does not tilt with u."""
    rng = np.random.default_rng(3)
    p, direction = laws.random_law(rng, (8, 5)), rng.standard_normal((8, 5))
    sizes = np.geomspace(0.1, 2e-3, 6)
    q = p * np.exp(sizes[:, None, None] * direction)
    q /= q.sum(-1, keepdims=True)
    p = np.broadcast_to(p, q.shape)
    near = one_step_round(p, q, SPIF, 1.0 / eta).policy
    gap = laws.total_variation(near, two_step(Instance(p, q, q, rng), SPIF, 1.0 / eta))
    size = laws.triangular(p, q)
    for row in range(8):
        fit = np.polyfit(np.log(size[:, row]), np.log(gap[:, row]), 1)[0]
        what = f"exponent of Delta in the TV gap at eta = {eta}"
        claim.close(fit, slope, 0.1, what=what, because="expansion")


@pytest.mark.claim("T4.local_factor", regime="tabular")
@pytest.mark.parametrize("obj", IMITATION, ids=label)
@given(game=games(), beta=st.floats(0.3, 5.0))
@settings(max_examples=6)
def test_the_expert_is_a_fixed_point(claim, obj, game, beta):
    found = one_step_round(game.expert, game.expert, obj, beta)
    gap = laws.total_variation(found.policy, game.expert)
    claim.below(gap, 1e-10, what="TV moved by a one-step round from p")


def local_rate(round_: Any, rng: np.random.Generator) -> FloatArray:
    """Measured contraction of small log-ratios."""
    p, direction = laws.random_law(rng, (4, 5), 0.7), rng.standard_normal((4, 5))
    rates = []
    for sign in (1.0, -1.0):  # central differences
        q = p * np.exp(sign * 1e-4 * direction)
        q /= q.sum(-1, keepdims=True)
        before, after = np.log(q / p), np.log(round_(p, q) / p)
        rates.append((p * before * after).sum(-1) / (p * before**2).sum(-1))
    return 0.5 * np.asarray(rates).sum(0)


@pytest.mark.claim("T4.local_factor", regime="tabular")
@pytest.mark.parametrize("obj", IMITATION + LINKED, ids=label)
@pytest.mark.parametrize("beta", [0.6, 2.0])
def test_local_rates(claim, obj, beta):
    measured = local_rate(
        lambda p, q: one_step_round(p, q, obj, beta).policy, np.random.default_rng(1)
    )
    predicted = local_rate_one_step(obj, beta)
    claim.close(measured, predicted, 1e-5, what="local factor of a one step", because="expansion")


def first_slopes_cancel(obj: Objective) -> bool:
    zero = torch.zeros((), dtype=torch.float64)
    return float(abs(gradient_of(obj.a, zero) + gradient_of(obj.b, zero))) < 1e-12


MATCHED = [obj for obj in IMITATION if first_slopes_cancel(obj)]
UNMATCHED = [obj for obj in IMITATION if not first_slopes_cancel(obj)]
BETAS = np.array([0.6, 0.9, 1.5, 3.0])


def rates_of_one_and_two_steps(obj: Objective) -> tuple[FloatArray, FloatArray]:
    ours = np.array([local_rate_one_step(obj, beta) for beta in BETAS])
    return ours, np.asarray(1.0 - float(obj.slope(np.zeros(()))) / BETAS)


@pytest.mark.claim("T4.same_local_factor", regime="tabular", of="identities")
@pytest.mark.parametrize("obj", MATCHED, ids=label)
def test_local_rate_is_the_two_step_one_if_the_first_slopes_cancel(claim, obj):
    ours, other = rates_of_one_and_two_steps(obj)
    claim.close(ours, other, 1e-12, what="one-step against two-step rate, a'(0) = -b'(0)")


@pytest.mark.claim(
    "T4.same_local_factor", regime="tabular", drops="matched_slopes", of="identities"
)
@pytest.mark.parametrize("obj", UNMATCHED, ids=label)
def test_local_rate_is_another_if_they_do_not(claim, obj):
    """At all but single beta: at 1 NWJ has the two-step rate."""
    ours, other = rates_of_one_and_two_steps(obj)
    claim.exhibits(np.abs(ours - other), 0.05, what="difference of the factors, a'(0) != -b'(0)")
    if obj.name == "nwj":
        assert local_rate_one_step(obj, 1.0) == pytest.approx(0.0, abs=1e-12)
