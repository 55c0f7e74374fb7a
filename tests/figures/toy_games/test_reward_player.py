"""What the figure "reward_player" and README's T18 say is true of the numbers drawn."""

import numpy as np
import pytest

from figures.tidy import MEASURED, THEORY
from figures.toy_games import reward_player as figure
from tests.figures.tables import drawn, is_drawn, part


@pytest.fixture(scope="module")
def law():
    """The spectrum that fits the tiny model's rounds."""
    return figure.spectrum(figure.means(figure.tiny_rounds()))


def test_a_small_run_is_drawn(monkeypatch):
    monkeypatch.setattr(figure, "RUNS", 3)
    monkeypatch.setattr(figure, "MANY", (60, 100))
    is_drawn(figure, figure.table())


def test_simulations_lie_on_their_lines():
    table = drawn("reward_player")
    for name, width in (("slope, time", 2.0), ("correlation, time", 2.0)):
        for count in figure.COUNTS:
            points, line = (
                part(table, name, series=s, kind=k)
                for s, k in ((f"n = {count:.0f}", MEASURED), (f"n = {count:.0f}", THEORY))
            )
            predicted = np.interp(points.x, line.x, line.y)
            assert np.all(np.abs(points.y - predicted) < width * (points.high - points.y) + 0.01)


def test_the_tiny_model_s_errors_are_those_of_the_readme(law):
    rows = figure.means(figure.tiny_rounds())
    rows = rows[rows.objective != "spin"]
    at = (rows.lr == figure.RATE) & ~((rows.objective == "ipo") & rows.prompts.isin(figure.FITTED))
    fit = rows[(rows.lr == figure.RATE) & ~at]
    constant = fit[["link_slope", "link_correlation"]].mean().to_numpy()

    def apart(some):
        measured = some[["link_slope", "link_correlation"]].to_numpy()
        foretold = [getattr(law, r.objective)(figure.made(r)) for r in some.itertuples()]
        return np.abs(np.array(foretold) - measured), np.abs(constant - measured)

    assert apart(fit)[0].max() < 0.055
    errors, null = apart(rows[at])
    assert len(errors) == 4
    assert errors.max() < 0.105
    assert np.sqrt((errors**2).mean()) < 0.4 * np.sqrt((null**2).mean())
    ipo = rows[(rows.objective == "ipo") & (rows.prompts == 2048)].sort_values("lr")
    assert np.all(np.diff([law.ipo(figure.made(r)).slope for r in ipo.itertuples()]) > 0)
    assert ipo.link_slope.iloc[-1] < ipo.link_slope.iloc[1] - 0.1
    assert apart(ipo.tail(1))[0].min() > 0.2


def test_the_tiny_model_s_share_of_noise_is_that_of_the_readme():
    rows = figure.means(figure.tiny_rounds())
    for name, ratios in (("ipo", (0.77, 0.91, 0.94)), ("spif", (0.89, 0.94, 0.94))):
        own = rows[(rows.objective == name) & (rows.lr == figure.RATE)].sort_values("prompts")
        square, half = own.link_correlation**2, own.delta / 2
        if name == "ipo":  # in the pairs' norm
            square = square * (1 + half) / (1 + square * half)
        np.testing.assert_allclose(square / own.link_slope, ratios, atol=0.006)


def test_spin_s_errors_are_those_of_the_readme(law):
    """Nothing fitted to it; the constants are IPO's."""
    rows = figure.means(figure.tiny_rounds())
    fit = rows[
        (rows.objective == "ipo") & (rows.lr == figure.RATE) & rows.prompts.isin((2048, 8192))
    ]
    constant = fit[["link_slope", "link_correlation"]].mean().to_numpy()
    rows = rows[rows.objective == "spin"].sort_values(["prompts", "lr"])
    own = rows[rows.lr == figure.RATE]
    measured = own[["link_slope", "link_correlation"]].to_numpy()
    errors = np.array([law.spin(figure.made(r)) for r in own.itertuples()]) - measured
    np.testing.assert_allclose(errors, [(0.16, 0.06), (0.03, -0.03), (-0.04, -0.05)], atol=0.006)
    null = constant - measured
    np.testing.assert_allclose(null, [(0.31, 0.10), (0.09, -0.07), (-0.07, -0.18)], atol=0.006)
    rates = rows[rows.prompts == 2048]
    slopes = [float(law.spin(figure.made(r)).slope) for r in rates.itertuples()]
    np.testing.assert_allclose(slopes, (0.49, 0.62, 0.80, 1.00), atol=0.006)
    np.testing.assert_allclose(rates.link_slope, (0.35, 0.45, 0.50, 0.50), atol=0.006)


def test_the_width_of_the_tiny_model_s_spectrum_pays_with_data_alone(law):
    """Not compared with a record: no recorded round has another width."""
    for prompts, slopes in ((2048, (0.20, 0.41, 0.60, 0.62)), (32768, (0.20, 0.39, 0.63, 0.79))):
        made = figure.Round(prompts, prompts / 32 * figure.RATE / 2, 0.77)
        found = [float(law.spin(made, width).slope) for width in (10, 100, 1000, 10_000)]
        np.testing.assert_allclose(found, slopes, atol=0.01)


def test_spin_s_simulations_lie_on_their_lines():
    table = drawn("reward_player")
    for count in figure.COUNTS:
        series = f"n = {count:.0f}"
        points = part(table, "correlation, SPIN", series=series)
        line = part(table, "correlation, SPIN", THEORY, series=series)
        predicted = np.interp(points.x, line.x, line.y)
        assert np.all(np.abs(points.y - predicted) < 100 * 0.025 / count)
        slopes = part(table, "slope, SPIN", series=series)
        exact = part(table, "slope, SPIN", THEORY, series="exact laws")
        early = slopes.x < 100
        predicted = np.interp(slopes.x, exact.x, exact.y)
        assert np.all(np.abs(slopes.y - predicted)[early] < 0.02)
        end = part(table, "slope, SPIN", THEORY, series=series).y.iloc[0]
        assert slopes.low.iloc[-1] > 1.0
        assert abs(slopes.y.iloc[-1] - end) < 0.35 * (end - 1.0)


def test_width_lifts_spin_past_one_in_long_training_alone():
    table = drawn("reward_player")
    short, long = (
        {n: part(table, f"width, {s}", objective=n, series="slope") for n in ("ipo", "spin")}
        for s in figure.RIDGES
    )
    assert np.all(short["spin"].y.to_numpy()[1:] < short["ipo"].y.to_numpy()[1:])
    assert np.all(long["ipo"].y < 1.0)
    assert long["spin"].low.iloc[-1] > 1.0
    assert long["spin"].y.iloc[1] < long["ipo"].y.iloc[1]
    lines = part(table, "width, long", THEORY, objective="spin", series="slope")
    assert 1.0 < lines.y.iloc[-1] / long["spin"].y.iloc[-1] < 1.2
    dips = {
        n: part(table, "width, long", objective=n, series="correlation").y.to_numpy()
        for n in ("ipo", "spin")
    }
    assert dips["ipo"][-2] < dips["ipo"][[-3, -1]].min()
    assert np.all(np.diff(dips["spin"]) > 0)


def test_many_features_meet_their_fixed_point():
    table = drawn("reward_player")
    for series in figure.PANELS:
        of = {"objective": "spin", "series": series}
        points = part(table, "many features", **of).y.to_numpy()
        line = part(table, "many features", THEORY, **of).y.to_numpy()
        assert np.abs(points / line - 1.0).max() < 0.045
