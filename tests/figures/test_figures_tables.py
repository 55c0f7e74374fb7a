"""What the pictures show is true of the numbers that they are drawn from.

One test a figure, so that each table is computed once.
"""

import numpy as np
import pandas as pd

from figures import fig_1_links, fig_2_convergence, fig_3_phase
from figures.tidy import COLUMNS, MEASURED, THEORY


def tidy(figure):
    """The figure's table, checked for form."""
    table = figure.table()
    assert tuple(table.columns) == COLUMNS
    assert set(table.kind) <= {THEORY, MEASURED}
    assert table.panel.str.len().all()
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert len(table.to_csv(index=False, float_format="%.6g")) < 200_000
    return table


def matched(table, panel):
    """Measured points of a panel beside the theory line of the same curve, interpolated."""
    part = table[table.panel == panel]
    out = []
    for _, rows in part.groupby(["objective", "series"]):
        line, points = (rows[rows.kind == kind].sort_values("x") for kind in (THEORY, MEASURED))
        if len(line) and len(points):
            out.append(points.assign(theory=np.interp(points.x, line.x, line.y)))
    assert out, f"nothing to compare in {panel}"
    return pd.concat(out)


def test_links():
    table = tidy(fig_1_links)
    for panel in table.panel.unique():
        found = matched(table, panel)
        assert (found.y - found.theory).abs().max() < 1e-6
    links = matched(table, "link, bounded")
    assert links[links.objective.isin(["spif", "centred_spif", "ipo"])].y.abs().max() < 1.0
    assert set(table.objective) >= {"spin", "spif", "ipo", "gail", "renyi", "ipm", "sppo"}


def test_convergence():
    table = tidy(fig_2_convergence)
    factors = matched(table, "factor")
    measured = factors.groupby("objective").y.count()
    assert (measured == 9).all()
    assert (factors.y - factors.theory).abs().max() < 1e-3
    part = table[(table.panel == "thresholds") & (table.series == "stable")]
    both = part.pivot(index="objective", columns="kind", values="x")
    np.testing.assert_allclose(both[MEASURED], both[THEORY], rtol=2e-3)
    spin = matched(table, "SPIN")
    np.testing.assert_allclose(spin.y, spin.theory, rtol=1e-6, atol=1e-15)
    for panel in ("SPIN", "SPIF"):
        bound = table[table.panel == f"{panel} bound"]
        path = table[(table.panel == panel) & (table.kind == MEASURED)]
        pairs = bound.merge(path, on=["series", "x"])
        assert len(pairs) > 25
        assert (pairs.y_y <= pairs.y_x * (1 + 1e-9)).all()
    tail = matched(table[table.x >= 30], "SPIF")
    tail = tail[tail.theory > 1e-14]
    assert (np.log(tail.y) - np.log(tail.theory)).abs().max() < 0.05
    share = table[(table.panel == "potential") & (table.kind == MEASURED)]
    assert (share.y <= 1.0 / share.x).all()


def test_phase():
    table = tidy(fig_3_phase)
    distance = {
        panel: table[(table.panel == f"{panel} distance") & (table.kind == MEASURED)]
        for panel in fig_3_phase.PANELS
    }
    for panel in ("imitation", "anchored"):
        for _, path in distance[panel].groupby("series"):
            assert (path.y.diff().dropna() < 0).all()
            assert path.y.iloc[-1] < 1e-3 * path.y.iloc[0]
        lines = table[(table.panel == f"{panel} distance") & (table.kind == THEORY)]
        first = distance[panel][distance[panel].series == "0"]
        for series, line in lines.groupby("series"):
            both = line.merge(first, on="x")
            if series == "bound":
                assert (both.y_y <= both.y_x * (1 + 1e-12)).all()
            else:
                slopes = [np.log(both[y].iloc[-1] / both[y].iloc[-11]) for y in ("y_x", "y_y")]
                np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.05)
    gaps = table[table.panel == "preference distance"].pivot(
        index="x", columns="series", values="y"
    )
    assert (gaps["average policy"] <= gaps["bound"]).all()
    assert gaps["last policy"].iloc[-1] > gaps["last policy"].iloc[0]
    assert gaps["average policy"].iloc[-1] < 0.2 * gaps["last policy"].iloc[-1]
