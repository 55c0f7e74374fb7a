"""Two explicit players by gradients: rates, stability, and where small reward classes stop."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.sizes import sized
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, mark, note
from lab.stats import intervals
from toy_games import launch
from toy_games.experiments.players import Settings

NAME = "players"
CAPTION = (
    "True adversarial imitation: a reward player and a policy player, both by gradients. Above: "
    "distance to the equilibrium without a penalty (IPM: simultaneous steps spiral out, "
    "alternating ones cycle, the other two converge) and with the chi^2 penalty (SPIF, c = 1/4), "
    "with the slopes of the Jacobian's largest eigenvalue (lines) and the spread predicted for "
    "minibatches (grey); the same factors over seven objectives and both pays of T10: a point is "
    "a random game, its bar what the fitted path's ripple allows. Below: the largest stable step "
    "by penalty (beyond c of about 1/2 the penalty itself is the stiff part); a tabular policy "
    "against few reward features matches their moments, not the expert (T10 fails: its reward "
    "class is a table): KL-proximal steps end at the maximum-likelihood law of those features "
    "(line), plain ones elsewhere; a log-linear policy ends at its MLE if the reward's features "
    "are its own (T15), and not otherwise, reward tables included. {Seeds:word} games, means with "
    "95 % intervals (above on the left: geometric means)."
)
CLAIMS = ("C1", "C3", "C5", "T10", "T15")

LOOKS: dict[str, dict[str, Any]] = {
    "simultaneous": {"color": style.RED, "marker": "o", "linestyle": "-"},
    "alternating": {"color": style.ORANGE, "marker": "s", "linestyle": "--"},
    "extragradient": {"color": style.BLUE, "marker": "^", "linestyle": "-"},
    "optimistic": {"color": style.BLACK, "marker": "v", "linestyle": ":"},
}
GAMES = ("no penalty", "penalty")
SIZES = {
    "features": ((1, 3, 6, 11), (1, 2, 4, 6, 8, 11)),
    "seeds": (5, 20),
    "steps": (300, 800),
}
SETTINGS = Settings(
    parts=("trajectories", "noise", "rates", "boundary", "features", "classes"),
    **sized(SIZES),
)


def table() -> pd.DataFrame:
    """Trajectories with slopes, rates, thresholds, ends of small reward classes."""
    found = launch.run(NAME, SETTINGS, progress=False)
    rows = Rows()
    _trajectories(rows, found)
    rates = found[found.part == "rates"]
    for (objective, pay, method), part in rates.groupby(["objective", "pay", "method"], sort=False):
        rows.add("rates", f"{objective} {pay}", method, MEASURED, part.predicted, part.measured,
                 part.measured - part.error, part.measured + part.error)  # fmt: skip
    ends = [rates.predicted.min(), rates.predicted.max()]
    rows.add("rates", "all", "diagonal", THEORY, ends, ends)
    _boundary(rows, found[found.part == "boundary"])
    _features(rows, found[found.part == "features"])
    _classes(rows, found[found.part == "classes"])
    return rows.table()


def _trajectories(rows: Rows, found: pd.DataFrame) -> None:
    """Geometric means of the distance; theory lines from the middle of the shown steps."""
    part = found[found.part == "trajectories"]
    part = part.assign(log=np.log10(part.distance.clip(1e-15)))
    named = zip(GAMES, part.objective.unique(), strict=True)
    for panel, objective in named:
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
    noise = found[(found.part == "noise") & (found.objective != "sft")]
    time = noise.step / SETTINGS.slower
    noise = noise.assign(log=np.log10(noise.distance), step=time)
    mean = intervals(noise, ["step"], "log").iloc[::4]
    log = mean[["mean", "low", "high"]]
    rows.add(GAMES[1], "spif", "minibatch", MEASURED, mean.step, *(10.0**log).to_numpy().T)
    level = np.sqrt((noise.predicted**2).mean())
    rows.add(GAMES[1], "spif", "minibatch", THEORY, [0.0, time.max()], level)


def _boundary(rows: Rows, part: pd.DataFrame) -> None:
    for method in LOOKS:
        one = part[part.method == method]
        for kind, name in ((MEASURED, "measured"), (THEORY, "predicted")):
            mean = intervals(one.assign(log=np.log10(one[name])), ["c"], "log")
            ends = (10.0 ** mean[["mean", "low", "high"]]).to_numpy().T
            kept = ends if kind == MEASURED else ends[:1]
            rows.add("boundary", "spif", method, kind, mean.c, *kept)


def _features(rows: Rows, part: pd.DataFrame) -> None:
    part = part[part.step > 0]
    for natural, pace in ((True, "KL-proximal"), (False, "plain")):
        one = part[part.natural == natural]
        for value, series in (("tv_to_expert", f"{pace}, expert"), ("tv", f"{pace}, MLE")):
            mean = intervals(one, ["features"], value)
            ends = (mean.low, mean.high)
            rows.add("features", "spif", series, MEASURED, mean.features, mean["mean"], *ends)
        rest = one.groupby("features").moment_residual.max()
        rows.add("moments", "spif", pace, MEASURED, rest.index, rest)
    one = part[part.natural.astype(bool)]
    mean = intervals(one, ["features"], "predicted")
    rows.add("features", "spif", "MLE, expert", THEORY, mean.features, mean["mean"])
    rows.add("features", "spif", "MLE, MLE", THEORY, mean.features, 0.0)


def _classes(rows: Rows, part: pd.DataFrame) -> None:
    part = part[part.step > 0].assign(share=part.share.fillna(0.0))
    mixed = part[part.kind.str.startswith("mixture")]
    for kind, value in ((MEASURED, "tv"), (THEORY, "predicted")):
        mean = intervals(mixed, ["share"], value)
        ends = (mean.low, mean.high) if kind == MEASURED else ()
        rows.add("classes", "spif", "features", kind, mean.share, mean["mean"], *ends)
        for name in ("table saddle", "table rounds", "sft"):
            one = intervals(part[part.kind == name], ["kind"], value)
            ends = (one.low, one.high) if kind == MEASURED else ()
            rows.add("classes", name, name, kind, 0.0, one["mean"], *ends)


def plot(table: pd.DataFrame) -> Figure:
    """Dynamics above, boundary and reward classes below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    for ax, panel, title in zip(
        axes[0], GAMES, ("No penalty", "With the χ² penalty"), strict=False
    ):
        _paths(ax, table, panel, title)
    _rates(axes[0, 2], table)
    _threshold(axes[1, 0], table)
    _ends(axes[1, 1], table)
    _mixtures(axes[1, 2], table)
    return fig


