"""T6 (vii, viii), learned rewards: rounds whose rewards are off, and rounds of any step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import equilibrium, laws, objectives, theory_card
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.inexact import error_spread, last_iterate_bound, mean_bound
from theory.rounds.two_step import gibbs_step, reward_of_log_laws

FIXED = with_fixed_link()
LIPSCHITZ = [obj for obj in FIXED if np.isfinite(theory_card(obj).L)]
STEEP = [obj for obj in LIPSCHITZ if theory_card(obj).mu > 0]
SMOOTH = [obj for obj in FIXED if obj.name != "ipm"]
SPIN, SPIF, IPM = (objectives.get(name) for name in ("spin", "spif", "ipm"))


def played(
    obj: Objective,
    game: Instance,
    errors: FloatArray,
    beta: float,
    tau: float = 0.0,
    slope: float = 1.0,
) -> tuple[FloatArray, FloatArray]:
    """Log-laws (rounds + 1, ...) of rounds of rewards ``slope R(u) + e``, and ``R(u)`` of each."""
    log_p, log_ref = np.log(game.expert), np.log(game.ref)
    path, rewards = [np.log(game.start)], []
    for error in errors:
        rewards.append(reward_of_log_laws(obj, log_p, path[-1]))
        path.append(gibbs_step(path[-1], slope * rewards[-1] + error, beta, log_ref, tau))
    return np.stack(path), np.stack(rewards)


def kl_of_logs(law: FloatArray, log_path: FloatArray) -> FloatArray:
    """``KL(law||pi_t)``; also where a probability is below the least number."""
    return np.asarray((law * (np.log(law) - log_path)).sum(-1))


def centred(law: FloatArray, values: FloatArray) -> FloatArray:
    return np.asarray(values - (law * values).sum(-1, keepdims=True))


def worst_of_kl(target: FloatArray, errors: FloatArray, pull: float) -> FloatArray:
    """``log E_z e^{(e - E_z e)/m}``."""
    return np.asarray(np.log((target * np.exp(centred(target, errors) / pull)).sum(-1)))


# --- (vii): the last iterate ----------------------------------------------------------------------


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


# --- a learned reward -----------------------------------------------------------------------------


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T6.learned_reward", regime="tabular")
@given(
    game=games(),
    beta=st.floats(0.3, 4.0),
    slope=st.floats(0.2, 2.0),
    tau=st.sampled_from([0.0, 0.5]),
)
def test_a_learned_reward_is_an_inexact_round_at_another_beta(
    claim, obj: Objective, game: Instance, beta: float, slope: float, tau: float
) -> None:
    error = game.rng.standard_normal((1, *game.expert.shape))
    learned, _ = played(obj, game, error, beta, tau, slope)
    scaled, _ = played(obj, game, error / slope, beta / slope, tau / slope)
    without, _ = played(obj, game, 0 * error, beta, tau, slope)
    assume(np.isfinite(learned).all())
    size = 1e-12 * (1 + np.abs(learned).max())
    claim.close(learned, scaled, size, what="log pi at beta/a, tau/a, e/a")
    moved = centred(game.expert, learned[1] - without[1])
    claim.close(moved, centred(game.expert, error[0]) / (beta + tau), size, what="e/(beta + tau)")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.learned_reward", "T6.error_spread", regime="tabular")
@given(game=games(), step=st.floats(0.1, 1.9), slope=st.floats(0.2, 2.0))
def test_near_the_expert_log_ratios_filter_the_errors(
    claim, obj: Objective, game: Instance, step: float, slope: float
) -> None:
    """x_T = g^T x_0 + sum g^{T-1-t} e_t/beta with g = 1 - a R'(0)/beta, each less its mean."""
    p, rounds, small = game.expert, 6, 1e-6
    beta = slope * float(obj.slope(0.0)) / step
    start = p * np.exp(small * game.rng.standard_normal(p.shape))
    start /= start.sum(-1, keepdims=True)
    errors = small * beta * game.rng.standard_normal((rounds, *p.shape))
    path, _ = played(obj, game._replace(start=start), errors, beta, slope=slope)
    x = centred(p, path - np.log(p))
    weights = (1 - step) ** np.arange(rounds - 1, -1, -1)
    predicted = (1 - step) ** rounds * x[0]
    predicted = predicted + np.tensordot(weights, centred(p, errors), 1) / beta
    claim.close(x[-1], predicted, 2e-9, what="x_T as a filter of the errors", because="expansion")


