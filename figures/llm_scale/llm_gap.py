"""A tiny language model with an anchor: the gap that a run reports beside the exact one.

Numbers: results/llm_gap.json, which `make llm-gap FULL=1` writes (llm_scale/study/gap_runs.py);
out/llm_gap.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_gap
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from theory import objectives

CAPTION = (
    "The tiny language model of figure llm_link with an anchor: tau is 1/2, 1 and 3 times R'(0), "
    "effective step 1, four rounds of 96 steps at rate 0.001, 1,024 held-out responses. Exact "
    "numbers are of the same trained model, all responses listed; means and 95 % Student "
    "intervals over seeds. (a) One seed: the gap that the run reports, with its 95 % "
    "interval where it gives one; lines: the exact gap, prompts pooled (tau/R'(0): 1 dashed, 3 "
    "solid). (b) Exact gap by round, as a share of the start's (1/2 dotted). (c) Exact KL(pi||pi*) "
    "to where exact rounds end; dashes: exact one-step rounds of pointwise SPIF (3, one "
    "seed; SPIN's exact round ends at pi*). (d) Share of 95 % intervals from fresh samples of the "
    "same models that cover the exact gap, of those that are given (200 times a round); hollow: "
    "with as many responses of pi_0 for log Z; line: 0.95. (e) The reported upper limit of "
    "KL(pi||pi*) over the exact one; hollow: what the exact gap alone would give; lines: near pi*. "
    "(f) Exact gap against the learned reward, over that against the true one."
)
CLAIMS = ("T10",)

PLAYED = ("spin", "spif")
LINES = {0.5: ":", 1.0: "--", 3.0: "-"}
"""Of an anchor."""
LEAST = 3
"""Seeds of a mean."""


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = _derived(llm_gap())
    rows = Rows()
    for (name, anchor), own in found.groupby(["name", "anchor"], sort=False):
        series = f"{anchor:g}"
        start = own[own["round"] == 0].assign(after=0, kl_end=lambda r: r.kl_end_before)
        both = pd.concat([start, own])
        if anchor >= 1.0:
            _reported(rows, name, series, own[own.seed == own.seed.min()])
        rows.add("fall", name, series, MEASURED, 0, 1.0)
        rows.means("fall", name, series, own, "after", "share", geometric=True)
        rows.means("end", name, series, both, "after", "kl_end", geometric=True)
        if name == "spif" and anchor == 3.0:
            exact = own[own.kl_end_predicted.notna()]
            rows.add("end", name, series, THEORY, exact.after, exact.kl_end_predicted)
        rows.means("learned", name, series, own, "after", "learned", geometric=True)
    for name, own in found.groupby("name", sort=False):
        for way, series in (("gap", "own"), ("gap_ref", "with pi_0")):
            given = own[f"given_{way}"]
            hits = own.assign(hit=given * own[f"covered_{way}"], given=given)
            sums = hits.groupby(["anchor", "seed"])[["hit", "given"]].sum().reset_index()
            _means(rows, "covered", name, series, sums.assign(share=sums.hit / sums.given), "share")
        for column, series in (("reported", "reported"), ("certified", "exact gap")):
            means = own.groupby(["anchor", "seed"])[column].mean().reset_index()
            _means(rows, "bound", name, series, means, column)
        anchors = np.geomspace(min(LINES), max(LINES), 20)
        near = (1.0 + anchors) / anchors
        rows.add("bound", name, "near", THEORY, anchors, near if name == "spin" else near**2)
    rows.add("covered", "expert", "level", THEORY, [min(LINES), max(LINES)], 0.95)
    return rows.table()


def _means(
    rows: Rows, panel: str, name: str, series: str, seeds: pd.DataFrame, column: str
) -> None:
    """By anchor, where there are values of enough seeds."""
    known = seeds[seeds[column].notna()]
    enough = known.groupby("anchor").seed.transform("size") >= LEAST
    rows.means(panel, name, series, known[enough], "anchor", column)


def _derived(found: pd.DataFrame) -> pd.DataFrame:
    mu = found.name.map({name: max(objectives.get(name).slope_range()[0], 0.0) for name in PLAYED})
    first = found[found["round"] == 0].set_index(["name", "anchor", "seed"]).exact_gap_before
    start = first.loc[pd.MultiIndex.from_frame(found[["name", "anchor", "seed"]])].to_numpy()
    return found.assign(
        after=found["round"] + 1,
        share=found.exact_gap / start,
        learned=found.exact_learned_gap / found.exact_gap,
        reported=found.sampled_gap_kl / found.kl_end,
        certified=found.exact_gap / (found.tau + mu) / found.kl_end,
    ).sort_values("after", kind="stable")


def _reported(rows: Rows, name: str, series: str, own: pd.DataFrame) -> None:
    rows.add("reported", name, series, THEORY, own.after, own.exact_gap)
    given = own[own.sampled_gap.notna()]
    half = 1.959964 * given.sampled_gap_se
    gap = given.sampled_gap
    rows.add("reported", name, series, MEASURED, given.after, gap, gap - half, gap + half)


def plot(table: pd.DataFrame) -> Figure:
    """Reports, fall and distance by round above; coverage, bound and the learned gap below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _reports, _fall, _end, _covered, _bound, _learned)
    style.letters(axes)
    return fig


