"""Where rounds end in a class that cannot represent the expert: at the maximum of likelihood.

Numbers: `table` below, by `theory.rounds.log_linear.LogLinear`; out/destination.csv.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from contourpy import contour_generator
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows, curves, path_of
from theory import Solution, laws, objectives
from theory.result import FloatArray
from theory.rounds.log_linear import LogLinear

CAPTION = (
    "In a misspecified log-linear class (30 outcomes, 5 features) the one-step rounds of every "
    "objective end at the maximum-likelihood law, where SFT ends too, by different paths; two-step "
    "rounds (where: that depends on their start), off-policy temperatures, an anchor and the "
    "reference-free T-SPIN end elsewhere. "
    "Top left: parameters in the plane through the origin, the maximum of likelihood and the "
    "reverse-KL projection (grey: level lines of the SFT loss). Bottom right: factor per round at "
    "the maximum along the fastest and the slowest direction. Lines and bars: theory."
)
CLAIMS = ("T15", "C3")

FEATURES, ROUNDS, MAP_ROUNDS = 5, 40, 22
PATHS = ["spin", "renyi", "airl", "brier", "nwj", "exponential", "spin_exponential", "spif"]
PATHS += ["centred_spif", "ipo", "iq_learn", "policy_only"]
ON_MAP = ("spin", "spif", "nwj", "policy_only")
CORNERS = ((0.3, 3.6), (6.6, -1.8), (-0.6, -2.2))
LEVELS = (0.02, 0.1, 0.3, 0.7, 1.4, 2.5, 4.0)
DECIMALS = 9
"""Of places in the plane, which are of order one: further ones are rounding errors of the path."""


@dataclass(frozen=True)
class Setting:
    """A class, an expert outside of it, and the plane of the picture."""

    model: LogLinear
    expert: FloatArray
    best: FloatArray
    reverse: FloatArray

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Setting:
        """30 outcomes with 5 normal features; the expert's logits are normal too."""
        model = LogLinear(rng.standard_normal((30, FEATURES)))
        expert = laws.random_law(rng, (30,), 1.5)
        best = model.maximum_likelihood(expert)
        return cls(model, expert, best, model.reverse_kl_projection(expert, best))

    @property
    def axes(self) -> FloatArray:
        """(d, 2) orthonormal: towards the MLE from 0, then towards the reverse-KL projection."""
        first = self.best / np.linalg.norm(self.best)
        second = self.reverse - self.best
        second = second - (second @ first) * first
        return np.stack([first, second / np.linalg.norm(second)], axis=-1)

    def at(self, points: Any) -> FloatArray:
        """Parameters (..., d) of points (..., 2) of the plane."""
        return self.best + (np.asarray(points) - self.best @ self.axes) @ self.axes.T

    def place(self, theta: FloatArray) -> FloatArray:
        """Points (2, ...) of the plane below parameters (..., d)."""
        return np.round(theta @ self.axes, DECIMALS).T + 0.0

    def far(self, policies: FloatArray) -> FloatArray:
        """Total variation from the maximum-likelihood law."""
        return laws.total_variation(policies, self.model.law(self.best))


