"""What the picture of sampled stability shows is true of its table."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from figures import style
from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY, Rows
from figures.toy_games import stability_sgd as figure

SMALL = dataclasses.replace(
    figure.STUDIED,
    seeds=3,
    steps=(0.2, 0.6, 1.2, 4.0),
    reaches=(1.0, 20.0, 100.0),
    few=(20,),
    rounds=80,
    label_noise=(0.0, 0.3),
    break_steps=(3.0, 10.0),
    boundary_steps=240,
    early_distances=(0.4, 1.4, 8.0),
    early_steps=400,
)


def test_the_table_shows_what_the_titles_say():
    table = figure.table(SMALL)
    assert tuple(table.columns) == COLUMNS + INTERVAL
    assert set(table.kind) == {THEORY, MEASURED}
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()

    def part(panel, kind=MEASURED, **where):
        rows = table[(table.panel == panel) & (table.kind == kind)]
        for column, value in where.items():
            rows = rows[rows[column] == value]
        return rows

    maps = part("map").pivot_table(index=["objective", "series"], columns="x", values="y")
    assert set(maps.index.get_level_values(0)) == set(figure.MAPS)
    assert (maps[1.2] < 0.2).all()
    assert (maps[4.0] > 0.5).all()
    assert maps[4.0]["spif"].max() < 0.5 * maps[4.0]["spin"].min()
    assert maps[0.2]["spif"]["100"] > 1.0 > 0.01 > maps[0.2]["spin"]["20"]

    floor = part("floor", series="n=1000")
    floor = floor[(floor.x < 1.0) & floor.objective.isin(["spin", "spif", "ipo", "gail"])]
    line = part("floor", THEORY)
    predicted = np.interp(floor.x, line.x, line.y)
    assert (floor.low <= 1.15 * predicted).all()
    assert (floor.high >= 0.85 * predicted).all()

    lost = part("unseen").groupby("objective").y.min()
    assert (lost[["spin", "gail", "iq_learn"]] > 1e3).all()
    assert (lost[["spif", "ipo", "sft"]] < 1.0).all()

    burn = part("burn-in", objective="spif")
    assert (burn.y <= burn.x / (2 * SMALL.one_step) + 2).all()
    assert (burn.y >= (burn.x - 1) / (4 * SMALL.one_step)).all()

    breaks = part("boundary").groupby(["objective", "x"]).y.mean().unstack()
    line = part("boundary", THEORY, objective="expert")
    for name in ("spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"):
        predicted = np.interp(breaks.columns, line.x, line.y)
        np.testing.assert_allclose(breaks.loc[name], predicted, rtol=0.03)
    np.testing.assert_allclose(breaks.loc["spin_hinge"], 2.0, rtol=0.03)
    assert not {"nwj", "sft"} & set(breaks.index)

    early = part("early").pivot(index="objective", columns="x", values="y")
    assert (early.loc[["spin", "spif", "ipo"], 8.0] > 5 * early.loc["spin", 1.4]).all()
    assert early.loc["nwj", 8.0] < 2 * early.loc["sft", 8.0] + 0.01
    figure.style.plt.close(figure.plot(table))


def test_an_interval_with_a_lost_run_ends_on_its_log_axis():
    seeds = np.arange(8)
    kl = np.where(seeds == 3, figure.LOST, 1e-2)
    part = pd.DataFrame({"objective": "spin", "samples": 1000, "seed": seeds, "kl": kl})
    rows = Rows()
    figure._measured(rows, "unseen", part, "samples", "kl", "a=0")
    (found,) = rows.table().itertuples()
    assert found.y == pytest.approx(kl.mean())
    assert found.low == 0.0, "Student's interval alone would end below"
    assert found.high == pytest.approx(found.y + 2.3646 * kl.std(ddof=1) / 8**0.5, rel=1e-4)
    fig, ax = style.plt.subplots()
    figure._unseen(ax, rows.table())
    fig.canvas.draw()
    (bar,) = (line for c in ax.containers for line in c.lines[2])
    ends = ax.transData.transform(bar.get_segments()[0])[:, 1]
    assert np.isfinite(ends).all()
    assert ends.min() <= ax.bbox.y0, "the bar reaches the lower edge"
    style.plt.close(fig)
