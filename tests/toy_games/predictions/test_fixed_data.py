"""Rounds on one data set (T16): exact chains of two outcomes, and sampled rounds."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov
from scipy.special import expit, logit
from scipy.stats import binom, kstest

from theory import laws, objectives
from toy_games.dynamics.sampled_rounds import SampledRounds
from toy_games.dynamics.self_play import Data, SelfPlay, kl_to_expert
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import (
    best_stop,
    fixed_data_floor,
    inner_angle,
    inner_cosine,
    inner_steps,
    kl_after,
    least_cosine,
    own_counts,
    own_noise,
    smoothed_excess,
    unseen_fall,
    unseen_mass,
)
from toy_games.predictions.stability import breaking_distance

EXPERT = np.array([0.15, 0.2, 0.2, 0.2, 0.25])
BENDS = {"spin": 0.0, "spif": 0.0, "ipo": 0.0, "iq_learn": -1.0, "gail": 0.5, "policy_only": 1.0}
"""R''(0)/R'(0) of links."""


def chain(name, step, counts, own=1, smoothing=0.5, points=801):
    """Stationary mean of KL(data||pi) and of pi: two outcomes, ``counts`` of each in the data.

    Nothing is drawn: the own samples' binomial law is summed over on a grid of log-odds, between
    whose points a policy is split. The grid reaches 9 standard deviations to each side.
    """
    obj, k, n = objectives.get(name), np.asarray(counts, dtype=float), int(sum(counts))
    data = k[0] / n
    spread = np.sqrt(own_noise(step, own) / (n * data * (1.0 - data)))
    grid = logit(data) + spread * np.linspace(-9.0, 9.0, points)
    low, high = (
        binom.ppf(1e-15, n * own, expit(grid[0])),
        binom.isf(1e-15, n * own, expit(grid[-1])),
    )
    drawn = np.arange(int(low), int(high) + 1)
    chance = binom.pmf(drawn, n * own, expit(grid[:, None]))
    p = (k + smoothing) / (n + 2 * smoothing)
    q = (np.stack([drawn, n * own - drawn], -1) / own + smoothing) / (n + 2 * smoothing)
    delta = ((p - q) ** 2 / (p + q)).sum(-1, keepdims=True)
    reward = np.asarray(obj.link(np.log(p / q), delta))
    after = grid[:, None] + (reward[:, 0] - reward[:, 1]) / float(beta_at(obj, step))
    at = np.clip((after - grid[0]) / (grid[1] - grid[0]), 0.0, points - 1 - 1e-9)
    below = at.astype(int)
    moves, rows = np.zeros((points, points)), np.arange(points)[:, None]
    np.add.at(moves, (rows, below), chance * (1.0 - at + below))
    np.add.at(moves, (rows, below + 1), chance * (at - below))
    moves = np.linalg.matrix_power(moves / moves.sum(-1, keepdims=True), 2**10)
    law, policy = moves[points // 2], expit(grid)
    kl = data * np.log(data / policy) + (1.0 - data) * np.log((1.0 - data) / (1.0 - policy))
    return law @ kl, law @ policy


@pytest.mark.claim("T6.fixed_data_floor", "T16.own_counts", regime="tabular")
@pytest.mark.parametrize("name", BENDS)
@pytest.mark.parametrize(("step", "own"), [(0.5, 1), (1.2, 1), (1.0, 3)])
def test_the_exact_stationary_excess_and_mean_of_two_outcomes(claim, name, step, own):
    """The excess over the data's own law is s/((2-s)K)/2n, off by order 1/n, and its mean k + b."""
    errors = []
    for n in (200, 800):
        k = np.array([0.3 * n, 0.7 * n])
        kl, mean = chain(name, step, k, own)
        errors.append(kl * 2 * n / own_noise(step, own) - 1.0)
        b = own_counts(step, BENDS[name], own)
        predicted = (k[0] + b) / (n + 2 * b)
        found, expected = n * mean - k[0], n * predicted - k[0]
        claim.close(found, expected, 0.0 if b else 1e-6, rtol=20.0 / n,
                    what="counts added to a mean policy", because="expansion")  # fmt: skip
    what = "excess over s/((2-s)K)/2n, less 1, times n: order 1/n"
    claim.close(800 * errors[1], 0.0, 40.0, what=what, because="expansion")
    what = "what is neglected, at 4 times the samples over before"
    if abs(errors[1]) > 1e-3:
        claim.close(errors[1] / errors[0], 0.25, 0.1, what=what, because="expansion")


@pytest.mark.claim("T6.fixed_data_floor", "T16.own_counts", regime="tabular", drops="many_counts")
def test_a_response_of_a_few_samples_is_beyond_the_first_order(claim):
    kl, mean = chain("gail", 1.0, (4, 396))
    claim.exhibits(kl * 2 * 400 / own_noise(1.0), 2.0, what="excess over the predicted, GAIL")
    b = own_counts(1.0, 0.5)
    claim.exhibits(400 * mean - 4 - b, 1.0, what="counts of the mean policy over 4 + b, GAIL")


# -- sampled rounds -------------------------------------------------------------------------------


def play(name, step, p, start, record, seeds, n=1000, value="kl", **given):
    """``value`` (record, seeds) of sampled rounds, a data set a seed, from ``start`` (..., N)."""
    obj = None if name == "sft" else objectives.get(name)
    rows = pd.DataFrame({"seed": np.arange(seeds) + 300, "beta": float(beta_at(obj, step))})
    wide = [np.array(np.broadcast_to(law, (seeds, len(p)))) for law in (p, start)]
    run = SampledRounds(obj, rows, *wide, **({"samples": n, "fixed_data": True} | given))
    table = simulator.run(run, record, progress=False)
    return table.pivot(index="step", columns="seed", values=value).to_numpy()


def data_of(p, seeds, n):
    """Frequencies (seeds, N) of the data sets that `play` has, by the engine's own counts."""
    rows = pd.DataFrame({"seed": np.arange(seeds) + 300, "beta": 1.0})
    wide = np.repeat(p[None], seeds, 0)
    run = SampledRounds(None, rows, wide, np.log(wide), samples=n, fixed_data=True)
    return run.counts("expert", run.expert, 0).numpy() / n


def start_at(p, share):
    """A log-law (N,) at about KL(p||pi) = share, along a fixed direction; and that KL."""
    v = np.array([1.0, -1.0, 0.5, -0.5, 0.3])
    v -= p @ v
    q = p * np.exp(v * np.sqrt(2.0 * share / (p @ v**2)))
    return np.log(q / q.sum()), float(laws.kl(p, q / q.sum()))


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics")
def test_kl_on_one_data_set_is_a_multiple_of_chi_squared(claim):
    """n KL tends to (1 + s/((2-s)K))/2 times chi^2 of N - 1: a test of the whole law, 1 % level."""
    step, n = 1.0, 1000
    kl = play("spif", step, EXPERT, np.log(EXPERT), [15], 600, n)[0]
    scale = float(fixed_data_floor(step, 5, n)) / 4
    value = kstest(kl / scale, "chi2", args=(4,)).pvalue
    what = "p-value of Kolmogorov and Smirnov's test, 600 data sets"
    claim.exhibits(value, 0.01, what=what)
    half = kstest(kl / (scale / 2), "chi2", args=(4,)).pvalue
    claim.below(half, 1e-6, what="p-value without the own noise", because="chosen")


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics", drops="one_data_set")
def test_with_fresh_expert_samples_small_steps_go_below_the_likelihood(claim):
    kl = play("spif", 0.1, EXPERT, np.log(EXPERT), range(50, 91, 5), 60, fixed_data=False)
    predicted = float(fixed_data_floor(0.1, 5, 1000))
    claim.exhibits(predicted / kl.mean(), 5.0, what="floor of one data set over KL, fresh samples")


@pytest.mark.claim("T16.early_stop", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "step", "own", "far"), [("spif", 0.3, 1, 1.5), ("spin", 0.3, 4, 2.0)]
)
def test_rounds_that_stop_early_shrink_to_their_start(claim, name, step, own, far):
    """Own noise against the noise-free path on the same data; that path against its formula."""
    n, seeds, record = 1000, 300, [1, 2, 3, 4, 6, 10]
    floor = 4 / (2 * n)
    start, begun = start_at(EXPERT, far * floor)
    kl = play(name, step, EXPERT, start, record, seeds, n, per_expert=own)

    def quiet(data, t):
        """KL of the mean path: the start to the power (1-s)^t, the data to the rest."""
        left = (1.0 - step) ** t
        law = np.exp(left * start) * data ** (1.0 - left)
        return laws.kl(EXPERT, law / law.sum(-1, keepdims=True))

    data = data_of(EXPERT, seeds, n)
    many = np.random.default_rng(3).multinomial(n, EXPERT, 200_000) / n
    steps = np.full(4, step)
    for t, found in zip(record, kl, strict=True):
        left = (1.0 - step) ** t
        excess = found - quiet(data, t)
        error = excess.std(ddof=1) / np.sqrt(seeds)
        noise = float(own_noise(step, own)) * (1.0 - left**2) * floor
        what = "KL above the noise-free path's: 4 standard errors and the next order"
        claim.close(excess.mean(), noise, 4 * error, rtol=0.03, what=what, because="sampling")
        predicted = float(kl_after(t, steps, n, own, begun / 4))
        what = "mean KL of that path and own noise, against the formula; next order"
        mean = quiet(many, t).mean() + noise
        claim.close(mean, predicted, 0.0, rtol=0.06, what=what, because="expansion")
    best = best_stop(step, 5, n, own, begun)
    mean, error = kl.mean(-1), kl.std(-1, ddof=1) / np.sqrt(seeds)
    at = int(mean.argmin())
    what = "KL at the best stop and 4 standard errors, against the likelihood's"
    claim.below(mean[at] + 4 * error[at], floor, what=what, because="sampling")
    what = "log of the share left at the best stop over the formula's: one round"
    ahead = np.log1p(-step) * (record[at] - float(best.rounds))
    claim.close(ahead, 0.0, 2.1 * abs(np.log1p(-step)), what=what, because="chosen")


