"""What the figures of stability from samples show is true of their numbers."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from figures import style
from figures.tidy import THEORY, Rows
from figures.toy_games import stability_inner, stability_maps, stability_samples
from tests.figures.tables import drawn, is_drawn, part

SMALL = {
    "objectives": ("spin", "spif", "ipo", "iq_learn", "gail"), "seeds": 3, "outcomes": 6,
    "surplus": 2, "steps": (0.2, 4.0), "reaches": (1.0, 20.0), "samples": (stability_maps.FEW, 200),
    "few": (20,), "many": 200, "rounds": 100, "label_noise": (0.0, 0.3), "break_steps": (3.0,),
    "distances": (1.2, 4.0), "boundary_steps": 40, "early_distances": (0.4,), "early_steps": 30,
}  # fmt: skip


@pytest.mark.parametrize("figure", [stability_inner, stability_maps, stability_samples])
def test_a_small_run_is_drawn(figure):
    is_drawn(figure, figure.table(dataclasses.replace(figure.SETTINGS, **SMALL)))


def test_maps():
    table = drawn("stability_maps")
    maps = part(table, "map").pivot_table(index=["objective", "series"], columns="x", values="y")
    assert set(maps.index.get_level_values(0)) == set(stability_maps.MAPS)
    near, steps = maps.xs("1", level="series"), maps.columns
    assert (near.loc[:, steps < 1.2] < 0.2).all(axis=None)
    assert (maps.loc[:, steps > 3.0] > 0.5).all(axis=None)
    assert (near.loc["spif", steps > 3.0] < 0.5 * near.loc["spin", steps > 3.0]).all()

    floor = part(table, "floor", series="n=1000")
    floor = floor[(floor.x < 1.0) & floor.objective.isin(["spin", "spif", "ipo", "gail"])]
    line = part(table, "floor", THEORY)
    predicted = np.interp(floor.x, line.x, line.y)
    assert (floor.low <= 1.15 * predicted).all()
    assert (floor.high >= 0.85 * predicted).all()


def test_samples():
    table = drawn("stability_samples")
    unseen = part(table, "unseen").groupby("objective").y
    assert (unseen.max()[["spin", "gail", "iq_learn"]] > 1e3).all()
    assert (unseen.max()[["spif", "ipo", "sft"]] < 1.0).all()

    burn, step = part(table, "burn-in", objective="spif"), stability_samples.SETTINGS.one_step
    assert (burn.y <= burn.x / (2 * step) + 2).all()
    assert (burn.y >= (burn.x - 1) / (4 * step)).all()


def test_inner():
    table = drawn("stability_inner")
    breaks = part(table, "boundary").groupby(["objective", "x"]).y.mean().unstack()
    line = part(table, "boundary", THEORY, objective="expert")
    for name in ("spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"):
        predicted = np.interp(breaks.columns, line.x, line.y)
        np.testing.assert_allclose(breaks.loc[name], predicted, rtol=0.03)
    np.testing.assert_allclose(breaks.loc["spin_hinge"], 2.0, rtol=0.03)
    assert not {"nwj", "sft"} & set(breaks.index)

    early = part(table, "early").pivot(index="objective", columns="x", values="y")
    assert (early.loc[["spin", "spif", "ipo"]].iloc[:, -1] > 5 * early.loc["spin"].iloc[0]).all()
    assert early.loc["nwj"].iloc[-1] < 2 * early.loc["sft"].iloc[-1] + 0.01


def test_an_interval_with_a_lost_run_ends_on_its_log_axis():
    seeds = np.arange(8)
    kl = np.where(seeds == 3, stability_samples.LOST, 1e-2)
    runs = pd.DataFrame({"objective": "spin", "samples": 1000, "seed": seeds, "kl": kl})
    rows = Rows()
    rows.each("unseen", runs, "samples", "kl", "a=0", least=0.0)
    (found,) = rows.table().itertuples()
    assert found.y == pytest.approx(kl.mean())
    assert found.low == 0.0, "Student's interval alone would end below"
    assert found.high == pytest.approx(found.y + 2.3646 * kl.std(ddof=1) / 8**0.5, rel=1e-4)
    fig, ax = style.plt.subplots()
    stability_samples._unseen(ax, rows.table())
    fig.canvas.draw()
    (bar,) = (line for c in ax.containers for line in c.lines[2])
    ends = ax.transData.transform(bar.get_segments()[0])[:, 1]
    assert np.isfinite(ends).all()
    assert ends.min() <= ax.bbox.y0, "the bar reaches the lower edge"
    style.plt.close(fig)
