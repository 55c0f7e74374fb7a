"""Preference self-play from samples: estimates, rounds, losses; against theory's predictions."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from theory import laws, objectives, preferences
from theory.errors import InvalidInput, Unavailable
from toy_games import launch
from toy_games.dynamics.preference_estimates import PlugIn, group_estimates
from toy_games.dynamics.preference_rounds import (
    PreferenceRounds,
    algorithm_of,
    games,
    reward_of_counts,
)
from toy_games.dynamics.preference_sgd import PreferenceSGD, winner_scale
from toy_games.engine import simulator
from toy_games.experiments import preferences as played
from toy_games.predictions import preference_rounds as predicted

SEED = st.integers(0, 2**31 - 1)
FEW = settings(max_examples=5)
ONE_GAIN = ("sppo", "spif(c=0.7)", "ipo(margin=1.3)", "inpo", "centred_spif(c=2)")


def instance(seed, count, n, kind="random", strength=0.9):
    rng = [np.random.default_rng((seed, i)) for i in range(count)]
    P = games(kind, n, rng, strength)
    return P, np.stack([laws.random_law(g, (P.shape[-1],), 0.6) for g in rng])


def rows_of(count, **columns):
    return pd.DataFrame({"seed": range(count)}).assign(**columns)


def walk(run, steps):
    state = run.start()
    with torch.no_grad():
        for t in range(steps):
            state = run.advance(state, t)
    return state


def standard_error(values):
    return np.std(values, axis=0, ddof=1) / np.sqrt(len(values))


def rare(values):
    """Half-width that a mean of so few values leaves once in 100,000 times: Student's, not 4.5
    standard errors, which 12 values leave once in 1,000."""
    return stats.student(len(values), 1.0 - 1e-5) * standard_error(values)


# --- T11: one algorithm, and where it stops -----------------------------------------------------


@given(
    seed=SEED, n=st.integers(2, 7), step=st.floats(0.2, 3.0), samples=st.sampled_from([0, 3, 20])
)
def test_squared_losses_are_one_algorithm_on_the_same_comparisons(seed, n, step, samples):
    P, start = instance(seed, 4, n)
    found = []
    for spec in ONE_GAIN:
        rows = rows_of(4, beta=algorithm_of(spec).gain / step, samples=samples)
        found.append(walk(PreferenceRounds(spec, rows, P, start), 4)["log_law"].exp())
    for policy in found[1:]:
        np.testing.assert_allclose(policy, found[0], rtol=0, atol=1e-11)
    if samples == 0:
        exact = preferences.self_play(P, start, objectives.get("sppo"), 0.5 / step, 4).policy
        np.testing.assert_allclose(found[0], exact, rtol=0, atol=1e-11)


@pytest.mark.claim("T11.sppo", "T11.squared", regime="tabular")
@given(seed=SEED, n=st.integers(2, 6))
def test_counted_winners_and_losers_pay_what_theory_says(claim, seed, n):
    """At the expected counts; the dependence of the two of a pair takes kappa away."""
    P, start = instance(seed, 3, n)
    counts = torch.from_numpy(start[:, :, None] * start[:, None, :] * P)
    for spec, dependent in (("spif(c=0.7)", False), ("ipo(margin=1.3)", True)):
        scale = algorithm_of(spec).scale
        exact = preferences.reward(P, start, algorithm_of(spec).objective)
        found = reward_of_counts(counts, scale, dependent).numpy()
        centre = laws.expect(start, found)[..., None] if dependent else 0.0
        claim.close(found - centre, exact, 1e-9, what=f"{spec.partition('(')[0]} on counts")


@pytest.mark.claim("T11.sampled", regime="dynamics")
def test_rounds_from_pairs_agree_as_pairs_grow(claim):
    """SPPO and SPIF see the same numbers; IPO also who met whom: equal up to noise 1/sqrt(K)."""
    sizes, seeds = (64, 256, 1024, 4096), 40
    P, start = instance(5, 1, 4)
    goal = preferences.self_play(P[0], start[0], objectives.get("sppo"), 0.5, 1).policy
    rows = pd.DataFrame([{"seed": s, "samples": k} for k in sizes for s in range(seeds)])
    found = {}
    for spec in ("sppo", "spif(c=2)", "ipo(margin=0.5)"):
        run = PreferenceRounds(spec, rows.assign(beta=0.5), P[0], start[0], None, goal, "pairs")
        found[spec] = walk(run, 1)["log_law"].exp().numpy()
        size = 0.5 * np.abs(found[spec] - goal).sum(-1).reshape(len(sizes), seeds).mean(-1)
        fit = stats.fit_line(np.log(sizes), np.log(size))
        what = f"slope of log TV to the exact round in log K, {spec}"
        claim.close(fit.slope, -0.5, 0.08, what=what, because="chosen")
        assert size[-1] < 0.03
    claim.close(found["spif(c=2)"], found["sppo"], 1e-13, what="SPIF against SPPO on pairs")
    apart = 0.5 * np.abs(found["ipo(margin=0.5)"] - found["sppo"]).sum(-1)
    claim.exhibits(apart[:seeds].mean(), 1e-3, what="TV of IPO and SPPO, another estimator, K = 64")


def descend(spec, P, start, step, goal, steps=1500, rate=0.8):
    """Exact gradient steps of one round; TV to the goals."""
    beta = 1.0 if spec == "sft" else algorithm_of(spec).gain / step
    rows = rows_of(len(P), beta=beta, rate=rate, steps_per_round=steps)
    run = PreferenceSGD(spec, rows, P, start, None, goal)
    return run.measure(walk(run, steps), steps)["tv"].numpy()


@pytest.mark.claim("T11.one_loss", regime="dynamics")
@settings(max_examples=2)
@given(seed=SEED, n=st.integers(3, 5), step=st.floats(0.5, 1.2))
def test_descent_on_one_loss_ends_at_the_round_of_each(claim, seed, n, step):
    """IPO and centred SPIF at SPPO's round, DPO at its own, SFT at the winners' law."""
    P, start = instance(seed, 4, n, strength=0.7)
    goal = played.exact_round(P, start, step)
    for spec in ("ipo(margin=0.8)", "centred_spif"):
        apart = descend(spec, P, start, step, goal)
        what = f"TV of {spec.partition('(')[0]} to SPPO's round"
        claim.below(apart, 1e-4, what=what, because="chosen")
    own = played.exact_round(P, start, step, "dpo")
    apart = descend("dpo", P, start, step, own)
    claim.below(apart, 1e-4, what="TV of DPO to its round", because="chosen")
    winners = preferences.winner_loser(P, start)[0]
    assert (descend("sft", P, start, step, winners) <= 1e-4).all()


@pytest.mark.claim("T11.one_loss", regime="dynamics", drops="shift_invariant")
def test_one_pointwise_loss_misses_the_round_by_the_partition_gap(claim):
    """SPPO and SPIF have one gradient, and rest where theory says, which is not their round."""
    P, start = instance(3, 6, 5, "bradley_terry")
    goal = played.exact_round(P, start, 2.0)
    rest = predicted.one_loss_round(P, start, objectives.get("sppo"), 0.25)
    for spec in ("sppo", "spif(c=2)"):
        apart = descend(spec, P, start, 2.0, rest)
        claim.below(apart, 1e-4, what=f"TV of {spec} to its rest", because="chosen")
        missed = descend(spec, P, start, 2.0, goal)
        claim.exhibits(missed, 0.02, what=f"TV of {spec} on one loss to the round")
    with pytest.raises(Unavailable, match="payoff scale 1/2"):
        predicted.one_loss_round(P, start, objectives.get("spif"), 1.0)


@pytest.mark.claim("T11.dpo_differs", regime="tabular")
def test_online_dpo_plays_another_round(claim):
    P, start = instance(4, 6, 5, "bradley_terry")
    goal = played.exact_round(P, start, 2.0)
    own = played.exact_round(P, start, 2.0, "dpo")
    rows = rows_of(6, beta=algorithm_of("dpo").gain / 2.0)
    run = PreferenceRounds("dpo", rows, P, start, None, goal)
    state = walk(run, 1)
    claim.close(state["log_law"].exp(), own, 1e-12, what="the round")
    claim.exhibits(run.measure(state, 1)["tv"], 0.03, what="TV of DPO's round to SPPO's")


@pytest.mark.claim("T15.first_gradient", regime="tabular")
@pytest.mark.parametrize("spec", ["sppo", "spif", "ipo", "dpo", "centred_spif", "airl", "nwj"])
def test_first_steps_are_those_of_sft_on_winners(claim, spec):
    """In expectation, p_w - pi: the policy gradient of the win rate."""
    P, start = instance(7, 3, 5)
    run = PreferenceSGD(spec, rows_of(3, beta=0.7, rate=0.1), P, start)
    step = walk(run, 1)["theta"] - run.log_start
    winners = preferences.winner_loser(P, start)[0]
    claim.close(step, 0.1 * (winners - start), 1e-12, what="first exact step")


@pytest.mark.claim("T11.sampled", regime="dynamics")
@pytest.mark.parametrize("spec", ["sppo", "ipo(margin=0.5)", "dpo", "sft"])
def test_sampled_steps_are_unbiased(claim, spec):
    count, samples = 4000, 6
    P, start = instance(8, 1, 4)
    steps = {}
    for k in (0, samples):
        rows = rows_of(count if k else 1, beta=0.5, rate=1.0, samples=k)
        run = PreferenceSGD(spec, rows, P[0], start[0])
        steps[k] = (walk(run, 1)["theta"] - run.log_start).numpy()
    off = np.abs(steps[samples].mean(0) - steps[0][0]) / standard_error(steps[samples])
    what = f"bias of a step in standard errors, {spec}"
    claim.below(off, 4.0, what=what, because="sampling")


@pytest.mark.parametrize("name", sorted(set(objectives.names()) - {"spin_hinge", "tspin"}))
def test_every_objective_plays_its_exact_rounds(name):
    """Anchored, from the reward player's best response; pair losses also by gradient descent."""
    P, start = instance(6, 3, 4, strength=0.6)
    ref, obj = start[:, ::-1].copy(), objectives.get(name)
    beta, tau = 3.0, 0.4
    exact = preferences.self_play(P, start, obj, beta, 3, ref, tau).policies
    run = PreferenceRounds(name, rows_of(3, beta=beta, tau=tau), P, start, ref)
    np.testing.assert_allclose(walk(run, 3)["log_law"].exp(), exact[3], rtol=0, atol=1e-10)
    if obj.form == "pairwise":
        rows = rows_of(3, beta=beta, tau=tau, rate=0.3, steps_per_round=600)
        trained = walk(PreferenceSGD(name, rows, P, start, ref), 1200)["theta"].softmax(-1)
        np.testing.assert_allclose(trained, exact[2], rtol=0, atol=1e-5)


