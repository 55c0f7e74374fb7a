"""What the figure "phase" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import phase as figure
from figures.tidy import MEASURED, THEORY
from tests.figures.tables import checked


def test_phase():
    table = checked(figure.table())
    distance = {
        panel: table[(table.panel == f"{panel} distance") & (table.kind == MEASURED)]
        for panel in figure.PANELS
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
