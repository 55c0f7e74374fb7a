"""Rounds near the expert, or near what a class has of it, by hand: factors, floors, thresholds."""

from math import exp, log, sqrt

import numpy as np
import pytest
from scipy.special import gamma

from tests.toy_games.predictions.by_hand.examples import SPIF, SPIN, close
from theory import objectives
from theory.errors import InvalidInput
from toy_games.predictions import fixed_data, misspecification, stability


def test_factors_distances_and_floors_of_rounds():
    close(stability.inner_factor(0.5, 0.3, 0.1), 1 - 0.5 * (1 - 0.8**3))
    close(stability.inner_factor(0.5, 3.0, 1.0), 1 - 0.5 * (1 - (-1.0) ** 3))
    close(stability.breaking_distance([4.0, 1.5], 0.1), [0.1 * log(0.5) / log(0.975), np.inf])
    close(stability.breaking_distance([4.0, 2.5]), [4 * log(2.0), 2.5 * log(5.0)])
    close(stability.inner_factor(4.0, 0.1 * log(0.5) / log(0.975), 0.1), -1.0)
    close(stability.noise_floor(0.5, 3, 100), 2 / 100 * 0.5 / 1.5)
    close(stability.noise_floor(0.5, 3, 100, own=0.5), 2 / 100 * 0.25 / (0.25 * 1.75))
    close(fixed_data.fixed_data_floor([1.0, 0.5], 3, 100), 2 / 200 * np.array([2.0, 4 / 3]))
    close(fixed_data.fixed_data_floor(1.6, 3, 100, 4), 2 / 200 * 2.0)


def test_one_data_set_by_hand():
    """n = 100, two or one directions; half or minus half of the start left after a round."""
    close(fixed_data.own_counts(1.5, [0.0, -1.0, 0.5], 4), [0.5, 0.0, 0.75])
    close(fixed_data.kl_after(1, [0.5, 0.5], 100, start=[0.04, 0.04]), 0.02 + 0.01 * 0.5)
    close(fixed_data.kl_after(1, [1.5], 100, 3, start=0.08), 0.02 + 0.005 * (2.25 + 0.75))
    close(fixed_data.kl_after(np.inf, [1.5, 1.0], 100), 0.005 * (4.0 + 2.0))
    close(fixed_data.kl_after(0, [0.5], 100, start=0.08, learned=0.5), 0.02 + 0.005 * 0.25)
    stop = fixed_data.best_stop(0.5, 3, 100, 1, start=0.08)  # F = .01, v = 1/3
    close(stop, [0.01 / (0.08 + 0.02 / 3), 0.04 / 3 - 1e-4 / (0.08 + 0.02 / 3),
                 np.log(0.01 / (0.08 + 0.02 / 3)) / np.log(0.5)])  # fmt: skip
    close(fixed_data.best_stop(0.5, 3, 100, 1, start=0.003).kl, 0.003)  # below F v: the start
    close(fixed_data.smoothed_excess(1.0, [30, 10], 10.0), (0.25 * 0.6 + 0.75 / 3) / 80)
    close(fixed_data.unseen_fall(SPIN, 0.5, 2, 0.5), 0.5 * log(2.0))
    close(fixed_data.unseen_fall(SPIF, 0.5, 1, 0.0), 1.0)
    mass, log_mass = fixed_data.unseen_mass(50.0, 10, 4)  # one sample ends it: q below 1/40
    close(mass, 1.0 / 2000)
    close(log_mass, -log(40.0) - np.euler_gamma - 25.0)
    close(fixed_data.unseen_mass(1e-9, 10, 4)[1], log(1e9 / 40.0) - 0.25e-9)  # short falls
    turns = 0.5j * np.pi * np.arange(1, 9)  # L = 4, and m t q_0 = 6
    swing = 2.0 * (gamma(1 + turns) * 6.0**-turns).real.sum()
    close(fixed_data.unseen_mass(4.0, 10, 6, start=0.1)[0], (1.0 + swing) / 240.0, 1e-5)
    swing = 2.0 * (gamma(1 + 2j * np.pi / 0.9) * 6.0 ** (-2j * np.pi / 0.9)).real  # L = .9: 1e-4
    close(54.0 * fixed_data.unseen_mass(0.9, 10, 6, start=0.1)[0], 1.0 + swing, 1e-7)
    close(fixed_data.inner_steps(2.0, 0.5, [0.4, 1.0], 2), [2 * (1 - 0.81), 2 * (1 - 0.5625)])
    close(fixed_data.inner_cosine([1.0, 0.5], [1.0, 1.0], [1.0, 1.0]), 3.0 / sqrt(10.0))
    close(fixed_data.inner_angle(2.0, 0.5, np.array([0.2, 0.6]), [1.0, 1.0], 5), 0.5 * 0.2)
    close(fixed_data.least_cosine(2.0, 0.5, np.array([0.4, 1.0]), 1), 1.0)


