"""Stability at matched effective step, from samples and from gradient steps; where it is not."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import sweep
from lab.specs import objective_of
from lab.streams import frequencies
from tests.toy_games.interrupted import interrupt
from theory import laws, objectives, self_play, theory_card
from theory.errors import InvalidInput
from theory.rounds.history import history_threshold
from theory.rounds.predictions import spif_reach
from toy_games import launch
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.trainable import beta_at, notes
from toy_games.experiments.stability import Settings, along, cells, steepest
from toy_games.predictions.fixed_data import fixed_data_floor
from toy_games.predictions.stability import (
    breaking_distance,
    inner_factor,
    noise_floor,
    slowest_rate,
    tail_mass,
)

LINKS = ("spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential", "nwj", "gail")


def game(seeds, outcomes, spread=0.7, first=100):
    """Experts and directions of seeds that no figure uses."""
    rng = np.random.default_rng(first)
    return laws.random_law(rng, (seeds, outcomes), spread), rng.standard_normal((seeds, outcomes))


def play(name, step, rounds, p, start, record=None, **given):
    """Rounds of one objective, a row a law, all at one effective step."""
    obj = objective_of(name)
    rows = pd.DataFrame({"seed": np.arange(len(p)) + 50})
    rows["beta"] = beta_at(obj, np.full(len(p), step))
    for column in ("label_noise",):
        if column in given:
            rows[column] = given.pop(column)
    run = SampledRounds(obj, rows, p, start, **given)
    return simulator.run(run, [rounds] if record is None else record, progress=False)


def mean_and_error(table, value="kl"):
    """Mean over seeds of the mean over rounds, and its standard error."""
    each = table.groupby("seed")[value].mean()
    return each.mean(), each.std() / np.sqrt(len(each))


# -- the engine -----------------------------------------------------------------------------------


@settings(max_examples=5)
@given(st.sampled_from(LINKS), st.integers(0, 10**6), st.floats(0.2, 1.2), st.booleans())
def test_rounds_without_samples_are_the_exact_rounds(name, seed, step, hole):
    rng = np.random.default_rng(seed)
    p, q = laws.random_law(rng, (2, 6), 1.0), laws.random_law(rng, (2, 6), 1.0)
    if hole:
        p[:, -1] = 0.0
        p /= p.sum(-1, keepdims=True)
    table = play(name, step, 6, p, np.log(q), record=range(7))
    obj = objectives.get(name)
    path = self_play(p, q, obj, float(beta_at(obj, step)), rounds=6, progress=False)
    found = table.pivot(index="step", columns="seed", values="kl").to_numpy()
    np.testing.assert_allclose(found, path.details["kl"], atol=1e-10, rtol=1e-9)
    outside = table.pivot(index="step", columns="seed", values="outside").to_numpy()
    predicted = np.where(p > 0, 0.0, path.policies).sum(-1)
    np.testing.assert_allclose(outside, predicted, atol=1e-12, rtol=0)


def test_counts_are_samples_by_inversion_alone_or_in_a_batch():
    p, _ = game(3, 5)
    p[:, 2] = 0.0
    p /= p.sum(-1, keepdims=True)
    rows = pd.DataFrame({"seed": [4, 9, 4], "beta": 1.0})
    start = np.log(laws.random_law(np.random.default_rng(0), (3, 5), 1.0))
    run = SampledRounds(objectives.get("spif"), rows, p, start, samples=40)
    law = torch.from_numpy(p)
    counts = run.counts("expert", law, 7)
    numbers = run.streams.uniform("expert", 7, (40,))[[0, 1, 0]]
    np.testing.assert_allclose(counts.numpy(), 40 * frequencies(law, numbers).numpy(), atol=1e-12)
    assert (counts[:, 2] == 0).all()
    alone = SampledRounds(objectives.get("spif"), rows[2:], p[2:], start[2:], samples=40)
    assert torch.equal(alone.counts("expert", law[2:], 7), counts[2:])


def test_frequencies_are_the_laws():
    p, _ = game(1, 6)
    run = SampledRounds(None, pd.DataFrame({"seed": [1], "beta": 1.0}), p, np.log(p), samples=500)
    total = sum(run.counts("own", torch.from_numpy(p), t) for t in range(100))
    error = np.sqrt(p * (1 - p) / 50_000)
    assert (np.abs(total.numpy() / 50_000 - p) < 4.5 * error).all()


@settings(max_examples=10)
@given(st.integers(2, 30), st.floats(0.01, 200.0), st.integers(0, 10**6))
def test_starts_have_the_reach_that_was_asked_for(outcomes, reach, seed):
    p, v = game(2, outcomes, first=seed)
    start = far_start(p, v, np.array([reach, 2.0 * reach]))
    np.testing.assert_allclose(np.exp(start).sum(-1), 1.0)
    np.testing.assert_allclose((np.log(p) - start).max(-1), [reach, 2.0 * reach], rtol=1e-5)


# -- below effective step 2: all alike ------------------------------------------------------------


@pytest.mark.claim("T6.noise_floor", "C5.same_below_two", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo", "nwj", "gail", "iq_learn"])
@pytest.mark.parametrize("step", [0.4, 1.3])
def test_the_noise_floor_is_a_function_of_the_effective_step_alone(claim, name, step):
    n, outcomes = 1000, 6
    p, _ = game(8, outcomes, 0.3)
    table = play(name, step, 0, p, np.log(p), record=range(60, 300, 4), samples=n)
    mean, error = mean_and_error(table)
    predicted = float(noise_floor(step, outcomes, n))
    # The next order of the expansion in the counts' errors, twice amplified by 1/(2 - s).
    second = 4.0 / (n * p.min() * (2.0 - step) ** 2)
    what = f"stationary KL, {name}: 4 standard errors and the next order in 1/n"
    claim.close(mean, predicted, 4.0 * error, rtol=second, what=what, because="sampling")


def floors_on_one_data_set(name, step, per_expert, samples=1500, first=12):
    """KL of rounds on one data set a seed (mean over late rounds), and of SFT on it, (seeds,)."""
    p = np.broadcast_to(game(1, 5, 0.3)[0], (70, 5)).copy()
    asked = {"samples": samples, "fixed_data": True}
    late = range(first, first + 36)
    own = play(name, step, 0, p, np.log(p), record=late, per_expert=per_expert, **asked)
    rows = pd.DataFrame({"seed": np.arange(70) + 50, "beta": 1.0})
    sft = simulator.run(SampledRounds(None, rows, p, np.log(p), **asked), [1], progress=False)
    return own.groupby("seed").kl.mean().to_numpy(), sft.sort_values("seed").kl.to_numpy()


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "step", "per_expert"),
    [("spif", 1.0, 1), ("spin", 0.5, 1), ("ipo", 1.4, 1), ("spin", 1.0, 2)],
)
def test_on_one_data_set_the_floor_is_never_below_sfts(claim, name, step, per_expert):
    """SFT's error stays, and own samples add s/((2-s)K) of it: 2/(2-s) times SFT's KL at K = 1."""
    n = 1500
    rounds, sft = floors_on_one_data_set(name, step, per_expert)
    predicted = float(fixed_data_floor(step, 5, n, per_expert))
    ours = predicted - 4 / (2 * n)
    excess = rounds - sft
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    what = f"KL above SFT's on the same data, {name}: 4 standard errors and the next order"
    claim.close(excess.mean(), ours, 4.0 * error, rtol=0.03, what=what, because="sampling")
    what = "KL above SFT's, less 4 standard errors, over the predicted"
    claim.exhibits((excess.mean() - 4.0 * error) / ours, 0.6, what=what)
    error = sft.std(ddof=1) / np.sqrt(len(sft))
    what = "SFT's KL: (N-1)/2n, 4 standard errors"
    claim.close(sft.mean(), 4 / (2 * n), 4.0 * error, what=what, because="sampling")


@pytest.mark.claim("T6.noise_floor", regime="dynamics", drops="fresh_samples")
def test_the_floor_of_small_steps_does_not_vanish_on_one_data_set(claim):
    rounds, _ = floors_on_one_data_set("spif", 0.1, 1)
    claim.exhibits(rounds.mean() / noise_floor(0.1, 5, 1500), 7.0, what="KL over s/(2-s) (N-1)/n")


@pytest.mark.claim("T6.history", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "spif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.4, 0.75, 1.0])
def test_history_in_the_opponent_moves_the_threshold(claim, name, share):
    """Exact rounds with opponent (1-m) pi_t + m pi_{t-1}: stable iff s < min(1/m, 2/(1-2m))."""
    border = min(1.0 / max(share, 1e-9), 2.0 / (1.0 - 2.0 * share) if share < 0.5 else np.inf)
    claim.close(history_threshold(share), border, 1e-12, what="threshold of the effective step")
    obj, rng = objectives.get(name), np.random.default_rng(6)
    p = laws.random_law(rng, (6,), 0.7)
    for step in (0.97 * border, 1.03 * border):
        path = [law / law.sum() for law in p * np.exp(1e-7 * rng.standard_normal((2, 6)))]
        while len(path) < 300 and np.abs(path[-1] / p - 1.0).max() < 1e-3:
            mixed = (1.0 - share) * path[-1] + share * path[-2]
            reward = np.asarray(obj.link(np.log(p / mixed)))
            law = path[-1] * np.exp(reward / float(beta_at(obj, step)))
            path.append(law / law.sum())
        x = np.array(path) / p - 1.0  # of mean 0 under p
        linear = (1.0 - step * (1.0 - share)) * x[1:-1] - step * share * x[:-2]
        small = np.abs(x[:-2]).max(-1) < 1e-6
        claim.close((x[2:] - linear)[small], 0.0, 1e-11, what="a round less the linear recursion")
        roots = np.roots([1.0, -(1.0 - step * (1.0 - share)), step * share])
        claim.exhibits((np.abs(roots).max() - 1.0) * np.sign(step - border), 0.01, what="root - 1")
        grown = np.abs(x[-10:]).max() / np.abs(x[5:15]).max()
        assert (grown > 1.0) == (step > border), (step, grown)


@pytest.mark.claim("C5.same_below_two", regime="dynamics", drops="matched_effective_step")
def test_unmatched_steps_make_stability_only_a_smaller_step(claim):
    """At equal beta SPIF (c = 1) seems twice as stable as SPIN; at twice the beta SPIN is too."""
    p, v = game(6, 9)
    start = far_start(p, v, np.full(6, 1.0))
    beta = 0.4  # SPIN's effective step 2.5, SPIF's 1.25
    asked = {"samples": 500, "record": range(80, 200, 4)}
    spin, spif, scaled = (
        mean_and_error(play(name, slope / b, 0, p, start, **asked))[0]
        for name, slope, b in (("spin", 1.0, beta), ("spif", 0.5, beta), ("spin", 1.0, 2 * beta))
    )
    claim.exhibits(spin / spif, 30.0, what="late KL of SPIN over SPIF's at equal beta")
    what = "late KL of SPIN at twice that beta over SPIF's"
    claim.below(scaled / spif, 1.3, what=what, because="chosen")


def test_unbounded_linear_links_are_one_algorithm():
    p, v = game(4, 8)
    start = far_start(p, v, np.full(4, 12.0))
    found = [
        play(n, 0.7, 0, p, start, record=range(30), samples=200).kl
        for n in ("spin", "exponential", "nwj")
    ]
    for kl in found[1:]:
        np.testing.assert_allclose(kl, found[0], atol=1e-9, rtol=1e-9)


# -- beyond 2 -------------------------------------------------------------------------------------


@pytest.mark.claim("T8.bounded_failure", "T7.diverges", regime="dynamics")
@settings(max_examples=4)
@given(st.floats(2.6, 20.0), st.integers(0, 10**6))
def test_beyond_two_spif_cycles_in_bounds_and_exact_spin_diverges(claim, step, seed):
    p, v = game(3, 7, first=seed)
    start = far_start(p, v, np.full(3, 1.5))
    late = range(300, 361)
    every = int(np.ceil(50 / p.min()))  # expert samples that show every response each round
    for n, bound in ((None, max(spif_reach(2.0 * step))), (every, 4.0 * step)):
        spif = play("spif", step, 0, p, start, record=late, samples=n)
        what = "exact: B*" if n is None else "sampled: 2 eta"
        claim.below(spif.max_logratio, bound, what=f"max |u| of SPIF, {what}")
    spin = play("spin", step, 0, p, start, record=late)
    claim.exhibits(spin.max_logratio, 1e5, what="max |u| of SPIN, exact rounds, nats")


@pytest.mark.claim("T7.diverges", regime="dynamics", drops="exact_laws")
@pytest.mark.parametrize("step", [2.5, 9.0])
def test_smoothed_samples_bound_spin_too(claim, step):
    """A round moves log pi by at most 2 s log(2n+1); where the expert's samples show every
    response each round, that bounds max |u| as 2 eta bounds SPIF's."""
    p, v = game(5, 11, 0.3)
    start = far_start(p, v, np.full(5, 2.0))
    for n in (1000, 2000):
        assert n * p.min() > 50
        table = play("spin", step, 0, p, start, record=range(150, 221), samples=n)
        bound = 2.0 * step * np.log(2 * n + 1)
        claim.below(table.max_logratio, bound, what="max |u| of sampled SPIN: 2 s log(2n+1)")
    rare, v = game(5, 11, 1.0)
    table = play("spin", step, 0, rare, far_start(rare, v, np.full(5, 2.0)), range(221), samples=60)
    moves = table.pivot(index="step", columns="seed", values="max_logratio").diff().iloc[1:].abs()
    claim.below(moves, 2.0 * step * np.log(121), what="move of max |u| a round, rare responses")


