"""Preference games from samples: cycles, averages, anchors, the plug-in estimate, unification.

Numbers: toy_games/experiments/preferences.py (`python -m toy_games run preferences`);
out/preferences.csv.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note
from figures.tidy import THEORY, Rows
from theory import laws, objectives, preferences
from theory.result import FloatArray
from toy_games import launch
from toy_games.dynamics.preference_rounds import algorithm_of
from toy_games.experiments import preferences as played
from toy_games.predictions import preference_rounds as predictions

SETTINGS = played.Settings(
    unanchored=("sppo",), games=("rps", "bradley_terry", "low_rank"), seeds=sized(8, 32)
)
CAPTION = (
    f"Preference self-play from sampled comparisons; points: means over {SETTINGS.seeds} seeds "
    "(each with its own game, start or anchor) with 95 % intervals, lines: theory. Top left: "
    "duality gap of the average and of the last policy after T rounds at the step tuned for "
    "T, 16 comparisons a response, on games with a cycle and with a top response "
    "(Bradley-Terry). Top right: growth of the distance to the equilibrium a round when "
    "INPO's pair loss is trained by gradient descent, on both sides of the anchor's "
    "threshold, and without an anchor. Bottom left: bias of the estimate of P(y > pi) from K "
    "own responses with and without comparing each response with itself, and of the "
    "equilibrium that anchored rounds then reach. Bottom right: distance of one round of each "
    "algorithm to SPPO's exact round, at equal effective step: as two steps, and as one loss "
    "on one model."
)
CLAIMS = ("C2", "C3", "T4", "T11", "T12")

LAST, AVERAGE = "last", "average"


def table(settings: played.Settings = SETTINGS) -> pd.DataFrame:
    """All measured points with intervals, and the lines that theory draws through them."""
    rows = Rows()
    found = launch.run("preferences", settings, progress=False)
    _gaps(rows, found[found.part == "gap"], settings)
    _rates(rows, found[found.part == "rate"], settings)
    for own, series in ((1, "with itself"), (0, "without")):
        _estimate(rows, found[found.self_comparison == own], settings, own, series)
    _rounds(rows, found[found.part.isin(["round", "loss"])], settings)
    return rows.table()


def _gaps(rows: Rows, part: pd.DataFrame, settings: played.Settings) -> None:
    sampled = part[part.samples > 0]
    for game, own in sampled.groupby("game", sort=False):
        for series, column in ((LAST, "gap"), (AVERAGE, "average_gap")):
            rows.means("gap", "sppo", f"{game}, {series}", own, "horizon", column)
        if game == "rps":
            instances, scale = played.instances(settings, "rps"), algorithm_of("sppo").scale
            beta = own.groupby("horizon").beta.first()
            bound = [
                preferences.average_gap_bound(*instances, b, int(t), scale).mean()
                for t, b in beta.items()
            ]
            rows.add("gap", "sppo", "bound", THEORY, beta.index, bound)
            exact = part[(part.samples == 0) & (part.game == game)].groupby("horizon").gap.mean()
            rows.add("gap", "sppo", f"{game}, {LAST}", THEORY, exact.index, exact)


def _equilibria(
    settings: played.Settings, tau: float, scale: float
) -> tuple[FloatArray, list[FloatArray]]:
    """The anchored game, and its equilibrium for each seed's anchor."""
    game, anchors = played.anchored_instances(settings)
    return game, [preferences.regularised_nash(game, a, tau, scale).policy for a in anchors]


def _rates(rows: Rows, part: pd.DataFrame, settings: played.Settings) -> None:
    scale, tau = algorithm_of("inpo").scale, settings.tau
    for anchored, own in part.groupby("tau", sort=False):
        series = "anchored" if anchored > 0 else "no anchor"
        rows.means("rate", "inpo", series, own, "ratio", "growth")
    game, stars = _equilibria(settings, tau, scale)
    borders = [float(preferences.local_threshold(game, z, tau, scale)) for z in stars]
    ratio = np.geomspace(min(settings.ratios) / 1.1, 1.1 * max(settings.ratios), 60)
    centre = np.full(3, 1.0 / 3.0)
    for series, at, anchor in (
        ("anchored", stars, tau),
        ("no anchor", [centre] * len(stars), 0.0),
    ):
        pairs = list(zip(at, borders, strict=True))
        grows = [
            [preferences.local_growth(game, z, r * b, anchor, scale) for z, b in pairs]
            for r in ratio
        ]
        rows.add("rate", "inpo", series, THEORY, ratio, np.mean(grows, -1))
    least = float(preferences.anchored_beta(game, tau, scale)) / np.mean(borders)
    inside = np.append(least, ratio[ratio > least])
    rate = [np.sqrt(preferences.anchored_rate(r * np.mean(borders), tau)) for r in inside]
    rows.add("rate", "inpo", "theorem", THEORY, inside, rate)


