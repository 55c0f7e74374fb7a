"""A language model on real text: rounds on a preference that has no best response.

Numbers: results/llm_text_cyclic.json, which `make llm-text ONLY=cyclic FULL=1` writes
(llm_scale/campaign); out/text_cyclic.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_text
from figures.tidy import THEORY, Rows
from llm_scale.data.oracles import CLASSES

CAPTION = (
    "The text game with rock, paper, scissors in the place of the expert's responses, which are of "
    "one token here: its number modulo 3 is the class, and each class beats one other; each two of "
    "four own responses to each of 3,072 prompts are compared once; SPPO at beta 0.1, twelve "
    "rounds of two epochs at rate 0.001; five seeds. (a) Shares of two classes, a line a seed from "
    "its start (cross); grey dot: equal shares, where no class wins. (b) How much more than 1/2 "
    "the best class wins against the last round's model, and against all rounds' models together; "
    "grey: against the start. (c) The same with an anchor to the start, tau 0.1. Means and 95 % "
    "intervals."
)
CLAIMS = ("C3", "S6")
ARMS = {"sppo": "free", "sppo, 0.1 anchor": "anchored"}
COLUMNS = {"last": "exploitability", "average": "exploitability_average"}


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[found.study == "cyclic"].sort_values(["seed", "round"], kind="stable")
    found = found.assign(number=found["round"] + 1.0)
    rows = Rows()
    for seed, own in found[found.arm == "sppo"].groupby("seed"):
        x, y = (np.r_[own[f"class_{k}_before"].iloc[0], own[f"class_{k}"]] for k in (0, 1))
        rows.add("path", "sppo", f"seed {seed}", THEORY, x, y)
    rows.add("path", "expert", "equal", THEORY, [1 / CLASSES], 1 / CLASSES)
    for arm, panel in ARMS.items():
        own = found[found.arm == arm]
        for series, column in COLUMNS.items():
            rows.means(panel, "sppo", series, own, "number", column)
        start = float(own[own["round"] == 0].exploitability_before.mean())
        rows.add(panel, "expert", "start", THEORY, [1.0, own.number.max()], start)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """The classes' path, and how far last and average are exploited."""
    fig, axes = style.panel(3, 1, aspect=1.0)
    draw.fill(axes, table, _path, _free, _anchored)
    top = max(ax.get_ylim()[1] for ax in axes.flat[1:])
    for ax in axes.flat[1:]:
        ax.set_ylim(0.0, top)
    style.letters(axes)
    return fig


def _path(ax: Axes, table: pd.DataFrame) -> None:
    of = table[(table.panel == "path") & (table.objective == "sppo")]
    for _, own in of.groupby("series", sort=False):
        ax.plot(own.x, own.y, color=style.colour("sppo"), linewidth=0.8, marker=".", markersize=3)
        ax.plot(own.x.iloc[0], own.y.iloc[0], "x", color=style.GREY, markersize=5)
    ax.plot(1 / CLASSES, 1 / CLASSES, "o", color=style.GREY, markersize=4)
    ax.set_aspect("equal", adjustable="datalim")
    style.label(ax, "share of class 0", "share of class 1", "Classes")


def _look(name: str, series: str) -> dict[str, Any]:
    return style.points(name, "o", series == "average")


def _points(ax: Axes, table: pd.DataFrame, panel: str, title: str) -> None:
    draw.baseline(ax, table, panel)
    draw.points(ax, table, panel, _look)
    style.ticks(ax, x=[1, 4, 8, 12])
    style.label(ax, "round", "exploited, above 1/2", title)


def _free(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "free", "Without an anchor")
    looks = {"last round": _look("sppo", "last"), "average so far": _look("sppo", "average")}
    style.legend(ax, looks, fontsize=6.8, handletextpad=0.0)


def _anchored(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "anchored", "Anchored")