@pytest.mark.claim("T11.sampled", regime="dynamics")
@FEW
@given(seed=SEED, n=st.integers(3, 6), step=st.floats(0.3, 1.0))
def test_noise_of_a_round_from_comparisons(claim, seed, n, step):
    P, start = instance(seed, 1, n)
    goal, samples = played.exact_round(P, start, step)[0], 100
    rows = rows_of(200, beta=0.5 / step, samples=samples)
    run = PreferenceRounds("sppo", rows, P[0], start[0], None, goal)
    tv = run.measure(walk(run, 1), 1)["tv"].numpy()
    level = predicted.round_noise(P[0], start[0], 0.5 / step, 0.5, samples)
    room = 4.0 * standard_error(tv) + 0.05 * level  # the next order in step/sqrt(K)
    what = "mean TV to the exact round: 4 standard errors and the next order"
    claim.close(tv.mean(), level, room, what=what, because="sampling")


# --- the plug-in estimate -----------------------------------------------------------------------


def plug_in(seed, own, sizes=(2, 3, 6, 12), seeds=12, groups=600, n=4):
    P, policy = instance(seed, seeds, n, "bradley_terry")
    settings_ = [{"samples": k, "self_comparison": own} for k in sizes]
    rows = pd.DataFrame([{"seed": seed + s, **one} for one in settings_ for s in range(seeds)])
    index = np.tile(np.arange(seeds), len(sizes))
    table = simulator.run(PlugIn(rows, P[index], policy[index]), [groups], progress=False)
    return [part for _, part in table.groupby("samples")], sizes