@pytest.mark.claim("T16.early_stop", regime="tabular")
@settings(max_examples=60)
@given(st.floats(0.02, 1.9), st.integers(1, 8), st.floats(0.01, 50.0))
def test_the_best_stop_is_the_least_of_all_rounds_and_never_below_sfts(claim, step, own, far):
    """Against a search over the share that is left, and against the same rounds without noise."""
    n, outcomes = 500, 7
    floor = (outcomes - 1) / (2.0 * n)
    best = best_stop(step, outcomes, n, own, far * floor)
    g, v = np.linspace(0.0, 1.0, 20_001), float(own_noise(step, own))
    path = g**2 * far * floor + floor * ((1 - g) ** 2 + v * (1 - g**2))
    claim.close(best.kl, path.min(), 1e-6 * floor, rtol=1e-7, what="least KL over the rounds")
    sft = far * floor / (1.0 + far)
    claim.below(sft, float(best.kl), what="least KL of SFT's natural steps", atol=1e-15)
    gains = far < (1 / v - 1 + v if v < 1 else 1.0)
    what = "below the likelihood's KL iff D < F(1/v - 1 + v), or D < F for v >= 1"
    claim.exact(bool(best.kl < floor) == gains, what)


@pytest.mark.claim("T16.smoothing", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "p", "step"),
    [("spif", np.full(5, 0.2), 1.5), ("spin", np.array([0.1, 0.2, 0.3, 0.4]), 1.0)],
)
def test_counts_added_shorten_the_steps_of_rare_responses(claim, name, p, step):
    """A quarter of the mean count more: less excess, around the data's law, no smoothed one."""
    n, seeds = 1000, 120
    a = n / (4.0 * len(p))
    record = range(20, 61, 5)
    found = play(name, step, p, np.log(p), record, seeds, n, smoothing=a)
    data = data_of(p, seeds, n)
    own = laws.kl(p, data)
    excess = found.mean(0) - own
    error = excess.std(ddof=1) / np.sqrt(seeds)
    predicted = float(smoothed_excess(step, n * p, a))
    what = "excess over the likelihood's KL: 4 standard errors and the next order"
    claim.close(excess.mean(), predicted, 4 * error, rtol=0.03, what=what, because="sampling")
    unsmoothed = float(smoothed_excess(step, n * p, 0.0))
    what = "predicted excess without smoothing over that with it"
    claim.exhibits(unsmoothed / predicted, 1.2, what=what)


