"""T12: where preference rounds rest and converge: averages, anchors, scores."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.preference_strategies import (
    REWARDED,
    SCALED,
    SMOOTH,
    SPIF,
    PreferenceGame,
    interior_games,
    preference_games,
)
from tests.theory.strategies import label
from theory import laws, objectives, preferences
from theory.objectives import Objective

# --- fixed points -------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.rests", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0), tau=st.floats(0.05, 2.0))
def test_anchored_rounds_rest_at_the_anchored_equilibrium(
    claim, obj: Objective, scale: float, game: PreferenceGame, beta: float, tau: float
) -> None:
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    path = preferences.self_play(game.P, z, obj, beta, 1, game.ref, tau)
    claim.close(path.policy, z, 1e-12, what="a round from z*")
    claim.below(path.gap, 0.0, what="anchored gap there", atol=1e-12)
    away = preferences.self_play(game.P, game.start, obj, beta, 1, game.ref, tau)
    gap = preferences.regularised_gap(game.P, away.policy, game.ref, tau, scale)
    claim.close(away.gap, gap, 1e-12, rtol=1e-9, what="the path's certificate")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T12.rests", regime="tabular")
@given(game=interior_games(), beta=st.floats(0.5, 5.0))
def test_every_reward_rests_at_an_interior_nash_equilibrium(claim, obj, game, beta: float) -> None:
    """All win rates are 1/2 there, so every link pays a constant."""
    P, z = game
    path = preferences.self_play(P, z, obj, beta, 1)
    claim.close(path.policy, z, 1e-12, what="a round from z")


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.average", regime="tabular")
@given(
    game=preference_games(),
    betas=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=40),
)
def test_average_policy_has_a_small_gap(
    claim, obj: Objective, scale: float, game: PreferenceGame, betas: list[float]
) -> None:
    """Any step sizes, with the theorem's constant."""
    path = preferences.self_play(game.P, game.start, obj, betas, len(betas))
    bound = preferences.average_gap_bound(game.P, game.start, betas, len(betas), scale)
    claim.below(path.details["average_gap"], bound, what="gap of the average", atol=1e-13)
    weights = 1.0 / np.array(betas)
    by_hand = (
        -np.log(game.start.min(-1))
        + 2.0 * scale**2 * np.abs(game.P - 0.5).max((-2, -1)) ** 2 * (weights**2).sum()
    ) / (scale * weights.sum())
    claim.close(bound, by_hand, 1e-12, rtol=1e-12, what="the bound")


@pytest.mark.claim("T12.average", regime="tabular")
def test_average_gap_falls_as_the_root_of_the_rounds(claim) -> None:
    """Tuned step on rock-paper-scissors: gap sqrt(T) stays below max|2P-1| sqrt(2 log n)."""
    P, start = preferences.rock_paper_scissors(), np.full(3, 1 / 3) + [0.0, 1e-3, -1e-3]
    start = start / start.sum()
    for rounds in (30, 300, 3000):
        beta = np.sqrt(rounds / (2.0 * -np.log(start.min())))
        path = preferences.self_play(P, start, SPIF, beta, rounds)
        bound = np.sqrt(2.0 * -np.log(start.min()) / rounds)
        claim.below(path.details["average_gap"], bound, what="gap of the average, tuned step")
        predicted = preferences.average_gap_bound(P, start, beta, rounds)
        claim.close(predicted, bound, 1e-12, what="the bound at the tuned step")


@pytest.mark.claim("T12.average", regime="tabular")
def test_the_bound_of_the_average_is_attained(claim) -> None:
    """A winner that starts with a thousandth of the mass, many small steps: to half a per cent."""
    P, start = np.array([[0.5, 1.0], [0.0, 0.5]]), np.array([1e-3, 1 - 1e-3])
    rounds, beta = 8000, 608.0
    path = preferences.self_play(P, start, SPIF, beta, rounds)
    bound = preferences.average_gap_bound(P, start, beta, rounds)
    share = np.max(path.details["average_gap"]) / np.max(bound)
    claim.below(share, 1.0, what="gap of the average over its bound")
    claim.exhibits(share, 0.995, what="gap of the average over its bound", because="theory")


@pytest.mark.parametrize("name", ["iq_learn", "ipm"])
@pytest.mark.claim("T12.average", regime="tabular", drops="linear_in_P")
def test_averages_of_other_rewards_keep_a_gap(claim, name: str) -> None:
    """An uneven cycle: SPIF's average obeys the bound, other links' do not, even four times it."""
    P = np.array([[0.5, 0.01, 0.8], [0.99, 0.5, 0.4], [0.2, 0.6, 0.5]])
    start, rounds = np.array([0.8, 0.15, 0.05]), 3000
    beta = np.sqrt(rounds / (2.0 * np.log(3.0)))
    bound = preferences.average_gap_bound(P, start, beta, rounds)
    spif = preferences.self_play(P, start, SPIF, beta, rounds).details["average_gap"]
    claim.below(spif, bound, what="SPIF: gap of the average")
    other = preferences.self_play(P, start, objectives.get(name), beta, rounds)
    claim.exhibits(other.details["average_gap"] / bound, 2.0, what="gap over SPIF's bound")


