"""T16: rounds on one data set that stop early, by where they start."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.predictions.fixed_data.sampled import EXPERT, data_of, play, start_at
from theory import laws
from toy_games.predictions.fixed_data import best_stop, kl_after, own_noise


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
