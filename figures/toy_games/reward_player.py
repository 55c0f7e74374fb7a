"""What a learned reward says of held-out responses: slope and correlation with the link (T18).

Numbers: toy_games/predictions/reward_player.py, logistic_player.py (SPIN) and power_spectrum.py on
games of eight features, of 150, of 380 and on a table, seeds below; results/llm_tiny.json;
out/reward_player.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import by_name, llm_tiny
from figures.sizes import sized
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from lab.stats import student
from theory import laws
from toy_games.dynamics import pair_classification
from toy_games.dynamics.pair_classification import margins
from toy_games.dynamics.pair_regression import Generalisation, Pairs, learned, pairs
from toy_games.predictions import logistic_player
from toy_games.predictions.power_spectrum import PowerSpectrum, Round, fitted
from toy_games.predictions.reward_player import after, many_features

RUNS = sized(100, 400)
FEW = 300
RIDGES = {"short": 0.02, "long": 4e-5}
CAPTION = (
    "Slope and correlation of a learned reward with the link, on held-out responses. (a, b) "
    "Gradient flow on n pairs, 18 responses, 8 features, against time: noise makes the "
    "correlation fall once the slope is there (lines: T18 b, c; points: means over "
    f"{RUNS} runs, 95 % intervals). (c) 150 features and a ridge of 0.05 (SPIN .0125, the same "
    "near the start), against n: slope (filled) and correlation (hollow) of T18 d, e (lines). "
    "(d-f) A tiny language model, one "
    "round at effective step 1 (means over 5 seeds, 95 % Student intervals), against prompts "
    "(steps in proportion, each seen twice) and, for 2,048 prompts, against the learning rate. "
    "Lines: three numbers of a power law fitted to IPO's four ringed points, (d) by T18 d; "
    "SPIF's, SPIN's and all other points are predicted. Dotted: the constants that those points "
    "have as their means. The learned model lies above the line in long rounds, and at large "
    "rates its slope falls where the line rises, which no model linear in its parameters does. "
    "(g, h) SPIN's loss on a table of 12 responses, n pairs, against time (lines: exact laws in "
    "g, T18 e in h; dotted: slope at the end, to first order in 1/n). (i) Slope against the "
    f"number of features, of 380, from {FEW} pairs, at a ridge of {RIDGES['short']} (hollow, "
    f"dashed) and {RIDGES['long']:g} (filled; SPIN's a quarter): means over 8 runs, lines as in c."
)
CLAIMS = ("S1", "T18")

COUNTS = (100.0, 400.0)
TIMES = np.geomspace(0.3, 300.0, 60)
MANY = (60, 100, 200, 400, 800, 1600)
RIDGE = 0.05
NAMES = ("ipo", "spif", "spin")
FITTED = (2048, 8192)
RATE = 3e-3
PANELS = ("slope", "correlation")
LONGER = np.geomspace(1.0, 2000.0, 9)
WIDTHS = (10, 30, 60, 100, 150, 250, 380)
NEAR = 0.25
"""SPIN's ridge over the squared loss's that is the same near the start (T18 e)."""


def small_game() -> Pairs:
    """Three prompts of six responses; 8 features, that hold .40 of the link's square."""
    return _game(np.random.default_rng(0), (3, 6), np.linspace(0.2, 1.5, 8), 1.0)[0]


def large_game() -> tuple[Pairs, np.ndarray]:
    """Twenty prompts of twenty responses; 150 features of falling size; the margins of u."""
    return _game(np.random.default_rng(5), (20, 20), np.arange(1, 151) ** -0.6, 1.5)


def wide_game(width: int) -> tuple[Pairs, np.ndarray]:
    """As the large one, nearer to the expert, with so many of 380 features, which hold all of u."""
    return _game(np.random.default_rng(5), (20, 20), np.arange(1, 381) ** -0.6, 1.0, width)


def table_game() -> tuple[Pairs, np.ndarray]:
    """Three prompts of four responses, a feature each."""
    rng = np.random.default_rng(3)
    p, q = (laws.random_law(rng, (3, 4)) for _ in range(2))
    return pairs(np.eye(12).reshape(3, 4, 12), p, q), margins(p, q)


def _game(
    rng: np.random.Generator,
    shape: tuple[int, int],
    sizes: np.ndarray,
    spread: float,
    width: int | None = None,
) -> tuple[Pairs, np.ndarray]:
    p, q = (laws.random_law(rng, shape, spread) for _ in range(2))
    features = rng.normal(size=(*shape, len(sizes))) * sizes
    return pairs(features[..., :width], p, q), margins(p, q)


def tiny_rounds() -> pd.DataFrame:
    """First rounds of IPO, SPIF and SPIN at effective step 1."""
    found = llm_tiny()
    kept = (found["round"] == 0) & found.study.isin(["link", "rate"]) & found.name.isin(NAMES)
    return by_name(found[kept], "prompts")


def means(runs: pd.DataFrame) -> pd.DataFrame:
    """A row an objective, number of prompts and rate: means over seeds."""
    kept = ["link_slope", "link_correlation", "delta", "steps"]
    return runs.groupby(["objective", "prompts", "lr"])[kept].mean().reset_index()


