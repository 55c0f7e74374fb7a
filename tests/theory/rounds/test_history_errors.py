"""T6, history and errors: rounds against earlier opponents whose rewards are off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import (
    IPM,
    MIXED,
    SPIF,
    SPIN,
    against,
    centred,
    kl_of_logs,
)
from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import equilibrium, laws, objectives
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds import history_errors
from theory.rounds.history import history_factor, shares_of
from theory.rounds.history_errors import (
    history_mean_bound,
    history_noise,
    history_reach,
    mean_age,
    quietest_share,
    sampled_noise,
)
from theory.rounds.inexact import error_spread, mean_bound

BOUNDED = [obj for obj in with_fixed_link() if np.isfinite(obj.reward_bounds).all()]
IPO = objectives.get("ipo", margin=1.0)


def at_the_expert(law: list[float], games_: int = 1) -> Instance:
    p = np.tile(law, (games_, 1))
    return Instance(p, p, p, np.random.default_rng(0))


@pytest.mark.claim("T6.history_errors", regime="tabular")
@pytest.mark.parametrize(
    ("step", "history"), [(0.4, 0.6), (1.6, 0.2), (2.6, 0.25), (0.9, [0.2, 0.3])]
)
@pytest.mark.parametrize("obj", [SPIN, SPIF, IPO], ids=label)
def test_fresh_errors_leave_what_is_foretold(claim, obj, step: float, history: Any) -> None:
    """Independent games, once each: the sample variance of a log-ratio, in its own errors."""
    count, sd, beta = 6000, 1e-3, obj.beta_at(step)
    game = at_the_expert([0.5, 0.3, 0.2], count)
    errors = sd * game.rng.standard_normal((90, *game.expert.shape))
    path, *_ = against(obj, game, errors, beta, history)
    x = centred(game.expert, path[-1] - np.log(game.expert))
    apart = x[:, 0] - x[:, 1]  # two errors, independent: twice the variance
    ratio = np.mean(apart**2) / (2 * (sd / beta) ** 2 * history_noise(step, history))
    claim.close((ratio - 1) / np.sqrt(2 / count), 0.0, 4.5, because="sampling",
                what="variance over the foretold, less 1, in standard errors")  # fmt: skip


@pytest.mark.claim("T6.history_errors", regime="tabular", drops="independent_errors")
@pytest.mark.parametrize("history", [0.0, 0.4, [0.1, 0.5]])
def test_errors_that_stay_leave_what_they_do_without_history(claim, history: Any) -> None:
    step, game = 0.6, at_the_expert([0.5, 0.3, 0.2])
    beta = SPIF.beta_at(step)
    error = 1e-4 * np.array([[1.0, -2.0, 0.5]])
    path, *_ = against(SPIF, game, np.repeat(error[None], 400, 0), beta, history)
    x = centred(game.expert, path[-1] - np.log(game.expert))
    left = centred(game.expert, error) / (step * beta)
    claim.close(x / np.abs(left).max(), left / np.abs(left).max(), 1e-3, because="expansion",
                what="log-ratio over e/(s beta)")  # fmt: skip
    assert history_noise(step, history, 1.0) == pytest.approx(1 / step**2)
    claim.exhibits(1 / step**2 / history_noise(step, history), 1.2, what="over fresh errors'")


@pytest.mark.claim("T6.history_errors", regime="tabular")
@given(old=MIXED, step=st.floats(0.02, 1.0))
def test_up_to_step_one_old_responses_only_add_noise(claim, old: list[float], step: float) -> None:
    """Of any shares, where they are stable at all."""
    assume(history_factor(step, old) < 1)
    noise = history_noise(step, old)
    claim.below(1 / (step * (2 - step)) / noise, 1.0, "noise without over noise with", atol=1e-9)


@pytest.mark.claim("T6.history_errors", regime="tabular")
@pytest.mark.parametrize("step", [1.2, 1.9, 2.25, 3.5])
def test_the_quietest_share(claim, step: float) -> None:
    best = quietest_share(step)
    least = history_noise(step, best)
    claim.close(least, 1 / (step * (2 - np.sqrt(step)) ** 2), 0.0, 1e-9, what="its noise")
    shares = np.linspace(max(0.0, (step - 2) / (2 * step)), min(1 / step, 1.0), 202)[1:-1]
    others = np.array([history_noise(step, m) for m in shares])
    claim.below(least / others, 1.0, "least noise over that of other shares", atol=1e-9)
    assert abs(shares[others.argmin()] - best) < 0.01


@pytest.mark.claim("T6.history_errors", regime="tabular")
@pytest.mark.parametrize(("step", "history"), [(0.5, 0.0), (1.5, 0.0), (1.5, 0.3), (2.5, 0.25)])
def test_errors_with_the_signs_of_the_response_reach_as_far_as_any(claim, step, history) -> None:
    """Two outcomes; and random errors of the same size stay below."""
    rounds, size, beta = 60, 1e-5, SPIN.beta_at(step)
    one = np.zeros((rounds, 1, 2))
    one[0, 0, 0] = size
    game = at_the_expert([0.5, 0.5])

    def reached(errors: FloatArray) -> FloatArray:
        path, *_ = against(SPIN, game, errors, beta, history)
        return np.asarray(path[..., 0] - path[..., 1])

    response = reached(one)[1:, 0]
    worst = np.zeros_like(one)
    worst[:, 0, 0] = size * np.where(response[::-1] < 0, -0.5, 0.5)
    worst[:, 0, 1] = -worst[:, 0, 0]
    most = size / beta * history_reach(step, history)
    claim.close(reached(worst)[-1, 0] / most, 1.0, 1e-2, because="expansion",
                what="their log-ratio over the bound")  # fmt: skip
    random = 0.5 * size * game.rng.uniform(-1, 1, worst.shape)
    claim.below(np.abs(reached(random)) / most, 1.0, "log-ratio over the bound")


@pytest.mark.claim("T6.history_any_step", regime="tabular")
@pytest.mark.parametrize("obj", BOUNDED, ids=label)
@given(game=games(), beta=st.floats(0.02, 5.0), old=MIXED, size=st.floats(0.0, 2.0))
def test_mean_potential_of_the_mixtures(
    claim, obj: Objective, game: Instance, beta: float, old: list[float], size: float
) -> None:
    p, rounds = game.expert, 9
    errors = size * game.rng.standard_normal((rounds, *p.shape))
    path, mixed, rewards = against(obj, game, errors, beta, old)
    low, high = obj.reward_bounds
    used = max(high - low, float(np.ptp(rewards + errors, axis=-1).max()))
    bound = history_mean_bound(laws.kl(p, game.start), used, beta, rounds, old)
    so_far = np.arange(1, rounds + 1)[:, None]
    cost = (errors * (np.exp(path[:-1]) - p)).sum(-1)
    potential = obj.potential(mixed, p)
    claim.below((np.cumsum(potential - cost, 0) / so_far) / bound, 1.0,
                "mean of D_Phi less errors, over the bound", atol=1e-9)  # fmt: skip
    average = np.cumsum(mixed, 0) / so_far[..., None]
    claim.below(obj.potential(average, p), np.cumsum(potential, 0) / so_far,
                "D_Phi of the average law", atol=1e-9)  # fmt: skip


@pytest.mark.claim("T6.history_any_step", regime="tabular")
@pytest.mark.parametrize("obj", BOUNDED, ids=label)
@given(game=games(), beta=st.floats(0.02, 5.0), tau=st.floats(0.05, 2.0), old=MIXED,
       size=st.floats(0.0, 2.0))  # fmt: skip
def test_last_iterate_with_an_anchor(
    claim, obj: Objective, game: Instance, beta: float, tau: float, old: list[float], size: float
) -> None:
    """A round's inequality, with errors; and where rounds from pi_ref end without."""
    p, ref = game.expert, game.ref
    errors = size * game.rng.standard_normal((8, *p.shape))
    path, _, rewards = against(obj, game, errors, beta, old, tau)
    target = equilibrium(p, ref, obj, tau=tau).policy
    at_rest = tau * np.log(target / ref)
    kl, policies = kl_of_logs(target, path), np.exp(path)
    moved = np.stack([
        sum(m * laws.total_variation(policies[t], policies[max(0, t - j)])
            for j, m in enumerate(shares_of(old)))
        for t in range(8)
    ])  # fmt: skip
    cost = (errors * (policies[:-1] - target)).sum(-1)
    off = np.ptp(rewards + errors - at_rest, axis=-1) ** 2 / (8 * beta)
    lag = np.ptp(rewards - at_rest, axis=-1) * moved
    bound = (beta * kl[:-1] + cost + off + lag) / (beta + tau)
    scale = 1 + kl.max() + np.abs(bound).max()
    claim.below(kl[1:] / scale, bound / scale, "KL(pi*||pi) after a round", atol=1e-9)
    started = Instance(p, ref, ref, game.rng)
    exact, *_ = against(obj, started, 0 * errors, beta, old, tau)
    low, high = obj.reward_bounds
    floor = (high - low) ** 2 / tau * (1 / (2 * beta) + 2 * mean_age(old) / (beta + tau))
    kept = (beta / (beta + tau)) ** np.arange(9)[:, None] * laws.kl(target, ref)
    claim.below(kl_of_logs(target, exact), kept + floor, "KL(pi*||pi_t) from pi_ref", atol=1e-9)


