"""What the figure "tokens" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import tokens as figure
from figures.tidy import MEASURED
from tests.figures.tables import checked, matched


def test_tokens(monkeypatch):
    monkeypatch.setattr(figure, "HORIZONS", (1, 2, 4))
    table = checked(figure.table())
    pay = table[(table.panel == "pay") & (table.kind == MEASURED)]
    whole = pay[pay.series == "sequence"]
    np.testing.assert_allclose(whole.y, np.tanh(whole.x / 2), atol=1e-12)
    assert pay[pay.series == "conditional"].y.abs().max() > 2.0
    largest = table[(table.panel == "bound") & (table.kind == MEASURED)]
    assert (largest[largest.series == "sequence"].y <= 1.0).all()
    per_token = largest[largest.series == "conditional"]
    assert (per_token.y <= per_token.x).all()
    assert per_token[per_token.x == 4].y.max() > 3.5
    threshold = matched(table, "threshold")
    assert len(threshold) == 9
    np.testing.assert_allclose(threshold.y, threshold.theory, rtol=3e-3)
    path = matched(table[table.x >= 20], "path")
    assert path.series.nunique() == 3
    assert np.abs(np.log(path.y) - np.log(path.theory)).max() < 0.05
    part = table[(table.panel == "path") & (table.objective == "spin")]
    both = part.pivot(index="x", columns="series", values="y")
    np.testing.assert_allclose(both["sequence"], both["conditional"], rtol=1e-6, atol=1e-15)