@pytest.mark.claim("T11.sampled", regime="dynamics")
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_estimates_without_self_comparison_are_unbiased(claim, seed):
    for part, k in zip(*plug_in(seed, 0), strict=True):
        room = rare(part.bias)
        what = "bias, share of 1/2 - P"
        claim.close(part.bias.mean(), 0.0, room, what=what, because="sampling")
        exact = predicted.plug_in_variance(k, False)
        room = rare(part.variance) + 0.01 * exact  # finite groups
        what = "variance, share of P (1 - P)"
        claim.close(part.variance.mean(), exact, room, what=what, because="sampling")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison")
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_self_comparison_biases_the_estimate_by_one_over_k(claim, seed):
    for part, k in zip(*plug_in(seed, 1), strict=True):
        room = rare(part.bias)
        exact = predicted.plug_in_bias(k, True)
        what = "bias, share of 1/2 - P, against 1/K"
        claim.close(part.bias.mean(), exact, room, what=what, because="sampling")
        claim.exhibits(k * part.bias.mean(), 0.5, what="bias, in units of 1/K")
        exact = predicted.plug_in_variance(k, True)
        room = rare(part.variance) + 0.01 * exact
        what = "variance, share of P (1 - P)"
        claim.close(part.variance.mean(), exact, room, what=what, because="sampling")