@pytest.mark.claim("T6.history_any_step", regime="tabular")
@pytest.mark.parametrize(("earlier", "share"), [(1, 0.55), (8, 0.5)])
def test_hard_bounded_rewards_against_old_ones_alone_reach_half_of_it(claim, earlier, share):
    """Two outcomes: log-odds go to and fro as far as the responses are old."""
    game = Instance(*(np.array([q]) for q in ([0.5, 0.5], [0.5 + 1e-4, 0.5 - 1e-4], [0.5, 0.5])),
                    np.random.default_rng(0))  # fmt: skip
    rounds, beta = 4000, 2000.0
    old = [0.0] * (earlier - 1) + [1.0]
    _, mixed, _ = against(IPM, game, np.zeros((rounds, 1, 2)), beta, old)
    bound = history_mean_bound(0.0, 2.0, beta, rounds, old)[-1]
    claim.exhibits(IPM.potential(mixed, game.expert).mean() / bound, share, what="share of it")


@pytest.mark.claim("T6.history_any_step", regime="tabular", drops="bounded_link")
def test_spin_with_a_quarter_of_old_responses_has_no_such_bound(claim) -> None:
    """From afar beyond step 2, where a quarter holds it near the expert."""
    game = Instance(np.array([[0.6, 0.4]]), np.array([[1 - 1e-9, 1e-9]]), np.array([[0.5, 0.5]]),
                    np.random.default_rng(0))  # fmt: skip
    path, *_ = against(SPIN, game, np.zeros((40, 1, 2)), 0.4, 0.25)
    claim.exhibits(kl_of_logs(game.expert, path)[-1], 1e3, what="KL(p||pi_40), nats")


