"""The picture of the two players is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import MEASURED, THEORY
from figures.toy_games import players as players_figure
from tests.figures.test_figures_tables import matched, tidy


def test_players(monkeypatch):
    small = dataclasses.replace(
        players_figure.SETTINGS,
        seeds=3,
        steps=250,
        objectives=("airl",),
        penalties=(0.7, 3.0),
        features=(2, 11),
        mixtures=(0.0, 0.3),
    )
    monkeypatch.setattr(players_figure, "SETTINGS", small)
    table = tidy(players_figure)
    measured = table[table.kind == MEASURED]
    last = measured[measured.panel == "no penalty"].groupby("series").y.last()
    assert last["simultaneous"] > 2.0
    assert 0.02 < last["alternating"] < 2.0
    assert max(last["extragradient"], last["optimistic"]) < 1e-2
    last = measured[measured.panel == "penalty"].groupby("series").y.last()
    assert last[list(players_figure.LOOKS)].max() < 1e-2
    floor = measured[(measured.series == "minibatch") & (measured.x > 100)].y
    level = table[(table.series == "minibatch") & (table.kind == THEORY)].y.iloc[0]
    assert abs(np.log(floor.mean() / level)) < 0.5
    rates = measured[measured.panel == "rates"]
    assert len(rates) == 3 * 4 * (1 + 1 + 1)
    within = (rates.low <= rates.x) & (rates.x <= rates.high)
    assert within.mean() > 0.9
    threshold = matched(table, "boundary")
    np.testing.assert_allclose(threshold.y, threshold.theory, rtol=0.06)
    ends = measured[measured.panel == "features"].pivot(index="x", columns="series", values="y")
    assert ends["KL-proximal, MLE"].max() < 1e-4
    assert ends.loc[2, "plain, MLE"] > 1e-3
    assert ends.loc[2, "KL-proximal, expert"] > 0.05
    assert ends.loc[11].max() < 1e-3
    classes = matched(table, "classes")
    np.testing.assert_allclose(classes.y, classes.theory, atol=1e-4)
    away = classes.groupby(["series", "x"]).y.first()
    assert away["features", 0.0] < 1e-4
    assert away["sft", 0.0] < 1e-9
    assert min(away["features", 0.3], away["table saddle", 0.0], away["table rounds", 0.0]) > 2e-3
