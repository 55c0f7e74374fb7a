"""T6, history and errors: rounds against earlier opponents whose rewards are off."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import IPM, SPIF, SPIN, centred, kl_of_logs
from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import equilibrium, laws, objectives
from theory.errors import InvalidInput, Unavailable
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.history import OwnResponses, history_factor, shares_of
from theory.rounds.history_errors import (
    driving_error,
    history_mean_bound,
    history_noise,
    history_reach,
    mean_age,
    quietest_share,
    sampled_noise,
)
from theory.rounds.inexact import error_spread, mean_bound
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

BOUNDED = [obj for obj in with_fixed_link() if np.isfinite(obj.reward_bounds).all()]
IPO = objectives.get("ipo", margin=1.0)
MIXED = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=4).map(
    lambda old: [m / max(1.0, sum(old)) for m in old]
)
"""Shares of one to four earlier opponents."""


def played(
    obj: Objective,
    game: Instance,
    errors: FloatArray,
    beta: float,
    history: Any,
    tau: float = 0.0,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log-laws (rounds + 1, ...) of rounds of rewards ``R + e``, own responses' laws, and ``R``."""
    log_p, log_ref, own = np.log(game.expert), np.log(game.ref), OwnResponses(history)
    path, mixed, rewards = [np.log(game.start)], [], []
    for error in errors:
        mixed.append(own.after(path[-1]))
        rewards.append(reward_of_log_laws(obj, log_p, mixed[-1]))
        path.append(gibbs_step(path[-1], rewards[-1] + error, beta, log_ref, tau))
    return np.stack(path), np.exp(np.stack(mixed)), np.stack(rewards)


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
    path, *_ = played(obj, game, errors, beta, history)
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
    path, *_ = played(SPIF, game, np.repeat(error[None], 400, 0), beta, history)
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
        path, *_ = played(SPIN, game, errors, beta, history)
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
    path, mixed, rewards = played(obj, game, errors, beta, old)
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
    path, _, rewards = played(obj, game, errors, beta, old, tau)
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
    exact, *_ = played(obj, started, 0 * errors, beta, old, tau)
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
    _, mixed, _ = played(IPM, game, np.zeros((rounds, 1, 2)), beta, old)
    bound = history_mean_bound(0.0, 2.0, beta, rounds, old)[-1]
    claim.exhibits(IPM.potential(mixed, game.expert).mean() / bound, share, what="share of it")