WRONG = {
    "noise_floor": (lambda: stability.noise_floor(2.0, 3, 100), "step=2.0; needed is step"),
    "step 2 and more": (lambda: fixed_data.fixed_data_floor(2.5, 3, 100), "step=2.5; needed"),
    "samples": (lambda: fixed_data.fixed_data_floor(1.0, 3, 0), "samples=0; needed"),
    "outcomes": (lambda: fixed_data.fixed_data_floor(1.0, 2.5, 10), "outcomes=2.5; needed"),
    "own_noise": (lambda: fixed_data.own_noise(3.0), "step=3.0; needed"),
    "own_noise, K": (lambda: fixed_data.own_noise(1.0, 0), "per_expert=0; needed"),
    "own_counts": (lambda: fixed_data.own_counts(2.0), "step=2.0; needed"),
    "kl_after": (lambda: fixed_data.kl_after(-1, [0.5], 100), "rounds=-1; needed"),
    "kl_after, learned": (lambda: fixed_data.kl_after(1, [0.5], 9, learned=2), "learned=2; needed"),
    "best_stop": (lambda: fixed_data.best_stop(1.0, 3, 9, learned=1.0), "learned=1.0; needed"),
    "smoothing": (lambda: fixed_data.smoothed_steps(1.0, [0, 1], 0.0), "counts: 0 without"),
    "excess": (lambda: fixed_data.smoothed_excess(1.0, [1], -1.0), "smoothing=-1.0; needed"),
    "unseen_fall": (lambda: fixed_data.unseen_fall(SPIF, 0.0), "step=0.0; needed"),
    "infinite fall": (lambda: fixed_data.unseen_mass(np.inf, 10, 10), "fall=inf; needed"),
    "steps of a round": (lambda: fixed_data.inner_steps(1.0, 0.1, [0.0, 1.0], 2), "eigenvalues="),
    "no steps": (lambda: fixed_data.inner_steps(0.0, 0.1, [1.0], 2), "step=0.0; needed"),
    "fewer than none": (lambda: fixed_data.inner_steps(1.0, 0.1, [1.0], -1), "steps=-1; needed"),
    "a part of one beyond": (lambda: fixed_data.inner_steps(1.0, 2.0, [1.0], 0.5), "whole numbers"),
    "cosine": (lambda: fixed_data.inner_cosine([1.0], [np.nan], [1.0]), "gradient="),
    "angle": (lambda: fixed_data.inner_angle(1.0, 0.1, [1.0], [1.0], 0), "steps=0; needed"),
    "cosine beyond": (lambda: fixed_data.least_cosine(1.0, 1.0, [1.0], 2), "rate lambda < step"),
    "no start": (lambda: fixed_data.unseen_mass(1.0, 10, 10, start=0.0), "start=0.0; needed"),
    "no fall": (lambda: fixed_data.unseen_mass(0.0, 10, 10), "fall=0.0; needed"),
    "mass, shapes": (
        lambda: fixed_data.unseen_mass(2.0, [1, 2, 3], [10, 20]),
        r"^own \(3,\), rounds \(2,\): shapes do not fit",
    ),
    "mass, starts": (
        lambda: fixed_data.unseen_mass(2.0, 3, [10, 20], start=(0.2, 0.3, 0.5)),
        r"^rounds \(2,\), start \(3,\): shapes do not fit",
    ),
    "fall of none": (lambda: fixed_data.unseen_fall(None, 1.0), "^obj=None; needed is an object"),
    "rate of none": (lambda: stability.slowest_rate(None, 1.0, 9, 0.1), "^obj=None; needed"),
    "tail of none": (lambda: stability.tail_mass(None, 1.0, 9, 9), "^obj=None; needed"),
    "own_noise, shapes": (
        lambda: fixed_data.own_noise([1, 1.5], [1, 2, 3]),
        r"^step \(2,\), per_e",
    ),
    "own_noise, shares": (
        lambda: fixed_data.own_noise([1, 1.5], 1, [0.1] * 3),
        r"history \(3,\): s",
    ),
    "floor, shapes": (
        lambda: fixed_data.fixed_data_floor([0.5, 1], 3, [100, 200, 300]),
        r"^step \(2,\), samples \(3,\): shapes do not fit; needed are numbers, or arrays that br",
    ),
    "own_counts, shapes": (
        lambda: fixed_data.own_counts([1, 1.5], [0] * 3),
        r"bend \(3,\): shapes",
    ),
    "kl_after, shapes": (
        lambda: fixed_data.kl_after([1, 2], [0.5, 1.0], [1, 2, 3]),
        r"^rounds \(\.\.\., 1\) \(2, 1\), steps \(2,\), samples \(3,\): shapes do not fit",
    ),
    "kl_after, step": (lambda: fixed_data.kl_after(1, 2.5, 9), r"^steps=2.5; needed is effective"),
    "kl_after, steps": (lambda: fixed_data.kl_after(1, "x", 9), r"^steps='x'; needed is effective"),
    "best_stop, shapes": (lambda: fixed_data.best_stop([1, 0.5], 3, [9, 8, 7]), "shapes do not"),
    "best_stop, step": (lambda: fixed_data.best_stop("x", 3, 9), "^step='x'; needed"),
    "smoothed, text": (
        lambda: fixed_data.smoothed_steps("x", [1], 1.0),
        "^step='x'; needed is a f",
    ),
    "smoothed, < 0": (lambda: fixed_data.smoothed_steps(-1.0, [1], 1.0), "^step=-1.0; needed is a"),
    "smoothed, shapes": (
        lambda: fixed_data.smoothed_steps([1, 1], [1] * 3, 1),
        "shapes do not fit",
    ),
    "excess of none": (lambda: fixed_data.smoothed_excess(1.0, [0, 0], 1.0), "^counts: 0 in all"),
    "falls": (
        lambda: fixed_data.unseen_fall(SPIF, [0.5, 1.0]),
        r"^step=\[0.5, 1.0\]; needed is a f",
    ),
    "inner_steps, shapes": (
        lambda: fixed_data.inner_steps(2.0, 0.5, [1, 0.5], [1, 2, 3]),
        r"^eigenvalues \(2,\), steps \(3,\): shapes do not fit",
    ),
    "inner_cosine, shapes": (
        lambda: fixed_data.inner_cosine([1, 0.5], [1, 1, 1], [1, 1]),
        r"^eigenvalues \(2,\), gradient \(3,\), moved \(2,\): shapes do not fit",
    ),
    "cosine of nothing": (lambda: fixed_data.inner_cosine([1.0], [1.0], [0.0]), "^moved: 0 in all"),
    "cosine of none": (
        lambda: fixed_data.inner_cosine([1, 0.5], [[1, 0], [0, 0]], [1, 1]),
        "^gradient: 0 in all directions; needed is one that is not$",
    ),
    "angle of none": (
        lambda: fixed_data.inner_angle(1.0, 0.1, [1.0, 0.5], [0.0, 0.0], 2),
        "^gradient: 0 in all directions",
    ),
    "angle, shapes": (
        lambda: fixed_data.inner_angle([1.0, 2.0], 0.1, [1.0, 0.5], [1.0, 1.0], [1, 2, 3]),
        r"^step \(2,\), steps \(3,\): shapes do not fit",
    ),
    "least, shapes": (
        lambda: fixed_data.least_cosine(2.0, 0.5, [1, 0.5], [1, 2, 3]),
        r"^eigenvalues \(2,\), steps \(3,\): shapes do not fit",
    ),
    "breaks nowhere": (lambda: stability.breaking_distance(-1.0), "^step=-1.0; needed is a finite"),
    "breaks at once": (lambda: stability.breaking_distance(4.0, 4.0), "^inner=4.0; needed is less"),
    "breaks, inner": (lambda: stability.breaking_distance(4.0, -0.1), "^inner=-0.1; needed"),
    "factor, step": (lambda: stability.inner_factor(0.0, 1.0, 0.1), "^step=0.0; needed"),
    "factor, inner": (lambda: stability.inner_factor(1.0, 1.0, 0.0), "^inner=0.0; needed"),
    "factor, a part": (lambda: stability.inner_factor(1.0, 3.0, 2.0), "whole distance/inner"),
    "noise_floor, shapes": (lambda: stability.noise_floor([1, 1], 3, [9] * 3), "shapes do not fit"),
    "rate": (lambda: stability.slowest_rate(SPIF, -1.0, 9, 0.1), "^step=-1.0; needed"),
    "tail": (lambda: stability.tail_mass(SPIF, 0.5, 9, 0), "^rounds=0; needed"),
}


