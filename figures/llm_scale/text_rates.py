"""A language model on real text: learning rates and effective steps of one epoch, beside SFT.

Numbers: results/llm_text_rates.json and llm_text_steps.json, which `make llm-text FULL=1` writes
(llm_scale/campaign); out/text_rates.csv.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import llm_text
from figures.style import note, shown
from figures.tidy import THEORY, Rows
from llm_scale.campaign.experiments import SLOW
from llm_scale.campaign.plan import PUBLISHED_BETA, RATE

CAPTION = (
    "The text game: responses of up to 32 tokens of text by a language model of 1.7 M weights"
    " whose probabilities are known; learners of 0.28 M weights, trained beforehand on other "
    "prompts; one epoch of 3,072 prompts with one response each, AdamW, effective step 1 "
    "unless said; means and 95 % Student intervals over five seeds, on prompts that nothing "
    "was chosen by. (a, b, c) Change of KL to the expert by learning rate; grey: as it was. "
    "(a) Losses of reward differences: SPIN (unbounded), IPO and centred SPIF with K = 4 "
    "(bounded). (b) Pointwise losses, which see the level: SPIF (bounded), SPACE and NWJ "
    "(unbounded). (c) Rewards per token (hollow) beside those per response. (d) By effective "
    "step at rate 0.001. (e) Change of KL at rate 0.0001 over that of SFT; dashes: (1 + "
    "1/K)^-1/2. (f) At the published beta = 0.1: SPIN, and the chi^2 loss of the first "
    "author's code with its two constants."
)
CLAIMS = ("C5", "C6", "S5", "S7", "S8", "T15", "T17")

DIFFERENCES = ("spin", "ipo", "centred_spif")
LEVELS = ("spif", "space", "nwj")
TOKEN = ", per token"
AUTHOR = {"author, a=1/2": "a = ½", "author, a=1": "a = 1"}
CHANGE = "change of KL(p‖π) [nats]"
FIRST = ("spin", "ipo", "spif", "centred_spif")


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text().assign(change=lambda rows: rows.kl - rows.kl_before)
    rated = found[(found.study == "rate") & (found["round"] == 0)]
    rows = Rows()
    for panel, arms in (("differences", DIFFERENCES), ("levels", LEVELS), ("tokens", ())):
        own = rated[(rated.lr > SLOW) & rated.arm.isin((*arms, "sft"))]
        rows.each(panel, _named(own, "lr"), "lr", "change", "")
    for name in ("spin", "spif"):
        for series, arm in (("", name), ("per token", name + TOKEN)):
            own = rated[(rated.lr > SLOW) & (rated.arm == arm)].sort_values("lr", kind="stable")
            rows.means("tokens", name, series, own, "lr", "change")
    lrs = sorted(rated.lr[rated.lr > SLOW].unique())
    for panel in ("differences", "levels", "tokens"):
        rows.add(panel, "expert", "start", THEORY, lrs, 0.0)
    at_one = rated[(rated.lr == RATE) & rated.arm.isin(("spin", "ipo", "spif"))]
    stepped = pd.concat([found[found.study == "step"], at_one])
    stepped = stepped[stepped.arm.isin(("spin", "ipo", "spif"))]
    rows.each("steps", _named(stepped, "effective_step"), "effective_step", "change", "")
    rows.add("steps", "expert", "start", THEORY, [0.25, 10.0], 0.0)
    _first_steps(rows, rated[rated.lr == SLOW])
    same = found[(found.beta == PUBLISHED_BETA) & found.study.isin(("step", "constants"))]
    names = {"spin": 0.0} | {arm: 1.0 + i for i, arm in enumerate(AUTHOR)}
    for arm, at in names.items():
        own = same[same.arm == arm].assign(at=at)
        rows.means("beta", "spin" if arm == "spin" else "spif", arm, own, "at", "change")
    rows.add("beta", "expert", "start", THEORY, [0.0, 2.0], 0.0)
    return rows.table()


def _named(found: pd.DataFrame, x: str) -> pd.DataFrame:
    return found.assign(objective=found.arm).sort_values(["objective", x], kind="stable")


def _first_steps(rows: Rows, slow: pd.DataFrame) -> None:
    """Every seed's change over that of SFT, and what noise alone predicts."""
    change = slow.set_index(["arm", "seed"]).change
    for at, arm in enumerate(FIRST):
        share = (change[arm] / change["sft"]).rename("share").reset_index().assign(at=float(at))
        rows.means("first", arm, "", share, "at", "share")
        own_samples = float(slow[slow.arm == arm].K.iloc[0])
        rows.add("first", arm, "noise", THEORY, float(at), (1.0 + 1.0 / own_samples) ** -0.5)
    rows.add("first", "expert", "SFT", THEORY, [0.0, len(FIRST) - 1.0], 1.0)


