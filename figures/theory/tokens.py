"""SPIF per response and per token: paths, reward bounds and thresholds.

Numbers: `table` below, by `theory.TokenMDP` and `theory.self_play`; out/tokens.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows
from theory import TokenMDP, objectives, self_play
from theory.result import FloatArray
from theory.rounds.two_step import Level

CAPTION = (
    "SPIF with one reward per response, per token at conditional ratios, and per token at "
    "occupancy ratios are three algorithms on one token tree (SPIN's first two are one). Top: "
    "paths to the expert, and what a response is paid in all. Bottom: the pay is bounded by 1/c "
    "per response and by H/c per token, and occupancy rewards need beta > H R'(0)/2, H times "
    "that of the others. Points: exact rounds (soft value iteration); lines: theory."
)
CLAIMS = ("T14", "C4", "C5")

LEVELS: tuple[Level, ...] = ("sequence", "conditional", "occupancy")
COLOURS = {"sequence": style.BLUE, "conditional": style.SKY, "occupancy": style.PURPLE}
MARKS = {"sequence": "o", "conditional": "s", "occupancy": "^"}
SAID = {
    "sequence": "per response",
    "conditional": "per token, conditional",
    "occupancy": "per token, occupancy",
}
HORIZONS = (1, 2, 3, 4, 5, 6)
SPIF, SPIN = objectives.get("spif"), objectives.get("spin")
RATE = 0.5  # R'(0) of SPIF at c = 1


def table() -> pd.DataFrame:
    """Paths, pay of responses, largest pay and least stable beta by horizon."""
    rows = Rows()
    rng = np.random.default_rng(8)
    game = TokenMDP.tree(vocab=3, horizon=4, eos=None)
    expert, start = game.random_policy(rng, 0.6), game.random_policy(rng, 0.6)
    _paths(rows, game, expert, start)
    p, q = (game.log_sequence_law(law)[0] for law in (expert, start))
    fine = np.linspace(-13.0, 10.0, 93)
    rows.add("pay", "spif", "sequence", THEORY, fine, SPIF.link(fine))
    pays = {
        "sequence": np.asarray(SPIF.link(p - q)),
        "conditional": per_token(game, expert, start),
    }
    for level, pay in pays.items():
        rows.add("pay", "spif", level, MEASURED, p - q, pay)
    for horizon in HORIZONS:
        _bounds(rows, horizon, rng)
        _thresholds(rows, horizon)
    return rows.table()


def per_token(game: TokenMDP, expert: FloatArray, start: FloatArray) -> FloatArray:
    """Sum of R(u_h) along every response of a game of one prompt."""
    return game.sequence_sum(np.asarray(SPIF.link(game.conditional_logratio(expert, start))))[0]


def _paths(rows: Rows, game: TokenMDP, expert: FloatArray, start: FloatArray) -> None:
    beta, count = 1.05, 40  # just above the threshold H R'(0)/2 = 1 of occupancy rewards
    for level in LEVELS:
        path = self_play(expert, start, SPIF, beta, count, game=game, level=level)
        kl = path.details["kl"][:, 0]
        kept = kl > 1e-14
        rows.add("path", "spif", level, MEASURED, np.arange(count + 1)[kept], kl[kept])
        first = 14 if level != "occupancy" else 20
        last = int(kept.sum()) if level != "occupancy" else count + 1
        t = np.arange(first, last)
        eigenvalue = 1.0 - RATE / beta * (game.horizon if level == "occupancy" else 1)
        rows.add("path", "spif", level, THEORY, t, kl[first] * eigenvalue ** (2.0 * (t - first)))
    for level in LEVELS[:2]:
        path = self_play(expert, start, SPIN, 2.0 * beta, count, game=game, level=level)
        kl = path.details["kl"][:, 0]
        kept = kl > 1e-14
        rows.add("path", "spin", level, MEASURED, np.arange(count + 1)[kept], kl[kept])


def _bounds(rows: Rows, horizon: int, rng: np.random.Generator) -> None:
    game = TokenMDP.tree(vocab=2, horizon=horizon, eos=None)
    for series, bound in (("sequence", 1.0), ("conditional", float(horizon))):
        rows.add("bound", "spif", series, THEORY, horizon, bound)
    for _ in range(8):
        expert, start = game.random_policy(rng, 0.15), game.random_policy(rng, 0.15)
        whole = game.log_sequence_law(expert) - game.log_sequence_law(start)
        pays = {
            "sequence": np.asarray(SPIF.link(whole)),
            "conditional": per_token(game, expert, start),
        }
        for series, pay in pays.items():
            rows.add("bound", "spif", series, MEASURED, horizon, np.abs(pay).max())


def _thresholds(rows: Rows, horizon: int) -> None:
    """Least beta whose rounds shrink a small distance, by bisection, against its prediction."""
    game = TokenMDP.tree(vocab=2, horizon=horizon, eos=None)
    rng = np.random.default_rng(80 + horizon)
    expert = game.random_policy(rng, 5.0)
    law = game.sequence_law(expert)
    moved = law * np.exp(1e-6 * rng.standard_normal(law.shape))
    start = game.policy_from_law(moved / moved.sum(-1, keepdims=True))
    for level in LEVELS:
        low, high = 0.05, 4.0
        for _ in range(11):
            beta = float(np.sqrt(low * high))
            path = self_play(expert, start, SPIF, beta, 24, game=game, level=level)
            size = path.details["max_logratio"]
            grows = size[-1] > size[-2] if size[-1] < 1.0 else True
            low, high = (beta, high) if grows else (low, beta)
        rows.add("threshold", "spif", level, MEASURED, horizon, high)
        longest = horizon if level == "occupancy" else 1
        rows.add("threshold", "spif", level, THEORY, horizon, longest * RATE / 2.0)


def plot(table: pd.DataFrame) -> Figure:
    """Paths and pay above, bounds and thresholds below."""
    fig, axes = style.panel(2, 2, aspect=0.68)
    draw.fill(axes, table, _path, _pay, _bound, _threshold)
    looks = {f"SPIF {SAID[level]}": _look("spif", level) | {"markersize": 5} for level in LEVELS}
    looks["SPIN, both"] = style.points("spin", markersize=5)
    style.legend(fig, looks, loc="outside lower center", ncols=4, fontsize=8, handletextpad=0.1)
    return fig


def _look(name: str, level: str) -> dict[str, Any]:
    shade, marker = (COLOURS[level], MARKS[level]) if name == "spif" else (name, "o")
    return style.points(shade, marker, markersize=4)


def _line(name: str, level: str) -> dict[str, Any]:
    return {"color": COLOURS[level], "linewidth": 1.3}


def _path(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "path", _line)
    spin = table.objective == "spin"  # both levels coincide: in turn
    turn = (table.x + table.series.map({"sequence": 0, "conditional": 1})) % 2 == 0
    draw.points(ax, table[~spin | turn], "path", _look)
    style.log(ax, "y")
    ax.set_ylim(1e-14, 1e2)
    note(ax, 0.98, 0.93, "lines: slowest local factor, squared", fontsize=7, ha="right")
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "Three paths of one link, H = 4")


def _pay(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "pay", lambda name, _: style.line(name) | {"linewidth": 1.6, "zorder": 1})
    draw.points(ax, table, "pay", _look)
    for sign in (-1, 1):
        ax.axhline(sign, color="k", linewidth=0.8)
        ax.axhline(4 * sign, color="k", linewidth=0.8, linestyle="--")
    note(ax, 0.02, 0.655, "bound 1/c", fontsize=7)
    note(ax, 0.02, 0.91, "bound H/c", fontsize=7)
    style.label(ax, "log p(y)/π(y) [nats]", "pay of the response [nats]", "What a response is paid")


BESIDE = {"sequence": -0.07, "conditional": 0.07, "occupancy": 0.0}


def _bound(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "bound", _line)
    draw.points(ax, table, "bound", _look, lambda _, s, x: x + BESIDE[s])
    mark(ax, 3.2, 4.0, "H/c", color=COLOURS["conditional"])
    mark(ax, 5.4, 1.35, "1/c", color=COLOURS["sequence"])
    style.label(ax, "horizon H [tokens]", "largest pay [nats]", "Bounds of the reward")


def _threshold(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "threshold", _line)
    draw.points(ax, table, "threshold", _look, lambda _, s, x: x + BESIDE[s])
    mark(ax, 2.6, 1.02, "H R'(0)/2", color=COLOURS["occupancy"], ha="right")
    mark(ax, 5.4, 0.36, "R'(0)/2", color=COLOURS["sequence"])
    style.label(ax, "horizon H [tokens]", "least stable β [nats]", "Price of occupancy rewards")
