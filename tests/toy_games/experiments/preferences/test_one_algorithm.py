"""T11: which losses on preferences are one algorithm, where one loss ends, what samples do."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from tests.toy_games.experiments.preferences.runs import (
    FEW,
    ONE_GAIN,
    SEED,
    instance,
    rows_of,
    standard_error,
    walk,
)
from theory import laws, objectives, preferences
from theory.errors import Unavailable
from toy_games.dynamics.preference_rounds import PreferenceRounds, algorithm_of, reward_of_counts
from toy_games.dynamics.preference_sgd import PreferenceSGD
from toy_games.experiments import preferences as played
from toy_games.predictions import preference_rounds as predicted


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
