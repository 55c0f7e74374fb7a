"""Saddle points and equilibria, with certificates, of a token game estimated from real text.

Numbers: `table` below, by `theory.saddle_point`, `equilibrium` and `self_play`; out/saddle.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import note
from figures.tidy import MEASURED, THEORY, Rows
from theory import TokenMDP, laws, objectives, self_play
from theory.equilibria.solve import equilibrium, saddle_point
from theory.occupancy.solve import occupancy_game
from theory.result import FloatArray
from theory.tokens.text import common_phrases, load_pairs

WORDS, HORIZON = sized(10, 14), 5
RESPONSES = sum((WORDS + 1) ** length for length in range(HORIZON + 1))
"""Of up to five words, <unk> being one."""
CAPTION = (
    "The anchored game on real text: the expert is a model of short phrases of the World English "
    f"Bible that knows the last two words, the reference knows no order of words; {RESPONSES:,} "
    "possible responses. Left: what the saddle point of SPIF says, from the expert (tau small) to "
    "the reference. Right: certified duality gaps; the way from expert to reference (line: SPIN in "
    "closed form; points: 200 rounds of self-play, crosses: the solver; on 3,000 responses); and "
    "the distance of the zero-sum saddle point from the equilibrium of the rounds, which coincide "
    "only where b(r) + r is constant (IQ-Learn, GAIL)."
)
CLAIMS = ("T10", "C1", "C3")

SMOOTHING = 0.01
TAUS = np.geomspace(0.02, 5.0, 7)
SHOWN_TAUS = (0.02, 0.2, 1.0)
GAPS = ("spif", "iq_learn", "gail", "airl")
ROUNDS, LIKELIEST = 200, 3000
FLOOR = 1e-33


@dataclass(frozen=True)
class Text:
    """The game of the text as a tree and with merged states; laws over complete responses."""

    tree: TokenMDP
    merged: TokenMDP
    merged_ref: FloatArray
    expert: FloatArray
    ref: FloatArray

    @classmethod
    def read(cls, words: int, horizon: int) -> Text:
        """Phrases of two to four words, all of them among the `words` of the commonest ones."""
        texts = common_phrases((pair.response for pair in load_pairs()), words, 2, 4)
        kept = {word for text in texts for word in text.split()}
        size: dict[str, Any] = {"vocab_size": len(kept) + 2, "horizon": horizon}
        size["smoothing"] = SMOOTHING
        tree, merged = (TokenMDP.from_text(texts, order=2, tree=t, **size) for t in (True, False))
        plain, flat = (TokenMDP.from_text(texts, order=0, tree=t, **size) for t in (True, False))
        experts = [game.expert for game in (tree, plain, flat)]
        known, order_free, by_depth = (e for e in experts if e is not None)
        return cls(
            tree,
            merged,
            by_depth[merged.depth],
            tree.sequence_law(known)[0],
            tree.sequence_law(order_free)[0],
        )


def table() -> pd.DataFrame:
    """Responses with their probabilities, certified gaps, distances between the laws."""
    rows = Rows()
    text = Text.read(WORDS, HORIZON)
    p, ref = text.expert, text.ref
    rows.add("size", "expert", "responses", MEASURED, len(p), text.tree.n_states)
    spif = objectives.get("spif")
    few = list(np.argsort(-p)[:9]) + [i for i in np.argsort(-ref) if p[i] < 1e-3][:4]
    names = [r.text.replace("</s>", "").strip() or "(nothing)" for r in text.tree.sequences()[0]]
    said = [names[i] for i in few]
    for law, name in ((p, "expert"), (ref, "reference")):
        _responses(rows, name, said, law[few])
    for tau in SHOWN_TAUS:
        _responses(rows, f"spif (tau={tau:g})", said, saddle_point(p, ref, spif, tau).policy[few])
    top = np.sort(np.argsort(-p)[:300])
    few_p, few_ref = (law[top] / law[top].sum() for law in (p, ref))
    for tau in TAUS:
        for name in GAPS:
            obj, at = objectives.get(name), float(tau)
            saddle, fixed = (solve(p, ref, obj, at) for solve in (saddle_point, equilibrium))
            rows.add("gap", name, "fast", MEASURED, tau, max(float(saddle.gap), FLOOR))
            moved = float(laws.total_variation(saddle.policy, fixed.policy))
            rows.add("apart", name, "saddle, equilibrium", MEASURED, tau, moved)
        for name in ("spif", "airl"):
            how: dict[str, Any] = {"method": "convex", "raise_on_failure": False}
            slow = saddle_point(few_p, few_ref, objectives.get(name), float(tau), **how)
            rows.add("gap", name, "cvxpy", MEASURED, tau, max(float(slow.gap), FLOOR))
        given = (text.merged, text.merged.expert, text.merged_ref, spif, float(tau))
        gap = max(float(np.abs(occupancy_game(*given).gap).max()), 1e-17)
        rows.add("gap", "spif", "per token", MEASURED, tau, gap)
    _way(rows, p, ref)
    return rows.table()


def _responses(rows: Rows, name: str, said: list[str], law: FloatArray) -> None:
    for i, (response, probability) in enumerate(zip(said, law, strict=True)):
        rows.add("responses", name, response, MEASURED, probability, i)


def _way(rows: Rows, p: FloatArray, ref: FloatArray) -> None:
    """How far the equilibrium is from the expert on the likeliest responses, in three ways."""
    order = np.argsort(-(p + ref))[:LIKELIEST]
    p, ref = (law[order] / law[order].sum() for law in (p, ref))
    fine = np.sort(np.concatenate([np.geomspace(TAUS[0], TAUS[-1], 41), TAUS]))
    weight = 1.0 / (1.0 + fine[:, None])
    log_law = weight * np.log(p) + (1.0 - weight) * np.log(ref)
    closed = np.exp(log_law - np.logaddexp.reduce(log_law, axis=-1, keepdims=True))
    rows.add("way", "spin", "closed form", THEORY, fine, laws.total_variation(closed, p))
    for name, beta in (("spin", 1.0), ("spif", 0.5)):
        obj = objectives.get(name)
        for tau in TAUS:
            fixed = equilibrium(p, ref, obj, float(tau))
            path = self_play(p, ref, obj, beta, ROUNDS, ref=ref, tau=float(tau))
            for series, law in (("solver", fixed.policy), ("rounds", path.policy)):
                rows.add("way", name, series, MEASURED, tau, laws.total_variation(law, p))


def plot(table: pd.DataFrame) -> Figure:
    """Responses on the left; certificates, way and distance on the right."""
    fig = style.plt.figure(figsize=(style.WIDTHS[2], 6.2))
    left, right = fig.subfigures(1, 2, width_ratios=(1.12, 1.0))
    _text(left.subplots(), table)
    axes = right.subplots(3, 1)
    draw.fill(axes, table, _gap, _distances, _apart)
    for ax in axes:
        style.log(ax, "x", x=[0.02, 0.1, 0.5, 2, 5])
    return fig


_SHADES = ("#08306B", "#2171B5", "#6BAED6")


def _text(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.panel == "responses"]
    looks = {"expert": style.points("expert", "D"), "reference": style.points("reference", "s")}
    texts = {"expert": "expert p", "reference": "reference"}
    for tau, shade in zip(SHOWN_TAUS, _SHADES, strict=True):
        looks[f"spif (tau={tau:g})"] = style.points(shade)
        texts[f"spif (tau={tau:g})"] = f"saddle point, τ = {tau:g}"
    looks = {name: look | {"markersize": 6} for name, look in looks.items()}
    for name, rows in part.groupby("objective", sort=False):
        ax.plot(rows.x, rows.y, **looks[str(name)])
    style.log(ax, "x")
    ax.set_xlim(1e-7, 1.0)
    said = list(part[part.objective == "expert"].series)
    ax.set_yticks(range(len(said)), said, fontsize=8)
    ax.set_ylim(len(said) - 0.4, -0.6)
    ax.axhline(8.5, color=style.GREY, linewidth=0.8, linestyle=":")
    keys = {texts[name]: look for name, look in looks.items()}
    style.legend(ax.figure, keys, loc="outside lower center", ncols=2, fontsize=7.5)
    style.label(ax, "probability of the response", "", "What is said")
    ax.text(1.3e-7, 8.35, "the expert's likeliest", fontsize=7, va="bottom", color="#555555")
    ax.text(1.3e-7, 8.65, "the reference's likeliest", fontsize=7, va="top", color="#555555")


def _gap(ax: Axes, table: pd.DataFrame) -> None:
    marks = {"fast": "o", "cvxpy": "x", "per token": "s"}
    draw.points(ax, table, "gap", lambda name, s: style.points(name, marks[s], markersize=3.6))
    ax.axhline(1e-9, color="k", linewidth=1)
    style.log(ax, "y")
    ax.set_ylim(1e-38, 1e4)
    ax.set_yticks([1e-30, 1e-20, 1e-10, 1.0])
    count = int(table[table.panel == "size"].x.iloc[0])
    note(ax, 0.02, 0.93, "× cvxpy, 300 responses   ■ per token", fontsize=7)
    note(ax, 0.98, 0.755, "accepted below 1e-9", fontsize=7, ha="right")
    note(ax, 0.02, 0.07, f"● fast solver, {count:,} responses", fontsize=7)
    style.label(ax, "", "certified gap [nats]", "Every solution carries a certificate")


def _distances(ax: Axes, table: pd.DataFrame) -> None:
    looks: dict[str, dict[str, Any]] = {
        "rounds": {"markersize": 4},
        "solver": {"marker": "x", "markersize": 6, "markeredgewidth": 1.2},
    }
    draw.lines(ax, table, "way", lambda name, _: style.line(name) | {"linewidth": 1.6})
    draw.points(ax, table, "way", lambda name, s: style.points(name) | looks[s])
    note(ax, 0.03, 0.90, "SPIN", color=style.RED)
    note(ax, 0.03, 0.79, "SPIF", color=style.BLUE)
    for y, said in ((0.27, "× solver"), (0.17, "● rounds"), (0.07, "line: closed form")):
        note(ax, 0.98, y, said, ha="right", fontsize=7)
    style.label(ax, "", "TV(equilibrium, expert)", "Rounds end at the equilibrium")


def _apart(ax: Axes, table: pd.DataFrame) -> None:
    joined = {"linestyle": "-", "linewidth": 0.8, "markersize": 4}
    draw.points(ax, table, "apart", lambda name, _: style.points(name) | joined)
    for y, name, said in (
        (0.90, "airl", "AIRL (pointwise logistic)"),
        (0.78, "spif", "SPIF"),
        (0.66, "iq_learn", "IQ-Learn: equal"),
        (0.54, "gail", "GAIL: equal"),
    ):
        note(ax, 0.03, y, said, color=style.colour(name))
    style.label(ax, "anchor weight τ", "TV(saddle, equilibrium)", "… not at the saddle point")
