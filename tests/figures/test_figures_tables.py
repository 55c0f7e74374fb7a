"""What the pictures show is true of the numbers that they are drawn from.

One test a figure, so that each table is computed once.
"""

import numpy as np
import pandas as pd

from figures.theory import convergence as convergence_figure
from figures.theory import destination as destination_figure
from figures.theory import links as links_figure
from figures.theory import one_step as one_step_figure
from figures.theory import phase as phase_figure
from figures.theory import saddle as saddle_figure
from figures.theory import stability as stability_figure
from figures.theory import tokens as tokens_figure
from figures.tidy import COLUMNS, INTERVAL, MEASURED, THEORY


def tidy(figure):
    """The figure's table, checked for form."""
    table = figure.table()
    assert tuple(table.columns) in (COLUMNS, COLUMNS + INTERVAL)
    assert set(table.kind) <= {THEORY, MEASURED}
    assert table.panel.str.len().all()
    assert np.isfinite(table[["x", "y"]].to_numpy(dtype=float)).all()
    assert len(table.to_csv(index=False, float_format="%.6g")) < 200_000
    return table


def matched(table, panel):
    """Measured points of a panel beside the theory line of the same curve, interpolated."""
    part = table[table.panel == panel]
    out = []
    for _, rows in part.groupby(["objective", "series"]):
        line, points = (rows[rows.kind == kind].sort_values("x") for kind in (THEORY, MEASURED))
        if len(line) and len(points):
            out.append(points.assign(theory=np.interp(points.x, line.x, line.y)))
    assert out, f"nothing to compare in {panel}"
    return pd.concat(out)


def test_links():
    table = tidy(links_figure)
    for panel in table.panel.unique():
        found = matched(table, panel)
        assert (found.y - found.theory).abs().max() < 1e-6
    links = matched(table, "link, bounded")
    assert links[links.objective.isin(["spif", "centred_spif", "ipo"])].y.abs().max() < 1.0
    assert set(table.objective) >= {"spin", "spif", "ipo", "gail", "renyi", "ipm", "sppo"}


def test_convergence():
    table = tidy(convergence_figure)
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


def test_phase():
    table = tidy(phase_figure)
    distance = {
        panel: table[(table.panel == f"{panel} distance") & (table.kind == MEASURED)]
        for panel in phase_figure.PANELS
    }
    for panel in ("imitation", "anchored"):
        for _, path in distance[panel].groupby("series"):
            assert (path.y.diff().dropna() < 0).all()
            assert path.y.iloc[-1] < 1e-3 * path.y.iloc[0]
        lines = table[(table.panel == f"{panel} distance") & (table.kind == THEORY)]
        first = distance[panel][distance[panel].series == "0"]
        for series, line in lines.groupby("series"):
            both = line.merge(first, on="x")
            if series == "bound":
                assert (both.y_y <= both.y_x * (1 + 1e-12)).all()
            else:
                slopes = [np.log(both[y].iloc[-1] / both[y].iloc[-11]) for y in ("y_x", "y_y")]
                np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.05)
    gaps = table[table.panel == "preference distance"].pivot(
        index="x", columns="series", values="y"
    )
    assert (gaps["average policy"] <= gaps["bound"]).all()
    assert gaps["last policy"].iloc[-1] > gaps["last policy"].iloc[0]
    assert gaps["average policy"].iloc[-1] < 0.2 * gaps["last policy"].iloc[-1]


def test_stability(monkeypatch):
    monkeypatch.setattr(stability_figure, "SEEDS", 3)
    monkeypatch.setattr(stability_figure, "ROUNDS", 250)
    monkeypatch.setattr(stability_figure, "STEPS", np.array([0.3, 0.9, 1.8, 2.2, 4.0, 20.0]))
    table = tidy(stability_figure)
    size = table[table.series == "largest late |u|"].pivot(
        index="objective", columns="x", values="y"
    )
    local = size.drop(index=["gail", "policy_only"])
    assert (local[[0.3, 0.9, 1.8]] == stability_figure.SETTLED).all(axis=None)
    assert (size[[2.2, 4.0, 20.0]] > 10 * stability_figure.SETTLED).all(axis=None)
    assert (size.loc[["spin", "airl", "nwj"], [2.2, 4.0, 20.0]] == stability_figure.CAP).all(
        axis=None
    )
    for name in ("spif", "centred_spif", "ipo"):
        assert (size.loc[name] < 4.0 * size.columns).all()
    assert size.loc["gail", 0.3] == stability_figure.SETTLED  # below R'(0)/L
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


def test_one_step():
    table = tidy(one_step_figure)
    gap = matched(table, "gap")
    np.testing.assert_allclose(gap[gap.x < 1e-3].y, gap[gap.x < 1e-3].theory, rtol=0.05)
    cost = matched(table, "cost")
    np.testing.assert_allclose(cost[cost.x < 1e-3].y, cost[cost.x < 1e-3].theory, rtol=0.05)
    measured = table[(table.panel == "cost") & (table.kind == MEASURED)]
    assert measured[measured.objective != "spif"].y.max() < 1e-14
    even = measured[(measured.objective == "spif") & (measured.series == "1")]
    slope = np.polyfit(np.log(even.x[:5]), np.log(even.y[:5]), 1)[0]
    assert abs(slope - 2.0) < 0.01
    mass = table[(table.panel == "mass") & (table.kind == MEASURED)]
    np.testing.assert_allclose(mass.y, mass.x, rtol=2e-3)
    found = table[table.panel == "example"].set_index("series").x
    assert abs(found["one-step SPIF, global optimum"] - 0.0202) < 5e-5
    assert (found[~found.index.str.contains("global")] < 1.1e-9).all()
    reward = matched(table, "reward")
    np.testing.assert_allclose(reward.y, reward.theory, rtol=5e-3)  # as the mass tends to 0
    part = table[(table.panel == "reward") & (table.kind == MEASURED)]
    bounded = part[(part.series == "two steps") | (part.objective == "centred_spif")]
    assert len(bounded) == 18
    assert (bounded.y <= 1.0).all()


def test_destination(monkeypatch):
    for name, value in {
        "MAP_ROUNDS": 3,
        "ROUNDS": 24,
        "PATHS": ["spin", "ipo", "nwj", "centred_spif", "policy_only"],
        "ON_MAP": ("spin",),
        "CORNERS": destination_figure.CORNERS[:1],
    }.items():
        monkeypatch.setattr(destination_figure, name, value)
    table = tidy(destination_figure)
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


def test_saddle(monkeypatch):
    monkeypatch.setattr(saddle_figure, "HORIZON", 4)
    monkeypatch.setattr(saddle_figure, "TAUS", np.array([0.02, 0.3, 5.0]))
    monkeypatch.setattr(saddle_figure, "LIKELIEST", 300)
    table = tidy(saddle_figure)
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


def test_tokens(monkeypatch):
    monkeypatch.setattr(tokens_figure, "HORIZONS", (1, 2, 4))
    table = tidy(tokens_figure)
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
