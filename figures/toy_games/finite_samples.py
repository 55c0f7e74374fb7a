"""What finite samples do: margins without end, mass that must vanish, overfitting; beside SFT.

Numbers: toy_games/experiments/finite_samples.py (`python -m toy_games run finite_samples`);
out/finite_samples.csv.
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
from figures.tidy import MEASURED, THEORY, Rows
from theory import objectives
from toy_games import launch
from toy_games.engine.simulator import log_steps
from toy_games.experiments.finite_samples import OVERLAPS, PER_DECADE, Settings, samples
from toy_games.predictions.finite_samples import bounded_range, logistic_growth, squared_limit

SETTINGS = Settings(
    seeds=sized(8, 16),
    rounds_seeds=24,
    late_every=5,
    steps=sized(1000, 100_000),
    total_steps=sized(1000, 4000),
    text_steps=sized(1000, 4000),
)
CAPTION = (
    "Training on finite samples. (a) Range of implicit rewards over one round; filled points are "
    "gradient descent, open ones its gradient flow; samples that do not overlap, overlap in part, "
    "or saw the same outcomes on both sides; lines: predicted slopes in log t (1, 2, 0, through "
    "the last point) of SPIN, and R(∞)−R(−∞) of bounded links. (b) Mass of unseen outcomes under "
    "pointwise SPIF, by the mass that its targets ask for; line: 1 − Σ q e^{±η}; crosses: the "
    "predicted constant of 1/t. (c) KL against n in tabular rounds, best along the path and mean "
    "of the last quarter of the steps; line: (N−1)/2n of maximum likelihood; SPIN-hinge does not "
    "settle: one realisation of chaos, another on each processor. (d, e) KL on real text (order-1 "
    "model of short phrases, token policy, minibatches), n = 10 and 100; line in (d): the expert's "
    "missing mass per e-fold of steps, through SFT's last point. (f) (c)'s KL less SFT's, paired, "
    "for n < 1000. "
    f"Means over {SETTINGS.seeds} seeds (c, f: {SETTINGS.rounds_seeds}) with 95 % intervals."
)
CLAIMS = ("T13", "T15", "T16", "C4", "C5", "C6")
REALISATIONS = ("n, spin_hinge", "paired, spin_hinge")

SEEN_AT = (1e2, 1e4, 1e6)


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Means over seeds with intervals, and the predictions beside them."""
    found = launch.run("finite_samples", settings, progress=False)
    rows = Rows()
    _one_round(rows, found, settings)
    _threshold(rows, found[found.part == "threshold"], settings)
    _overfitting(rows, found[found.part == "text"])
    _against_n(rows, found[found.part == "rounds"], settings)
    return rows.table()


def _one_round(rows: Rows, found: pd.DataFrame, given: Settings) -> None:
    for part in ("descent", "flow"):
        chosen = found[(found.part == part) & (found.time >= 1.0)]
        for (name, overlap), one in chosen.groupby(["objective", "overlap"], sort=False):
            if overlap == "disjoint" or name == "spin":
                rows.means("range", str(name), f"{overlap}, {part}", one, "time", "reward_range")
    ends = np.array([1e2, given.flow_steps])
    for overlap in OVERLAPS:
        spin = found[(found.part == "flow") & (found.objective == "spin")]
        last = spin[(spin.overlap == overlap) & (spin.time == spin.time.max())]
        slope = np.ptp(_growth(overlap, given), axis=-1).mean()
        line = last.reward_range.mean() + slope * np.log(ends / given.flow_steps)
        rows.add("range", "spin", overlap, THEORY, ends, line)
    _, _, data, own = samples(given.first_seed, "disjoint", given.outcomes)
    for name in ("centred_spif", "ipo"):
        if name in given.objectives:
            size = float(bounded_range(objectives.get(name), data, own))
            rows.add("range", name, "disjoint", THEORY, ends, size)


def _growth(overlap: str, given: Settings) -> Any:
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    parts = [samples(seed, overlap, given.outcomes)[2:] for seed in seeds]
    data, own = (np.stack(part) for part in zip(*parts, strict=True))
    return logistic_growth(data, own)