# --- anchors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.05, 2.0), slack=st.floats(1.0, 3.0))
def test_anchored_rounds_contract_at_the_theorem_s_rate(
    claim, obj: Objective, scale: float, game: PreferenceGame, tau: float, slack: float
) -> None:
    """KL(z*||pi_{t+1}) <= KL(z*||pi_t)/(1 + tau/beta) from any start, beta >= Lip^2/tau."""
    beta = slack * float(preferences.anchored_beta(game.P, tau, scale).max())
    lip = scale * 2.0 * np.abs(game.P - 0.5).max()
    assert beta == pytest.approx(slack * lip**2 / tau, rel=1e-12)
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    path = preferences.self_play(game.P, game.start, obj, beta, 25, game.ref, tau).policies
    assert path is not None
    distance = laws.kl_stable(z, path)
    rate = preferences.anchored_rate(beta, tau)
    assert rate == pytest.approx(beta / (beta + tau))
    claim.below(distance[1:], rate * distance[:-1], what="KL(z*||pi) a round", atol=1e-14)


@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
def test_that_rate_is_attained_where_nothing_is_preferred(claim) -> None:
    """Log-ratios to the anchor shrink by beta/(beta + tau); far from it KL is linear in them."""
    even, ref = np.full((2, 2), 0.5), np.array([0.5, 0.5])
    start = np.exp(-np.logaddexp(0.0, [-600.0, 600.0]))
    beta, tau = 2.0, 0.5
    spif = objectives.get("spif")
    path = preferences.self_play(even, start, spif, beta, 1, ref, tau).policies
    assert path is not None
    distance = [laws.kl(ref, policy) for policy in path]
    share = distance[1] / (preferences.anchored_rate(beta, tau) * distance[0])
    claim.exhibits(share, 0.99, what="KL(z*||pi) a round over its bound")


@pytest.mark.claim("T12.nash_md", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.2, 4.0), scale=st.floats(0.5, 2.0))
def test_nash_md_obeys_its_published_bound(
    claim, game: PreferenceGame, tau: float, scale: float
) -> None:
    """beta_t = tau t/2, start at ref: KL(z*||pi_T) <= 8/(t^2 (T+1)), and its one-round form."""
    rounds, unit = 30, tau / (2.0 * scale)
    betas = [0.5 * tau * t for t in range(rounds)]
    path = preferences.nash_md(game.P, game.ref, game.ref, betas, tau, rounds, scale).policies
    assert path is not None
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    distance = laws.kl_stable(z, path)
    for t in range(rounds):
        eta = 2.0 / (unit * (t + 2))
        claim.below(distance[t + 1], (1 - eta * unit) * distance[t] + 2 * eta**2, what="one round")
        bound = preferences.nash_md_bound(tau, t + 1, scale)
        claim.below(distance[t + 1], np.full_like(distance[t + 1], bound), what="KL(z*||pi_T)")


# --- scores: the last iterate converges without anchor ------------------------------------------


@pytest.mark.parametrize("obj", REWARDED, ids=label)
@pytest.mark.claim("T12.bradley_terry", regime="tabular")
@given(n=st.integers(2, 6), beta=st.floats(0.5, 5.0), seed=st.integers(0, 2**32 - 1))
def test_under_bradley_terry_the_top_response_gains_every_round(
    claim, obj: Objective, n: int, beta: float, seed: int
) -> None:
    """Its win rate is the highest whatever the policy, so no anchor is needed there."""
    if obj.name == "alpha_spin":
        obj = objectives.get("alpha_spin", base_weight=1e-9)  # the base holds it back otherwise
    rng = np.random.default_rng(seed)
    scores, start = rng.standard_normal(n), laws.random_law(rng, (n,))
    P = preferences.bradley_terry(scores)
    path = preferences.self_play(P, start, obj, beta, 6).policies
    assert path is not None
    top = path[:, scores.argmax()]
    claim.below(-np.diff(top), 0.0, what="mass of the top response never falls", atol=1e-12)
    if obj.name in ("dpo", "spin"):
        log_odds = np.diff(np.log(path / path[:, :1]), axis=0)
        claim.close(
            log_odds, (scores - scores[0]) / beta, 1e-10, what="DPO: log-odds a round are scores"
        )


# --- predictions by hand ------------------------------------------------------------------------


def test_predictions_by_hand() -> None:
    cycle, third = preferences.rock_paper_scissors(0.6), np.full(3, 1 / 3)
    assert preferences.cycle_speed(cycle, third, 2.0) == pytest.approx(2.0 * 0.6 / np.sqrt(3.0))
    assert preferences.local_threshold(cycle, third, 0.0) == np.inf
    assert preferences.local_threshold(preferences.bradley_terry([0.0, 1.0]), [0.5, 0.5], 0.0) == 0
    assert preferences.local_threshold(cycle, third, 0.2) == pytest.approx((0.12 - 0.04) / 0.4)
    assert preferences.local_threshold(cycle, third, 2.0) == 0
    assert preferences.nash_md_bound(1.0, 3, 0.25) == pytest.approx(0.5)
    assert preferences.anchored_beta(cycle, 0.1, 2.0) == pytest.approx(1.2**2 / 0.1)
    assert preferences.average_gap_bound(cycle, third, 2.0, 4, 0.5) == pytest.approx(
        (np.log(3.0) + 4 * 0.3**2 / 8.0) / (0.5 * 4 / 2.0)
    )
    z = preferences.log_partition(np.array([1.0, -1.0]), np.array([0.3, 0.7]), 2.0)
    assert z == pytest.approx(np.log(0.3 * np.exp(0.5) + 0.7 * np.exp(-0.5)))
    assert preferences.log_partition(np.array([0.0, 9.0]), np.array([1.0, 0.0]), 1.0) == 0.0
