"""T6 (viii, ix): rounds of any step, the mean of their potential and their end with an anchor."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import IPM, SPIF, SPIN, kl_of_logs, played
from tests.theory.rounds.two_step.links import FIXED
from tests.theory.strategies import Instance, games, label
from theory import equilibrium, laws, objectives
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.inexact import mean_bound


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T6.any_step", regime="tabular")
@given(game=games(), beta=st.floats(0.02, 5.0), size=st.floats(0.0, 2.0))
def test_mean_potential_at_any_step(claim, obj, game: Instance, beta: float, size: float) -> None:
    """(viii), with errors; G is the range of the rewards as they were used."""
    p, rounds = game.expert, 8
    errors = size * game.rng.standard_normal((rounds, *p.shape))
    path, rewards = played(obj, game, errors, beta)
    policies = np.exp(path[:-1])
    assume((policies > 1e-280).all() and np.abs(rewards).max() < 1e6)
    used = np.ptp(rewards + errors, axis=-1)
    bound = mean_bound(laws.kl(p, game.start), used, beta)
    so_far = np.arange(1, rounds + 1)[:, None]
    potential = obj.potential(policies, p)
    cost = (errors * (policies - p)).sum(-1)
    unit = 1 + bound.max() + np.abs(cost).max() + potential.max()  # potentials reach 1e6
    claim.below(
        np.cumsum(potential - cost, 0) / so_far / unit, bound / unit,
        "mean of D_Phi less errors, of the largest", atol=1e-11,
    )  # fmt: skip
    average = np.cumsum(policies, 0) / so_far[..., None]
    claim.below(
        obj.potential(average, p) / unit, np.cumsum(potential, 0) / so_far / unit,
        "D_Phi of the average, of the largest", atol=1e-11,
    )  # fmt: skip
    low, high = obj.reward_bounds
    if np.isfinite(high - low):
        claim.below(np.ptp(rewards, axis=-1), high - low, "range against the link's", atol=1e-12)


@pytest.mark.claim("T6.any_step", regime="tabular")
@pytest.mark.parametrize("rounds", [100, 1000])
def test_hard_bounded_rewards_attain_the_mean_bound(claim, rounds: int) -> None:
    """Two outcomes, a start some steps away: both terms, and the average of no use."""
    half = np.array([[0.5, 0.5]])
    start = np.exp([[0.3, 0.0]]) / np.exp([[0.3, 0.0]]).sum()
    game = Instance(half, start, half, np.random.default_rng(0))
    beta = 100.0
    path, _ = played(IPM, game, np.zeros((rounds, 1, 2)), beta)
    bound = mean_bound(laws.kl(half, start), np.full((rounds, 1), 2.0), beta)[-1]
    claim.exhibits(IPM.potential(np.exp(path[:-1]), half).mean(0) / bound, 0.99, what="share of it")


@pytest.mark.claim("T6.any_step", regime="tabular")
@pytest.mark.parametrize("eta", [4.5, 8.0, 30.0])
def test_spif_s_late_rounds_are_far_within_it(claim, eta: float) -> None:
    """Beyond eta = 4 the mean of D_Phi stays below a tenth of eta/(2c), what is left of it."""
    p, q = laws.random_law(np.random.default_rng(0), (2, 50, 4), 3.0)
    path, _ = played(
        SPIF, Instance(p, q, q, np.random.default_rng(0)), np.zeros((900, 50, 4)), 1 / eta
    )
    late = SPIF.potential(np.exp(path[400:]), np.broadcast_to(p, (501, 50, 4))).mean(0)
    claim.below(late, 0.1 * eta / 2, "late mean of c D_Phi", because="chosen")
    claim.exhibits(late.max(), 0.05, what="its largest, which does not go to 0")


@pytest.mark.claim("T6.any_step", regime="tabular", drops="bounded_link")
def test_spin_beyond_its_threshold_has_no_such_bound(claim) -> None:
    """Next to the expert at effective step 2.5, the average policy ends near one half each."""
    share = np.array([1e-3, 1e-6, 1e-12])
    p = np.stack([share, 1 - share], -1)
    start = p * np.exp([1e-3, 0.0])
    start /= start.sum(-1, keepdims=True)
    path, _ = played(
        SPIN, Instance(p, start, p, np.random.default_rng(0)), np.zeros((600, 3, 2)), 0.4
    )
    average = np.exp(path[:-1]).mean(0)
    first = 0.4 * laws.kl(p, start) / 600
    claim.below(first, 1e-9, "beta KL(p||pi_0)/T")
    limit = -0.5 * np.log(4 * share * (1 - share))
    claim.exhibits(
        SPIN.potential(average, p) / limit, 0.95, what="D_Phi(average) over log 1/(2 sqrt(p1 p2))"
    )


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T6.any_step_anchored", regime="tabular")
@given(game=games(), beta=st.floats(0.02, 5.0), tau=st.floats(0.05, 2.0), size=st.floats(0.0, 2.0))
def test_last_iterate_at_any_step_with_an_anchor(
    claim, obj: Objective, game: Instance, beta: float, tau: float, size: float
) -> None:
    """K' <= [beta K + <e, pi - pi*> + osc(r + e - r*)^2/(8 beta)]/(beta + tau)."""
    p, ref = game.expert, game.ref
    errors = size * game.rng.standard_normal((8, *p.shape))
    path, rewards = played(obj, game, errors, beta, tau)
    assume(np.abs(rewards).max() < 1e6)
    target = equilibrium(p, ref, obj, tau=tau).policy
    at_rest = tau * np.log(target / ref)
    kl = kl_of_logs(target, path)
    cost = (errors * (np.exp(path[:-1]) - target)).sum(-1)
    off = np.ptp(rewards + errors - at_rest, axis=-1)
    bound = (beta * kl[:-1] + cost + off**2 / (8 * beta)) / (beta + tau)
    scale = 1 + kl.max() + np.abs(bound).max()
    claim.below(kl[1:] / scale, bound / scale, "KL(pi*||pi) after a round", atol=1e-9)
    low, high = obj.reward_bounds
    if np.isfinite(high - low):
        exact, _ = played(obj, game, 0 * errors, beta, tau)
        kept = (beta / (beta + tau)) ** np.arange(9)[:, None]
        floor = (high - low) ** 2 / (2 * beta * tau)
        claim.below(kl_of_logs(target, exact), kept * kl[0] + floor, "KL(pi*||pi_t)", atol=1e-9)


