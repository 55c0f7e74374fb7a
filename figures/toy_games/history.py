"""Own responses of earlier opponents: which effective steps they keep stable, near and from afar.

Numbers: toy_games/experiments/stability.py (`python -m toy_games run stability`), study history,
and `theory.self_play(history=...)`; out/history.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from scipy.special import eval_laguerre

from figures import draw, style
from figures.sizes import sized
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from theory import self_play
from theory.rounds.history import history_threshold
from toy_games import launch
from toy_games.experiments.stability import TINY, Settings

NAMES = ("spin", "spif", "ipo")
FAR = ("spin", "spif")
SETTINGS = Settings(
    studies=("history",),
    objectives=NAMES,
    seeds=sized(3, 8),
    rounds=sized(150, 400),
    history_steps=tuple(float(f"{s:.3g}") for s in np.linspace(0.3, 6.0, sized(20, 39))),
)
STEP, ROUNDS = 3.0, 200
PLAYED: dict[str, float | str] = {"none": 0.0, "a quarter": 0.25, "average": "average"}
CAPTION = (
    "Exact rounds whose own responses are partly earlier opponents' (16 responses, own expert a "
    f"seed, {SETTINGS.seeds} seeds, {SETTINGS.rounds} rounds). (a) Effective step at which rounds "
    "next to the expert begin to grow, by the last opponent's share m (means, 95 % Student "
    "intervals); black: min(1/m, 2/(1-2m)), one line for all links. (b, c) Largest log-ratio "
    f"(median) in the end of rounds from {SETTINGS.far:g} nats away: beyond step 2 SPIN leaves "
    "whatever the share, below the local threshold too, while SPIF's bounded rewards hold it "
    f"within reach. (d) Two outcomes at step {STEP:g}, SPIN from {TINY:g} nats: without old "
    "responses the log-ratio grows by 2 a round, a quarter of them makes it shrink by .87, and the "
    "average of all opponents (fictitious play) takes it along Laguerre's polynomials to 0."
)
CLAIMS = ("T6", "C5", "C3")


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """The study with its prediction, and one path of each kind of memory."""
    found = launch.run("stability", settings, progress=False)
    found = found[found.objective.isin(NAMES)]
    rows = Rows()
    shares = np.linspace(0.0, 1.0, 101)
    edges = [history_threshold(float(m)) for m in shares]
    rows.add("near", "expert", "threshold", THEORY, shares, edges)
    near = found[found.reach == TINY]
    rows.each("near", crossings(near), "history", "breaks", "threshold")
    median = found[found.reach == settings.far].groupby(["objective", "history", "effective_step"])
    for (name, share), part in median.max_logratio.median().groupby(["objective", "history"]):
        if name in FAR:
            x = part.index.get_level_values("effective_step")
            rows.add("far", name, f"{share:g}", MEASURED, x, part)
    _paths(rows)
    return rows.table()


def crossings(found: pd.DataFrame) -> pd.DataFrame:
    """Effective step at which growth turns positive, by interpolation."""
    out = []
    for key, part in found.groupby(["objective", "history", "seed"], sort=False):
        part = part.sort_values("effective_step")
        j = int((part.growth.to_numpy() > 0).argmax())
        if j:
            ends = part.iloc[j - 1 : j + 1]
            out.append((*key, np.interp(0.0, ends.growth, ends.effective_step)))
    return pd.DataFrame(out, columns=["objective", "history", "seed", "breaks"])


def _paths(rows: Rows) -> None:
    """Largest log-ratio of two outcomes, in units of the start's."""
    expert, start = np.array([0.5, 0.5]), np.array([0.5, 0.5]) * np.exp([TINY, -TINY])
    start /= start.sum()
    rounds = np.arange(1, ROUNDS + 1)
    for name, history in PLAYED.items():
        path = self_play(
            expert, start, "spin", effective_step=STEP, rounds=ROUNDS, history=history,
            progress=False,
        )  # fmt: skip
        reach = path.details["max_logratio"]
        kept = reach[1:] < 1.0
        rows.add("path", "spin", name, MEASURED, rounds[kept], reach[1:][kept] / reach[0])
    size = np.abs(eval_laguerre(rounds, STEP))
    rows.add("path", "expert", "|L_t(s)|", THEORY, rounds, size)


def plot(table: pd.DataFrame) -> Figure:
    """The local threshold, two maps from afar, and three memories."""
    fig, axes = style.panel(2, 2, aspect=0.7)
    near, spin, spif, path = axes.flat
    _near(near, table)
    for ax, name in zip((spin, spif), FAR, strict=True):
        _far(ax, table, name)
        bar = fig.colorbar(ax.collections[0], ax=ax, extend="both", pad=0.02, aspect=25)
        bar.set_label("max |log p/π| [nats]", fontsize=8)
        bar.ax.minorticks_off()
    _path(path, table)
    style.letters(axes)
    return fig


def look(name: str, series: str = "") -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    return style.shaped(name) | {"markersize": 3.6}


def _near(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "near")
    draw.points(ax, table, "near", look)
    ax.set_ylim(0.0, 5.0)
    style.legend(ax, {shown(n): look(n) for n in NAMES}, fontsize=7, loc="upper right")
    style.label(ax, "share m of old responses", "effective step s", "Near: stable below")


def _far(ax: Axes, table: pd.DataFrame, name: str) -> None:
    own = table[(table.panel == "far") & (table.objective == name)]
    part = own.assign(share=lambda t: t.series.astype(float))
    grid = part.pivot(index="x", columns="share", values="y")
    edges = [_borders(of.to_numpy(dtype=float)) for of in (grid.columns, grid.index)]
    ax.pcolormesh(
        *edges, np.maximum(grid.to_numpy(), 1e-12), cmap=draw.heat(), norm=LogNorm(0.02, 200.0)
    )
    line = table[(table.panel == "near") & (table.kind == THEORY)]
    ax.plot(line.x, line.y, color="white", linewidth=2.2)
    ax.plot(line.x, line.y, color="k", linewidth=0.9, linestyle="--")
    ax.set_xlim(edges[0][0], edges[0][-1])
    ax.set_ylim(edges[1][0], edges[1][-1])
    ax.grid(False)
    ax.set_xlabel("share m of old responses")
    ax.set_ylabel("effective step s")
    ax.set_title(f"{shown(name)} from afar")


def _borders(centres: np.ndarray) -> np.ndarray:
    """Borders of a map's cells around equally spaced centres."""
    half = 0.5 * (centres[1] - centres[0])
    return np.append(centres - half, centres[-1] + half)


def _path(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "path"]
    for name, colour in zip(PLAYED, ("tab:red", "tab:orange", "tab:blue"), strict=True):
        own = part[part.series == name]
        ax.plot(own.x, own.y, ".-", color=colour, markersize=2.5, linewidth=0.8, label=name)
    line = part[part.kind == THEORY]
    ax.plot(line.x, line.y, "k--", linewidth=0.7)
    style.log(ax, x=[1, 10, 100], y=[0.01, 1, 100, 1e4])
    ax.legend(fontsize=6.5, loc="upper right")
    note(ax, 0.04, 0.05, "dashed: |L_t(s)|")
    style.label(ax, "round t", "largest log-ratio / start's", f"Memories at s = {STEP:g}")
