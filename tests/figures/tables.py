"""Tables of figures, checked: those that were drawn, and such as are computed in a test."""

import numpy as np
import pandas as pd

from figures import style, tidy
from figures.catalogue import OUT
from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY


def drawn(name):
    """The table of the picture that readers see."""
    return checked(tidy.read(OUT / f"{name}.csv"))


def checked(table):
    """The same table, if it has the form of a figure's."""
    assert tuple(table.columns) in (COLUMNS, COLUMNS + INTERVAL)
    assert set(table.kind) <= {THEORY, MEASURED}
    assert table.panel.str.len().all()
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    if "low" in table:
        ends = table.dropna(subset=["low", "high"])
        assert (ends.low <= ends.y * (1 + 1e-5 * np.sign(ends.y))).all()
        assert (ends.y <= ends.high * (1 + 1e-5 * np.sign(ends.high))).all()
    assert len(tidy.as_text(table)) < 200_000
    return table


def is_drawn(figure, table):
    """The table, computed in a test, has the form of a figure's and can be drawn."""
    picture = figure.plot(checked(table))
    picture.canvas.draw()
    style.plt.close(picture)


def part(table, panel, kind=MEASURED, **where):
    """Rows of one kind of a panel, of these values of columns, by x."""
    rows = table[(table.panel == panel) & (table.kind == kind)]
    for column, value in where.items():
        rows = rows[rows[column] == value]
    return rows.sort_values("x", kind="stable")


def matched(table, panel):
    """Measured points of a panel beside the theory line of the same curve, interpolated."""
    out = []
    for _, rows in table[table.panel == panel].groupby(["objective", "series"]):
        line, points = (rows[rows.kind == kind].sort_values("x") for kind in (THEORY, MEASURED))
        if len(line) and len(points):
            out.append(points.assign(theory=np.interp(points.x, line.x, line.y)))
    assert out, f"nothing to compare in {panel}"
    return pd.concat(out)
