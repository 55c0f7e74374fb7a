"""Rounds on one data set against maximum likelihood on it: floor, own samples, stopping, steps.

Numbers: `table` below, by `toy_games.dynamics` (`SampledRounds`, `SelfPlay`) and
`toy_games.predictions.fixed_data`; out/fixed_data.csv.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import THEORY, Rows
from theory import laws, objectives
from theory.result import FloatArray
from toy_games.dynamics.sampled_rounds import SampledRounds
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.simulator import State
from toy_games.engine.trainable import beta_at
from toy_games.predictions.fixed_data import best_stop, inner_steps, kl_after, own_noise
from toy_games.predictions.stability import noise_floor

P = np.array([0.06, 0.08, 0.10, 0.11, 0.13, 0.15, 0.17, 0.20])
N, SAMPLES = len(P), 1000
FLOOR = (N - 1) / (2.0 * SAMPLES)
SEEDS = sized(24, 100)
SPIF = objectives.get("spif")
BESIDE = {"spin": 0.94, "spif": 1.0, "ipo": 1.06}
"""Each objective has its own steps, so that points do not hide each other."""
STEPS = np.array([0.1, 0.17, 0.3, 0.5, 1.0, 1.3, 1.5, 1.7])
OWN, FEW_STEPS = (1, 2, 4, 8), (0.5, 1.0, 1.5)
LATE = range(24, 57, 4)
STOP_STEP, FAR, NEAR, LEARNED = 0.3, 2.0, 0.3, 1.0 / 3.0
STOP_SEEDS, STOP_ROUNDS = sized(150, 600), range(13)
RATE = 1.0
INNER: dict[int, tuple[float, ...]] = dict.fromkeys((1, 2, 4, 8), (0.5, 1.5, 4.0))
INNER |= {12: (4.0,), 16: (0.5, 1.5)}
"""Gradient steps in a round: the effective steps at which such rounds are stable."""
CAPTION = (
    f"Rounds in which n = {SAMPLES:,} expert samples stay and K fresh own samples to each of them "
    f"are drawn, {N} responses, in units of F = (N-1)/2n, the KL of maximum likelihood. Lines: "
    f"theory; points: means over {SEEDS} data sets with 95 % intervals. (a) KL to the expert, less "
    "that of the data's law, plus 1 (K = 1 also SPIN and IPO); hollow: fresh expert samples in "
    f"every round. (b) KL from the data's law. (c) KL by rounds at step s = {STOP_STEP:g}, K = 1, "
    f"{STOP_SEEDS} data sets: from a start {FAR:g} F away that saw no data, from one {NEAR:g} F "
    "away that the same data have taken a third of the way, from maximum likelihood; ring: "
    f"predicted best stop. (d) Rounds of k exact gradient steps at rate {RATE:g} (in SFT units), "
    "K = 1: KL from the data's law; dashed: rounds solved to their end, which s = 4 has not."
)
CLAIMS = ("T16", "T6", "C5", "C6")


class ToldFromData(SampledRounds):
    """Sampled rounds on one data set, measured against the data's law as well."""

    @cached_property
    def data(self) -> Tensor:
        """Frequencies (rows, N) of the data sets."""
        return self.counts("expert", self.expert, 0) / SAMPLES

    def measure(self, state: State, step: int) -> dict[str, Tensor]:
        """``mle`` = KL(p||data) and ``to_data`` = KL(data||pi) in nats besides."""
        off, apart = self.data.log() - state["log_q"], (self.expert / self.data).log()
        told = {"mle": (self.expert * apart).sum(-1), "to_data": (self.data * off).sum(-1)}
        return super().measure(state, step) | told


def data_of(seeds: int) -> FloatArray:
    """Frequencies (seeds, N) of the data sets that all rounds have."""
    rows = pd.DataFrame({"seed": range(seeds), "beta": 1.0})
    expert = np.tile(P, (seeds, 1))
    return ToldFromData(None, rows, expert, np.log(expert), samples=SAMPLES).data.numpy()


def play(
    name: str, steps: Any, record: Any, start: FloatArray, fixed: bool = True, per_expert: int = 1
) -> pd.DataFrame:
    """All effective steps on all data sets: a line a run and record; ``start`` (seeds, N)."""
    obj, seeds = objectives.get(name), len(start)
    sizes = np.repeat(np.asarray(steps, dtype=float), seeds)
    rows = pd.DataFrame({"size": sizes, "beta": np.asarray(beta_at(obj, sizes))})
    rows["seed"] = np.tile(np.arange(seeds), len(steps))
    laws = np.tile(P, (len(rows), 1)), np.tile(np.log(start), (len(steps), 1))
    given: dict[str, Any] = {"fixed_data": fixed, "per_expert": per_expert}
    run = ToldFromData(obj, rows, *laws, samples=SAMPLES, **given)
    found = simulator.run(run, record, progress=False)
    units = {"factor": found.kl, "excess": found.to_data, "apart": found.kl - found.mle}
    return found.assign(**{key: kl / FLOOR for key, kl in units.items()})