def _threshold(rows: Rows, found: pd.DataFrame, given: Settings) -> None:
    times = np.sort(found.time.unique())
    for time in SEEN_AT:
        at = times[np.abs(np.log(np.maximum(times, 1e-9) / time)).argmin()]
        part = found[found.time == at]
        rows.add("mass", "spif", f"{time:.0e}", MEASURED, part.demanded, part.unseen_mass)
    asked = np.concatenate([np.linspace(0.4, 0.99, 30), 1.0 - np.geomspace(9e-3, 1e-6, 20)])
    rows.add("mass", "spif", "1 - demanded", THEORY, asked, 1.0 - asked)
    for one in found[(found.time == times[-1]) & (found.demanded > 1.0)].itertuples():
        _, q, data, own = samples(one.seed, "disjoint", given.outcomes)
        limit = squared_limit(1.0, one.beta, data, own, q)
        # pointwise SPIF's first gradient is beta times SFT's
        left = limit.unseen_time / (times[-1] * one.rate / one.beta)
        rows.add("mass", "spif", "1/t", THEORY, one.demanded, left)


def _overfitting(rows: Rows, found: pd.DataFrame) -> None:
    found = found[found.step > 0]
    for (name, n), one in found.groupby(["objective", "n"], sort=False):
        rows.means("text", str(name), f"n={n:g}", one, "step", "kl")
    few = found[(found.objective == "sft") & (found.n == found.n.min())]
    steps = np.sort(few.step.unique())
    late = steps[steps >= steps[-1] / 12]
    last = few[few.step == steps[-1]]
    line = last.kl.mean() + last.missing.mean() * np.log(late / steps[-1])
    rows.add("text", "sft", f"n={few.n.iloc[0]:g}", THEORY, late, line)


