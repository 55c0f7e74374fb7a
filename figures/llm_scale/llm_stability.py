"""A tiny language model beside SFT, and at large learning rates and effective step 10.

Numbers: results/llm_tiny.json, which `make llm-tiny` writes (llm_scale/study/tiny_runs.py);
out/llm_stability.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import by_name, llm_tiny
from figures.style import note, shown
from figures.tidy import THEORY, Rows
from theory.rounds.predictions import spif_reach

CAPTION = (
    "The tiny language model of figure llm_link, 256 steps a round, means and 95 % Student "
    "intervals over seeds. (a) KL to the expert at effective step 1 against SFT on the same data, "
    "at equal steps and at equal compute (twice the batch). (b) Learning rates at effective step "
    "1, 64 steps; grey: the start. (c, d) Effective step 10: KL and the largest |log p/pi| after "
    "each round, and what the exact round from the same law gives (dashes; pointwise SPIF: its "
    "one-step law; centred SPIF: K = 4, one round, finite-group link); line in (d): B*. (e) "
    "KL of four laws: the exact round; the exact round with the learned reward's slope alone; "
    "with its residual alone; the trained model. (f) IPO with a penalty on the level of both "
    "rewards, from none (IPO) to 1 (pointwise SPIF) at one effective step; dashes: exact rounds of "
    "the two ends."
)
CLAIMS = ("C4", "C5", "C6", "S3", "S4", "S5", "S8", "T4", "T7", "T8", "T9", "T13", "T16", "T17")

FAR = 10.0
"""Effective step ``R'(0)/beta``, of SPIF ``1/(2 beta c)``."""
ETA = 2.0 * FAR
FARTHEST = ("spin", "ipo", "centred_spif", "spif")
PARTS = {
    "kl_predicted": "exact",
    "kl_predicted_slope": "with slope",
    "kl_predicted_residual": "with noise",
    "kl": "trained",
}
NO_LEVEL = 0.01
"""Where level 0 stands on the logarithmic axis."""


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_tiny()
    rows = Rows()
    far = _after(found[found.study == "stability"])
    rows.each("rounds", _with_start(far), "after", "kl", "kl")
    rows.each("bound", by_name(far, "after"), "after", "max_u", "max_u")
    for name in FARTHEST:
        exact = far[far.name == name].groupby("after")[["kl_predicted", "max_u_predicted"]].mean()
        rows.add("rounds", name, "exact", THEORY, exact.index, exact.kl_predicted)
        rows.add("bound", name, "exact", THEORY, exact.index, exact.max_u_predicted)
    rows.add("bound", "expert", "B*", THEORY, [0.8, 2.2], max(spif_reach(ETA)))
    first = far[far["round"] == 0]
    for at, column in enumerate(PARTS):
        for name in FARTHEST:
            part = first[first.name == name].assign(at=float(at))
            rows.means("parts", name, "KL", part, "at", column)
    ends = first[first["name"] == "ipo"].assign(level=NO_LEVEL)
    levelled = pd.concat([ends, found[found.study == "level"]])
    rows.each("level", by_name(levelled, "level"), "level", "kl", "kl")
    for name, level in (("ipo", NO_LEVEL), ("spif", 1.0)):
        exact = first[first.name == name].kl_predicted.mean()
        rows.add("level", name, "exact", THEORY, level, exact)
    short = (found.study == "link") & (found.steps == 64)
    rows.each("rate", by_name(found[(found.study == "rate") | short], "lr"), "lr", "kl", "kl")
    rates = sorted(found.lr.unique())
    rows.add("rate", "expert", "start", THEORY, rates, found[short].kl_before.mean())
    near = found[(found.steps == 256) & (found.name != "centred_spif")]
    for study, series in (("link", "equal data"), ("equal compute", "equal compute")):
        both = _with_start(_after(near[near.study == study]))
        rows.each("near", both, "after", "kl", series)
    return rows.table()


