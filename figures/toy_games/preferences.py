"""Preference games from samples: cycles, averages, anchors, the plug-in estimate, unification."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.sizes import sized
from figures.tidy import MEASURED, THEORY, Rows, bars, curves, mark, note
from lab import stats
from theory import laws, objectives, preferences
from theory.result import FloatArray
from toy_games import launch
from toy_games.dynamics.preference_rounds import algorithm_of
from toy_games.experiments import preferences as played
from toy_games.predictions import preference_rounds as preference_predictions

NAME = "preferences"
CAPTION = (
    "Preference self-play from sampled comparisons; points: means over {seeds} seeds (each with "
    "its own game, start or anchor) with 95 % intervals, lines: theory. Top left: duality gap "
    "after T rounds at the step tuned for T, 16 comparisons a response: the average policy's gap "
    "falls as 1/sqrt(T), under the bound; the last policy's does not where preferences cycle and "
    "vanishes where there is a top response (Bradley-Terry). Top right: growth of the distance to "
    "the equilibrium a round when INPO's pair loss is trained by gradient descent: the anchor's "
    "sharp threshold from both sides, its linear rate; without the anchor no step is stable. "
    "Bottom left: the estimate of P(y > pi) from K own responses is biased by 1/K of its way to "
    "1/2 if each response is compared with itself, and anchored rounds then end at another "
    "equilibrium. Bottom right: one round of each algorithm at equal effective step. On one loss "
    "only IPO goes to SPPO's exact round: T11's unification FAILS there for SPPO and SPIF "
    "(pointwise: the partition gap of T4), for DPO (logistic) and for SFT on winners; none of "
    "this shrinks with K."
)
CLAIMS = ("C2", "C3", "T4", "T11", "T12")

SIZES = {"seeds": (8, 32)}
SETTINGS = played.Settings(
    unanchored=("sppo",), games=("rps", "bradley_terry", "low_rank"), **sized(SIZES)
)
LAST, AVERAGE, EXACT = "last", "average", "exact, "


def table() -> pd.DataFrame:
    """All measured points with intervals, and the lines that theory draws through them."""
    rows = Rows()
    found = launch.run("preferences", SETTINGS, progress=False)
    _gaps(rows, found[found.part == "gap"])
    _rates(rows, found[found.part == "rate"])
    _biases(rows, found[found.part == "bias"], found[found.part == "floor"])
    _rounds(rows, found[found.part.isin(["round", "loss"])])
    return rows.table()


def _seeds() -> list[int]:
    return list(range(SETTINGS.first_seed, SETTINGS.first_seed + SETTINGS.seeds))


def _points(
    rows: Rows, panel: str, name: str, series: str, part: pd.DataFrame, x: str, y: str
) -> None:
    mean = stats.intervals(part, [x], y)
    rows.add(panel, name, series, MEASURED, mean[x], mean["mean"], mean.low, mean.high)


def _gaps(rows: Rows, part: pd.DataFrame) -> None:
    sampled = part[part.samples > 0]
    for game, own in sampled.groupby("game", sort=False):
        preference, start = _instances(str(game))
        for series, column in ((LAST, "gap"), (AVERAGE, "average_gap")):
            _points(rows, "gap", "sppo", f"{game}, {series}", own, "horizon", column)
        if game == "rps":
            scale = algorithm_of("sppo").scale
            beta = own.groupby("horizon").beta.first()
            bound = [
                preferences.average_gap_bound(preference, start, b, int(t), scale).mean()
                for t, b in beta.items()
            ]
            rows.add("gap", "sppo", "bound", THEORY, beta.index, bound)
            exact = part[(part.samples == 0) & (part.game == game)].groupby("horizon").gap.mean()
            rows.add("gap", "sppo", f"{game}, {LAST}", THEORY, exact.index, exact)


def _instances(game: str) -> tuple[FloatArray, FloatArray]:
    return played.instances(game, SETTINGS.responses, SETTINGS.strength, _seeds())


def _rates(rows: Rows, part: pd.DataFrame) -> None:
    scale, tau = algorithm_of("inpo").scale, SETTINGS.tau
    game, anchors = played.anchored_instances(_seeds())
    for anchored, own in part.groupby("tau", sort=False):
        series = "anchored" if anchored > 0 else "no anchor"
        _points(rows, "rate", "inpo", series, own, "ratio", "growth")
    stars = [preferences.regularised_nash(game, a, tau, scale).policy for a in anchors]
    borders = [float(preferences.local_threshold(game, z, tau, scale)) for z in stars]
    ratio = np.geomspace(min(SETTINGS.ratios) / 1.1, 1.1 * max(SETTINGS.ratios), 60)
    pairs = list(zip(stars, borders, strict=True))
    grows = [
        [preferences.local_growth(game, z, r * b, tau, scale) for z, b in pairs] for r in ratio
    ]
    rows.add("rate", "inpo", "anchored", THEORY, ratio, np.mean(grows, -1))
    centre = np.full(3, 1.0 / 3.0)
    free = [
        [preferences.local_growth(game, centre, r * b, 0.0, scale) for b in borders] for r in ratio
    ]
    rows.add("rate", "inpo", "no anchor", THEORY, ratio, np.mean(free, -1))
    least = float(preferences.anchored_beta(game, tau, scale)) / np.mean(borders)
    inside = np.append(least, ratio[ratio > least])
    rate = [np.sqrt(preferences.anchored_rate(r * np.mean(borders), tau)) for r in inside]
    rows.add("rate", "inpo", "theorem", THEORY, inside, rate)


def _biases(rows: Rows, bias: pd.DataFrame, floor: pd.DataFrame) -> None:
    scale, tau, beta = algorithm_of("inpo").scale, SETTINGS.floor_tau, SETTINGS.floor_beta
    game, anchors = played.anchored_instances(_seeds())
    stars = [preferences.regularised_nash(game, a, tau, scale).policy for a in anchors]
    for own, series in ((1, "with itself"), (0, "without")):
        _points(
            rows, "bias", "plug-in", series, bias[bias.self_comparison == own], "samples", "bias"
        )
        part = floor[(floor.self_comparison == own) & (floor.algorithm == "inpo")]
        _points(rows, "floor", "inpo", series, part[part.samples > 0], "samples", "kl")
        line = np.geomspace(min(SETTINGS.samples), max(SETTINGS.samples), 25)
        predicted = [preference_predictions.plug_in_bias(k, bool(own)) for k in line]
        rows.add("bias", "plug-in", series, THEORY, line, predicted)
        level = []
        for k in line:
            g = preference_predictions.effective_scale(scale, k, bool(own))
            ends = [preferences.regularised_nash(game, a, tau, g).policy for a in anchors]
            noise = [
                preference_predictions.noise_floor(game, z, beta, tau, g, _compared(k, own))
                for z in ends
            ]
            apart = [float(laws.kl(z, end)) for z, end in zip(stars, ends, strict=True)]
            level.append(np.mean(noise) + np.mean(apart))
        rows.add("floor", "inpo", series, THEORY, line, level)


def _compared(k: float, own: int) -> float:
    """Comparisons whose mean, times the effective scale, has the estimate's variance."""
    return k - 1 if own else k


