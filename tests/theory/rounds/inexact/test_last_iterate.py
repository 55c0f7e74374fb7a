"""T6 (vii): how far from its equilibrium a path ends whose rewards are off in every round."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import SPIF, SPIN, centred, kl_of_logs, played
from tests.theory.rounds.two_step.links import LIPSCHITZ
from tests.theory.strategies import Instance, games, label
from theory import equilibrium, laws, theory_card
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.inexact import last_iterate_bound
from theory.rounds.two_step import gibbs_step


def worst_of_kl(target: FloatArray, errors: FloatArray, pull: float) -> FloatArray:
    """``log E_z e^{(e - E_z e)/m}``."""
    return np.asarray(np.log((target * np.exp(centred(target, errors) / pull)).sum(-1)))


@pytest.mark.parametrize("obj", LIPSCHITZ, ids=label)
@pytest.mark.claim("T6.inexact_last", regime="tabular")
@given(
    game=games(),
    share=st.floats(0.3, 1.0),
    size=st.floats(0.0, 3.0),
    tau=st.sampled_from([0.0, 0.1, 1.0]),
)
def test_last_iterate_with_reward_errors(
    claim, obj: Objective, game: Instance, share: float, size: float, tau: float
) -> None:
    """(vii): KL to the equilibrium is at most a moving average of what the errors can cost."""
    card = theory_card(obj)
    beta, pull = card.L / share, card.mu + tau
    if pull == 0:
        tau = pull = 0.3
    errors = size * game.rng.standard_normal((6, *game.expert.shape))
    target = equilibrium(game.expert, game.ref, obj, tau=tau).policy if tau else game.expert
    path, _ = played(obj, game, errors, beta, tau)
    kl = kl_of_logs(target, path)
    rho, cost = (beta - card.mu) / (beta + tau), worst_of_kl(target, errors, pull)
    atol = 1e-9 * (1 + kl.max() + size)
    bound = rho * kl[:-1] + (1 - rho) * cost
    claim.below(kl[1:], bound, "KL(pi*||pi) after a round", atol=atol)
    oscillation = np.ptp(errors, axis=-1)
    claim.below(cost, oscillation**2 / (8 * pull**2), "log E e^{e/m}, Hoeffding", atol=1e-12)
    bound = last_iterate_bound(kl[0], oscillation, beta, card.mu, tau)
    claim.below(kl, bound, "KL(pi*||pi_t) by oscillations", atol=atol)


@pytest.mark.claim("T6.inexact_last", regime="tabular")
@given(game=games(), size=st.floats(0.01, 3.0), tau=st.floats(0.01, 2.0), share=st.floats(0.2, 1.0))
def test_spin_with_an_error_that_stays_attains_the_limit(
    claim, game: Instance, size: float, tau: float, share: float
) -> None:
    error = size * game.rng.standard_normal(game.expert.shape)
    target = equilibrium(game.expert, game.ref, SPIN, tau=tau).policy
    rest = np.exp(gibbs_step(np.log(target), error, 1.0 + tau, None, 0.0))
    path, _ = played(SPIN, game._replace(start=rest), np.stack([error] * 3), 1 / share, tau)
    limit = worst_of_kl(target, error, 1 + tau)
    kl = kl_of_logs(target, path)
    claim.close(kl, np.broadcast_to(limit, kl.shape), 1e-9 * (1 + size), what="KL(pi*||pi_t)")


@pytest.mark.claim("T6.inexact_last", regime="tabular")
def test_oscillation_is_the_right_size_of_an_error(claim) -> None:
    """Two equal outcomes and small errors: eps^2/8 is reached from afar, to 1 %."""
    half = np.array([[0.5, 0.5]])
    game = Instance(half, np.array([[0.9, 0.1]]), half, np.random.default_rng(0))
    for beta, tau in ((1.0, 0.0), (4.0, 0.0), (2.0, 1.0)):
        errors = np.broadcast_to([[[0.15, -0.15]]], (80, 1, 2))
        path, _ = played(SPIN, game, errors, beta, tau)
        bound = last_iterate_bound(kl_of_logs(half, path)[0], [[0.3]] * 80, beta, 1.0, tau)
        share = kl_of_logs(half, path)[-1] / bound[-1]
        claim.exhibits(share, 0.99, what="share of the bound that is reached")


@pytest.mark.claim("T6.inexact_last", regime="tabular", drops="pulled_back")
def test_without_slope_or_anchor_errors_add_up(claim) -> None:
    """SPIF's rewards are within +-1/c: an error of 3/c wins every round."""
    rng = np.random.default_rng(0)
    p, q = laws.random_law(rng, (2, 3, 6))
    error = np.broadcast_to(np.where(np.arange(6) == 0, 3.0, 0.0), (200, 3, 6))
    path, _ = played(SPIF, Instance(p, q, q, rng), error, theory_card(SPIF).L)
    claim.exhibits(kl_of_logs(p, path)[-1], 100.0, what="KL(p||pi_200), nats")


@pytest.mark.claim("T6.inexact_last", regime="tabular", drops="beta_at_least_L")
@pytest.mark.parametrize("beta", [0.4, 0.55])
def test_below_L_errors_that_alternate_end_further_off(claim, beta: float) -> None:
    """SPIN at effective step 1/beta: (1/(2 beta - 1))^2 times the limit, stable or not."""
    half = np.array([[0.5, 0.5]])
    errors = 0.15 * (-1.0) ** np.arange(60)[:, None, None] * np.array([[1.0, -1.0]])
    path, _ = played(SPIN, Instance(half, half, half, np.random.default_rng(0)), errors, beta)
    claim.exhibits(kl_of_logs(half, path)[-1] / (0.3**2 / 8), 10.0, what="KL over its limit")
