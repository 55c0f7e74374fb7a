"""A language model on real text: rounds on winners and losers that an oracle draws.

Numbers: results/llm_text_preferences.json, which `make llm-text ONLY=preferences FULL=1` writes
(llm_scale/campaign); out/text_preferences.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_text, since_start
from figures.style import shown
from figures.tidy import THEORY, Rows
from llm_scale.campaign.experiments import JUDGED

CAPTION = (
    "The text game with a preference in the place of the expert's responses: Bradley-Terry with "
    "the expert's mean log-probability of a token as the score; two own responses to each of "
    "3,072 prompts, the winner drawn once; an epoch a round at rate 0.001 and one local gain on "
    "2P - 1; five seeds, means and 95 % intervals. SPIF is that on winners and losers, which is "
    "SPPO (their points lie on each other). (a) Probability that a response wins against one of "
    "the start; grey: 1/2. (b) Change of the held-out NLL of the expert's responses. (c) Share of "
    "responses that run to the end that is allowed; grey: of the start."
)
CLAIMS = ("C2", "S6")


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[found.study == "preferences"].sort_values("round", kind="stable")
    found = found.assign(number=found["round"] + 1.0, change=since_start(found, "nll"))
    rows = Rows()
    for arm in JUDGED:
        own = found[found.arm == arm]
        rows.means("wins", arm, "", own, "number", "win_rate_base")
        rows.means("change", arm, "", own, "number", "change")
        rows.means("cut", arm, "", own, "number", "after_truncated_own")
    cut = float(found[found["round"] == 0].groupby("seed").held_out_truncated_own.first().mean())
    for panel, level in (("wins", 0.5), ("change", 0.0), ("cut", cut)):
        rows.add(panel, "expert", "start", THEORY, [1.0, 3.0], level)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """Wins, likelihood, and length."""
    fig, axes = style.panel(3, 1, aspect=1.0)
    draw.fill(axes, table, _wins, _change, _cut)
    style.letters(axes)
    return fig


def _look(name: str) -> dict[str, Any]:
    return style.points(name, "o", name == "spif")


def _points(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    draw.baseline(ax, table, panel)
    shift = draw.dodge(list(JUDGED), 0.12, log=False)
    draw.points(ax, table, panel, lambda name, _: _look(name), shift)
    style.ticks(ax, x=[1, 2, 3])


def _wins(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "wins")
    looks = {shown(name): _look(name) for name in JUDGED}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    style.label(ax, "round", "P(wins against the start)", "Wins")


def _change(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "change")
    style.label(ax, "round", "change of NLL [nats]", "The expert's responses")


def _cut(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "cut")
    style.label(ax, "round", "share of cut responses", "Length")