@pytest.mark.claim("T16.smoothing", regime="tabular")
@pytest.mark.parametrize("step", [0.3, 1.0, 1.7])
def test_the_smoothed_excess_is_that_of_the_linear_rounds(claim, step):
    """Exactly so for equal counts; for others it lies above, at most 6 % on these laws."""
    n = 100
    for p in (np.full(5, 0.2), np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.02, 0.08, 0.3, 0.6])):
        equal, mean = np.ptp(p) == 0, np.eye(len(p)) - p  # takes the mean under p off
        for a in (1.0, 10.0, 50.0, 500.0):
            pull = np.diag(step * n * p / (n * p + a))
            noise = mean @ pull @ (np.diag(1.0 / p) - 1.0) @ pull @ mean.T / n
            sigma = solve_discrete_lyapunov(mean @ (np.eye(len(p)) - pull) @ mean, noise)
            exact = 0.5 * p @ np.diag(sigma)
            found = float(smoothed_excess(step, n * p, a)) / exact
            claim.below(1.0, found, what="formula over the linear rounds' excess", atol=1e-9)
            claim.close(found, 1.0, 1e-9 if equal else 0.06, what="the same, equal counts"
                        if equal else "the same, other counts", because="expansion")  # fmt: skip


@pytest.mark.claim("T16.smoothing", regime="dynamics", drops="both_smoothed")
def test_supervised_fine_tuning_rests_at_the_smoothed_data(claim):
    """It has no own samples that cancel the counts."""
    p, n, a = np.array([0.1, 0.2, 0.3, 0.4]), 1000, 100.0
    kl = play("sft", 1.0, p, np.log(p), [3], 40, n, smoothing=a)[0]
    shifted = float(laws.kl(p, (n * p + a) / (n + 4 * a)))
    error = kl.std(ddof=1) / np.sqrt(len(kl))
    claim.close(kl.mean(), shifted + 3 / (2 * n), 4 * error, what="KL of SFT with 100 counts more",
                because="sampling")  # fmt: skip
    claim.exhibits(shifted / (3 / (2 * n)), 5.0, what="KL of the smoothed law over (N-1)/2n")


