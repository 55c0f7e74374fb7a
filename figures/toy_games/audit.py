"""What every stochastic gradient estimates: exact bias and noise, by enumeration of all draws.

Numbers: toy_games/experiments/audit.py (`python -m toy_games run audit`); out/audit.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows, curves
from lab.stats import fit_line, intervals
from toy_games import launch
from toy_games.experiments.audit import Settings

SETTINGS = Settings(
    size=sized(3, 4),
    sizes=sized((2, 4, 8), (2, 4, 8, 12)),
    seeds=sized(8, 16),
    samples=sized(3000, 8000),
)
CAPTION = (
    "What stochastic gradients estimate, on two token games with 15 responses (a random tree with "
    "an unrestricted policy; phrases of real text with an order-1 policy). Ticks: bias ||E g - "
    "true|| / ||true|| and standard deviation (of one estimate, times the root of the responses it "
    "spends), exact by enumeration of all draws; discs (random) and squares (text): Monte Carlo "
    f"along the bias, 95 % intervals over {SETTINGS.seeds} seeds. Degrees: angle between "
    "expectation and claim, random tree. Below left: biases of groups fall as 1/K (lines: closed "
    "forms, dotted where leading order; points: enumeration; b: fitted slope). Below right: T15; "
    "first gradients point exactly along SFT's. It FAILS where a premise does: an anchor, no "
    "reference, a mixed opponent; away from pi_t every loss leaves SFT's direction but NWJ (at "
    "beta = 1)."
)
CLAIMS = ("T15", "T17", "T11", "C2")

LOSS, FIRST, LATER, KL, PREFERENCE, POLICY = (
    "self-play loss",
    "first gradient",
    "later gradient",
    "KL penalty",
    "preference from samples",
    "policy gradient",
)
HEADINGS = {
    LOSS: "Self-play losses, for their own risk",
    FIRST: "First gradients of a round, for SFT's",
    KL: "KL penalties, for KL(π‖ref)",
    PREFERENCE: "Preferences from own samples, for their risk",
    POLICY: "Policy gradients, for the expected reward",
}
# Of the registry's losses, all of which are unbiased for their risk, three stand for all.
DRAWN = {
    LOSS: {
        "spin, one pair": "SPIN, one pair (as all losses)",
        "spif, one pair": "SPIF, one pair",
        "ipo, all pairs of 2+2": "IPO, all pairs of 2+2",
        "centred_spif, groups of 2+2, finite-group risk": "centred SPIF 2+2, finite-group risk",
        "centred_spif, groups of 2+2": "centred SPIF 2+2, exact risk",
        "renyi, groups of 2+2": "Rényi 2+2",
    },
    FIRST: {
        "spin": "SPIN",
        "centred_spif": "centred SPIF, groups of 2+2",
        "spin, own at temperature 0.7": "SPIN, own at temperature 0.7",
        "spin, own at temperature 1.3": "SPIN, own at temperature 1.3",
        "spin, own from the top 2 tokens": "SPIN, own from the top 2 tokens",
        "spin, own cut at 2 tokens, false EOS": "SPIN, own cut off, false EOS",
        "ipo, log-ratios divided by length": "IPO, divided by length",
    },
}
SHORT = {
    "KL(pi||ref)": "KL(π‖ref)",
    "KL(ref||pi)": "KL(ref‖π)",
    "token KLs at fixed prefixes, ref||pi": "token KLs(ref‖π), fixed prefixes",
    "token KLs at fixed prefixes": "token KLs, fixed prefixes",
    "the same (T15)": "the same",
    "SFT's less the own law's likelihood": "E log π of expert less own",
    "E_pi R / deviation + O(1/K)": "E R / deviation, + O(1/K)",
    "SFT weighted by 1/length, and longer responses": "SFT weighted by 1/length",
    "E_old k²/2": "E k²/2 under old samples",
}


def table(settings: Settings = SETTINGS) -> pd.DataFrame:
    """Moments of every estimator shown, biases by group size, angles to SFT's gradient."""
    found = launch.run("audit", settings, progress=False)
    rows = Rows()
    by = ["case", "family", "name", "size", "relative_bias", "deviation", "cosine", "really"]
    kept = intervals(found[found.case != "sizes"], by, "measured")
    for case, part in kept.groupby("case", sort=False):
        for family in HEADINGS:
            for row in _shown(part[part.family == family], family).itertuples():
                name, at = str(row.label), f"{family}, {case}"
                rows.add(at, name, "bias", THEORY, 0.0, row.relative_bias)
                rows.add(at, name, "bias", MEASURED, 0.0, row.mean, row.low, row.high)
                rows.add(at, name, "deviation", THEORY, 0.0, row.deviation)
                rows.add(at, name, "angle", THEORY, 0.0, _degrees(row.cosine))
                rows.add(at, name, str(row.really), THEORY, 0.0, 0.0)
    _sizes(rows, found)
    _directions(rows, kept[kept.case == "random"])
    return rows.table()