def test_without_history_they_are_the_known_ones() -> None:
    for step, k in ((0.3, 0.0), (1.7, 0.0), (0.8, 0.6), (0.8, -0.5), (1.2, 1.0)):
        found = 0.5 / 2.0 * np.sqrt(history_noise(step, 0.0, k))
        assert found == pytest.approx(float(error_spread(0.5, 2.0, step, k)))
    assert history_reach(0.4, 0.0) == pytest.approx(2.5)
    assert history_reach(1.6, 0.0) == pytest.approx(1 / 0.4)
    plain = history_mean_bound([0.3, 1.0], 2.0, 0.7, 3, 0.0)
    assert np.allclose(plain, mean_bound([0.3, 1.0], np.full((3, 2), 2.0), 0.7))


def test_one_share_by_its_formula() -> None:
    for step, m in ((0.5, 0.3), (1.5, 0.5), (2.5, 0.25), (3.9, 0.25)):
        by_hand = (1 + step * m) / (step * (1 - step * m) * (2 - step * (1 - 2 * m)))
        assert history_noise(step, m) == pytest.approx(by_hand)
        assert sampled_noise(step, m) == pytest.approx(step**2 * by_hand)
        assert history_noise(step, [m, 0.0]) == pytest.approx(by_hand)


def test_the_reach_of_one_share_by_its_roots() -> None:
    """Positive: 1/s. Negative: 1/(2 - s(1-2m)). Complex: between both and (1 - sqrt(sm))^-2."""
    kinds = set()
    for step in (0.1, 0.4, 0.9, 1.5, 1.9, 2.2, 3.0):
        for m in (0.01, 0.1, 0.25, 0.4, 0.8):
            middle, edge = 1 - step * (1 - m), 2 - step * (1 - 2 * m)
            if step * m >= 1 or edge <= 0:
                continue
            reach, real = history_reach(step, m), middle**2 >= 4 * step * m
            kinds.add((real, middle > 0))
            if real:
                assert reach == pytest.approx(1 / step if middle > 0 else 1 / edge)
            else:
                assert max(1 / step, 1 / edge) <= reach <= (1 - np.sqrt(step * m)) ** -2
    assert len(kinds) == 4


