"""What the figure "saddle" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import saddle as figure
from tests.figures.tables import checked


def test_saddle(monkeypatch):
    monkeypatch.setattr(figure, "HORIZON", 4)
    monkeypatch.setattr(figure, "TAUS", np.array([0.02, 0.3, 5.0]))
    monkeypatch.setattr(figure, "LIKELIEST", 300)
    table = checked(figure.table())
    responses = table[table.panel == "responses"].pivot(
        index="series", columns="objective", values="x"
    )
    assert responses.index.str.contains("he said").any()
    towards = responses.loc["he said", [*responses.columns[2:], "reference"]]
    assert towards.is_monotonic_decreasing
    gap = table[table.panel == "gap"]
    assert gap[gap.series != "cvxpy"].y.max() < 1e-9
    assert gap.groupby("series").y.count().to_dict() == {"cvxpy": 6, "fast": 12, "per token": 3}
    apart = table[table.panel == "apart"].groupby("objective").y.max()
    assert (apart[["iq_learn", "gail"]] < 1e-9).all()
    assert (apart[["spif", "airl"]] > 0.05).all()
    way = table[table.panel == "way"].drop_duplicates(["objective", "series", "x"])
    both = way.pivot(index=["objective", "x"], columns="series", values="y").dropna(subset="rounds")
    assert len(both) == 6
    np.testing.assert_allclose(both["rounds"], both["solver"], atol=1e-9)
    np.testing.assert_allclose(both["rounds"]["spin"], both["closed form"]["spin"], atol=1e-9)
