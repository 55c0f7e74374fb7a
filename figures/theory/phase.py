"""Phase portraits of rounds on three outcomes: imitation, preference, anchored preference.

Numbers: `table` below, by `theory.self_play` and `theory.preferences`; out/phase.csv.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows, curves, path_of
from theory import laws, objectives, preferences, self_play
from theory.result import FloatArray

CAPTION = (
    "Imitation settles, preference cycles, an anchor settles it. Policies over three outcomes "
    "(triangles: corners are sure outcomes) under rounds of imitation of an expert (left), of "
    "self-play on rock-paper-scissors (middle) and of the same with an anchor (right). "
    "Lines: the flow of infinitely small steps; points: rounds, from the rings. Below: the "
    "distance per round, with the theorems' bounds; on rock-paper-scissors only the average "
    "policy comes closer."
)
CLAIMS = ("T6", "T11", "T12", "C2", "C3")

EXPERT = np.array([0.50, 0.32, 0.18])
ANCHOR = np.array([0.70, 0.18, 0.12])
TAU = 0.3
IMITATION_BETA, CYCLE_BETA, ANCHORED_BETA = 1.5, 1.0, 1.0 / TAU
STARTS = np.array(
    [
        [0.96, 0.02, 0.02],
        [0.02, 0.96, 0.02],
        [0.02, 0.02, 0.96],
        [0.02, 0.49, 0.49],
        [0.66, 0.02, 0.32],
        [0.14, 0.84, 0.02],
    ]
)
PANELS = ("imitation", "preference", "anchored")


def table() -> pd.DataFrame:
    """Paths in the plane of the triangle, equilibria, and distances per round."""
    rows = Rows()
    spif = objectives.get("spif")
    game = preferences.rock_paper_scissors()
    centre = np.full(3, 1.0 / 3.0)
    star = preferences.regularised_nash(game, ANCHOR, TAU).policy
    for name, point in zip(PANELS, (EXPERT, centre, star), strict=True):
        rows.add(name, "equilibrium", "star", THEORY, *plane(point))
    rows.add("anchored", "reference", "anchor", THEORY, *plane(ANCHOR))

    def imitate(start: FloatArray, beta: float, rounds: int) -> FloatArray:
        return path_of(self_play(EXPERT, start, spif, beta, rounds))

    def anchored(start: FloatArray, beta: float, rounds: int) -> FloatArray:
        return path_of(preferences.self_play(game, start, spif, beta, rounds, ANCHOR, TAU))

    for i, start in enumerate(STARTS):
        _portrait(rows, "imitation", f"{i}", start, imitate, IMITATION_BETA, 14)
        kl = laws.kl(EXPERT, imitate(start, IMITATION_BETA, 30))
        rows.add("imitation distance", "spif", f"{i}", MEASURED, np.arange(31), kl)
        if i == 0:
            t = np.arange(4, 31)
            factor = 1.0 - 0.5 / IMITATION_BETA  # 1 - R'(0)/beta
            rows.add("imitation distance", "spif", "rate", THEORY, t, kl[4] * factor ** (2 * t - 8))
    for i, start in enumerate(STARTS[[0, 2, 4]]):
        _portrait(rows, "anchored", f"{i}", start, anchored, ANCHORED_BETA, 40)
        kl = laws.kl(star, anchored(start, ANCHORED_BETA, 60))
        rows.add("anchored distance", "sppo", f"{i}", MEASURED, np.arange(61), kl)
        if i == 0:
            t = np.arange(61)
            bound = kl[0] * preferences.anchored_rate(ANCHORED_BETA, TAU) ** t
            rows.add("anchored distance", "sppo", "bound", THEORY, t, bound)
            grows = float(preferences.local_growth(game, star, ANCHORED_BETA, TAU))
            rate = kl[10] * grows ** (2 * t[10:] - 20)
            rows.add("anchored distance", "sppo", "rate", THEORY, t[10:], rate)
    _cycle(rows, game)
    return rows.table()


def plane(policy: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Coordinates in the triangle with corners (0, 0), (1, 0) and (1/2, sqrt(3)/2)."""
    return policy[..., 1] + 0.5 * policy[..., 2], np.sqrt(0.75) * policy[..., 2]


def _portrait(
    rows: Rows,
    panel: str,
    series: str,
    start: FloatArray,
    rounds: Callable[[FloatArray, float, int], FloatArray],
    beta: float,
    count: int,
) -> None:
    small = 40.0  # rounds of a fortieth of the step stand for the flow
    rows.add(panel, "flow", series, THEORY, *plane(rounds(start, small * beta, 40 * count)[::8]))
    rows.add(panel, "rounds", series, MEASURED, *plane(rounds(start, beta, count)))


def _cycle(rows: Rows, game: FloatArray) -> None:
    """SPPO on rock-paper-scissors: orbits of the flow, rounds, gaps of last and average policy."""
    sppo = objectives.get("sppo")
    start = np.array([0.38, 0.33, 0.29])
    angle = np.linspace(0.0, 2.0 * np.pi, 121)
    for i, size in enumerate((0.22, 0.9, 1.9, 3.6)):
        rows.add("preference", "flow", f"{i}", THEORY, *plane(_orbit(size, angle)))
    short = preferences.self_play(game, start, sppo, CYCLE_BETA, 75)
    path = path_of(short)
    rows.add("preference", "rounds", "0", MEASURED, *plane(path))
    average = np.cumsum(path[:-1], 0) / np.arange(1, len(path))[:, None]
    rows.add("preference", "average", "0", MEASURED, *plane(average[-1]))
    count = 400
    beta = 0.5 * np.sqrt(count / (2.0 * np.log(3.0)))  # tuned for 400 rounds, Lip = 1/2
    long = path_of(preferences.self_play(game, start, sppo, beta, count))
    average = np.cumsum(long[:-1], 0) / np.arange(1, len(long))[:, None]
    t = np.unique(np.geomspace(1, count, 40).astype(int))
    last = preferences.duality_gap(game, long[t])
    mean = preferences.duality_gap(game, average[t - 1])
    rows.add("preference distance", "sppo", "last policy", MEASURED, t, last)
    rows.add("preference distance", "sppo", "average policy", MEASURED, t, mean)
    bound = [preferences.average_gap_bound(game, start, beta, int(k), 0.5) for k in t]
    rows.add("preference distance", "sppo", "bound", THEORY, t, bound)


