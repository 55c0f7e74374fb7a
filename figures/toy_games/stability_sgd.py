"""Stability at matched effective step, from samples: where it breaks, how badly, at what price."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.sizes import FULL, sized
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, mark, note, shown
from lab import stats
from lab.specs import objective_of
from theory import laws, objectives
from toy_games import launch
from toy_games.experiments.stability import EXACT, Settings, instance
from toy_games.predictions.stability import (
    breaking_distance,
    noise_floor,
    slowest_rate,
    tail_mass,
)

NAME = "stability_sgd"
CAPTION = (
    "Stability at matched effective step s = R'(0)/beta, from samples (16 responses, own expert a "
    "seed, {seeds} seeds; points: means, 95 % Student intervals; SFT on equal data). Maps: final "
    "KL (median) after {rounds} rounds of n = 1000 expert and own samples, smoothing 1/2; black: "
    "s = 2; left of it, below the dashed line, {rounds} rounds cover the start. C5 HOLDS as "
    "bounded failure: beyond s = 2 SPIF and IPO cycle nearer to the expert, GAIL fails already "
    "between s = 1.4 and 1.8, and without smoothing one unseen response ruins every unbounded "
    "reward, at s = 1/2 too. C5 FAILS at small s near the expert: up to about 1 all have the "
    "noise floor (N-1)/n s/(2-s) (IQ-Learn at n = 100 three times that), the same response to "
    "wrong labels and a slower burn-in. Nearer to 2 that first order in 1/n ends: at s = 1.84 "
    "SPIN's floor is above it by half, SPIF's and IPO's are half of it. Exact SPIN diverges "
    "beyond 2 and burns in within O(log) rounds; both FAIL for smoothed samples, whose log-ratios "
    "are at most log(2n+1), and mass outside of the expert's support falls like 1/round instead "
    "of e^{(R(-inf)-R(0))/beta}. Rounds of k gradient steps break at a distance k rate lambda "
    "(lambda: largest eigenvalue of diag p - p p') that depends on s alone: early stopping holds "
    "SPIN at beta = 0.1 (last panel: minibatches of 64, {early_steps} steps each). NWJ, whose "
    "one-step effective step is at most e/(e-1), never breaks; hinge has none and breaks at 2."
)
CLAIMS = ("C5", "T6", "T7", "T8", "T9")

MAPS = {
    "spin": "SPIN, exponential, NWJ",
    "spif": "SPIF, centred SPIF",
    "ipo": "IPO",
    "iq_learn": "IQ-Learn",
    "gail": "GAIL",
}
MAIN = ("spin", "spif", "ipo", "iq_learn", "gail")
FEW = 100
LOST = 1e4
"""KL in nats above which a run counts, and is drawn, as lost."""
SIZES = {"seeds": (5, 8), "rounds": (150, 400), "early_steps": (900, 4000)}
STUDIED = Settings(
    samples=(FEW, 1000),
    steps=tuple(float(f"{s:.4g}") for s in np.geomspace(0.1, 20.0, 35 if FULL else 21)),
    **sized(SIZES),
)


def table(settings: Settings = STUDIED) -> pd.DataFrame:
    """All studies of the experiment, with their predictions."""
    found = launch.run("stability", settings, progress=False)
    rows = Rows()
    _map_rows(rows, found[found.study == "map"], settings)
    unseen = found[found.study == "unseen"]
    unseen = unseen.assign(kl=unseen.kl.clip(upper=LOST))
    _measured(rows, "unseen", unseen[unseen.objective.isin((*MAIN, "sft"))], "samples", "kl", "a=0")
    _floor_rows(rows, found[found.study == "floor"], settings)
    _burn_in_rows(rows, found[found.study == "burn-in"], settings)
    _label_rows(rows, found[found.study == "labels"], settings)
    _outside_rows(rows, found[found.study == "outside"], settings)
    _boundary_rows(rows, found[found.study == "boundary"], settings)
    _measured(rows, "early", found[found.study == "early"], "distance", "kl", "minibatches")
    return rows.table()


def _measured(
    rows: Rows, panel: str, part: pd.DataFrame, x: str, y: str, series: str, scale: float = 1.0
) -> None:
    """Means over seeds with their intervals, one curve an objective.

    No quantity here is negative: an interval ends at 0, which a log axis shows as its lower edge.
    """
    for name in part.objective.unique():
        found = stats.intervals(part[part.objective == name], [x], y)
        found["low"] = found.low.clip(lower=0.0)
        ends = found[["mean", "low", "high"]].to_numpy().T * scale
        rows.add(panel, name, series, MEASURED, found[x], *ends)


def _map_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    median = found.groupby(["objective", "reach", "effective_step"]).kl.median()
    steps = np.array(settings.steps)
    for name in MAPS:
        for reach in settings.reaches:
            part = median[name, reach]
            rows.add("map", name, f"{reach:g}", MEASURED, part.index, part)
        obj = objective_of(name)
        if obj is not None:
            rate = slowest_rate(obj, steps, settings.many, 1.0 / settings.outcomes)
            rows.add("reach", name, "covered", THEORY, steps, settings.rounds * rate)


def _floor_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.linspace(0.1, 1.98, 95)
    rows.add("floor", "expert", "s/(2-s)", THEORY, steps, noise_floor(steps, 2, 1))
    size = settings.outcomes - 1
    for n in settings.samples:
        names = ("spif", "iq_learn") if n == FEW else (*MAIN, "sft")
        part = found[(found.samples == n) & found.objective.isin(names)]
        _measured(rows, "floor", part, "effective_step", "kl", f"n={n}", n / size)


def _burn_in_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    far = found[found.reach > 3.0]
    assert (far.burn_in_u > 0).all(), "a burn-in did not end"
    names = ("spin", "spif", "ipo", "gail", "sft")
    part = far[far.objective.isin(names)]
    _measured(rows, "burn-in", part[part.samples > 0], "reach", "burn_in_u", "sampled")
    exact = part[(part.samples == EXACT) & (part.objective == "spin")]
    _measured(rows, "burn-in", exact, "reach", "burn_in_u", "exact")
    ends = np.geomspace(3.0, 100.0, 20)
    for share in (0.5, 1.0):
        line = share * ends / (2.0 * settings.one_step)
        rows.add("burn-in", "spif", f"{share:g} βc max u₀", THEORY, ends, line)
    spin = objectives.get("spin")
    rate = slowest_rate(spin, settings.one_step, settings.many, 1.0 / settings.outcomes)
    rows.add("burn-in", "spin", "at most", THEORY, ends[ends > 8.0], ends[ends > 8.0] / rate)


def _label_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    for noise, names in (("uniform", ("spin", "spif", "ipo", "sft")), ("own", ("spin", "spif"))):
        part = found[(found.noise == noise) & found.objective.isin(names)]
        _measured(rows, "labels", part, "label_noise", "kl", noise)
    share = np.linspace(0.0, max(settings.label_noise), 41)
    p = instance(settings.seeds, settings.outcomes, settings.spread)[0]
    mixed = (1.0 - share[:, None, None]) * p + share[:, None, None] / settings.outcomes
    kl = laws.kl(np.broadcast_to(p, mixed.shape), mixed).mean(-1)
    sizes = settings.outcomes, settings.many
    rows.add("labels", "sft", "uniform", THEORY, share, kl)
    floor = noise_floor(settings.one_step, *sizes)
    rows.add("labels", "expert", "uniform", THEORY, share, kl + floor)
    own = noise_floor(settings.one_step, *sizes, share)
    rows.add("labels", "expert", "own", THEORY, share, own)


def _outside_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    part = found[(found.samples > 0) & (found.step > 0)]
    names = ("spin", "spif", "gail", "sft")
    _measured(rows, "outside", part[part.objective.isin(names)], "step", "outside", "sampled")
    for name in ("spif", "gail"):
        exact = found[(found.samples == EXACT) & (found.objective == name) & (found.step > 0)]
        line = exact.groupby("step").outside.mean()
        rows.add("outside", name, "exact rounds", THEORY, line.index, line)
    rounds = np.geomspace(10, settings.rounds, 20)
    tail = tail_mass(objectives.get("spif"), settings.one_step, settings.many, rounds)
    rows.add("outside", "spif", "sampled, tail", THEORY, rounds, settings.surplus * tail)


def _boundary_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.geomspace(2.1, 25.0, 80)
    distance = breaking_distance(steps, settings.inner)
    rows.add("boundary", "expert", "breaks", THEORY, steps, distance)
    rows.add("boundary", "spin_hinge", "breaks", THEORY, [2.1, 25.0], 2.0)
    measured = crossings(found)
    for name in measured.objective.unique():
        part = stats.intervals(measured[measured.objective == name], ["effective_step"], "breaks")
        rows.add(
            "boundary",
            name,
            "breaks",
            MEASURED,
            *part[["effective_step", "mean", "low", "high"]].to_numpy().T,
        )


def crossings(found: pd.DataFrame) -> pd.DataFrame:
    """Distance at which growth turns positive, by interpolation, where it does."""
    out = []
    for key, part in found.groupby(["objective", "effective_step", "seed"], sort=False):
        part = part.sort_values("distance")
        grows = part.growth.to_numpy() > 0
        if grows.any() and not grows[0]:
            j = int(grows.argmax())
            at = np.interp(0.0, part.growth.iloc[j - 1 : j + 1], part.distance.iloc[j - 1 : j + 1])
            out.append((*key, at))
    return pd.DataFrame(out, columns=["objective", "effective_step", "seed", "breaks"])


MARKS = {"spif": "s", "ipo": "^", "iq_learn": "D", "gail": "v", "nwj": "X", "sft": "x"}
MARKS |= {"spin_hinge": "*", "centred_spif": "s", "exponential": "P"}


def plot(table: pd.DataFrame) -> Figure:
    """Six maps above, six panels below."""
    fig = style.plt.figure(figsize=(style.WIDTHS[2], 9.0))
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.0, 1.25))
    axes = top.subplots(2, 3)
    for ax, name in zip(axes.flat, MAPS, strict=False):
        _map(ax, table, name)
    _unseen(axes[1, 2], table)
    for ax in (*axes[1, :2], axes[0, 2]):
        ax.set_xlabel("effective step s", fontsize=8)
    for ax in axes[:, 0]:
        ax.set_ylabel("start: max log p/π [nats]", fontsize=8)
    note(axes[0, 1], 0.04, 0.4, "covered by\nthe rounds")
    bar = top.colorbar(axes[0, 0].collections[0], ax=axes, extend="both", pad=0.02, aspect=30)
    bar.set_label("final KL(p‖π) [nats]", fontsize=8)
    bar.ax.minorticks_off()
    below = bottom.subplots(2, 3)
    drawn = (_floor, _burn_in, _outside, _labels, _boundary, _early)
    for ax, draw in zip(below.flat, drawn, strict=True):
        draw(ax, table)
        ax.set_title(ax.get_title(loc="left"), fontsize=8.5, loc="left")
        ax.xaxis.label.set_fontsize(8)
        ax.yaxis.label.set_fontsize(8)
    names = (*MAIN, "exponential", "nwj", "spin_hinge", "sft")
    keys = [Line2D([], [], **_look(name)) for name in names]
    texts = ["SFT" if name == "sft" else shown(name) for name in names]
    bottom.legend(
        keys, texts, loc="outside upper center", ncol=9, fontsize=7, columnspacing=0.9,
        handletextpad=0.0,
    )  # fmt: skip
    return fig


def _map(ax: Axes, table: pd.DataFrame, name: str) -> None:
    part = table[(table.panel == "map") & (table.objective == name)]
    part = part.assign(reach=part.series.astype(float))
    grid = part.pivot(index="reach", columns="x", values="y")
    colours = style.plt.get_cmap("YlOrRd").with_extremes(under="#DCE9F5", over="#4A0010")
    axes = (_edges(grid.columns.to_numpy(dtype=float)), _edges(grid.index.to_numpy(dtype=float)))
    ax.pcolormesh(*axes, grid.to_numpy(), cmap=colours, norm=LogNorm(0.02, 200.0))
    for _, _, rows in curves(table[table.objective == name], "reach"):
        ax.plot(rows.x, rows.y, color="white", linewidth=2.2)
        ax.plot(rows.x, rows.y, color="k", linewidth=0.9, linestyle="--")
    ax.axvline(2.0, color="k", linewidth=1.2)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(axes[1][0], axes[1][-1])
    ax.grid(False)
    _steps(ax)
    ax.set_yticks([1, 10, 100], ["1", "10", "100"])
    ax.minorticks_off()
    ax.set_title(MAPS[name], fontsize=8.5)


def _unseen(ax: Axes, table: pd.DataFrame) -> None:
    order = list(dict.fromkeys(table[table.panel == "unseen"].objective))
    for name, _, rows in curves(table, "unseen", MEASURED):
        shift = 1.0 + 0.05 * (order.index(name) - 3)
        bars(ax, rows.assign(x=rows.x * shift), **_look(name))
    _logarithmic(ax)
    ax.set_ylim(1e-5, 3e4)
    ax.set_yticks([1e-4, 1e-2, 1.0, 100.0, LOST], ["10⁻⁴", "0.01", "1", "100", "lost"])
    style.label(ax, "samples n a round", "", "No smoothing, s = ½")
    ax.set_title("No smoothing, s = ½", fontsize=8.5, loc="left")
    ax.xaxis.label.set_fontsize(8)


def _edges(centres: np.ndarray) -> np.ndarray:
    """Borders of cells around logarithmic centres."""
    log = np.log(centres)
    middle = 0.5 * (log[1:] + log[:-1])
    return np.exp(np.concatenate([[2 * log[0] - middle[0]], middle, [2 * log[-1] - middle[-1]]]))


def _steps(ax: Axes) -> None:
    ax.set_xticks([0.1, 0.5, 2, 5, 20], ["0.1", "½", "2", "5", "20"])


def _look(name: str, hollow: bool = False) -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    shade = {"sft": "k", "spin_hinge": style.RED}.get(name, style.colour(name))
    thin = name == "sft" or hollow
    look = {
        **style.points(name),
        "color": shade,
        "marker": MARKS.get(name, "o"),
        "markersize": 5.0 if name == "spin_hinge" else 3.6,
    }
    look |= {"markeredgewidth": 0.9 if thin else 0.0, "markeredgecolor": shade}
    return look | ({"markerfacecolor": "white"} if hollow else {})


def _lines(ax: Axes, table: pd.DataFrame, panel: str, black: tuple[str, ...] = ()) -> None:
    """All predictions of a panel."""
    for name, _, rows in curves(table, panel, THEORY):
        shade = "k" if name == "expert" or name in black else _look(name)["color"]
        ax.plot(rows.x, rows.y, color=shade, linewidth=1.2, zorder=3 if shade == "k" else 1)


def _logarithmic(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.minorticks_off()


def _floor(ax: Axes, table: pd.DataFrame) -> None:
    _lines(ax, table, "floor")
    for name, series, rows in curves(table, "floor", MEASURED):
        bars(ax, rows, **_look(name, hollow=series == f"n={FEW}"))
    ax.axvline(2.0, color="k", linewidth=0.8)
    _logarithmic(ax)
    _steps(ax)
    ax.set_ylim(1e-3, 1e5)
    mark(ax, 0.3, 0.05, "s/(2−s)", color="k")
    note(ax, 0.03, 0.93, "hollow: n = 100", fontsize=7)
    label = "KL · n/(N−1), start: expert"
    style.label(ax, "effective step s", label, "Small s: one noise floor")


def _burn_in(ax: Axes, table: pd.DataFrame) -> None:
    _lines(ax, table, "burn-in")
    for name, series, rows in curves(table, "burn-in", MEASURED):
        bars(ax, rows, **_look(name, hollow=series == "exact"))
    _logarithmic(ax)
    ax.set_ylim(0.8, 200)
    ax.set_xticks([3, 10, 30, 100], ["3", "10", "30", "100"])
    note(ax, 0.04, 0.92, "½ and 1 × βc max u₀", color=style.BLUE, fontsize=7)
    note(ax, 0.98, 0.22, "hollow: exact rounds", color=style.RED, fontsize=7, ha="right")
    title = "Price of bounds: burn-in, s = ½"
    style.label(ax, "start: max log p/π [nats]", "rounds to max log p/π ≤ 1", title)


def _outside(ax: Axes, table: pd.DataFrame) -> None:
    for name, series, rows in curves(table, "outside", THEORY):
        kept = rows[rows.y > 1e-6]
        dashed = "-" if series == "exact rounds" else "--"
        ax.plot(kept.x, kept.y, color=style.colour(name), linestyle=dashed, linewidth=1.2)
    for name, _, rows in curves(table, "outside", MEASURED):
        bars(ax, rows, **_look(name))
    _logarithmic(ax)
    note(ax, 0.04, 0.09, "lines: exact rounds;\ndashed: 1/round", fontsize=7)
    style.label(ax, "round", "policy's mass where p = 0", "Leaving p = 0, s = ½")


def _labels(ax: Axes, table: pd.DataFrame) -> None:
    for name, series, rows in curves(table, "labels", THEORY):
        look = "--" if series == "own" else (":" if name == "sft" else "-")
        ax.plot(rows.x, rows.y, color="k", linestyle=look, linewidth=1.1)
    for name, series, rows in curves(table, "labels", MEASURED):
        shift = {"spif": 0.004, "ipo": -0.004}.get(name, 0.0)
        bars(ax, rows.assign(x=rows.x + shift), **_look(name, hollow=series == "own"))
    ax.set_yscale("log")
    ax.set_ylim(3e-5, 0.2)
    note(ax, 0.98, 0.93, "uniform labels", fontsize=7, ha="right")
    note(ax, 0.98, 0.52, "hollow: own labels", fontsize=7, ha="right")
    title = "Wrong labels move all alike"
    style.label(ax, "share of labels replaced", "final KL(p‖π) [nats], s = ½", title)


def _boundary(ax: Axes, table: pd.DataFrame) -> None:
    _lines(ax, table, "boundary")
    order = list(dict.fromkeys(table[table.panel == "boundary"].objective))
    for name, _, rows in curves(table, "boundary", MEASURED):
        shift = 1.0 + 0.03 * (order.index(name) - 4)
        bars(ax, rows.assign(x=rows.x * shift), **_look(name))
    ax.set_xscale("log")
    ax.set_xticks([2, 5, 10, 20], ["2", "5", "10", "20"])
    ax.minorticks_off()
    ax.set_ylim(0.0, 6.0)
    note(ax, 0.45, 0.7, "diverges", fontsize=8)
    note(ax, 0.1, 0.17, "early stopping holds", fontsize=8)
    title = "k gradient steps a round"
    style.label(ax, "effective step s", "distance of a round k·rate·λ", title)


def _early(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "early"):
        bars(ax, rows, **{**_look(name), "linestyle": "-", "linewidth": 0.6})
    note(ax, 0.97, 0.25, "NWJ", color=style.GREY, fontsize=7, ha="right")
    ax.axvline(float(breaking_distance(STUDIED.early_step)), color="k", linewidth=1.0)
    _logarithmic(ax)
    ax.set_xticks([0.2, 0.5, 1, 2, 5, 14], ["0.2", "½", "1", "2", "5", "14"])
    title = "Minibatches, s = 10"
    style.label(ax, "distance of a round k·rate·λ", "final KL(p‖π) [nats]", title)