def test_a_rare_response_that_samples_miss_leaves_the_bound_of_spif():
    """Mass .0084, 3.4 samples a round in the mean: |u| is beyond 2 eta, and within it if shown."""
    p, v = game(3, 7, first=3335)
    start, step, late = far_start(p, v, np.full(3, 1.5)), 12.0, range(300, 361)
    rare = play("spif", step, 0, p, start, record=late, samples=400).max_logratio.max()
    shown = play("spif", step, 0, p, start, record=late, samples=6000).max_logratio.max()
    assert rare > 1.05 * 4.0 * step
    assert shown < 0.85 * 4.0 * step


@pytest.mark.claim("C5.unseen_responses", regime="dynamics")
@pytest.mark.parametrize("name", ["spif", "centred_spif", "ipo"])
def test_bounded_rewards_survive_unseen_responses(claim, name):
    """Without smoothing, at an effective step where exact rounds of all objectives converge."""
    p, _ = game(6, 12)
    step = 0.6
    asked = {"record": range(60, 201, 5), "samples": 15, "smoothing": 0.0}
    table = play(name, step, 0, p, np.log(p), **asked)
    bound = 4.0 * step + 2.0 * np.log(15.0)
    claim.below(table.max_logratio, bound, what="max |u|, bounded", because="chosen")
    kl = mean_and_error(table)[0]
    claim.below(kl, 1.0, what="KL in nats, bounded reward", because="chosen")
    for other in ("spin", "exponential", "gail", "iq_learn"):
        lost = play(other, step, 0, p, np.log(p), **asked)
        claim.exhibits(mean_and_error(lost)[0], 1e3, what="KL in nats, unbounded reward")