def table() -> pd.DataFrame:
    """Paths in the plane, distances to the maximum-likelihood law, local factors."""
    rows = Rows()
    it = Setting.draw(np.random.default_rng(6))
    for name, point in (("MLE", it.best), ("min KL(π‖p)", it.reverse)):
        rows.add("plane", name, "mark", THEORY, *it.place(point))
    _levels(rows, it)
    ends: list[tuple[str, str, float]] = []

    def play(name: str, beta: float, rounds: int, start: Any = (0.0, 0.0), **how: Any) -> Solution:
        """Rounds from a point of the plane; the origin of the plane is theta = 0."""
        return it.model.self_play(
            it.expert, it.at(start), objectives.get(name), beta, rounds, **how
        )

    for name in PATHS:
        obj = objectives.get(name)
        beta = obj.slope_at_zero * (1.3 if obj.up_to_constant else 1.9)
        far = it.far(path_of(play(name, beta, ROUNDS)))
        rows.add("distance", name, "one step", MEASURED, np.arange(ROUNDS + 1), far)
        if name in ("spin", "spif", "ipo"):
            ends.append((name, f"{shown(name)}, one step", float(far[-1])))
        for i, corner in enumerate(CORNERS if name in ON_MAP else ()):
            theta = play(name, beta, MAP_ROUNDS, corner).details["theta"]
            rows.add("plane", name, f"one step {i}", MEASURED, *it.place(theta))
    for name in ("spin", "spif"):
        obj = objectives.get(name)
        beta = 2.0 * obj.slope_at_zero
        said = f"{shown(name)}, two steps"
        for i, corner in enumerate(CORNERS[:1] + CORNERS[2:]):
            theta = play(name, beta, 2 * ROUNDS, corner, kind="two_step").details["theta"]
            rows.add("plane", name, f"two steps {i}", MEASURED, *it.place(theta))
            if i == 0:
                there = it.model.potential_minimiser(it.expert, obj, theta[-1])
                rows.add("ends", name, said, THEORY, it.far(it.model.law(there)), len(ends))
                ends.append((name, said, float(it.far(it.model.law(theta[-1])))))
    uniform = it.model.law(np.zeros(FEATURES))
    for name, said, found in (
        ("spin", "SPIN, temperature 0.7", play("spin", 1.3, ROUNDS, temperature=0.7)),
        ("spin", "SPIN, temperature 1.3", play("spin", 1.3, ROUNDS, temperature=1.3)),
        ("spin", "SPIN, anchor τ = 0.3", play("spin", 1.0, ROUNDS, tau=0.3, ref=uniform)),
        ("tspin", "T-SPIN", play("tspin", 1.0, ROUNDS)),
    ):
        ends.append((name, said, float(it.far(found.policy))))
    for i, (name, said, value) in enumerate(ends):
        rows.add("ends", name, said, MEASURED, value, i)
    _stability(rows, it)
    return rows.table()


def _levels(rows: Rows, it: Setting) -> None:
    """Level lines of the SFT loss over its minimum, in the plane through the MLE."""
    xs, ys = np.linspace(-1.4, 9.6, 67), np.linspace(-3.0, 4.6, 51)
    theta = it.at(np.stack(np.meshgrid(xs, ys), axis=-1))
    logits = theta @ it.model.features.T
    log_law = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    excess = it.expert @ np.asarray(it.model.log_law(it.best)) - log_law @ it.expert
    lines = contour_generator(xs, ys, excess)
    for level in LEVELS:
        for i, line in enumerate(lines.lines(level)):
            points = np.asarray(line)
            rows.add("level", "SFT loss", f"{level:g}/{i}", THEORY, points[:, 0], points[:, 1])


def _stability(rows: Rows, it: Setting) -> None:
    """Factor per round along eigenvectors of (S_p + S_pi)^-1 S_pi at the MLE."""
    features = it.model.features

    def covariance(weight: FloatArray) -> FloatArray:
        centred = features - weight @ features
        return np.asarray((weight[:, None] * centred).T @ centred)

    own = covariance(it.model.law(it.best))
    values, vectors = np.linalg.eig(np.linalg.solve(covariance(it.expert) + own, own))
    order = np.argsort(-values.real)
    few = np.geomspace(0.34, 5.5, 9)
    fine = np.sort(np.concatenate([np.geomspace(0.3, 6.0, 60), few]))
    for name, gain in (("spin", 2.0), ("ipo", 1.0)):
        obj = objectives.get(name)
        for k, which in ((order[0], "fastest"), (order[-1], "slowest")):
            value, vector = float(values[k].real), vectors[:, k].real
            rows.add("local", name, which, THEORY, fine, 1.0 - gain * value / fine)
            found = []
            for beta in few:
                near = it.best + 1e-5 * vector
                path = it.model.self_play(it.expert, near, obj, float(beta), 1)
                moved = path.details["theta"] - it.best
                found.append(float(moved[1] @ moved[0] / (moved[0] @ moved[0])))
            rows.add("local", name, which, MEASURED, few, found)


def plot(table: pd.DataFrame) -> Figure:
    """Plane and distances above, ends and stability below."""
    fig, (top, bottom) = style.stacked(6.0, 1.1, 1.0)
    draw.fill(top.subplots(1, 2, width_ratios=(1.2, 1.0)), table, _plane, _distance)
    draw.fill(bottom.subplots(1, 2, width_ratios=(1.2, 1.0)), table, _ends, _local)
    return fig


