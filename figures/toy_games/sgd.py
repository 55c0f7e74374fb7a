"""SGD on the one-step losses against exact rounds: rates, noise floors, contraction, few steps."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.sizes import sized
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, mark, note, shown
from lab.stats import intervals
from toy_games import launch
from toy_games.experiments.sgd import Settings

NAME = "sgd"
CAPTION = (
    "Gradient steps on the one-step losses against the exact rounds; learning rates in units of "
    "SFT's, effective step R'(0)/beta. Top left: root mean square log-ratio of full-batch "
    "iterates to the exact round of their class; lines: linearised from the round's Hessian at "
    "its minimiser. Top right: mean square distance of minibatch iterates to the minimiser of "
    "the expected minibatch loss; lines: discrete Lyapunov equation. With groups of 4, as "
    "centred SPIF and Rényi are drawn here, that minimiser is not the exact round: T3 holds of "
    "exact laws, and the distance to the exact round (open points) stops at the bias that T17's "
    "finite groups predict (dashed). Bottom left: factor of one round of SGD near the fixed "
    "point, for every objective that has a round (three effective steps each), against that of "
    "exact rounds from the same starts (locally 1 - R'(0)/beta, T6); crosses: groups of 4 "
    "against the round of exact laws, where the prediction fails. Bottom right: the factor of a "
    "round of k steps goes from SFT's, the same for all objectives, to that of the exact round "
    "(lines: theory). Points: mean and 95 % interval over {seeds} seeds of the minibatches "
    "({floor_seeds} top right), on one game."
)
CLAIMS = ("T3", "T6", "T15", "T17", "C3")

SIZES = {"seeds": (8, 24), "floor_seeds": (16, 48)}
SEEDS, FLOOR_SEEDS = sized(SIZES).values()
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
    _within(rows, launch.run("sgd", ROUND, progress=False))
    _floors(rows, launch.run("sgd", FLOOR, progress=False))
    _factors(rows, launch.run("sgd", FACTOR, progress=False))
    _steps(rows, launch.run("sgd", STEPS, progress=False))
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
        targets = ["from_limit"]
        if name in GROUPS:
            rows.add("floor", name, "exact round", THEORY, line.x, line.bias)
            targets.append("from_exact")
        for target in targets:
            series = "limit" if target == "from_limit" else "exact round"
            mean = intervals(part, ["x"], target)
            rows.add("floor", name, series, MEASURED, mean.x, mean["mean"], mean.low, mean.high)


def _factors(rows: Rows, found: pd.DataFrame) -> None:
    by = ["objective", "effective", "exact", "unlimited"]
    for (name, step), part in intervals(found, by, "measured").groupby(by[:2], sort=False):
        interval = (part["mean"], part.low, part.high)
        rows.add("factor", name, f"{step:g}", MEASURED, part.exact, *interval)
        rows.add("factor", name, f"{step:g}", THEORY, part.exact, part.exact)
        if name in GROUPS:
            rows.add("factor", name, f"{step:g}, exact laws", THEORY, part.unlimited, part["mean"])


def _steps(rows: Rows, found: pd.DataFrame) -> None:
    by = ["objective", "effective", "steps_per_round", "predicted"]
    for (name, step), part in intervals(found, by, "measured").groupby(by[:2], sort=False):
        series = "sft" if name == "sft" else f"{step:g}"
        interval = (part["mean"], part.low, part.high)
        rows.add("steps", name, series, MEASURED, part.steps_per_round, *interval)
        rows.add("steps", name, series, THEORY, part.steps_per_round, part.predicted)


def plot(table: pd.DataFrame) -> Figure:
    """Distances and floors above, factors below."""
    figure, axes = style.panel(2, 2, aspect=0.86)
    _draw_within(axes[0, 0], table)
    _draw_floors(axes[0, 1], table)
    _draw_factors(axes[1, 0], table)
    _draw_steps(axes[1, 1], table)
    return figure


def _look(name: str) -> str:
    return style.BLACK if name == "sft" else style.colour(name)


def _name(name: str) -> str:
    return "SFT" if name == "sft" else shown(name)


def _draw_within(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "round", THEORY):
        ax.plot(rows.x, rows.y, color=_look(name), linewidth=1.0)
    for name, family, rows in curves(table, "round", MEASURED):
        rows = rows.iloc[::4]
        ax.plot(rows.x, rows.y, CLASSES[family], color=_look(name), markersize=3.2, alpha=0.9)
    ax.set_yscale("log")
    handles = [Line2D([], [], color=_look(n), linewidth=2, label=_name(n)) for n in (*DRAWN, "sft")]
    shapes = [
        Line2D([], [], color=style.GREY, linestyle="none", marker=CLASSES[family], label=text)
        for family, text in zip(CLASSES, ("token table", "log-linear", "network"), strict=True)
    ]
    ax.add_artist(ax.legend(handles=handles, loc="lower left", handlelength=1.0))
    ax.legend(handles=shapes, loc="upper right", handlelength=0.6)
    style.label(
        ax,
        "full-batch steps in the round",
        "distance to the exact round",
        "Rates are the Hessian's",
    )


def _draw_floors(ax: Axes, table: pd.DataFrame) -> None:
    for name, series, rows in curves(table, "floor", THEORY):
        dashed = series != "limit"
        ax.plot(rows.x, rows.y, "--" if dashed else "-", color=_look(name), linewidth=1.0)
    for name, series, rows in curves(table, "floor", MEASURED):
        hollow = {"markerfacecolor": "white"} if series != "limit" else {}
        bars(ax, rows, color=_look(name), linestyle="none", marker="o", **hollow)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks([2e-3, 5e-3, 1e-2, 2e-2, 5e-2], ["0.002", "0.005", "0.01", "0.02", "0.05"])
    ax.minorticks_off()
    note(ax, 0.02, 0.815, "bias of groups of 4", color=style.PURPLE)
    names = list(dict.fromkeys(table[table.panel == "floor"].objective))
    handles = [Line2D([], [], color=_look(n), linewidth=2, label=_name(n)) for n in names]
    ax.legend(handles=handles, loc="lower right", handlelength=1.0)
    style.label(
        ax, "learning rate / batch", "mean square distance", "Noise floors; groups miss the round"
    )


def _draw_factors(ax: Axes, table: pd.DataFrame) -> None:
    ends = [-1.45, 0.85]
    ax.plot(ends, ends, "k-", linewidth=1.0)
    part = table[table.panel == "factor"]
    for name, series, rows in curves(part, "factor", THEORY):
        if "exact" in series:
            ax.plot(rows.x, rows.y, "x", color=_look(name), markersize=4.5)
    for name, _, rows in curves(part, "factor", MEASURED):
        bars(ax, rows, color=_look(name), linestyle="none", marker="o")
    mark(ax, -1.13, -1.27, "T-SPIN", color=style.colour("tspin"))
    mark(ax, -0.42, -0.98, "groups of 4 where", color=style.PURPLE)
    mark(ax, -0.42, -1.11, "exact laws are expected", color=style.PURPLE)
    style.label(
        ax,
        "factor of the exact round",
        "measured with SGD",
        "Every objective contracts as predicted",
    )


def _draw_steps(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "steps", THEORY):
        ax.plot(rows.x, rows.y, color=style.BLACK if name == "sft" else style.GREY, linewidth=1.0)
    shift = {name: 0.9 + 0.1 * i for i, name in enumerate(DRAWN)}
    for name, _, rows in curves(table, "steps", MEASURED):
        moved = rows.assign(x=rows.x * shift.get(name, 1.0))
        bars(ax, moved, color=_look(name), linestyle="none", marker="o")
    ax.set_xscale("log", base=2)
    ax.set_xticks([1, 2, 4, 8, 16, 32, 64], ["1", "2", "4", "8", "16", "32", "64"])
    mark(ax, 72, 0.58, "R'(0)/β = ½", ha="right")
    mark(ax, 72, 0.07, "SFT", ha="right")
    mark(ax, 15, -0.5, "R'(0)/β = 3/2", ha="right")
    style.label(
        ax, "gradient steps a round, k", "factor of a round", "k = 1 is SFT; then they part"
    )
