"""The price of bounded rewards: burn-in; wrong labels and wrong support."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.experiments.stability.played import LINKS, game, mean_and_error, play
from theory import laws, objectives
from toy_games.dynamics.sampled_rounds import far_start
from toy_games.engine.trainable import beta_at
from toy_games.predictions.stability import noise_floor, slowest_rate, tail_mass


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
