"""T13: rewards of one round that grow with the steps, and those that do not."""

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.stats import fit_line
from tests.toy_games.experiments.finite_samples.descent import OWN, one_round
from theory import objectives
from toy_games.dynamics.flow import Flow
from toy_games.dynamics.measures import ON_SAMPLES
from toy_games.dynamics.self_play import FOREVER, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy
from toy_games.experiments import finite_samples as finite
from toy_games.predictions.finite_samples import bounded_range, logistic_growth


@functools.cache
def flowed(name, last=1e8, outcomes=15, effective_step=1.7):
    given = {"effective_step": effective_step, "rate": 0.3, "outcomes": outcomes}
    return finite.flow(finite.Settings(**OWN, **given, flow_steps=last), name, progress=False)


def late_slopes(table, overlap, column, since=1e6, outcomes=15):
    """Slope against log t and growth rates (N,) of every seed."""
    out = []
    for seed, one in table[(table.overlap == overlap) & (table.time > since)].groupby("seed"):
        p, _, data, own = finite.samples(seed, overlap, outcomes)
        out.append((fit_line(np.log(one.time), one[column]).slope, p, logistic_growth(data, own)))
    return [np.array(part) for part in zip(*out, strict=True)]


@pytest.mark.claim("T13.logistic_grows", regime="dynamics")
@pytest.mark.parametrize("overlap", ["disjoint", "partial"])
def test_spins_rewards_grow_by_the_levels_of_the_samples(claim, overlap):
    table = flowed("spin")
    beta = table.beta[0]
    # relaxation leaves a relative O(1/t) at t > 1e6; the fit inherits ROS2's 1e-3
    slope, p, growth = late_slopes(table, overlap, "reward_range")
    expected = np.ptp(growth, axis=-1)
    claim.close(slope, expected, 2e-3, what="range of rewards per log t", because="solver")
    slope, _, _ = late_slopes(table, overlap, "kl")
    expected = (growth.max(-1) - (p * growth).sum(-1)) / beta
    what = "KL to the expert per log t in one SPIN round"
    claim.close(slope, expected, 3e-3, what=what, because="solver")
    table = table.assign(log_unseen=np.log(table.unseen_mass))
    slope, _, _ = late_slopes(table, overlap, "log_unseen")
    expected = -growth.max(-1) / beta
    claim.close(slope, expected, 3e-3, what="log unseen mass per log t", because="solver")
    if overlap == "disjoint":
        slope, _, _ = late_slopes(table, overlap, "margin")
        claim.close(slope, np.ones(len(slope)), 2e-3, what="margin per log t", because="solver")
    end = table[(table.overlap == overlap) & (table.time > 1e7)]
    size = np.log(end.gradient_norm) + np.log(end.time)
    what = "drift of log(gradient norm times t): it falls like 1/t"
    claim.below(np.ptp(size), 0.01, what=what, because="chosen")


@pytest.mark.claim("T13.logistic_grows", regime="dynamics", drops="separable")
def test_spins_rewards_stop_where_both_sides_saw_the_same_outcomes(claim):
    table = flowed("spin")
    slope, _, _ = late_slopes(table, "same", "reward_range")
    claim.close(slope, np.zeros(len(slope)), 1e-9, what="range of rewards per log t")
    end = table[(table.overlap == "same") & (table.time == table.time.max())]
    ratios = []
    for seed in end.seed:
        _, _, data, own = finite.samples(seed, "same", 15)
        ratios.append(np.ptp(np.log(data[data > 0] / own[data > 0])))
    claim.close(end.reward_range, ratios, 1e-6, what="its limit: the range of log p^/q^")
    claim.below(end.gradient_norm, 1e-10, what="gradient norm")


@pytest.mark.claim("T13.logistic_grows", regime="dynamics")
@settings(max_examples=5)
@given(st.integers(0, 10**6), st.floats(0.4, 2.0))
def test_the_margin_of_a_log_linear_policy_grows_like_log_t(claim, seed, beta):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((40, 12))
    data, own = np.zeros((2, 40))
    data[:4], own[4:8] = 0.25, 0.25
    rows = pd.DataFrame({"seed": [0], "beta": beta, "rate": 0.2})
    p = np.full(40, 1 / 40)
    run = SelfPlay(
        LogLinearPolicy(features), objectives.get("spin"), rows.assign(steps_per_round=FOREVER), p,
        np.zeros(12), finite.EXACT, ON_SAMPLES, given={"data": data, "own": own},
    )  # fmt: skip
    flow = Flow(run, 1e14, 12)
    # where all pairs support the margin their weights still move at O(1/log t)
    table = simulator.run(flow, range(0, flow.steps + 1, 4), progress=False)
    late = table[table.time > 1e10]
    found = fit_line(np.log(late.time), late.margin)
    what = "least margin per log t, 12 features, 8 samples, to O(1/log t)"
    claim.close(found.slope, 1.0, 0.03, what=what, because="expansion")


