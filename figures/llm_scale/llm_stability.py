"""A tiny language model at effective step 10: who blows up, by how much, and why IPO does."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.llm_scale.llm_link import look, said
from figures.recorded import add, llm_tiny
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, note

NAME = "llm_stability"
CAPTION = (
    "The tiny language model of figure llm_link, 256 steps a round, means and 95 % Student "
    "intervals over seeds. (a, b) Effective step 10: KL to the expert and the largest |log p/pi| "
    "after each round, and what the exact round from the same law gives (dashes; pointwise SPIF: "
    "its one-step law; centred SPIF: K = 4, one round, finite-group link). SPIN is far off; the "
    "two-step bound 2 eta holds for SPIF, whose rewards are bounded. (c) Where the damage comes "
    "from: the exact round; the exact round with the learned reward's slope, which shortens the "
    "step and helps; with its residual, which is noise that the round divides by beta; and the "
    "trained model. IPO's excess over its exact round is that noise. (d) IPO with a penalty on "
    "the level of both rewards, from none (IPO) to 1 (pointwise SPIF) at one effective step: pairs "
    "do not see the level, so expert and own responses sink together and unseen ones rise; the "
    "penalty brings KL down. Dashes: exact rounds of the two ends. (e) Learning rates at "
    "effective step 1, 64 steps. (f) Rounds at effective step 1 against SFT on the same data, at "
    "equal steps and at equal compute (twice the batch)."
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
    far = found[found.study == "stability"].assign(after=lambda t: t["round"] + 1)
    begin = far[far["round"] == 0].assign(after=0, kl=lambda t: t.kl_before)
    add(rows, "rounds", pd.concat([begin, far]), "after", "kl")
    add(rows, "bound", far, "after", "max_u")
    for name in FARTHEST:
        exact = far[far.name == name].groupby("after")[["kl_predicted", "max_u_predicted"]].mean()
        rows.add("rounds", name, "exact", THEORY, exact.index, exact.kl_predicted)
        rows.add("bound", name, "exact", THEORY, exact.index, exact.max_u_predicted)
    rows.add("bound", "expert", "2 eta", THEORY, [0.8, 2.2], 2.0 * ETA)
    first = far[far["round"] == 0]
    for at, column in enumerate(PARTS):
        for name in FARTHEST:
            add(rows, "parts", first[first.name == name].assign(at=float(at)), "at", column, "KL")
    ends = first[first.name == "ipo"].assign(level=NO_LEVEL)
    levelled = pd.concat([ends, found[found.study == "level"]])
    add(rows, "level", levelled, "level", "kl")
    for name, level in (("ipo", NO_LEVEL), ("spif", 1.0)):
        exact = first[first.name == name].kl_predicted.mean()
        rows.add("level", name, "exact", THEORY, level, exact)
    short = (found.study == "link") & (found.steps == 64)
    add(rows, "rate", found[(found.study == "rate") | short], "lr", "kl")
    rows.add(
        "rate", "expert", "start", THEORY, sorted(found.lr.unique()), found[short].kl_before.mean()
    )
    near = found[(found.steps == 256) & (found.name != "centred_spif")]
    near = near[near.study.isin(["link", "equal compute"])].assign(after=lambda t: t["round"] + 1)
    begin = near[near["round"] == 0].assign(after=0, kl=lambda t: t.kl_before)
    both = pd.concat([begin, near])
    add(rows, "near", both[both.study == "link"], "after", "kl", "equal data")
    add(rows, "near", both[both.study == "equal compute"], "after", "kl", "equal compute")
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """Rounds, bound and parts above; level, learning rates and SFT below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draws = (_rounds, _bound, _parts, _level, _rate, _near)
    for ax, letter, draw in zip(axes.flat, "abcdef", draws, strict=True):
        draw(ax, table)
        ax.set_title(f"({letter}) {ax.get_title(loc='left')}", fontsize=8.5)
    return fig


def _draw(ax: Axes, table: pd.DataFrame, panel: str, spread: float = 0.05) -> None:
    """Exact values as dashes, measured ones as points with intervals, objectives side by side."""
    names = [n for n in (*FARTHEST, "sft") if n in set(table[table.panel == panel].objective)]
    shifts = {name: spread * (at - (len(names) - 1) / 2) for at, name in enumerate(names)}
    for name, series, rows in curves(table, panel, THEORY):
        if series == "exact":
            shade = style.colour(name)
            ax.plot(rows.x + shifts[name], rows.y, "_", color=shade, markersize=9, mew=1.6)
        else:
            ax.plot(rows.x, rows.y, color="k", linewidth=0.9)
    for name, series, rows in curves(table, panel, MEASURED):
        shape = {"marker": "P"} if series == "equal compute" else {}
        kept = look(name, hollow=bool(shape)) | shape
        bars(ax, rows.assign(x=rows.x + shifts[name]), **kept)


def _named(ax: Axes, names: tuple[str, ...], where: str) -> None:
    handles = [style.plt.Line2D([], [], **look(n), label=said(n)) for n in names]
    ax.legend(handles=handles, fontsize=6.8, loc=where, handletextpad=0.0)


def _kl(ax: Axes, label: str, title: str) -> None:
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    ticks = [t for t in (0.05, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.yaxis.minorticks_off()
    style.label(ax, label, "KL(p‖π) [nats]", title)


def _rounds(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "rounds", spread=0.11)
    ax.set_xticks([0, 1, 2])
    _named(ax, FARTHEST, "upper left")
    _kl(ax, "rounds", "Effective step 10")


def _bound(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "bound", spread=0.11)
    ax.set_yscale("log")
    ax.set_ylim(bottom=6.0)
    ax.set_yticks([10, 30, 100, 300], ["10", "30", "100", "300"])
    ax.yaxis.minorticks_off()
    ax.set_xticks([1, 2])
    note(ax, 0.97, 0.05, "line: 2η   dashes: exact round", fontsize=7, ha="right")
    style.label(ax, "rounds", "largest |log p/π| [nats]", "Bounds")


def _parts(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "parts", spread=0.13)
    ax.set_xticks(range(len(PARTS)), [text.replace(" ", "\n") for text in PARTS.values()])
    _kl(ax, "round", "Why IPO is worse")


def _level(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "level", spread=0.0)
    ax.set_xscale("log")
    ax.set_xticks([NO_LEVEL, 0.03, 0.1, 0.3, 1.0], ["0", ".03", ".1", ".3", "1"])
    ax.minorticks_off()
    note(ax, 0.04, 0.06, "0: IPO   1: pointwise SPIF", fontsize=7)
    _kl(ax, "weight of the level", "IPO that sees the level")


def _rate(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "rate"]
    for _, _, rows in curves(part, "rate", THEORY):
        ax.plot(rows.x, rows.y, color=style.GREY, linewidth=1.0)
    for at, (name, _, rows) in enumerate(curves(part, "rate", MEASURED)):
        bars(ax, rows.assign(x=rows.x * 1.06 ** (at - 1.5)), **look(name), linewidth=0.8)
    ax.set_xscale("log")
    note(ax, 0.03, 0.94, "grey: start", fontsize=7, color=style.GREY)
    _kl(ax, "learning rate", "Stability basin")


def _near(ax: Axes, table: pd.DataFrame) -> None:
    _draw(ax, table, "near", spread=0.09)
    ax.set_xticks([0, 1, 2])
    note(ax, 0.97, 0.95, "✕ SFT   ✚ SFT, batch × 2", fontsize=7, ha="right")
    _kl(ax, "rounds", "Step 1, and SFT")
