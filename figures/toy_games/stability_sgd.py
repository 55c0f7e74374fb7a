"""Stability at matched effective step, from samples: where it breaks, how badly, at what price.

Numbers: toy_games/experiments/stability.py (`python -m toy_games run stability`);
out/stability_sgd.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure, SubFigure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows
from theory import laws, objectives
from toy_games import launch
from toy_games.experiments.stability import EXACT, Settings, instance
from toy_games.predictions.stability import (
    breaking_distance,
    noise_floor,
    slowest_rate,
    tail_mass,
)

FEW = 100
SETTINGS = Settings(
    samples=(FEW, 1000),
    steps=tuple(float(f"{s:.4g}") for s in np.geomspace(0.1, 20.0, sized(21, 35))),
    seeds=sized(5, 8),
    rounds=sized(150, 400),
    early_steps=sized(900, 4000),
)
CAPTION = (
    "Stability at matched effective step s = R'(0)/beta, from samples (16 responses, own expert a "
    f"seed, {SETTINGS.seeds} seeds; points: means, 95 % Student intervals; SFT on equal data). "
    f"Maps: final KL (median) after {SETTINGS.rounds} rounds of n = 1000 expert and own samples, "
    f"smoothing 1/2; black: s = 2; left of it, below the dashed line, {SETTINGS.rounds} rounds "
    "cover the start. C5 HOLDS as bounded failure: beyond s = 2 SPIF and IPO cycle nearer to the "
    "expert, GAIL fails already between s = 1.4 and 1.8, and without smoothing one unseen response "
    "ruins every unbounded reward, at s = 1/2 too. C5 FAILS at small s near the expert: up to "
    "about 1 all have the noise floor (N-1)/n s/(2-s) (IQ-Learn at n = 100 three times that), the "
    "same response to wrong labels and a slower burn-in. Nearer to 2 that first order in 1/n ends: "
    "at s = 1.84 SPIN's floor is above it by half, SPIF's and IPO's are half of it. Exact SPIN "
    "diverges beyond 2 and burns in within O(log) rounds; both FAIL for smoothed samples, whose "
    "log-ratios are at most log(2n+1), and mass outside of the expert's support falls like 1/round "
    "instead of e^{(R(-inf)-R(0))/beta}. Rounds of k gradient steps break at a distance k rate "
    "lambda (lambda: largest eigenvalue of diag p - p p') that depends on s alone: early stopping "
    f"holds SPIN at beta = 0.1 (last panel: minibatches of 64, {SETTINGS.early_steps} steps each). "
    "NWJ, whose one-step effective step is at most e/(e-1), never breaks; hinge has none and "
    "breaks at 2."
)
CLAIMS = ("C5", "T6", "T7", "T8", "T9")

MAPS = {
    "spin": "SPIN, exponential, NWJ",
    "spif": "SPIF, centred SPIF",
    "ipo": "IPO",
    "iq_learn": "IQ-Learn",
    "gail": "GAIL",
}
MAIN = ("spin", "spif", "ipo", "iq_learn", "gail")
LOST = 1e4
"""KL in nats above which a run counts, and is drawn, as lost."""


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """All studies of the experiment, with their predictions."""
    found = launch.run("stability", settings, progress=False)
    study = dict(list(found.groupby("study", sort=False)))
    rows = Rows()
    _map_rows(rows, study["map"], settings)
    unseen = study["unseen"][study["unseen"].objective.isin((*MAIN, "sft"))]
    lost = unseen.assign(kl=unseen.kl.clip(upper=LOST))
    rows.each("unseen", lost, "samples", "kl", "a=0", least=0.0)
    _floor_rows(rows, study["floor"], settings)
    _burn_in_rows(rows, study["burn-in"], settings)
    _label_rows(rows, study["labels"], settings)
    _outside_rows(rows, study["outside"], settings)
    _boundary_rows(rows, study["boundary"], settings)
    rows.each("early", study["early"], "distance", "kl", "minibatches", least=0.0)
    return rows.table()


def _map_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    median = found.groupby(["objective", "reach", "effective_step"]).kl.median()
    steps, smallest = np.array(settings.steps), 1.0 / settings.outcomes
    for name in MAPS:
        for reach in settings.reaches:
            part = median[name, reach]
            rows.add("map", name, f"{reach:g}", MEASURED, part.index, part)
        rate = slowest_rate(objectives.get(name), steps, settings.many, smallest)
        rows.add("reach", name, "covered", THEORY, steps, settings.rounds * rate)


def _floor_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.linspace(0.1, 1.98, 95)
    rows.add("floor", "expert", "s/(2-s)", THEORY, steps, noise_floor(steps, 2, 1))
    for n in settings.samples:
        names = ("spif", "iq_learn") if n == FEW else (*MAIN, "sft")
        part = found[(found.samples == n) & found.objective.isin(names)]
        scaled = part.assign(kl=part.kl * n / (settings.outcomes - 1))
        rows.each("floor", scaled, "effective_step", "kl", f"n={n}", least=0.0)


def _burn_in_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    far = found[(found.reach > 3.0) & found.objective.isin(("spin", "spif", "ipo", "gail", "sft"))]
    assert (far.burn_in_u > 0).all(), "a burn-in did not end"
    exact = far[(far.samples == EXACT) & (far.objective == "spin")]
    rows.each("burn-in", far[far.samples > 0], "reach", "burn_in_u", "sampled", least=0.0)
    rows.each("burn-in", exact, "reach", "burn_in_u", "exact", least=0.0)
    ends = np.geomspace(3.0, 100.0, 20)
    for share in (0.5, 1.0):
        line = share * ends / (2.0 * settings.one_step)
        rows.add("burn-in", "spif", f"{share:g} βc max u₀", THEORY, ends, line)
    smallest, far_ends = 1.0 / settings.outcomes, ends[ends > 8.0]
    rate = slowest_rate(objectives.get("spin"), settings.one_step, settings.many, smallest)
    rows.add("burn-in", "spin", "at most", THEORY, far_ends, far_ends / rate)


def _label_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    for noise, names in (("uniform", ("spin", "spif", "ipo", "sft")), ("own", ("spin", "spif"))):
        part = found[(found.noise == noise) & found.objective.isin(names)]
        rows.each("labels", part, "label_noise", "kl", noise, least=0.0)
    share = np.linspace(0.0, max(settings.label_noise), 41)
    p = instance(settings.seeds, settings.outcomes, settings.spread)[0]
    mixed = (1.0 - share[:, None, None]) * p + share[:, None, None] / settings.outcomes
    kl = laws.kl(np.broadcast_to(p, mixed.shape), mixed).mean(-1)
    sizes = settings.outcomes, settings.many
    rows.add("labels", "sft", "uniform", THEORY, share, kl)
    floor = noise_floor(settings.one_step, *sizes)
    rows.add("labels", "expert", "uniform", THEORY, share, kl + floor)
    own = noise_floor(settings.one_step, *sizes, share)
    rows.add("labels", "expert", "own", THEORY, share, own)


def _outside_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    found = found[found.step > 0]
    part = found[(found.samples > 0) & found.objective.isin(("spin", "spif", "gail", "sft"))]
    rows.each("outside", part, "step", "outside", "sampled", least=0.0)
    for name in ("spif", "gail"):
        exact = found[(found.samples == EXACT) & (found.objective == name)]
        line = exact.groupby("step").outside.mean()
        rows.add("outside", name, "exact rounds", THEORY, line.index, line)
    rounds = np.geomspace(10, settings.rounds, 20)
    tail = tail_mass(objectives.get("spif"), settings.one_step, settings.many, rounds)
    rows.add("outside", "spif", "sampled, tail", THEORY, rounds, settings.surplus * tail)


def _boundary_rows(rows: Rows, found: pd.DataFrame, settings: Settings) -> None:
    steps = np.geomspace(2.1, 25.0, 80)
    distance = breaking_distance(steps, settings.inner)
    rows.add("boundary", "expert", "breaks", THEORY, steps, distance)
    rows.add("boundary", "spin_hinge", "breaks", THEORY, [2.1, 25.0], 2.0)
    rows.each("boundary", crossings(found), "effective_step", "breaks", "breaks")


def crossings(found: pd.DataFrame) -> pd.DataFrame:
    """Distance at which growth turns positive, by interpolation, where it does."""
    out = []
    for key, part in found.groupby(["objective", "effective_step", "seed"], sort=False):
        part = part.sort_values("distance")
        grows = part.growth.to_numpy() > 0
        if grows.any() and not grows[0]:
            j = int(grows.argmax())
            at = np.interp(0.0, part.growth.iloc[j - 1 : j + 1], part.distance.iloc[j - 1 : j + 1])
            out.append((*key, at))
    return pd.DataFrame(out, columns=["objective", "effective_step", "seed", "breaks"])


def plot(table: pd.DataFrame) -> Figure:
    """Six maps above, six panels below."""
    fig, (top, bottom) = style.stacked(9.0, 1.0, 1.25)
    _maps(top, table)
    axes = bottom.subplots(2, 3)
    draw.fill(axes, table, _floor, _burn_in, _outside, _labels, _boundary, _early)
    for ax in axes.flat:
        _smaller(ax)
    names = (*MAIN, "exponential", "nwj", "spin_hinge", "sft")
    looks = {shown(name): _look(name) for name in names}
    tight = {"columnspacing": 0.9, "handletextpad": 0.0}
    style.legend(bottom, looks, loc="outside upper center", ncol=9, fontsize=7, **tight)
    return fig


def _smaller(ax: Axes) -> None:
    ax.set_title(ax.get_title(loc="left"), fontsize=8.5)
    ax.xaxis.label.set_fontsize(8)
    ax.yaxis.label.set_fontsize(8)


STEPS = [0.1, 0.5, 2, 5, 20]


def _maps(top: SubFigure, table: pd.DataFrame) -> None:
    axes = top.subplots(2, 3)
    for ax, name in zip(axes.flat, MAPS, strict=False):
        _map(ax, table, name)
    _unseen(axes[1, 2], table)
    for ax in (*axes[1, :2], axes[0, 2]):
        ax.set_xlabel("effective step s")
    for ax in axes[:, 0]:
        ax.set_ylabel("start: max log p/π [nats]")
    for ax in axes.flat:
        _smaller(ax)
    note(axes[0, 1], 0.04, 0.4, "covered by\nthe rounds")
    bar = top.colorbar(axes[0, 0].collections[0], ax=axes, extend="both", pad=0.02, aspect=30)
    bar.set_label("final KL(p‖π) [nats]", fontsize=8)
    bar.ax.minorticks_off()


def _map(ax: Axes, table: pd.DataFrame, name: str) -> None:
    own = table[table.objective == name]
    part = own[own.panel == "map"].assign(reach=lambda t: t.series.astype(float))
    grid = part.pivot(index="reach", columns="x", values="y")
    edges = [draw.cells(of.to_numpy(dtype=float)) for of in (grid.columns, grid.index)]
    ax.pcolormesh(*edges, grid.to_numpy(), cmap=draw.heat(), norm=LogNorm(0.02, 200.0))
    draw.lines(ax, own, "reach", lambda *_: {"color": "white", "linewidth": 2.2})
    dashed = {"color": "k", "linewidth": 0.9, "linestyle": "--"}
    draw.lines(ax, own, "reach", lambda *_: dashed)
    ax.axvline(2.0, color="k", linewidth=1.2)
    style.log(ax, x=STEPS, y=[1, 10, 100])
    ax.set_ylim(edges[1][0], edges[1][-1])
    ax.grid(False)
    ax.set_title(MAPS[name])


def _unseen(ax: Axes, table: pd.DataFrame) -> None:
    names = list(table[table.panel == "unseen"].objective.unique())
    draw.points(ax, table, "unseen", _look, draw.dodge(names, 0.05))
    style.log(ax, y={1e-4: "10⁻⁴", 1e-2: "0.01", 1.0: "1", 100.0: "100", LOST: "lost"})
    ax.set_ylim(1e-5, 3e4)
    style.label(ax, "samples n a round", "", "No smoothing, s = ½")


HOLLOW = (f"n={FEW}", "exact", "own")


def _look(name: str, series: str = "") -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    large = {"markersize": 5.0} if name == "spin_hinge" else {"markersize": 3.6}
    return style.shaped(name, hollow=series in HOLLOW) | large


def _floor(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "floor")
    draw.points(ax, table, "floor", _look)
    ax.axvline(2.0, color="k", linewidth=0.8)
    style.log(ax, x=STEPS)
    ax.set_ylim(1e-3, 1e5)
    mark(ax, 0.3, 0.05, "s/(2−s)", color="k")
    note(ax, 0.03, 0.93, "hollow: n = 100", fontsize=7)
    label = "KL · n/(N−1), start: expert"
    style.label(ax, "effective step s", label, "Small s: one noise floor")


def _burn_in(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "burn-in")
    draw.points(ax, table, "burn-in", _look)
    style.log(ax, x=[3, 10, 30, 100])
    ax.set_ylim(0.8, 200)
    note(ax, 0.04, 0.92, "½ and 1 × βc max u₀", color=style.BLUE, fontsize=7)
    note(ax, 0.98, 0.22, "hollow: exact rounds", color=style.RED, fontsize=7, ha="right")
    title = "Price of bounds: burn-in, s = ½"
    style.label(ax, "start: max log p/π [nats]", "rounds to max log p/π ≤ 1", title)


def _outside(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {"exact rounds": "-", "sampled, tail": "--"}
    seen = table[(table.kind == MEASURED) | (table.y > 1e-6)]
    draw.lines(ax, seen, "outside", lambda n, s: draw.colours(n) | {"linestyle": dashes[s]})
    draw.points(ax, table, "outside", _look)
    style.log(ax)
    ax.minorticks_off()
    note(ax, 0.04, 0.09, "lines: exact rounds;\ndashed: 1/round", fontsize=7)
    style.label(ax, "round", "policy's mass where p = 0", "Leaving p = 0, s = ½")


def _labels(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {("expert", "own"): "--", ("sft", "uniform"): ":"}
    draw.lines(
        ax, table, "labels", lambda *which: {"color": "k", "linestyle": dashes.get(which, "-")}
    )
    shifts = {"spif": 0.004, "ipo": -0.004}
    draw.points(ax, table, "labels", _look, lambda n, _, x: x + shifts.get(n, 0.0))
    style.log(ax, "y")
    ax.set_ylim(3e-5, 0.2)
    note(ax, 0.98, 0.93, "uniform labels", fontsize=7, ha="right")
    note(ax, 0.98, 0.52, "hollow: own labels", fontsize=7, ha="right")
    title = "Wrong labels move all alike"
    style.label(ax, "share of labels replaced", "final KL(p‖π) [nats], s = ½", title)


def _boundary(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "boundary", lambda n, _: {"color": _look(n)["color"]})
    part = table[(table.panel == "boundary") & (table.kind == MEASURED)]
    names = list(part.objective.unique())
    draw.points(ax, part, "boundary", _look, draw.dodge(names, 0.03))
    style.log(ax, "x", x=[2, 5, 10, 20])
    ax.set_ylim(0.0, 6.0)
    note(ax, 0.45, 0.7, "diverges", fontsize=8)
    note(ax, 0.1, 0.17, "early stopping holds", fontsize=8)
    title = "k gradient steps a round"
    style.label(ax, "effective step s", "distance of a round k·rate·λ", title)


def _early(ax: Axes, table: pd.DataFrame) -> None:
    joined = {"linestyle": "-", "linewidth": 0.6}
    draw.points(ax, table, "early", lambda n, s: _look(n, s) | joined)
    note(ax, 0.97, 0.25, "NWJ", color=style.GREY, fontsize=7, ha="right")
    ax.axvline(float(breaking_distance(SETTINGS.early_step)), color="k", linewidth=1.0)
    style.log(ax, x=[0.2, 0.5, 1, 2, 5, 14])
    title = "Minibatches, s = 10"
    style.label(ax, "distance of a round k·rate·λ", "final KL(p‖π) [nats]", title)
