"""Predicted against exact convergence of every objective, with its thresholds."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import style
from figures.tidy import MEASURED, THEORY, Rows, curves, mark, note, path_of, shown
from theory import laws, objectives, self_play, theory_card
from theory.objectives import Objective
from theory.result import FloatArray

NAME = "convergence"
CAPTION = (
    "Exact rounds against theory. Top left: near the expert every round multiplies the log-ratio "
    "by 1 - R'(0)/beta. Top right: the smallest stable beta is R'(0)/2, and from L upwards the "
    "potential falls from every start. Bottom: SPIN's path in closed form, SPIF's path below its "
    "bound, and the potential of every objective below beta KL(p||pi_0)/T. "
    "Lines and bars: theory; points: exact rounds on random laws."
)
CLAIMS = ("T6", "T7", "T8", "T9", "C3", "C5")

LOCAL = (
    ["spin", "dpo", "airl", "nwj", "space", "brier", "renyi"]
    + ["spif", "centred_spif", "ipo", "iq_learn", "policy_only", "gail"]
    + ["exponential", "spin_exponential", "inpo", "alpha_spin"]
)
POTENTIAL = ["spin", "spif", "exponential", "gail", "iq_learn", "policy_only"]


def table() -> pd.DataFrame:
    """Factors, thresholds and paths; beta in nats, KL in nats."""
    rows = Rows()
    rng = np.random.default_rng(2)
    p = laws.random_law(rng, (8,), 1.0)
    bump = rng.standard_normal(8)
    for i, name in enumerate(LOCAL):
        obj = objectives.get(name)
        card = theory_card(obj)
        share = 0.5 if name == "alpha_spin" else 1.0  # of pi_t in its opponent
        few = np.geomspace(0.11, 9.0, 9) * 1.03 ** (i % 7 - 3)
        fine = np.sort(np.concatenate([np.geomspace(0.08, 10.0, 61), few]))
        rows.add("factor", name, "", THEORY, fine, share * (1.0 - card.slope_at_zero / fine))
        found = [local_factor(obj, p, bump, float(beta)) for beta in few]
        rows.add("factor", name, "", MEASURED, few, found)
        rows.add("thresholds", name, "stable", THEORY, card.stability_beta, i)
        rows.add("thresholds", name, "stable", MEASURED, stable_from(obj, p, bump), i)
        if math.isfinite(card.descent_beta):
            rows.add("thresholds", name, "descent", THEORY, card.descent_beta, i)
    _spin_paths(rows, p, rng)
    _spif_paths(rows, p, rng)
    _potentials(rows, p, rng)
    return rows.table()


def local_factor(obj: Objective, p: FloatArray, bump: FloatArray, beta: float) -> float:
    """Measured factor of the (centred) log-ratio in one exact round, 1e-5 nats from the expert."""
    start = p * np.exp(1e-5 * bump)
    path = path_of(self_play(p, start / start.sum(), obj, beta, rounds=1, ref=p))
    u = np.log(p / path)
    u = u - u @ p[:, None]
    return float((p * u[0] * u[1]).sum() / (p * u[0] ** 2).sum())


def stable_from(obj: Objective, p: FloatArray, bump: FloatArray) -> float:
    """Least beta whose rounds return to the expert from 1e-4 nats away, by bisection."""
    start = p * np.exp(1e-4 * bump)
    start = start / start.sum()
    low, high = 0.02, 20.0
    for _ in range(16):
        middle = math.sqrt(low * high)
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            size = self_play(p, start, obj, middle, rounds=60, ref=p).details["max_logratio"]
        low, high = (low, middle) if size[-1] < size[0] else (middle, high)
    return high


def _spin_paths(rows: Rows, p: FloatArray, rng: np.random.Generator) -> None:
    obj = objectives.get("spin")
    start = laws.random_law(rng, (8,), 1.5)
    for beta in (4.0, 1.5, 0.6, 0.45):
        series, count = f"{beta:g}", 15
        path = self_play(p, start, obj, beta, rounds=count)
        t = np.arange(count + 1)
        factor = (1.0 - 1.0 / beta) ** t[:, None]
        closed = np.log(p) - factor * np.log(p / start)
        closed -= np.logaddexp.reduce(closed, axis=-1, keepdims=True)
        kl = laws.kl_of_logratio(p, np.log(p) - closed, np.exp(closed))
        rows.add("SPIN", "spin", series, THEORY, t, kl)
        rows.add("SPIN", "spin", series, MEASURED, t, path.details["kl"])
        if beta > 1:
            bound = path.details["kl"][0] * (1.0 - 1.0 / beta) ** t
            rows.add("SPIN bound", "spin", series, THEORY, t, bound)


def _spif_paths(rows: Rows, p: FloatArray, rng: np.random.Generator) -> None:
    obj = objectives.get("spif")
    start = laws.random_law(rng, (8,), 0.3) * p
    start = start / start.sum()
    top = float((p / start).max())
    for eta in (0.25, 0.5, 1.0):
        count = 60
        path = self_play(p, start, obj, 1.0 / eta, rounds=count)
        t, kl = np.arange(count + 1), path.details["kl"]
        bound = kl[0] * (1.0 - eta * (1.0 - eta / 2.0) / (1.0 + top)) ** t
        rows.add("SPIF", "spif", f"{eta:g}", MEASURED, t, kl)
        rows.add("SPIF bound", "spif", f"{eta:g}", THEORY, t, bound)
        late = int(np.argmax(kl < 1e-4))
        tail = kl[late] * (1.0 - eta / 2.0) ** (2.0 * (t[late:] - late))
        rows.add("SPIF", "spif", f"{eta:g}", THEORY, t[late:], tail)


def _potentials(rows: Rows, p: FloatArray, rng: np.random.Generator) -> None:
    start = laws.random_law(rng, (8,), 1.5)
    u = np.log(p / start)
    t = np.arange(1, 201)
    rows.add("potential", "bound", "1/T", THEORY, t, 1.0 / t)
    for name in POTENTIAL:
        obj = objectives.get(name)
        beta = 10.0 * float(
            np.max(obj.slope(np.linspace(min(u.min(), 0.0), max(u.max(), 0.0), 400)))
        )
        path = path_of(self_play(p, start, obj, beta, rounds=200))[1:]
        share = obj.potential(path, p) / (beta * float(laws.kl(p, start)))
        rows.add("potential", name, f"beta = {beta:.2g}", MEASURED, t, share)


def plot(table: pd.DataFrame) -> Figure:
    """Factors and thresholds above, three kinds of paths below."""
    fig = style.plt.figure(figsize=(style.WIDTHS[2], 6.4))
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.25, 1.0))
    left, right = top.subplots(1, 2)
    _factor(left, table)
    _thresholds(right, table)
    for ax, draw in zip(bottom.subplots(1, 3), (_spin, _spif, _falling), strict=True):
        draw(ax, table)
    return fig


def _solid(name: str) -> dict[str, Any]:
    kept = style.line(name)
    return kept if name == "alpha_spin" else {**kept, "linestyle": "-"}


def _factor(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in reversed(list(curves(table, "factor", THEORY))):
        ax.plot(rows.x, rows.y, **_solid(name), linewidth=1.2, zorder=1)
    for name, _, rows in curves(table, "factor", MEASURED):
        ax.plot(rows.x, rows.y, **style.points(name), markersize=3.2, zorder=3)
    ax.axhspan(-1, 1, color=style.GREY, alpha=0.10, linewidth=0, zorder=0)
    note(ax, 0.98, 0.46, "stable: |factor| < 1", color="#555555", ha="right")
    ax.set_xscale("log")
    ax.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
    ax.minorticks_off()
    ax.set_xlim(0.08, 10)
    ax.set_ylim(-2.5, 1.1)
    keys = [Line2D([], [], color=style.colour(n)) for n in ("inpo", "spif", "alpha_spin", "spin")]
    keys[2].set_linestyle(style.line("alpha_spin")["linestyle"])
    texts = ["R'(0) = ¼: INPO", "½: SPIF, IPO, GAIL, …", "α-SPIN: ½(1 − 1/β)"]
    texts += ["1: SPIN, DPO, AIRL, …"]
    place = {"loc": "lower right", "bbox_to_anchor": (1.03, -0.02)}
    ax.legend(keys, texts, **place, fontsize=7, handlelength=1.4)
    style.label(
        ax, "β [nats]", "log-ratio, factor per round", "Near the expert: factor 1 − R'(0)/β"
    )


def _thresholds(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "thresholds"]
    bars = part[(part.kind == THEORY) & (part.series == "stable")]
    deep = part[(part.kind == THEORY) & (part.series == "descent")]
    dots = part[part.kind == MEASURED]
    ax.plot(bars.x, bars.y, linestyle="none", marker="|", color="k", markersize=10, mew=1.4)
    ax.plot(deep.x, deep.y, linestyle="none", marker="|", color=style.GREY, markersize=10, mew=1.4)
    for row in dots.itertuples():
        ax.plot([row.x], [row.y], **style.points(row.objective), markersize=5)
    without = sorted(set(bars.objective) - set(deep.objective), key=LOCAL.index)
    for name in without:
        said = "opponent is not π" if name == "alpha_spin" else "none: slope unbounded"
        mark(ax, 0.54, LOCAL.index(name), said, fontsize=6.5, color=style.GREY)
    ax.set_yticks(range(len(LOCAL)), [shown(name) for name in LOCAL], fontsize=7)
    ax.invert_yaxis()
    ax.set_xscale("log")
    ax.set_xticks([0.125, 0.25, 0.5, 1], ["⅛", "¼", "½", "1"])
    ax.minorticks_off()
    ax.set_xlim(0.1, 1.45)
    keys = [
        Line2D([], [], linestyle="none", marker="|", color="k", markersize=9, mew=1.4),
        Line2D([], [], **style.points("expert"), markersize=5),
        Line2D([], [], linestyle="none", marker="|", color=style.GREY, markersize=9, mew=1.4),
    ]
    texts = ["stable above R'(0)/2", "measured by bisection", "potential falls above L"]
    ax.legend(keys, texts, loc="upper left", bbox_to_anchor=(-0.03, 1.0), fontsize=7)
    style.label(ax, "β [nats]", "", "Thresholds in β")


def _spin(ax: Axes, table: pd.DataFrame) -> None:
    for _, _, rows in curves(table, "SPIN bound"):
        ax.plot(rows.x, rows.y, color=style.GREY, linestyle="--", linewidth=1.1)
    for _, _, rows in curves(table, "SPIN", THEORY):
        ax.plot(rows.x, rows.y, color=style.RED, linewidth=1.2)
    for _, _, rows in curves(table, "SPIN", MEASURED):
        ax.plot(rows.x, rows.y, **style.points("spin"), markersize=3)
    ax.set_yscale("log")
    ax.set_ylim(1e-9, 1e5)
    for x, y, text in ((15, 60.0, "β = 0.45"), (15.4, 2.5e-5, "4"), (15.4, 7e-7, "0.6")):
        mark(ax, x, y, text, color=style.RED, ha="right" if "=" in text else "left")
    mark(ax, 8.4, 1.5e-8, "1.5", color=style.RED)
    ax.set_xlim(-0.6, 18)
    note(ax, 0.98, 0.93, "dashed: bound (1−1/β)ᵗ KL₀", color="#555555", fontsize=7, ha="right")
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "SPIN: closed form")


def _spif(ax: Axes, table: pd.DataFrame) -> None:
    for _, _, rows in curves(table, "SPIF bound"):
        ax.plot(rows.x, rows.y, color=style.GREY, linestyle="--", linewidth=1.1)
    for _, _, rows in curves(table, "SPIF", THEORY):
        ax.plot(rows.x, rows.y, color=style.BLUE, linewidth=1.2)
    for _, _, rows in curves(table, "SPIF", MEASURED):
        some = rows[rows.y > 1e-14].iloc[::3]
        ax.plot(some.x, some.y, **style.points("spif"), markersize=3)
    ax.set_yscale("log")
    ax.set_ylim(1e-12, 10)
    for x, y, text in ((19, 1e-11, "η = 1"), (36, 1e-10, "½"), (52, 8e-7, "¼")):
        mark(ax, x, y, text, color=style.BLUE, ha="left")
    note(ax, 0.98, 0.93, "dashed: global bound", color="#555555", fontsize=7, ha="right")
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "SPIF: bound and local rate")


def _falling(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "potential"):
        if name == "bound":
            ax.plot(rows.x, rows.y, color="k", linewidth=1.4)
            continue
        ticks = [1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 180]
        near = rows[rows.x.isin(ticks[name == "exponential" :: 2])]
        kind = {**style.points(name), "marker": "s" if name == "policy_only" else "o"}
        ax.plot(near.x, near.y, **kind, markersize=3, label=shown(name))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(1e-5, 2)
    ax.legend(loc="lower left", fontsize=6.5, handletextpad=0.1, labelspacing=0.2)
    mark(ax, 8, 0.3, "bound 1/T")
    style.label(ax, "rounds T", "potential / (β KL₀)", "Potential below β KL₀/T")
