"""SGD on the one-step losses against exact rounds: rates, noise floors, contraction, few steps.

Numbers: toy_games/experiments/sgd.py (`python -m toy_games run sgd`), with the settings below;
out/sgd.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows
from lab.stats import intervals
from toy_games import launch
from toy_games.experiments.sgd import Settings

SEEDS, FLOOR_SEEDS = sized(8, 24), sized(16, 48)
CAPTION = (
    "Gradient steps on the one-step losses against the exact rounds; learning rates in units "
    "of SFT's, effective step R'(0)/beta. Top left: root mean square log-ratio of full-batch "
    "iterates to the exact round of their class; lines: linearised from the round's Hessian "
    "at its minimiser. Top right: mean square distance of minibatch iterates to the minimiser "
    "of the expected minibatch loss; lines: discrete Lyapunov equation. With groups of 4, as "
    "centred SPIF and Rényi are drawn here, that minimiser is not the exact round: T3 is "
    "of exact laws, and the distance to the exact round (open points) stops at the bias that "
    "T17's finite groups predict (dashed). Bottom left: factor of one round of SGD near the "
    "fixed point, for every objective that has a round (three effective steps each), against "
    "that of exact rounds from the same starts (locally 1 - R'(0)/beta, T6); crosses: groups "
    "of 4 against the round of exact laws. Bottom right: the factor of a round of k steps "
    "goes from SFT's, the same for all objectives, to that of the exact round (lines: "
    f"theory). Points: mean and 95 % interval over {SEEDS} seeds of the minibatches "
    f"({FLOOR_SEEDS} top right), on one game."
)
CLAIMS = ("T3", "T6", "T15", "T17", "C3")

DRAWN = ("spin", "spif", "ipo")
GROUPS = ("centred_spif", "renyi")
CLASSES = {"tokens": "o", "features": "s", "network": "^"}
ROUND = Settings(parts=("round",), objectives=DRAWN, seeds=1)
FLOOR = Settings(
    parts=("floor",), objectives=("spin", "spif", *GROUPS), seeds=FLOOR_SEEDS, steps=200
)
FACTOR = Settings(parts=("contraction",), seeds=SEEDS, steps=120, reach=0.2)
STEPS = Settings(
    parts=("steps",),
    objectives=DRAWN,
    seeds=SEEDS,
    effective=(0.5, 1.5),
    reach=0.2,
    batch=128,
    counts=(1, 2, 4, 8, 16, 32, 64),
)


def table() -> pd.DataFrame:
    """Distances within a round, floors, factors of rounds of many and of k steps."""
    rows = Rows()
    for add, settings in ((_within, ROUND), (_floors, FLOOR), (_factors, FACTOR), (_steps, STEPS)):
        add(rows, launch.run("sgd", settings, progress=False))
    return rows.table()


def _within(rows: Rows, found: pd.DataFrame) -> None:
    for (name, family), part in found.groupby(["objective", "class"], sort=False):
        if family != "tokens" and name not in ("spif", "sft"):
            continue
        part = part[part.distance > 1e-9]
        line = part[part.step >= part.anchor]
        rows.add("round", name, family, MEASURED, part.step, part.distance)
        rows.add("round", name, family, THEORY, line.step, line.predicted)


def _floors(rows: Rows, found: pd.DataFrame) -> None:
    found = found.assign(x=found.rate / found.batch)
    for name, part in found.groupby("objective", sort=False):
        line = part.groupby("x", as_index=False)[["predicted", "bias"]].mean()
        rows.add("floor", name, "limit", THEORY, line.x, line.predicted)
        if name in GROUPS:
            rows.add("floor", name, "exact round", THEORY, line.x, line.bias)
        rows.means("floor", name, "limit", part, "x", "from_limit")
        if name in GROUPS:
            rows.means("floor", name, "exact round", part, "x", "from_exact")


def _factors(rows: Rows, found: pd.DataFrame) -> None:
    by = ["objective", "effective", "exact", "unlimited"]
    for (name, step), part in intervals(found, by, "measured").groupby(by[:2], sort=False):
        series, interval = f"{step:g}", (part["mean"], part.low, part.high)
        rows.add("factor", name, series, MEASURED, part.exact, *interval)
        rows.add("factor", name, series, THEORY, part.exact, part.exact)
        if name in GROUPS:
            rows.add("factor", name, f"{series}, exact laws", THEORY, part.unlimited, part["mean"])


def _steps(rows: Rows, found: pd.DataFrame) -> None:
    for (name, step), part in found.groupby(["objective", "effective"], sort=False):
        series = "sft" if name == "sft" else f"{step:g}"
        rows.means("steps", name, series, part, "steps_per_round", "measured")
        line = part.groupby("steps_per_round", sort=False).predicted.first()
        rows.add("steps", name, series, THEORY, line.index, line)


def plot(table: pd.DataFrame) -> Figure:
    """Distances and floors above, factors below."""
    figure, axes = style.panel(2, 2, aspect=0.86)
    draw.fill(axes, table, _draw_within, _draw_floors, _draw_factors, _draw_steps)
    return figure


def _point(name: str, series: str) -> dict[str, Any]:
    return style.points(name, CLASSES.get(series, "o"), hollow=series == "exact round")


def _keys(names: list[str]) -> dict[str, dict[str, Any]]:
    return {shown(name): draw.colours(name) | {"linewidth": 2} for name in names}


def _draw_within(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "round")
    draw.points(ax, table, "round", _point, every=4)
    style.log(ax, "y")
    keys = _keys([*DRAWN, "sft"])
    ax.add_artist(style.legend(ax, keys, loc="lower left", handlelength=1.0))
    texts = zip(("token table", "log-linear", "network"), CLASSES.values(), strict=True)
    shapes = {text: style.points(style.GREY, marker) for text, marker in texts}
    style.legend(ax, shapes, loc="upper right", handlelength=0.6)
    x = "full-batch steps in the round"
    style.label(ax, x, "distance to the exact round", "Rates are the Hessian's")


def _draw_floors(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {"limit": "-", "exact round": "--"}
    draw.lines(ax, table, "floor", lambda n, s: draw.colours(n) | {"linestyle": dashes[s]})
    draw.points(ax, table, "floor", _point)
    style.log(ax, x=[2e-3, 5e-3, 1e-2, 2e-2, 5e-2])
    note(ax, 0.02, 0.815, "bias of groups of 4", color=style.PURPLE)
    names = list(table[table.panel == "floor"].objective.unique())
    style.legend(ax, _keys(names), loc="lower right", handlelength=1.0)
    title = "Noise floors; groups miss the round"
    style.label(ax, "learning rate / batch", "mean square distance", title)


def _draw_factors(ax: Axes, table: pd.DataFrame) -> None:
    ends = [-1.45, 0.85]
    ax.plot(ends, ends, "k-", linewidth=1.0)
    exact = table[table.series.str.contains("exact laws")]
    draw.points(ax, exact, "factor", lambda n, _: style.points(n, "x", markersize=4.5), kind=THEORY)
    draw.points(ax, table, "factor", _point)
    mark(ax, -1.13, -1.27, "T-SPIN", color=style.colour("tspin"))
    mark(ax, -0.42, -0.98, "groups of 4 where", color=style.PURPLE)
    mark(ax, -0.42, -1.11, "exact laws are expected", color=style.PURPLE)
    title = "Every objective contracts as predicted"
    style.label(ax, "factor of the exact round", "measured with SGD", title)


def _draw_steps(ax: Axes, table: pd.DataFrame) -> None:
    shades = {"sft": style.BLACK}
    draw.lines(ax, table, "steps", lambda n, _: {"color": shades.get(n, style.GREY)})
    draw.points(ax, table, "steps", _point, draw.dodge(list(DRAWN), 0.1))
    style.log(ax, "x", x=[1, 2, 4, 8, 16, 32, 64], base=2)
    mark(ax, 72, 0.58, "R'(0)/β = ½", ha="right")
    mark(ax, 72, 0.07, "SFT", ha="right")
    mark(ax, 15, -0.5, "R'(0)/β = 3/2", ha="right")
    title = "k = 1 is SFT; then they part"
    style.label(ax, "gradient steps a round, k", "factor of a round", title)
