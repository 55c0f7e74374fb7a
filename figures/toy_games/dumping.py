"""Where one-step losses put the mass that nobody's data see: when, how fast, how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.sizes import sized
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, mark, note, shown
from lab.specs import objective_of
from lab.stats import intervals
from toy_games import launch
from toy_games.dynamics.self_play import beta_at
from toy_games.experiments import dumping
from toy_games.predictions import unseen

NAME = "dumping"
CAPTION = (
    "Mass dumping by gradient descent from warm starts, at equal effective steps. (a) An outcome "
    "of mass 0.01 that the data cover stays on T4's near branch, unless that branch is over (laws "
    "far apart); left out of the data it takes the whole missing mass 1 - Z of pointwise SPIF. "
    "Shift-invariant losses do not, nor SPPO on preferences, nor SFT. (b) Steps until half is "
    "dumped, by the number M of unseen outcomes that share the mass U: M delays it, but not "
    "beyond the number k = 2 of seen ones (lam: multiplier of the round). (c) n = 32 samples a "
    "side of N random outcomes: pointwise SPIF leaves 1 - sum_seen pi exp(R/beta) on the unseen "
    "ones; centred SPIF and IPO freeze their logits, so that their share grows only as the seen "
    "ones' falls. (d) T4 against C4: rewards of unseen outcomes grow with n, as less mass must "
    "take the same share; lines: log of settled over first mass, which SPIF's largest reward "
    "exceeds, as the rich get richer; SFT's are negative. (e) Later rounds see what was dumped "
    "and take it back, and more, as the expert's samples stay the same. (f) Real phrases, 64 "
    "samples a side, equal rates: every class dumps towards its line, a neural one first (SFT is "
    "faster there, too; tables are not there after 300 steps). Centred SPIF's lines are of the "
    "table; shared parameters move its unseen logits as well, and the prediction fails by a few "
    "hundredths, within these intervals. Points: SGD (a), gradient descent on samples (c-f), "
    "means and 95 % intervals over {seeds} seeds (c-e: other laws and samples each, f: other "
    "starts and samples), and exact gradients (b); lines: theory."
)
CLAIMS = ("T4", "C4", "T13", "T17")

SIZES = {"seeds": (6, 20)}
SETTINGS = dumping.Settings(**sized(SIZES))
SHARE, FAR = 0.8, 0.95
NEAR, UNSEEN, OVER = "covered", "unseen", "covered, far apart"
KINDS = {"softmax": "tabular", "tokens": "by token", "neural": "neural"}


def table() -> pd.DataFrame:
    """All panels from one run of the experiment."""
    rows = Rows()
    found = launch.run("dumping", SETTINGS, progress=False)
    _path(rows, found[found.part == "path"])
    _times(rows, found[found.part == "escape"])
    _samples(rows, found[(found.part == "samples") & (found.step > 0)])
    _rounds(rows, found[found.part == "rounds"])
    _text(rows, found[found.part == "text"])
    return rows.table()


def _add(rows: Rows, panel: str, name: str, series: str, x: Any, part: Any) -> None:
    """Means with their intervals."""
    rows.add(panel, name, series, MEASURED, x, part["mean"], part.low, part.high)


def _path(rows: Rows, found: pd.DataFrame) -> None:
    s = SETTINGS
    lines = [("spif", UNSEEN), ("spif", NEAR), ("spif", OVER)]
    lines += [(name, UNSEEN) for name in ("centred_spif", "sppo", "sft")]
    for name, series in lines:
        share, covered = FAR if series == OVER else SHARE, series != UNSEEN
        part = found[
            (found.objective == name) & (found.share == share) & (found.covered == covered)
        ]
        part = intervals(part[part.step > 0], ["step"], "third")
        _add(rows, "path", name, series, part.step, part)
        if name in ("spif", "centred_spif") and (name, series) != ("spif", UNSEEN):
            end = dumping.predicted(name, share, s.rare, covered, s.step)
            rows.add("path", name, series, THEORY, [1.0, s.path_steps], end)
    data, own = dumping.weights("spif", SHARE, s.rare, covered=False)
    start = dumping.example(SHARE, s.rare)[1]
    obj = objective_of("spif")
    assert obj is not None
    beta = beta_at(obj, s.step)
    steps, mass = unseen.escape(obj, data[:2], own[:2], start[:2], s.rare, 1, beta, s.path_rate)
    rows.add("path", "spif", UNSEEN, THEORY, np.maximum(steps, 1.0), mass)


def _times(rows: Rows, found: pd.DataFrame) -> None:
    for count, part in found[found.share == SHARE].groupby("count_unseen"):
        part = part[np.isfinite(part.predicted_steps)]
        series = f"{count:.0f}"
        rows.add("time", "spif", series, THEORY, part.outside, part.predicted_steps)
        part = part[np.isfinite(part.steps_to_half)]
        rows.add("time", "spif", series, MEASURED, part.outside, part.steps_to_half)


def _samples(rows: Rows, found: pd.DataFrame) -> None:
    found = found.assign(change=found.after - found.before, settled=found.predicted - found.before)
    for name, part in found.groupby("objective", sort=False):
        by_size = part[part.samples == SETTINGS.middle]
        change = intervals(by_size, ["size"], "change").sort_values("size")
        _add(rows, "mass", name, "change", change["size"], change)
        settled = by_size.groupby("size").settled.mean()
        rows.add("mass", name, "change", THEORY, settled.index, settled)
        by_count = part[part["size"] == SETTINGS.size]
        reward = intervals(by_count, ["samples"], "reward_unseen").sort_values("samples")
        _add(rows, "reward", name, "unseen", reward.samples, reward)
        if name != "sft":
            some = by_count[by_count.before > 0]
            least = (some.beta * np.log(some.predicted / some.before)).abs()
            least = least.groupby(some.samples).mean()
            rows.add("reward", name, "unseen", THEORY, least.index, least)
    ends = [min(SETTINGS.samples), max(SETTINGS.samples)]
    rows.add("reward", "spif", "bound", THEORY, ends, 1.0)


def _rounds(rows: Rows, found: pd.DataFrame) -> None:
    for name, part in found.groupby("objective", sort=False):
        first = intervals(part, ["step"], "first")
        _add(rows, "rounds", name, "policy", first.step / SETTINGS.round_steps, first)
    expert = found[found.objective == "sft"].first_expert.mean()
    rows.add("rounds", "expert", "expert", THEORY, [0, SETTINGS.rounds], expert)


def _text(rows: Rows, found: pd.DataFrame) -> None:
    for (name, kind), part in found.groupby(["objective", "policy"], sort=False):
        at = list(KINDS).index(kind)
        end = part[part.step > 0]
        _add(rows, "text", name, kind, at, intervals(end, ["policy"], "after"))
        rows.add("text", name, kind, THEORY, [at - 0.35, at + 0.35], end.predicted.mean())
        if name == "sft":
            rows.add("text", "start", kind, MEASURED, at, end.before.mean())


# -- the drawing -----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Three panels on exact laws and rewards above, three on samples below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draws = (_draw_path, _draw_time, _draw_mass, _draw_reward, _draw_rounds, _draw_text)
    for ax, letter, draw in zip(axes.flat, "abcdef", draws, strict=True):
        draw(ax, table)
        ax.set_title(f"({letter}) {ax.get_title(loc='left')}", fontsize=8.2)
    return fig


LOOK = {NEAR: ("s", style.BLUE, "--"), OVER: ("^", style.BLACK, ":")}
MARKS = {"spif": "o", "centred_spif": "D", "ipo": "v", "sft": "x", "sppo": "P"}
SHOWN = {"sft": "SFT"}
INK = {"centred_spif": "#2A86B8", "sft": style.GREY, "sppo": style.PURPLE}


def _ink(name: str) -> str:
    return INK.get(name, style.colour(name))


def _look(name: str) -> dict[str, Any]:
    edge = 1.2 if name == "sft" else 0.0
    return {"color": _ink(name), "linestyle": "none", "marker": MARKS[name], "mew": edge}


def _draw_path(ax: Axes, table: pd.DataFrame) -> None:
    for name, series, rows in curves(table, "path", THEORY):
        _, colour, dash = LOOK.get(series, ("", _ink(name), "-"))
        ax.plot(rows.x, rows.y, color=colour, linestyle=dash, linewidth=1.1)
    for name, series, rows in curves(table, "path", MEASURED):
        marker, colour, _ = LOOK.get(series, (MARKS[name], _ink(name), ""))
        bars(ax, rows.iloc[::2], **{**_look(name), "color": colour, "marker": marker})
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(3e-4, 3.0)
    said = (
        (0.03, 0.96, "SPIF, covered, far apart", style.BLACK),
        (0.03, 0.885, "SPIF, unseen: 1 − Z", style.BLUE),
        (0.03, 0.46, "SPIF, covered ■", style.BLUE),
        (0.03, 0.27, "centred SPIF ◆", INK["centred_spif"]),
        (0.03, 0.195, "SPPO (preferences) ✚", INK["sppo"]),
        (0.03, 0.12, "SFT ×", INK["sft"]),
    )
    for x, y, text, colour in said:
        note(ax, x, y, text, color=colour, fontsize=6.8)
    style.label(ax, "gradient steps", "mass of third outcome", "The unseen are dumped on")


def _draw_time(ax: Axes, table: pd.DataFrame) -> None:
    for _, series, rows in curves(table, "time", THEORY):
        ax.plot(rows.x, rows.y, color=SHADE.get(series, style.GREY), linewidth=1.1)
    for i, (_, series, rows) in enumerate(curves(table, "time", MEASURED)):
        colour = SHADE.get(series, style.GREY)
        ax.plot(rows.x, rows.y, "ovD^"[i % 4], color=colour, markersize=3.6)
        note(ax, 0.97, 0.93 - 0.08 * i, f"{'ovD^'[i % 4]}".translate(GLYPH) + f" M = {series}",
             color=colour, ha="right", fontsize=7)  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    note(ax, 0.04, 0.12, "leading order:\n1/(λU(1/M + 1/k)), k = 2", fontsize=7)
    style.label(
        ax, "unseen mass U at the start", "steps until half is dumped", "Time to dump: about 1/(λU)"
    )


SHADE = {"1": style.SKY, "2": style.BLUE, "8": style.PURPLE, "32": style.BLACK}
GLYPH = str.maketrans({"o": "●", "v": "▼", "D": "◆", "^": "▲"})


def _draw_mass(ax: Axes, table: pd.DataFrame) -> None:
    _compare(ax, table, "mass")
    ax.axhline(0.0, color="k", linewidth=0.7)
    ax.set_xscale("log", base=2)
    sizes = sorted(table[table.panel == "mass"].x.unique())
    ax.set_xticks(sizes, [f"{s:.0f}" for s in sizes])
    ax.minorticks_off()
    ax.legend(loc="lower left", fontsize=6.8, handletextpad=0.1, borderaxespad=0.1)
    style.label(
        ax,
        "outcomes N (n = 32)",
        "unseen mass, after − before",
        "Pointwise SPIF dumps most",
    )


def _draw_reward(ax: Axes, table: pd.DataFrame) -> None:
    part = table[(table.panel != "reward") | (table.series != "bound")]
    _compare(ax, part, "reward")
    ax.axhline(1.0, color="k", linewidth=1.0)
    ax.set_xscale("log", base=4)
    sizes = sorted(part[part.panel == "reward"].x.unique())
    ax.set_xticks(sizes, [f"{s:.0f}" for s in sizes])
    ax.minorticks_off()
    note(ax, 0.97, 0.215, "SPIF's bound 1/c", fontsize=7, ha="right")
    style.label(
        ax, "samples n a side (N = 64)", "largest |reward|, unseen", "C4 fails: no bound on rewards"
    )


def _compare(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    for name, _, rows in curves(table, panel, THEORY):
        ax.plot(rows.x, rows.y, color=_ink(name), linewidth=1.1)
    for name, _, rows in curves(table, panel, MEASURED):
        bars(ax, rows, **_look(name), label=SHOWN.get(name, shown(name)))


def _draw_rounds(ax: Axes, table: pd.DataFrame) -> None:
    for _, _, rows in curves(table, "rounds", THEORY):
        ax.plot(rows.x, rows.y, color="k", linewidth=1.0, linestyle="--")
        mark(ax, 5.0, float(rows.y.iloc[0]) + 0.022, "expert", fontsize=7, ha="right")
    for name, _, rows in curves(table, "rounds", MEASURED):
        ax.plot(rows.x, rows.y, color=_ink(name), linewidth=0.6)
        bars(ax, rows, **_look(name), label=SHOWN.get(name, shown(name)))
    ax.set_ylim(-0.03, 0.55)
    style.label(ax, "rounds", "mass unseen in round 1", "Later rounds take it back")


def _draw_text(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "text", THEORY):
        ax.plot(rows.x, rows.y, color=_ink(name), linewidth=1.1)
    for name, _, rows in curves(table, "text", MEASURED):
        if name == "start":
            ax.plot(rows.x - 0.2, rows.y, "_", color="k", markersize=9)
        else:
            bars(ax, rows, **_look(name))
    ax.set_xticks(range(len(KINDS)), list(KINDS.values()))
    ax.set_xlim(-0.5, len(KINDS) - 0.5)
    ax.set_ylim(-0.03, 1.0)
    note(ax, 0.03, 0.93, "lines: where it settles", fontsize=7)
    note(ax, 0.03, 0.44, "− before", fontsize=7)
    style.label(ax, "", "mass of unseen phrases", "Text: every class dumps")