def _shown(part: pd.DataFrame, family: str) -> pd.DataFrame:
    if family not in DRAWN:
        return part.assign(label=part.name)
    labels = DRAWN[family]
    return part.set_index("name").loc[list(labels)].assign(label=list(labels.values()))


def _degrees(cosine: object) -> float:
    """Angle; 0 where the cosine's last digits know no more."""
    found = float(np.degrees(np.arccos(np.clip(float(str(cosine)), -1.0, 1.0))))
    return found if found > 1e-5 else 0.0


def _sizes(rows: Rows, found: pd.DataFrame) -> None:
    part = found[(found.case == "sizes") & (found.seed == 0)]
    for name, line in part.groupby("name", sort=False):
        form = "closed form" if line.exact.all() else "leading order"
        rows.add("sizes", str(name), form, THEORY, line["size"], line.predicted_bias)
        rows.add("sizes", str(name), form, MEASURED, line["size"], line.relative_bias)


def _directions(rows: Rows, kept: pd.DataFrame) -> None:
    for family in (FIRST, LATER):
        for row in kept[kept.family == family].itertuples():
            if "," not in str(row.name):
                rows.add("angle", str(row.name), family, MEASURED, 0.0, _degrees(row.cosine))
    rows.add("angle", "sft", FIRST, THEORY, 0.0, 0.0)


def plot(table: pd.DataFrame) -> Figure:
    """The list of estimators above, sizes and directions below."""
    fig, (top, bottom) = style.stacked(9.4, 3.0, 1.0, wider=0.6)
    bias, noise, words = top.subplots(1, 3, width_ratios=(1.25, 0.9, 1.25), sharey=True)
    _list(bias, noise, words, table)
    draw.fill(bottom.subplots(1, 2, width_ratios=(1.0, 1.25)), table, _against_size, _angles)
    return fig


LOOKS = {"random": style.points(style.BLUE), "text": style.points(style.ORANGE, "s")}


def _list(bias: Axes, noise: Axes, words: Axes, table: pd.DataFrame) -> None:
    place, names = 0.0, {}
    beside: dict[str, Any] = {"fontsize": 6.8, "va": "center"}
    for family, heading in HEADINGS.items():
        at = bias.get_yaxis_transform()
        mark(bias, -0.02, place, heading, fontweight="bold", ha="right", transform=at)
        place += 1.0
        parts = {case: table[table.panel == f"{family}, {case}"] for case in LOOKS}
        for name in parts["random"].objective.unique():
            for case, shift in (("random", -0.17), ("text", 0.17)):
                part = parts[case][parts[case].objective == name].set_index(["series", "kind"])
                _one(bias, noise, part, place + shift, case)
            part = parts["random"][parts["random"].objective == name]
            nothing = part.series.str.startswith("nothing").any()
            angle = "–" if nothing else f"{part[part.series == 'angle'].y.iloc[0]:.0f}°"
            really = SHORT.get(part.series.iloc[-1], part.series.iloc[-1])
            words.text(0.13, place, angle, ha="right", **beside)
            for plain, text in (("(pi||ref)", "(π‖ref)"), ("(ref||pi)", "(ref‖π)")):
                really = really.replace(plain, text)
            words.text(0.18, place, really, **beside)
            names[place] = name
            place += 1.0
        place += 0.25
    bias.set_ylim(place - 0.4, -0.7)
    bias.set_xscale("symlog", linthresh=0.1, linscale=0.9)
    bias.set_xlim(-0.06, 2.2)
    style.ticks(bias, {0: "0", 0.05: ".05", 0.1: ".1", 0.3: ".3", 1: "1", 2: "2"}, names)
    bias.tick_params(axis="y", length=0, labelsize=6.8)
    bias.axvline(0.0, color="k", linewidth=1.0, zorder=0)
    style.log(noise, "x", x=[0.3, 1, 3, 10])
    noise.set_xlim(0.22, 12)
    for ax in (bias, noise):
        ax.grid(axis="x", alpha=0.25)
        ax.grid(axis="y", alpha=0.15)
    words.set_axis_off()
    words.set_xlim(0.0, 1.0)
    words.set_title("angle, and in expectation\nit is the gradient of", fontsize=8)
    bias.set_xlabel("relative bias (0: unbiased)", fontsize=7.5)
    noise.set_xlabel("deviation · √responses", fontsize=7.5)
    bias.set_title("bias", fontsize=8.5)
    noise.set_title("noise", fontsize=8.5)
    keys = {f"{c}, with interval": LOOKS[k] | {"markersize": 3.4} for k, c in CASES.items()}
    keys["exact"] = style.points("expert", "|", markersize=7)
    place_at = {"bbox_to_anchor": (0.0, -0.015), "handletextpad": 0.1, "borderpad": 0.1}
    style.legend(bias.figure, keys, loc="lower left", fontsize=6.8, **place_at)


