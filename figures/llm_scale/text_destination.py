"""A language model on real text: a dozen rounds, told from where SFT of as many epochs ends.

Numbers: results/llm_text_destination.json, which `make llm-text ONLY=destination FULL=1` writes
(llm_scale/campaign); out/text_destination.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import base, llm_text, since_start
from figures.style import shown
from figures.tidy import THEORY, Rows
from llm_scale.campaign.plan import AUTHOR, END_ROUNDS, END_STUDY

CAPTION = (
    "The text game of text_rates: twelve rounds of an epoch on the same 3,072 prompts and "
    "responses at rate 0.00033, effective step 1 (the chi^2 loss of the first author's code: beta "
    "0.1); five seeds, means and 95 % intervals. (a) Change of KL to the expert since the start; "
    "grey: where SFT of twelve epochs ends, its rate falling to 0 once. (b) KL from that model, on "
    "responses of the round's model. (c) How far a round moves the policy, KL(pi' || pi)."
)
CLAIMS = ("C3", "S7")
PER_TOKEN = "per token"
NAMES = {
    "sft, in rounds": shown("sft"),
    "spin": shown("spin"),
    "ipo": shown("ipo"),
    "spif": shown("spif"),
    "spif, per token": "SPIF per token",
    AUTHOR: "χ² of the first author",
}
COLUMNS = {"kl": "change", "end": "kl_to_sft", "step": "kl_step"}


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[found.study == END_STUDY]
    found = found.assign(number=found["round"] + 1.0, change=since_start(found))
    rows = Rows()
    for arm in NAMES:
        own = found[found.arm == arm]
        for panel, column in COLUMNS.items():
            rows.means(panel, base(arm), _series(arm), own, "number", column)
    end = float((found.change - found.kl_gap_to_sft).mean())
    rows.add("kl", "expert", "end of SFT", THEORY, [1.0, END_ROUNDS], end)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """By round."""
    fig, axes = style.panel(3, 1, aspect=1.0)
    draw.fill(axes, table, _kl, _end, _step)
    style.letters(axes)
    return fig


def _series(arm: str) -> str:
    return {AUTHOR: "author", "spif, per token": PER_TOKEN}.get(arm, "")


def _look(name: str, series: str) -> dict[str, Any]:
    marker = "D" if series == "author" else "o"
    return style.points(name, marker, series == PER_TOKEN, markersize=3.0)


def _points(ax: Axes, table: pd.DataFrame, panel: str, label: str, title: str) -> None:
    draw.points(ax, table, panel, _look)
    style.ticks(ax, x=[1, 4, 8, 12])
    style.label(ax, "round", label, title)


def _kl(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "kl")
    _points(ax, table, "kl", "change of KL(p‖π) [nats]", "From the start")


def _end(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "end", "KL(π‖π_SFT) [nats]", "From the end of SFT")
    ax.set_ylim(0.0, 7.0)  # room for the legend
    looks = {told: _look(base(arm), _series(arm)) for arm, told in NAMES.items()}
    style.legend(ax, looks, fontsize=6.3, loc="upper right", handletextpad=0.0)


def _step(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "step", "KL(π′‖π) [nats]", "A round")
    ax.set_ylim(bottom=0.0)
