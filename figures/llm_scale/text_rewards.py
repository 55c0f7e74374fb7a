"""A language model on real text: rewards and mass outside, by rate and by epochs of a round.

Numbers: results/llm_text_rates.json and llm_text_lengths.json, which `make llm-text FULL=1` writes
(llm_scale/campaign); out/text_rewards.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_text
from figures.style import note, shown
from figures.tidy import THEORY, Rows
from llm_scale.campaign.experiments import SLOW
from llm_scale.campaign.plan import RATE

CAPTION = (
    "The text game of text_rates, a round at effective step 1, five seeds, on prompts that nothing "
    "was chosen by; means and 95 % intervals. Above by learning rate, one epoch; below by epochs, "
    "rate 0.001. (a) Largest absolute reward on responses of random tokens, in units of twice the "
    "link's slope at 0, which is SPIF's 1/c and IPO's margin: exact rewards of SPIF are within 1 "
    "(grey), of IPO's no two differ by more than 2, those of SPIN, SPACE and NWJ have no bound. "
    "(b) Share of new responses that neither the expert nor the opponent would give (below the 1 % "
    "quantile of both); dashes: (1 - Z)/2, the least share of the exact one-step round of a "
    "pointwise loss, Z from the recorded laws of sampled responses; grey: 1 %. (c) Share of new "
    "responses that run to the end that is allowed; grey: before the round. (d) Change of KL to "
    "the expert (hollow: per token). (e) Slope of the learned reward on the exact one; grey: 1. "
    "(f) Share outside, as (b)."
)
CLAIMS = ("C4", "S1", "S4", "S8")

LEAST = 2e-3  # one of the 512 responses
BOUNDED, UNBOUNDED = ("spif", "ipo"), ("spin", "space", "nwj")
POINTWISE = ("spif", "space", "nwj")
LONG = ("sft", "spin", "ipo", "spif")
TOKEN = ", per token"
REWARD = "largest |r|, random tokens"
OUTSIDE = "share outside of both"


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[(found["round"] == 0) & found.study.isin(("rate", "length"))].assign(
        change=lambda r: r.kl - r.kl_before,
        reward=lambda r: r.max_reward_other / (2.0 * r.beta * r.effective_step),
        least=lambda r: (1.0 - np.exp(r.log_partition)) / 2.0,
    )
    found = found[found.lr > SLOW]
    rated = found[found.study == "rate"].sort_values("lr", kind="stable")
    at_one = rated[rated.lr == RATE]
    long = pd.concat([at_one, found[found.study == "length"]]).sort_values("epochs", kind="stable")
    rows = Rows()
    for arm in (*BOUNDED, *UNBOUNDED):
        own = rated[rated.arm == arm]
        rows.means("reward", arm, "", own, "lr", "reward", geometric=True)
        rows.means("outside", arm, "", own, "lr", "dumped", least=LEAST)
        rows.means("cut", arm, "", own, "lr", "after_truncated_own")
        if arm in POINTWISE:
            _predicted(rows, "outside", own, "lr")
    for arm in (*LONG, "spif" + TOKEN):
        name, _, level = arm.partition(",")
        own = long[long.arm == arm]
        rows.means("change", name, level.strip(), own, "epochs", "change")
        if name != "sft" and not level:
            rows.means("slope", name, "", own, "epochs", "link_slope")
            rows.means("longer", name, "", own, "epochs", "dumped", least=LEAST)
    _predicted(rows, "longer", long[long.arm == "spif"], "epochs")
    before = float(rated.groupby("seed").held_out_truncated_own.first().mean())
    epochs = [float(long.epochs.min()), float(long.epochs.max())]
    lrs = [RATE / 3, 3 * RATE]
    for panel, x, y in (("reward", lrs, 1.0), ("outside", lrs, 0.01), ("cut", lrs, before),
                        ("change", epochs, 0.0), ("slope", epochs, 1.0),
                        ("longer", epochs, 0.01)):  # fmt: skip
        rows.add(panel, "expert", "reference", THEORY, x, y)
    return rows.table()


def _predicted(rows: Rows, panel: str, own: pd.DataFrame, x: str) -> None:
    """The least share outside of the exact round, by x: the mean over seeds."""
    mean = own.groupby(x).least.mean()
    rows.add(panel, own.arm.iloc[0], "least", THEORY, mean.index.to_numpy(), mean.to_numpy())


def plot(table: pd.DataFrame) -> Figure:
    """By learning rate above, by epochs below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _reward, _outside, _cut, _change, _slope, _longer)
    style.letters(axes)
    return fig


def _look(name: str, series: str) -> dict[str, Any]:
    return style.shaped(name, series == "per token", markersize=4.2)


def _names(table: pd.DataFrame, panel: str) -> list[str]:
    there = set(table[table.panel == panel].objective)
    order = ("sft", *BOUNDED, *UNBOUNDED)
    return [name for name in order if name in there]


def _points(ax: Axes, table: pd.DataFrame, panel: str, step: float) -> None:
    draw.baseline(ax, table, panel)
    draw.points(ax, table, panel, _look, draw.dodge(_names(table, panel), step))


def _mass(ax: Axes, table: pd.DataFrame, panel: str, step: float) -> None:
    _points(ax, table, panel, step)
    dash: dict[str, Any] = {"markersize": 8, "markeredgewidth": 1.6}
    least = table[table.series == "least"]
    shift = draw.dodge(_names(table, panel), step)
    draw.points(ax, least, panel, lambda n, _: style.points(n, "_", **dash), shift, kind=THEORY)
    style.log(ax, "y", y={0.01: "1 %", 0.1: "10 %", 0.5: "50 %"})


def _rates(ax: Axes) -> None:
    style.log(ax, "x", x={RATE / 3: ".0003", RATE: ".001", 3 * RATE: ".003"})


def _epochs(ax: Axes) -> None:
    style.log(ax, "x", x={0.5: "½", 1.0: "1", 4.0: "4"})


def _reward(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "reward", 0.07)
    _rates(ax)
    style.log(ax, "y", y={1.0: "1", 10.0: "10", 20.0: "20"})
    looks = {shown(name): _look(name, "") for name in _names(table, "reward")}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    ax.set_ylim(top=60.0)  # room for the legend
    style.label(ax, "learning rate", REWARD, "Rewards and their bound")


def _outside(ax: Axes, table: pd.DataFrame) -> None:
    _mass(ax, table, "outside", 0.07)
    _rates(ax)
    note(ax, 0.03, 0.8, "dashes: exact round", fontsize=7)
    style.label(ax, "learning rate", OUTSIDE, "Mass outside")


def _cut(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "cut", 0.07)
    _rates(ax)
    style.label(ax, "learning rate", "share of cut responses", "Length")


def _change(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "change", 0.09)
    _epochs(ax)
    looks = {shown(name): _look(name, "") for name in _names(table, "change")}
    style.legend(ax, looks, fontsize=6.8, loc="lower left", handletextpad=0.0)
    style.label(ax, "epochs of a round", "change of KL(p‖π) [nats]", "Longer rounds")


def _slope(ax: Axes, table: pd.DataFrame) -> None:
    _points(ax, table, "slope", 0.09)
    _epochs(ax)
    style.label(ax, "epochs of a round", "slope on R(u)", "How much of a best response")


def _longer(ax: Axes, table: pd.DataFrame) -> None:
    _mass(ax, table, "longer", 0.09)
    _epochs(ax)
    style.label(ax, "epochs of a round", OUTSIDE, "Mass outside")