def plot(table: pd.DataFrame) -> Figure:
    """Rates above; steps, first steps and published constants below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _differences, _levels, _tokens, _steps, _first, _beta)
    style.letters(axes)
    return fig


def _look(name: str, series: str) -> dict[str, Any]:
    return style.shaped(name, series == "per token", markersize=4.2)


def _rates(ax: Axes, table: pd.DataFrame, panel: str, title: str) -> None:
    draw.baseline(ax, table, panel)
    there = set(table[table.panel == panel].objective)
    names = [name for name in ("sft", *LEVELS, *reversed(DIFFERENCES)) if name in there]
    draw.points(ax, table, panel, _look, draw.dodge(names, 0.07))
    style.log(ax, "x", x={RATE / 3: ".0003", RATE: ".001", 3 * RATE: ".003"})
    looks = {shown(name): _look(name, "") for name in names}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    style.label(ax, "learning rate", CHANGE, title)


def _differences(ax: Axes, table: pd.DataFrame) -> None:
    _rates(ax, table, "differences", "Losses of differences")


def _levels(ax: Axes, table: pd.DataFrame) -> None:
    _rates(ax, table, "levels", "Losses that see the level")
    ax.set_ylim(top=1.6)  # room for the legend


def _tokens(ax: Axes, table: pd.DataFrame) -> None:
    _rates(ax, table, "tokens", "Per response, per token")
    note(ax, 0.03, 0.6, "hollow: per token", fontsize=7)


def _steps(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "steps")
    draw.points(ax, table, "steps", _look, draw.dodge(["spin", "ipo", "spif"], 0.1))
    style.log(ax, "x", x={0.25: "¼", 1.0: "1", 2.5: "2.5", 10.0: "10"})
    looks = {shown(name): _look(name, "") for name in ("spin", "ipo", "spif")}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    style.label(ax, "effective step", CHANGE, "Effective steps")


def _first(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "first")
    dash: dict[str, Any] = {"markersize": 9, "markeredgewidth": 1.6}
    noise = table[table.series == "noise"]
    draw.points(ax, noise, "first", lambda n, _: style.points(n, "_", **dash), kind=THEORY)
    draw.points(ax, table, "first", _look)
    ax.set_xticks(range(len(FIRST)), ["SPIN", "IPO", "SPIF", "centred\nK = 4"])
    ax.set_ylim(0.5, 1.05)
    note(ax, 0.03, 0.05, "grey: SFT   dashes: noise alone", fontsize=7)
    style.label(ax, "", "change of KL, over SFT's", "First steps of Adam")


def _beta(ax: Axes, table: pd.DataFrame) -> None:
    draw.baseline(ax, table, "beta")
    draw.points(ax, table, "beta", lambda name, _: _look(name, ""))
    ax.set_xticks(range(3), ["SPIN", *(f"χ²\n{text}" for text in AUTHOR.values())])
    ax.set_xlim(-0.4, 2.4)
    style.label(ax, "", CHANGE, "Published beta = 0.1")
