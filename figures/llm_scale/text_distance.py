"""A language model on real text: what a round learns of the link, by the distance to the expert.

Numbers: results/llm_text_distance.json, which `make llm-text ONLY=distance FULL=1` writes
(llm_scale/campaign); out/text_distance.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_text
from figures.style import note, shown
from figures.tidy import THEORY, Rows
from llm_scale.campaign.experiments import PAIRED
from llm_scale.campaign.plan import DISTANCE_STUDY

CAPTION = (
    "The text game from a start of one epoch, responses cut after 1, 4 and 32 tokens, hence 2.6, "
    "9.7 and 66 nats from the expert; a round at effective step 1 on 12,288 new responses, two "
    "epochs at rate 0.001; five seeds, means and 95 % intervals. (a) Slope of the learned reward "
    "on the exact one; grey: 1. (b) Factor by which the log density ratio shrinks; dashes: if "
    "rewards were the exact ones (SPIN's is 0, below the axis); grey: 1. (c) KL to the expert "
    "after the round, as a share of what it was."
)
CLAIMS = ("S1", "S2", "S8")
ARMS = ("sft", *PAIRED)


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[found.study == DISTANCE_STUDY].assign(left=lambda r: r.kl / r.kl_before)
    found["nats"] = found.groupby("max_new_tokens").kl_before.transform("mean")
    found = found.sort_values("nats", kind="stable")
    rows = Rows()
    for arm in ARMS:
        own = found[found.arm == arm]
        rows.means("left", arm, "", own, "nats", "left")
        rows.means("contraction", arm, "", own, "nats", "contraction")
        if arm != "sft":
            rows.means("slope", arm, "", own, "nats", "link_slope")
            exact = own.rename(columns={"contraction_predicted": "exact"})
            rows.means("contraction", arm, "exact", exact, "nats", "exact", kind=THEORY)
    ends = [float(found.nats.min()), float(found.nats.max())]
    for panel in ("slope", "contraction", "left"):
        rows.add(panel, "expert", "reference", THEORY, ends, 1.0)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """Slope, factor, and what is left of KL."""
    fig, axes = style.panel(3, 1, aspect=1.0)
    draw.fill(axes, table, _slope, _contraction, _left)
    style.letters(axes)
    return fig


def _points(ax: Axes, table: pd.DataFrame, panel: str, arms: tuple[str, ...]) -> None:
    draw.baseline(ax, table, panel)
    draw.points(ax, table, panel, lambda n, _: style.points(n), draw.dodge(list(arms), 0.09))
    style.log(ax, "x", x={2.0: "2", 10.0: "10", 65.0: "65"})


def _slope(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "slope", PAIRED)
    looks = {shown(name): style.points(name) for name in ARMS}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    ax.set_ylim(0.0, 1.8)  # room for the legend
    style.label(ax, "KL(p‖π) before [nats]", "slope on R(u)", "Learned reward")


def _contraction(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "contraction", ARMS)
    dash: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.6}
    bounded = table[table.objective.isin(("spif", "ipo"))]
    shift = draw.dodge(list(ARMS), 0.09)
    draw.points(
        ax, bounded, "contraction", lambda n, _: style.points(n, "_", **dash), shift, kind=THEORY
    )
    ax.set_ylim(0.4, 1.04)
    note(ax, 0.97, 0.06, "dashes: exact rewards", fontsize=7, ha="right")
    style.label(ax, "KL(p‖π) before [nats]", "factor of u", "Contraction")


def _left(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "left", ARMS)
    style.label(ax, "KL(p‖π) before [nats]", "KL after / before", "What is left")
