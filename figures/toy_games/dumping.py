"""Where one-step losses put the mass that nobody's data see: when, how fast, how much.

Numbers: toy_games/experiments/dumping.py (`python -m toy_games run dumping`); out/dumping.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows, curves
from theory import objectives
from toy_games import launch
from toy_games.engine.trainable import beta_at
from toy_games.experiments import dumping
from toy_games.predictions import unseen

SETTINGS = dumping.Settings(seeds=sized(6, 20))
CAPTION = (
    "Mass dumping by gradient descent from warm starts, at equal effective steps. (a) Share "
    "of an outcome of mass 0.01, covered by the data or left out of them, against what T4 "
    "says of each: the near branch, or the missing mass 1 - Z; pointwise SPIF, "
    "shift-invariant losses, SPPO on preferences and SFT. (b) Steps until half is dumped, by "
    "the number M of unseen outcomes that share the mass U, with k = 2 seen ones (lam: "
    "multiplier of the round). (c) n = 32 samples a side of N random outcomes: mass that is "
    "left to unseen outcomes; lines: 1 - sum_seen pi exp(R/beta) for pointwise SPIF, frozen "
    "logits for centred SPIF and IPO. (d) Largest reward of unseen outcomes against n; lines: "
    "log of settled over first mass, a lower bound of SPIF's. (e) The dumped mass in later "
    "rounds on the same samples. (f) Real phrases, 64 samples a side, equal rates: tables, "
    "order-k and neural classes against their lines; centred SPIF's lines are of the table, "
    "and shared parameters move its unseen logits as well. Points: SGD (a), gradient descent "
    f"on samples (c-f), means and 95 % intervals over {SETTINGS.seeds} seeds (c-e: other laws "
    "and samples each, f: other starts and samples), and exact gradients (b); lines: theory."
)
CLAIMS = ("T4", "C4", "T13", "T17")

SHARE, FAR = 0.8, 0.95
NEAR, UNSEEN, OVER = "covered", "unseen", "covered, far apart"
KINDS = {"softmax": "tabular", "tokens": "by token", "neural": "neural"}


def table(settings: dumping.Settings = SETTINGS) -> pd.DataFrame:
    """All panels from one run of the experiment."""
    rows = Rows()
    found = launch.run("dumping", settings, progress=False)
    _path(rows, found[found.part == "path"], settings)
    _times(rows, found[found.part == "escape"])
    _samples(rows, found[(found.part == "samples") & (found.step > 0)], settings)
    _rounds(rows, found[found.part == "rounds"], settings)
    _text(rows, found[found.part == "text"])
    return rows.table()


def _path(rows: Rows, found: pd.DataFrame, s: dumping.Settings) -> None:
    found = found[found.step > 0]
    drawn = [("spif", UNSEEN), ("spif", NEAR), ("spif", OVER)]
    drawn += [(name, UNSEEN) for name in ("centred_spif", "sppo", "sft")]
    for name, series in drawn:
        share, covered = FAR if series == OVER else SHARE, series != UNSEEN
        part = found[(found.share == share) & (found.covered == covered)]
        rows.means("path", name, series, part[part.objective == name], "step", "third")
        if name in ("spif", "centred_spif") and (name, series) != ("spif", UNSEEN):
            end = dumping.predicted(name, share, s.rare, covered, s.step)
            rows.add("path", name, series, THEORY, [1.0, s.path_steps], end)
    data, own = (w[:2] for w in dumping.weights("spif", SHARE, s.rare, covered=False))
    start, spif = dumping.example(SHARE, s.rare)[1][:2], objectives.get("spif")
    beta = beta_at(spif, s.step)
    steps, mass = unseen.escape(spif, data, own, start, s.rare, 1, beta, s.path_rate)
    rows.add("path", "spif", UNSEEN, THEORY, np.maximum(steps, 1.0), mass)


def _times(rows: Rows, found: pd.DataFrame) -> None:
    for count, part in found[found.share == SHARE].groupby("count_unseen"):
        for kind, column in ((THEORY, "predicted_steps"), (MEASURED, "steps_to_half")):
            part = part[np.isfinite(part[column])]
            rows.add("time", "spif", f"{count:.0f}", kind, part.outside, part[column])


def _samples(rows: Rows, found: pd.DataFrame, s: dumping.Settings) -> None:
    found = found.assign(change=found.after - found.before, settled=found.predicted - found.before)
    for name, part in found.groupby("objective", sort=False):
        by_size = part[part.samples == s.middle].sort_values("size", kind="stable")
        rows.means("mass", name, "change", by_size, "size", "change")
        settled = by_size.groupby("size").settled.mean()
        rows.add("mass", name, "change", THEORY, settled.index, settled)
        by_count = part[part["size"] == s.size].sort_values("samples", kind="stable")
        rows.means("reward", name, "unseen", by_count, "samples", "reward_unseen")
        if name != "sft":
            some = by_count[by_count.before > 0]
            least = (some.beta * np.log(some.predicted / some.before)).abs()
            least = least.groupby(some.samples).mean()
            rows.add("reward", name, "unseen", THEORY, least.index, least)
    rows.add("reward", "spif", "bound", THEORY, [min(s.samples), max(s.samples)], 1.0)


def _rounds(rows: Rows, found: pd.DataFrame, s: dumping.Settings) -> None:
    rows.each("rounds", found.assign(step=found.step / s.round_steps), "step", "first", "policy")
    expert = found[found.objective == "sft"].first_expert.mean()
    rows.add("rounds", "expert", "expert", THEORY, [0, s.rounds], expert)


def _text(rows: Rows, found: pd.DataFrame) -> None:
    found = found.assign(at=found.policy.map(list(KINDS).index))
    for (name, kind), part in found.groupby(["objective", "policy"], sort=False):
        end, at = part[part.step > 0], part["at"].iloc[0]
        rows.means("text", name, kind, end, "at", "after")
        rows.add("text", name, kind, THEORY, [at - 0.35, at + 0.35], end.predicted.mean())
        if name == "sft":
            rows.add("text", "start", kind, MEASURED, at, end.before.mean())


# -- the drawing -----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Three panels on exact laws and rewards above, three on samples below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draws = (_draw_path, _draw_time, _draw_mass, _draw_reward, _draw_rounds, _draw_text)
    draw.fill(axes, table, *draws)
    style.letters(axes, 8.2)
    return fig


COVERED = {NEAR: ("s", style.BLUE, "--"), OVER: ("^", style.BLACK, ":")}
MARKS = {"centred_spif": "D", "ipo": "v", "sft": "x", "sppo": "P"}
INK = {"centred_spif": style.DEEP_SKY, "sft": style.GREY, "sppo": style.PURPLE}


def _ink(name: str) -> str:
    return INK.get(name, style.colour(name))


def _line(name: str, series: str) -> dict[str, Any]:
    _, colour, dash = COVERED.get(series, ("", _ink(name), "-"))
    return {"color": colour, "linestyle": dash}


def _point(name: str, series: str) -> dict[str, Any]:
    marker, colour, _ = COVERED.get(series, (MARKS.get(name, "o"), _ink(name), ""))
    return style.points(colour, marker)


def _draw_path(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "path", _line)
    draw.points(ax, table, "path", _point, every=2)
    style.log(ax)
    ax.set_ylim(3e-4, 3.0)
    for y, text, colour in (
        (0.96, "SPIF, covered, far apart", style.BLACK),
        (0.885, "SPIF, unseen: 1 − Z", style.BLUE),
        (0.46, "SPIF, covered ■", style.BLUE),
        (0.27, "centred SPIF ◆", INK["centred_spif"]),
        (0.195, "SPPO (preferences) ✚", INK["sppo"]),
        (0.12, "SFT ×", INK["sft"]),
    ):
        note(ax, 0.03, y, text, color=colour, fontsize=6.8)
    style.label(ax, "gradient steps", "mass of third outcome", "The unseen are dumped on")


SHADES = {
    "1": (style.SKY, "o", "●"),
    "2": (style.BLUE, "v", "▼"),
    "8": (style.PURPLE, "D", "◆"),
    "32": (style.BLACK, "^", "▲"),
}


def _draw_time(ax: Axes, table: pd.DataFrame) -> None:
    def shade(count: str) -> tuple[str, str, str]:
        return SHADES.get(count, (style.GREY, "o", "●"))

    draw.lines(ax, table, "time", lambda _, count: {"color": shade(count)[0]})
    draw.points(ax, table, "time", lambda _, count: style.points(*shade(count)[:2]))
    for i, count in enumerate(table[table.panel == "time"].series.unique()):
        colour, _, glyph = shade(count)
        text = f"{glyph} M = {count}"
        note(ax, 0.97, 0.93 - 0.08 * i, text, color=colour, ha="right", fontsize=7)
    style.log(ax)
    note(ax, 0.04, 0.12, "leading order:\n1/(λU(1/M + 1/k)), k = 2", fontsize=7)
    title = "Time to dump: about 1/(λU)"
    style.label(ax, "unseen mass U at the start", "steps until half is dumped", title)


def _compare(ax: Axes, table: pd.DataFrame, panel: str, base: float) -> None:
    """Against a number of outcomes or samples, whose values are the ticks."""
    draw.lines(ax, table, panel, _line)
    draw.points(ax, table, panel, lambda n, s: _point(n, s) | {"label": shown(n)})
    style.log(ax, "x", x=sorted(table[table.panel == panel].x.unique()), base=base)


def _draw_mass(ax: Axes, table: pd.DataFrame) -> None:
    _compare(ax, table, "mass", 2)
    ax.axhline(0.0, color="k", linewidth=0.7)
    ax.legend(loc="lower left", fontsize=6.8, handletextpad=0.1, borderaxespad=0.1)
    title = "Pointwise SPIF dumps most"
    style.label(ax, "outcomes N (n = 32)", "unseen mass, after − before", title)


def _draw_reward(ax: Axes, table: pd.DataFrame) -> None:
    _compare(ax, table[table.series != "bound"], "reward", 4)
    ax.axhline(1.0, color="k", linewidth=1.0)
    note(ax, 0.97, 0.215, "SPIF's bound 1/c", fontsize=7, ha="right")
    title = "C4 fails: no bound on rewards"
    style.label(ax, "samples n a side (N = 64)", "largest |reward|, unseen", title)


def _draw_rounds(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "rounds", lambda *_: {"color": "k", "linestyle": "--"})
    for _, _, rows in curves(table, "rounds", THEORY):
        mark(ax, 5.0, float(rows.y.iloc[0]) + 0.022, "expert", fontsize=7, ha="right")
    joined = {"linestyle": "-", "linewidth": 0.6}
    draw.points(ax, table, "rounds", lambda n, s: _point(n, s) | joined)
    ax.set_ylim(-0.03, 0.55)
    style.label(ax, "rounds", "mass unseen in round 1", "Later rounds take it back")


def _draw_text(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "text", _line)
    before = table.objective == "start"
    draw.points(ax, table[~before], "text", _point)
    draw.points(
        ax,
        table[before],
        "text",
        lambda *_: style.points("expert", "_", markersize=9),
        lambda _, s, x: x - 0.2,
    )
    style.ticks(ax, dict(enumerate(KINDS.values())))
    ax.set_xlim(-0.5, len(KINDS) - 0.5)
    ax.set_ylim(-0.03, 1.0)
    note(ax, 0.03, 0.93, "lines: where it settles", fontsize=7)
    note(ax, 0.03, 0.44, "− before", fontsize=7)
    style.label(ax, "", "mass of unseen phrases", "Text: every class dumps")
