"""Rounds whose steps are closed forms, and the words for how they end."""

import mpmath
import numpy as np
import pytest

from theory import TokenMDP, objectives, self_play
from theory.errors import InvalidInput
from theory.result import Outcome
from theory.rounds.iterates import two_step_rounds
from theory.rounds.log_linear import LogLinear
from theory.rounds.predictions import (
    gap_slope,
    largest_log_partition,
    spif_burn_in,
    spif_descent,
    spif_reach,
)
from theory.rounds.two_step import ending


def odds(theta):
    return np.array([1.0, np.exp(theta)]) / (1 + np.exp(theta))


COIN = LogLinear(np.array([[0.0], [1.0]]))
EXPERT = odds(1.2)
THETA = np.array([-0.5])


@pytest.mark.parametrize(("temperature", "tau"), [(1.0, 0.0), (2.0, 0.0), (0.5, 0.5), (1.0, 0.5)])
def test_one_step_rounds_of_a_coin(temperature, tau):
    """The class is complete: beta (theta - theta_t) + tau (theta - theta_ref) = log odds p/own."""
    ref = odds(0.3) if tau else None
    found = COIN.self_play(EXPERT, THETA, "spin", 1.5, 1, "one_step", temperature, tau, ref)
    reward = 1.2 - THETA[0] / temperature
    expected = (1.5 * THETA[0] + tau * 0.3 + reward) / (1.5 + tau)
    assert found.details["theta"][:, 0] == pytest.approx([-0.5, expected], abs=1e-9)
    assert found.outcome is Outcome.MOVING
    np.testing.assert_allclose(found.policies, [odds(-0.5), odds(expected)], atol=1e-9)


def test_a_coin_at_its_expert_rests():
    for kind in ("one_step", "two_step"):
        found = COIN.self_play(EXPERT, np.array([1.2]), "spif", 1.0, 1, kind)
        assert found.outcome is Outcome.CONVERGED
        assert found.policy == pytest.approx(EXPERT, abs=1e-11)


def test_from_which_round_log_ratios_are_no_numbers():
    """The reward (e^u - 1)/2 explodes: rounds in logarithms, one by one."""
    p, q, beta = np.array([0.5, 0.5]), np.array([0.02, 0.98]), 0.05
    log_q, kl = np.log(q), []
    for _ in range(5):
        u = np.log(p) - log_q
        kl.append((p * u).sum())
        if np.abs(u).max() > 690:  # e^u is above 1e299
            break
        log_q = log_q + np.expm1(u) / 2 / beta
        log_q = log_q - np.logaddexp(*log_q)
    first = len(kl)
    assert first == 3
    found = self_play(p, q, "policy_only", beta, rounds=first + 2)
    np.testing.assert_allclose(found.details["kl"][:first], kl, rtol=1e-10)
    assert np.isinf(found.details["kl"][first:]).all()
    assert found.outcome is Outcome.DIVERGED


def test_rounds_without_an_anchor_by_default():
    """SPIN at beta = 2: sqrt(p q), normalised; outcomes in blocks of one row."""
    p, q = np.array([[0.7, 0.2, 0.1], [0.2, 0.2, 0.6]]), np.array([[0.2, 0.5, 0.3]] * 2)
    found = two_step_rounds(objectives.get("spin"), p, q, [2.0], 1)
    last = np.sqrt(p * q) / np.sqrt(p * q).sum(-1, keepdims=True)
    np.testing.assert_allclose(found.policies, [q, last], rtol=1e-14)
    kl = [(p * np.log(p / law)).sum(-1) for law in (q, last)]
    np.testing.assert_allclose(found.kl, kl, rtol=1e-12)


@pytest.mark.parametrize("eta", [0.5, 4.0])
def test_the_gap_slope_of_outcomes_near_the_expert(eta):
    """eta (eta - 2)/4 at t = 0; its series and its formula meet where they change."""
    assert gap_slope(0.0, eta) == pytest.approx(eta * (eta - 2) / 4, rel=1e-15)
    below, above = gap_slope([0.9999e-5, 1.0001e-5], eta)
    assert below == pytest.approx(above, rel=2e-6)
    tenth = (np.expm1(0.1 * eta) * 0.9 - 0.1 * eta) / 0.02
    assert gap_slope(0.1, eta) == pytest.approx(tenth, rel=1e-14)


def test_rounds_of_a_burn_in():
    """(D - e)/(2 eta) and (2/eta) log(sinh(D/2)/sinh(e/2)), rounded up; none where it is over."""
    most = 2 / 0.3 * np.log(np.sinh(2.5) / np.sinh(0.4))
    assert spif_burn_in(5.0, 0.3, 0.8) == (7, np.ceil(most))
    assert spif_burn_in(5.0, 0.3) == spif_burn_in(5.0, 0.3, 1.0)
    assert spif_burn_in(1.0, 0.3, 1.0) == spif_burn_in(0.0, 0.3) == (0, 0.0)
    assert spif_burn_in(1e5, 0.5).at_most == np.ceil(4 * (5e4 - np.log(2 * np.sinh(0.5))))
    assert np.isfinite(spif_burn_in(5.0, 1.5936).at_most)
    assert spif_burn_in(5.0, 1.5937) == (2, np.inf)


@pytest.mark.parametrize("base", [[0.1, np.nan], [np.inf, 0.0], [0.1, 0.2, 0.3], [[0.1, 0.2]]])
def test_a_base_is_a_finite_number_for_each_outcome(base):
    with pytest.raises(InvalidInput, match=r"log_base: shape .*; needed are 2 finite numbers"):
        LogLinear(np.array([[0.0], [1.0]]), np.array(base))