def test_estimates_by_hand():
    """Three responses drawn as (0, 1, 0), of which the first two, or all, are the group."""
    P = torch.tensor([[[0.5, 0.8], [0.2, 0.5]]] * 3, dtype=torch.float64)
    drawn = torch.tensor([[0, 1, 0]] * 3)
    luck = torch.full((3, 3, 3), 0.3, dtype=torch.float64)
    luck[:, 0, 1] = 0.9  # response 0 loses this one to 1, and 1 the next to 0; 0 wins over 0
    size, own = torch.tensor([2, 3, 3]), torch.tensor([False, False, True])
    found = group_estimates(P, drawn, luck, size, own)
    assert found[0, :2].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(found[1], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found[2], [1.5 / 3, 1.5 / 3, 1.5 / 3])
    own = torch.tensor([True, False, True])
    assert group_estimates(P, drawn, luck, size, own)[0, :2].tolist() == [0.25, 0.75]


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison")
def test_self_comparison_shrinks_the_step_of_sppos_loss(claim):
    count, samples = 4000, 4
    P, start = instance(9, 1, 4, "bradley_terry")
    exact = PreferenceSGD("sppo", rows_of(1, beta=0.5, rate=1.0), P[0], start[0])
    whole = (walk(exact, 1)["theta"] - exact.log_start).numpy()[0]
    rows = rows_of(count, beta=0.5, rate=1.0, samples=samples, self_comparison=1)
    run = PreferenceSGD("sppo", rows, P[0], start[0])
    steps = (walk(run, 1)["theta"] - run.log_start).numpy()
    share = steps @ whole / (whole @ whole)
    expected = predicted.effective_scale(1.0, samples, True)
    room = 4.0 * standard_error(share)
    claim.close(share.mean(), expected, room, what="share of the step", because="sampling")
    what = "missing share of the step, in units of 1/K"
    claim.exhibits(samples * (1.0 - share.mean()), 0.5, what=what)


@pytest.mark.claim("T12.sampled", regime="dynamics", drops="no_self_comparison")
def test_self_comparison_moves_the_anchored_equilibrium(claim):
    """To that of the payoff scale g (K-1)/K."""
    P, tau, samples = preferences.rock_paper_scissors(), 0.3, 2
    anchor = np.array([0.7, 0.2, 0.1])
    moved, true = (
        preferences.regularised_nash(P, anchor, tau, g).policy
        for g in (predicted.effective_scale(0.5, samples, True), 0.5)
    )
    rows = rows_of(8, beta=60.0, tau=tau, samples=samples, self_comparison=1)
    ends = {}
    for name, target in (("moved", moved), ("true", true)):
        run = PreferenceRounds("sppo", rows, P, moved, anchor, target)
        ends[name] = run.measure(walk(run, 1500), 1500)["average_tv"].numpy()
    what = "TV of averages to the predicted equilibrium"
    claim.below(ends["moved"].mean(), 0.02, what=what, because="chosen")
    claim.exhibits(ends["true"], 0.08, what="TV of averages to the game's equilibrium")


# --- T12: no anchor -----------------------------------------------------------------------------


@pytest.mark.claim("T12.last_iterate_leaves", "T12.repels", regime="tabular")
@FEW
@given(beta=st.floats(0.5, 4.0), n=st.sampled_from([3, 5, 7]), spec=st.sampled_from(ONE_GAIN))
def test_last_iterate_leaves_at_the_predicted_speed(claim, beta, n, spec):
    P, z = preferences.rock_paper_scissors(0.8, n), np.full(n, 1.0 / n)
    fastest = np.abs(np.fft.fft(P[:, 0] - 0.5)).argmax()  # a cyclic game's cycles are waves
    x = 1e-7 * np.cos(2.0 * np.pi * fastest * np.arange(n) / n)
    run = PreferenceRounds(spec, rows_of(1, beta=beta), P, z * (1.0 + x), None, z)
    norms = [float(run.measure(walk(run, t), t)["norm"][0]) for t in (0, 12)]
    growth = preferences.local_growth(P, z, beta, 0.0, algorithm_of(spec).scale)
    what = "growth a round, to first order in a start of 1e-7"
    claim.close((norms[1] / norms[0]) ** (1 / 12), growth, 1e-5, what=what, because="expansion")
    claim.exhibits(norms[1] / norms[0], 1.0, what="growth in 12 rounds", because="theory")


