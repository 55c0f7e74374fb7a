"""A language model on real text: every method at its best, and what the chi^2 loss is made of.

Numbers: results/llm_text_best.json, llm_text_best_others.json and llm_text_ablations.json, as far
as they are recorded; `make llm-text FULL=1` writes them (llm_scale/campaign). out/text_methods.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import base, llm_text, since_start
from figures.style import note
from figures.tidy import MEASURED, THEORY, Rows

IN_ROUNDS = "sft, in rounds"
TOLD = {
    "author, a=1/2": "χ², first author",
    "author, expert term": "its expert term alone",
    "author, own of the start": "own of the start",
    "space": "SPACE",
    "spif, per token": "SPIF per token",
    "spin, per token": "SPIN per token",
    "spin": "SPIN",
    "ipo": "IPO",
}
"""Arms as they are told."""
CAPTION = (
    "The text game of text_rates over rounds of four epochs on the same 3,072 responses (SPIN and "
    "IPO: one epoch, a third of the rate), five seeds, on prompts that nothing was chosen by; "
    "means. The chi^2 loss of the first author's code (a = 1/2, beta = 0.1) is "
    "taken apart: its term on expert responses alone, which needs no own ones, and own responses "
    "of the start in all rounds. (a) Change of KL to the expert by passes over the data. "
    "(b) Paired differences to SFT, 95 % intervals: forward KL, where validation chose round, "
    "epochs and rate of each (filled), and the sum of both KLs, where it chose the temperature too "
    "(hollow)."
)
CLAIMS = ("C6", "S8")


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found.assign(both=found.kl + found.reverse_kl, change=since_start(found))
    arms = [arm for arm in TOLD if arm in set(found.arm[found.study == "chosen"])]
    best, rows = found[found.study == "best"], Rows()
    for arm in (IN_ROUNDS, *arms):
        own = best[best.arm == arm].sort_values("passes", kind="stable")
        mean = own.groupby("passes").change.mean()
        rows.add("passes", base(arm), arm, MEASURED, mean.index.to_numpy(), mean.to_numpy())
    rows.add("passes", "expert", "start", THEORY, [4.0, 24.0], 0.0)
    for panel, study, quantity in (
        ("forward", "chosen", "kl"),
        ("both", "chosen temperature", "both"),
    ):
        by_seed = found[found.study == study].pivot(index="seed", columns="arm", values=quantity)
        for at, arm in enumerate(arms):
            less = (by_seed[arm] - by_seed["sft"]).rename("less").reset_index()
            rows.means(panel, base(arm), arm, less.assign(at=float(at)), "at", "less")
    rows.add("forward", "expert", "SFT", THEORY, [0.0, len(arms) - 1.0], 0.0)
    return rows.table()


MARKS = {
    "author, expert term": "^", "author, own of the start": "D", IN_ROUNDS: "s", "ipo": "^",
    "spif, per token": "v", "spin, per token": "v",
}  # fmt: skip


def _look(name: str, series: str) -> dict[str, Any]:
    hollow = series.startswith("author, ") and series in MARKS
    return style.points(name, MARKS.get(series, "o"), hollow) | {"markersize": 4.5}


def plot(table: pd.DataFrame) -> Figure:
    """Rounds on the left, what they come to on the right."""
    fig, axes = style.panel(2, 1, aspect=0.85)
    draw.fill(axes, table, _passes, _less)
    style.letters(axes)
    return fig


def _passes(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "passes")
    part = table[(table.panel == "passes") & (table.objective != "expert")]
    arms = list(dict.fromkeys(part.series))
    at = {arm: 0.2 * (i - 0.5 * (len(arms) - 1)) for i, arm in enumerate(arms)}
    beside = part.assign(x=part.x + part.series.map(at))

    def thin(name: str, series: str) -> dict[str, Any]:
        return draw.colours(name) | {"linewidth": 0.6}

    draw.lines(ax, beside, "passes", thin, MEASURED)
    draw.points(ax, beside, "passes", _look)
    style.ticks(ax, x=[4, 8, 12, 16, 20, 24])
    looks = {{IN_ROUNDS: "SFT", **TOLD}[arm]: _look(base(arm), arm) for arm in arms}
    style.legend(ax, looks, fontsize=6.5, loc="upper right", ncol=2, handletextpad=0.0)
    ax.set_ylim(top=4.5)  # room for the legend
    style.label(ax, "passes over the same data", "change of KL(p‖π) [nats]", "Rounds")


def _less(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "forward")
    draw.points(
        ax, table, "forward", lambda n, s: style.points(n, "o", False), lambda n, s, x: x - 0.1
    )
    draw.points(ax, table, "both", lambda n, s: style.points(n, "s", True), lambda n, s, x: x + 0.1)
    arms = list(dict.fromkeys(table.series[table.panel == "both"]))
    ax.set_xticks(range(len(arms)), [TOLD[arm] for arm in arms], rotation=25, ha="right")
    ax.tick_params(axis="x", labelsize=7)
    ax.set_xlim(-0.6, len(arms) - 0.4)
    note(ax, 0.03, 0.95, "filled: KL(p‖π)\nhollow: both ways", fontsize=7, va="top")
    style.label(ax, "", "less SFT [nats]", "Each at its best")
