"""Intervals over seeds cover as often as they say, and few seeds are refused."""

import numpy as np
import pandas as pd
import pytest

from lab.stats import fit_line, intervals
from theory.errors import InvalidInput


def test_intervals_cover_the_mean_nineteen_times_in_twenty():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"group": np.repeat(np.arange(4000), 5)})
    table["kl"] = 3.0 + 2.0 * rng.standard_normal(len(table))
    found = intervals(table, ["group"], "kl")
    assert found.columns.tolist() == ["group", "mean", "low", "high", "seeds"]
    covered = ((found.low <= 3.0) & (found.high >= 3.0)).mean()
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 4000)
    np.testing.assert_allclose(found["mean"], table.groupby("group").kl.mean())


def test_runs_that_diverged_are_not_left_out():
    table = pd.DataFrame({"group": [0] * 3 + [1] * 3, "kl": [1.0, np.nan, 2.0, 1.0, 2.0, 3.0]})
    found = intervals(table, ["group"], "kl")
    assert found["mean"].tolist() == [np.inf, 2.0]


def test_two_seeds_are_too_few():
    with pytest.raises(InvalidInput, match="2 values in a group; needed are 3 seeds"):
        intervals(pd.DataFrame({"group": [0, 0], "kl": [1.0, 2.0]}), ["group"], "kl")


def test_slopes_cover_too():
    rng = np.random.default_rng(1)
    x = np.linspace(0, 1, 8)
    fits = [fit_line(x, 2.0 - 3.0 * x + rng.standard_normal(8)) for _ in range(1500)]
    covered = np.mean([abs(fit.slope + 3.0) <= fit.slope_interval for fit in fits])
    assert abs(covered - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 1500)
    assert abs(np.mean([fit.intercept for fit in fits]) - 2.0) < 0.1


def test_an_interval_by_hand():
    table = pd.DataFrame({"group": ["b"] * 3 + ["a"] * 3, "kl": [1.0, 2.0, 4.0, 7.0, 7.0, 7.0]})
    first, second = intervals(table, ["group"], "kl").itertuples(index=False)
    mean, error = 7 / 3, (7 / 3) ** 0.5 / 3**0.5  # s^2 = (16/9 + 1/9 + 25/9) / 2
    assert first == ("b", pytest.approx(mean), pytest.approx(mean - 4.302653 * error, rel=1e-6),
                     pytest.approx(mean + 4.302653 * error, rel=1e-6), 3)  # fmt: skip
    assert first.low < 0, "symmetric, for a positive quantity too"
    assert second == ("a", 7.0, 7.0, 7.0, 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_leaves_no_end(bad):
    table = pd.DataFrame({"group": [0, 0, 0], "kl": [1.0, 2.0, bad]})
    (found,) = intervals(table, ["group"], "kl").itertuples()
    assert found.mean == np.inf
    assert not np.isfinite([found.low, found.high]).any()
