"""What the figures of two players show is true of the numbers that they are drawn from."""

import dataclasses

import numpy as np
import pytest

from figures.tidy import MEASURED, THEORY
from figures.toy_games import players, players_classes
from tests.figures.tables import drawn, is_drawn, matched, part

SMALL = {
    "seeds": 3, "steps": 20, "objectives": ("airl",), "penalties": (1.0,), "features": (2,),
    "mixtures": (0.0,), "batch": 4,
}  # fmt: skip


@pytest.mark.parametrize("figure", [players, players_classes])
def test_a_small_run_is_drawn(figure):
    is_drawn(figure, figure.table(dataclasses.replace(figure.SETTINGS, **SMALL)))


def test_paths_and_rates():
    table = drawn("players")
    last = part(table, "no penalty").groupby("series").y.last()
    assert last["simultaneous"] > 2.0
    assert 0.02 < last["alternating"] < 2.0
    assert max(last["extragradient"], last["optimistic"]) < 1e-2
    last = part(table, "penalty").groupby("series").y.last()
    assert last[list(players.LOOKS)].max() < 1e-2
    floor = part(table, "penalty", series="minibatch")
    level = part(table, "penalty", THEORY, series="minibatch").y.iloc[0]
    assert abs(np.log(floor[floor.x > 100].y.mean() / level)) < 0.5
    rates = part(table, "rates")
    within = (rates.low <= rates.x) & (rates.x <= rates.high)
    assert within.mean() > 0.9
    threshold = matched(table, "boundary")
    np.testing.assert_allclose(threshold.y, threshold.theory, rtol=0.06)
    assert set(rates.kind) == {MEASURED}


def test_small_reward_classes():
    table = drawn("players_classes")
    ends = part(table, "features").pivot(index="x", columns="series", values="y")
    assert ends["KL-proximal, MLE"].max() < 1e-4
    assert ends.loc[3, "plain, MLE"] > 1e-3
    assert ends.loc[3, "KL-proximal, expert"] > 0.05
    assert ends.loc[11].max() < 1e-3
    classes = matched(table, "classes")
    np.testing.assert_allclose(classes.y, classes.theory, atol=1e-4)
    away = classes.groupby(["series", "x"]).y.first()
    assert away["features", 0.0] < 1e-4
    assert away["sft", 0.0] < 1e-9
    assert min(away["features", 0.4], away["table saddle", 0.0], away["table rounds", 0.0]) > 2e-3
