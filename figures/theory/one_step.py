"""Two steps or one loss on one model: the partition gap, its price and mass dumping.

Numbers: `table` below, by `theory.rounds.one_step`; out/one_step.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows, curves
from theory import laws, objectives, self_play
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round, partition_gap

CAPTION = (
    "What one loss on one model does to a SPIF round. Its implicit reward misses the best response "
    "by the partition gap log Z = eta(eta-2)/4 Delta; near the two-step round this costs "
    "order Delta^(3/2) in total variation (Delta^2 at eta = 1), and nothing for losses that see "
    "reward differences only. "
    "The global optimum is elsewhere: it puts 1 - Z of mass on an outcome that expert and policy "
    "both think negligible, at an implicit reward that is not bounded. "
    "Points: exact rounds; lines: theory."
)
CLAIMS = ("T3", "T4", "T17", "C1", "C4")

ETAS = (0.5, 1.0, 1.5, 3.0)
RARE = 1e-9
COMPARED = (
    ("spif", "two-step SPIF", "two-step"),
    ("centred_spif", "one-step centred SPIF", "global"),
    ("ipo", "one-step IPO", "global"),
    ("spin", "one-step SPIN", "global"),
    ("spif", "one-step SPIF, continued from π", "near"),
    ("spif", "one-step SPIF, global optimum", "global"),
    ("iq_learn", "one-step IQ-Learn, global optimum", "global"),
)


def table() -> pd.DataFrame:
    """Gaps against Delta, and the example of three outcomes, one of them rare."""
    rows = Rows()
    rng = np.random.default_rng(5)
    p = laws.random_law(rng, (10,), 1.0)
    bump = rng.standard_normal(10)
    sizes = np.geomspace(0.01, 1.0, 9)
    start = p * np.exp(-sizes[:, None] * bump)
    start /= start.sum(-1, keepdims=True)
    delta = laws.triangular(p, start)
    spif = objectives.get("spif")
    for eta in ETAS:
        beta, series = 1.0 / eta, f"{eta:g}"
        sign = np.sign(eta - 2.0)
        gap = partition_gap(np.broadcast_to(p, start.shape), start, spif, beta)
        rows.add("gap", "spif", series, MEASURED, delta, sign * gap)
        rows.add("gap", "spif", series, THEORY, delta, sign * eta * (eta - 2.0) / 4.0 * delta)
    expert = np.broadcast_to(p, start.shape)
    size = (p * np.abs(np.log(p / start))).sum(-1)
    for name, eta in (("spif", 0.5), ("spif", 3.0), ("spif", 1.0), ("centred_spif", 1), ("ipo", 1)):
        obj = objectives.get(name)
        one = one_step_round(expert, start, obj, 1.0 / eta).policy
        two = self_play(expert, start, obj, 1.0 / eta, rounds=1).policy
        cost = np.maximum(laws.total_variation(one, two), 1e-17)
        rows.add("cost", name, f"{eta:g}", MEASURED, delta, cost)
        if name == "spif" and eta != 1.0:
            leading = abs(eta * (eta - 1.0) * (eta - 2.0)) / 16.0 * delta * size
            rows.add("cost", name, f"{eta:g}", THEORY, delta, leading)
    _dumping(rows)
    return rows.table()


def example(share: float, rare: float = RARE) -> tuple[FloatArray, FloatArray]:
    """Expert (share, 1 - share, rare) and the policy that swaps the first two."""
    p = np.array([share, 1.0 - share, rare])
    p /= p.sum()
    return p, p[[1, 0, 2]]


def _dumping(rows: Rows) -> None:
    p, q = example(0.6)
    for i, (name, said, kind) in enumerate(COMPARED):
        obj = objectives.get(name)
        if kind == "two-step":
            law = self_play(p, q, obj, 1.0, rounds=1).policy
        else:
            law = one_step_round(
                p, q, obj, 1.0, branch="near" if kind == "near" else "global"
            ).policy
        rows.add("example", name, said, MEASURED, law[2], i)
        reward = float(np.log(law[2] / q[2]))
        rows.add("example reward", name, said, MEASURED, reward, i)
    spif = objectives.get("spif")
    for eta in (0.5, 1.0, 1.5):
        for share in (0.55, 0.6, 0.65, 0.72, 0.8, 0.88, 0.95):
            p, q = example(share)
            missing = -np.expm1(float(partition_gap(p, q, spif, 1.0 / eta)))
            found = one_step_round(p, q, spif, 1.0 / eta, branch="global")
            rows.add("mass", "spif", f"{eta:g}", MEASURED, missing, found.dumped_mass)
    ends = np.array([1e-3, 1.0])
    rows.add("mass", "spif", "1 - Z", THEORY, ends, ends)
    rare = np.geomspace(1e-14, 1e-6, 9)
    p, q = example(0.6)
    missing = -np.expm1(float(partition_gap(p, q, spif, 1.0)))
    rows.add("reward", "spif", "one step", THEORY, rare, np.log(missing / rare))
    rows.add("reward", "spif", "bound", THEORY, rare, 1.0)
    for size in rare:
        p, q = example(0.6, float(size))
        one = one_step_round(p, q, spif, 1.0, branch="global")
        rows.add("reward", "spif", "one step", MEASURED, size, one.reward.max())
        rows.add("reward", "spif", "two steps", MEASURED, size, np.abs(spif.reward(p, q)).max())
        centred = one_step_round(p, q, objectives.get("centred_spif"), 1.0)
        rows.add("reward", "centred_spif", "one step", MEASURED, size, np.abs(centred.reward).max())


def plot(table: pd.DataFrame) -> Figure:
    """Small distances above, the dumping below."""
    fig, (top, bottom) = style.stacked(5.2, 1.0, 1.0)
    draw.fill(top.subplots(1, 3), table, _gap, _cost, _mass)
    draw.fill(bottom.subplots(1, 2, width_ratios=(1.55, 1.0)), table, _example, _reward)
    return fig


SHADE = {"0.5": style.SKY, "1": style.BLUE, "1.5": style.BLACK, "3": style.ORANGE}


def _line(name: str, series: str) -> dict[str, Any]:
    return {"color": SHADE.get(series, style.BLACK), "linewidth": 1.2}


def _point(name: str, series: str) -> dict[str, Any]:
    return style.points(SHADE[series] if name == "spif" else name, markersize=3.4)


def _gap(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "gap", _line)
    draw.points(ax, table, "gap", _point)
    style.log(ax)
    for i, (series, sign) in enumerate((("3", "+"), ("1", "−"), ("1.5", "−"), ("0.5", "−"))):
        note(ax, 0.04, 0.94 - 0.085 * i, f"{sign}log Z, η = {series}", color=SHADE[series])
    style.label(ax, "distance Δ(p, π)", "partition gap [nats]", "log Z = η(η−2)/4 · Δ")


def _cost(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "cost", _line)
    draw.points(ax, table, "cost", _point)
    style.log(ax)
    ax.set_ylim(3e-18, 3e4)
    note(ax, 0.04, 0.94, "SPIF: |η(η−1)(η−2)|/16 · Δ E|u|", color=style.BLUE, fontsize=7)
    for y, series in ((0.86, "3"), (0.79, "0.5"), (0.72, "1")):
        said = f"η = {series}" + (" (next order: Δ²)" if series == "1" else "")
        note(ax, 0.04, y, said, color=SHADE[series], fontsize=7)
    note(ax, 0.04, 0.22, "IPO", color=style.GREEN, fontsize=7)
    note(ax, 0.16, 0.22, "and centred SPIF: no gap", color=style.DEEP_SKY, fontsize=7)
    style.label(ax, "distance Δ(p, π)", "TV(one step, two steps)", "Near branch: cost Δ³ᐟ²")


def _mass(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "mass", _line)
    draw.points(ax, table, "mass", _point)
    style.log(ax)
    for i, series in enumerate(("0.5", "1", "1.5")):
        note(ax, 0.05, 0.94 - 0.085 * i, f"η = {series}", color=SHADE[series])
    style.label(ax, "missing mass 1 − Z", "dumped mass", "Optimum: dumps 1 − Z")


def _example(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "example"]
    rewards = table[table.panel == "example reward"].set_index("series").x
    for row in part.itertuples():
        ax.plot([RARE, row.x], [row.y, row.y], color=style.colour(row.objective), linewidth=1)
        ax.plot([row.x], [row.y], **style.points(row.objective, markersize=6))
        if row.x > 1e-6:  # dumped
            above: dict[str, Any] = {
                "xytext": (-4, 5),
                "textcoords": "offset points",
                "ha": "right",
            }
            said = f"{row.x:.1%}, reward {rewards[row.series]:.1f}"
            ax.annotate(said, (row.x, row.y), fontsize=7.5, **above)
    ax.axvline(RARE, color="k", linewidth=1)
    mark(ax, 1.4e-9, -0.75, "its mass under expert and policy", fontsize=7)
    style.log(ax, "x")
    ax.set_xlim(3e-10, 1.0)
    ax.set_ylim(len(COMPARED) - 0.4, -1.2)
    ax.set_yticks(range(len(COMPARED)), [said for _, said, _ in COMPARED], fontsize=7.5)
    title = "Who uses an outcome of mass 1e-9?"
    style.label(ax, "mass of the rare outcome after one round", "", title)


def _reward(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "reward", lambda _, s: draw.colours("expert" if s == "bound" else "spif"))
    for name, series, rows in curves(table, "reward", MEASURED):
        alone = (name, series) == ("spif", "one step")  # the others coincide: in turn
        some = rows if alone else rows.iloc[int(name == "centred_spif") :: 2]
        ax.plot(some.x, some.y, **style.points(name, markersize=4))
    style.log(ax, "x")
    note(ax, 0.98, 0.93, "one step: log((1−Z)/mass)", color=style.BLUE, ha="right")
    note(ax, 0.04, 0.155, "bound 1/c", color="k", fontsize=7)
    note(ax, 0.04, 0.035, "two steps;", color=style.BLUE, fontsize=7)
    note(ax, 0.35, 0.035, "centred SPIF, one step", color=style.DEEP_SKY, fontsize=7)
    ax.set_ylim(-3.5, 33)
    style.label(ax, "mass of the rare outcome", "largest reward [nats]", "One step: no bound")
