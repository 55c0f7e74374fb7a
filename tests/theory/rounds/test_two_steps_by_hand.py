"""Rounds of `self_play` and what is said of them, by their formulas in logarithms."""

from __future__ import annotations

import numpy as np
import pytest

from theory import InvalidInput, TokenMDP, objectives, self_play
from theory.rounds import history_errors, inexact, two_step
from theory.rounds.one_step import one_step_round
from theory.rounds.predictions import long_step

P, START, REF = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3]), np.array([0.3, 0.3, 0.4])


def normalised(weight):
    top = weight.max()
    return weight - top - np.log(np.exp(weight - top).sum())


@pytest.mark.parametrize("tau", [0.0, 0.4])
@pytest.mark.parametrize("rare", [0.2, 1e-300])
def test_anchored_rounds_of_common_and_of_rare_responses(tau, rare):
    """T2: log pi' = (beta log pi + tau log ref + R(log p/pi))/(beta + tau), as SPIN's R is u."""
    p = np.array([0.7, 0.3 - rare, rare])
    log_p, log_q, log_ref = np.log(p), np.log(START), np.log(REF)
    for _ in range(3):
        log_q = normalised((1.5 * log_q + tau * log_ref + log_p - log_q) / (1.5 + tau))
    path = self_play(p, START, "spin", 1.5, 3, REF, tau, progress=False)
    np.testing.assert_allclose(np.log(path.policy), log_q, rtol=1e-12)
    u = log_p - log_q
    np.testing.assert_allclose(path.reward, u - np.exp(log_q) @ u, rtol=1e-9, atol=1e-12)
    assert path.details["max_logratio"][-1] == pytest.approx(np.abs(u).max())


def test_a_reward_at_the_end_of_a_diverging_path_is_that_of_the_last_log_ratios():
    """SPIN below its threshold: log-ratios grow by 1/beta - 1 = 9 a round, masses go under."""
    path = self_play(P, START, "spin", 0.1, 4, progress=False)
    log_q = np.log(START)
    for _ in range(4):
        log_q = normalised(log_q + (np.log(P) - log_q) / 0.1)
    u = np.log(P) - log_q
    assert path.policy.min() == 0.0
    np.testing.assert_allclose(path.reward - path.reward[0], u - u[0], rtol=1e-9)


def test_laws_that_share_no_response_have_no_round_where_rewards_are_unbounded_below():
    p, start = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    with pytest.raises(InvalidInput, match=r"^start and expert have disjoint supports at prompt"):
        self_play(p, start, "spin", 1.0, 1, progress=False)
    for bounded in ("spif", "policy_only"):  # below, by 1/c and 1/(2c)
        self_play(p, start, bounded, 1.0, 1, progress=False)
    with pytest.raises(InvalidInput, match=r"^start has mass at \(0,\) where ref has none"):
        self_play(P, START, "spin", 1.0, 1, np.array([0.0, 0.5, 0.5]), 0.5, progress=False)
    self_play(P, START, "spin", 1.0, 1, np.array([0.0, 0.5, 0.5]), 0.0, progress=False)


@pytest.mark.parametrize("tau", [0.0, 0.4, 1.0])
def test_one_step_rounds_have_the_anchor(tau):
    path = self_play(P, START, "spif", 2.0, 1, REF, tau, one_step=True, progress=False)
    ref = REF if tau else None
    alone = one_step_round(P, START, objectives.get("spif"), 2.0, ref=ref, tau=tau, branch="near")
    np.testing.assert_allclose(path.policy, alone.policy, atol=1e-12)


@pytest.mark.parametrize("tau", [0.0, 1.0])
def test_rounds_per_token_end_with_the_reward_of_the_last_policy(tau):
    game = TokenMDP.random(vocab=3, horizon=2, seed=0)
    even, spif = game.uniform_policy(), objectives.get("spif")
    given = {"ref": even, "tau": tau, "game": game, "level": "conditional", "progress": False}
    path = self_play(game.expert, even, spif, 2.0, 3, **given)
    last = two_step.token_reward(game, game.expert, path.policy, spif, "conditional")
    np.testing.assert_array_equal(path.reward, last)
    alone = self_play(game.expert, even, spif, 2.0, 1, one_step=True, **given)
    rows = np.exp(game.expert), np.exp(even), spif, 2.0
    found = one_step_round(*rows, ref=np.exp(even) if tau else None, tau=tau, branch="near")
    np.testing.assert_allclose(np.exp(alone.policy), found.policy, atol=1e-12)


def test_a_long_step_by_hand():
    """T4 d: the limit is (p - q)+ over its sum; q e^{eta (p-q)/(p+q)} is reached at most."""
    p, q, eta = np.array([0.6, 0.399, 0.001]), np.array([1e-6, 0.5, 0.499999]), 2.0
    said = long_step(p, q, eta)
    np.testing.assert_allclose(said.law, [1.0, 0.0, 0.0], atol=1e-12)
    reached = min(1e-6 * np.exp(eta * (0.6 - 1e-6) / (0.6 + 1e-6)), 1.0)
    assert said.at_least == pytest.approx(1.0 - reached, abs=1e-12)
    assert long_step(p, q, 60.0).at_least == 0.0


@pytest.mark.parametrize(("step", "share"), [(2.5, 0.5), (3.9, 0.3), (2.1, 0.0)])
def test_noise_is_refused_where_either_condition_fails(step, share):
    """s m >= 1 with room left, and the other way round."""
    with pytest.raises(InvalidInput, match="step="):
        history_errors.sampled_noise(step, share)


def test_one_start_a_prompt_and_one_size_a_round() -> None:
    starts, sizes = np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2])
    together = inexact.mean_bound(starts, sizes, 1.0)
    alone = [inexact.mean_bound(start, sizes, 1.0) for start in starts]
    np.testing.assert_array_equal(together, np.stack(alone, axis=-1))