@pytest.mark.claim("T16.early_stop", regime="dynamics", drops="near_expert")
def test_from_afar_bounded_rounds_keep_more_of_the_start(claim):
    start = np.log(np.array([1e-6, 0.3, 0.3, 0.2, 0.2 - 1e-6]))
    begun = float(laws.kl(EXPERT, np.exp(start)))
    kl = play("spif", 0.5, EXPERT, start, [4], 20)[0].mean()
    what = "KL of SPIF after 4 rounds from 12 nats over the formula's"
    claim.exhibits(kl / kl_after(4, np.full(4, 0.5), 1000, 1, begun / 4), 5.0, what=what)


@pytest.mark.claim("T16.trained_start", regime="dynamics")
@pytest.mark.parametrize("far", [0.15, 1.5])
def test_rounds_from_a_start_that_the_same_data_trained(claim, far):
    """A third of the way to the data's law: rounds improve on it from afar and not from near."""
    n, seeds, step, own, learned = 1000, 300, 0.3, 4, 1.0 / 3.0
    floor = 4 / (2 * n)
    begun, distance = start_at(EXPERT, far * floor)
    data = data_of(EXPERT, seeds, n)
    mixed = (1.0 - learned) * begun + learned * np.log(data)
    kl = play("spin", step, EXPERT, mixed, [0, 2, 6], seeds, n, per_expert=own)
    predicted = kl_after([0, 2, 6], np.full(4, step), n, own, distance / 4, learned)
    for t in (1, 2):
        change, expected = kl[t] - kl[0], float(predicted[t] - predicted[0])
        error = change.std(ddof=1) / np.sqrt(seeds)
        what = "change of KL over 2 and 6 rounds: 4 standard errors and the next order"
        claim.close(change.mean(), expected, 4 * error, rtol=0.05, what=what, because="sampling")
    v = float(own_noise(step, own))
    border = learned / (1 - learned) + v / (1 - learned) ** 2
    change = kl[1] - kl[0]
    sure = np.sign(far - border) * -change.mean() / (change.std(ddof=1) / np.sqrt(seeds))
    claim.exhibits(sure, 4.0, what="change of KL in the border's sense, in standard errors")
    best = best_stop(step, 5, n, own, distance, learned)
    claim.exact(bool(best.left < 1.0) == (far > border), "the best stop is not the start")


