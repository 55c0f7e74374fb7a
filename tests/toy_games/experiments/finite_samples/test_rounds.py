"""T13, T16: rounds on n samples: overfitting, SFT at its best step, finite classes, real text."""

import functools

import numpy as np
import pytest

from lab.stats import fit_line
from theory import laws
from toy_games.experiments import finite_samples as finite


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
