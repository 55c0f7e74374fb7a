"""What the picture of finite samples shows is true of its numbers."""

import numpy as np
import pytest

from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY
from figures.toy_games import finite_samples as figure

OBJECTIVES = ("spin", "ipo", "centred_spif")


@pytest.fixture(scope="module")
def table():
    small = {"seeds": 3, "first_seed": 40, "rounds_seeds": 8, "steps": 100, "total_steps": 400}
    small |= {"objectives": OBJECTIVES, "words": 4, "outcomes": 10}
    patch = pytest.MonkeyPatch()
    sizes = {**small, "text_steps": 60, "sizes": (12, 200)}
    patch.setattr(figure, "SIZES", {name: (value, value) for name, value in sizes.items()})
    yield figure.table()
    patch.undo()


def part(table, panel, kind, series=""):
    rows = table[(table.panel == panel) & (table.kind == kind)]
    return rows[rows.series == series] if series else rows


def test_the_table_is_tidy(table):
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert len(table.to_csv(index=False, float_format="%.6g")) < 200_000
    figure.style.plt.close(figure.plot(table))


def test_lines_pass_through_the_flows_last_points(table):
    for overlap in figure.OVERLAPS:
        points = part(table, "range", MEASURED, f"{overlap}, flow")
        points = points[(points.objective == "spin") & (points.x > 1e4)]
        line = part(table, "range", THEORY, overlap)
        line = line[line.objective == "spin"]
        expected = np.interp(np.log(points.x), np.log(line.x), line.y)
        np.testing.assert_allclose(points.y, expected, atol=0.15)
    for name in ("ipo", "centred_spif"):
        points = part(table, "range", MEASURED, "disjoint, flow")
        points = points[(points.objective == name) & (points.x > 1e4)]
        line = part(table, "range", THEORY)
        line = line[line.objective == name]
        np.testing.assert_allclose(points.y, line.y.iloc[0], atol=1e-6)


def test_unseen_mass_is_as_predicted_on_both_sides(table):
    points = part(table, "mass", MEASURED, f"{figure.SEEN_AT[-1]:.0e}").sort_values("x")
    crosses = part(table, "mass", THEORY, "1/t").sort_values("x")
    above, below = points[points.x > 1.05], points[points.x < 0.97]
    assert len(above) > 3
    assert len(below) > 3
    crosses = crosses[crosses.x > 1.05]
    np.testing.assert_allclose(above.y, crosses.y, rtol=0.05)
    np.testing.assert_allclose(below.y, 1.0 - below.x, atol=1e-6)


def test_no_best_step_is_below_sfts(table):
    best = part(table, "paired", MEASURED, "best")
    assert (best.high >= 0.0).all()
    assert set(part(table, "n", MEASURED).objective) == {*OBJECTIVES, "sft"}
