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
    "What stochastic gradients estimate, on a token game with 15 responses (a random tree with an "
    "unrestricted policy). (a) Relative bias ||E g - true|| / ||true|| of estimators with groups "
    "of K responses, exact by enumeration of all draws; lines: closed forms, dotted where leading "
    "order; b: fitted slope. (b) Angle between the expectation of every objective's gradient and "
    "SFT's, at the start of a round and at a later point of it. All estimators, with bias, noise "
    "and what they are the gradient of, on this game and on phrases of real text: "
    "results/evidence/estimators.md."
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
    """Biases against the size of groups, and directions."""
    fig, axes = style.panel(2, 1, aspect=0.8, width_ratios=(1.0, 1.25))
    draw.fill(axes, table, _against_size, _angles)
    style.letters(axes)
    return fig


def in_words(table: pd.DataFrame) -> str:
    """All estimators as Markdown tables: bias with interval, noise, angle, and whose gradient."""
    lines = [
        "# What stochastic gradients estimate",
        "<!-- Rendered by `python -m figures.report`. Do not edit. -->",
        "Of figure [audit](../../figures/out/audit.png). Two token games with 15 responses: a "
        "random tree with an unrestricted policy, and phrases of real text with an order-1 policy. "
        "*Bias*: ||E g - true|| / ||true||, exact by enumeration of all draws, with the Monte "
        "Carlo measurement along it (95 % interval over seeds). *Noise*: standard deviation of one "
        "estimate, times the root of the responses that it spends. *Angle*: between expectation "
        "and claim, random tree.",
    ]
    for family, heading in HEADINGS.items():
        rows = ["| estimator | bias, random | bias, text | noise, random | noise, text | angle | "
                "in expectation the gradient of |", "|---|---|---|---:|---:|---:|---|"]  # fmt: skip
        random = table[table.panel == f"{family}, random"]
        for name in random.objective.unique():
            part = random[random.objective == name]
            both = [table[(table.panel == f"{family}, {case}") & (table.objective == name)]
                    for case in ("random", "text")]  # fmt: skip
            really = SHORT.get(part.series.iloc[-1], part.series.iloc[-1])
            nothing = really.startswith("nothing")
            angle = "–" if nothing else f"{part[part.series == 'angle'].y.iloc[0]:.0f}°"
            cells = [*map(_bias, both), *map(_noise, both), angle, really]
            rows.append(f"| {' | '.join([name, *cells]).replace('||', '‖')} |")
        lines += [f"## {heading}", "\n".join(rows)]
    return "\n\n".join(lines) + "\n"


def _bias(part: pd.DataFrame) -> str:
    bias = part[part.series == "bias"].set_index("kind")
    seen = bias.loc[MEASURED]
    exact = bias.loc[THEORY].y
    return f"{exact:.3f}, seen {seen.y:.3f} [{seen.low:.3f}, {seen.high:.3f}]"


def _noise(part: pd.DataFrame) -> str:
    return f"{part[part.series == 'deviation'].y.iloc[0]:.2f}"


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
    style.label(ax, "responses of a group, K", "relative bias", "Biases of groups")


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
    style.label(ax, "", "angle to SFT's gradient [°]", "Direction against SFT's")