@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG)
def test_what_one_data_set_refuses(call, said):
    with pytest.raises(InvalidInput, match=said):
        call()


def test_the_floor_on_one_data_set_is_that_of_its_recursion():
    for step, per_expert in ((0.1, 1), (0.9, 3), (1.7, 1)):
        around = 0.0  # variance of the log-ratio to the data's own law, in units of (N-1)/n
        for _ in range(500):
            around = (1 - step) ** 2 * around + step**2 / per_expert
        found = fixed_data.fixed_data_floor(step, 11, 50, per_expert)
        close(found, 0.5 * 10 / 50 * (around + 1.0))


def test_rare_responses_rise_and_fall_at_the_rewards_of_one_sample():
    """IPO's link tanh(u/2)/(1 + Delta/2): Delta is 2 at worst for a rise, 0 for a fall."""
    ipo, step, samples = objectives.get("ipo"), 0.5, 40
    beta = 0.5 / step  # the slope at 0 over the effective step
    shown = (samples * 0.01 + 0.5) / 0.5
    rise = (shown - 1) / (shown + 1) / 2 / beta
    close(stability.slowest_rate(ipo, step, samples, 0.01), rise)
    kept = exp((1 / 3 - 1) / (1 / 3 + 1) / beta)
    close(
        stability.tail_mass(ipo, step, samples, [1, 8]), 1 / (1 - kept) / samples / np.array([1, 8])
    )
    kept = exp((0.2 - 1) / (0.2 + 1) / beta)
    close(stability.tail_mass(ipo, step, samples, 2, 0.25), 1 / (1 - kept) / samples / 2)


def test_the_bound_of_a_class():
    close(misspecification.finite_class_bound(10, 0.1, 50), 2 * log(100.0) / 50)


def test_spins_threshold_and_its_rounds_of_steps():
    s_p, s_q = np.eye(2), np.diag([1.0, 3.0])
    close(misspecification.spin_threshold(s_p, s_q), 0.75)
    close(misspecification.spin_round(s_p, s_q, 2.0, 0.1, 1), np.diag([0.9, 0.7]))
    close(misspecification.spin_round(s_p, s_q, 2.0, 0.1, 2), np.diag([0.82, 0.52]))
    close(misspecification.spin_round(s_p, s_q, 4.0, 0.1, 1), np.diag([0.9, 0.7]))
    close(misspecification.spin_round(s_p, s_q, 4.0, 0.1, 10**4), np.diag([0.75, 0.625]))