@pytest.mark.claim("T6.descent", regime="tabular", drops="beta_at_least_L")
def test_gail_fails_from_afar_below_two_where_spif_does_not(claim):
    p, v = game(5, 16)
    near, far = (far_start(p, v, np.full(5, r)) for r in (0.05, 30.0))
    claim.below(play("gail", 1.6, 400, p, near).kl, 1e-9, what="KL of GAIL from near")
    claim.exhibits(play("gail", 1.6, 400, p, far).kl, 1e3, what="KL of GAIL from far")
    claim.below(play("spif", 1.6, 400, p, far).kl, 1e-9, what="KL of SPIF from far")


# -- the price, wrong labels, wrong support -------------------------------------------------------


@pytest.mark.claim("T8.burn_in", regime="tabular")
@settings(max_examples=5)
@given(st.floats(20.0, 150.0), st.floats(0.3, 0.79), st.integers(0, 10**6))
def test_spifs_burn_in_is_linear_in_the_reach(claim, reach, step, seed):
    p, v = game(4, 14, first=seed)
    start = far_start(p, v, np.full(4, reach))
    rounds = int(reach / step) + 5
    spif = play("spif", step, rounds, p, start).burn_in_u
    claim.below(spif, reach / (2 * step) + 1.0, what="rounds against beta c max u_0")
    claim.below((reach - 1.0) / (4 * step), spif.min(), what="half of it, to 1 nat, against rounds")
    spin = play("spin", step, rounds, p, start).burn_in_u
    # u contracts by 1 - s up to a constant, and max u is at most the range of u.
    log = np.log(2.0 * reach * np.ptp(v, axis=-1) / np.abs(v).max(-1)) / -np.log(1 - step)
    claim.below(spin, 2.0 * log + 2.0, what="rounds of exact SPIN: O(log)", because="chosen")


