"""Finite samples (T13, T16): held-out seeds and sizes against the predictions."""

import functools

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from lab.stats import fit_line
from theory import laws, objectives
from theory.errors import InvalidInput
from toy_games import launch
from toy_games.dynamics.flow import Flow
from toy_games.dynamics.measures import ON_SAMPLES
from toy_games.dynamics.self_play import FOREVER, Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.experiments import finite_samples as finite
from toy_games.predictions.finite_samples import (
    bounded_range,
    demanded_mass,
    logistic_growth,
    pair_margin,
    squared_limit,
)

SEEDS = range(500, 508)
OWN = {"first_seed": SEEDS[0], "seeds": len(SEEDS)}


def one_round(name, p, q, data, own, beta, rate):
    """A round on one prompt's samples; numbers or arrays of rows."""
    rows = pd.DataFrame({"seed": 0, "beta": np.atleast_1d(beta), "rate": rate})
    q, data, own = (np.asarray(law)[None, None] for law in (q, data, own))
    return finite.on_both(objectives.get(name), rows, p, q, data, own)


def last_of(run, time, per_decade=25):
    """The flow's table at its end."""
    flow = Flow(run, time, per_decade)
    return simulator.run(flow, [flow.steps], progress=False)


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


# -- the flow -------------------------------------------------------------------------------------


@pytest.mark.claim("T13.logistic_grows", regime="dynamics")
@settings(max_examples=5)
@given(st.floats(0.3, 3.0), st.floats(0.05, 1.0), st.floats(1e2, 1e8))
def test_the_logistic_margin_of_one_pair_is_known(claim, beta, rate, time):
    q = np.array([0.5, 0.2, 0.3])
    run = one_round("spin", q, q, [1.0, 0, 0], [0, 1.0, 0], beta, rate)
    expected = pair_margin(time, 2.0 * beta**2 * float(run.step_size[0]))
    what = "margin of SPIN's flow"
    claim.close(last_of(run, time, 30).margin, expected, 0.0, 2e-3, what=what, because="solver")


@pytest.mark.parametrize("name", ["spin", "ipo", "spif", "centred_spif"])
def test_descent_of_small_steps_follows_the_flow(name):
    # the gap of Euler's method is of first order in the step: halving the rate halves it
    p, q, data, own = finite.samples(900, "partial", 10)
    gap = []
    for rate, steps in ((0.08, 100), (0.04, 200)):
        run = one_round(name, p, q, data, own, 0.6, rate)
        descent = simulator.run(run, [steps], progress=False)
        gap.append(float(descent.kl[0] - last_of(run, steps, 50).kl[0]))
    assert abs(gap[0]) < 0.01
    assert 1.7 < gap[0] / gap[1] < 2.4


@pytest.mark.parametrize("given_times", [{"last": 0.001}, {"last": np.inf}, {"per_decade": 0}])
def test_a_flow_says_what_it_cannot_do(given_times):
    p, q, data, own = finite.samples(0, "same", 9)
    run = one_round("spin", p, q, data, own, 1.0, 0.1)
    with pytest.raises(InvalidInput):
        Flow(run, **{"last": 10.0, **given_times})
    batches = SelfPlay(Softmax(9), None, pd.DataFrame({"seed": [0]}), p, np.log(q), Data(batch=2))
    with pytest.raises(InvalidInput, match="minibatches"):
        Flow(batches, 10.0)


def test_an_interrupted_flow_resumes_to_the_same_table(tmp_path):
    def flow():
        return Flow(
            finite.one_round(finite.Settings(first_seed=3, seeds=2, outcomes=10), "spif"), 1e3
        )

    class Interrupted(Flow):
        def advance(self, state, step):
            if step == 60:
                raise KeyboardInterrupt
            return super().advance(state, step)

    whole = simulator.run(flow(), range(0, 120, 10), progress=False)
    Interrupted.__name__ = "Flow"  # part of a checkpoint's mark
    stopped, path = flow(), tmp_path / "flow.npz"
    stopped.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        simulator.run(stopped, range(0, 120, 10), path, progress=False, every=0)
    assert path.exists()
    resumed = simulator.run(flow(), range(0, 120, 10), path, progress=False)
    pd.testing.assert_frame_equal(whole, resumed, check_exact=True)