@pytest.mark.claim("T12.last_iterate_leaves", regime="dynamics")
def test_sampled_comparisons_do_not_stop_the_cycle(claim):
    P, start = preferences.rock_paper_scissors(), np.array([0.4, 0.3, 0.3])
    run = PreferenceRounds("sppo", rows_of(8, samples=16, beta=1.0), P, start)
    table = simulator.run(run, range(300, 601, 10), progress=False)
    claim.exhibits(table.groupby("seed").gap.max(), 0.8, what="late duality gap, last policy")
    claim.exhibits(table[table.step == 600].kl.mean(), 2.0, what="mean late KL(z||pi), nats")


@pytest.mark.claim("T12.average", regime="dynamics")
def test_average_gap_falls_as_the_root_of_the_rounds(claim):
    """Held-out sizes; exact preferences under the bound, sampled ones with the same slope."""
    horizons = (30, 120, 480, 960)
    for kind, n in (("rps", 3), ("random", 6), ("bradley_terry", 6)):
        s = played.Settings(
            responses=n, strength=0.8, first_seed=100, seeds=8, horizons=horizons, comparisons=24
        )
        table = played.gaps(s, kind, "sppo", progress=False)
        P, start = played.instances(s, kind)
        for (k, t), part in table.groupby(["samples", "horizon"]):
            beta = part.beta.iloc[0]
            bound = preferences.average_gap_bound(P, start, beta, t, 0.5)
            if k == 0:
                claim.below(part.average_gap, bound, what="gap of the average policy")
        for k, part in table.groupby("samples"):
            mean = part.groupby("horizon").average_gap.mean()
            slope = stats.fit_line(np.log(mean.index), np.log(mean)).slope
            what = f"slope of log gap in log T, {'sampled' if k else 'exact'} preferences"
            claim.below(slope, -0.4, what=what, because="chosen")


@pytest.mark.claim("T12.bradley_terry", regime="dynamics")
@settings(max_examples=3)
@given(first=st.integers(200, 10**6), n=st.integers(3, 7))
def test_under_bradley_terry_the_last_iterate_goes_to_the_top_response(claim, first, n):
    P, start = played.instances(
        played.Settings(responses=n, strength=0.8, first_seed=first, seeds=5)
    )
    top = preferences.nash(P).policy
    for samples in (0, 16):
        run = PreferenceRounds("sppo", rows_of(5, beta=0.5, samples=samples), P, start, None, top)
        table = simulator.run(run, [0, 1, 5, 20, 150], progress=False)
        kl = table.pivot(index="step", columns="seed", values="kl").to_numpy()
        gap = table[table.step == 150].gap
        claim.below(gap, 1e-3, what="gap of the last policy", because="chosen")
        if samples == 0:
            claim.below(np.diff(kl, axis=0), 0.0, what="growth of KL(top||pi)", atol=1e-12)


@pytest.mark.claim("T12.average", "T12.start_decides", regime="dynamics")
@settings(max_examples=3)
@given(seed=SEED)
def test_rank_deficient_games_have_many_answers(claim, seed):
    """What lies in the kernel of 2P - 1 never moves: starts decide among the equilibria."""
    P = games("low_rank", 5, [np.random.default_rng(seed)], 0.9)[0]
    still = np.linalg.svd(np.vstack([2.0 * P - 1.0, np.ones(5)]))[2][3:]
    claim.close(still @ (2.0 * P - 1.0).T, 0.0, 1e-12, what="kernel")
    rng = np.random.default_rng(seed + 1)
    start = laws.random_law(rng, (6, 5), 1.0)
    run = PreferenceRounds("sppo", rows_of(6, beta=15.0), P, start)
    state = walk(run, 1500)
    average = (state["total"] / 1500).numpy()
    bound = preferences.average_gap_bound(P, start, 15.0, 1500, 0.5)
    claim.below(preferences.duality_gap(P, average), bound, what="gaps of the averages")
    apart = 0.5 * np.abs(average[:, None] - average).sum(-1).max()
    claim.exhibits(apart, 0.05, what="largest TV between averages of two starts")
    before, after = ((law @ still.T) for law in (np.log(start), state["log_law"].numpy()))
    claim.close(after, before, 1e-9, what="conserved part of log pi")
    noisy = PreferenceRounds("sppo", rows_of(6, beta=15.0, samples=8), P, start)
    drift = np.abs(walk(noisy, 300)["log_law"].numpy() @ still.T - before)
    assert drift.max() > 1e-3  # conserved in the mean only


# --- T12: anchored ------------------------------------------------------------------------------


