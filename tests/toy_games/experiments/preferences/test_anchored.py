"""T12: anchored preference rounds: threshold, contraction, noise floor, Nash-MD's schedule."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from tests.toy_games.experiments.preferences.runs import (
    FEW,
    SEED,
    instance,
    rows_of,
    standard_error,
)
from theory import laws, preferences
from toy_games.dynamics.preference_rounds import PreferenceRounds
from toy_games.dynamics.preference_sgd import PreferenceSGD
from toy_games.engine import simulator
from toy_games.experiments import preferences as played
from toy_games.predictions import preference_rounds as predicted


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
