"""Two explicit players whose rewards have few features: where they stop.

Numbers: toy_games/experiments/players.py (`python -m toy_games run players`), parts features and
classes; out/players_classes.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows
from toy_games import launch
from toy_games.experiments.players import Settings

SETTINGS = Settings(
    parts=("features", "classes"),
    features=sized((1, 3, 6, 11), (1, 2, 4, 6, 8, 11)),
    seeds=sized(5, 20),
    steps=sized(300, 800),
)
CAPTION = (
    "Two explicit players (SPIF's payoffs) whose reward player has few features, at their end. "
    "(a) A tabular policy: total variation to the expert (filled) and to the maximum-likelihood "
    "law of those features (open), after KL-proximal steps (blue) and plain ones (orange); lines: "
    "predicted. (b) A log-linear policy: total variation to its own maximum likelihood when a "
    "share of the reward's features is not the policy's, with a table of rewards and both pays of "
    f"T10, and after SFT; lines: predicted. Means over {SETTINGS.seeds} games with 95 % intervals."
)
CLAIMS = ("T10", "T15")


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Ends of small reward classes, with predictions."""
    found = launch.run("players", settings, progress=False)
    rows = Rows()
    _features(rows, found[found.part == "features"])
    _classes(rows, found[found.part == "classes"])
    return rows.table()


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
    """A tabular and a log-linear policy."""
    fig, axes = style.panel(2, 1, aspect=0.8)
    draw.fill(axes, table, _ends, _mixtures)
    style.letters(axes)
    return fig


def _ends(ax: Axes, table: pd.DataFrame) -> None:
    looks = {
        "KL-proximal, expert": style.points(style.BLUE),
        "KL-proximal, MLE": style.points(style.BLUE, hollow=True),
        "plain, MLE": style.points(style.ORANGE, "s", hollow=True),
    }
    draw.lines(ax, table, "features", lambda *_: {"color": style.BLUE, "linewidth": 1.2})
    draw.points(ax, table, "features", lambda _, s: looks.get(s))
    mark(ax, 1.3, 0.315, "KL-proximal, to the expert", color=style.BLUE)
    mark(ax, 1.0, 0.06, "plain, to the MLE", color="#8A5F00")
    mark(ax, 1.0, -0.035, "KL-proximal, to the MLE", color=style.BLUE)
    ax.set_ylim(-0.06, 0.36)
    ax.set_xticks([1, 3, 6, 11])
    style.label(ax, "reward features (of 11)", "TV at the end", "Tabular policy")


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
