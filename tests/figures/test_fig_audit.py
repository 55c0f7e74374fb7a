"""What the picture of the audit shows is true of its table."""

import numpy as np

from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY
from figures.toy_games import audit as audit_figure
from toy_games.experiments.audit import Settings


def test_audit(monkeypatch):
    few = Settings(size=3, sizes=(2, 4, 8), instance=2, seeds=5, samples=300)
    monkeypatch.setattr(audit_figure, "SETTINGS", few)
    table = audit_figure.table()
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert len(table.to_csv(index=False, float_format="%.6g")) < 200_000
    audit_figure.style.plt.close(audit_figure.plot(table))

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

    sizes = table[table.panel == "sizes"]
    closed = sizes[sizes.series == "closed form"].pivot(
        index=["objective", "x"], columns="kind", values="y"
    )
    np.testing.assert_allclose(closed[MEASURED], closed[THEORY], rtol=1e-9)
    angles = table[(table.panel == "angle") & (table.kind == MEASURED)].pivot(
        index="objective", columns="series", values="y"
    )
    displaced = ["inpo", "tspin", "alpha_spin"]
    assert angles["first gradient"].drop(displaced).max() < 1e-4
    assert angles["first gradient"][displaced].min() > 0.5
    assert angles["later gradient"].drop("nwj").min() > 0.5
    assert angles["later gradient"]["nwj"] < 1e-4
