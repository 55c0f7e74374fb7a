"""Small classes on real text and random experts: where training ends and which measure likes it.

Numbers: toy_games/experiments/misspecification.py (`python -m toy_games run misspecification`);
out/misspecification.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows, curves
from lab.stats import intervals
from theory import laws
from theory.result import FloatArray
from toy_games import launch
from toy_games.experiments.misspecification import ROUNDS, Settings, read_once
from toy_games.games.contenders import Method, predicted
from toy_games.games.ladder import Ladder
from toy_games.predictions.misspecification import finite_class_bound, spin_round, spin_threshold

SETTINGS = Settings(
    parts=("text", "ladder", "destination", "finite", "stability"),
    objectives=sized(("spin", "spif", "centred_spif"), ("spin", "spif", "centred_spif", "ipo")),
    seeds=sized(5, 10),
    steps=1000,
    text_steps=sized(250, 1000),
    orders=sized((0, 1, 3), (0, 1, 2, 3)),
    widths=sized((1, 2, 8), (1, 2, 4, 8)),
    trials=sized(100, 400),
)
CAPTION = (
    f"Means over {SETTINGS.seeds} seeds with 95 % Student intervals (finite classes: "
    f"{SETTINGS.trials} data sets); lines: theory. Top: order-k and neural classes, "
    f"{SETTINGS.text_steps} steps (w = 1: of half the rate) on 200 phrases of real text, measured "
    "on the law of the whole text (grey: maximum of likelihood in the class on that law; left: "
    "geometric means). All read equally many responses a step (SFT: expert ones only); two-step "
    "rounds have tabular rewards and a policy gradient (REINFORCE). Middle left: random experts, "
    "exact laws: two-step SPIN less SFT, paired, in classes that do and do not hold the "
    "expert (intervals over experts). Middle right: minibatches, rate falling. Bottom left: "
    "error of the law that each method picks from a finite class on the same samples, against "
    "the bound of maximum likelihood, with the expert in the class and outside of it. Bottom "
    "right: distance to the maximum of likelihood after 12 rounds against T15's threshold, "
    "for solved rounds and for rounds of 10 gradient steps (dashed: the linear theory of such "
    "rounds)."
)
CLAIMS = ("T15", "T16")

LOOKS: dict[str, tuple[str, str, str]] = {  # colour, marker, name
    "sft": (style.BLACK, "o", "SFT"),
    "spin": (style.RED, "o", "SPIN"),
    "spif": (style.BLUE, "o", "SPIF"),
    "centred_spif": (style.SKY, "o", "centred SPIF"),
    "ipo": (style.GREEN, "o", "IPO"),
    "spin, two steps": (style.RED, "s", "SPIN, two steps"),
    "spif, two steps": (style.BLUE, "s", "SPIF, two steps"),
    "moment matching": (style.PURPLE, "^", "linear rewards"),
    "mle": (style.BLACK, "o", "maximum likelihood"),
    "spin, temperature 0.7": (style.ORANGE, "<", "SPIN, temperature 0.7"),
    "spin, temperature 1.3": (style.GREEN, ">", "SPIN, temperature 1.3"),
    "spin, anchor 0.3": (style.PURPLE, "D", "SPIN, anchor 0.3"),
}
MEASURES = {"forward_kl": 1.0, "reverse_kl": 1.0, "judge": -1.0, "tv": 1.0}  # 1: less is better
DESTINATIONS = ("sft", "spin", "spif", "spin, two steps", *list(LOOKS)[-3:])
FINE = np.geomspace(0.65, 1.5, 25)


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Means with intervals of every panel, and the predictions beside them."""
    found = launch.run("misspecification", settings, progress=False)
    rows = Rows()
    _text_rows(rows, found[found.part == "text"], settings)
    _ladder_rows(rows, found[found.part == "ladder"], settings)
    _destination_rows(rows, found[found.part == "destination"])
    _finite_rows(rows, found[found.part == "finite"], settings)
    _stability_rows(rows, found[found.part == "stability"], settings)
    return rows.table()


def _text_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    classes = [f"k={k}" for k in settings.orders] + [f"w={w}" for w in settings.widths]
    kinds = found["class"].map({"order": "k=", "neural": "w="}) + found.capacity.astype(int).astype(
        str
    )
    found = found.assign(at=kinds.map(classes.index))
    for panel in ("forward_kl", "judge"):
        for method, runs in found.groupby("method", sort=False):
            geometric = panel == "forward_kl"
            rows.means(f"text {panel}", str(method), "", runs, "at", panel, geometric=geometric)
    size = settings.words, settings.horizon, settings.horizon - 1, settings.text_smoothing
    phrases = read_once(*size)
    p = phrases.law[0]
    for at, k in enumerate(settings.orders):
        game = phrases.game.merged(k)
        assert game.expert is not None
        best = game.sequence_law(game.expert)[0]
        ends, name = (at - 0.4, at + 0.4), f"maximum of likelihood, order {k}"
        for panel, value in {"forward_kl": laws.kl(p, best), "judge": best @ np.log(p)}.items():
            rows.add(f"text {panel}", "mle", name, THEORY, ends, value)


