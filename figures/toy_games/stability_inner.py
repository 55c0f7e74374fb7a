"""Rounds of k gradient steps: the distance at which they break, by effective step.

Numbers: toy_games/experiments/stability.py (`python -m toy_games run stability`), studies boundary
and early; out/stability_inner.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from toy_games import launch
from toy_games.experiments.stability import Settings
from toy_games.predictions.stability import breaking_distance

SETTINGS = Settings(studies=("boundary", "early"), seeds=sized(5, 8), early_steps=sized(900, 4000))
CAPTION = (
    "Rounds of k gradient steps at a rate, by their distance k rate lambda (lambda: largest "
    "eigenvalue of diag p - p p'; 16 responses, own expert a seed, "
    f"{SETTINGS.seeds} seeds; means, 95 % Student intervals). (a) Distance from which rounds near "
    "the expert grow instead of shrinking, against the effective step s; black: "
    "-s log(1 - 2/s) in its discrete form, one line for all links; the hinge has no curvature and "
    "its line is 2; NWJ, whose one-step effective step is at most e/(e-1), does not break within "
    "the distances tried. (b) KL to the expert at s = 10 (SPIN's published beta = 0.1) after "
    f"{SETTINGS.early_steps} steps on minibatches of 64, by the distance of a round; black: (a)'s "
    "prediction."
)
CLAIMS = ("C5", "T6", "T7")

NAMES = ("spin", "spif", "ipo", "iq_learn", "exponential", "nwj", "spin_hinge", "sft")


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """The studies with their predictions."""
    found = launch.run("stability", settings, progress=False)
    study = dict(list(found.groupby("study", sort=False)))
    rows = Rows()
    _boundary_rows(rows, study["boundary"], settings)
    rows.each("early", study["early"], "distance", "kl", "minibatches", least=0.0)
    return rows.table()


def _boundary_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.geomspace(2.1, 25.0, 80)
    distance = breaking_distance(steps, settings.inner)
    rows.add("boundary", "expert", "breaks", THEORY, steps, distance)
    rows.add("boundary", "spin_hinge", "breaks", THEORY, [2.1, 25.0], 2.0)
    rows.each("boundary", crossings(found), "effective_step", "breaks", "breaks")


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


def plot(table: pd.DataFrame) -> Figure:
    """Where rounds break, and what minibatches do on both sides."""
    fig, axes = style.panel(2, 1, aspect=0.85)
    draw.fill(axes, table, _boundary, _early)
    looks = {shown(name): look(name) for name in NAMES}
    style.legend(fig, looks, loc="outside upper center", ncol=8, fontsize=7.5, handletextpad=0.0)
    style.letters(axes)
    return fig


def look(name: str, series: str = "") -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    large = {"markersize": 5.0} if name == "spin_hinge" else {"markersize": 3.6}
    return style.shaped(name) | large


def _boundary(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "boundary", lambda n, _: {"color": look(n)["color"]})
    part = table[(table.panel == "boundary") & (table.kind == MEASURED)]
    names = list(part.objective.unique())
    draw.points(ax, part, "boundary", look, draw.dodge(names, 0.03))
    style.log(ax, "x", x=[2, 5, 10, 20])
    ax.set_ylim(0.0, 6.0)
    note(ax, 0.45, 0.7, "grows", fontsize=8)
    note(ax, 0.1, 0.17, "shrinks", fontsize=8)
    title = "Where rounds break"
    style.label(ax, "effective step s", "distance of a round k·rate·λ", title)


def _early(ax: Axes, table: pd.DataFrame) -> None:
    joined = {"linestyle": "-", "linewidth": 0.6}
    draw.points(ax, table, "early", lambda n, s: look(n, s) | joined)
    note(ax, 0.97, 0.25, "NWJ", color=style.GREY, fontsize=7, ha="right")
    ax.axvline(float(breaking_distance(SETTINGS.early_step)), color="k", linewidth=1.0)
    style.log(ax, x=[0.2, 0.5, 1, 2, 5, 14])
    title = "Minibatches, s = 10"
    style.label(ax, "distance of a round k·rate·λ", "KL(p‖π) [nats]", title)