@pytest.mark.claim("T7.path", regime="dynamics", drops="exact_laws")
def test_from_samples_spins_burn_in_is_linear_too(claim):
    p, v = game(6, 16)
    step, n = 0.5, 300
    reaches = np.array([40.0, 80.0, 160.0])
    means = []
    for reach in reaches:
        start = far_start(p, v, np.full(6, reach))
        found = play("spin", step, 200, p, start, samples=n).burn_in_u
        least = (reach - 1) / (2 * step * np.log(2 * n + 1))  # of moves of at most 2 s log(2n+1)
        claim.exhibits(found, least, what="rounds, sampled SPIN", because="theory")
        rate = float(slowest_rate(objectives.get("spin"), step, n, p.min()))
        what = "rounds against the slowest sampled rate"
        claim.below(found, reach / rate + 10.0, what=what, because="chosen")
        means.append(found.mean())
    exact = play("spin", step, 200, p, far_start(p, v, np.full(6, 160.0))).burn_in_u.mean()
    claim.exhibits(means[-1] / exact, 5.0, what="burn-in of sampled over that of exact SPIN")
    claim.exhibits(
        np.diff(means) / means[:-1], 0.7, what="growth of the burn-in when the reach doubles"
    )


@pytest.mark.claim("C5.uniform_labels", regime="tabular")
@settings(max_examples=4)
@given(st.floats(0.02, 0.6), st.integers(0, 10**6))
def test_uniform_labels_move_the_destination_of_all_alike(claim, share, seed):
    p, _ = game(2, 7, first=seed)
    mixed = (1 - share) * p + share / 7
    for name in (*LINKS, "sft"):
        table = play(name, 0.6, 120, p, np.log(p), label_noise=share)
        claim.close(table.kl, laws.kl(p, mixed), 1e-9, what="KL(p||pi) at the end")