def _against_n(rows: Rows, found: pd.DataFrame, given: Settings) -> None:
    late = found.step >= given.late_from
    spaced = found.step.isin(log_steps(given.total_steps, PER_DECADE))
    parts = {"best": (found[spaced], "min"), "late": (found[late], "mean")}
    for series, (part, how) in parts.items():
        kl = part.groupby(["objective", "n", "seed"], sort=False).kl.agg(how)
        rows.each("n", kl.reset_index(), "n", "kl", series)
        paired = (kl - kl.xs("sft").reindex(kl.index.droplevel(0)).to_numpy()).reset_index()
        rows.each("paired", paired[paired.objective != "sft"], "n", "kl", series)
    large = np.array([n for n in given.sizes if n > given.support])
    if len(large):
        rows.add("n", "sft", "likelihood", THEORY, large, (given.support - 1) / (2.0 * large))


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """One round above, rounds on n samples below; one legend for all."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _draw_range, _draw_mass, _draw_n, _draw_few, _draw_more, _draw_paired)
    names = ("spin", "spif", "centred_spif", "ipo", "spin_hinge", "sft")
    looks = {shown(name): style.points(_colour(name), markersize=4.5) for name in names}
    style.legend(fig, looks, loc="outside upper center", ncol=6, fontsize=8, handletextpad=0.0)
    style.letters(axes)
    return fig


SAID = {"disjoint": "disjoint: log t", "partial": "some shared: 2 log t", "same": "all shared"}
MARKS = {"disjoint": "o", "partial": "^", "same": "s"}


def _colour(name: str) -> str:
    return style.PURPLE if name == "spin_hinge" else style.colour(name)


def _draw_range(ax: Axes, table: pd.DataFrame) -> None:
    def look(name: str, series: str) -> dict[str, Any]:
        overlap, part = series.split(", ")
        return style.points(_colour(name), MARKS[overlap], hollow=part == "flow", markersize=3.6)

    flow = table.series.str.endswith("flow")
    draw.lines(ax, table, "range")
    draw.points(ax, table[~flow], "range", look)
    draw.points(ax, table[flow & (table.x > 2e3)], "range", look, every=3)
    for overlap, x, y in (("partial", 3e4, 19.5), ("disjoint", 1.5e6, 8.0), ("same", 1.5e6, 3.9)):
        mark(ax, x, y, SAID[overlap], color=style.RED, ha="right")
    style.log(ax, "x")
    title = "Rewards over one round"
    style.label(ax, "gradient steps t in one round", "range of rewards [nats]", title)


def _draw_mass(ax: Axes, table: pd.DataFrame) -> None:
    shades = dict(
        zip((f"{t:.0e}" for t in SEEN_AT), (style.SKY, style.BLUE, "#000000"), strict=True)
    )
    crosses = table.series == "1/t"
    draw.lines(ax, table[~crosses], "mass", lambda *_: {"color": "k"})
    draw.points(ax, table, "mass", lambda _, s: style.points(shades[s], markersize=3.4))
    cross = style.points(style.ORANGE, "x", markersize=5, zorder=3)
    draw.points(ax, table[crosses], "mass", lambda *_: cross, kind=THEORY)
    ax.axvline(1.0, color=style.GREY, linewidth=0.8, linestyle="--")
    for i, colour in enumerate(shades.values()):
        mark(ax, 4.8, (0.33, 7e-3, 7e-5)[i], f"t = 10{'²⁴⁶'[i]}", color=colour)
    mark(ax, 0.36, 8e-3, "1 − Σ q e$^{±η}$")
    style.log(ax, x=[0.5, 1, 2, 5, 10])
    asked, title = (
        "mass that the targets ask for, Σ q e$^{±η}$",
        "Pointwise SPIF, unseen mass",
    )
    style.label(ax, asked, "unseen mass", title)


def _draw_few(ax: Axes, table: pd.DataFrame) -> None:
    _draw_text(ax, table, "10")


def _draw_more(ax: Axes, table: pd.DataFrame) -> None:
    _draw_text(ax, table, "100")


def _draw_text(ax: Axes, table: pd.DataFrame, n: str) -> None:
    part = table[table.series == f"n={n}"]
    draw.lines(ax, part, "text", lambda *_: {"color": "k"})
    sft = part.objective == "sft"
    circle = style.points("sft", markersize=3.6, zorder=1)
    draw.points(ax, part[sft], "text", lambda *_: circle, every=2)
    lined = {"linewidth": 1.0}
    draw.lines(ax, part[~sft], "text", lambda n, _: {"color": _colour(n)} | lined, MEASURED)
    style.log(ax)
    style.label(
        ax, "gradient steps over all rounds", "KL to the expert [nats]", f"Real text, n = {n}"
    )


def _draw_paired(ax: Axes, table: pd.DataFrame) -> None:
    names = list(table[table.panel == "paired"].objective.unique())

    def look(name: str, series: str) -> dict[str, Any]:
        return style.points(_colour(name), hollow=series == "late", markersize=3.6)

    def beside(name: str, series: str, x: Any) -> Any:
        return x * 1.13 ** (names.index(name) - len(names) / 2)

    ax.axhline(0.0, color="k", linewidth=0.9)
    few = table[table.x < 1e3]
    draw.points(ax, few, "paired", look, beside)
    style.log(ax, "x")
    style.label(ax, "expert samples n", "KL less SFT's [nats]", "Paired with SFT")


def _draw_n(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "n", lambda *_: {"color": "k"})
    names = list(table[table.panel == "n"].objective.unique())

    def look(name: str, series: str) -> dict[str, Any]:
        return style.points(_colour(name), hollow=series == "late", markersize=3.6)

    def beside(name: str, series: str, x: Any) -> Any:
        return x * 1.13 ** (names.index(name) - len(names) / 2)

    draw.points(ax, table, "n", look, beside)
    for y, text in ((0.94, "open: late mean"), (0.865, "filled: best step")):
        note(ax, 0.45, y, text)
    style.log(ax)
    title = "Tabular rounds"
    style.label(ax, "expert samples n", "KL to the expert [nats]", title)