@pytest.mark.claim("T6.history_any_step", regime="tabular", drops="bounded_link")
def test_spin_with_a_quarter_of_old_responses_has_no_such_bound(claim) -> None:
    """From afar beyond step 2, where a quarter holds it near the expert."""
    game = Instance(np.array([[0.6, 0.4]]), np.array([[1 - 1e-9, 1e-9]]), np.array([[0.5, 0.5]]),
                    np.random.default_rng(0))  # fmt: skip
    path, *_ = played(SPIN, game, np.zeros((40, 1, 2)), 0.4, 0.25)
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
        (lambda: quietest_share(4.0), "less than 4"),
        (lambda: mean_age([0.5, 0.6]), "sum of at most 1"),
        (lambda: history_mean_bound(-1.0, 2.0, 0.0, 0, 0.2), "(?s)beta=0.0.*rounds=0.*first_kl=-1"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()


# -- which errors drive an outcome out ---------------------------------------------------------


def log_odds(path: FloatArray) -> FloatArray:
    return np.asarray(path[..., 0] - path[..., 1])


def pull(obj: Objective, p: FloatArray, odds: FloatArray) -> FloatArray:
    """Difference of the two rewards (...) at log-odds of the own responses' law."""
    own = -np.logaddexp(0.0, np.stack([-odds, odds], -1))
    r = obj.link(np.log(p) - own, np.zeros((*odds.shape, 1)))
    return np.asarray(r[..., 0] - r[..., 1])


def outermost(obj: Objective, p: FloatArray, size: float) -> float:
    """Log-odds, at most 80, above which the pull is below ``-size``."""
    inside, outside = float(np.log(p[0] / p[1])), 80.0
    for _ in range(60):
        middle = 0.5 * (inside + outside)
        if pull(obj, p, np.array(middle)) < -size:
            outside = middle
        else:
            inside = middle
    return outside


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", BOUNDED, ids=label)
@given(mass=st.floats(0.05, 0.95), beta=st.floats(0.05, 5.0), old=MIXED,
       share=st.floats(0.0, 0.99), far=st.floats(-30.0, 30.0),
       seed=st.integers(0, 2**32 - 1))  # fmt: skip
def test_less_than_the_driving_error_leaves_log_odds_bounded(
    claim, obj: Objective, mass: float, beta: float, old: list[float], share: float, far: float,
    seed: int,
) -> None:  # fmt: skip
    """Errors that push to one side all the time, and random ones."""
    p, rng = np.array([mass, 1 - mass]), np.random.default_rng(seed)
    size, rounds = share * float(driving_error(obj, p)), 400
    start = np.exp(-np.logaddexp(0.0, [-far, far]))
    game = Instance(p[None], start[None], p[None], rng)
    ahead = rng.choice([-1.0, 1.0], rounds) if seed % 3 else np.full(rounds, 1.0)
    errors = 0.5 * size * np.stack([ahead, -ahead], -1)[:, None]
    path, *_ = played(obj, game, errors, beta, old)
    found, h = log_odds(path)[:, 0], len(shares_of(old)) - 1
    most = np.abs(pull(obj, p, np.linspace(-80, 80, 401))).max() + size
    ends = [outermost(obj, p, size), outermost(obj, p[::-1], size)]
    room = np.array(ends) + (h + 1) * most / beta
    claim.below(found, max(room[0], far), "log-odds", atol=1e-9)
    claim.below(-found, max(room[1], -far), "log-odds the other way", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("history", [0.0, 0.5, [0.2, 0.3]])
@pytest.mark.parametrize("p", [[0.7, 0.3], [0.5, 0.3, 0.2], [0.05, 0.9, 0.05]])
def test_the_driving_error_drives_out_the_rarest(claim, p: list[float], history: Any) -> None:
    """All others pushed alike, 1 % beyond it: an end that comes nearer by as much a round."""
    limit, beta, rounds = float(driving_error(SPIF, p)), SPIF.beta_at(0.5), 4000
    error = 1.01 * limit * (np.arange(len(p)) != np.argmin(p))
    game = Instance(*(np.array([p]) for _ in range(3)), np.random.default_rng(0))
    path, *_ = played(SPIF, game, np.tile(error, (rounds, 1, 1)), beta, history)
    lost = -path[:, 0, np.argmin(p)]
    claim.close((lost[-1] - lost[-1001]) / (1000 * 0.01 * limit / beta), 1.0, 1e-2,
                because="expansion", what="nats a round over the excess")  # fmt: skip


def against_others(path: FloatArray, i: int) -> FloatArray:
    """Log-odds (rounds + 1, ...) of one outcome against all others together."""
    return np.asarray(path[..., i] - np.logaddexp.reduce(np.delete(path, i, -1), axis=-1))


def concave_step(obj: Objective) -> float:
    """SPIF's largest effective step at which x e^{R(-log x)/beta} is concave."""
    return float(2.0 * obj.alpha * (1.0 - obj.alpha))


SPIFS = [obj for obj in BOUNDED if obj.name == "spif"]


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", SPIFS, ids=label)
@given(game=games(max_n=7), share=st.floats(0.01, 1.0), size=st.floats(0.0, 5.0))
def test_up_to_a_step_others_do_no_more_than_one_in_their_place(
    claim, obj: Objective, game: Instance, share: float, size: float
) -> None:
    """A round from one law, and with all others lumped into one that has their largest error."""
    beta = obj.beta_at(share * concave_step(obj))
    errors = game.rng.uniform(0.0, size, (1, *game.expert.shape))
    path, *_ = played(obj, game, errors, beta, 0.0)
    for i in range(game.expert.shape[-1]):
        expert, start = (np.stack([x[:, i], 1.0 - x[:, i]], -1) for x in (game.expert, game.start))
        worst = np.stack([errors[..., i], np.delete(errors, i, -1).max(-1)], -1)
        lumped, *_ = played(obj, Instance(expert, start, expert, game.rng), worst, beta, 0.0)
        more = log_odds(lumped)[1] - against_others(path, i)[1]
        claim.below(more, 0.0, "log-odds lost beyond those of two outcomes", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize("obj", SPIFS, ids=label)
@given(game=games(max_n=6), step=st.floats(0.1, 1.0), share=st.floats(0.0, 0.99))
def test_up_to_that_step_the_rarest_of_many_is_not_driven_out(
    claim, obj: Objective, game: Instance, step: float, share: float
) -> None:
    """All others are pushed alike, or all but one in turn, or at random."""
    p, beta, rounds = game.expert[0], obj.beta_at(step * concave_step(obj)), 300
    i, n, one = int(np.argmin(p)), len(p), slice(0, 1)
    size = share * float(driving_error(obj, p))
    two = np.array([1.0 - p[i], p[i]])
    most = np.abs(pull(obj, two, np.linspace(-80, 80, 401))).max() + size
    room = outermost(obj, two, size) + most / beta
    turns = 1.0 - np.eye(n)[np.arange(rounds) % n]
    for pushed in (np.ones((rounds, n)), turns, game.rng.uniform(0.0, 1.0, (rounds, n))):
        errors = size * (pushed * (np.arange(n) != i))[:, None]
        alone = Instance(game.expert[one], game.start[one], game.ref[one], game.rng)
        path, *_ = played(obj, alone, errors, beta, 0.0)
        lost = -against_others(path, i)[:, 0]
        claim.below(lost, max(room, lost[0]), "log-odds against the rarest", atol=1e-9)


@pytest.mark.claim("T6.driven_out", regime="tabular")
def test_tangents_serve_where_the_weight_is_not_concave(claim) -> None:
    """On (.45, .45, .1) x e^{R(-log x)/beta} lies below those at 1/(1 - p_i) up to step .69."""
    x = np.linspace(1e-9, 10.0, 200_001)

    def above(step: float, at: float) -> float:
        weight = x * np.exp(2.0 * step * (1.0 - x) / (1.0 + x))
        there = at * np.exp(2.0 * step * (1.0 - at) / (1.0 + at))
        slope = there * (1.0 / at - 4.0 * step / (1.0 + at) ** 2)
        return float((weight - there - slope * (x - at)).max())

    for at in (1 / 0.55, 1 / 0.9):
        claim.below(above(0.69, at), 0.0, f"weight above the tangent at {at:.2f}", atol=1e-12)
    assert above(0.7, 1 / 0.55) > 1e-3


@pytest.mark.claim("T6.driven_out", regime="tabular")
@pytest.mark.parametrize(
    ("step", "share", "less"), [(1.6, 0.995, 0.2931), (1.8, 0.94, 0.232), (4.0, 0.7, 0.0)]
)
def test_at_larger_steps_less_drives_out_the_third_of_three(
    claim, step: float, share: float, less: float
) -> None:
    """The two others swing, and their mean reward rises with it: at step 4 by themselves, at less
    by errors that are smaller on the one that is ahead."""
    p = np.array([[0.45, 0.45, 0.1]])
    top = share * float(driving_error(SPIF, p[0]))
    swing = np.array([[top - less, top, 0.0], [top, top - less, 0.0]])
    start = np.array([[1.0, np.exp(-2.12), 1e-3]])
    game = Instance(p, start / start.sum(), p, np.random.default_rng(0))
    for at, gone in ((0.5, False), (step, True)):
        path, *_ = played(SPIF, game, np.tile(swing, (1000, 1))[:, None], SPIF.beta_at(at), 0.0)
        third = -path[:, 0, 2]
        if gone:
            claim.exhibits(third[-1] - third[1000], 10.0, what=f"nats in 1,000 rounds, step {step}")
        else:
            claim.below(np.abs(third[-1] - third[-1001]), 1e-6, what="nats lost, step 1/2")


@pytest.mark.claim("T6.driven_out", regime="tabular", drops="bounded_link")
def test_spin_beyond_its_threshold_leaves_without_errors(claim) -> None:
    assert driving_error(SPIN, [0.6, 0.4]) == np.inf
    start = np.array([[0.5, 0.5]])
    game = Instance(np.array([[0.6, 0.4]]), start, start, np.random.default_rng(0))
    path, *_ = played(SPIN, game, np.zeros((30, 1, 2)), 0.4, 0.0)
    claim.exhibits(np.abs(log_odds(path)[-1, 0]), 1e3, what="log-odds after 30 rounds")


def test_the_driving_error_by_hand_and_refused() -> None:
    by_hand = 1.0 / 0.7 * (1.0 + 0.3 / (2.0 - 0.3))
    assert float(driving_error("spif(c=0.7)", [0.3, 0.7])) == pytest.approx(by_hand)
    assert driving_error("spif", np.full((2, 3, 4), 0.25)).shape == (2, 3)
    for wrong in ([1.0], [0.5, 0.5, 0.0]):
        with pytest.raises(InvalidInput, match="two outcomes or more"):
            driving_error("spif", wrong)
    with pytest.raises(Unavailable, match="both laws"):
        driving_error("ipo", [0.5, 0.5])
