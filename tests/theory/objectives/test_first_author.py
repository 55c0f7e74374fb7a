"""A loss in code of the first author is one-step pointwise SPIF: what follows for C4 and C5.

github.com/TobyLeelsz/reasoning-distillation-flowrl, branch sft_reward_model, commit d1c2931. Its
formula is written here apart from ours: of a pair with rewards ``r = beta log pi/pi_t``,
``1/2 (r - a)^2 + 1/2 (r' + a)^2 + rho (r^2 + r'^2)`` with rho = .005 and a = 1/2 or 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from theory import check_objective, laws, objectives, theory_card
from theory.rounds.one_step import local_rate_one_step, one_step_round, partition_gap

RIDGE, BETA = 0.005, 0.1
CONSTANTS = [(0.5, 2.02), (1.0, 1.01)]  # a, c = (1 + 2 rho)/a


def ridge(r: Any, r_own: Any, a: float, rho: float) -> Any:
    """The loss of a pair."""
    return (r - a) ** 2 / 2 + (r_own + a) ** 2 / 2 + rho * (r**2 + r_own**2)


def sppo_hard(u: Any, u_own: Any, beta: float) -> Any:
    """TRL's loss of that name, of log-ratios."""
    return (u - 0.5 / beta) ** 2 + (u_own + 0.5 / beta) ** 2


@pytest.mark.claim("T4", "C4", "C5", rung="exact")
@given(
    a=st.floats(0.2, 3.0),
    rho=st.floats(0.0, 1.0),
    beta=st.floats(1e-3, 2.0),
    seed=st.integers(0, 99),
)
def test_the_ridge_is_spif(claim, a: float, rho: float, beta: float, seed: int) -> None:
    """a times SPIF's loss at c = (1 + 2 rho)/a, plus a^2; the gradient is a times SPIF's."""
    u, u_own = torch.tensor(
        np.random.default_rng(seed).normal(scale=20.0, size=(2, 6)), requires_grad=True
    )
    spif = objectives.get("spif", c=(1 + 2 * rho) / a)
    theirs, ours = ridge(beta * u, beta * u_own, a, rho), spif.loss(u, u_own, beta)
    size = 1.0 + float(theirs.detach().max())
    claim.close(theirs, a * ours + a**2, 1e-12 * size, what="loss of a pair")
    gradients = [torch.autograd.grad(x.sum(), (u, u_own)) for x in (theirs, ours)]
    for one, other in zip(*gradients, strict=True):
        claim.close(one, a * other, 1e-12 * size, what="gradient in the log-ratios")


@pytest.mark.claim("T4", "T11", rung="exact")
@given(beta=st.floats(1e-3, 2.0), seed=st.integers(0, 99))
def test_without_the_ridge_it_is_sppo_hard(claim, beta: float, seed: int) -> None:
    """a = 1/2 and rho = 0: beta^2/2 times TRL's sppo_hard at that beta."""
    u, u_own = np.random.default_rng(seed).normal(scale=20.0, size=(2, 6))
    theirs = ridge(beta * u, beta * u_own, 0.5, 0.0)
    scaled = beta**2 / 2 * sppo_hard(u, u_own, beta)
    claim.close(theirs, scaled, 1e-13, rtol=1e-13, what="ridge against sppo_hard")
    spif = np.asarray(objectives.get("spif", c=2.0).loss(u, u_own, beta))
    claim.close(scaled, spif / 2 + 0.25, 1e-12, rtol=1e-12, what="sppo_hard against SPIF at c = 2")


@pytest.mark.claim("C5", "T6", rung="exact")
@pytest.mark.parametrize(("a", "c"), CONSTANTS)
def test_its_steps_are_beyond_the_local_threshold(claim, a: float, c: float) -> None:
    """eta = 4.95 and 9.90, effective steps 2.48 and 4.95; SPIN's at that beta is 10."""
    spif = objectives.get(f"spif(c={c})")
    assert check_objective(spif).ok
    card, spin = theory_card(spif), theory_card("spin")
    step = card.at(BETA)
    claim.close(c, (1 + 2 * RIDGE) / a, 1e-14, what="c of the constants")
    claim.close(step.largest_move, [-10 / c, 10 / c], 1e-12, what="eta = 1/(beta c)")
    claim.close(step.effective_step, {0.5: 2.4752, 1.0: 4.9505}[a], 5e-5, what="effective step")
    claim.close(
        card.stability_beta, {0.5: 0.12376, 1.0: 0.24752}[a], 5e-6, what="least stable beta"
    )
    assert step.locally_stable is False
    assert "code of the first author" in card.notes
    factor = local_rate_one_step(spif, BETA)
    claim.close(factor, 1.0 - step.effective_step, 1e-12, what="local factor of its one-step round")
    claim.exhibits(-factor, 1.47, what="minus that factor: log-ratios grow")
    ratio = spin.at(BETA).effective_step / step.effective_step
    claim.close(ratio, 4.04 if a == 0.5 else 2.02, 1e-12, what="SPIN's effective step over its own")
    zero = torch.zeros(2, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(ridge(zero[0], zero[1], a, RIDGE), zero)
    claim.close(first, [-a, a], 1e-15, what="first gradient; SPIN's is -1/2, 1/2")
    claim.close(np.asarray(spin.gradient_at_start), [-0.5, 0.5], 1e-12, what="SPIN's")


@pytest.mark.claim("T4", "C4", rung="exact", kind="refutes", condition="two-step or centred rounds")
@pytest.mark.parametrize(("a", "c"), CONSTANTS)
def test_its_rewards_are_not_bounded(claim, a: float, c: float) -> None:
    """Where an expert's response has more nats than eta, Z < 1: T4c's dumping, rewards over 1/c."""
    rare = np.exp(-1.2 / (BETA * c))
    p, q = np.array([1.0 - 2e-9, 1e-9, 1e-9]), np.array([rare, 1.0 - rare - 1e-9, 1e-9])
    p, q = p / p.sum(), q / q.sum()
    spif = objectives.get("spif", c=c)
    claim.below(partition_gap(p, q, spif, BETA), -0.5, what="log Z")
    found = one_step_round(p, q, spif, BETA, branch="global")
    claim.exhibits(found.dumped_mass, 0.5, what="mass on an outcome that p and q give 1e-9")
    claim.exhibits(c * found.reward[2], 1.5, what="c r there; its bound in two steps is 1")
    two = q * np.exp(spif.reward(p, q) / BETA)
    claim.below(laws.log_ratio(two / two.sum(), q).max() * BETA * c, 2.0, what="c r in two steps")
