"""What the figure "destination" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import destination as figure
from figures.tidy import MEASURED, THEORY
from tests.figures.tables import checked, matched


def test_destination(monkeypatch):
    for name, value in {
        "MAP_ROUNDS": 3,
        "ROUNDS": 24,
        "PATHS": ["spin", "ipo", "nwj", "centred_spif", "policy_only"],
        "ON_MAP": ("spin",),
        "CORNERS": figure.CORNERS[:1],
    }.items():
        monkeypatch.setattr(figure, name, value)
    table = checked(figure.table())
    paths = table[table.panel == "distance"]
    assert paths.objective.nunique() == 5
    for _, path in paths.groupby("objective"):
        assert path.y.iloc[-1] < 1e-5 * path.y.iloc[0]
    ends = table[table.panel == "ends"].pivot(index="series", columns="kind", values="x")
    one = ends.index.str.contains("one step")
    assert (ends[one][MEASURED] < 1e-5).all()
    assert (ends[~one][MEASURED] > 0.02).all()
    two = ends[ends.index.str.contains("two steps")]
    np.testing.assert_allclose(two[MEASURED], two[THEORY], rtol=2e-3)
    local = matched(table, "local")
    np.testing.assert_allclose(local.y, local.theory, atol=1e-3)