def _dots(method: str) -> dict[str, Any]:
    return {**LOOKS[method], "linestyle": "none", "markeredgewidth": 0, "markersize": 2.6}


def _line(method: str) -> dict[str, Any]:
    return {k: v for k, v in LOOKS[method].items() if k != "marker"} | {"linewidth": 1.1}


def _paths(ax: Axes, table: pd.DataFrame, panel: str, title: str) -> None:
    for _, method, rows in curves(table, panel, THEORY):
        grey = {"color": style.GREY, "linestyle": "--", "linewidth": 1.2}
        ax.plot(rows.x, rows.y, **(_line(method) if method in LOOKS else grey), zorder=3)
    for _, method, rows in curves(table, panel, MEASURED):
        grey = {"color": style.GREY, "marker": ".", "linestyle": "none"}
        look = _dots(method) if method in LOOKS else grey
        thin = rows.iloc[::5] if method in LOOKS else rows
        bars(ax, thin, **{**look, "elinewidth": 0.5, "markersize": 2.4})
    words = (
        (("spirals out", 0.35, 0.98), ("cycles", 0.6, 0.87), ("converge", 0.3, 0.42))
        if panel == GAMES[0]
        else (("minibatches of 256", 0.3, 0.88),)
    )
    for text, x, y in words:
        note(ax, x, y, text)
    ax.set_yscale("log")
    ax.set_ylim(1e-9, 40)
    style.label(ax, "steps", "distance to equilibrium", title)


