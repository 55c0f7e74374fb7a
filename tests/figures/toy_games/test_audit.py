"""What the figure "audit" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.tidy import MEASURED, THEORY
from figures.toy_games import audit as figure
from tests.figures.tables import drawn, is_drawn, matched
from toy_games.experiments.audit import Settings


def test_a_small_run_is_drawn():
    is_drawn(figure, figure.table(Settings(size=3, sizes=(2, 4, 8), seeds=3, samples=50)))


def test_what_is_drawn():
    table = drawn("audit")
    bias = table[(table.series == "bias") & (table.kind == THEORY)].set_index(
        ["panel", "objective"]
    )
    for case in ("random", "text"):
        losses = bias.y[f"self-play loss, {case}"]
        assert losses[["SPIN, one pair (as all losses)", "IPO, all pairs of 2+2"]].max() < 1e-12
        assert losses[["centred SPIF 2+2, exact risk", "Rényi 2+2"]].min() > 1e-3
        penalties = bias.y[f"KL penalty, {case}"]
        assert (penalties < 1e-12).sum() == 5
        assert abs(penalties["k1 as a loss"] - 1.0) < 1e-12
    points = table[(table.series == "bias") & (table.kind == MEASURED)]
    points = points.set_index(["panel", "objective"])
    covered = (points.low <= bias.y + 1e-9) & (bias.y <= points.high + 1e-9)
    assert covered.mean() > 0.85

    closed = matched(table[table.series == "closed form"], "sizes")
    np.testing.assert_allclose(closed.y, closed.theory, rtol=1e-5)
    angles = table[(table.panel == "angle") & (table.kind == MEASURED)].pivot(
        index="objective", columns="series", values="y"
    )
    displaced = ["inpo", "tspin", "alpha_spin"]
    assert angles["first gradient"].drop(displaced).max() < 1e-4
    assert angles["first gradient"][displaced].min() > 0.5
    assert angles["later gradient"].drop("nwj").min() > 0.5
    assert angles["later gradient"]["nwj"] < 1e-4
