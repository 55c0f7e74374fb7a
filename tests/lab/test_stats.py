"""Intervals and slopes cover as often as they say, and few seeds are refused."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lab.stats import (
    centred,
    differences,
    fit_line,
    interval,
    intervals,
    regression,
    standard_error,
    student,
)  # fmt: skip
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


def test_an_interval_of_values_is_that_of_a_table():
    values = [1.0, 2.0, 4.0]
    found = interval(values)
    (row,) = intervals(pd.DataFrame({"group": 0, "kl": values}), ["group"], "kl").itertuples()
    assert found.mean == row.mean
    assert found.mean + found.half == pytest.approx(row.high, rel=1e-12)
    assert student(3, 0.9) == pytest.approx(stats.t.ppf(0.95, 2), rel=1e-12)
    assert np.isnan(interval([1.0, 2.0]).half)
    assert standard_error([3.0]) == 0.0
    assert standard_error(values) == pytest.approx(stats.sem(values), rel=1e-12)


def test_a_line_is_that_of_scipy():
    x, y = np.array([0.0, 1.0, 3.0, 4.0]), np.array([1.0, 0.0, -3.0, -2.0])
    found, known = fit_line(x, y), stats.linregress(x, y)
    assert found[:2] == pytest.approx((known.slope, known.intercept), rel=1e-12)
    half = known.stderr * stats.t.ppf(0.975, 2)
    assert found.slope_interval == pytest.approx(half, rel=1e-12)
    assert fit_line(x[:2], y[:2]).slope_interval == 0.0


def test_centred_values_have_mean_zero_under_their_weights_or_in_their_group():
    rng = np.random.default_rng(2)
    values, weight = rng.standard_normal((2, 3, 4)), rng.random((2, 3, 4))
    assert np.abs(centred(values).sum(-1)).max() < 1e-14
    assert np.abs((weight * centred(values, weight)).sum(-1)).max() < 1e-14
    grouped = centred(np.array([1.0, 5.0, 3.0, 9.0]), group=np.array([7, 2, 7, 2]))
    assert grouped.tolist() == [-1.0, -2.0, 1.0, 2.0]


def test_a_regression_by_hand():
    x, y, w = np.array([[1.0, -1.0], [2.0, -2.0]]), np.array([[2.0, -1.0], [3.0, -5.0]]), 0.5
    found = regression(x, y, np.full_like(x, w))
    slope = (2.0 + 1.0 + 6.0 + 10.0) / 10.0
    rest = np.array([0.1, -1.0 * 0.9, 2.0 * -0.8, -2.0 * -1.2])  # x (y - 1.9 x)
    assert found.slope == pytest.approx(slope)
    assert found.error == pytest.approx(np.sqrt((rest**2).sum()) / 10.0)
    assert found.correlation == pytest.approx(19.0 / np.sqrt(10.0 * 39.0))
    rows = regression(x, y, cluster=np.array([[0], [1]]))
    assert rows.error == pytest.approx(np.hypot(rest[:2].sum(), rest[2:].sum()) / 10.0)
    assert np.isnan(regression(0.0 * x, y)).all()
    assert np.isnan(regression(x, 0.0 * y).correlation)
    assert regression(x, 0.0 * y).slope == 0.0


def test_errors_of_slopes_are_their_spread_also_within_clusters():
    rng = np.random.default_rng(3)
    groups = np.repeat(np.arange(60), 4)
    found = []
    for _ in range(800):
        x = rng.standard_normal(60)[groups] + 0.2 * rng.standard_normal(240)
        noise = rng.standard_normal(60)[groups] * np.abs(x)
        found.append(regression(x, 0.5 * x + noise, cluster=groups)[:2])
    slopes, errors = np.transpose(found)
    assert abs(slopes.mean() - 0.5) < 4 * slopes.std() / np.sqrt(800)
    assert errors.mean() == pytest.approx(slopes.std(), rel=0.15)


def test_a_second_measurement_of_x_takes_the_bias_of_its_noise_away():
    rng = np.random.default_rng(4)
    x = rng.standard_normal(40_000)
    one, two = (x + rng.standard_normal(x.size) for _ in range(2))
    plain, both = regression(one, 2.0 * x), regression(one, 2.0 * x, again=two)
    assert abs(plain.slope - 1.0) < 0.05, "noise as large as x halves the slope"
    assert abs(both.slope - 2.0) < 4 * both.error
    assert abs(both.correlation - 1.0) < 0.05


def test_two_measurements_of_nothing_have_no_slope():
    """Their products' sum is near 0, and what is divided by it is of any size."""
    rng = np.random.default_rng(5)
    found = []
    for _ in range(200):
        one, two, y = (rng.standard_normal((50, 4)) for _ in range(3))
        found.append(regression(one, y, cluster=np.arange(50)[:, None], again=two).slope)
    assert np.isnan(found).sum() > 180
    assert np.nanmax(np.abs(found)) < 10.0
    one = np.zeros((50, 4))
    one[0] = 1e-7
    assert np.isnan(regression(one, y, cluster=np.arange(50)[:, None], again=one)).all()


def test_differences_are_of_rows_with_the_same_seed():
    table = pd.DataFrame(
        {"method": ["sft", "sft", "spin", "spin"], "seed": [0, 1, 1, 0], "kl": [1.0, 2.0, 2.5, 4.0]}
    )
    found = differences(table, "method", "sft", ["seed"], ["kl"])
    assert found.to_dict("list") == {"method": ["spin"] * 2, "seed": [1, 0], "kl": [0.5, 3.0]}
    with pytest.raises(InvalidInput, match="rows without one of 'sft' of equal seed"):
        differences(table[1:], "method", "sft", ["seed"], ["kl"])
    with pytest.raises(InvalidInput, match="several rows of equal seed"):
        differences(pd.concat([table, table[:1]]), "method", "sft", ["seed"], ["kl"])