@pytest.mark.claim("C5.own_labels", regime="tabular")
@pytest.mark.parametrize("share", [0.15, 0.5])
def test_own_labels_shrink_the_step_and_leave_the_destination(claim, share):
    p, v = game(4, 8)
    start = np.log(p) + 1e-5 * v
    for name in ("spin", "spif", "ipo", "gail"):
        for step, side in ((1.9, -1), (2.2 / (1 - share), 1), (1.8 / (1 - share), -1)):
            asked = {"noise": "own", "label_noise": share, "record": [0, 3]}
            table = play(name, step, 0, p, start, **asked)
            sizes = table.pivot(index="seed", columns="step", values="max_logratio")
            factor = (sizes[3] / sizes[0]) ** (1 / 3)
            predicted = abs(1 - step * (1 - share))
            what = "factor of the log-ratio a round, to first order in it"
            claim.close(factor, predicted, 1e-3, what=what, because="expansion")
            assert ((factor > 1) == (side > 0)).all()


@pytest.mark.claim("C5.own_labels", "T6.noise_floor", regime="dynamics")
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_own_labels_raise_the_floor_as_predicted(claim, share):
    p, _ = game(8, 6, 0.3)
    asked = {"noise": "own", "label_noise": share, "samples": 1000}
    for name in ("spin", "spif"):
        table = play(name, 0.8, 0, p, np.log(p), record=range(60, 300, 4), **asked)
        mean, error = mean_and_error(table)
        predicted = float(noise_floor(0.8, 6, 1000, share))
        what = f"stationary KL, {name}: 4 standard errors and the next order in 1/n"
        second = 4 / (1000 * p.min())
        claim.close(mean, predicted, 4 * error, rtol=second, what=what, because="sampling")


