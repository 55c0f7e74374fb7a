"""A language model on real text: own responses that are not what the game is of.

Numbers: results/llm_text_recipes.json and results/llm_text_recipes_others.json, which
`make llm-text ONLY="recipes recipes_others" FULL=1` writes (llm_scale/campaign);
out/text_recipes.csv.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.recorded import base, llm_text
from figures.tidy import THEORY, Rows

CAPTION = (
    "The text game, two rounds of an epoch at the published beta of 0.1: the chi^2 loss of the "
    "first author's code at rate 0.001, and SPIN at 0.0001; five seeds, means "
    "and 95 % intervals. Own responses are drawn whole at temperature 1, as theory has it; at "
    "0.7; greedily; where they are cut after 32 tokens, closed there by an end; or to prompts "
    "without their last token. Hollow: first round; filled: second. Change since the start (30.2 "
    "and 37.3 nats, 65 % cut): (a) of KL from the expert to the model; (b) of KL from the model "
    "to the expert; (c) of the share of the model's responses that are cut. (d) Change of KL "
    "from the expert to the model under IPO and pointwise SPIF at effective step 1 and rate "
    "0.00033, and where their rewards are divided by the number of tokens (linear to 1, "
    "logarithmic beyond)."
)
CLAIMS = ("S7",)
ERRORS = {"": "as is", ", own at temperature 0.7": "T = .7", ", own at temperature 0": "greedy",
          ", cut own ended": "closed", ", own of a cut prompt": "cut prompt"}  # fmt: skip
"""What an arm's name ends with, and what is done to its own responses."""
PLAYED = ("author, a=1/2", "spin")
BY_LENGTH, NORMALISED = "by length", ("ipo", "spif")
"""Of the panel of divided rewards, and its arms."""
FORWARD = r"change of KL(p $\|$ $\pi$) [nats]"
PANELS = {"forward": "kl", "reverse": "reverse_kl", "cut": "after_truncated_own"}
START = {"forward": "kl_before", "reverse": "reverse_kl_before", "cut": "held_out_truncated_own"}


def table() -> pd.DataFrame:
    """From the recorded runs."""
    found = llm_text()
    found = found[found.study == "recipe"]
    first = found[found["round"] == 0].set_index(["arm", "seed"])
    start = first.loc[list(zip(found.arm, found.seed, strict=True))]
    for panel, column in PANELS.items():
        found = found.assign(**{panel: found[column] - start[START[panel]].to_numpy()})
    rows = Rows()
    for panel in PANELS:
        for arm in PLAYED:
            place = {f"{arm}{end}": float(at) for at, end in enumerate(ERRORS)}
            own = found[found.arm.isin(list(place))]
            own = own.assign(place=own.arm.map(place))
            for round_, mine in own.groupby("round"):
                rows.means(panel, base(arm), f"round {round_}", mine, "place", panel)
        rows.add(panel, "expert", "start", THEORY, [0.0, len(ERRORS) - 1.0], 0.0)
    for arm in NORMALISED:
        place = {arm: 0.0, f"{arm}, {BY_LENGTH}": 1.0}
        own = found[found.arm.isin(list(place))]
        for round_, mine in own.assign(place=own.arm.map(place)).groupby("round"):
            rows.means(BY_LENGTH, arm, f"round {round_}", mine, "place", "forward")
    rows.add(BY_LENGTH, "expert", "start", THEORY, [0.0, 1.0], 0.0)
    return rows.table()


def plot(table: pd.DataFrame) -> Figure:
    """KL both ways, and length."""
    fig, axes = style.panel(2, 2, aspect=0.62)
    draw.fill(axes, table, _forward, _reverse, _cut, _by_length)
    style.letters(axes)
    return fig


def _look(name: str, series: str) -> dict[str, Any]:
    return style.shaped(name, series == "round 0")


def _points(
    ax: Axes, table: pd.DataFrame, panel: str, names: Sequence[str], step: float, x: Sequence[str]
) -> None:
    """Both rounds of each name side by side at every place on the axis, which x tells."""
    draw.baseline(ax, table, panel)
    side = draw.dodge(list(names), step, log=False)
    later = {"round 0": -step / 5, "round 1": step / 5}
    draw.points(ax, table, panel, _look, lambda n, s, at: side(n, s, at) + later[s])
    style.ticks(ax, x=dict(enumerate(x)))


def _own(ax: Axes, table: pd.DataFrame, panel: str, y: str, title: str) -> None:
    _points(ax, table, panel, [base(arm) for arm in PLAYED], 0.3, list(ERRORS.values()))
    style.label(ax, "own responses", y, title)


def _forward(ax: Axes, table: pd.DataFrame) -> None:
    _own(ax, table, "forward", FORWARD, "From the expert")


def _reverse(ax: Axes, table: pd.DataFrame) -> None:
    _own(ax, table, "reverse", r"change of KL($\pi$ $\|$ p) [nats]", "To the expert")


def _cut(ax: Axes, table: pd.DataFrame) -> None:
    looks = {"chi^2, first author": _look("spif", "round 1"), "SPIN": _look("spin", "round 1")}
    style.legend(ax, looks, fontsize=6.8, loc="lower right", handletextpad=0.0)
    _own(ax, table, "cut", "change of share that is cut", "Length")


def _by_length(ax: Axes, table: pd.DataFrame) -> None:
    ax.set_yscale("symlog", linthresh=1.0)
    _points(ax, table, BY_LENGTH, NORMALISED, 0.2, ["summed", "divided by length"])
    style.ticks(ax, y=(-1, 0, 1, 3, 10, 30))
    looks = {name.upper(): _look(name, "round 1") for name in NORMALISED}
    style.legend(ax, looks, fontsize=6.8, loc="upper left", handletextpad=0.0)
    style.label(ax, "rewards", FORWARD, "Rewards by length")
