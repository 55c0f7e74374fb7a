"""What the figure "misspecification" shows is true of the numbers that it is drawn from."""

import dataclasses

import numpy as np

from figures.tidy import MEASURED, THEORY
from figures.toy_games import misspecification as figure
from tests.figures.tables import drawn, is_drawn, matched, part

SMALL = {
    "seeds": 3, "objectives": ("spin",), "explicit": ("spin",), "capacities": (1, 5), "outcomes": 6,
    "steps": 20, "orders": (0,), "widths": (2,), "words": 3, "horizon": 3, "capacity": 2,
    "text_steps": 5, "samples": 30, "horizons": (2,), "trials": 3, "members": 8, "draws": 20,
    "class_samples": (10, 30), "inner": (10, 300), "factors": (0.9,), "temperatures": (0.7,),
}  # fmt: skip


def test_a_small_run_is_drawn(monkeypatch):
    small = dataclasses.replace(figure.SETTINGS, **SMALL)
    monkeypatch.setattr(figure, "SETTINGS", small)  # the ticks
    is_drawn(figure, figure.table(small))


def test_what_is_drawn():
    table = drawn("misspecification")
    classes = range(len(figure.SETTINGS.orders) + len(figure.SETTINGS.widths))
    for at in classes:
        kl = part(table, "text forward_kl", x=at).set_index("objective").y
        assert kl["sft"] < kl[["spin, two steps", "spif, two steps"]].min()
        judge = part(table, "text judge", x=at).set_index("objective").y
        if at not in (2, 3):  # SPIF at k = 3, which holds the expert, and one hidden unit
            assert judge[["spin, two steps", "spif, two steps"]].min() > judge["sft"]
    gap = part(table, "ladder").pivot(index="series", columns="x", values="y")
    assert (gap.loc["forward_kl", [4, 8, 12]] > 0).all()
    assert (gap.loc["reverse_kl", [4, 8, 12]] < 0).all()
    assert (gap[19].abs() < 1e-3).all()
    ends = part(table, "destination", x=1000).set_index("objective").y
    there = part(table, "destination", THEORY, x=1000).set_index("objective").y
    assert len(there) >= 4
    assert ((ends[there.index] / there - 1).abs() < 0.5).all()
    finite = part(table, "finite", series="member")
    bound = part(table, "finite", THEORY)
    assert (finite.y < np.exp(np.interp(np.log(finite.x), np.log(bound.x), np.log(bound.y)))).all()
    assert (part(table, "finite", series="no member", x=300).y > bound.y.iloc[-1]).all()
    stable = matched(
        table.assign(y=np.log10(table.y.where(table.panel == "stability"))), "stability"
    )
    assert set(stable.series) == {"10", "300"}
    assert ((stable.y - stable.theory).abs() < 0.3).all()
    assert MEASURED in set(stable.kind)