@pytest.mark.claim("T6.outside_support", regime="tabular")
@pytest.mark.parametrize("name", ["spif", "ipo", "gail"])
def test_mass_outside_the_support_decays_at_the_links_lower_end(claim, name):
    p, _ = game(3, 9)
    p[:, -3:] = 0.0
    p /= p.sum(-1, keepdims=True)
    start = np.log(0.8 * p + 0.2 / 9)
    obj, step = objectives.get(name), 0.6
    table = play(name, step, 0, p, start, record=[40, 41])
    masses = table.pivot(index="seed", columns="step", values="outside")
    gain = (obj.reward_bounds[0] - float(obj.link(0.0, 0.0))) / float(beta_at(obj, step))
    if name == "ipo":  # its bounds are those over all laws; at the expert kappa = m/2
        gain = -2.0 * step
    claim.close(masses[41] / masses[40], np.exp(gain), 1e-6, what="mass after over before a round")


@pytest.mark.claim("T6.tail", regime="dynamics")
def test_from_samples_mass_outside_falls_like_one_over_rounds(claim):
    p, _ = game(10, 9)
    p[:, -3:] = 0.0
    p /= p.sum(-1, keepdims=True)
    n, rounds, step = 1000, 150, 0.5
    for name in ("spif", "spin"):
        table = play(name, step, rounds, p, np.log(0.8 * p + 0.2 / 9), samples=n)
        mean, error = mean_and_error(table, "outside")
        bound = 3.0 * float(tail_mass(objectives.get(name), step, n, rounds))  # three responses
        what = "mean mass of three responses against 1/((1-g) n t) each, 4 standard errors"
        claim.below(mean - 4.0 * error, bound, what=what, because="sampling")
        claim.exhibits(mean / bound, 0.2, what="mean mass over that bound")


# -- gradient steps -------------------------------------------------------------------------------


def local_factors(name, step, steps_per_round, inner, outcomes=6):
    """Factor of a tiny log-ratio in a round along the steepest direction, exact gradients."""
    p, v = game(3, outcomes, 0.8)
    rate, top = steepest(p)
    obj = objective_of(name)
    rows = pd.DataFrame({"seed": range(3), "steps_per_round": steps_per_round})
    rows["beta"], rows["rate"] = beta_at(obj, np.full(3, step)), inner / rate
    run = SelfPlay(
        Softmax(outcomes),
        obj,
        rows,
        p[:, None],
        np.log(p) + 1e-7 * v,
        Data(batch=None),
        {"along": along(top)},
    )
    # A step into a round, the opponent is the policy at the round's start.
    record = [1, 1 + steps_per_round]
    table = simulator.run(run, record, progress=False).pivot(
        index="seed", columns="step", values="along"
    )
    return table[record[1]] / table[record[0]]


@pytest.mark.claim("T6.k_steps", regime="dynamics")
@settings(max_examples=6)
@given(
    st.sampled_from(["spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"]),
    st.floats(0.6, 15.0),
    st.integers(1, 40),
    st.floats(0.02, 0.15),
)
def test_k_steps_a_round_have_one_factor_for_all(claim, name, step, k, inner):
    predicted = np.abs(inner_factor(step, k * inner, inner))
    found = local_factors(name, step, k, inner)
    what = "factor a round, k gradient steps"
    claim.close(found, predicted, 2e-4, rtol=1e-3, what=what, because="chosen")