# -- one round: growth and its absence ------------------------------------------------------------


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


# -- one round: pointwise SPIF and the hinge ------------------------------------------------------


@pytest.mark.claim("T13.pointwise_room", regime="dynamics")
def test_the_example_of_three_outcomes(claim):
    q, data, own = np.array([0.4, 0.3, 0.3]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    run = one_round("spif", q, q, data, own, 0.5, 0.25)  # eta = 2, step size 1/2
    flow = Flow(run, 1e5, 40)
    table = simulator.run(flow, range(flow.steps + 1), progress=False)
    infimum = 1.0 + table.loss.iloc[-1]  # (1/2)(r_1 - 1)^2 + (1/2)(r_2 + 1)^2 = 1 + loss
    what = "infimum of the squared loss, three digits"
    claim.close(infimum, 0.158, 5e-4, what=what, because="theory")
    wanted = np.log([1e2, 1e3, 1e4, 1e5])
    at = np.interp(wanted, np.log(table.time[1:]), table.logit_range[1:])
    what = "logit range at 1e2 ... 1e5 steps, one decimal"
    claim.close(at, [3.3, 5.4, 7.7, 10.0], 0.06, what=what, because="theory")


@pytest.mark.claim("T13.pointwise_room", regime="tabular", drops="separable")
def test_a_sample_on_both_sides_asks_for_its_link_alone(claim):
    """Expert samples {1, 2}, own sample {2}: the second asks for q e^{R/beta}, R(log 1/2) = -1/3.

    With +-eta on the samples there would be no room at eta = 1/2, nor would there be attained what
    is attained: the loss of the best response, by a policy that leaves .087 to the third."""
    spif, q = objectives.get("spif"), np.array([0.4, 0.3, 0.3])
    data, own = np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.0])
    claim.close(spif.reward(data, own)[:2], [1.0, -1 / 3], 1e-14, what="rewards on the samples")
    for eta, room in ((0.5, True), (0.8, False)):
        asked = float(demanded_mass(spif, 1 / eta, data, own, q))
        claim.close(asked, 0.4 * np.exp(eta) + 0.3 * np.exp(-eta / 3), 1e-14, what="mass asked for")
        assert (asked < 1) == room
        for old in (0.4 * np.exp(eta) + 0.3 * np.exp(eta), 0.7 * np.exp(eta) + 0.3 * np.exp(-eta)):
            claim.exhibits(old, 1.15, what="mass asked for if the shared sample counted as +-1/c")
    with pytest.raises(InvalidInput, match="attained"):
        squared_limit(1.0, 2.0, data, own, q)
    law = np.array([0.4 * np.exp(0.5), 0.3 * np.exp(-1 / 6), 0.0])
    law[2] = 1.0 - law.sum()
    reward = 2.0 * np.log(law / q)
    least = float(spif.risk(0.5 * reward, 0.5 * reward, 2.0, data, own))
    seen = spif.reward(data, own)
    claim.close(least, -spif.value(data, own, seen), 1e-14, what="loss of that policy: the least")
    claim.close(law[2], 0.0866, 1e-4, what="mass that is left, three digits", because="theory")
    limit = squared_limit(1.0, 1.25, data, own, q)
    claim.exhibits(-limit.multiplier, 0.05, what="pull on the unseen outcome at eta = .8")


def test_where_no_response_is_unseen_the_least_is_attained_without_room():
    """Two responses, one sample of each side: 3.8 times the mass is asked for at eta = 2, and the
    loss is least inside, at a log-odds of 2.72."""
    spif, q, odds = objectives.get("spif"), np.full(2, 0.5), np.linspace(-12, 12, 24001)
    data, own = np.eye(2)
    assert demanded_mass(spif, 0.5, data, own, q) == pytest.approx(2 * np.cosh(2.0) / 2, rel=1e-12)
    law = np.exp(-np.logaddexp(0.0, np.stack([-odds, odds], -1)))
    reward = 0.5 * np.log(law / q)
    risk = -spif.a(reward[:, 0]) - spif.b(reward[:, 1])
    best = risk.argmin()
    assert odds[best] == pytest.approx(2.72, abs=0.002)
    assert 1.0 + risk[best] == pytest.approx(0.2359, abs=1e-4)


