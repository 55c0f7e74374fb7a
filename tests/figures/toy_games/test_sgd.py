"""What the figure "sgd" shows is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import THEORY
from figures.toy_games import sgd as figure
from tests.figures.tables import drawn, is_drawn, matched, part

SMALL = {
    "ROUND": {"steps": 40},
    "FLOOR": {"seeds": 3, "steps": 20, "floor_rates": (0.2, 0.4)},
    "FACTOR": {"seeds": 3, "steps": 20, "objectives": ("spin", "renyi")},
    "STEPS": {"seeds": 3, "counts": (1, 8)},
}


def test_a_small_run_is_drawn(monkeypatch):
    for name, given in SMALL.items():
        small = dataclasses.replace(getattr(figure, name), **given)
        monkeypatch.setattr(figure, name, small)
    is_drawn(figure, figure.table())


def test_what_is_drawn():
    table = drawn("sgd")
    assert set(table.panel) == {"round", "floor", "factor", "steps"}

    def sides(panel, objective, series):
        kinds = ({"kind": THEORY}, {})
        return [part(table, panel, objective=objective, series=series, **k) for k in kinds]

    for name in ("spin", "spif", "ipo", "sft"):
        line, points = sides("round", name, "tokens")
        both = line.merge(points, on="x")
        assert len(both) > 5
        np.testing.assert_allclose(both.y_y, both.y_x, rtol=0.05, atol=1e-8)
    for name in ("spin", "spif", "centred_spif", "renyi", "sft"):
        line, points = sides("floor", name, "limit")
        assert (points.y.to_numpy() / line.y.to_numpy()).max() < 2.0
        assert (points.y.to_numpy() / line.y.to_numpy()).min() > 0.5
    line, points = sides("floor", "renyi", "exact round")
    assert (points.y.to_numpy() > 0.8 * line.y.to_numpy()).all()
    factor = part(table, "factor")
    assert ((factor.low - 0.05 < factor.x) & (factor.x < factor.high + 0.05)).mean() > 0.9
    line, points = (
        sides("factor", "renyi", "1.5, exact laws")[0],
        sides("factor", "renyi", "1.5")[1],
    )
    assert line.x.iloc[0] > points.x.iloc[0] + 0.3
    steps = matched(table, "steps")
    np.testing.assert_allclose(steps.y, steps.theory, atol=0.15)
    assert steps[steps.x == 1].y.max() - steps[steps.x == 1].y.min() < 0.05, "one step is SFT's"