@pytest.mark.claim("T6.any_step_anchored", regime="tabular")
@pytest.mark.parametrize(("tau", "rounds"), [(0.005, 1), (1.0, 400)])
def test_how_much_of_the_anchored_bound_is_reached(claim, tau: float, rounds: int) -> None:
    """A reference that all but pulls hard-bounded rewards off the expert, in units of beta.

    A round from just beyond the expert attains the inequality as tau/beta falls; of the limit a
    quarter is reached, at tau = beta.
    """
    bound, half = 0.01, np.array([[0.5, 0.5]])
    ipm = objectives.get("ipm", bound=bound)

    def law(log_odds: float) -> FloatArray:
        return np.array([[1.0, np.exp(-log_odds)]]) / (1.0 + np.exp(-log_odds))

    ref = law(-2 * bound / tau * (1 - 1e-3))
    game = Instance(half, law(1e-9), ref, np.random.default_rng(0))
    path, _ = played(ipm, game, np.zeros((rounds, 1, 2)), 1.0, tau)
    kl = kl_of_logs(half, path)
    if rounds == 1:
        claim.exhibits(kl[1] * 8 * (1 + tau) / (4 * bound) ** 2, 0.99, what="share of a round's")
    else:
        limit = (2 * bound) ** 2 / (2 * tau)
        claim.exhibits(kl[200:].max() / limit, 0.24, what="share of the limit")


@pytest.mark.claim("T6.any_step_anchored", regime="tabular", drops="bounded_link")
def test_spin_with_a_weak_anchor_and_a_long_step_diverges(claim) -> None:
    p = np.array([[0.7, 0.3]])
    game = Instance(p, np.array([[0.6, 0.4]]), np.array([[0.5, 0.5]]), np.random.default_rng(0))
    path, _ = played(SPIN, game, np.zeros((60, 1, 2)), 0.2, 0.1)
    kl = kl_of_logs(equilibrium(p, game.ref, SPIN, tau=0.1).policy, path)
    claim.exhibits(kl[-1], 1e3, what="KL(pi*||pi_60), nats")