@pytest.mark.claim("T13.pointwise_room", regime="dynamics")
@given(st.integers(0, 10**6), st.sampled_from(["disjoint", "partial"]), st.floats(0.2, 3.0))
def test_pointwise_spif_attains_its_minimum_iff_there_is_room(claim, seed, overlap, eta):
    p, q, data, own = finite.samples(seed, overlap, 14)
    spif, beta = objectives.get("spif"), 1.0 / eta
    asked = float(demanded_mass(spif, beta, data, own, q))
    assume(abs(asked - 1.0) > 0.05)
    run = one_round("spif", p, q, data, own, beta, 0.5)
    end = last_of(run, 1e8, 15).iloc[0]
    if asked < 1.0:
        claim.close(end.unseen_mass, 1.0 - asked, 1e-6, what="unseen mass where there is room")
        claim.below(end.gradient_norm, 1e-9, what="gradient norm where there is room")
    else:
        limit = squared_limit(1.0, beta, data, own, q)
        expected = limit.unseen_time / (1e8 * float(run.step_size[0]))
        what = "unseen mass where there is none, to leading order in 1/t"
        claim.close(end.unseen_mass, expected, 0.0, 0.01, what=what, because="expansion")


@pytest.mark.claim("T13.pointwise_room", "T4.unbounded_rewards", regime="dynamics")
def test_pointwise_spifs_unseen_logits_grow_like_log_t(claim):
    # eta = 4; the rarest unseen outcomes of these seeds join the fall only after t = 1e7
    table = flowed("spif", last=1e10, effective_step=2.0)
    slope, _, _ = late_slopes(table, "disjoint", "logit_range", since=1e8)
    claim.close(slope, np.ones(len(slope)), 3e-3, what="logit range per log t", because="solver")


@pytest.mark.claim("T13.pointwise_room", regime="dynamics", drops="unseen_response")
def test_without_unseen_outcomes_pointwise_spif_attains_its_minimum(claim):
    p, q, data, own = finite.samples(501, "disjoint", 9)
    keep = (data > 0) | (own > 0)
    q = q[keep] / q[keep].sum()
    asked = demanded_mass(objectives.get("spif"), 0.25, data[keep], own[keep], q)
    claim.exhibits(asked, 2.0, what="mass asked for")
    run = one_round("spif", p[keep] / p[keep].sum(), q, data[keep], own[keep], 0.25, 0.5)
    end = last_of(run, 1e5)
    claim.below(end.gradient_norm, 1e-10, what="gradient norm")
    with pytest.raises(InvalidInput, match="attained"):
        squared_limit(1.0, 0.25, data[keep], own[keep], q)


@pytest.mark.claim("T13.squared_stop", regime="dynamics")
def test_the_hinge_stops_when_every_margin_is_one(claim):
    s = finite.Settings(**OWN, rate=0.1, outcomes=12, steps=600)
    table = finite.descent(s, "spin_hinge", progress=False)
    end = table[(table.step == 600) & (table.overlap == "disjoint")]
    claim.exhibits(end.margin, 1.0, what="least margin", because="theory")
    claim.close(end.gradient_norm, np.zeros(len(end)), 0.0, what="gradient norm, exactly")
    # a step moves a margin by at most step size times beta^2 times the two weights, at most 2
    claim.below(end.margin, 1.0 + 0.1 * 2.0, what="least margin: one step beyond 1 at most")


@pytest.mark.claim("T13.squared_stop", regime="dynamics", drops="separable")
def test_on_shared_outcomes_the_hinge_does_not_stop(claim):
    run = finite.one_round(finite.Settings(**OWN, rate=0.1, outcomes=12), "spin_hinge")
    table = simulator.run(run, [2000], progress=False)
    end = table[table.overlap == "same"]
    claim.exhibits(end.gradient_norm, 1e-4, what="gradient norm after 2000 steps: it chatters")


# -- rounds on n samples --------------------------------------------------------------------------


@functools.cache
def rounds(name, steps=3000, sizes=(8,)):
    given = {"sizes": sizes, "total_steps": steps, "first_seed": 700, "rounds_seeds": 16}
    return finite.rounds_of(finite.Settings(support=20, **given), name, progress=False)