@pytest.mark.claim("T12.local_threshold", "T12.repels", "T12.sampled", regime="dynamics")
@settings(max_examples=3)
@given(first=st.integers(0, 10**6), tau=st.floats(0.05, 0.15), ratio=st.floats(1.2, 6.0))
def test_gradient_descent_on_inpos_loss_has_the_sharp_threshold(claim, first, tau, ratio):
    s = played.Settings(tau=tau, ratios=(1.0 / ratio, ratio), first_seed=first, seeds=4)
    table = played.rates(s, progress=False)
    P, anchors = played.anchored_instances(s)
    anchored = table[table.tau > 0]
    for seed, part in anchored.groupby("seed"):
        z = preferences.regularised_nash(P, anchors[seed - first], tau, 0.5).policy
        expected = [float(preferences.local_growth(P, z, b, tau, 0.5)) for b in part.beta]
        what = "growth a round, gradient descent, near the equilibrium"
        claim.close(part.growth, expected, 1e-4, what=what, because="expansion")
    below, above = (anchored[anchored.ratio == r].growth for r in (1.0 / ratio, ratio))
    claim.below(above, 1.0, what="growth beyond the threshold")
    assert (below > 1.0).all()


@pytest.mark.claim("T12.repels", regime="dynamics")
def test_without_an_anchor_no_step_is_stable(claim):
    s = played.Settings(ratios=(0.5, 2.0, 8.0), rate_rounds=8, first_seed=50, seeds=4)
    table = played.rates(s, progress=False)
    free = table[table.tau == 0]
    centre = np.full(3, 1.0 / 3.0)
    P = preferences.rock_paper_scissors()
    expected = [float(preferences.local_growth(P, centre, b, 0.0, 0.5)) for b in free.beta]
    what = "growth a round without an anchor, near the equilibrium"
    claim.close(free.growth, expected, 1e-4, what=what, because="expansion")
    claim.exhibits(free.growth, 1.001, what="growth a round without an anchor")


@pytest.mark.claim("T12.sampled", regime="dynamics", drops="local_step")
def test_beyond_the_threshold_sampled_rounds_stay_away(claim):
    table = {}
    P, anchors = played.anchored_instances(played.Settings(first_seed=3, seeds=3))
    z = preferences.regularised_nash(P, anchors[0], 0.1, 0.5).policy
    border = float(preferences.local_threshold(P, z, 0.1, 0.5))
    for ratio in (0.4, 6.0):
        rows = rows_of(6, beta=ratio * border, tau=0.1, samples=256)
        run = PreferenceRounds("inpo", rows, P, z, anchors[0], z)
        table[ratio] = simulator.run(run, range(300, 601, 5), progress=False)
        floor = predicted.noise_floor(P, z, ratio * border, 0.1, 0.5, 256)
        assert np.isfinite(floor) == (ratio > 1)
    claim.exhibits(
        table[0.4].groupby("seed").kl.mean(), 0.1, what="late KL below the threshold, nats"
    )
    late = table[6.0].groupby("seed").kl.mean()
    claim.below(late, 0.01, what="late KL above it", because="chosen")


@pytest.mark.claim("T12.anchored_contracts", "T12.sampled", regime="dynamics")
@FEW
@given(seed=SEED, n=st.integers(3, 6), tau=st.floats(0.1, 0.6), more=st.floats(1.0, 3.0))
def test_descent_on_inpos_loss_contracts_at_the_theorem_s_rate(claim, seed, n, tau, more):
    """From far starts, with the theorem's constant: every round of 60 exact gradient steps."""
    P, start = instance(seed, 5, n)
    ref = laws.random_law(np.random.default_rng(seed), (5, n), 0.5)
    z = preferences.regularised_nash(P, ref, tau, 0.5).policy
    beta = more * float(preferences.anchored_beta(P, tau, 0.5).max())
    rows = rows_of(5, beta=beta, tau=tau, rate=1.2 / (beta + tau), steps_per_round=60)
    run = PreferenceSGD("inpo", rows, P, start, ref, z)
    table = simulator.run(run, range(0, 301, 60), progress=False)
    kl = table.pivot(index="step", columns="seed", values="kl").to_numpy()
    bound = kl[:-1] * preferences.anchored_rate(beta, tau)
    # a round's 60 steps leave a share of the way to its end
    claim.below(kl[1:], bound, what="KL after a round", atol=1e-6)


