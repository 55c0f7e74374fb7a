"""Below effective step 2 all links are alike: floors on fresh and on fixed data, history."""

import numpy as np
import pandas as pd
import pytest

from tests.toy_games.experiments.stability.played import game, mean_and_error, play
from theory import laws, objectives
from theory.rounds.history import history_threshold
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.engine import simulator
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import fixed_data_floor
from toy_games.predictions.stability import noise_floor


@pytest.mark.claim("T6.noise_floor", "C5.same_below_two", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo", "nwj", "gail", "iq_learn"])
@pytest.mark.parametrize("step", [0.4, 1.3])
def test_the_noise_floor_is_a_function_of_the_effective_step_alone(claim, name, step):
    n, outcomes = 1000, 6
    p, _ = game(8, outcomes, 0.3)
    table = play(name, step, 0, p, np.log(p), record=range(60, 300, 4), samples=n)
    mean, error = mean_and_error(table)
    predicted = float(noise_floor(step, outcomes, n))
    # The next order of the expansion in the counts' errors, twice amplified by 1/(2 - s).
    second = 4.0 / (n * p.min() * (2.0 - step) ** 2)
    what = f"stationary KL, {name}: 4 standard errors and the next order in 1/n"
    claim.close(mean, predicted, 4.0 * error, rtol=second, what=what, because="sampling")


def floors_on_one_data_set(name, step, per_expert, samples=1500, first=12):
    """KL of rounds on one data set a seed (mean over late rounds), and of SFT on it, (seeds,)."""
    p = np.broadcast_to(game(1, 5, 0.3)[0], (70, 5)).copy()
    asked = {"samples": samples, "fixed_data": True}
    late = range(first, first + 36)
    own = play(name, step, 0, p, np.log(p), record=late, per_expert=per_expert, **asked)
    rows = pd.DataFrame({"seed": np.arange(70) + 50, "beta": 1.0})
    sft = simulator.run(SampledRounds(None, rows, p, np.log(p), **asked), [1], progress=False)
    return own.groupby("seed").kl.mean().to_numpy(), sft.sort_values("seed").kl.to_numpy()


@pytest.mark.claim("T6.fixed_data_floor", regime="dynamics")
@pytest.mark.parametrize(
    ("name", "step", "per_expert"),
    [("spif", 1.0, 1), ("spin", 0.5, 1), ("ipo", 1.4, 1), ("spin", 1.0, 2)],
)
def test_on_one_data_set_the_floor_is_never_below_sfts(claim, name, step, per_expert):
    """SFT's error stays, and own samples add s/((2-s)K) of it: 2/(2-s) times SFT's KL at K = 1."""
    n = 1500
    rounds, sft = floors_on_one_data_set(name, step, per_expert)
    predicted = float(fixed_data_floor(step, 5, n, per_expert))
    ours = predicted - 4 / (2 * n)
    excess = rounds - sft
    error = excess.std(ddof=1) / np.sqrt(len(excess))
    what = f"KL above SFT's on the same data, {name}: 4 standard errors and the next order"
    claim.close(excess.mean(), ours, 4.0 * error, rtol=0.03, what=what, because="sampling")
    what = "KL above SFT's, less 4 standard errors, over the predicted"
    claim.exhibits((excess.mean() - 4.0 * error) / ours, 0.6, what=what)
    error = sft.std(ddof=1) / np.sqrt(len(sft))
    what = "SFT's KL: (N-1)/2n, 4 standard errors"
    claim.close(sft.mean(), 4 / (2 * n), 4.0 * error, what=what, because="sampling")


@pytest.mark.claim("T6.noise_floor", regime="dynamics", drops="fresh_samples")
def test_the_floor_of_small_steps_does_not_vanish_on_one_data_set(claim):
    rounds, _ = floors_on_one_data_set("spif", 0.1, 1)
    claim.exhibits(rounds.mean() / noise_floor(0.1, 5, 1500), 7.0, what="KL over s/(2-s) (N-1)/n")


@pytest.mark.claim("T6.history", regime="tabular")
@pytest.mark.parametrize("name", ["spin", "spif"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.25, 0.4, 0.75, 1.0])
def test_history_in_the_opponent_moves_the_threshold(claim, name, share):
    """Exact rounds with opponent (1-m) pi_t + m pi_{t-1}: stable iff s < min(1/m, 2/(1-2m))."""
    border = min(1.0 / max(share, 1e-9), 2.0 / (1.0 - 2.0 * share) if share < 0.5 else np.inf)
    claim.close(history_threshold(share), border, 1e-12, what="threshold of the effective step")
    obj, rng = objectives.get(name), np.random.default_rng(6)
    p = laws.random_law(rng, (6,), 0.7)
    for step in (0.97 * border, 1.03 * border):
        path = [law / law.sum() for law in p * np.exp(1e-7 * rng.standard_normal((2, 6)))]
        while len(path) < 300 and np.abs(path[-1] / p - 1.0).max() < 1e-3:
            mixed = (1.0 - share) * path[-1] + share * path[-2]
            reward = np.asarray(obj.link(np.log(p / mixed)))
            law = path[-1] * np.exp(reward / float(beta_at(obj, step)))
            path.append(law / law.sum())
        x = np.array(path) / p - 1.0  # of mean 0 under p
        linear = (1.0 - step * (1.0 - share)) * x[1:-1] - step * share * x[:-2]
        small = np.abs(x[:-2]).max(-1) < 1e-6
        claim.close((x[2:] - linear)[small], 0.0, 1e-11, what="a round less the linear recursion")
        roots = np.roots([1.0, -(1.0 - step * (1.0 - share)), step * share])
        claim.exhibits((np.abs(roots).max() - 1.0) * np.sign(step - border), 0.01, what="root - 1")
        grown = np.abs(x[-10:]).max() / np.abs(x[5:15]).max()
        assert (grown > 1.0) == (step > border), (step, grown)


@pytest.mark.claim("C5.same_below_two", regime="dynamics", drops="matched_effective_step")
def test_unmatched_steps_make_stability_only_a_smaller_step(claim):
    """At equal beta SPIF (c = 1) seems twice as stable as SPIN; at twice the beta SPIN is too."""
    p, v = game(6, 9)
    start = far_start(p, v, np.full(6, 1.0))
    beta = 0.4  # SPIN's effective step 2.5, SPIF's 1.25
    asked = {"samples": 500, "record": range(80, 200, 4)}
    spin, spif, scaled = (
        mean_and_error(play(name, slope / b, 0, p, start, **asked))[0]
        for name, slope, b in (("spin", 1.0, beta), ("spif", 0.5, beta), ("spin", 1.0, 2 * beta))
    )
    claim.exhibits(spin / spif, 30.0, what="late KL of SPIN over SPIF's at equal beta")
    what = "late KL of SPIN at twice that beta over SPIF's"
    claim.below(scaled / spif, 1.3, what=what, because="chosen")


def test_unbounded_linear_links_are_one_algorithm():
    p, v = game(4, 8)
    start = far_start(p, v, np.full(4, 12.0))
    found = [
        play(n, 0.7, 0, p, start, record=range(30), samples=200).kl
        for n in ("spin", "exponential", "nwj")
    ]
    for kl in found[1:]:
        np.testing.assert_allclose(kl, found[0], atol=1e-9, rtol=1e-9)
