"""A language model on real text: rounds on new responses of the expert, beside SFT on as many.

Numbers: results/llm_text_fresh.json, which `make llm-text ONLY=fresh FULL=1` writes
(llm_scale/campaign); out/text_fresh.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import at_temperatures, base, llm_text, since_start
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from llm_scale.campaign.plan import FRESH_STUDY, FULL

CAPTION = (
    "The text game of text_rates with 3,072 new responses of the expert in every round, four "
    "epochs a round at rate 0.001; five seeds, means and 95 % intervals. The chi^2 loss is that of "
    "the first author's code (a = 1/2, beta = 0.1), SPIF per token at effective step 1. (a) Change "
    "of KL to the expert by responses read; squares: SFT on all 12,288 at once (from above: two "
    "passes at 0.003, four at 0.001, four at 0.003). (b) KL both ways of the models that "
    "validation chose, sampled at temperatures 1 (large) to 0.8; cross: the start."
)
CLAIMS = ("C6", "S8")
ARMS = {
    "sft, in rounds": ("sft", "in rounds"),
    "author, a=1/2": ("spif", ""),
    "spif, per token": ("spif", "per token"),
}
NAMES = {
    ("sft", "in rounds"): shown("sft"),
    ("spif", ""): "χ² of the first author",
    ("spif", "per token"): "SPIF per token",
}
AT_ONCE = "at once"


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    fresh = found[found.study == FRESH_STUDY]
    start = fresh[fresh["round"] == 0].drop_duplicates("seed")
    fresh = fresh.assign(change=since_start(fresh))
    read = fresh.assign(read=(fresh["round"] + 1.0) * FULL.prompts)
    rows = Rows()
    for arm, (name, series) in ARMS.items():
        rows.means("read", name, series, read[read.arm == arm], "read", "change")
    once = fresh[fresh.arm == "sft"].assign(read=lambda r: r.prompts.astype(float))
    for (epochs, lr), own in once.groupby(["epochs", "lr"]):
        rows.means(
            "read", "sft", f"{AT_ONCE}, {epochs:g} passes, rate {lr:g}", own, "read", "change"
        )
    rows.add("read", "expert", "start", THEORY, [0.0, 4.0 * FULL.prompts], 0.0)
    points = at_temperatures(found, "chosen fresh", "fresh temperature")
    for method, means in points.groupby("method"):
        series = "per token" if method == "spif, per token" else ""
        rows.add("plane", base(method), series, MEASURED, means.kl, means.reverse_kl)
    before = start[["kl_before", "reverse_kl_before"]].mean()
    rows.add("plane", "expert", "start", MEASURED, *before)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """By responses read, and both ways."""
    fig, axes = style.panel(2, 1, aspect=0.72)
    draw.fill(axes, table, _read, _both_ways)
    style.letters(axes)
    return fig


def _look(name: str, series: str) -> dict[str, Any]:
    hollow = series == "per token" or series.startswith(AT_ONCE)
    return style.points(name, "s" if series.startswith(AT_ONCE) else "o", hollow)


def _read(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "read")
    draw.points(ax, table, "read", _look)
    style.ticks(ax, x=[FULL.prompts * k for k in range(5)])
    looks = {told: _look(*key) for key, told in NAMES.items()}
    style.legend(ax, looks, fontsize=7, loc="lower left", handletextpad=0.0)
    style.label(ax, "responses read", "change of KL(p‖π) [nats]", "New responses in every round")


def _both_ways(ax: Axes, table: pd.DataFrame) -> None:
    draw.frontiers(ax, table, "plane", hollow="per token")
    ax.set_xlim(left=0.0)
    ax.set_ylim(bottom=0.0)
    note(ax, 0.97, 0.08, "cross: start", fontsize=7, ha="right")
    style.label(ax, "KL(p‖π) [nats]", "KL(π‖p) [nats]", "Chosen models by temperature")