@pytest.mark.claim("T12.sampled", regime="dynamics")
def test_noise_floor_is_that_of_the_linear_round(claim):
    P, _ = instance(11, 1, 4)
    ref, tau, beta, scale = np.array([0.4, 0.3, 0.2, 0.1]), 0.4, 3.0, 0.5
    z = preferences.regularised_nash(P[0], ref, tau, scale).policy
    linear = predicted.local_map(P[0], z, beta, tau, scale)
    radius = np.abs(np.linalg.eigvals(linear)).max()
    exact = float(preferences.local_growth(P[0], z, beta, tau, scale))
    claim.close(radius, exact, 1e-12, what="spectral radius of the linear round")
    sizes = (16, 64, 256)
    rows = pd.DataFrame([{"seed": s, "samples": k} for k in sizes for s in range(16)])
    run = PreferenceRounds("inpo", rows.assign(beta=beta, tau=tau), P[0], z, ref, z)
    table = simulator.run(run, range(100, 1501, 5), progress=False)
    means = table.groupby(["samples", "seed"]).kl.mean()
    for k in sizes:
        level = predicted.noise_floor(P[0], z, beta, tau, scale, k)
        tolerance = 4.0 * standard_error(means[k]) + level / k  # the next order in 1/K
        what = "late KL from K comparisons: 4 standard errors and the next order"
        claim.close(means[k].mean(), level, tolerance, what=what, because="sampling")


@pytest.mark.claim("T12.nash_md", "T12.nash_md_sampled", regime="dynamics")
def test_nash_mds_schedule_outlives_the_noise(claim):
    """Exact: under the published bound. From K comparisons its steps shrink, and no floor stays."""
    first, tau = 70, 0.3
    s = played.Settings(floor_tau=tau, floor_rounds=800, samples=(8,), first_seed=first, seeds=6)
    table = played.schedule(s, progress=False)
    P, anchors = played.anchored_instances(s)
    assert (preferences.regularised_nash(P, anchors[0], tau, 0.5).gap < 1e-10).all()
    exact = table[(table.samples == 0) & (table.step > 0)]
    bound = [preferences.nash_md_bound(tau, int(t), 0.5) for t in exact.step]
    claim.below(exact.kl, bound, what="KL of Nash-MD's last policy")
    noisy = table[(table.samples == 8) & (table.step >= 30)].groupby("step").kl.mean()
    slope = stats.fit_line(np.log(noisy.index), np.log(noisy))
    what = "slope of log late KL in log T, sampled"
    claim.close(slope.slope, -1.0, 0.3, what=what, because="chosen")


# --- the machinery ------------------------------------------------------------------------------


def simulations():
    P, start = instance(2, 6, 4)
    rows = rows_of(6, tau=0.2, samples=[0, 3, 3, 8, 8, 2], self_comparison=[0, 0, 1, 0, 1, 1])
    even = rows.assign(samples=[2, 4, 4, 8, 8, 2], steps_per_round=7)
    return {
        "rounds": lambda keep: PreferenceRounds("sppo", rows[keep], P[keep], start[keep]),
        "nash_md": lambda keep: PreferenceRounds("nash_md", rows[keep], P[keep], start[keep]),
        "sgd": lambda keep: PreferenceSGD("sppo", even[keep], P[keep], start[keep]),
        "pair sgd": lambda keep: PreferenceSGD(
            "dpo", even.assign(self_comparison=0)[keep], P[keep], start[keep]
        ),
        "plug-in": lambda keep: PlugIn(even[keep], P[keep], start[keep]),
    }