@pytest.mark.claim("T6.error_spread", regime="tabular")
@given(game=games(), step=st.floats(0.1, 1.9), size=st.floats(0.1, 5.0))
def test_spin_filters_errors_of_any_size(claim, game: Instance, step: float, size: float) -> None:
    errors = size * game.rng.standard_normal((8, *game.expert.shape))
    path, _ = played(SPIN, game, errors, 1 / step)
    x = centred(game.expert, path - np.log(game.expert))
    weights = (1 - step) ** np.arange(7, -1, -1)
    predicted = (1 - step) ** 8 * x[0]
    predicted = predicted + step * np.tensordot(weights, centred(game.expert, errors), 1)
    claim.close(x[-1], predicted, 1e-10 * (1 + size + np.abs(x[0]).max()), what="x_8")


def many_paths(
    obj: Objective, step: float, correlation: float, sd: float, slope: float = 0.7
) -> tuple[FloatArray, FloatArray]:
    """Late log-ratios (games, 3) of many independent paths, and the standard deviation foreseen."""
    rng = np.random.default_rng(1)
    games_, beta = 20_000, slope * float(obj.slope(0.0)) / step
    p = np.broadcast_to([0.5, 0.3, 0.2], (games_, 3))
    fresh = sd * rng.standard_normal((60, games_, 3))
    errors = [fresh[0]]
    for new in fresh[1:]:
        errors.append(correlation * errors[-1] + np.sqrt(1 - correlation**2) * new)
    path, _ = played(obj, Instance(p, p, p, rng), np.stack(errors), beta, slope=slope)
    of_mean = sd * np.sqrt(1 - 2 * p[0] + (p[0] ** 2).sum())  # errors less their mean under p
    x = centred(p, path[-1] - np.log(p))
    return x, error_spread(of_mean, beta, step, correlation)


@pytest.mark.claim("T6.error_spread", regime="tabular", of="runs")
@pytest.mark.parametrize(("obj", "sd"), [(SPIN, 1.0), (SPIF, 0.01)], ids=["spin", "spif"])
@pytest.mark.parametrize("step", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.5])
def test_stationary_spread_of_log_ratios(claim, obj, sd: float, step: float, correlation) -> None:
    x, spread = many_paths(obj, step, correlation, sd)
    error = 4.5 / np.sqrt(2 * len(x))  # standard errors of a standard deviation
    claim.close(
        x.std(0) / spread, np.ones(3), error, what="sd of log-ratios over sd", because="sampling"
    )


@pytest.mark.claim("T6.error_spread", regime="tabular", drops="independent_errors", of="runs")
def test_errors_that_stay_do_not_average_out(claim) -> None:
    """sd/(a R'(0)) whatever the step, where fresh errors leave less and less."""
    for step in (0.2, 0.5):
        x, spread = many_paths(SPIN, step, 1.0, 1.0)
        claim.close(
            x.std(0) / spread, np.ones(3), 4.5 / np.sqrt(2 * len(x)), because="sampling",
            what="sd over sd/(a R'(0))",
        )  # fmt: skip
        fresh = spread * np.sqrt(step / (2 - step))
        claim.exhibits(x.std(0) / fresh, 1.7, what="sd over that of fresh errors")