def made(row: Any) -> Round:
    """A recorded round as the theory takes it; a linear schedule halves the rates' sum."""
    return Round(row.prompts, row.steps * row.lr / 2.0, row.delta)


def spectrum(rows: pd.DataFrame) -> PowerSpectrum:
    """Fitted to IPO's two shorter rounds at the preset's rate, and to nothing else."""
    fit = rows[(rows.objective == "ipo") & (rows.lr == RATE) & rows.prompts.isin(FITTED)]
    measured = [Generalisation(r.link_slope, r.link_correlation) for r in fit.itertuples()]
    return fitted([made(r) for r in fit.itertuples()], measured)


def table() -> pd.DataFrame:
    """Simulations, and recorded rounds with their predictions."""
    rows = Rows()
    game, rng = small_game(), np.random.default_rng(1)
    for count in (*COUNTS, np.inf):
        series = "exact laws" if np.isinf(count) else f"n = {count:.0f}"
        for panel, y in zip(PANELS, after(game, TIMES, count), strict=True):
            rows.add(f"{panel}, time", "ipo", series, THEORY, TIMES, y)
    for count in COUNTS:
        for time in TIMES[5::9]:
            found = learned(game, rng, int(count), RUNS, float(time))
            for panel, y in zip(PANELS, found, strict=True):
                _mean(rows, f"{panel}, time", f"n = {count:.0f}", time, y)
    game, link = large_game()
    for count in MANY:
        _both(rows, "many features", game, link, count, RIDGE, 20)
    for width in WIDTHS:
        for series, ridge in RIDGES.items():
            game, link = wide_game(width)
            _both(rows, f"width, {series}", game, link, FEW, ridge, 8, width)
    _spin(rows)
    _recorded(rows)
    return rows.table()


def _both(
    rows: Rows,
    panel: str,
    game: Pairs,
    link: np.ndarray,
    count: int,
    ridge: float,
    runs: int,
    x: float | None = None,
) -> None:
    """IPO's and SPIN's slope and correlation by simulation and by T18 d, e; at x, or the count."""
    rng = np.random.default_rng(1)
    ipo = learned(game, rng, count, runs, ridge=ridge)
    spin = pair_classification.learned(game, link, rng, count, runs, ridge=NEAR * ridge)
    of_u = logistic_player.shares(game, link)
    lines = {
        "ipo": many_features(game.values, game.shares, game.signal, count, ridge),
        "spin": logistic_player.many_features(
            game.values, of_u, link, game.weight, count, NEAR * ridge
        ),
    }
    for name, found in {"ipo": ipo, "spin": spin}.items():
        for series, y, line in zip(PANELS, found, lines[name], strict=True):
            _mean(rows, panel, series, x or count, y, name)
            rows.add(panel, name, series, THEORY, x or count, line)


def _spin(rows: Rows) -> None:
    """SPIN's flow on a table."""
    game, link = table_game()
    times = np.geomspace(LONGER[0], LONGER[-1], 40)
    for count in (*COUNTS, np.inf):
        series = "exact laws" if np.isinf(count) else f"n = {count:.0f}"
        found = logistic_player.after(game, link, times, count)
        rows.add("correlation, SPIN", "spin", series, THEORY, times, found.correlation)
        if np.isinf(count):
            rows.add("slope, SPIN", "spin", series, THEORY, times, found.slope)
            continue
        end = logistic_player.with_ridge(game, link, 0.0, count).slope
        rows.add("slope, SPIN", "spin", series, THEORY, LONGER[[-3, -1]], end)
        rng = np.random.default_rng(1)
        drawn = pair_classification.learned(game, link, rng, int(count), RUNS, LONGER)
        for panel, values in zip(PANELS, drawn, strict=True):
            for time, y in zip(LONGER, values, strict=True):
                _mean(rows, f"{panel}, SPIN", series, time, y, "spin")


def _recorded(rows: Rows) -> None:
    runs = tiny_rounds()
    found = means(runs)
    law = spectrum(found)
    data, rates = runs[runs.lr == RATE], runs[runs.prompts == min(FITTED)]
    for panel in PANELS:
        rows.each(f"{panel}, prompts", data, "prompts", f"link_{panel}", "trained")
        rows.each(f"{panel}, rate", rates, "lr", f"link_{panel}", "trained")
        fit = found[(found.objective == "ipo") & (found.lr == RATE) & found.prompts.isin(FITTED)]
        constant = fit[f"link_{panel}"].mean()
        rows.add(f"{panel}, prompts", "ipo", "constant", THEORY, (2048, 32768), constant)
    delta = found.delta.mean()
    for name in NAMES:
        grid = np.geomspace(2048, 32768, 25)
        lines = [getattr(law, name)(Round(n, n / 32 * RATE / 2.0, delta)) for n in grid]
        for panel, y in zip(PANELS, np.transpose(lines), strict=True):
            rows.add(f"{panel}, prompts", name, "predicted", THEORY, grid, y)
        grid = np.geomspace(1e-3, 3e-2, 25)
        lines = [getattr(law, name)(Round(2048, 32 * rate, delta)) for rate in grid]
        for panel, y in zip(PANELS, np.transpose(lines), strict=True):
            rows.add(f"{panel}, rate", name, "predicted", THEORY, grid, y)