@pytest.mark.claim("T16.early_stop", regime="dynamics", drops="own_start")
def test_from_the_likelihood_itself_rounds_only_add_noise(claim):
    n, step = 1000, 0.5
    data = data_of(EXPERT, 200, n)
    kl = play("spif", step, EXPERT, np.log(data), [0, 1, 2, 3, 5], 200, n)
    for change in kl[1:] - kl[0]:
        sure = change.mean() / (change.std(ddof=1) / np.sqrt(len(change)))
        claim.exhibits(sure, 4.0, what="rise of KL after 1, 2, 3, 5 rounds, in standard errors")
    best = best_stop(step, 5, n, 1, 4 / (2 * n))
    what = "share of KL that stopping early takes off a start as far that saw no data"
    claim.exhibits(1.0 - best.kl / (4 / (2 * n)), 0.2, what=what)


# -- unseen responses -----------------------------------------------------------------------------

UNSEEN = np.array([0.3, 0.3, 0.4, 0.0])


@pytest.mark.claim("T16.unseen", "T6.tail", regime="dynamics")
@pytest.mark.parametrize("fall", [0.05, 0.5, 1.0, 2.0])
def test_an_unseen_response_forgets_where_it_began(claim, fall):
    """The process of first order in q: own samples take L nats each; 4 errors and the start's."""
    rng, own, rounds = np.random.default_rng(11), 50, 4000
    for begun in (0.01, 0.002):
        log = np.full(4000, np.log(begun))
        for _ in range(rounds):
            log -= fall * rng.binomial(own, np.exp(log))
        mass, mean = unseen_mass(fall, own, rounds)
        left = 1.0 / (begun * own * rounds * fall)  # of first order in the start
        error = np.exp(log).std() / 63 / mass
        what = "mean mass over 1/(m t L): 4 standard errors, and the start"
        claim.close(np.exp(log).mean() / mass, 1.0, 4 * error + left, what=what, because="sampling")
        error = log.std() / 63
        what = "mean log mass: 4 standard errors, and the start"
        claim.close(log.mean(), mean, 4 * error + left, what=what, because="sampling")


@pytest.mark.claim("T16.unseen", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "own", "smoothing"), [("spif", 1, 0.0), ("spif", 1, 0.5), ("spin", 2, 0.5)]
)
def test_rounds_lower_a_response_that_the_data_lack_like_one_over_rounds(
    claim, name, own, smoothing
):
    """Beside sampling: the start, 1/(q_0 m t L), a second sample in a round, as much again, and
    the normaliser's drift, s N b t/n."""
    step, n, seeds, record = 0.5, 1000, 250, [30, 60]
    fall = unseen_fall(objectives.get(name), step, own, smoothing)
    begun = 1.0 / (n * own)
    start = np.log(np.append(UNSEEN[:3] * (1.0 - begun), begun))
    given = {"value": "outside", "per_expert": own, "smoothing": smoothing}
    log = np.log(play(name, step, UNSEEN, start, record, seeds, n, **given))
    mean = unseen_mass(fall, n * own, np.array(record))[1]
    drift = step * 4 * float(own_counts(step, 0.0, own)) * np.array(record) / n
    rest = 4 * log.std(-1, ddof=1) / np.sqrt(seeds) + drift
    rest += 2.0 / (fall * np.array(record))
    what = "mean log mass: 4 standard errors, the start and the drift"
    claim.close(log.mean(-1), mean, rest, what=what, because="sampling")


@pytest.mark.claim("T16.unseen", regime="dynamics", drops="bounded_link")
def test_without_smoothing_an_unbounded_link_ends_an_unseen_response_at_once(claim):
    claim.exact(np.isinf(unseen_fall(objectives.get("spin"), 0.5, 1, 0.0)), "L is infinite")
    start = np.log(np.array([0.297, 0.297, 0.396, 0.01]))
    given = {"value": "outside", "smoothing": 0.0}
    mass = play("spin", 0.5, UNSEEN, start, [1, 30], 20, 1000, **given)
    claim.exact(bool((mass[1] == 0.0).all()), "nothing is left of 1 % after 30 rounds")


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics", drops="covered")
def test_where_the_data_lack_a_response_kl_grows_without_end(claim):
    """An expert's response of mass .0005, none of it in 1,000 samples: KL grows by p an e-fold."""
    p = np.array([0.0005, 0.3, 0.3, 0.3995])
    start = np.log(np.array([0.02, 0.3, 0.3, 0.38]))
    missing = data_of(p, 300, 1000)[:, 0] == 0
    kl = play("spif", 1.0, p, start, [12, 60], 300, smoothing=0.0)[:, missing]
    claim.exhibits(missing.sum(), 100, what="data sets without the response")
    grown = (kl[1] - kl[0]).mean() / (p[0] * np.log(5.0))
    claim.exhibits(grown, 0.3, what="growth of KL over p for each e-fold of rounds")