def _estimate(
    rows: Rows, part: pd.DataFrame, settings: played.Settings, own: int, series: str
) -> None:
    """Bias of the estimate from K own responses, and the late distance to the equilibrium."""
    rows.means("bias", "plug-in", series, part[part.part == "bias"], "samples", "bias")
    floor = part[(part.part == "floor") & (part.algorithm == "inpo") & (part.samples > 0)]
    rows.means("floor", "inpo", series, floor, "samples", "kl")
    line = np.geomspace(min(settings.samples), max(settings.samples), 25)
    predicted = [predictions.plug_in_bias(k, bool(own)) for k in line]
    rows.add("bias", "plug-in", series, THEORY, line, predicted)
    scale, tau, beta = algorithm_of("inpo").scale, settings.floor_tau, settings.floor_beta
    _, stars = _equilibria(settings, tau, scale)
    level = []
    for k in line:
        g = predictions.effective_scale(scale, k, bool(own))
        game, ends = _equilibria(settings, tau, g)
        # comparisons whose mean, times the effective scale, has the estimate's variance
        compared = k - 1 if own else k
        noise = [predictions.noise_floor(game, z, beta, tau, g, compared) for z in ends]
        apart = [float(laws.kl(z, end)) for z, end in zip(stars, ends, strict=True)]
        level.append(np.mean(noise) + np.mean(apart))
    rows.add("floor", "inpo", series, THEORY, line, level)