@pytest.mark.parametrize("name", list(simulations()))
def test_an_interrupted_run_resumes_to_bitwise_the_same_table(tmp_path, monkeypatch, name):
    make, every = simulations()[name], np.ones(6, dtype=bool)
    whole = simulator.run(make(every), [0, 9, 20], progress=False)
    path, run = tmp_path / "run.npz", make(every)
    advance = run.advance

    def stopped(state, step):
        if step == 11:
            raise KeyboardInterrupt
        return advance(state, step)

    monkeypatch.setattr(run, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        simulator.run(run, [0, 9, 20], path, False, every=0.0)
    resumed = simulator.run(make(every), [0, 9, 20], path, False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


@pytest.mark.parametrize("name", list(simulations()))
def test_rows_of_one_largest_sample_do_not_touch_each_other(name):
    make = simulations()[name]
    table = simulator.run(make(np.ones(6, dtype=bool)), [6], progress=False)
    keep = np.array([False, True, False, False, True, False])  # row 4 has the largest K
    alone = simulator.run(make(keep), [6], progress=False)
    both = table[keep].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone, rtol=1e-11, atol=1e-13)


def test_rows_rest_after_their_horizon():
    P, start = instance(2, 2, 3)
    run = PreferenceRounds("sppo", rows_of(2, horizon=[3, 0]), P, start)
    early, late = (walk(run, t) for t in (3, 8))
    assert torch.equal(early["log_law"][0], late["log_law"][0])
    assert torch.equal(early["total"][0], late["total"][0])
    assert not torch.equal(early["log_law"][1], late["log_law"][1])


class Flat(type(objectives.get("spin"))):
    """A pairwise loss that does not care who won."""

    name = "flat"

    def pair_loss(self, d):
        return d**2


BAD = {
    "strength": ({"strength": 1.0}, ["strength=1.0"]),
    "game": ({"games": ("rps", "chess")}, ["'chess'"]),
    "odd pairs": ({"pair_samples": (4, 7), "seeds": 2}, ["pair_samples", "seeds=2"]),
    "objectives": ({"objectives": ("sppo", "nobody", "sft")}, ["nobody", "leave it out"]),
    "no reward": ({"objectives": ("spin_hinge",), "unanchored": ("tspin",)}, ["hinge", "tspin"]),
    "several": ({"tau": 0.0, "samples": (1,), "ratios": (-1.0,)}, ["tau=", "samples=", "ratios="]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_with_all_problems(name):
    given_, named = BAD[name]
    with pytest.raises(InvalidInput) as raised:
        played.Settings(**given_)
    assert all(part in str(raised.value) for part in named), str(raised.value)


def test_bad_batches_are_refused_with_all_problems():
    P, start = instance(2, 3, 4)
    with pytest.raises(InvalidInput) as raised:
        PreferenceRounds("sppo", rows_of(3, samples=[1, 2.5, 3], tau=-1.0), P, start[:2])
    assert all(name in str(raised.value) for name in ("samples", "tau", "start", "ref"))
    with pytest.raises(InvalidInput, match="needed is \\(n, n\\) or \\(rows, n, n\\)"):
        PreferenceRounds("sppo", rows_of(2), P, start[:2])
    with pytest.raises(InvalidInput, match=r"draws='dice'.*tau > 0|tau > 0.*draws='dice'"):
        PreferenceRounds("nash_md", rows_of(3), P, start, draws="dice")
    with pytest.raises(InvalidInput, match="beta \\+ tau > 0"):
        PreferenceRounds("sppo", rows_of(3, beta=0.0), P, start)
    with pytest.raises(Unavailable, match="dpo has no payoff scale"):
        PreferenceRounds("dpo", rows_of(3, samples=4), P, start)
    with pytest.raises(Unavailable, match="no payoff scale"):
        PreferenceRounds("sft", rows_of(3, samples=4), P, start)
    with pytest.raises(Unavailable, match="rule for rounds"):
        PreferenceSGD("nash_md", rows_of(3, tau=0.1), P, start)
    for spec, reason in (("gail", "no risk"), ("tspin", "log-ratios to pi_t alone")):
        with pytest.raises(Unavailable, match=reason):
            PreferenceSGD(spec, rows_of(3), P, start)
    with pytest.raises(InvalidInput, match="flat: its loss has no slope"):
        winner_scale(Flat(), torch.ones(3))
    with pytest.raises(InvalidInput, match="even") as raised:
        PreferenceSGD("dpo", rows_of(3, samples=[0, 3, 4], self_comparison=1), P, start)
    assert "do not go together" in str(raised.value)
    assert "goes with sppo" in str(raised.value)
    with pytest.raises(InvalidInput, match="2 own responses"):
        PlugIn(rows_of(3, samples=1), P, start)
    with pytest.raises(InvalidInput, match="no column 'seed'"):
        PlugIn(pd.DataFrame({"samples": [2]}), P[0], start[0])
    with pytest.raises(InvalidInput, match="there are rps"):
        games("chess", 3, [], 0.5)


def test_the_experiment_runs_whole_and_sft_beside_it():
    small = played.Settings(
        objectives=("sppo", "dpo"), games=("rps",), unanchored=("sppo", "dpo"), seeds=3,
        horizons=(4, 8), ratios=(2.0,), rate_rounds=2, rate_steps=3, samples=(2, 4), groups=5,
        floor_rounds=16, pair_samples=(2, 8), group_limit=4, steps=6,
    )  # fmt: skip
    table = launch.run("preferences", small, progress=False)
    parts = {"gap", "rate", "floor", "schedule", "bias", "round", "loss"}
    assert set(table.part.dropna()) == parts
    assert table.left_out.dropna().tolist() == ["gap, from comparisons"], "DPO pays no scale"
    loss = table[table.part == "loss"]
    assert set(loss.algorithm) == {"sppo", "dpo", "sft"}
    assert loss[loss.algorithm == "sppo"].samples.max() == 2
    assert np.isfinite(loss.tv).all()
    again = launch.run("preferences", small, progress=False)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    held_out = launch.run("preferences", dataclasses.replace(small, first_seed=9), progress=False)
    assert not np.array_equal(held_out.gap, table.gap, equal_nan=True)