@pytest.mark.parametrize("rounds", [1, 3])
def test_token_rounds_say_how_far_the_last_one_moved(rounds):
    """SPIN at beta = 2 on responses of one token: geometric mixtures of expert and start."""
    game = TokenMDP.random(vocab=3, horizon=1, prompts=2, seed=1)
    start = game.uniform_policy()
    found = self_play(
        game.expert, start, "spin", 2.0, rounds=rounds, game=game, level="conditional"
    )
    share = 1 - 0.5 ** np.arange(rounds + 1)[:, None, None]
    path = np.exp(share * game.expert + (1 - share) * start)
    path /= path.sum(-1, keepdims=True)
    np.testing.assert_allclose(np.exp(found.policies), path, atol=1e-12)
    moved = 0.5 * np.abs(path[-1] - path[-2]).sum(-1).max()
    assert found.outcome is Outcome.MOVING
    assert f"the last round moved {moved:.1e} in total variation" in found.status


A, B, C = np.array([[[0.9, 0.1]], [[0.2, 0.8]], [[0.5, 0.5]]])
FLAT = np.array([[0.3], [0.3], [0.3]])


def end(policies, kl, reach=(1.0, 1.0)):
    kl = np.array(kl, dtype=float)
    kl = kl[:, None] if kl.ndim == 1 else kl
    return ending(np.array(policies), kl, np.array(reach)[:, None], "told", ["old", "new"])


@pytest.mark.parametrize(
    ("policies", "kl", "reach", "outcome", "words"),
    [
        ([A], [0.3], (1, 1), Outcome.NO_ROUNDS, "no rounds were asked for (told; one-step: new)"),
        ([B, A, A], [0.5, 0.3, 0.3], (1, 1), Outcome.CONVERGED, "converged: the last round moved"),
        ([B, A, A], [0.5, 0.3, 0.3 + 1e-14], (1, 1), Outcome.CONVERGED, "converged: the last"),
        ([B, A, A], [0.1, 0.3, 0.4], (1, 1), Outcome.DIVERGED, "diverged: the policy collapsed"),
        ([B, A, A], [0.5, 0.4, 0.3], (1, 1), Outcome.MOVING, "moving: KL(expert||policy) went"),
        ([B, A, A], [0.5, 0.3, 0.4], (1, 1), Outcome.MOVING, "moving: KL(expert||policy) went"),
        ([A, B, A], [0.3, 0.5, 0.3], (1, 1), Outcome.CYCLE, "cycle of period two, 7.0e-01 apart"),
        ([A, B, A], [0.3, 0.5, 0.4], (1, 1), Outcome.DIVERGED, "jumps to and fro"),
        ([A, B, C], [0.3, 0.5, 0.3], (1, 1), Outcome.MOVING, "moving: the last round moved 3"),
        ([A, B], [0.3, 0.5], (1, 1), Outcome.MOVING, "moving: the last round moved 7.0e-01"),
        ([A, B, A], [0.3, 0.5, 0.3], (1, np.inf), Outcome.DIVERGED, "left the range of numbers"),
    ],
)
def test_how_a_path_ends(policies, kl, reach, outcome, words):
    found, said = end(policies, kl, reach)
    assert found is outcome
    assert words in said
    assert "(told; one-step: new)" in said


def test_one_prompt_of_two_that_collapses_is_enough():
    still = np.array([[[0.9, 0.1], [0.4, 0.6]]] * 3)
    found, _ = end(still, [[0.1, 0.2], [0.3, 0.2], [0.4, 0.2]], (1.0, 1.0))
    assert found is Outcome.DIVERGED
    found, said = end(still + [[[[0.0]]], [[[0.0]]], [[[0.0]]]], [[0.2, 0.2]] * 3)
    assert found is Outcome.CONVERGED
    apart = still.copy()
    apart[-1, 1] = [0.7, 0.3]
    found, said = end(apart, [[0.2, 0.2]] * 3)
    assert found is Outcome.MOVING
    assert "moved 3.0e-01" in said


def test_what_is_known_of_spif_at_extreme_steps() -> None:
    """Against forty digits, and where a log or an exponential would cancel or overflow."""
    assert largest_log_partition(1e-300) == largest_log_partition(1.5936) == 0.0
    assert largest_log_partition(1.594) > 0
    for eta in np.geomspace(1e-8, 1.59, 40):
        assert spif_reach(eta) == (0.0, 0.0)
        assert np.isfinite(spif_burn_in(5.0, eta).at_most)
    assert spif_burn_in(200.0, 0.5, 1e-17).at_most == 557.0
    assert spif_burn_in(1e-17, 0.5, 1e-18).at_most == 10.0
    for eta in (1e3, 1e5):
        reach = spif_reach(eta)
        assert 0 < reach.below < reach.above < 2 * eta
    with mpmath.workdps(40):
        for t in (9e-6, 1e-3, -0.4, 0.9):
            for eta in (0.5, 30.0, 1e4, 1e6 if t < 1e-4 else 700.0):
                x = mpmath.mpf(t)
                exact = (mpmath.expm1(eta * x) * (1 - x) - eta * x) / (2 * x * x)
                if exact < 1e300:
                    np.testing.assert_allclose(gap_slope(t, eta), float(exact), rtol=1e-11)
    np.testing.assert_allclose(gap_slope([1.0, -1.0, 0.0], 1e4), [-5e3, 4999.0, 1e4 * 9998 / 4])
    assert spif_descent(712.0) == spif_descent(1e4) == -np.inf