def _ladder_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    """Two steps less SFT, paired by expert, in four measures: above 0 SFT is the better."""
    runs = found.set_index(["seed", "capacity"])
    base, other = (runs[runs.method == m][list(MEASURES)] for m in ("sft", "spin, two steps"))
    paired = ((other - base) * list(MEASURES.values())).reset_index()
    for measure in MEASURES:
        rows.means("ladder", "spin, two steps", measure, paired, "capacity", measure)
    seeds = range(settings.seeds)
    it = Ladder.random(seeds, settings.capacities, settings.outcomes, settings.spread)
    p, best = it.expert[:, 0].numpy(), it.maximum_likelihood()
    there = predicted(it, Method("spin", "two steps"), 1.0, best)
    ends = [_measures(p, log_law[:, 0].exp().numpy()) for log_law in (best, there)]
    for measure, sign in MEASURES.items():
        gap = sign * (ends[1][measure] - ends[0][measure])
        mean = pd.Series(gap).groupby(list(it.capacities)).mean()
        rows.add("ladder", "spin, two steps", measure, THEORY, mean.index, mean)


def _measures(p: FloatArray, pi: FloatArray) -> dict[str, FloatArray]:
    judge, tv = (pi * np.log(p)).sum(-1), laws.total_variation(p, pi)
    return {"forward_kl": laws.kl(p, pi), "reverse_kl": laws.kl(pi, p), "judge": judge, "tv": tv}


def _destination_rows(rows: Rows, found: pd.DataFrame) -> None:
    found = found[found.step > 0]
    ends = [found.step.min(), found.step.max()]
    for method, runs in found.groupby("method", sort=False):
        rows.means("destination", str(method), "", runs, "step", "tv_mle")
        there = runs.predicted.mean()
        if there > 1e-6:
            rows.add("destination", str(method), "", THEORY, ends, there)


def _finite_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    longest = found[found.horizon == found.horizon.max()]
    for outside, name in ((False, "member"), (True, "no member")):
        part = intervals(longest[longest.outside == outside], ["method", "n"], "hellinger")
        for method, line in part.groupby("method", sort=False):
            line = line[line["mean"] > 0]
            low = np.maximum(line.low, 1e-6)
            rows.add("finite", str(method), name, MEASURED, line.n, line["mean"], low, line.high)
    n = np.array([min(settings.class_samples), max(settings.class_samples)])
    values = [finite_class_bound(settings.members, settings.delta, int(size)) for size in n]
    rows.add("finite", "mle", "bound", THEORY, n, values)


