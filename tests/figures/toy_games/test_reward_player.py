"""What the figure "reward_player" and README's T18 say is true of the numbers drawn."""

import numpy as np

from figures.tidy import MEASURED, THEORY
from figures.toy_games import reward_player as figure
from tests.figures.tables import drawn, is_drawn, part


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


def test_the_tiny_model_s_errors_are_those_of_the_readme():
    rows = figure.means(figure.tiny_rounds())
    law = figure.spectrum(rows)
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