def _rounds(rows: Rows, part: pd.DataFrame, settings: played.Settings) -> None:
    instances = played.instances(settings)
    goal = played.exact_round(*instances, settings.step)
    two = part[part.part == "round"]
    rows.means("round", "two steps", "two steps", two, "samples", "tv")
    scale = algorithm_of("sppo").scale
    beta = scale / settings.step
    ends = np.array([min(settings.pair_samples), max(settings.pair_samples)], dtype=float)
    noise = [predictions.round_noise(*instances, beta, scale, k).mean() for k in ends]
    rows.add("round", "two steps", "two steps", THEORY, ends, noise)
    loss = part[(part.part == "loss") & (part.samples > 0)]
    loss = loss.assign(objective=loss.algorithm.str.partition("(")[0])
    rows.each("round", loss, "samples", "tv", "one loss")
    preference, start = instances
    levels = {
        "sppo": predictions.one_loss_round(preference, start, objectives.get("sppo"), beta),
        "dpo": played.exact_round(preference, start, settings.step, "dpo"),
        "sft": preferences.winner_loser(preference, start)[0],
    }
    for name, policy in levels.items():
        apart = float(laws.total_variation(policy, goal).mean())
        rows.add("round", name, "one loss", THEORY, ends, apart)


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Gaps and rates above, the estimate and the rounds below."""
    fig, (top, bottom) = style.stacked(5.6, 1.0, 1.08)
    draw.fill(top.subplots(1, 2), table, _draw_gaps, _draw_rates)
    pair, last = bottom.subfigures(1, 2)
    _draw_bias(pair, table)
    _draw_rounds(last.subplots(), table)
    return fig


GAPS = {
    "rps, last": style.points(style.BLUE, hollow=True),
    "rps, average": style.points(style.BLUE),
    "low_rank, average": style.points(style.GREEN, "s"),
    "bradley_terry, last": style.points(style.RED, "^", hollow=True),
}


def _draw_gaps(ax: Axes, table: pd.DataFrame) -> None:
    draw.points(ax, table, "gap", lambda _, s: GAPS.get(s))
    shades = {"bound": style.BLACK}
    draw.lines(ax, table, "gap", lambda _, s: {"color": shades.get(s, style.BLUE)})
    style.log(ax)
    ax.set_ylim(6e-4, 2.5)
    note(ax, 0.98, 0.82, "rock-paper-scissors, last", color=style.BLUE, ha="right")
    note(ax, 0.93, 0.645, "bound of the average", ha="right", fontsize=7)
    note(ax, 0.37, 0.22, "averages: ● rock-paper-scissors\n■ rank-deficient", fontsize=7)
    note(ax, 0.385, 0.06, "Bradley–Terry, last", color=style.RED, fontsize=7)
    title = "No anchor: averages settle, cycles do not"
    style.label(ax, "rounds T", "duality gap [win prob.]", title)


def _draw_rates(ax: Axes, table: pd.DataFrame) -> None:
    lines = {
        "theorem": {"color": "k", "linestyle": "--"},
        "anchored": {"color": style.BLUE},
        "no anchor": {"color": style.RED},
    }
    shades = {"anchored": style.BLUE, "no anchor": style.RED}
    draw.lines(ax, table, "rate", lambda _, s: lines[s])
    draw.points(ax, table, "rate", lambda _, s: style.points(shades[s], hollow=s == "no anchor"))
    ax.axhline(1.0, color="k", linewidth=0.8)
    ax.axvline(1.0, color=style.GREY, linewidth=0.8)
    style.log(ax, "x", base=2)
    ax.set_ylim(0.88, 1.65)
    mark(ax, 1.15, 1.32, "no anchor (τ = 0)", color=style.RED)
    mark(ax, 0.23, 0.95, "anchored", color=style.BLUE)
    mark(ax, 15.5, 1.06, "dashed: theorem's\n(1 + τ/β)^−½", ha="right", fontsize=7)
    x, title = "β over its threshold (σ² − τ²)/2τ", "The anchor's threshold is sharp"
    style.label(ax, x, "growth of ‖π/z − 1‖ a round", title)


def _draw_bias(pair: SubFigure, table: pd.DataFrame) -> None:
    above, below = pair.subplots(2, 1, sharex=True)
    shades = {"with itself": style.RED, "without": style.BLUE}
    for ax, panel in ((above, "bias"), (below, "floor")):
        draw.lines(ax, table, panel, lambda _, s: {"color": shades[s]})
        draw.points(
            ax, table, panel, lambda _, s: style.points(shades[s], hollow=s == "with itself")
        )
    style.log(above, "x", base=2)
    style.log(below, "y")
    above.set_ylim(-0.08, 0.6)
    note(above, 0.22, 0.82, "compared with itself too: 1/K", color=style.RED)
    note(above, 0.22, 0.32, "without: 0", color=style.BLUE)
    title = "Self-comparison biases the estimate …"
    style.label(above, "", "bias of P̂,\nshare of ½ − P", title)
    title = "… and moves the anchored equilibrium"
    style.label(below, "own responses K", "KL(z‖π) late\n[nats]", title)


ROUNDS = {
    "two steps": style.points("expert", "D", hollow=True),
    "sft": style.points(style.GREY, "s"),
    "dpo": style.points(style.RED, hollow=True),
    "sppo": style.points(style.BLUE, "^"),
    "spif": style.points(style.SKY, hollow=True),
    "ipo": style.points(style.GREEN),
}


def _draw_rounds(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "round", lambda n, _: {"color": ROUNDS[n]["color"]})
    draw.points(ax, table, "round", lambda n, _: ROUNDS[n])
    style.log(ax, base=4)
    ax.set_ylim(4e-3, 0.7)
    for text, x, y, name in (
        ("SPPO = SPIF = IPO, two steps", 6, 0.42, "two steps"),
        ("SFT on winners", 90, 0.19, "sft"),
        ("DPO", 110, 0.104, "dpo"),
        ("SPPO = SPIF, one loss", 19.5, 0.0335, "sppo"),
        ("IPO, one loss", 12, 0.0125, "ipo"),
    ):
        mark(ax, x, y, text, color=ROUNDS[name]["color"], fontsize=7)
    title = "One loss: only IPO is SPPO's round"
    style.label(ax, "responses or comparisons K a step", "TV to SPPO's exact round", title)