@settings(max_examples=10)
@given(st.floats(2.05, 50.0), st.floats(0.005, 0.3))
def test_the_breaking_distance_is_where_the_factor_is_minus_one(step, inner):
    at = breaking_distance(step, inner)
    np.testing.assert_allclose(inner_factor(step, at, inner), -1.0, rtol=0, atol=1e-9)
    fine = breaking_distance(step, 1e-7)
    np.testing.assert_allclose(fine, breaking_distance(step), atol=1e-5, rtol=1e-5)
    assert np.isinf(breaking_distance(2.0))
    assert np.isinf(breaking_distance(1.0, 0.1))


@pytest.mark.claim("T6.k_steps", regime="dynamics", drops="matched_slopes")
@pytest.mark.parametrize("beta", [0.1, 0.4])
def test_nwj_never_breaks_because_its_one_step_is_another(claim, beta):
    """Its rounds' effective step is 1/beta, its loss's 1/(beta/e + 1 - 1/e) <= e/(e-1) < 2."""
    own = 1.0 / (beta / np.e + 1.0 - 1.0 / np.e)
    found = local_factors("nwj", 1.0 / beta, 400, 0.1)
    claim.close(found, abs(1.0 - own), 1e-3, what="factor of long rounds, NWJ", because="chosen")
    what = "factor of long rounds that k_steps predicts for matched slopes, beyond NWJ's"
    claim.exhibits(1.0 / beta - 1.0 - found, 0.5, what=what)


@pytest.mark.claim("T6.k_steps", regime="dynamics", drops="curved_loss")
def test_hinge_has_no_best_response_to_converge_to(claim):
    """Its gradient is constant until the margin: the limit of an infinite effective step."""
    for k in (5, 12, 30):
        found = local_factors("spin_hinge", 3.0, k, 0.1)
        what = "factor 1 - k rate lambda, of an infinite step"
        claim.close(found, abs(1.0 - 0.1 * k), 1e-4, what=what, because="chosen")


@pytest.mark.claim("C5.early_stopping", regime="dynamics")
def test_early_stopping_holds_spin_where_spif_gains_nothing(claim):
    """Minibatches at effective step 8: until the breaking distance SPIN and SPIF are alike."""
    asked = Settings(
        studies=("early",),
        objectives=("spin", "spif"),
        outcomes=10,
        spread=0.5,
        early_step=8.0,
        early_distances=(0.5, 1.5, 7.0),
        early_steps=500,
    )
    table = launch.run("stability", asked, progress=False)
    kl = table.groupby(["objective", "distance"]).kl.mean().unstack("distance")
    assert breaking_distance(8.0) > 1.5
    early = kl[[0.5, 1.5]]
    spin = early.loc["spin"].to_numpy()
    what = "KL of SPIF against SPIN's, before the breaking distance"
    claim.close(early.loc["spif"], spin, 0.0, rtol=0.2, what=what, because="chosen")
    claim.below(spin / kl.loc["sft", 0.5], 6.0, what="KL of SPIN over SFT's", because="chosen")
    for name in ("spin", "spif"):
        claim.exhibits(
            kl.loc[name, 7.0] / kl.loc[name, 1.5],
            10.0,
            what="KL beyond the breaking distance over KL before it",
        )


# -- the experiment -------------------------------------------------------------------------------


def test_effective_steps_are_the_cards():
    for name in LINKS:
        obj = objectives.get(name)
        slope = theory_card(obj).slope_at_zero
        np.testing.assert_allclose(beta_at(obj, [0.5, 4.0]), [2 * slope, slope / 4])


def test_objectives_take_part_where_they_can_and_else_it_is_said():
    asked = Settings(studies=("map", "boundary"), objectives=("spin", "gail", "spin_hinge"))
    parts = cells(asked)
    names = [cell.name for cell in parts if "left out" not in cell.name]
    assert names == ["map-spin", "map-gail", "map-sft",
                     "boundary-spin", "boundary-spin_hinge", "boundary-sft"]  # fmt: skip
    said = notes(parts)
    assert [line.partition(":")[0] for line in said] == [
        "map is without spin_hinge",
        "boundary is without gail",
    ]
    table = sweep.run_tables([c for c in parts if "left out" in c.name])
    assert [f"{r.left_out} is without {r.objective}: {r.why}" for r in table.itertuples()] == said


