"""Rounds from samples at effective step 1/2: burn-in, missing support, wrong labels, no smoothing.

Numbers: toy_games/experiments/stability.py (`python -m toy_games run stability`);
out/stability_samples.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import note, shown
from figures.tidy import MEASURED, THEORY, Rows
from theory import laws, objectives
from toy_games import launch
from toy_games.experiments.stability import EXACT, Settings, instance
from toy_games.predictions.stability import noise_floor, slowest_rate, tail_mass

SETTINGS = Settings(
    studies=("burn-in", "outside", "labels", "unseen"), seeds=sized(5, 8), rounds=sized(150, 400)
)
CAPTION = (
    "Rounds from n samples a side at effective step 1/2 (16 responses, own expert a seed, "
    f"{SETTINGS.seeds} seeds; points: means, 95 % Student intervals; SFT on equal data). (a) "
    "Rounds until the largest log p/pi is at most 1, by the start's; blue lines: 1/2 and 1 times "
    "beta c max u_0, T8's bounds for SPIF; hollow: SPIN's exact rounds, which halve log-ratios; "
    "samples with smoothing 1/2 have log-ratios of at most log(2n+1). (b) The policy's mass where "
    "the expert has none; lines: exact rounds, e^{(R(-inf)-R(0))/beta} a round; dashed: 1/round. "
    "(c) KL after a share of the expert's labels was replaced by uniform ones (full line: "
    "prediction) or by own responses (hollow, dashed); dotted: SFT's. (d) No smoothing: KL against "
    "n; a run whose log-ratios leave the range of numbers is drawn as lost."
)
CLAIMS = ("C5", "T6", "T8")

NAMES = ("spin", "spif", "ipo", "iq_learn", "gail")
LOST = 1e4
"""KL in nats above which a run counts, and is drawn, as lost."""


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """The studies with their predictions."""
    found = launch.run("stability", settings, progress=False)
    study = dict(list(found.groupby("study", sort=False)))
    rows = Rows()
    unseen = study["unseen"][study["unseen"].objective.isin((*NAMES, "sft"))]
    lost = unseen.assign(kl=unseen.kl.clip(upper=LOST))
    rows.each("unseen", lost, "samples", "kl", "a=0", least=0.0)
    _burn_in_rows(rows, study["burn-in"], settings)
    _label_rows(rows, study["labels"], settings)
    _outside_rows(rows, study["outside"], settings)
    return rows.table()


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


def plot(table: pd.DataFrame) -> Figure:
    """Burn-in and support above, labels and missing smoothing below."""
    fig, axes = style.panel(2, 2, aspect=0.8)
    draw.fill(axes, table, _burn_in, _outside, _labels, _unseen)
    looks = {shown(name): look(name) for name in (*NAMES, "sft")}
    style.legend(fig, looks, loc="outside upper center", ncol=6, fontsize=8, handletextpad=0.0)
    style.letters(axes)
    return fig


def look(name: str, series: str = "") -> dict[str, Any]:
    """Points of an objective: its colour, and a shape that tells it in grey too."""
    return style.shaped(name, hollow=series in ("exact", "own")) | {"markersize": 3.6}


def _burn_in(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "burn-in")
    draw.points(ax, table, "burn-in", look)
    style.log(ax, x=[3, 10, 30, 100])
    ax.set_ylim(0.8, 200)
    note(ax, 0.04, 0.92, "½ and 1 × βc max u₀", color=style.BLUE, fontsize=7)
    note(ax, 0.98, 0.22, "hollow: exact rounds", color=style.RED, fontsize=7, ha="right")
    title = "Burn-in"
    style.label(ax, "start: max log p/π [nats]", "rounds to max log p/π ≤ 1", title)


def _outside(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {"exact rounds": "-", "sampled, tail": "--"}
    seen = table[(table.kind == MEASURED) | (table.y > 1e-6)]
    draw.lines(ax, seen, "outside", lambda n, s: draw.colours(n) | {"linestyle": dashes[s]})
    draw.points(ax, table, "outside", look)
    style.log(ax)
    ax.minorticks_off()
    note(ax, 0.04, 0.09, "lines: exact rounds;\ndashed: 1/round", fontsize=7)
    style.label(ax, "round", "policy's mass where p = 0", "Missing support")


def _labels(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {("expert", "own"): "--", ("sft", "uniform"): ":"}
    draw.lines(
        ax, table, "labels", lambda *which: {"color": "k", "linestyle": dashes.get(which, "-")}
    )
    shifts = {"spif": 0.004, "ipo": -0.004}
    draw.points(ax, table, "labels", look, lambda n, _, x: x + shifts.get(n, 0.0))
    style.log(ax, "y")
    ax.set_ylim(3e-5, 0.2)
    note(ax, 0.98, 0.93, "uniform labels", fontsize=7, ha="right")
    note(ax, 0.98, 0.52, "hollow: own labels", fontsize=7, ha="right")
    title = "Wrong labels"
    style.label(ax, "share of labels replaced", "KL(p‖π) [nats]", title)


def _unseen(ax: Axes, table: pd.DataFrame) -> None:
    names = list(table[table.panel == "unseen"].objective.unique())
    draw.points(ax, table, "unseen", look, draw.dodge(names, 0.05))
    style.log(ax, y={1e-4: "10⁻⁴", 1e-2: "0.01", 1.0: "1", 100.0: "100", LOST: "lost"})
    ax.set_ylim(1e-5, 3e4)
    style.label(ax, "samples n a round", "KL(p‖π) [nats]", "No smoothing")
