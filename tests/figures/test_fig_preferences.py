"""What the figure of preference games shows is true of its numbers."""

import numpy as np

from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY
from figures.toy_games import preferences as preferences_figure
from lab import stats
from toy_games.experiments import preferences as played

SMALL = played.Settings(
    unanchored=("sppo",),
    games=("rps", "bradley_terry", "low_rank"),
    first_seed=31,
    seeds=5,
    horizons=(25, 100, 400),
    ratios=(0.5, 2.0, 8.0),
    samples=(2, 8),
    groups=400,
    floor_rounds=600,
    pair_samples=(16, 64),
    group_limit=16,
    steps=500,
)


def test_preferences(monkeypatch):
    monkeypatch.setattr(preferences_figure, "SETTINGS", SMALL)
    table = preferences_figure.table()
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert len(table.to_csv(index=False, float_format="%.6g")) < 200_000
    measured, theory = (table[table.kind == kind] for kind in (MEASURED, THEORY))
    assert measured[["low", "high"]].notna().all(axis=None)

    gap = measured[measured.panel == "gap"].pivot(index="x", columns="series", values="y")
    bound = theory[theory.series == "bound"].set_index("x").y
    assert (gap["rps, average"] < bound).all()
    assert gap["rps, last"].iloc[-1] > 5 * gap["rps, average"].iloc[-1]
    assert gap["bradley_terry, last"].iloc[-1] < 1e-3
    for name in ("rps, average", "low_rank, average"):
        assert stats.fit_line(np.log(gap.index), np.log(gap[name])).slope < -0.3

    rate = measured[measured.panel == "rate"].pivot(index="x", columns="series", values="y")
    assert (rate["no anchor"] > 1).all()
    assert rate.anchored[0.5] > 1
    assert (rate.anchored[[2.0, 8.0]] < 1).all()
    line = theory[(theory.panel == "rate") & (theory.series == "anchored")]
    found = np.interp(rate.index, line.x, line.y)
    np.testing.assert_allclose(rate.anchored, found, atol=3e-3)
    promised = theory[(theory.panel == "rate") & (theory.series == "theorem")]
    assert rate.anchored[8.0] < np.interp(8.0, promised.x, promised.y)

    for panel, room in (("bias", 0.0), ("floor", 0.25)):
        part = measured[measured.panel == panel]
        for series, points in part.groupby("series"):
            line = theory[(theory.panel == panel) & (theory.series == series)]
            found = np.interp(points.x, line.x, line.y)
            wide = 2.0 * (points.high - points.low) / 2 + room * found
            assert (np.abs(points.y - found) < wide).all(), (panel, series)

    one = measured[measured.panel == "round"].pivot(index="x", columns="objective", values="y")
    level = theory[(theory.panel == "round") & (theory.x == 64)].set_index("objective").y
    for name in ("dpo", "sft", "spif"):
        np.testing.assert_allclose(
            one[name][64.0], level[name if name != "spif" else "sppo"], rtol=0.3
        )
    assert one.ipo[64.0] < 0.5 * one.spif[64.0] < one.dpo[64.0]
    assert preferences_figure.plot(table) is not None