def test_an_interrupted_run_goes_on_to_the_same_table(tmp_path, monkeypatch):
    p, v = game(3, 6)
    rows = pd.DataFrame({"seed": range(3), "beta": 0.7, "label_noise": 0.1})
    start = far_start(p, v, np.full(3, 5.0))

    for name in ("spif", "sft"):
        given = (objective_of(name), rows, p, start, 50)
        whole = simulator.run(SampledRounds(*given), range(0, 21, 4), progress=False)
        file = tmp_path / f"{name}.npz"
        interrupt(SampledRounds(*given), 9, range(0, 21, 4), file, monkeypatch)
        assert file.exists()
        resumed = simulator.run(SampledRounds(*given), range(0, 21, 4), file, progress=False)
        pd.testing.assert_frame_equal(whole, resumed, check_exact=True)


def test_everything_wrong_with_settings_is_said_at_once():
    with pytest.raises(InvalidInput) as caught:
        Settings(
            studies=("map", "mop"),
            objectives=("spin", "sft", "spun"),
            steps=(1.0, 0.0),
            label_noise=(0.0, 1.0),
            batch=12,
            surplus=20,
            surplus_mass=2.0,
        )
    said = str(caught.value)
    for part in ("'mop'", "'sft' always", "spun", "steps=", "label_noise=1.0", "batch=12"):
        assert part in said
    assert "surplus=20" in said
    assert "surplus_mass" in said


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"beta": 0.0}, "beta"),
        ({"seed": -1}, "seed"),
        ({"label_noise": 1.0}, "label_noise"),
        ({"samples": 0, "smoothing": -1.0, "noise": "other"}, "samples=0.*smoothing=-1.*noise"),
        ({"expert": 2.0}, "probabilities"),
        ({"log_start": -np.inf}, "finite values"),
    ],
)
def test_unusable_rounds_are_refused(change, reason):
    p, _ = game(2, 4)
    rows = {"seed": [0, 1], "beta": 1.0, "label_noise": 0.0}
    rows |= {k: v for k, v in change.items() if k in rows}
    laws_ = {"expert": p * change.get("expert", 1.0), "log_start": np.log(p)}
    laws_["log_start"][0, 0] += change.get("log_start", 0.0)
    rest = {k: v for k, v in change.items() if k in ("samples", "smoothing", "noise")}
    with pytest.raises(InvalidInput, match=f"(?s){reason}"):
        SampledRounds(objectives.get("spif"), pd.DataFrame(rows, index=[0, 1]), **laws_, **rest)
    with pytest.raises(InvalidInput):
        SampledRounds(
            objectives.get("spin_hinge"), pd.DataFrame({"seed": [0, 1], "beta": 1.0}), p, np.log(p)
        )


def test_unusable_starts_are_refused():
    p, v = game(2, 4)
    with pytest.raises(InvalidInput) as caught:
        far_start(p, 0.0 * v, np.array([0.0, 1.0]))
    assert "reach" in str(caught.value)
    assert "direction" in str(caught.value)


def test_all_studies_run_small():
    small = dataclasses.replace(
        Settings(),
        objectives=("spif",),
        outcomes=6,
        surplus=2,
        seeds=3,
        steps=(0.5, 4.0),
        reaches=(3.0,),
        samples=(50,),
        few=(20,),
        many=50,
        rounds=20,
        boundary_steps=40,
        early_steps=40,
        early_distances=(0.5,),
        distances=(0.5,),
        break_steps=(3.0,),
    )
    table = launch.run("stability", small, progress=False)
    assert set(table.study) == set(small.studies)
    assert np.isfinite(table[table.study != "boundary"].kl).all()
    assert set(table.objective) == {"spif", "sft"}