def table() -> pd.DataFrame:
    """KL in units of F, by effective step, own samples, rounds and gradient steps."""
    rows = Rows()
    _floor(rows)
    _stopping(rows)
    _gradient_steps(rows)
    return rows.table()


def late(found: pd.DataFrame, y: str, x: str) -> pd.DataFrame:
    """Mean of y over the records of every run, a line an x and seed."""
    return found.groupby([x, "seed"], sort=False)[y].mean().reset_index()


def _floor(rows: Rows) -> None:
    """By effective step for one and four own samples, by own samples for three steps."""
    data, fine, many = data_of(SEEDS), np.geomspace(0.08, 1.9, 60), np.geomspace(0.8, 10.0, 20)
    for own in OWN:
        found = play("spif", STEPS if own in (1, 4) else FEW_STEPS, LATE, data, True, own)
        for size, part in found[found["size"].isin(FEW_STEPS)].groupby("size"):
            runs = late(part.assign(K=own), "excess", "K")
            rows.means("own", "spif", f"s={size:g}", runs, "K", "excess")
        if own in (1, 4):
            _factor_rows(rows, "spif", f"K={own}", found.assign(factor=1.0 + found.apart))
            rows.add("factor", "spif", f"K={own}", THEORY, fine, 1.0 + own_noise(fine, own))
    for name in ("spin", "ipo"):
        found = play(name, STEPS * BESIDE[name], LATE, data)
        _factor_rows(rows, name, "K=1", found.assign(factor=1.0 + found.apart))
    fresh = play("spif", STEPS, LATE, np.tile(P, (SEEDS, 1)), fixed=False)
    _factor_rows(rows, "spif", "fresh", fresh)
    rows.add("factor", "spif", "fresh", THEORY, fine, noise_floor(fine, N, SAMPLES) / FLOOR)
    for step in FEW_STEPS:
        rows.add("own", "spif", f"s={step:g}", THEORY, many, own_noise(step, many))


def _factor_rows(rows: Rows, name: str, series: str, found: pd.DataFrame) -> None:
    rows.means("factor", name, series, late(found, "factor", "size"), "size", "factor")


STARTS = {"far": (FAR, 0.0), "trained": (NEAR, LEARNED), "mle": (0.0, 1.0)}
"""KL(p||pi_0) in units of F of a start that saw no data, and the share that data took of it."""


