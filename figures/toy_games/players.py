"""Two explicit players by gradients: paths, rates and largest stable steps.

Numbers: toy_games/experiments/players.py (`python -m toy_games run players`); out/players.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import note
from figures.tidy import MEASURED, THEORY, Rows
from lab.stats import intervals
from toy_games import launch
from toy_games.experiments.players import Settings

SETTINGS = Settings(
    parts=("trajectories", "noise", "rates", "boundary"),
    seeds=sized(5, 20),
    steps=sized(300, 800),
)
CAPTION = (
    "Adversarial imitation with two explicit players, a reward player and a policy player, both by "
    "gradients that move at once (simultaneous), in turn (alternating), or look ahead "
    "(extragradient, optimistic). (a) Distance to the equilibrium without a penalty (IPM) and (b) "
    "with the chi^2 penalty (SPIF, c = 1/4); lines: slope of the Jacobian's largest eigenvalue; "
    "grey: minibatches of 256 and their predicted spread. (c) Those log-factors over seven "
    "objectives and both pays of T10: a point is a random game, its bar what the fitted path's "
    "ripple allows. (d) Largest stable step by penalty; lines: predicted. Means over "
    f"{SETTINGS.seeds} games with 95 % intervals (a, b: geometric means)."
)
CLAIMS = ("C3", "C5", "T10")

LOOKS = {
    "simultaneous": (style.RED, "o", "-"),
    "alternating": (style.ORANGE, "s", "--"),
    "extragradient": (style.BLUE, "^", "-"),
    "optimistic": (style.BLACK, "v", ":"),
}
GAMES = ("no penalty", "penalty")


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Trajectories with slopes, rates and thresholds."""
    found = launch.run("players", settings, progress=False)
    rows = Rows()
    _trajectories(rows, found[found.part == "trajectories"])
    noise = found[(found.part == "noise") & (found.objective != "sft")]
    _minibatches(rows, noise.assign(step=noise.step / settings.slower))
    rates = found[found.part == "rates"]
    for (objective, pay, method), part in rates.groupby(["objective", "pay", "method"], sort=False):
        ends = part.measured - part.error, part.measured + part.error
        name = f"{objective} {pay}"
        rows.add("rates", name, method, MEASURED, part.predicted, part.measured, *ends)
    line = [rates.predicted.min(), rates.predicted.max()]
    rows.add("rates", "all", "diagonal", THEORY, line, line)
    _boundary(rows, found[found.part == "boundary"])
    return rows.table()


def _trajectories(rows: Rows, part: pd.DataFrame) -> None:
    """Geometric means of the distance; theory lines from the middle of the shown steps."""
    part = part.assign(log=np.log10(part.distance.clip(1e-15)))
    for panel, objective in zip(GAMES, part.objective.unique(), strict=True):
        for method in LOOKS:
            one = part[(part.objective == objective) & (part.method == method)]
            mean = intervals(one, ["step"], "log")
            mean = mean[mean["mean"] > -12.0]
            name = objective.partition("(")[0]
            log = mean[["mean", "low", "high"]]
            rows.add(panel, name, method, MEASURED, mean.step, *(10.0**log).to_numpy().T)
            slope = one.groupby("seed").predicted.first().mean() / np.log(10.0)
            growing = slope > 1e-6
            at = mean.iloc[0 if growing else len(mean) // 3]
            last = min(mean.step.max(), (0.5 - at["mean"]) / slope if growing else np.inf)
            x = np.linspace(at.step, last, 30)
            rows.add(panel, name, method, THEORY, x, 10.0 ** (at["mean"] + slope * (x - at.step)))


def _minibatches(rows: Rows, noise: pd.DataFrame) -> None:
    some = noise[noise.step.isin(noise.step.unique()[::4])]
    rows.means(GAMES[1], "spif", "minibatch", some, "step", "distance", geometric=True)
    level = np.sqrt((noise.predicted**2).mean())
    rows.add(GAMES[1], "spif", "minibatch", THEORY, [0.0, noise.step.max()], level)


def _boundary(rows: Rows, part: pd.DataFrame) -> None:
    for method in LOOKS:
        one = part[part.method == method]
        for kind, name in ((MEASURED, "measured"), (THEORY, "predicted")):
            rows.means("boundary", "spif", method, one, "c", name, kind=kind, geometric=True)


def plot(table: pd.DataFrame) -> Figure:
    """Paths above, rates and largest steps below; one legend for all."""
    fig, axes = style.panel(2, 2, aspect=0.75)
    draw.fill(axes, table, _free, _penalised, _rates, _threshold)
    looks = {name: _point("", name) | {"markersize": 4.5} for name in LOOKS}
    style.legend(fig, looks, loc="outside upper center", ncol=4, fontsize=8)
    style.letters(axes)
    return fig


def _point(name: str, method: str) -> dict[str, Any]:
    colour, marker, _ = LOOKS.get(method, (style.GREY, ".", ""))
    return style.points(colour, marker, markersize=2.8)


def _line(name: str, method: str) -> dict[str, Any]:
    colour, _, dash = LOOKS.get(method, (style.GREY, "", "--"))
    return {"color": colour, "linestyle": dash}


def _paths(ax: Axes, table: pd.DataFrame, panel: str, title: str) -> None:
    small = table.series == "minibatch"
    thin = {"elinewidth": 0.5}
    draw.lines(ax, table, panel, lambda n, s: _line(n, s) | {"zorder": 3})
    draw.points(ax, table[small], panel, lambda n, s: _point(n, s) | thin)
    draw.points(ax, table[~small], panel, lambda n, s: _point(n, s) | thin, every=5)
    style.log(ax, "y")
    ax.set_ylim(1e-9, 40)
    style.label(ax, "steps", "distance to equilibrium", title)


def _free(ax: Axes, table: pd.DataFrame) -> None:
    _paths(ax, table, GAMES[0], "No penalty")


def _penalised(ax: Axes, table: pd.DataFrame) -> None:
    _paths(ax, table, GAMES[1], "With the χ² penalty")
    note(ax, 0.3, 0.88, "minibatches of 256")


def _rates(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "rates", lambda *_: {"color": style.GREY, "zorder": 0})
    faint = {"elinewidth": 0.4, "alpha": 0.7}
    for method in LOOKS:  # all objectives of a method at once, under one name
        part = table[table.series == method].assign(objective=method)
        draw.points(ax, part, "rates", lambda n, s: _point(n, s) | faint | {"label": n})
    style.label(ax, "predicted log-factor a step", "measured", "Rates")


def _threshold(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "boundary", _line)
    draw.points(ax, table, "boundary", lambda n, s: _point(n, s) | {"markersize": 3.6})
    style.log(ax, x=[0.2, 0.5, 1, 2, 5], y=[0.2, 0.5, 1, 2, 5])
    style.label(ax, "penalty c", "largest stable step", "Largest stable step")