@pytest.mark.claim("T13.overfitting", regime="dynamics")
@pytest.mark.parametrize("name", ["sft", "spin", "spif", "ipo"])
def test_overfitting_grows_by_the_missing_mass(claim, name):
    # KL = const + missing log(t - delay), with delays of up to four rounds (80 steps) from t = 900
    table = rounds(name)
    late = table[table.step >= 900].groupby("seed")
    slope = [fit_line(np.log(one.step), one.kl).slope for _, one in late]
    missing = table.groupby("seed").missing.first()
    what = "KL to the expert per log of the steps, delays of 80 steps after 900"
    claim.close(slope, missing, 0.0, 80 / 900, what=what, because="expansion")


@pytest.mark.claim("T13.overfitting", regime="dynamics")
@pytest.mark.parametrize("name", ["sft", "spin", "centred_spif"])
def test_without_early_stopping_kl_has_no_bound(claim, name):
    table = rounds(name, steps=1000)
    best = table.groupby("seed").kl.min()
    last = table[table.step == table.step.max()].set_index("seed")
    claim.exhibits(last.kl - best, 0.3, what="KL at step 1000 less the least, nats, n = 8")
    claim.exhibits(last.missing, 0.05, what="missing mass: KL grows by it per e-fold of steps")


def paired(name, sizes, when):
    """KL minus SFT's: mean and standard error over 24 seeds, by n."""
    ends = []
    for which in (name, "sft"):
        s = finite.Settings(support=25, sizes=sizes, total_steps=600, first_seed=800)
        table = finite.rounds_of(s, which, progress=False)
        kl = table if when is None else table[table.step == min(table.step[table.step >= when])]
        ends.append(kl.groupby(["n", "seed"]).kl.min())
    gap = (ends[0] - ends[1]).groupby("n")
    return gap.mean().to_numpy(), (gap.std() / np.sqrt(24)).to_numpy()


@pytest.mark.claim("T16.no_information", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "centred_spif", "ipo"])
def test_no_objective_beats_sft_at_its_best_step(claim, name):
    mean, error = paired(name, (12, 120, 1200), None)
    what = "gain over SFT in KL, each at its best step, 4 standard errors of 24 seeds"
    claim.below(-mean, 4.0 * error, what=what, because="sampling")


@pytest.mark.claim("C6.late_step", regime="dynamics")
def test_at_a_late_step_the_slower_path_looks_better(claim):
    mean, error = paired("spin", (8,), 56)
    what = "SPIN's apparent gain over SFT at step 56, nats, less 4 standard errors"
    claim.exhibits(-mean - 4.0 * error, 0.01, what=what)
    mean, error = paired("spin", (8,), None)
    what = "its gain with each at its own best step, 4 standard errors"
    claim.below(-mean, 4.0 * error, what=what, because="sampling")


def finite_class(realisable, members=64, n=50, repeats=300):
    """Squared Hellinger distance of the likeliest of a finite class, by data set."""
    rng = np.random.default_rng(11)
    models = laws.random_law(rng, (members, 12), 0.7)
    truth = models[0] if realisable else laws.random_law(rng, (12,), 2.0)
    counts = rng.multinomial(n, truth, size=repeats)
    chosen = models[np.argmax(counts @ np.log(models).T, axis=1)]
    return np.square(np.sqrt(chosen) - np.sqrt(truth)).sum(-1)


@pytest.mark.claim("T16.mle_bound", regime="dynamics", of="data sets")
@pytest.mark.parametrize("n", [30, 300, 3000])
def test_maximum_likelihood_on_a_finite_class_obeys_its_bound(claim, n):
    delta = 0.1
    found = np.quantile(finite_class(True, n=n), 1.0 - delta)
    claim.below(
        found, 2.0 * np.log(64 / delta) / n, what="(1-delta) quantile of D_H^2", because="theory"
    )


@pytest.mark.claim("T16.mle_bound", regime="dynamics", drops="expert_in_class", of="data sets")
def test_outside_of_the_class_the_bound_fails(claim):
    found = np.quantile(finite_class(False, n=3000), 0.9)
    claim.exhibits(found / (2.0 * np.log(640) / 3000), 3.0, what="D_H^2 over the bound")


