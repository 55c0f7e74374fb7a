"""What the figure "stability" shows is true of the numbers that it is drawn from."""

import numpy as np

from figures.theory import stability as figure
from figures.tidy import MEASURED
from tests.figures.tables import checked


def test_stability(monkeypatch):
    monkeypatch.setattr(figure, "SEEDS", 3)
    monkeypatch.setattr(figure, "ROUNDS", 250)
    monkeypatch.setattr(figure, "STEPS", np.array([0.3, 0.9, 1.8, 2.2, 4.0, 20.0]))
    table = checked(figure.table())
    size = table[table.series == "late |u|"].pivot(index="objective", columns="x", values="y")
    several = table.objective.isin(figure.BOUNDED) & (table.series == "late |u|")
    assert table[several].low.notna().all()
    assert table[~several].low.isna().all()
    local = size.drop(index=["gail", "policy_only"])
    assert (local[[0.3, 0.9, 1.8]] == figure.SETTLED).all(axis=None)
    assert (size[[2.2, 4.0, 20.0]] > 10 * figure.SETTLED).all(axis=None)
    assert (size.loc[["spin", "airl", "nwj"], [2.2, 4.0, 20.0]] == figure.CAP).all(axis=None)
    for name in ("spif", "centred_spif", "ipo"):
        assert (size.loc[name] < 4.0 * size.columns).all()
    assert size.loc["gail", 0.3] == figure.SETTLED  # below R'(0)/L
    cycles = table[(table.panel == "bifurcation") & (table.kind == MEASURED)]
    assert (cycles.y.abs() < 2.0 * cycles.x).all()
    assert cycles[cycles.x < 3.9].y.abs().max() < 1e-3
    spread = cycles[cycles.x.between(4.5, 6.0)].groupby("x").y.agg(lambda y: y.round(2).nunique())
    assert (spread == 2).all()
    exponent = table[table.panel == "lyapunov"]
    assert (exponent[exponent.x < 6.0].y < 0.01).all()
    assert exponent[exponent.x.between(8.5, 9.5)].y.min() > 0.3
    burn = table[(table.panel == "burn-in") & (table.kind == MEASURED)]
    spif = burn[(burn.objective == "spif") & (burn.series != "KL") & (burn.x > 9)]
    assert len(spif) >= 13
    assert (spif.y / spif.x).between(0.5, 1.0).all()
    assert burn[burn.objective == "spin"].y.max() < 12
