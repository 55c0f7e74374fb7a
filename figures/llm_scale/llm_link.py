"""A tiny language model against the link: one round of self-play from a known expert's samples.

Numbers: results/llm_tiny.json, which `make llm-tiny` writes (llm_scale/study/tiny_runs.py);
out/llm_link.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import by_name, llm_tiny
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows

CAPTION = (
    "One round of a tiny language model (Llama, 84 k weights, 11 words, up to 4 tokens) "
    "against the exact round: the expert is a bigram model of real text, the start a short "
    "SFT, all responses are listed, so that laws are compared with laws; effective step "
    "R'(0)/beta = 1. (a-c) Learned reward beta log pi_1/pi_0 of the likeliest responses (one "
    "seed, the longest round) on the link R(u): a line, tanh, kappa tanh. (d, e) Slope and "
    "correlation, weighted by (p + q)/2, over all responses, against the number of prompts "
    "(steps in proportion; means, 95 % Student intervals over seeds; centred SPIF with K = 4 "
    "on its finite-group link). (f) KL to the expert after the round, against the exact round "
    "and SFT on the same data."
)
CLAIMS = ("C1", "S1", "S2", "S7", "S8", "T3", "T4", "T6", "T7", "T8", "T15", "T17")

PLAYED = ("spin", "spif", "ipo")
BESIDE = draw.dodge(["spin", "spif", "ipo", "centred_spif", "sft"], 0.05)


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_tiny()
    first = found[found["round"] == 0]
    link = by_name(first[first.study == "link"], "prompts")
    rows = Rows()
    kept = link[link.points_u.notna()]
    kept = kept[kept.prompts == kept.prompts.max()]
    for name in PLAYED:
        points = kept[kept.name == name].iloc[0]
        rows.add("points", name, "learned", MEASURED, points.points_u, points.points_learned)
        rows.add("points", name, "link", THEORY, points.points_u, points.points_link)
    played, groups = link[link.name.isin(PLAYED)], link[link["name"] == "centred_spif"]
    for part, law, series in ((played, "link", "on the link"), (groups, "predicted", "groups")):
        for panel in ("slope", "correlation"):
            rows.each(panel, part, "prompts", f"{law}_{panel}", series)
    rows.each("kl", link.drop(groups.index), "prompts", "kl", "after the round")
    double = by_name(first[first.study == "equal compute"], "prompts")
    rows.each("kl", double, "prompts", "kl", "equal compute")
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
    _against(axes[1, 0], table, "slope", 1.25)
    _against(axes[1, 1], table, "correlation", 1.0)
    _kl(axes[1, 2], table)
    style.letters(axes)
    return fig


def _look(name: str, series: str, size: float = 4.2) -> dict[str, Any]:
    double = {"marker": "P"} if series == "equal compute" else {}
    hollow = series in ("equal compute", "groups")
    return style.shaped(name, hollow, markersize=size) | double


def _scatter(ax: Axes, part: pd.DataFrame, name: str) -> None:
    draw.points(ax, part, "points", lambda name, s: _look(name, s, 3.0) | {"alpha": 0.6})
    black = style.points("expert", ".", markersize=3.2)
    draw.points(ax, part, "points", lambda *_: black, kind=THEORY)
    note(ax, 0.04, 0.93, "black: link R(u)", fontsize=7)
    style.label(ax, "u = log p/π₀ [nats]", "learned reward [nats]", shown(name))


def _against(ax: Axes, table: pd.DataFrame, panel: str, top: float) -> None:
    joined = {"linestyle": "-", "linewidth": 0.7}
    draw.points(ax, table, panel, lambda name, s: _look(name, s) | joined, BESIDE)
    ax.axhline(1.0, color="k", linewidth=0.9)
    ax.axhspan(0.75, top, color="k", alpha=0.06, linewidth=0)
    _prompts(ax)
    looks = {shown(name): _look(name, "") for name in PLAYED}
    looks[shown("centred_spif")] = _look("centred_spif", "groups")
    style.legend(ax, looks, fontsize=6.8, loc="lower right", handletextpad=0.0)
    of = {"slope": "slope on the link", "correlation": "correlation with the link"}[panel]
    style.label(ax, "prompts, each seen twice", of, panel.capitalize())


def _kl(ax: Axes, table: pd.DataFrame) -> None:
    start = {"color": style.GREY}
    draw.lines(ax, table, "kl", lambda n, s: start if s == "start" else draw.colours(n))
    draw.points(ax, table, "kl", _look, BESIDE)
    _prompts(ax)
    ax.set_ylim(bottom=-0.05)
    note(ax, 0.97, 0.93, "grey: start", fontsize=7, color=style.GREY, ha="right")
    note(ax, 0.97, 0.86, "lines: exact round", fontsize=7, ha="right")
    note(ax, 0.97, 0.79, "✕ SFT   ✚ twice the batch", fontsize=7, ha="right")
    style.label(ax, "prompts, each seen twice", "KL(p‖π) [nats]", "One round and SFT")


def _prompts(ax: Axes) -> None:
    style.log(ax, "x", x=[2048, 8192, 32768], base=2)