def _stability_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    last = found[found["round"] == ROUNDS]
    for inner, runs in last.groupby("steps_per_round", sort=False):
        rows.means("stability", "spin", f"{inner:g}", runs, "factor", "distance", geometric=True)
    seeds, capacity = range(settings.seeds), settings.capacity
    it = Ladder.random(seeds, [capacity], settings.outcomes, settings.spread)
    covariances = [it.covariances(row) for row in range(len(it.seeds))]
    start = np.ones(capacity) / np.sqrt(capacity)
    for inner in settings.inner:
        logs = []
        for s_p, s_q in covariances:
            betas = FINE * spin_threshold(s_p, s_q)
            maps = [spin_round(s_p, s_q, b, 2 * settings.rate, inner) for b in betas]
            ends = [np.linalg.matrix_power(m, ROUNDS) @ start for m in maps]
            logs.append(np.log10(np.linalg.norm(ends, axis=-1)))
        rows.add("stability", "spin", f"{inner:g}", THEORY, FINE, 10.0 ** np.mean(logs, axis=0))


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Real text above, destinations in the middle, finite classes and stability below."""
    fig, axes = style.panel(2, 3, aspect=0.74)
    draw.fill(axes, table, _likelihood, _judge, _ladder, _destination, _finite, _stability)
    return fig


def _look(name: str, series: str = "") -> dict[str, Any]:
    colour, marker, _ = LOOKS[name]
    if series == "no member":
        return style.points(colour, "x", markersize=5)
    look = style.points(colour, marker, hollow=marker == "s", markersize=3.6)
    return look | {"markeredgewidth": 0.9}


def _line(name: str, series: str) -> dict[str, Any]:
    return {"color": LOOKS[name][0]}


def _legend(ax: Axes, names: list[str], **place: Any) -> None:
    tight = {"handletextpad": 0.0, "columnspacing": 0.4, "labelspacing": 0.25}
    style.legend(ax, {LOOKS[n][2]: _look(n) for n in names}, **tight, **place)


def _text(ax: Axes, table: pd.DataFrame, measure: str) -> None:
    panel = f"text {measure}"
    best = {"color": style.GREY, "linewidth": 1.4, "zorder": 0}
    draw.lines(ax, table, panel, lambda *_: best)
    part = table[(table.panel == panel) & (table.kind == MEASURED)]
    names = list(part.objective.unique())
    beside = draw.dodge(names, 0.56 / (len(names) - 1), log=False)
    draw.points(ax, table, panel, _look, beside)
    classes = [f"k={k}" for k in SETTINGS.orders] + [f"w={w}" for w in SETTINGS.widths]
    ax.set_xticks(range(len(classes)), classes)
    ax.axvline(len(SETTINGS.orders) - 0.5, color=style.GREY, linewidth=0.8)
    ax.grid(False, axis="x")


def _likelihood(ax: Axes, table: pd.DataFrame) -> None:
    _text(ax, table, "forward_kl")
    style.log(ax, "y")
    ax.set_ylim(0.003, 200)
    names = [name for name, _, _ in curves(table, "text forward_kl", MEASURED)]
    _legend(ax, names, fontsize=6.6, ncols=2, loc="upper right")
    title = "Real text: SFT wins the likelihood"
    style.label(ax, "order k, hidden units w", "KL(p‖π) [nats]", title)


def _judge(ax: Axes, table: pd.DataFrame) -> None:
    _text(ax, table, "judge")
    ax.set_ylim(-13.5, 0.2)
    note(ax, 0.69, 0.22, "w = 1: two steps\ndo not get there", fontsize=7)
    y, title = "expert log-likelihood of samples", "… a judge likes two-step samples"
    style.label(ax, "order k, hidden units w", y, title)


JUDGED = {
    "forward_kl": (style.BLACK, "o", "KL(p‖π)"),
    "tv": (style.PURPLE, "D", "TV"),
    "reverse_kl": (style.RED, "s", "KL(π‖p)"),
    "judge": (style.BLUE, "v", "−E log p of samples"),
}


def _ladder(ax: Axes, table: pd.DataFrame) -> None:
    measures = list(JUDGED)
    draw.lines(ax, table, "ladder", lambda _, s: {"color": JUDGED[s][0]})
    draw.points(
        ax,
        table,
        "ladder",
        lambda _, s: style.points(*JUDGED[s][:2]),
        lambda _, s, x: x + 0.12 * (measures.index(s) - 1.5),
    )
    ax.axhline(0.0, color="k", linewidth=0.8)
    ax.set_ylim(-1.7, 1.5)
    ax.set_xticks(sorted(set(table[table.panel == "ladder"].x)))
    both = {"linestyle": "-", "linewidth": 1.1, "markersize": 3.4}
    looks = {text: style.points(c, m) | both for c, m, text in JUDGED.values()}
    style.legend(ax, looks, fontsize=7, loc="lower right", labelspacing=0.25)
    note(ax, 0.98, 0.95, "above 0: SFT is better", fontsize=7, ha="right")
    x, title = "features (19 hold the expert)", "Each wins its own measure"
    style.label(ax, x, "two steps − SFT [nats]", title)


def _destination(ax: Axes, table: pd.DataFrame) -> None:
    part = table[table.objective.isin(DESTINATIONS)]
    draw.lines(ax, part, "destination", _line)
    draw.points(ax, part, "destination", _look, draw.dodge(list(DESTINATIONS), 0.05))
    style.log(ax)
    ax.set_ylim(1.5e-3, 5)
    _legend(ax, list(DESTINATIONS), fontsize=6.4, ncols=2, loc="upper center")
    style.label(ax, "gradient steps (drawn batches)", "TV(π, MLE)", "What moves the destination")


def _finite(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "finite", lambda *_: {"color": "k", "linewidth": 1.4})
    mark(ax, 13, 1.6, "bound, probability 0.9", fontsize=7)
    shifts = {"mle": 1.0, "spin": 0.93, "spif": 1.07, "ipo": 1.14}
    draw.points(ax, table, "finite", _look, lambda n, _, x: x * shifts[n])
    style.log(ax)
    ax.set_ylim(1e-3, 3)
    looks = {LOOKS[n][2]: _look(n) for n, s, _ in curves(table, "finite") if s == "member"}
    looks["maximum likelihood,\nexpert no member"] = _look("mle", "no member")
    place = {"handletextpad": 0.0, "labelspacing": 0.25, "loc": "lower left", "fontsize": 7}
    style.legend(ax, looks, **place)
    style.label(ax, "expert samples n", "$D_H^2$(p, estimate)", "64 laws: own samples do not help")


def _stability(ax: Axes, table: pd.DataFrame) -> None:
    looks = {"10": ("o", "--", style.ORANGE), "300": ("s", "-", style.RED)}
    draw.lines(
        ax, table, "stability", lambda _, s: {"color": looks[s][2], "linestyle": looks[s][1]}
    )
    draw.points(ax, table, "stability", lambda _, s: style.points(looks[s][2], looks[s][0]))
    ax.axvline(1.0, color="k", linewidth=1.0)
    ax.axhline(1.0, color=style.GREY, linewidth=0.8)
    style.log(ax, "y")
    ax.set_ylim(1e-9, 1e5)
    note(ax, 0.98, 0.92, "300 gradient steps a round", color=style.RED, ha="right")
    note(ax, 0.03, 0.06, "10 gradient steps a round", color=style.ORANGE)
    x, title = "β over its threshold for exact rounds", "SPIN: unsolved rounds are stable longer"
    style.label(ax, x, "deviation from the MLE, ×", title)