# -- gradient steps -------------------------------------------------------------------------------

SPECTRUM = np.array([0.05, 0.15, 0.3, 0.5])


def spectrum(p):
    """Fisher's matrix of a softmax, its positive eigenvalues and their vectors."""
    fisher = np.diag(p) - np.outer(p, p)
    values, vectors = np.linalg.eigh(fisher)
    return fisher, values[1:], vectors[:, 1:]


@pytest.mark.claim("T16.inner_floor", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "step", "rate", "k"), [("spif", 1.2, 2.0, 5), ("spin", 1.5, 3.0, 3)]
)
def test_the_floor_of_rounds_of_k_steps(claim, name, step, rate, k):
    """m own samples a round, exact gradients on them: sum s_i/(2-s_i)/2m over the directions."""
    m, seeds = 2000, 100
    _, values, _ = spectrum(SPECTRUM)
    beta = float(beta_at(objectives.get(name), step))
    rows = pd.DataFrame({"seed": np.arange(seeds), "beta": beta, "rate": rate})
    run = SelfPlay(
        Softmax(4), name, rows.assign(steps_per_round=k), SPECTRUM, np.log(SPECTRUM),
        Data(batch=None, own_samples=m), {"kl": kl_to_expert},
    )  # fmt: skip
    table = simulator.run(run, np.arange(30, 110, 4) * k, progress=False)
    each = table.groupby("seed").kl.mean().to_numpy()
    predicted = float(own_noise(inner_steps(step, rate, values, k)).sum() / (2 * m))
    error = each.std(ddof=1) / np.sqrt(seeds)
    what = "KL to the data's law: 4 standard errors and the next order"
    claim.close(each.mean(), predicted, 4 * error, rtol=0.01, what=what, because="sampling")
    solved = float(own_noise(step)) * 3 / (2 * m)
    claim.exhibits(solved / predicted, 1.3, what="floor of solved rounds over it")


@pytest.mark.claim("T16.inner_floor", regime="dynamics", drops="matched_slopes")
def test_nwjs_floor_is_another(claim):
    """Its own samples weigh |b'(0)| = 1/e of the expert's, and its loss has another step."""
    m, step, rate, k = 2000, 1.5, 3.0, 3
    _, values, _ = spectrum(SPECTRUM)
    beta = float(beta_at(objectives.get("nwj"), step))
    rows = pd.DataFrame({"seed": np.arange(40), "beta": beta, "rate": rate})
    run = SelfPlay(
        Softmax(4), "nwj", rows.assign(steps_per_round=k), SPECTRUM, np.log(SPECTRUM),
        Data(batch=None, own_samples=m), {"kl": kl_to_expert},
    )  # fmt: skip
    found = simulator.run(run, np.arange(30, 110, 4) * k, progress=False).kl.mean()
    predicted = own_noise(inner_steps(step, rate, values, k)).sum() / (2 * m)
    claim.exhibits(predicted / found, 2.0, what="floor for matched slopes over NWJ's")


@pytest.mark.claim("T16.early_stop", "T16.inner_floor", regime="dynamics")
@pytest.mark.parametrize(("name", "step", "own", "rate", "k"), [("spif", 0.5, 1, 0.7, 3)])
def test_rounds_of_k_steps_on_one_data_set_stop_early_direction_by_direction(
    claim, name, step, own, rate, k
):
    n, seeds, record = 2000, 250, np.array([1, 3, 8, 16])
    _, values, vectors = spectrum(SPECTRUM)
    off = np.array([0.06, -0.05, 0.04, -0.03])
    parts = 0.5 * values * (off @ vectors) ** 2  # KL of the start, by direction
    data = np.random.default_rng(8).multinomial(n, SPECTRUM, seeds)[:, None] / n
    rows = pd.DataFrame({"seed": np.arange(seeds), "steps_per_round": k, "rate": rate})
    run = SelfPlay(
        Softmax(4), name, rows.assign(beta=float(beta_at(objectives.get(name), step))),
        SPECTRUM, np.log(SPECTRUM) + off, Data(batch=None, own_samples=n * own),
        {"kl": kl_to_expert}, given={"data": data},
    )  # fmt: skip
    table = simulator.run(run, record * k, progress=False)
    kl = table.pivot(index="step", columns="seed", values="kl").to_numpy()
    steps = inner_steps(step, rate, values, k)
    predicted = kl_after(record, steps, n, own, parts)
    error = kl.std(-1, ddof=1) / np.sqrt(seeds)
    what = "mean KL after 1, 3, 8, 16 rounds: 4 standard errors and the next order"
    claim.close(kl.mean(-1), predicted, 4 * error, rtol=0.03, what=what, because="sampling")
    alike = kl_after(record, np.full(3, step), n, own, parts)
    what = "formula of solved rounds off it, in its standard errors, after 3 rounds"
    claim.exhibits(abs(kl.mean(-1) - alike)[1] / error[1], 8.0, what=what)