@pytest.mark.claim("T13.overfitting", regime="dynamics")
def test_on_real_text_overfitting_grows_by_the_missing_mass(claim):
    def slopes(name, exact):
        s = finite.Settings(text_sizes=(10,), first_seed=300, seeds=12)
        table = finite.text(s, name, exact, progress=False)
        late = table[table.step >= 300].groupby("seed")
        slope = [fit_line(np.log(one.step), one.kl).slope for _, one in late]
        return np.array(slope), table.groupby("seed").missing.first().to_numpy()

    exact, missing = slopes("sft", True)
    # unseen paths leave seen prefixes at O(1/t): the window's own middle is at t = 550
    what = "KL per log of the steps, SFT without noise, to O(1/t)"
    claim.close(exact, missing, 0.005, 0.15, what=what, because="expansion")
    noisy, _ = slopes("spin", False)
    error = 4.0 * (noisy - exact).std(ddof=1) / np.sqrt(len(noisy))
    # slower by up to four rounds (80 steps), as on tabular policies; the window starts at 300
    delay = missing.mean() * 80 / 300
    gap = (noisy - exact).mean() - 0.5 * delay
    what = "SPIN in minibatches against it: 4 standard errors and half the delay"
    claim.close(gap, 0.0, 0.5 * delay + error, what=what, because="sampling")


# -- the experiment -------------------------------------------------------------------------------

SMALL = {
    "seeds": 3, "rounds_seeds": 3, "steps": 20, "flow_steps": 10.0, "total_steps": 20,
    "text_steps": 10, "sizes": (10,), "text_sizes": (10,), "words": 3, "etas": (1.0, 2.0),
}  # fmt: skip


def test_the_experiment_has_all_parts_and_sft_beside_them():
    given_settings = finite.Settings(**SMALL, objectives=("spin", "spin_hinge"))
    table = launch.run("finite_samples", given_settings, progress=False)
    left = table[table.left_out.notna()]
    assert left[["left_out", "objective"]].to_numpy().tolist() == [["flow", "spin_hinge"]]
    table = table[table.left_out.isna()]
    assert set(table.part) == {"descent", "flow", "threshold", "rounds", "text"}
    for part in ("rounds", "text"):
        assert set(table[table.part == part].objective) == {"spin", "spin_hinge", "sft"}
    key = ["part", "objective", "seed", "overlap", "eta", "n", "step"]
    assert not table.duplicated(key).any()
    assert np.isfinite(table.kl).all()


def test_a_row_is_the_same_alone():
    several, alone = (
        finite.descent(
            finite.Settings(first_seed=first, seeds=6 - first, steps=30, outcomes=9),
            "ipo",
            progress=False,
        )
        for first in (4, 5)
    )
    several = several[several.seed == 5].reset_index(drop=True)
    pd.testing.assert_frame_equal(several, alone, rtol=1e-12)


def test_samples_show_the_outcomes_that_they_must():
    for overlap, (expert_only, shared, own_only) in finite.OVERLAPS.items():
        p, q, data, own = finite.samples(3, overlap, 11)
        for law in (p, q, data, own):
            np.testing.assert_allclose(law.sum(), 1.0)
        assert ((data > 0) & (own == 0)).sum() == expert_only
        assert ((data > 0) & (own > 0)).sum() == shared
        assert ((data == 0) & (own > 0)).sum() == own_only


def test_growth_where_one_side_has_nothing_of_its_own():
    data, own = np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.0])
    np.testing.assert_allclose(logistic_growth(data, own), [0.5, -0.5, 0.0])
    np.testing.assert_allclose(logistic_growth(own, data), [-0.5, 0.5, 0.0])


@pytest.mark.parametrize(
    ("wrong", "parts"),
    [
        ({"objectives": ("spon", "sft"), "seeds": 0}, ("spon", "sft", "seeds=0")),
        ({"outcomes": 8, "rate": -1.0, "etas": (1.0, 0.0)}, ("outcomes=8", "rate=-1.0", "etas=")),
        ({"batch": 12, "sizes": (10, 0), "rounds_step": 0.0}, ("batch=12", "sizes=", "rounds_st")),
        ({"steps": 1.5, "sizes": 10}, ("steps=1.5", "sizes=10")),
    ],
)
def test_everything_wrong_is_said_at_once(wrong, parts):
    with pytest.raises(InvalidInput) as caught:
        finite.Settings(**wrong)
    for part in parts:
        assert part in str(caught.value)
