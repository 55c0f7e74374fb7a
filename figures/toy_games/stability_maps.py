"""Where rounds from samples settle, by effective step and start, and how far off they end.

Numbers: toy_games/experiments/stability.py (`python -m toy_games run stability`), studies map and
floor; out/stability_maps.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows
from theory import objectives
from toy_games import launch
from toy_games.experiments.stability import Settings
from toy_games.predictions.stability import noise_floor, slowest_rate

FEW = 100
SETTINGS = Settings(
    studies=("map", "floor"),
    samples=(FEW, 1000),
    steps=tuple(float(f"{s:.4g}") for s in np.geomspace(0.1, 20.0, sized(21, 35))),
    seeds=sized(5, 8),
    rounds=sized(150, 400),
)
CAPTION = (
    "Stability at matched effective step s = R'(0)/beta, from samples (16 responses, own expert a "
    f"seed, {SETTINGS.seeds} seeds). Maps: KL to the expert (median) after {SETTINGS.rounds} "
    "rounds of n = 1000 fresh expert and own samples, smoothing 1/2, by effective step and by how "
    "far away the start is; black: the local threshold s = 2; left of it, below the dashed line, "
    f"{SETTINGS.rounds} rounds cover the start. Last panel: KL in units of (N-1)/n of rounds that "
    "start at the expert (means, 95 % Student intervals; hollow: n = 100), for every objective on "
    "one scale and for SFT on equal data; line: s/(2-s), the floor of all links to first order."
)
CLAIMS = ("C5", "T6", "T7", "T8")

MAPS = {
    "spin": "SPIN, exponential, NWJ",
    "spif": "SPIF, centred SPIF",
    "ipo": "IPO",
    "iq_learn": "IQ-Learn",
    "gail": "GAIL",
}
MAIN = tuple(MAPS)


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """The studies with their predictions."""
    found = launch.run("stability", settings, progress=False)
    study = dict(list(found.groupby("study", sort=False)))
    rows = Rows()
    _map_rows(rows, study["map"], settings)
    _floor_rows(rows, study["floor"], settings)
    return rows.table()


def _map_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    median = found.groupby(["objective", "reach", "effective_step"]).kl.median()
    steps, smallest = np.array(settings.steps), 1.0 / settings.outcomes
    for name in MAPS:
        for reach in settings.reaches:
            part = median[name, reach]
            rows.add("map", name, f"{reach:g}", MEASURED, part.index, part)
        rate = slowest_rate(objectives.get(name), steps, settings.many, smallest)
        rows.add("reach", name, "covered", THEORY, steps, settings.rounds * rate)


def _floor_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.linspace(0.1, 1.98, 95)
    rows.add("floor", "expert", "s/(2-s)", THEORY, steps, noise_floor(steps, 2, 1))
    for n in settings.samples:
        names = ("spif", "iq_learn") if n == FEW else (*MAIN, "sft")
        part = found[(found.samples == n) & found.objective.isin(names)]
        scaled = part.assign(kl=part.kl * n / (settings.outcomes - 1))
        rows.each("floor", scaled, "effective_step", "kl", f"n={n}", least=0.0)


def plot(table: pd.DataFrame) -> Figure:
    """Five maps, and the floor."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    for ax, name in zip(axes.flat, MAPS, strict=False):
        _map(ax, table, name)
    for ax in (*axes[1, :2], axes[0, 2]):
        ax.set_xlabel("effective step s")
    for ax in axes[:, 0]:
        ax.set_ylabel("start: max log p/π [nats]")
    note(axes[0, 1], 0.04, 0.4, "covered by\nthe rounds")
    maps = [*axes[0], *axes[1, :2]]
    bar = fig.colorbar(axes[0, 0].collections[0], ax=maps, extend="both", pad=0.02, aspect=30)
    bar.set_label("KL(p‖π) [nats]", fontsize=8)
    bar.ax.minorticks_off()
    _floor(axes[1, 2], table)
    return fig


STEPS = [0.1, 0.5, 2, 5, 20]


def _map(ax: Axes, table: pd.DataFrame, name: str) -> None:
    own = table[table.objective == name]
    part = own[own.panel == "map"].assign(reach=lambda t: t.series.astype(float))
    grid = part.pivot(index="reach", columns="x", values="y")
    edges = [draw.cells(of.to_numpy(dtype=float)) for of in (grid.columns, grid.index)]
    ax.pcolormesh(*edges, grid.to_numpy(), cmap=draw.heat(), norm=LogNorm(0.02, 200.0))
    draw.lines(ax, own, "reach", lambda *_: {"color": "white", "linewidth": 2.2})
    dashed = {"color": "k", "linewidth": 0.9, "linestyle": "--"}
    draw.lines(ax, own, "reach", lambda *_: dashed)
    ax.axvline(2.0, color="k", linewidth=1.2)
    style.log(ax, x=STEPS, y=[1, 10, 100])
    ax.set_ylim(edges[1][0], edges[1][-1])
    ax.grid(False)
    ax.set_title(MAPS[name])


def look(name: str, series: str = "") -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    return style.shaped(name, hollow=series == f"n={FEW}") | {"markersize": 3.6}


def _floor(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "floor")
    draw.points(ax, table, "floor", look)
    ax.axvline(2.0, color="k", linewidth=0.8)
    style.log(ax, x=STEPS)
    ax.set_ylim(1e-3, 1e5)
    mark(ax, 0.3, 0.05, "s/(2−s)", color="k")
    looks = {shown(name): look(name) for name in (*MAIN, "sft")}
    style.legend(ax, looks, fontsize=6.5, loc="upper left", handletextpad=0.0)
    label = "KL · n/(N−1), start: expert"
    style.label(ax, "effective step s", label, "From the expert")