def begun(size: float, learned: float, data: FloatArray) -> tuple[FloatArray, float]:
    """Such starts (seeds, N), and their KL(p||pi_0) in nats before the data took their share."""
    way = np.array([1.0, -1.0] * (N // 2))
    way -= P @ way
    law = P * np.exp(way * np.sqrt(2.0 * size * FLOOR / (P @ way**2)))
    law /= law.sum()
    start = law ** (1.0 - learned) * data**learned
    return start / start.sum(-1, keepdims=True), float(laws.kl(P, law))


def _stopping(rows: Rows) -> None:
    rounds, data = np.linspace(0.0, STOP_ROUNDS[-1], 80), data_of(STOP_SEEDS)
    for series, (size, learned) in STARTS.items():
        start, distance = begun(size, learned, data)
        found = play("spif", [STOP_STEP], STOP_ROUNDS, start)
        rows.means("stop", "spif", series, found, "step", "factor")
        parts = distance / (N - 1)
        mean = kl_after(rounds, np.full(N - 1, STOP_STEP), SAMPLES, 1, parts, learned)
        rows.add("stop", "spif", series, THEORY, rounds, mean / FLOOR)
        if series == "far":
            best = best_stop(STOP_STEP, N, SAMPLES, 1, distance)
            rows.add("best", "spif", series, THEORY, best.rounds, best.kl / FLOOR)


def _gradient_steps(rows: Rows) -> None:
    """The data's law in the expert's place, so that KL to it is the excess."""
    data = np.random.default_rng(4).multinomial(SAMPLES, P, SEEDS) / SAMPLES
    for k, sizes in INNER.items():
        size, expert = np.repeat(sizes, SEEDS), np.tile(data, (len(sizes), 1))
        runs = pd.DataFrame({"seed": np.tile(np.arange(SEEDS), len(sizes)), "size": size})
        runs = runs.assign(rate=RATE, steps_per_round=k, beta=beta_at(SPIF, size))
        given = Data(batch=None, own_samples=SAMPLES)
        run = SelfPlay(Softmax(N), SPIF, runs, expert[:, None], np.log(expert), given)
        found = simulator.run(run, k * inner_late(k), progress=False)
        found = found.assign(excess=found.kl / FLOOR)
        for step, part in found.groupby("size"):
            runs = late(part, "excess", "steps_per_round")
            rows.means("inner", "spif", f"s={step:g}", runs, "steps_per_round", "excess")
    fisher = np.linalg.eigvalsh(np.diag(P) - np.outer(P, P))[1:]
    fine = np.geomspace(1.0, 16.0, 61)
    for s in INNER[1]:
        each = inner_steps(s, RATE, fisher, fine[:, None])
        stable = each.max(-1) < 1.95
        mean = own_noise(each[stable]).mean(-1)
        rows.add("inner", "spif", f"s={s:g}", THEORY, fine[stable], mean)
        if s < 2.0:
            rows.add("inner", "spif", f"s={s:g}, solved", THEORY, fine[[0, -1]], own_noise(s))


def inner_late(k: int) -> Any:
    """Rounds that are measured; few gradient steps in a round take more of them."""
    first = 16 + 48 // k
    return np.arange(first, first + sized(33, 129), 4)


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """The floor and its own samples above, stopping and gradient steps below."""
    fig, axes = style.panel(2, 2, aspect=0.7)
    draw.fill(axes, table, _factor, _own, _stop, _inner)
    style.letters(axes)
    return fig


SHADES = {"s=0.5": style.SKY, "s=1": style.BLUE, "s=1.5": style.BLACK, "s=4": style.ORANGE}


def _factor(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {"K=1": "-", "K=4": "-", "fresh": "--"}
    ax.axhline(1.0, color=style.GREY, linewidth=0.9)
    draw.lines(ax, table, "factor", lambda _, s: {"color": "k", "linestyle": dashes[s]})

    def look(name: str, series: str) -> dict[str, Any]:
        return style.shaped(name, hollow=series == "fresh") | {"markersize": 3.8}

    draw.points(ax, table, "factor", look)
    style.log(ax, x=[0.1, 0.2, 0.5, 1, 2], y=[0.1, 0.3, 1, 3, 10])
    ax.set_ylim(0.06, 20)
    looks = {shown(name): look(name, "") for name in BESIDE}
    style.legend(ax, looks, loc="upper left", fontsize=7, handletextpad=0.0)
    mark(ax, 0.78, 2.6, "K = 1", fontsize=7, ha="right")
    mark(ax, 1.5, 1.25, "K = 4", fontsize=7)
    mark(ax, 0.24, 0.13, "fresh expert samples, K = 1", fontsize=7)
    mark(ax, 0.083, 0.83, "maximum likelihood", fontsize=7, color=style.GREY, va="top")
    style.label(ax, "effective step s", "KL(p‖π) / F", "One data set: not below 1 at rest")


def _own(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "own", lambda _, s: {"color": SHADES[s]})
    draw.points(ax, table, "own", lambda _, s: style.points(SHADES[s], "s", markersize=3.8))
    style.log(ax, x=[1, 2, 4, 8], y=[0.03, 0.1, 0.3, 1, 3])
    for y, series in ((0.42, "s=0.5"), (1.25, "s=1"), (3.7, "s=1.5")):
        mark(ax, 1.08, y, f"s = {series[2:]}", fontsize=7, color=SHADES[series])
    note(ax, 0.97, 0.93, "lines: s/((2−s)K)", fontsize=7, ha="right")
    title = "Excess over it, by own samples"
    style.label(ax, "own samples to an expert sample, K", "KL(p̂‖π) / F", title)


FROM = {"far": style.BLUE, "trained": style.SKY, "mle": style.BLACK}


def _stop(ax: Axes, table: pd.DataFrame) -> None:
    ax.axhline(1.0, color=style.GREY, linewidth=0.9)
    draw.lines(ax, table, "stop", lambda _, s: {"color": FROM[s]})
    draw.points(ax, table, "stop", lambda _, s: style.points(FROM[s], "s", markersize=3.4))
    for row in table[table.panel == "best"].itertuples():
        ax.plot([row.x], [row.y], **style.points(style.ORANGE, hollow=True, markersize=9))
    style.log(ax, "y", y=[0.2, 0.5, 1, 2])
    ax.set_ylim(0.18, 2.6)
    mark(ax, 0.5, 1.9, f"start {FAR:g} F away, saw no data", fontsize=7, color=style.BLUE)
    mark(ax, 5.5, 1.4, "start: maximum likelihood", fontsize=7)
    said = f"start {NEAR:g} F away, taken a\nthird of the way by the data"
    mark(ax, 2.2, 0.38, said, fontsize=7, color=style.DEEP_SKY)
    style.label(ax, "round t", "KL(p‖π) / F", f"When to stop, s = {STOP_STEP:g}")


def _inner(ax: Axes, table: pd.DataFrame) -> None:
    def line(name: str, series: str) -> dict[str, Any]:
        step, _, solved = series.partition(", ")
        return {"color": SHADES[step], "linestyle": "--" if solved else "-"}

    draw.lines(ax, table, "inner", line)
    draw.points(ax, table, "inner", lambda _, s: style.points(SHADES[s], "s", markersize=3.8))
    style.log(ax, x=[1, 2, 4, 8, 16], y=[0.1, 0.3, 1, 3, 10])
    for x, y, series in ((10.0, 0.24, "s=0.5"), (9.5, 0.6, "s=1.5"), (8.5, 1.6, "s=4")):
        ha = "right" if series == "s=4" else "left"
        mark(ax, x, y, f"s = {series[2:]}", fontsize=7, color=SHADES[series], ha=ha)
    note(ax, 0.04, 0.93, "dashed: solved rounds", fontsize=7)
    title = "Rounds of k gradient steps"
    style.label(ax, "gradient steps in a round, k", "KL(p̂‖π) / F", title)