def _rates(ax: Axes, table: pd.DataFrame) -> None:
    for _, method, rows in curves(table, "rates"):
        if method == "diagonal":
            ax.plot(rows.x, rows.y, color=style.GREY, linewidth=1.0, zorder=0)
    for method in LOOKS:
        rows = table[(table.panel == "rates") & (table.series == method)]
        bars(ax, rows, **{**_dots(method), "elinewidth": 0.4, "alpha": 0.7}, label=method)
    ax.legend(loc="upper left", handletextpad=0.1, fontsize=7, borderaxespad=0.1)
    style.label(ax, "predicted log-factor a step", "measured", "Rates as predicted")


def _threshold(ax: Axes, table: pd.DataFrame) -> None:
    for _, method, rows in curves(table, "boundary", THEORY):
        ax.plot(rows.x, rows.y, **_line(method))
    for _, method, rows in curves(table, "boundary", MEASURED):
        bars(ax, rows, **{**_dots(method), "markersize": 3.6})
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.set_yticks([0.2, 0.5, 1, 2, 5], ["0.2", "0.5", "1", "2", "5"])
    ax.minorticks_off()
    style.label(ax, "penalty c", "largest stable step", "Largest stable step")


def _ends(ax: Axes, table: pd.DataFrame) -> None:
    for _, _, rows in curves(table, "features", THEORY):
        ax.plot(rows.x, rows.y, color=style.BLUE, linewidth=1.2)
    looks = {
        "KL-proximal, expert": (style.BLUE, "o", "full"),
        "KL-proximal, MLE": (style.BLUE, "o", "none"),
        "plain, MLE": (style.ORANGE, "s", "none"),
    }
    for _, series, rows in curves(table, "features", MEASURED):
        if series in looks:
            colour, marker, fill = looks[series]
            look = {"color": colour, "marker": marker, "fillstyle": fill, "linestyle": "none"}
            bars(ax, rows, **look, markersize=4)
    mark(ax, 1.3, 0.315, "to the expert", color=style.BLUE)
    mark(ax, 1.0, 0.06, "plain, to the MLE", color="#8A5F00")
    mark(ax, 1.0, -0.035, "KL-proximal, to the MLE", color=style.BLUE)
    ax.set_ylim(-0.06, 0.36)
    ax.set_xticks([1, 3, 6, 11])
    style.label(ax, "reward features (of 11)", "TV at the end", "Few features: no expert")


def _mixtures(ax: Axes, table: pd.DataFrame) -> None:
    places = {"features": 0.0, "table saddle": 0.6, "table rounds": 0.83, "sft": 1.04}
    for _, series, rows in curves(table, "classes", THEORY):
        x = rows.x + places[series]
        if series == "features":
            ax.plot(x, rows.y, **style.line("spif"))
        else:
            wide = np.array([-0.05, 0.05])
            ax.plot(x.iloc[0] + wide, rows.y.iloc[[0, 0]], **style.line("spif"))
    for _, series, rows in curves(table, "classes", MEASURED):
        bars(ax, rows.assign(x=rows.x + places[series]), **style.points("spif"))
    names = ["0", "0.2", "0.4", "saddle", "rounds", "SFT"]
    ax.set_xticks([0.0, 0.2, 0.4, 0.6, 0.83, 1.04], names, fontsize=6.3)
    ax.axvline(0.49, color=style.GREY, linewidth=0.6)
    ax.set_xlim(-0.05, 1.13)
    ax.set_ylim(-0.02, 0.1)
    note(ax, 0.52, 0.93, "table of rewards", fontsize=7)
    style.label(
        ax, "share of other features       pay         ", "TV to the MLE", "Log-linear policy"
    )