def _after(found: pd.DataFrame) -> pd.DataFrame:
    return found.assign(after=found["round"] + 1)


def _with_start(found: pd.DataFrame) -> pd.DataFrame:
    """The law before the first round as what is there after 0 rounds."""
    begin = found[found["round"] == 0]
    return by_name(pd.concat([begin.assign(after=0, kl=begin.kl_before), found]), "after")


def plot(table: pd.DataFrame) -> Figure:
    """SFT, learning rates and rounds at step 10 above; bound, parts and level below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _near, _rate, _rounds, _bound, _parts, _level)
    style.letters(axes)
    return fig


def _draw(ax: Axes, table: pd.DataFrame, panel: str, spread: float) -> None:
    """Exact values as dashes, measured ones as points with intervals, objectives side by side."""
    there = set(table[table.panel == panel].objective)
    beside = draw.dodge([n for n in (*FARTHEST, "sft") if n in there], spread, log=False)
    exact = table.series == "exact"
    dash: dict[str, Any] = {"markersize": 9, "markeredgewidth": 1.6}
    draw.points(ax, table[exact], panel, lambda n, _: style.points(n, "_", **dash), beside, THEORY)
    draw.lines(ax, table[~exact], panel, lambda *_: {"color": "k", "linewidth": 0.9})
    draw.points(ax, table, panel, _look, beside)


def _look(name: str, series: str) -> dict[str, Any]:
    double = series == "equal compute"
    return style.shaped(name, double, markersize=4.2) | ({"marker": "P"} if double else {})


def _kl(ax: Axes, label: str, title: str) -> None:
    style.log(ax, "y")
    low, high = ax.get_ylim()
    levels = [t for t in (0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0) if low <= t <= high]
    ax.set_yticks(levels, [f"{t:g}" for t in levels])
    ax.yaxis.minorticks_off()
    style.label(ax, label, "KL(p‖π) [nats]", title)


def _rounds(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "rounds", spread=0.11)
    ax.set_xticks([0, 1, 2])
    looks = {shown(name): _look(name, "") for name in FARTHEST}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    _kl(ax, "rounds", "Effective step 10")


def _bound(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "bound", spread=0.11)
    style.log(ax, "y", x=[1, 2], y=[10, 30, 100, 300])
    ax.set_ylim(bottom=6.0)
    note(ax, 0.97, 0.05, "line: B*   dashes: exact round", fontsize=7, ha="right")
    style.label(ax, "rounds", "largest |log p/π| [nats]", "Step 10: largest ratio")


def _parts(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "parts", spread=0.13)
    ax.set_xticks(range(len(PARTS)), [text.replace(" ", "\n") for text in PARTS.values()])
    _kl(ax, "round", "Step 10: slope and residual")


def _level(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "level", spread=0.0)
    style.log(ax, "x", x={NO_LEVEL: "0", 0.03: ".03", 0.1: ".1", 0.3: ".3", 1.0: "1"})
    note(ax, 0.04, 0.06, "0: IPO   1: pointwise SPIF", fontsize=7)
    _kl(ax, "weight of the level", "Step 10: IPO and the level")


def _rate(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "rate", lambda *_: {"color": style.GREY, "linewidth": 1.0})
    names = list(table[table.panel == "rate"].objective.unique())
    draw.points(ax, table, "rate", _look, draw.dodge(names, 0.06))
    style.log(ax, "x")
    note(ax, 0.03, 0.94, "grey: start", fontsize=7, color=style.GREY)
    _kl(ax, "learning rate", "Step 1, learning rates")


def _near(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "near", spread=0.09)
    ax.set_xticks([0, 1, 2])
    note(ax, 0.97, 0.95, "✕ SFT   ✚ SFT, batch × 2", fontsize=7, ha="right")
    looks = {shown(name): _look(name, "") for name in ("spin", "ipo", "spif")}
    style.legend(ax, looks, fontsize=6.8, loc="lower left", handletextpad=0.0)
    _kl(ax, "rounds", "Effective step 1, and SFT")
