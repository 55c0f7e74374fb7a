"""What the figure "finite_samples" shows is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import THEORY
from figures.toy_games import finite_samples as figure
from tests.figures.tables import drawn, is_drawn, part

SMALL = {
    "seeds": 3, "rounds_seeds": 3, "steps": 30, "flow_steps": 1e4, "total_steps": 40, "words": 3,
    "outcomes": 9, "etas": (1.0, 3.0), "support": 10, "text_sizes": (10,),
    "objectives": ("spin", "ipo", "centred_spif"), "text_steps": 12, "sizes": (12, 200),
}  # fmt: skip


def test_a_small_run_is_drawn():
    is_drawn(figure, figure.table(dataclasses.replace(figure.SETTINGS, **SMALL)))


def test_lines_pass_through_the_flows_last_points():
    table = drawn("finite_samples")
    for overlap in figure.OVERLAPS:
        points = part(table, "range", series=f"{overlap}, flow", objective="spin")
        points = points[points.x > 1e4]
        line = part(table, "range", THEORY, series=overlap, objective="spin")
        expected = np.interp(np.log(points.x), np.log(line.x), line.y)
        np.testing.assert_allclose(points.y, expected, atol=0.15)
    for name in ("ipo", "centred_spif"):
        points = part(table, "range", series="disjoint, flow", objective=name)
        line = part(table, "range", THEORY, objective=name)
        np.testing.assert_allclose(points.y[points.x > 1e4], line.y.iloc[0], rtol=1e-5)


def test_unseen_mass_is_as_predicted_on_both_sides():
    table = drawn("finite_samples")
    points = part(table, "mass", series=f"{figure.SEEN_AT[-1]:.0e}")
    crosses = part(table, "mass", THEORY, series="1/t")
    above, below = points[points.x > 1.05], points[points.x < 0.97]
    assert len(above) > 3
    assert len(below) > 3
    np.testing.assert_allclose(above.y, crosses[crosses.x > 1.05].y, rtol=0.05)
    np.testing.assert_allclose(below.y, 1.0 - below.x, atol=3e-6)


def test_no_best_step_is_below_sfts():
    table = drawn("finite_samples")
    best = part(table, "paired", series="best")
    assert (best.high >= 0.0).all()
    assert set(part(table, "n").objective) == {*best.objective, "sft"}
