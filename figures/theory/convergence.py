"""Predicted against exact convergence of every objective, with its thresholds.

Numbers: `table` below, by `theory.self_play` and `theory.theory_card`; out/convergence.csv.
"""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows, curves, path_of
from theory import laws, objectives, self_play, theory_card
from theory.objectives import Objective
from theory.result import FloatArray

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
    fig, (top, bottom) = style.stacked(6.4, 1.25, 1.0)
    draw.fill(top.subplots(1, 2), table, _factor, _thresholds)
    draw.fill(bottom.subplots(1, 3), table, _spin, _spif, _falling)
    return fig


def _solid(name: str, series: str = "") -> dict[str, Any]:
    kept = style.line(name) if name == "alpha_spin" else draw.colours(name)
    return {**kept, "linewidth": 1.2, "zorder": 1}


def _factor(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table[::-1], "factor", _solid)
    draw.points(ax, table, "factor", lambda name, _: style.points(name, zorder=3))
    ax.axhspan(-1, 1, color=style.GREY, alpha=0.10, linewidth=0, zorder=0)
    note(ax, 0.98, 0.46, "stable: |factor| < 1", color="#555555", ha="right")
    style.log(ax, "x", x=[0.1, 0.2, 0.5, 1, 2, 5, 10])
    ax.set_xlim(0.08, 10)
    ax.set_ylim(-2.5, 1.1)
    looks = {
        "R'(0) = ¼: INPO": draw.colours("inpo"),
        "½: SPIF, IPO, GAIL, …": draw.colours("spif"),
        "α-SPIN: ½(1 − 1/β)": style.line("alpha_spin"),
        "1: SPIN, DPO, AIRL, …": draw.colours("spin"),
    }
    place = {"loc": "lower right", "bbox_to_anchor": (1.03, -0.02)}
    style.legend(ax, looks, **place, fontsize=7, handlelength=1.4)
    title = "Near the expert: factor 1 − R'(0)/β"
    style.label(ax, "β [nats]", "log-ratio, factor per round", title)


def _thresholds(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "thresholds"]
    bars = part[(part.kind == THEORY) & (part.series == "stable")]
    deep = part[(part.kind == THEORY) & (part.series == "descent")]
    stable, falls = (
        style.points(c, "|", markersize=10, markeredgewidth=1.4) for c in ("expert", style.GREY)
    )
    ax.plot(bars.x, bars.y, **stable)
    ax.plot(deep.x, deep.y, **falls)
    for row in part[part.kind == MEASURED].itertuples():
        ax.plot([row.x], [row.y], **style.points(row.objective, markersize=5))
    for name in set(bars.objective) - set(deep.objective):
        said = "opponent is not π" if name == "alpha_spin" else "none: slope unbounded"
        mark(ax, 0.54, LOCAL.index(name), said, fontsize=6.5, color=style.GREY)
    style.log(ax, "x", x=[0.125, 0.25, 0.5, 1], y=dict(enumerate(map(shown, LOCAL))))
    ax.tick_params(axis="y", labelsize=7)
    ax.invert_yaxis()
    ax.set_xlim(0.1, 1.45)
    looks = {
        "stable above R'(0)/2": stable | {"markersize": 9},
        "measured by bisection": style.points("expert", markersize=5),
        "potential falls above L": falls | {"markersize": 9},
    }
    style.legend(ax, looks, loc="upper left", bbox_to_anchor=(-0.03, 1.0), fontsize=7)
    style.label(ax, "β [nats]", "", "Thresholds in β")


def _path(ax: Axes, table: pd.DataFrame, panel: str, every: int = 1) -> None:
    """Bound, prediction and rounds on a logarithmic scale."""
    dashed = {"color": style.GREY, "linestyle": "--"}
    draw.lines(ax, table, f"{panel} bound", lambda *_: dashed)
    draw.lines(ax, table, panel, lambda name, _: draw.colours(name) | {"linewidth": 1.2})
    draw.points(ax, table, panel, lambda name, _: style.points(name, markersize=3), every=every)
    style.log(ax, "y")


def _spin(ax: Axes, table: pd.DataFrame) -> None:
    _path(ax, table, "SPIN")
    ax.set_ylim(1e-9, 1e5)
    for x, y, text in ((15, 60.0, "β = 0.45"), (15.4, 2.5e-5, "4"), (15.4, 7e-7, "0.6")):
        mark(ax, x, y, text, color=style.RED, ha="right" if "=" in text else "left")
    mark(ax, 8.4, 1.5e-8, "1.5", color=style.RED)
    ax.set_xlim(-0.6, 18)
    note(ax, 0.98, 0.93, "dashed: bound (1−1/β)ᵗ KL₀", color="#555555", fontsize=7, ha="right")
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "SPIN: closed form")


def _spif(ax: Axes, table: pd.DataFrame) -> None:
    _path(ax, table[(table.kind == THEORY) | (table.y > 1e-14)], "SPIF", every=3)
    ax.set_ylim(1e-12, 10)
    for x, y, text in ((19, 1e-11, "η = 1"), (36, 1e-10, "½"), (52, 8e-7, "¼")):
        mark(ax, x, y, text, color=style.BLUE)
    note(ax, 0.98, 0.93, "dashed: global bound", color="#555555", fontsize=7, ha="right")
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "SPIF: bound and local rate")


def _falling(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "potential", lambda *_: {"color": "k", "linewidth": 1.4})
    rounds = [1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 180]
    for name, _, rows in curves(table, "potential", MEASURED):
        near = rows[rows.x.isin(rounds[name == "exponential" :: 2])]
        shape = "s" if name == "policy_only" else "o"
        ax.plot(near.x, near.y, **style.points(name, shape, markersize=3), label=shown(name))
    style.log(ax)
    ax.set_ylim(1e-5, 2)
    ax.legend(loc="lower left", fontsize=6.5, handletextpad=0.1, labelspacing=0.2)
    mark(ax, 8, 0.3, "bound 1/T")
    style.label(ax, "rounds T", "potential / (β KL₀)", "Potential below β KL₀/T")
