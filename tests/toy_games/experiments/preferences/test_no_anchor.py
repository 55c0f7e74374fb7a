"""T12: preference rounds without an anchor: the cycle, the average, scores, games of low rank."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from tests.toy_games.experiments.preferences.runs import FEW, ONE_GAIN, SEED, rows_of, walk
from theory import laws, preferences
from toy_games.dynamics.preference_rounds import PreferenceRounds, algorithm_of, games
from toy_games.engine import simulator
from toy_games.experiments import preferences as played


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