def _rounds(rows: Rows, part: pd.DataFrame) -> None:
    preference, start = _instances("bradley_terry")
    goal = played.exact_round(preference, start, SETTINGS.step)

    def apart(policy: FloatArray) -> float:
        return float(laws.total_variation(policy, goal).mean())

    two = part[part.part == "round"]
    _points(rows, "round", "two steps", "two steps", two, "samples", "tv")
    scale = algorithm_of("sppo").scale
    beta = scale / SETTINGS.step
    ends = np.array([min(SETTINGS.pair_samples), max(SETTINGS.pair_samples)], dtype=float)
    noise = [
        preference_predictions.round_noise(preference, start, beta, scale, k).mean() for k in ends
    ]
    rows.add("round", "two steps", "two steps", THEORY, ends, noise)
    loss = part[part.part == "loss"]
    for spec, own in loss.groupby("algorithm", sort=False):
        name = str(spec).partition("(")[0]
        _points(rows, "round", name, "one loss", own[own.samples > 0], "samples", "tv")
    levels = {
        "sppo": preference_predictions.one_loss_round(
            preference, start, objectives.get("sppo"), beta
        ),
        "dpo": played.exact_round(preference, start, SETTINGS.step, "dpo"),
        "sft": preferences.winner_loser(preference, start)[0],
    }
    for name, policy in levels.items():
        rows.add("round", name, "one loss", THEORY, ends, apart(policy))


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Gaps and rates above, the estimate and the rounds below."""
    fig = style.plt.figure(figsize=(style.WIDTHS[2], 5.6))
    top, bottom = fig.subfigures(2, 1, height_ratios=(1.0, 1.08))
    left, right = top.subplots(1, 2)
    _draw_gaps(left, table)
    _draw_rates(right, table)
    pair, last = bottom.subfigures(1, 2)
    above, below = pair.subplots(2, 1, sharex=True)
    _draw_bias(above, below, table)
    _draw_rounds(last.subplots(), table)
    return fig


GAPS = {
    "rps, last": (style.BLUE, "o", "white"),
    "rps, average": (style.BLUE, "o", style.BLUE),
    "low_rank, average": (style.GREEN, "s", style.GREEN),
    "bradley_terry, last": (style.RED, "^", "white"),
}


def _draw_gaps(ax: Axes, table: pd.DataFrame) -> None:
    for _, series, rows in curves(table, "gap", MEASURED):
        if series in GAPS:
            colour, marker, fill = GAPS[series]
            look = {"color": colour, "marker": marker, "mfc": fill, "linestyle": "none"}
            bars(ax, rows, **look, markersize=4.0)
    for _, series, rows in curves(table, "gap", THEORY):
        ax.plot(rows.x, rows.y, color="k" if series == "bound" else style.BLUE, linewidth=1.1)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(6e-4, 2.5)
    note(ax, 0.98, 0.82, "rock-paper-scissors, last", color=style.BLUE, ha="right")
    note(ax, 0.93, 0.645, "bound of the average", ha="right", fontsize=7)
    note(ax, 0.37, 0.22, "averages: ● rock-paper-scissors\n■ rank-deficient", fontsize=7)
    note(ax, 0.385, 0.06, "Bradley–Terry, last", color=style.RED, fontsize=7)
    style.label(
        ax, "rounds T", "duality gap [win prob.]", "No anchor: averages settle, cycles do not"
    )


def _draw_rates(ax: Axes, table: pd.DataFrame) -> None:
    looks = {"anchored": (style.BLUE, style.BLUE, "-"), "no anchor": (style.RED, "white", "-")}
    for _, series, rows in curves(table, "rate", THEORY):
        if series == "theorem":
            ax.plot(rows.x, rows.y, "k--", linewidth=1.2)
        else:
            ax.plot(rows.x, rows.y, color=looks[series][0], linewidth=1.1)
    for _, series, rows in curves(table, "rate", MEASURED):
        colour, fill, _ = looks[series]
        bars(ax, rows, color=colour, mfc=fill, marker="o", linestyle="none", markersize=4.0)
    ax.axhline(1.0, color="k", linewidth=0.8)
    ax.axvline(1.0, color=style.GREY, linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_ylim(0.88, 1.65)
    style.label(
        ax,
        "β over its threshold (σ² − τ²)/2τ",
        "growth of ‖π/z − 1‖ a round",
        "The anchor's threshold is sharp",
    )
    mark(ax, 1.15, 1.32, "no anchor (τ = 0)", color=style.RED)
    mark(ax, 0.23, 0.95, "anchored", color=style.BLUE)
    mark(ax, 15.5, 1.06, "dashed: theorem's\n(1 + τ/β)^−½", ha="right", fontsize=7)


def _draw_bias(above: Axes, below: Axes, table: pd.DataFrame) -> None:
    looks = {"with itself": (style.RED, "white"), "without": (style.BLUE, style.BLUE)}
    for ax, panel in ((above, "bias"), (below, "floor")):
        for _, series, rows in curves(table, panel, THEORY):
            ax.plot(rows.x, rows.y, color=looks[series][0], linewidth=1.1)
        for _, series, rows in curves(table, panel, MEASURED):
            colour, fill = looks[series]
            bars(ax, rows, color=colour, mfc=fill, marker="o", linestyle="none", markersize=4.0)
    above.set_xscale("log", base=2)
    below.set_yscale("log")
    above.set_ylim(-0.08, 0.6)
    note(above, 0.22, 0.82, "compared with itself too: 1/K", color=style.RED)
    note(above, 0.22, 0.32, "without: 0", color=style.BLUE)
    style.label(above, "", "bias of P̂,\nshare of ½ − P", "Self-comparison biases the estimate …")
    below.set_title("… and moves the anchored equilibrium")
    style.label(below, "own responses K", "KL(z‖π) late\n[nats]")


ROUNDS = {
    "two steps": ("k", "D", "white"),
    "sft": (style.GREY, "s", style.GREY),
    "dpo": (style.RED, "o", "white"),
    "sppo": (style.BLUE, "^", style.BLUE),
    "spif": (style.SKY, "o", "white"),
    "ipo": (style.GREEN, "o", style.GREEN),
}


def _draw_rounds(ax: Axes, table: pd.DataFrame) -> None:
    for name, _, rows in curves(table, "round", THEORY):
        ax.plot(rows.x, rows.y, color=ROUNDS[name][0], linewidth=1.1)
    for name, _, rows in curves(table, "round", MEASURED):
        colour, marker, fill = ROUNDS[name]
        look = {"color": colour, "marker": marker, "mfc": fill, "linestyle": "none"}
        bars(ax, rows, **look, markersize=4.2)
    ax.set_xscale("log", base=4)
    ax.set_yscale("log")
    ax.set_ylim(4e-3, 0.7)
    texts = [
        ("SPPO = SPIF = IPO, two steps", 6, 0.42, "two steps"),
        ("SFT on winners", 90, 0.19, "sft"),
        ("DPO", 110, 0.104, "dpo"),
        ("SPPO = SPIF, one loss", 19.5, 0.0335, "sppo"),
        ("IPO, one loss", 12, 0.0125, "ipo"),
    ]
    for text, x, y, name in texts:
        mark(ax, x, y, text, color=ROUNDS[name][0], fontsize=7)
    title = "One loss: only IPO is SPPO's round"
    style.label(ax, "responses or comparisons K a step", "TV to SPPO's exact round", title)
