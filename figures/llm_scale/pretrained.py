"""A pretrained language model: an epoch of each objective, and answers that are right or wrong.

Numbers: results/llm_text_real.json and llm_text_checked.json, which `make llm-text FULL=1` writes
(llm_scale/campaign); out/pretrained.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import PRETRAINED, base, campaign
from figures.style import note
from figures.tidy import THEORY, Rows
from llm_scale.campaign.plan import CHECKED

TOLD = {
    "sft": "SFT",
    "spif, per token": "SPIF per token",
    "author, a=1/2": "χ², first author",
    "spin": "SPIN",
}
"""Arms as they are told, from left to right."""
ON_VERSES = [arm for arm in TOLD if not arm.endswith("per token")]
ON_LISTS = [arm for arm in TOLD if not arm.startswith("author")]
CAPTION = (
    "SmolLM2-135M-Instruct (4-bit weights dequantised), trained by adapters of rank 16 from one "
    "fine-tuned start a seed; an epoch of 64 verses, or of 96 lists of words to reverse; five "
    "seeds, means and 95 % intervals. Effective step 1; the chi^2 loss of the first author's code "
    "(a = 1/2) at beta = 0.1. (a) Change of held-out NLL on verses at learning rate 0.0006. "
    "(b) The same on lists at 0.0003 (filled) and at 0.001, the rate of the start (hollow). "
    "(c) Share of held-out lists that greedy answers reverse rightly; grey: of the start."
)
CLAIMS = ("C5", "S8")
FAST = "at the start's rate"


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = campaign()
    found = found[found.regime == PRETRAINED].assign(change=lambda r: r.nll - r.nll_before)
    rows = Rows()
    for panel, study, quantity in (
        ("verses", "real", "change"),
        ("lists", "checked", "change"),
        ("right", "checked", "match_greedy"),
    ):
        own = found[found.study == study]
        arms = ON_VERSES if panel == "verses" else ON_LISTS
        for at, arm in enumerate(arms):
            here = own[own.arm == arm].assign(at=float(at))
            fast = np.isclose(here.lr, CHECKED.start_rate)
            for series, part in (("", here[~fast]), (FAST, here[fast])):
                if len(part):
                    rows.means(panel, base(arm), series, part, "at", quantity)
        before = float(own.match_greedy_before.mean()) if panel == "right" else 0.0
        rows.add(panel, "expert", "start", THEORY, [0.0, len(arms) - 1.0], before)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """Verses, lists, and right answers."""
    fig, axes = style.panel(3, 1, aspect=1.0)
    draw.fill(axes, table, _verses, _lists, _right)
    style.letters(axes)
    return fig


def _look(name: str, series: str) -> dict[str, Any]:
    return style.points(name, "s" if series else "o", bool(series))


def _points(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    draw.baseline(ax, table, panel)
    draw.points(ax, table, panel, _look, lambda n, s, x: x + (0.15 if s else -0.15 * (n == "sft")))


def _arms(ax: Axes, arms: list[str]) -> None:
    ax.set_xticks(range(len(arms)), [TOLD[arm] for arm in arms], rotation=25, ha="right")
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlim(-0.6, len(arms) - 0.4)


def _verses(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "verses")
    _arms(ax, ON_VERSES)
    style.label(ax, "", "change of NLL [nats]", "Verses")


def _lists(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "lists")
    _arms(ax, ON_LISTS)
    note(ax, 0.03, 0.95, "hollow: at the start's rate", fontsize=7, va="top")
    style.label(ax, "", "change of NLL [nats]", "Lists to reverse")


def _right(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "right")
    _arms(ax, ON_LISTS)
    style.label(ax, "", "share of greedy answers", "Right answers")