@pytest.mark.parametrize("history", [0.0, 0.25, 1.0, [0.1, 0.3, 0.2], [0.0] * 9 + [0.5]])
@pytest.mark.parametrize("step", [1e-4, 1e-5, 1e-9, 1e-17, 1e-300])
def test_the_reach_of_small_steps_is_that_of_errors_that_stay(step: float, history: Any) -> None:
    assert history_reach(step, history) == pytest.approx(1 / step, rel=1e-11)


def test_the_reach_of_a_slow_step_counts_the_turns_of_its_other_roots(monkeypatch) -> None:
    """z^5 (1 - z) = .06: the largest root is positive, the others turn, and both ways agree."""
    history = [0.0, 0.0, 0.0, 0.0, 1.0]
    summed = history_reach(0.06, history)
    monkeypatch.setattr(history_errors, "_ROUNDS", 300)
    assert history_reach(0.06, history) == pytest.approx(summed, rel=1e-12)
    with pytest.raises(InvalidInput, match="farther below"):
        history_reach(0.19, history)  # a complex pair


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: history_noise(2.0, 0.0), "history=0.0 is stable"),
        (lambda: history_noise(1.0, 1.0), "history=1.0 is stable"),
        (lambda: history_noise(-1.0, 0.2), "step=-1.0"),
        (lambda: history_noise(1.0, 1.2), "history=1.2"),
        (lambda: history_noise(1.0, "average"), "shares of earlier opponents"),
        (lambda: history_noise(1.0, 0.2, 1.5), "correlation=1.5"),
        (lambda: history_noise(1.0, 0.2, "fresh"), "correlation='fresh'"),
        (lambda: history_reach(4.5, 0.25), "history=0.25 is stable"),
        (lambda: history_reach(2.0 - 1e-9, 0.0), "farther below"),
        (lambda: history_noise(1e-17, 0.25), "rounding tells from 0"),
        (
            lambda: sampled_noise([1, 1.5], [0.1, 0.2, 0.3]),
            r"^step \(2,\), history \(3,\): shapes do not fit; needed are numbers, or arrays that",
        ),
        (lambda: quietest_share(4.0), "less than 4"),
        (lambda: mean_age([0.5, 0.6]), "sum of at most 1"),
        (lambda: history_mean_bound(-1.0, 2.0, 0.0, 0, 0.2), "(?s)beta=0.0.*rounds=0.*first_kl=-1"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()


# -- which errors drive an outcome out ---------------------------------------------------------
