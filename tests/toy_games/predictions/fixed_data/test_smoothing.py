"""T16: counts added to the data, and responses that the data lack."""

import numpy as np
import pytest
from scipy.linalg import expm, solve_discrete_lyapunov

from tests.toy_games.predictions.fixed_data.sampled import data_of, play
from theory import laws, objectives
from toy_games.predictions.fixed_data import own_counts, smoothed_excess, unseen_fall, unseen_mass


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


UNSEEN = np.array([0.3, 0.3, 0.4, 0.0])


@pytest.mark.claim("T16.unseen", "T6.tail", regime="dynamics")
@pytest.mark.parametrize("fall", [0.05, 0.5, 1.0, 2.0])
def test_short_falls_forget_where_an_unseen_response_began(claim, fall):
    """The process of first order in q: own samples take L nats each; 4 errors and the start's."""
    rng, own, rounds = np.random.default_rng(11), 50, 4000
    for begun in (0.01, 0.002):
        log = np.full(4000, np.log(begun))
        for _ in range(rounds):
            log -= fall * rng.binomial(own, np.exp(log))
        mass, mean = unseen_mass(fall, own, rounds, start=begun)
        left = 1.0 / (begun * own * rounds * fall)  # of first order in the start
        error = np.exp(log).std() / 63 / mass
        what = "mean mass over 1/(m t L): 4 standard errors, and the start"
        claim.close(np.exp(log).mean() / mass, 1.0, 4 * error + left, what=what, because="sampling")
        error = log.std() / 63
        what = "mean log mass: 4 standard errors, and the start"
        claim.close(log.mean(), mean, 4 * error + left, what=what, because="sampling")


@pytest.mark.claim("T16.unseen", regime="tabular")
@pytest.mark.parametrize("fall", [0.5, 1.0, 2.0, 3.8, 6.0, 12.0])
def test_an_unseen_responses_mass_swings_in_the_log_of_the_rounds(claim, fall):
    """The exact law of the number of falls, a chain of rates q_0 e^{-jL}, by the matrix
    exponential; beside it the next poles, of relative order 1/((e^L - 1) m t q_0)."""
    falls = np.arange(int(60.0 / fall) + 60)
    rates = np.exp(-fall * falls)
    chain = np.diag(rates[:-1], -1) - np.diag(rates)
    begun, own, ratios = 0.01, 5, []
    for rounds in np.geomspace(2e5, 2e5 * np.exp(fall), 4):
        law = expm(begun * own * rounds * chain)[:, 0]
        mass, log = unseen_mass(fall, own, rounds, start=begun)
        allowed = 4.0 / (np.expm1(fall) * begun * own * rounds)
        what = "mean mass over the poles' sum"
        claim.close(begun * (law @ rates) / mass, 1.0, allowed, what=what, because="theory")
        exact = np.log(begun) - fall * (law @ falls)
        claim.close(log, exact, allowed + 1e-8, what="mean log mass", because="theory")
        ratios.append(mass / unseen_mass(fall, own, rounds)[0])
    if fall >= 3.8:
        claim.exhibits(np.ptp(ratios), 0.5, what="most less least of m t L E q over a period")


@pytest.mark.claim("T16.unseen", regime="dynamics")
def test_long_steps_show_the_swing_and_keep_the_start_s_phase(claim):
    """Beside sampling: a second own sample in a round, which takes less than the first."""
    step, n, seeds, record = 1.9, 300, 800, [40, 100]
    fall, begun = unseen_fall(objectives.get("spif"), step, 1, 0.0), 1e-3
    expert, start = np.array([1.0, 0.0]), np.log([1.0 - begun, begun])
    given = {"value": "outside", "smoothing": 0.0}
    mass = play("spif", step, expert, start, record, seeds, n, **given)
    steady = unseen_mass(fall, n, np.array(record))[0]
    found = mass.mean(-1) / steady
    swing = unseen_mass(fall, n, np.array(record), start=begun)[0] / steady
    error = 4 * mass.std(-1, ddof=1) / np.sqrt(seeds) / steady
    claim.close(found, swing, error + n * begun / 4, what="m t L E q", because="sampling")
    claim.exhibits(np.ptp(found), 0.5, what="most less least of m t L E q")


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
