"""Two explicit players by gradients: rates, stability, and where small reward classes stop.

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
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows
from lab.stats import intervals
from toy_games import launch
from toy_games.experiments.players import Settings

SETTINGS = Settings(
    parts=("trajectories", "noise", "rates", "boundary", "features", "classes"),
    features=sized((1, 3, 6, 11), (1, 2, 4, 6, 8, 11)),
    seeds=sized(5, 20),
    steps=sized(300, 800),
)
CAPTION = (
    "True adversarial imitation: a reward player and a policy player, both by gradients. Above: "
    "distance to the equilibrium without a penalty (IPM: simultaneous steps spiral out, "
    "alternating ones cycle, the other two converge) and with the chi^2 penalty (SPIF, c = 1/4), "
    "with the slopes of the Jacobian's largest eigenvalue (lines) and the spread predicted for "
    "minibatches (grey); the same factors over seven objectives and both pays of T10: a point is a "
    "random game, its bar what the fitted path's ripple allows. Below: the largest stable step by "
    "penalty (beyond c of about 1/2 the penalty itself is the stiff part); a tabular policy "
    "against few reward features matches their moments, not the expert (T10 fails: its reward "
    "class is a table): KL-proximal steps end at the maximum-likelihood law of those features "
    "(line), plain ones elsewhere; a log-linear policy ends at its MLE if the reward's features "
    f"are its own (T15), and not otherwise, reward tables included. Means over {SETTINGS.seeds} "
    "games with 95 % intervals (above on the left: geometric means)."
)
CLAIMS = ("C1", "C3", "C5", "T10", "T15")

LOOKS = {
    "simultaneous": (style.RED, "o", "-"),
    "alternating": (style.ORANGE, "s", "--"),
    "extragradient": (style.BLUE, "^", "-"),
    "optimistic": (style.BLACK, "v", ":"),
}
GAMES = ("no penalty", "penalty")


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Trajectories with slopes, rates, thresholds, ends of small reward classes."""
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
    _features(rows, found[found.part == "features"])
    _classes(rows, found[found.part == "classes"])
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


def _features(rows: Rows, part: pd.DataFrame) -> None:
    part = part[part.step > 0]
    for natural, pace in ((True, "KL-proximal"), (False, "plain")):
        one = part[part.natural == natural]
        rows.means("features", "spif", f"{pace}, expert", one, "features", "tv_to_expert")
        rows.means("features", "spif", f"{pace}, MLE", one, "features", "tv")
        rest = one.groupby("features").moment_residual.max()
        rows.add("moments", "spif", pace, MEASURED, rest.index, rest)
    one = part[part.natural.astype(bool)]
    rows.means("features", "spif", "MLE, expert", one, "features", "predicted", kind=THEORY)
    rows.add("features", "spif", "MLE, MLE", THEORY, one.features.unique(), 0.0)


def _classes(rows: Rows, part: pd.DataFrame) -> None:
    part = part[part.step > 0].assign(share=part.share.fillna(0.0))
    mixed = part[part.kind.str.startswith("mixture")]
    for kind, value in ((MEASURED, "tv"), (THEORY, "predicted")):
        rows.means("classes", "spif", "features", mixed, "share", value, kind=kind)
        for name in ("table saddle", "table rounds", "sft"):
            one = part[part.kind == name].assign(share=0.0)
            rows.means("classes", name, name, one, "share", value, kind=kind)


def plot(table: pd.DataFrame) -> Figure:
    """Dynamics above, boundary and reward classes below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _free, _penalised, _rates, _threshold, _ends, _mixtures)
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
    for text, x, y in (("spirals out", 0.35, 0.98), ("cycles", 0.6, 0.87), ("converge", 0.3, 0.42)):
        note(ax, x, y, text)


def _penalised(ax: Axes, table: pd.DataFrame) -> None:
    _paths(ax, table, GAMES[1], "With the χ² penalty")
    note(ax, 0.3, 0.88, "minibatches of 256")


def _rates(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "rates", lambda *_: {"color": style.GREY, "zorder": 0})
    faint = {"elinewidth": 0.4, "alpha": 0.7}
    for method in LOOKS:  # all objectives of a method at once, under one name
        part = table[table.series == method].assign(objective=method)
        draw.points(ax, part, "rates", lambda n, s: _point(n, s) | faint | {"label": n})
    ax.legend(loc="upper left", handletextpad=0.1, fontsize=7, borderaxespad=0.1)
    style.label(ax, "predicted log-factor a step", "measured", "Rates as predicted")


def _threshold(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "boundary", _line)
    draw.points(ax, table, "boundary", lambda n, s: _point(n, s) | {"markersize": 3.6})
    style.log(ax, x=[0.2, 0.5, 1, 2, 5], y=[0.2, 0.5, 1, 2, 5])
    style.label(ax, "penalty c", "largest stable step", "Largest stable step")


def _ends(ax: Axes, table: pd.DataFrame) -> None:
    looks = {
        "KL-proximal, expert": style.points(style.BLUE),
        "KL-proximal, MLE": style.points(style.BLUE, hollow=True),
        "plain, MLE": style.points(style.ORANGE, "s", hollow=True),
    }
    draw.lines(ax, table, "features", lambda *_: {"color": style.BLUE, "linewidth": 1.2})
    draw.points(ax, table, "features", lambda _, s: looks.get(s))
    mark(ax, 1.3, 0.315, "to the expert", color=style.BLUE)
    mark(ax, 1.0, 0.06, "plain, to the MLE", color="#8A5F00")
    mark(ax, 1.0, -0.035, "KL-proximal, to the MLE", color=style.BLUE)
    ax.set_ylim(-0.06, 0.36)
    ax.set_xticks([1, 3, 6, 11])
    style.label(ax, "reward features (of 11)", "TV at the end", "Few features: no expert")


def _mixtures(ax: Axes, table: pd.DataFrame) -> None:
    places = {"features": 0.0, "table saddle": 0.6, "table rounds": 0.83, "sft": 1.04}
    part = table[table.panel == "classes"].assign(x=lambda t: t.x + t.series.map(places))
    curve = part.series == "features"
    spif: dict[str, Any] = {"color": style.BLUE, "linewidth": 1.6}
    draw.lines(ax, part[curve], "classes", lambda *_: spif)
    for row in part[~curve & (part.kind == THEORY)].itertuples():
        ax.plot([row.x - 0.05, row.x + 0.05], [row.y, row.y], **spif)
    draw.points(ax, part, "classes", lambda *_: style.points("spif"))
    names = ["0", "0.2", "0.4", "saddle", "rounds", "SFT"]
    ax.set_xticks([0.0, 0.2, 0.4, 0.6, 0.83, 1.04], names, fontsize=6.3)
    ax.axvline(0.49, color=style.GREY, linewidth=0.6)
    ax.set_xlim(-0.05, 1.13)
    ax.set_ylim(-0.02, 0.1)
    note(ax, 0.52, 0.93, "table of rewards", fontsize=7)
    x = "share of other features       pay         "
    style.label(ax, x, "TV to the MLE", "Log-linear policy")