def _mean(
    rows: Rows, panel: str, series: str, x: float, values: np.ndarray, name: str = "ipo"
) -> None:
    mean, half = values.mean(), student(len(values)) * values.std(ddof=1) / np.sqrt(len(values))
    rows.add(panel, name, series, MEASURED, x, mean, mean - half, mean + half)


def plot(table: pd.DataFrame) -> Figure:
    """Simulations above, the tiny model in the middle, SPIN below."""
    fig, axes = style.panel(3, 3, aspect=0.95)
    for ax, panel in zip(axes[0], PANELS, strict=False):
        _time(ax, table, panel)
    _many(axes[0, 2], table)
    for ax, panel in zip(axes[1], PANELS, strict=False):
        _prompts(ax, table, panel)
    _rates(axes[1, 2], table)
    for ax, panel in zip(axes[2], PANELS, strict=False):
        _longer(ax, table, panel)
    _widths(axes[2, 2], table)
    style.letters(axes)
    return fig


SHADES = {"n = 100": "#C25B14", "n = 400": "#2B6CA3", "exact laws": "#222222"}


def _time(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    draw.lines(ax, table, f"{panel}, time", lambda _, s: {"color": SHADES[s]})
    draw.points(ax, table, f"{panel}, time", lambda _, s: style.points(SHADES[s]))
    style.log(ax, "x")
    ax.set_ylim(bottom=0.1 if panel == "slope" else 0.25)
    style.legend(ax, {k: {"color": v} for k, v in SHADES.items()}, fontsize=6.5, loc="lower right")
    style.label(ax, "time", panel, f"{panel.capitalize()}, 8 features")


def _many(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "many features")
    draw.points(ax, table, "many features", lambda n, s: style.shaped(n, hollow=s == "correlation"))
    style.log(ax, "x")
    note(ax, 0.04, 0.93, "hollow: correlation", fontsize=7)
    style.legend(ax, {shown(n): style.shaped(n) for n in ("ipo", "spin")}, fontsize=7)
    style.label(ax, "pairs n", "slope, correlation", "150 features, a ridge")


def _longer(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    end = {"linestyle": ":"} if panel == "slope" else {}
    name = f"{panel}, SPIN"
    draw.lines(
        ax, table, name, lambda _, s: {"color": SHADES[s]} | (end if s != "exact laws" else {})
    )
    draw.points(ax, table, name, lambda _, s: style.points(SHADES[s]))
    style.log(ax, "x")
    style.legend(ax, {k: {"color": v} for k, v in SHADES.items()}, fontsize=6.5, loc="best")
    style.label(ax, "time", panel, f"SPIN, a table: {panel}")


def _widths(ax: Axes, table: pd.DataFrame) -> None:
    slopes = table[table.series == "slope"]
    for series, dash, hollow in (("short", "--", True), ("long", "-", False)):
        _width(ax, slopes, f"width, {series}", dash, hollow)
    style.log(ax, "x")
    style.legend(ax, {shown(n): style.shaped(n) for n in ("ipo", "spin")}, fontsize=7)
    style.label(ax, "features", "slope", f"Width, {FEW} pairs")


def _width(ax: Axes, table: pd.DataFrame, panel: str, dash: str, hollow: bool) -> None:
    draw.lines(ax, table, panel, lambda n, _: draw.colours(n) | {"linestyle": dash})
    draw.points(ax, table, panel, lambda n, _: style.shaped(n, hollow=hollow))


def _prompts(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    dotted = {"color": style.GREY, "linestyle": ":"}
    draw.lines(
        ax,
        table,
        f"{panel}, prompts",
        lambda n, s: dotted if s == "constant" else draw.colours(n),
    )
    draw.points(ax, table, f"{panel}, prompts", lambda n, _: style.shaped(n))
    fit = table[(table.panel == f"{panel}, prompts") & (table.kind == MEASURED)]
    fit = fit[(fit.objective == "ipo") & fit.x.isin(FITTED)]
    ax.plot(fit.x, fit.y, "o", markersize=10, markerfacecolor="none", color=style.GREY)
    style.log(ax, "x", x=[2048, 8192, 32768], base=2)
    ax.set_ylim(0.4, 1.0)
    style.legend(ax, {shown(n): style.shaped(n) for n in NAMES}, fontsize=7, loc="lower right")
    style.label(ax, "prompts, each seen twice", panel, f"Tiny model: {panel}")


def _rates(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "slope, rate")
    draw.lines(ax, table, "correlation, rate", lambda n, _: draw.colours(n) | {"linestyle": "--"})
    draw.points(ax, table, "slope, rate", lambda n, _: style.shaped(n))
    draw.points(ax, table, "correlation, rate", lambda n, _: style.shaped(n, hollow=True))
    style.log(ax, "x")
    note(ax, 0.04, 0.05, "hollow, dashed: correlation", fontsize=7)
    style.label(ax, "learning rate", "slope, correlation", "Tiny, 2,048 prompts")
