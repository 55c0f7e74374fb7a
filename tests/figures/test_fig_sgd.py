"""What the figure of SGD against the exact rounds shows is true of its table."""

import dataclasses

import numpy as np

from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY
from figures.toy_games import sgd as sgd_figure


def test_sgd(monkeypatch):
    small = {
        "ROUND": {"steps": 120, "rate": 0.6},
        "FLOOR": {"seeds": 4, "steps": 60, "floor_rates": (0.2, 0.4)},
        "FACTOR": {"seeds": 3, "steps": 60, "objectives": ("spin", "spif", "renyi")},
        "STEPS": {"seeds": 3, "counts": (1, 8, 32)},
    }
    for name, given in small.items():
        settings = dataclasses.replace(getattr(sgd_figure, name), **given, game=4)
        monkeypatch.setattr(sgd_figure, name, settings)
    table = sgd_figure.table()
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert set(table.kind) == {THEORY, MEASURED}
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert set(table.panel) == {"round", "floor", "factor", "steps"}

    def sides(panel, objective, series):
        part = table[(table.panel == panel) & (table.series == series)]
        part = part[part.objective == objective].sort_values("x", kind="stable")
        return [part[part.kind == kind].set_index("x") for kind in (THEORY, MEASURED)]

    for name in ("spin", "spif", "ipo", "sft"):
        line, points = sides("round", name, "tokens")
        np.testing.assert_allclose(points.y[line.index], line.y, rtol=0.05, atol=1e-8)
    line, points = sides("floor", "spif", "limit")
    assert (points.y / line.y).between(0.5, 2.0).all()
    line, points = sides("floor", "renyi", "exact round")
    assert (points.y > 0.8 * line.y).all()
    line, points = sides("factor", "renyi", "1.5")
    assert abs(points.y.iloc[0] - line.index[0]) < 0.2
    assert sides("factor", "renyi", "1.5, exact laws")[0].index[0] > line.index[0] + 0.3
    for series, name in (("0.5", "spin"), ("1.5", "ipo"), ("sft", "sft")):
        line, points = sides("steps", name, series)
        np.testing.assert_allclose(points.y, line.y, atol=0.15)
    assert sgd_figure.plot(table).axes