def _orbit(size: float, angle: FloatArray) -> FloatArray:
    """Closed orbit of the flow: the constant of motion sum log pi lies `size` below its maximum."""
    corner = np.stack([np.cos(angle + k) for k in (0.0, 2 * np.pi / 3, -2 * np.pi / 3)], axis=-1)
    low, high = np.zeros(len(angle)), np.full(len(angle), 40.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        inside = -np.log(3.0 * _tilted(middle, corner)).sum(-1) < size
        low, high = np.where(inside, middle, low), np.where(inside, high, middle)
    return _tilted(low, corner)


def _tilted(size: FloatArray, corner: FloatArray) -> FloatArray:
    weight = np.exp(size[:, None] * corner)
    return np.asarray(weight / weight.sum(-1, keepdims=True))


CORNERS = {
    "imitation": ("outcome 1", "outcome 2", "outcome 3"),
    "preference": ("rock", "paper", "scissors"),
    "anchored": ("rock", "paper", "scissors"),
}
TITLES = (
    "Imitation (SPIF)\nsettles at the expert",
    "Preference (SPPO)\ncycles away from Nash",
    "… with an anchor\nsettles at its equilibrium",
)


def plot(table: pd.DataFrame) -> Figure:
    """Triangles above, distances below."""
    fig, (top, bottom) = style.stacked(5.0, 1.1, 1.0)
    for ax, panel, title in zip(top.subplots(1, 3), PANELS, TITLES, strict=True):
        _triangle(ax, table, panel)
        ax.set_title(title, loc="left")
    draw.fill(bottom.subplots(1, 3), table, _imitation, _preference, _anchored)
    return fig


def _triangle(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    ax.set_axis_off()
    ax.set_aspect("equal")
    ax.set_xlim(-0.08, 1.08)
    ax.set_ylim(-0.12, 1.0)
    corners = np.array([[0, 0], [1, 0], [0.5, np.sqrt(0.75)], [0, 0]])
    ax.plot(*corners.T, color="k", linewidth=0.9)
    for (x, y), name in zip(corners, CORNERS[panel], strict=False):
        up, side = (0.03, "bottom") if y else (-0.03, "top")
        ax.text(x, y + up, name, ha="center", va=side, fontsize=8)
    played = "spif" if panel == "imitation" else "sppo"
    looks = {
        "flow": {"color": style.GREY, "linewidth": 0.9, "zorder": 1},
        "rounds": style.points(played, markersize=2.8, zorder=3),
        "equilibrium": style.points("expert", "*", markersize=11, zorder=4),
        "average": style.points(style.ORANGE, "D", markersize=4.5, zorder=5),
        "reference": style.points("expert", "s", markersize=5, zorder=4),
    }
    for name, _, rows in curves(table, panel):
        ax.plot(rows.x, rows.y, **looks[name])
        if name == "rounds":
            ring = style.points(played, hollow=True, markersize=4.5, zorder=4)
            ax.plot(rows.x.iloc[0], rows.y.iloc[0], **ring)
    for text, x, y in WORDS[panel]:
        mark(ax, x, y, text, zorder=6)


WORDS = {
    "imitation": [("expert", 0.47, 0.22)],
    "preference": [("average\n≈ Nash", 0.585, 0.30)],
    "anchored": [("anchor", 0.10, 0.17), ("equilibrium", 0.43, 0.25)],
}


def _distance(ax: Axes, table: pd.DataFrame, panel: str, size: float = 2.6) -> None:
    """Bounds dashed, rates as lines, and the rounds."""
    draw.lines(
        ax, table, panel, lambda _, s: {"color": "k", "linestyle": "--" if s == "bound" else "-"}
    )
    shades = {"average policy": style.ORANGE}
    draw.points(
        ax, table, panel, lambda name, s: style.points(shades.get(s, name), markersize=size)
    )
    style.log(ax, "y")


def _imitation(ax: Axes, table: pd.DataFrame) -> None:
    _distance(ax, table, "imitation distance")
    note(ax, 0.98, 0.92, "line: rate (1 − R'(0)/β)²", ha="right")
    style.label(ax, "round t", "KL(expert‖πₜ) [nats]", "Every path comes closer")


def _preference(ax: Axes, table: pd.DataFrame) -> None:
    _distance(ax, table, "preference distance", 3.0)
    style.log(ax, "x")
    ax.set_ylim(3e-3, 30)
    note(ax, 0.04, 0.50, "last policy", color=style.BLUE)
    note(ax, 0.04, 0.22, "average policy", color=style.ORANGE)
    note(ax, 0.98, 0.92, "dashed: bound on the average", ha="right", fontsize=7)
    style.label(ax, "round t", "duality gap [win prob.]", "Only the average does")


def _anchored(ax: Axes, table: pd.DataFrame) -> None:
    _distance(ax, table, "anchored distance")
    ax.set_ylim(1e-4, 30)
    note(ax, 0.98, 0.92, "dashed: bound, line: local rate", ha="right")
    style.label(ax, "round t", "KL(equilibrium‖πₜ) [nats]", "Every path does again")
