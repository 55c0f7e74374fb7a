"""A tiny language model against the link: one round of self-play from a known expert's samples."""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.recorded import add, llm_tiny
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, note, shown

NAME = "llm_link"
CAPTION = (
    "One round of a tiny language model (Llama, 84 k weights, 11 words, up to 4 tokens) against "
    "the exact round: the expert is a bigram model of real text, the start a short SFT, all "
    "responses are listed, so that laws are compared with laws; effective step R'(0)/beta = 1. "
    "(a-c) Learned reward beta log pi_1/pi_0 of the likeliest responses (one seed, the longest "
    "round) on the link R(u): a line, tanh, kappa tanh. (d, e) Slope and correlation, weighted by "
    "(p + q)/2, over all responses, against the number of prompts (steps in proportion; means, "
    "95 % Student intervals over seeds; grey: 0.75 and more; centred SPIF with K = 4 on its "
    "finite-group link): both move towards 1, SPIN's slope last, because the logistic loss is "
    "flat where u < -4. (f) KL to the expert after the round, against the exact round and SFT on "
    "the same data: SFT is below all of them."
)
CLAIMS = ("C1", "S1", "S2", "S7", "S8", "T3", "T4", "T6", "T7", "T8", "T15", "T17")

PLAYED = ("spin", "spif", "ipo")


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_tiny()
    rows = Rows()
    link = found[(found.study == "link") & (found["round"] == 0)]
    kept = link[link.points_u.notna()]
    kept = kept[kept.prompts == kept.prompts.max()]
    for name in PLAYED:
        points = kept[kept.name == name].iloc[0]
        rows.add("points", name, "learned", MEASURED, points.points_u, points.points_learned)
        rows.add("points", name, "link", THEORY, points.points_u, points.points_link)
    played = link[link.name.isin(PLAYED)]
    for panel, column in (("slope", "link_slope"), ("correlation", "link_correlation")):
        add(rows, panel, played, "prompts", column, "on the link")
    add(rows, "slope", link[link.name == "centred_spif"], "prompts", "predicted_slope", "groups")
    groups = link[link.name == "centred_spif"]
    add(rows, "correlation", groups, "prompts", "predicted_correlation", "groups")
    add(rows, "kl", link[link.name != "centred_spif"], "prompts", "kl", "after the round")
    double = found[(found.study == "equal compute") & (found["round"] == 0)]
    add(rows, "kl", double, "prompts", "kl", "equal compute")
    for name in PLAYED:
        exact = played[played.name == name].groupby("prompts").kl_link.mean()
        rows.add("kl", name, "exact round", THEORY, exact.index, exact.clip(lower=0.0))
    rows.add("kl", "expert", "start", THEORY, sorted(link.prompts.unique()), link.kl_before.mean())
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """Three scatters above; slope, correlation and KL against data below."""
    fig, axes = style.panel(3, 2, aspect=0.95)
    for ax, name in zip(axes[0], PLAYED, strict=True):
        _scatter(ax, table[table.objective == name], name)
    _against(axes[1, 0], table, "slope", "slope on the link", "Slope")
    _against(axes[1, 1], table, "correlation", "correlation with the link", "Correlation")
    axes[1, 0].axhspan(0.75, 1.25, color="k", alpha=0.06, linewidth=0)
    axes[1, 1].axhspan(0.75, 1.0, color="k", alpha=0.06, linewidth=0)
    _kl(axes[1, 2], table)
    for ax, letter in zip(axes.flat, "abcdef", strict=True):
        ax.set_title(f"({letter}) {ax.get_title(loc='left')}", fontsize=8.5)
    return fig


MARKS = {"spin": "o", "spif": "s", "ipo": "^", "centred_spif": "D", "sft": "x"}


def look(name: str, hollow: bool = False) -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    shade = style.BLACK if name == "sft" else style.colour(name)
    edge = 1.1 if hollow or name == "sft" else 0.0
    made = {**style.points(name), "color": shade, "marker": MARKS[name], "markeredgewidth": edge}
    made |= {"markeredgecolor": shade, "markersize": 4.2}
    return made | ({"markerfacecolor": "white"} if hollow else {})


def said(name: str) -> str:
    """Name for readers."""
    return "SFT" if name == "sft" else shown(name)


def _scatter(ax: Axes, part: pd.DataFrame, name: str) -> None:
    for _, _, rows in curves(part, "points", MEASURED):
        ax.plot(rows.x, rows.y, **{**look(name), "markersize": 3.0}, alpha=0.6)
    for _, _, rows in curves(part, "points", THEORY):
        rows = rows.sort_values("x")
        ax.plot(rows.x, rows.y, ".", color="k", markersize=1.8)
    note(ax, 0.04, 0.93, "black: link R(u)", fontsize=7)
    style.label(ax, "u = log p/π₀ [nats]", "learned reward [nats]", said(name))


def _against(ax: Axes, table: pd.DataFrame, panel: str, label: str, title: str) -> None:
    for name, series, rows in curves(table, panel, MEASURED):
        shift = 1.0 + 0.05 * (list(MARKS).index(name) - 1)
        style_ = look(name, hollow=series == "groups")
        bars(ax, rows.assign(x=rows.x * shift), **{**style_, "linestyle": "-", "linewidth": 0.7})
    ax.axhline(1.0, color="k", linewidth=0.9)
    _prompts(ax)
    handles = [style.plt.Line2D([], [], **look(n, n == "centred_spif"), label=said(n))
               for n in (*PLAYED, "centred_spif")]  # fmt: skip
    ax.legend(handles=handles, fontsize=6.8, loc="lower right", handletextpad=0.0)
    style.label(ax, "prompts, each seen twice", label, title)


def _kl(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "kl", THEORY):
        shade = style.GREY if name == "expert" else style.colour(name)
        ax.plot(rows.x, rows.y, color=shade, linewidth=1.1)
    for name, series, rows in curves(table, "kl", MEASURED):
        shift = 1.0 + 0.05 * (list(MARKS).index(name) - 1)
        hollow = series == "equal compute"
        shape = {"marker": "P"} if hollow else {}
        bars(ax, rows.assign(x=rows.x * shift), **look(name, hollow) | shape)
    _prompts(ax)
    ax.set_ylim(bottom=-0.05)
    note(ax, 0.97, 0.93, "grey: start", fontsize=7, color=style.GREY, ha="right")
    note(ax, 0.97, 0.86, "lines: exact round", fontsize=7, ha="right")
    note(ax, 0.97, 0.79, "✕ SFT   ✚ twice the batch", fontsize=7, ha="right")
    style.label(ax, "prompts, each seen twice", "KL(p‖π) [nats]", "One round and SFT")


def _prompts(ax: Axes) -> None:
    ax.set_xscale("log", base=2)
    ax.set_xticks([2048, 8192, 32768], ["2048", "8192", "32768"])
    ax.minorticks_off()