@pytest.mark.claim("T13.squared_stop", regime="dynamics")
@pytest.mark.parametrize("name", ["ipo", "centred_spif"])
@pytest.mark.parametrize("overlap", list(finite.OVERLAPS))
def test_bounded_links_end_at_their_link_on_the_samples(claim, name, overlap):
    table = flowed(name, last=1e5)
    end = table[(table.overlap == overlap) & (table.time == table.time.max())]
    sides = [finite.samples(seed, overlap, 15)[2:] for seed in end.seed]
    data, own = (np.stack(part) for part in zip(*sides, strict=True))
    expected = bounded_range(objectives.get(name), data, own)
    claim.close(end.reward_range, expected, 1e-8, what="range of rewards at the minimum")
    claim.below(end.gradient_norm, 1e-10, what="gradient norm at t = 1e5")
    bound = np.ptp(np.array(objectives.get(name).reward_bounds)) + 1e-9
    claim.below(end.reward_range, bound, what="range of rewards against the link's bounds")


def ipo_curvature(data, own):
    """Hessian of the mean of (r_i - r_j - m)^2 in the rewards."""
    cross = np.outer(data, own)
    return 2.0 * (np.diag(data + own) - cross - cross.T)


@pytest.mark.claim("T13.squared_stop", regime="dynamics")
@settings(max_examples=5)
@given(st.integers(0, 10**6))
def test_ipos_gradient_falls_geometrically_by_its_slowest_mode(claim, seed):
    p, q, data, own = finite.samples(seed, "disjoint", 12)
    run = one_round("ipo", p, q, data, own, 0.5, 0.5)
    eigenvalues, modes = np.linalg.eigh(ipo_curvature(data, own))
    pull = np.abs(modes.T @ (data - own))
    slow = eigenvalues[(eigenvalues > 1e-9) & (pull > 1e-3)].min()
    factor = 1.0 - float(run.step_size[0]) * 0.5**2 * slow
    first = int(np.ceil(np.log(1e-4) / np.log(factor)))
    found = simulator.run(run, [first, 2 * first], progress=False).gradient_norm
    claim.close(
        np.log(found[1] / found[0]) / first,
        np.log(factor),
        0.0,
        0.02,
        what="log of the gradient's factor a step, IPO",
        because="chosen",
    )


@pytest.mark.claim("C5.bounds_do_not_bound_steps", regime="dynamics")
@settings(max_examples=3)
@given(st.integers(0, 10**6))
def test_bounded_rewards_do_not_bound_the_steps(claim, seed):
    # matched effective step and equal first step: the squared loss has a largest learning rate,
    # and the logistic one, whose gradient is bounded, none
    p, q, data, own = finite.samples(seed, "disjoint", 12)
    limit = 8.0 / np.linalg.eigvalsh(ipo_curvature(data, own)).max()
    ends = {}
    for name, beta in (("ipo", 0.5), ("spin", 1.0)):
        for share in (0.9, 1.1):
            run = one_round(name, p, q, data, own, beta, share * limit)
            table = simulator.run(run, [300, 600], progress=False)
            ends[name, share] = table.reward_range.to_numpy()
    claim.close(ends["ipo", 0.9][1], 1.0, 1e-6, what="IPO's range below the limit")
    claim.exhibits(
        ends["ipo", 1.1][1] / ends["ipo", 1.1][0],
        1e6,
        what="factor of IPO's range in 300 steps above it",
    )
    what = "SPIN's range at the rate where IPO blows up"
    claim.below(ends["spin", 1.1][1], 30.0, what=what, because="chosen")


@pytest.mark.claim("T13.pointwise_room", "T4.unbounded_rewards", regime="dynamics")
def test_pointwise_spifs_unseen_logits_grow_like_log_t(claim):
    # eta = 4; the rarest unseen outcomes of these seeds join the fall only after t = 1e7
    table = flowed("spif", last=1e10, effective_step=2.0)
    slope, _, _ = late_slopes(table, "disjoint", "logit_range", since=1e8)
    claim.close(slope, np.ones(len(slope)), 3e-3, what="logit range per log t", because="solver")
