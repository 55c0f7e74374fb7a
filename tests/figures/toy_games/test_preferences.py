"""What the figure "preferences" shows is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import THEORY
from figures.toy_games import preferences as figure
from lab import stats
from tests.figures.tables import drawn, is_drawn, matched, part

SMALL = {
    "seeds": 3, "horizons": (25, 50), "ratios": (0.5, 2.0), "samples": (2, 8), "groups": 20,
    "floor_rounds": 20, "pair_samples": (16, 64), "group_limit": 16, "steps": 10,
}  # fmt: skip


def test_a_small_run_is_drawn():
    is_drawn(figure, figure.table(dataclasses.replace(figure.SETTINGS, **SMALL)))


def test_what_is_drawn():
    table = drawn("preferences")
    gap = part(table, "gap").pivot(index="x", columns="series", values="y")
    bound = part(table, "gap", THEORY, series="bound").set_index("x").y
    assert (gap["rps, average"] < bound).all()
    assert gap["rps, last"].iloc[-1] > 5 * gap["rps, average"].iloc[-1]
    assert gap["bradley_terry, last"].iloc[-1] < 1e-3
    for name in ("rps, average", "low_rank, average"):
        assert stats.fit_line(np.log(gap.index), np.log(gap[name])).slope < -0.3

    rate = matched(table, "rate")
    np.testing.assert_allclose(rate.y, rate.theory, rtol=3e-3)
    grows = rate.set_index(["series", "x"]).y
    assert (grows["no anchor"] > 1).all()
    assert (grows["anchored"][lambda y: y.index < 1] > 1).all()
    assert (grows["anchored"][lambda y: y.index > 1] < 1).all()
    promised = part(table, "rate", THEORY, series="theorem")
    assert grows["anchored"][8.0] < np.interp(8.0, promised.x, promised.y)

    for panel, room in (("bias", 0.0), ("floor", 0.25)):
        points = matched(table, panel)
        wide = (points.high - points.low) + room * points.theory
        assert ((points.y - points.theory).abs() < wide).all()

    one = part(table, "round").pivot(index="x", columns="objective", values="y").iloc[-1]
    level = part(table, "round", THEORY).groupby("objective").y.last()
    for name, of in (("dpo", "dpo"), ("sft", "sft"), ("spif", "sppo")):
        np.testing.assert_allclose(one[name], level[of], rtol=0.3)
    assert one.ipo < 0.5 * one.spif < one.dpo
