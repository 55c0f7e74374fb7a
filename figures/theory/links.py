"""Every objective's reward link and potential: formula against numerical optimisation.

Numbers: `table` below, by `theory.objectives`, against numerical minimisers and integrals;
out/links.csv.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize_scalar

from figures import draw, style
from figures.style import note
from figures.tidy import MEASURED, THEORY, Rows, curves
from theory import laws, objectives
from theory.objectives import Objective, derivatives, risk_response
from theory.result import FloatArray

CAPTION = (
    "Every objective pays the reward R(u), a fixed function of the log density ratio u = log p/q "
    "(top; lines: formula, points: the best response found by numerical optimisation in a game of "
    "25 outcomes), and its rounds descend the divergence below it (bottom, two outcomes with "
    "expert probability 0.3; points: integral of the link)."
)
CLAIMS = ("T1", "T5", "C2", "C4")

UNBOUNDED = "spin dpo airl space brier renyi nwj exponential spin_exponential"
GROUPS = {
    "unbounded": (UNBOUNDED, "Unbounded rewards"),
    "bounded": ("spif centred_spif ipo inpo sppo ipm", "Bounded rewards"),
    "one side": ("iq_learn policy_only gail", "Bounded on one side only"),
}
U = np.linspace(-4.0, 4.0, 25)
EXPERT = 0.3


def table() -> pd.DataFrame:
    """Links on u in [-4, 4] and potentials over two-outcome policies, formulas and numbers."""
    rows = Rows()
    own = 1.0 / (1.0 + np.exp(U))
    own, expert = own / own.sum(), own[::-1] / own.sum()
    delta = float(laws.triangular(expert, own))
    fine = np.linspace(-4.0, 4.0, 73)  # with U among them
    p = np.array([EXPERT, 1.0 - EXPERT])
    for group, (names, _) in GROUPS.items():
        for name in names.split():
            obj = objectives.get(name)
            link = np.asarray(obj.link(fine, delta))
            rows.add(f"link, {group}", name, "R(u)", THEORY, fine, link)
            sure = U != 0.0 if name == "ipm" else np.full(U.shape, True)  # any reward at u = 0
            found = _reward(obj, expert, own)
            rows.add(f"link, {group}", name, "R(u)", MEASURED, U[sure], found[sure])
            if obj.missing("potential"):
                continue
            share = np.linspace(0.0, 1.0, 101)[1:-1]
            own_laws = np.stack([share, 1.0 - share], axis=-1)
            rows.add(f"potential, {group}", name, "D", THEORY, share, obj.potential(own_laws, p))
            few = own_laws[4::6]
            quadrature = (p * derivatives.potential_density(obj.link, np.log(p / few))).sum(-1)
            rows.add(f"potential, {group}", name, "D", MEASURED, few[:, 0], quadrature)
    for alpha in (0.2, 0.8):
        skewed = objectives.get("spif", alpha=alpha)
        name = f"spif (alpha={alpha:g})"
        rows.add("link, bounded", name, "R(u)", THEORY, fine, skewed.link(fine))
        rows.add("link, bounded", name, "R(u)", MEASURED, U, _reward(skewed, expert, own))
    return rows.table()


def _reward(obj: Objective, expert: FloatArray, own: FloatArray) -> FloatArray:
    """The reward player's best response without the link; R(0) fixes a free constant."""
    if obj.writes("a", "b"):  # payoffs of a separable game: outcome by outcome
        low, high = np.clip(obj.reward_domain, -30.0, 30.0)

        def loss(r: float, p: float, q: float) -> float:
            return -float(p * obj.a(np.float64(r)) + q * obj.b(np.float64(r)))

        how = {"bounds": (low, high), "options": {"xatol": 1e-9}}
        pairs = zip(expert, own, strict=True)
        found = np.array([minimize_scalar(loss, args=pair, **how).x for pair in pairs])
    else:
        found = risk_response.of_risk(obj.reward_risk, expert, own, obj.up_to_constant)
    found = found - found[len(found) // 2] if obj.up_to_constant else found
    return np.where(np.abs(found) < 1e-7, 0.0, found)  # of which the optimiser knows no more


# Where the names stand, in axis fractions, and whose colour they have.
TEXT: dict[str, list[tuple[float, float, str, str]]] = {
    "link, unbounded": [
        (0.02, 0.93, "u:  SPIN, DPO, AIRL, SPACE, Brier, Rényi", "spin"),
        (0.02, 0.81, "1 + u:  NWJ", "nwj"),
        (0.98, 0.20, "u/2:  exponential, SPIN-exp", "exponential"),
        (0.98, 0.06, "points: best response, optimised", "expert"),
    ],
    "link, bounded": [
        (0.60, 0.93, "SPIF with α = 0.2", "spif"),
        (0.12, 0.06, "SPIF with α = 0.8", "spif"),
    ],
    "link, one side": [
        (0.02, 0.93, "policy-only: (eᵘ − 1)/2", "policy_only"),
        (0.02, 0.81, "GAIL: log(1 + eᵘ)", "gail"),
        (0.98, 0.30, "IQ-Learn: (1 − e⁻ᵘ)/2", "iq_learn"),
    ],
    "potential, unbounded": [
        (0.36, 0.92, "KL(π‖p):  SPIN, DPO, AIRL, …", "spin"),
        (0.36, 0.80, "½ KL(π‖p):  exponential, SPIN-exp", "exponential"),
        (0.36, 0.68, "points: integral of R", "expert"),
    ],
    "potential, bounded": [
        (0.36, 0.92, "IPM: 2 TV(π, p)", "ipm"),
        (0.36, 0.80, "SPIF, centred SPIF: 2 KL(p‖(p+π)/2)", "spif"),
    ],
    "potential, one side": [
        (0.36, 0.92, "IQ-Learn: ¼ χ²(π‖p)", "iq_learn"),
        (0.36, 0.80, "policy-only: ½ KL(p‖π)", "policy_only"),
        (0.36, 0.68, "GAIL: 2 JS(π, p)", "gail"),
    ],
}


def plot(table: pd.DataFrame) -> Figure:
    """A row for each kind of bound: links on the left, potentials on the right."""
    fig, axes = style.panel(2, 3, aspect=0.56)
    for row, (group, (_, title)) in enumerate(GROUPS.items()):
        for ax, what in zip(axes[row], ("link", "potential"), strict=True):
            panel = f"{what}, {group}"
            _draw(ax, table, panel)
            for x, y, text, name in TEXT[panel]:
                side = "right" if x in (0.60, 0.98) else "left"
                note(ax, x, y, text, color=style.colour(name), ha=side)
        left, right = axes[row]
        style.label(left, "log-ratio u = log p/q [nats]", "reward R(u) [nats]", title)
        left.axhline(0, color=style.GREY, linewidth=0.6, zorder=0)
        said = "What rounds with these rewards descend" if row == 0 else ""
        style.label(right, "π(outcome 1), expert p = 0.3", "potential D(π‖p) [nats]", said)
        right.axvline(EXPERT, color=style.GREY, linewidth=0.8, linestyle=":", zorder=0)
    kappa = table[(table.panel == "link, bounded") & (table.objective == "ipo")].y.max()
    texts = {
        "ipm": "IPM: sign u",
        "spif": "SPIF, centred: tanh(u/2)",
        "ipo": f"IPO: κ tanh(u/2), κ = {kappa / np.tanh(2.0):.2f}",
        "sppo": "SPPO: ½ tanh(u/2)",
        "inpo": "INPO: ½ κ tanh(u/2)",
    }
    looks = {text: style.line(name) for name, text in texts.items()}
    place = {"loc": "lower right", "bbox_to_anchor": (1.02, -0.04), "labelspacing": 0.2}
    style.legend(axes[1, 0], looks, **place, fontsize=7, handlelength=2.2)
    for ax, limit in zip(axes[:, 0], ((-4.6, 5.6), (-3.3, 2.9), (-4, 6)), strict=True):
        ax.set_ylim(*limit)
    for ax, top in zip(axes[:, 1], (1.7, 1.8, 1.1), strict=True):
        ax.set_ylim(-0.04, top)
    return fig


def _draw(ax: Axes, table: pd.DataFrame, panel: str) -> None:
    """Lines, and points of objectives in turn, so that equal ones do not hide each other."""
    backwards = table[::-1]  # the first of the list on top
    draw.lines(ax, backwards, panel, lambda name, _: style.line(name) | {"linewidth": 1.6})
    groups: dict[tuple[float, ...], int] = {}
    for name, _, rows in curves(table, panel, MEASURED):
        same = tuple(rows.y.round(4))
        first = groups[same] = groups.get(same, -1) + 1
        some = rows.iloc[first % 4 :: 4 if len(rows) > 20 else 2]
        ax.plot(some.x, some.y, **style.points(name, markersize=3.6, zorder=3))