CASES = {"random": "random tree", "text": "real text"}


def _one(bias: Axes, noise: Axes, part: pd.DataFrame, place: float, case: str) -> None:
    point, look = part.loc[("bias", MEASURED)], LOOKS[case] | {"markersize": 3.4}
    ends = [[point.y - point.low], [point.high - point.y]]
    bias.errorbar(point.y, place, xerr=ends, elinewidth=0.9, **look)
    exact = style.points("expert", "|", markersize=5.5, zorder=5)
    bias.plot(part.loc[("bias", THEORY)].y, place, **exact)
    noise.plot(part.loc[("deviation", THEORY)].y, place, **look)


BASELINES = {
    "group-mean": (style.BLACK, "group-mean baseline"),
    "renyi": (style.PURPLE, "Rényi"),
    "centred": (style.SKY, "centred SPIF, exact risk"),
    "SPPO": (style.BLUE, "SPPO, itself too"),
    "logit": (style.RED, "logit target"),
}


def _against_size(ax: Axes, table: pd.DataFrame) -> None:
    def look(name: str) -> tuple[str, str]:
        return next(found for start, found in BASELINES.items() if name.startswith(start))

    def dotted(name: str, form: str) -> dict[str, Any]:
        return {"color": look(name)[0], "linestyle": ":" if form == "leading order" else "-"}

    draw.lines(ax, table, "sizes", dotted)
    draw.points(ax, table, "sizes", lambda name, _: style.points(look(name)[0], markersize=4.2))
    for name, _, seen in curves(table, "sizes", MEASURED):
        others = name.startswith("logit")  # compared with K - 1 others
        slope = fit_line(np.log(seen.x - others), np.log(seen.y)).slope
        colour, text = look(name)
        text += f", b={slope:.2f}" + (" in K-1" if others else "")
        mark(ax, seen.x.iloc[-1] * 1.12, seen.y.iloc[-1], text, color=colour, fontsize=6.8)
    sizes = sorted(table[table.panel == "sizes"].x.unique())
    style.log(ax, x=sizes)
    ax.set_xlim(1.8, sizes[-1] ** 2 * 0.95)
    style.label(ax, "responses of a group, K", "relative bias", "Biases of groups: 1/K")


def _angles(ax: Axes, table: pd.DataFrame) -> None:
    part = table[(table.panel == "angle") & (table.kind == MEASURED)]
    names = [n for n in part[part.series == FIRST].objective if n not in ("dpo", "space")]
    for family, colour in ((FIRST, style.BLACK), (LATER, style.RED)):
        values = part[part.series == family].set_index("objective").y.loc[names]
        look = style.points(colour, hollow=family == LATER, markersize=4.6)
        ax.plot(range(len(names)), values, **look)
    ax.axhline(0.0, color="k", linewidth=1.2, zorder=0)
    ax.set_xticks(range(len(names)), [shown(n) for n in names], rotation=60, ha="right")
    ax.tick_params(axis="x", labelsize=6.8)
    ax.set_ylim(-4, 68)
    note(ax, 0.02, 0.92, "● first gradient of a round (θ = θₜ)", fontsize=7)
    note(ax, 0.02, 0.82, "○ a later one (θ ≠ θₜ)", color=style.RED, fontsize=7)
    style.label(ax, "", "angle to SFT's gradient [°]", "Every round starts along SFT's gradient")
