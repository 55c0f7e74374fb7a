"""What the figure "convergence" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import convergence as figure
from figures.tidy import MEASURED, THEORY
from tests.figures.tables import checked, matched


def test_convergence():
    table = checked(figure.table())
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