def _plane(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "level", lambda *_: {"color": "#BBBBBB", "linewidth": 0.8, "zorder": 0})
    for name, series, rows in curves(table, "plane", MEASURED):
        dashed = "--" if series.startswith("two") else "-"
        ax.plot(rows.x, rows.y, dashed, color=style.colour(name), linewidth=1.2)
        ax.plot(rows.x, rows.y, **style.points(name, markersize=2.2))
    for name, _, rows in curves(table, "plane", THEORY):
        kind, size = ("*", 14) if name == "MLE" else ("X", 8)
        ax.plot(rows.x, rows.y, kind, color="k", markersize=size, zorder=5)
        mark(ax, float(rows.x.iloc[0]), float(rows.y.iloc[0]) - 0.45, name, ha="center", zorder=6)
    looks = {shown(n): {"color": style.colour(n), "linewidth": 1.2} for n in ON_MAP}
    looks["two steps"] = {"color": "k", "linestyle": "--", "linewidth": 1.2}
    place = {"loc": "upper center", "ncols": 5, "columnspacing": 0.8}
    style.legend(ax, looks, **place, fontsize=6.8, handlelength=1.2, handletextpad=0.3)
    ax.set_xlim(-1.4, 9.6)
    ax.set_ylim(-3.0, 5.4)
    title = "One step ends at the MLE, two do not"
    style.label(ax, "parameter, 1st direction", "2nd direction", title)


def _distance(ax: Axes, table: pd.DataFrame) -> None:
    near = table[table.y > 1e-9]
    draw.lines(ax, near, "distance", lambda name, _: style.line(name), MEASURED)
    draw.points(ax, near, "distance", lambda name, _: style.points(name, markersize=2.4), every=3)
    style.log(ax, "y")
    ax.set_ylim(1e-9, 2)
    for x, y, name in ((22, 0.12, "iq_learn"), (9.6, 2e-8, "nwj"), (22.3, 3e-9, "policy_only")):
        mark(ax, x, y, shown(name), color=style.colour(name), ha="right" if y < 1e-7 else "left")
    mark(ax, 40, 1.1e-4, "SPIF, AIRL,", color=style.BLUE, ha="right")
    mark(ax, 40, 3.6e-5, "Brier", color=style.GREEN, ha="right")
    mark(ax, 40.3, 7e-9, "SPIN, IPO,\ncentred,\nRényi", color=style.RED, ha="right")
    style.label(ax, "round t", "TV(πₜ, MLE)", "Every objective, one step")


def _ends(ax: Axes, table: pd.DataFrame) -> None:
    part = table[(table.panel == "ends") & (table.kind == MEASURED)].sort_values("y")
    ax.axvline(0.0, color="k", linewidth=1)
    predicted = style.points("expert", "|", markeredgewidth=1.4)
    draw.points(ax, table, "ends", lambda *_: predicted | {"markersize": 12}, kind=THEORY)
    for row in part.itertuples():
        ax.plot([0, row.x], [row.y, row.y], color=style.colour(row.objective), linewidth=1)
        ax.plot([row.x], [row.y], **style.points(row.objective, markersize=5.5))
    ax.set_yticks(part.y, list(part.series), fontsize=7.5)
    ax.invert_yaxis()
    looks = {"predicted: minimum of D(π‖p)": predicted | {"markersize": 9}}
    style.legend(ax, looks, loc="upper right", fontsize=7)
    style.label(ax, "TV(last policy, MLE)", "", "What moves the destination")


def _local(ax: Axes, table: pd.DataFrame) -> None:
    ax.axhspan(-1, 1, color=style.GREY, alpha=0.10, linewidth=0, zorder=0)
    draw.lines(ax, table, "local", lambda name, _: style.line(name))
    draw.points(ax, table, "local", lambda name, _: style.points(name, markersize=3.6))
    style.log(ax, "x", x=[0.3, 0.5, 1, 2, 5])
    ax.set_ylim(-2.2, 1.1)
    note(ax, 0.98, 0.26, "SPIN: 1 − 2λ/β", color=style.RED, ha="right")
    note(ax, 0.98, 0.18, "IPO: 1 − mλ/β", color=style.GREEN, ha="right")
    note(ax, 0.98, 0.08, "λ: largest, least eigenvalue\nof (Sₚ + Sπ)⁻¹ Sπ", ha="right", fontsize=7)
    note(ax, 0.98, 0.40, "stable", ha="right", color="#555555")
    style.label(ax, "β [nats]", "factor per round", "Local factors at the MLE")
