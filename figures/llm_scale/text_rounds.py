"""A language model on real text: rounds with old responses, and each method at its best beside SFT.

Numbers: results/llm_text_history.json and llm_text_best.json, which `make llm-text FULL=1` writes
(llm_scale/campaign); out/text_rounds.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import at_temperatures, llm_text, since_start
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from llm_scale.campaign.plan import RATE
from theory.rounds.history import history_factor

STEP = 2.5
SHARES = {0.0: "o", 0.25: "s", 1.0: "^"}
TOLD = {0.0: "none", 0.25: "a quarter", 1.0: "all"}
LOCAL = ", ".join(f"{history_factor(STEP, share):.2f} with {TOLD[share]}" for share in SHARES)

CAPTION = (
    "The text game of text_rates over several rounds of the same 3,072 responses, five seeds, on "
    "prompts that nothing was chosen by. "
    f"(a) SPIN at effective step {STEP:g}, an epoch a round: change of KL to the expert by the "
    "share of the previous opponent's responses among own ones. Near the expert small log-ratios "
    f"grow in exact rounds by a factor of {LOCAL}. (b) SFT and the chi^2 loss of the first "
    "author's code (a = 1/2, beta = 0.1), four epochs a round on one schedule: change of KL by "
    "passes over the data; squares: SFT in one go. (c) KL both ways of the models that "
    "validation chose, sampled at temperatures 1 (large) to 0.8; cross: the start. (d) Their "
    "paired differences, the loss less SFT: forward and reverse KL at temperature 1, and the sum "
    "of both with model and temperature chosen by validation; intervals of 95 %."
)
CLAIMS = ("C5", "C6", "S5", "S8")

AUTHOR, IN_ROUNDS = "author, a=1/2", "sft, in rounds"
CHANGE = "change of KL(p‖π) [nats]"
DIFFERENCES = {
    "forward": ("chosen", "kl"),
    "reverse": ("chosen", "reverse_kl"),
    "sum": ("chosen temperature", "both"),
}


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    started = found[found["round"] == 0].groupby("seed")[["kl_before", "reverse_kl_before"]].first()
    found = found.assign(both=found.kl + found.reverse_kl, change=since_start(found))
    rows = Rows()
    old = found[(found.study == "history") & (found.effective_step == STEP)].assign(
        number=lambda r: r["round"] + 1.0
    )
    for share in SHARES:
        own = old[(old.history == share) & old.arm.str.startswith("spin")]
        rows.means("history", "spin", f"{share:g}", own, "number", "change")
    best = found[found.study == "best"]
    for name, arm in (("sft", IN_ROUNDS), ("spif", AUTHOR)):
        rows.means("passes", name, "rounds", best[best.arm == arm], "passes", "change")
    once = best[(best.arm == "sft") & (best.lr == RATE)]
    rows.means("passes", "sft", "one go", once, "passes", "change")
    for panel, last in (("history", 3.0), ("passes", 24.0)):
        rows.add(panel, "expert", "start", THEORY, [1.0, last], 0.0)
    _plane(rows, found, started)
    _differences(rows, found)
    return rows.table()


def _plane(rows: Rows, found: pd.DataFrame, started: pd.DataFrame) -> None:
    """Means over seeds of KL both ways by temperature, of the model that validation chose."""
    points = at_temperatures(found, "chosen", "temperature")
    for name, method in (("sft", "sft"), ("spif", AUTHOR)):
        means = points[points.method == method]
        rows.add("plane", name, "temperatures", MEASURED, means.kl, means.reverse_kl)
    chosen = found[found.study == "chosen"]
    seeds = started.loc[sorted(chosen.seed.unique())].mean()
    rows.add("plane", "expert", "start", MEASURED, seeds.kl_before, seeds.reverse_kl_before)


def _differences(rows: Rows, found: pd.DataFrame) -> None:
    """The first author's loss less SFT, seed by seed."""
    for at, (told, (study, quantity)) in enumerate(DIFFERENCES.items()):
        by_seed = found[found.study == study].pivot(index="seed", columns="arm", values=quantity)
        less = (by_seed[AUTHOR] - by_seed["sft"]).rename("less").reset_index()
        rows.means("differences", "spif", told, less.assign(at=float(at)), "at", "less")
    rows.add("differences", "expert", "SFT", THEORY, [0.0, len(DIFFERENCES) - 1.0], 0.0)


def plot(table: pd.DataFrame) -> Figure:
    """Rounds on the left, what they come to on the right."""
    fig, axes = style.panel(2, 2, aspect=0.72)
    draw.fill(axes, table, _history, _passes, _both_ways, _less)
    style.letters(axes)
    return fig


def _history(ax: Axes, table: pd.DataFrame) -> None:
    def look(name: str, series: str) -> dict[str, Any]:
        return style.points(name, SHARES[float(series)], series != "0")

    draw.baseline(ax, table, "history")
    by = {"0": -0.06, "0.25": 0.0, "1": 0.06}
    draw.points(ax, table, "history", look, lambda name, series, x: x + by[series])
    style.ticks(ax, x=[1, 2, 3])
    looks = {f"old: {TOLD[share]}": look("spin", f"{share:g}") for share in SHARES}
    style.legend(ax, looks, fontsize=7, loc="upper left", handletextpad=0.0)
    ax.set_ylim(top=8.0)
    style.label(ax, "round", CHANGE, "Old responses: SPIN, effective step 2.5")


def _passes(ax: Axes, table: pd.DataFrame) -> None:
    def look(name: str, series: str) -> dict[str, Any]:
        return style.points(name, "s" if series == "one go" else "o", series == "one go")

    draw.baseline(ax, table, "passes")
    draw.points(ax, table, "passes", look, draw.dodge(["sft", "spif"], 0.4, log=False))
    style.ticks(ax, x=[4, 8, 12, 16, 20, 24])
    looks = {shown("sft"): look("sft", ""), "χ² of the first author": look("spif", "")}
    style.legend(ax, looks, fontsize=7, loc="lower left", handletextpad=0.0)
    style.label(ax, "passes over the same data", CHANGE, "Rounds of four epochs")


def _both_ways(ax: Axes, table: pd.DataFrame) -> None:
    draw.frontiers(ax, table, "plane")
    note(ax, 0.97, 0.08, "cross: start", fontsize=7, ha="right")
    style.label(ax, "KL(p‖π) [nats]", "KL(π‖p) [nats]", "Chosen models by temperature")


def _less(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "differences")
    draw.points(ax, table, "differences")
    names = ["KL(p‖π)", "KL(π‖p)", "sum, best\ntemperature"]
    ax.set_xticks(range(len(DIFFERENCES)), names)
    ax.set_xlim(-0.5, len(DIFFERENCES) - 0.5)
    style.label(ax, "", "less SFT [nats]", "χ² of the first author less SFT")