def moved(name, step, rate, k, first):
    """Parameters (5, N) that SFT's first gradient moves and that k steps of a round do, near p."""
    off = 1e-5 * np.random.default_rng(first).standard_normal((5, 4))
    obj = None if name == "sft" else objectives.get(name)
    rows = pd.DataFrame({"seed": range(5), "beta": float(beta_at(obj, step)), "rate": rate})
    run = SelfPlay(
        Softmax(4), obj, rows.assign(steps_per_round=10**6), SPECTRUM, np.log(SPECTRUM) + off,
        Data(batch=None),
    )  # fmt: skip
    state = run.start()
    begun = state["theta"].numpy().copy()
    for i in range(k):
        state = run.advance(state, i)
    return off, state["theta"].numpy() - begun


@pytest.mark.claim("T16.inner_path", regime="dynamics")
@settings(max_examples=8)
@given(
    st.sampled_from(["spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"]),
    st.floats(0.3, 6.0),
    st.integers(2, 20),
    st.floats(0.1, 0.9),
)
def test_within_a_round_directions_go_their_own_shares(claim, name, step, k, share):
    """Exact gradients: share 1 - rho^k a direction, the cosine with SFT's, SFT at s = 1."""
    fisher, values, vectors = spectrum(SPECTRUM)
    rate = share * step / values[-1]
    off, path = moved(name, step, rate, k, 2)
    gradient = -(off @ fisher) @ vectors
    steps = inner_steps(step, rate, values, k)
    size = np.abs(path).max()
    what = "way of a round of k steps in Fisher's eigenbasis"
    claim.close(path @ vectors / size, steps * gradient / values / size, 1e-3,
                what=what, because="expansion")  # fmt: skip
    found = (gradient * (path @ vectors)).sum(-1)
    found /= np.linalg.norm(gradient, axis=-1) * np.linalg.norm(path, axis=-1)
    claim.close(found, inner_cosine(values, gradient, steps), 1e-3,
                what="cosine with SFT's first gradient", because="expansion")  # fmt: skip
    _, sft = moved("sft", 1.0, share / values[-1], k, 2)
    at_one = moved(name, 1.0, share / values[-1], k, 2)[1]
    claim.close(at_one / np.abs(sft).max(), sft / np.abs(sft).max(), 1e-3,
                what="at s = 1: k steps of SFT", because="expansion")  # fmt: skip


@pytest.mark.claim("T16.inner_path", regime="tabular")
def test_a_round_leaves_sfts_direction_where_k_rate_lambda_reaches_its_step(claim):
    """The angle is (k-1) rate/2s times the spread of lambda, while that is small."""
    _, values, _ = spectrum(SPECTRUM)
    rng = np.random.default_rng(0)
    gradient = rng.standard_normal((20, 3)) * np.sqrt(values)
    for step in (0.3, 1.0, 8.0):
        rate = 2e-3 * step
        angle = np.arccos(inner_cosine(values, gradient, inner_steps(step, rate, values, 41)))
        predicted = inner_angle(step, rate, values, gradient, 41)
        claim.close(angle / predicted, 1.0, 0.05, what="angle over its first order",
                    because="expansion")  # fmt: skip
    end = np.arccos(inner_cosine(values, gradient, inner_steps(1.0, 1.0, values, 10**4)))
    solved = np.arccos(inner_cosine(values, gradient, np.ones(3)))
    claim.close(end, solved, 1e-6, what="a solved round's angle is the best response's")