def _dashed(name: str, series: str) -> dict[str, Any]:
    return {"color": style.colour(name), "linestyle": LINES[float(series)]}


def _joined(name: str, series: str) -> dict[str, Any]:
    joined = {"linestyle": LINES[float(series)], "linewidth": 0.9}
    return style.shaped(name, markersize=4.0) | joined


def _look(name: str, series: str) -> dict[str, Any]:
    return style.shaped(name, series in ("with pi_0", "exact gap"), markersize=4.6)


def _rounds(ax: Axes, y: str, title: str) -> None:
    ax.set_xticks(range(5))
    style.label(ax, "rounds", y, title)


def _reports(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "reported", _dashed)
    draw.points(ax, table, "reported", lambda n, _: style.shaped(n, markersize=4.0))
    style.log(ax, "y", y=[0.1, 0.2, 0.5, 1.0, 2.0])
    looks = {shown(name): style.shaped(name, markersize=4.6) for name in PLAYED}
    style.legend(ax, looks, fontsize=6.8, loc="upper right", handletextpad=0.0)
    _rounds(ax, "gap [nats]", "One seed's reports")


def _fall(ax: Axes, table: pd.DataFrame) -> None:
    draw.points(ax, table, "fall", _joined, draw.dodge(list(PLAYED), 0.1, log=False))
    style.log(ax, "y", y=[0.2, 0.5, 1.0, 2.0])
    looks = {f"τ = {a:g} R'(0)": {"color": "k", "linestyle": line} for a, line in LINES.items()}
    style.legend(ax, looks, fontsize=6.8, loc="lower left")
    _rounds(ax, "gap / start's", "The gap falls")


def _end(ax: Axes, table: pd.DataFrame) -> None:
    draw.points(ax, table, "end", _joined, draw.dodge(list(PLAYED), 0.1, log=False))
    dash: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.5}
    draw.points(ax, table, "end", lambda n, _: style.points(n, "_", **dash), kind=THEORY)
    style.log(ax, "y")
    _rounds(ax, "KL(π‖π*) [nats]", "Distance to the end")


def _anchors(ax: Axes, y: str, title: str) -> None:
    style.log(ax, "x", x={a: f"{a:g}" for a in LINES})
    style.label(ax, "τ / R'(0)", y, title)


def _covered(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "covered", lambda *_: {"color": "k", "linewidth": 0.9})
    draw.points(ax, table, "covered", _look, draw.dodge(list(PLAYED), 0.12))
    ax.set_ylim(-0.04, 1.06)
    note(ax, 0.97, 0.12, "filled: own responses", fontsize=7, ha="right")
    note(ax, 0.97, 0.05, "hollow: and those of π₀", fontsize=7, ha="right")
    _anchors(ax, "share that covers", "95 % intervals")


def _bound(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "bound")
    draw.points(ax, table, "bound", _look, draw.dodge(list(PLAYED), 0.12))
    style.log(ax, "y", y=[1.0, 2.0, 5.0, 10.0])
    note(ax, 0.97, 0.94, "lines: near π*", fontsize=7, ha="right")
    note(ax, 0.97, 0.87, "hollow: exact gap", fontsize=7, ha="right")
    _anchors(ax, "limit / KL(π‖π*)", "Upper limit of KL")


def _learned(ax: Axes, table: pd.DataFrame) -> None:
    draw.points(ax, table, "learned", _joined, draw.dodge(list(PLAYED), 0.1, log=False))
    style.log(ax, "y")
    _rounds(ax, "learned gap / gap", "The learned gap")