@pytest.mark.claim("T6.error_spread", regime="tabular", drops="above_threshold", of="runs")
def test_beyond_the_threshold_there_is_no_stationary_spread(claim) -> None:
    p = np.broadcast_to([0.5, 0.3, 0.2], (500, 3))
    rng = np.random.default_rng(0)
    errors = 0.1 * rng.standard_normal((60, 500, 3))
    path, _ = played(SPIN, Instance(p, p, p, rng), errors, 1 / 2.2)
    sd = centred(p, path - np.log(p)).std(1)
    claim.exhibits(sd[60] / sd[30], 100.0, what="growth of sd over 30 rounds at effective step 2.2")


# --- (viii): any step -----------------------------------------------------------------------------


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


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: last_iterate_bound(1.0, [0.1], beta=1.0), r"needed is mu \+ tau > 0"),
        (lambda: last_iterate_bound(1.0, [0.1], beta=0.5, mu=1.0), "at least L"),
        (lambda: last_iterate_bound(-1.0, [0.1], beta=0.0, mu=1.0), "(?s)beta=0.0.*first_kl=-1.0"),
        (lambda: last_iterate_bound(1.0, 0.1, beta=1.0, mu=1.0), "one a round"),
        (lambda: last_iterate_bound([1.0, 2.0], np.ones((4, 3)), 1.0, 1.0), "do not fit"),
        (lambda: mean_bound(1.0, [np.nan], beta=1.0), "ranges=.*finite"),
        (lambda: mean_bound(1.0, "wide", beta=1.0), "ranges: not an array of numbers"),
        (lambda: mean_bound(1.0, [2.0], beta=True), "beta=True"),
        (lambda: error_spread(1.0, 1.0, 2.0), "step=2.0"),
        (lambda: error_spread(1.0, 1.0, 0.5, -1.0), "correlation=-1.0"),
        (lambda: error_spread(-1.0, 0.0, 0.5), "(?s)beta=0.0.*sd=-1.0"),
    ],
)
def test_what_cannot_be_used_is_refused(call: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        call()


def test_bounds_of_several_games_are_those_of_each() -> None:
    sizes = np.array([[0.1, 0.4], [0.3, 0.0], [0.2, 0.2]])
    both = last_iterate_bound([1.0, 0.5], sizes, 2.0, 1.0, 0.1)
    means = mean_bound([1.0, 0.5], sizes, 2.0)
    for i, kl in enumerate((1.0, 0.5)):
        assert np.allclose(both[:, i], last_iterate_bound(kl, sizes[:, i], 2.0, 1.0, 0.1))
        assert np.allclose(means[:, i], mean_bound(kl, sizes[:, i], 2.0))


def test_bounds_by_hand() -> None:
    """beta 3, mu 1, tau 1: rho = 1/2 and eps^2/32; G^2/(8 beta) beside KL/T; a gain of sqrt."""
    path = last_iterate_bound(2.0, [0.8, 0.0, 1.6], 3.0, 1.0, 1.0)
    np.testing.assert_allclose(path, [2.0, 1.01, 0.505, 0.2925])
    np.testing.assert_allclose(last_iterate_bound(2.0, [0.8], 1.0, 0.0, 1.0), [2.0, 1.04])
    np.testing.assert_allclose(mean_bound(0.6, [2.0, 4.0], 0.5), [1.3, 2.65])
    np.testing.assert_allclose(error_spread([3.0, 0.0], 2.0, 0.4), [1.5 / 0.8, 0.0])
    np.testing.assert_allclose(error_spread(3.0, 2.0, 0.4, 0.5), 1.5 * np.sqrt(1.3 / 0.7) / 0.8)
    np.testing.assert_allclose(error_spread(1.0, 1.0, 1.6, 1.0), 1 / 1.6)
    for step in (1e-9, 1e-17):  # 1 - (1 - step)^2 would cancel
        np.testing.assert_allclose(error_spread(0.3, 1.0, step, 1.0), 0.3 / step, rtol=1e-14)
        fresh = 0.3 / np.sqrt(2 * step)
        np.testing.assert_allclose(error_spread(0.3, 1.0, step), fresh, rtol=1e-8)
    assert last_iterate_bound(1.0, np.zeros((0, 2)), 1.0, 1.0).shape == (1, 2)