@pytest.mark.claim("T16.inner_cone", regime="tabular")
@settings(max_examples=50)
@given(st.floats(0.2, 20.0), st.floats(0.01, 0.99), st.integers(2, 200), st.integers(0, 10**6))
def test_no_gradient_leaves_the_cone_and_two_directions_reach_its_edge(claim, step, share, k, seed):
    rng = np.random.default_rng(seed)
    values = np.sort(rng.uniform(0.001, 0.5, 6))
    rate = share * step / values[-1]
    steps = inner_steps(step, rate, values, k)
    least = float(least_cosine(step, rate, values, k))
    gradient = rng.standard_normal((200, 6)) * rng.exponential(1.0, (200, 6))
    found = inner_cosine(values, gradient, steps)
    claim.below(least, found.min(), what="least cosine, seen", atol=1e-12)
    way = (steps / values)[[0, -1]]
    edge = np.zeros(6)
    edge[[0, -1]] = np.sqrt(way[::-1] / way.sum())
    claim.close(inner_cosine(values, edge, steps), least, 1e-9, what="cosine at the edge")


@pytest.mark.claim("T16.inner_cone", regime="tabular")
@pytest.mark.parametrize(("step", "degrees"), [(10.0, 3.2), (3.0, 14.2)])
def test_rounds_that_hold_stay_near_sfts_direction(claim, step, degrees):
    """At the breaking distance in small steps, over spectra down to eigenvalue 0."""
    inner = 1e-4
    k = float(breaking_distance(step, inner)) / inner
    least = least_cosine(step, inner, np.array([1e-6, 0.1, 1.0]), k)
    angle = float(np.degrees(np.arccos(least)))
    claim.close(angle, degrees, 0.1, what="largest angle, degrees", because="theory")
    share = 2.0 / float(breaking_distance(step))
    bound = np.degrees(np.arccos(2.0 * np.sqrt(share) / (1.0 + share)))
    claim.close(angle, bound, 0.01, what="against its closed form", because="expansion")


@pytest.mark.claim("T16.inner_cone", regime="dynamics", drops="near_expert")
def test_from_afar_a_round_leaves_the_cone(claim):
    """A start on a response that the expert hardly gives: the loss is curved otherwise there."""
    expert = np.array([0.9, 0.05, 0.03, 0.02])
    _, values, _ = spectrum(expert)
    step, k = 1.0, 60
    rate = 0.05 / values[-1]
    beta = float(beta_at(objectives.get("spif"), step))
    rows = pd.DataFrame({"seed": [0], "beta": beta, "rate": rate, "steps_per_round": k})
    begun = np.log([1e-4, 0.9799, 0.018, 0.002])
    run = SelfPlay(Softmax(4), "spif", rows, expert, begun, Data(batch=None))
    state = run.start()
    path = [state["theta"].numpy()[0]]
    for i in range(k):
        state = run.advance(state, i)
        path.append(state["theta"].numpy()[0])
    first, way = path[1] - path[0], path[-1] - path[0]
    cosine = first @ way / np.linalg.norm(first) / np.linalg.norm(way)
    angles = np.degrees(np.arccos([cosine, float(least_cosine(step, rate, values, k))]))
    claim.exhibits(angles[0] / angles[1], 1.5, what="angle over the cone's")


@pytest.mark.claim("T16.inner_path", regime="dynamics", drops="matched_slopes")
def test_nwjs_round_bends_as_another_step(claim):
    """Its loss's own step is 1/(beta/e + 1 - 1/e) where its link's is 1/beta."""
    fisher, values, vectors = spectrum(SPECTRUM)
    step, rate, k = 4.0, 1.0, 12
    off, path = moved("nwj", step, rate, k, 5)
    gradient = -(off @ fisher) @ vectors
    predicted = inner_steps(step, rate, values, k) * gradient / values
    wrong = np.abs(path @ vectors - predicted).max() / np.abs(predicted).max()
    claim.exhibits(wrong, 0.1, what="way of k steps off the matched slopes', share of it")
    own = 1.0 / (1.0 / (step * np.e) + 1.0 - 1.0 / np.e)
    path_own = inner_steps(own, rate, values, k) * gradient / values
    claim.close(path @ vectors / np.abs(path_own).max(), path_own / np.abs(path_own).max(), 1e-3,
                what="way at the loss's own step", because="expansion")  # fmt: skip
