"""What the picture of misspecified classes shows is true of its table, in a smaller version."""

import numpy as np

from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY
from figures.toy_games import misspecification as figure


def test_misspecification(monkeypatch):
    small = {"seeds": 3, "objectives": ("spin",), "explicit": ("spin",), "capacities": (1, 3, 9)}
    small |= {
        "outcomes": 10,
        "steps": 800,
        "orders": (0,),
        "widths": (4,),
        "words": 4,
        "capacity": 3,
    }
    small |= {"text_steps": 150, "samples": 100, "horizons": (5,), "trials": 40, "inner": (10, 300)}
    monkeypatch.setattr(figure, "SETTINGS", figure.SETTINGS | small)
    table = figure.table()
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    measured = table[table.kind == MEASURED]
    assert (measured.low <= measured.y).all()
    assert (measured.y <= measured.high).all()

    text = table[(table.panel == "text judge") & (table.x == 0) & (table.kind == MEASURED)]
    judge = text.set_index("objective").y
    assert judge["spin, two steps"] > judge["sft"] + 1

    ladder = table[(table.panel == "ladder") & (table.kind == MEASURED)]
    gap = ladder.pivot(index="series", columns="x", values="y")
    assert (gap.loc["forward_kl", [1, 3]] > 0).all()
    assert (gap.loc["reverse_kl", [1, 3]] < 0).all()
    assert (gap[9].abs() < 1e-3).all()

    ends = table[(table.panel == "destination") & (table.x == 800)]
    both = ends.pivot(index="objective", columns="kind", values="y").dropna()
    assert len(both) >= 4
    assert ((both[MEASURED] / both[THEORY] - 1).abs() < 0.5).all()

    finite = table[(table.panel == "finite") & (table.series == "member")]
    bound = table[(table.series == "bound")].set_index("x").y
    assert (finite[finite.x == 10].y < bound[10]).all()

    stable = table[table.panel == "stability"]
    for series in ("10", "300"):
        part = stable[stable.series == series]
        line, points = (part[part.kind == kind] for kind in (THEORY, MEASURED))
        there = np.interp(points.x, line.x, np.log10(line.y))
        assert (np.log10(points.y) - there < 0.15).all()
    assert figure.plot(table).axes
