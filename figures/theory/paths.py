"""Paths of solutions: the two equilibria along the anchor's weight, one-step rounds along beta.

Numbers: `table` below, by `theory.solve_path` and `theory.one_step_path`; beside them Clarabel's
saddle points, `theory.self_play`, and descents by scipy that know no branches; out/paths.csv.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.optimize import minimize

from figures import draw, style
from figures.style import mark, note
from figures.tidy import MEASURED, THEORY, Rows, path_of
from theory import laws, objectives, one_step_path, self_play, solve_path
from theory.equilibria.path import Path
from theory.equilibria.problem import Game, Kind
from theory.equilibria.solve import certified, saddle_point
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round

EXPERT, REF = laws.random_law(np.random.default_rng(3), (2, 12), 1.0)
TAUS = np.geomspace(0.01, 30.0, 61)
FEW = TAUS[::10]
COARSE = TAUS[::3]
"""Where the last point and its tangent are tried as the next one."""
ROUNDS, FLOOR = 400, 1e-34
KINDS: tuple[Kind, ...] = ("saddle", "equilibrium")

P, Q = np.array([0.005, 0.005, 0.989, 0.001]), np.array([0.5, 0.49, 0.009, 0.001])
RARE = 3
BETAS = np.geomspace(10.0, 0.8, 49)
TRIED = np.geomspace(0.85, 9.0, 17)
NEXT_TO = np.geomspace(1e-6, 0.3, 12)
SPIF = objectives.get("spif")
CAPTION = (
    "Top: SPIF's saddle point and the equilibrium of its rounds, traced along the anchor's weight "
    "tau (12 responses, random laws, KL(p||pi_ref) = "
    f"{float(laws.kl(EXPERT, REF)):.2f} nats; lines: solve_path; SPIN's equilibrium in closed "
    f"form). Points: (a) saddle points by Clarabel, {ROUNDS} rounds of self-play; (b) difference "
    "quotients of the least value; dotted: first order at both ends. (c) Certified gap of the "
    "point before, of its tangent, and of the point found; lines: tau KL(pi||pi*), which the gap "
    "bounds. Bottom: one-step SPIF, p = (.005, .005, .989, .001), q = (.5, .49, .009, .001), along "
    "beta (lines: one_step_path; dashed: saddles). (d) Mass of the last outcome; rings: folds; "
    "points: descent by BFGS from the opponent q, crosses: from the last law as beta rises. (e) "
    "Risk less that of the near minimum; points: certified global minima. (f) Next to each fold: "
    "distance of minimum and saddle in that mass, and in risk; lines: powers 1/2 and 3/2."
)
CLAIMS = ("T10", "T4")


def table() -> pd.DataFrame:
    """KL, gaps and risks in nats, masses; by tau and by beta."""
    rows = Rows()
    paths = {kind: solve_path(EXPERT, REF, SPIF, TAUS, kind) for kind in KINDS}
    for kind, path in paths.items():
        _distances(rows, "spif", kind, path.policies)
        _slopes(rows, kind)
    _distances(rows, "spin", "equilibrium", geometric(TAUS))
    _solved_otherwise(rows)
    _ends(rows)
    _guesses(rows, solve_path(EXPERT, REF, SPIF, COARSE))
    _branches(rows)
    return rows.table()


# -- along tau ------------------------------------------------------------------------------------


def geometric(tau: FloatArray) -> FloatArray:
    """SPIN's equilibria ``p^{1/(1+tau)} pi_ref^{tau/(1+tau)}``, normalised, (K, n)."""
    share = 1.0 / (1.0 + tau[:, None])
    law = EXPERT**share * REF ** (1.0 - share)
    return law / law.sum(-1, keepdims=True)


def _distances(rows: Rows, name: str, kind: str, policies: FloatArray) -> None:
    rows.add("expert", name, kind, THEORY, TAUS, laws.kl_stable(EXPERT, policies))
    rows.add("reference", name, kind, THEORY, TAUS, laws.kl_stable(policies, REF))


def _slopes(rows: Rows, kind: Kind) -> None:
    """dV/dtau from values a thousandth to both sides."""
    pairs = FEW[:, None] * (1.0 + 1e-3 * np.array([-1.0, 1.0]))
    value = solve_path(EXPERT, REF, SPIF, pairs.ravel(), kind).primal.reshape(pairs.shape)
    slope = np.diff(value, axis=-1) / np.diff(pairs, axis=-1)
    rows.add("reference", "spif", kind, MEASURED, FEW, slope[:, 0])


def _solved_otherwise(rows: Rows) -> None:
    for tau in map(float, FEW):
        found = saddle_point(EXPERT, REF, SPIF, tau, "convex", raise_on_failure=False).policy
        rows.add("expert", "spif", "saddle", MEASURED, tau, laws.kl(EXPERT, found))
        for name, beta in (("spif", 0.5), ("spin", 1.0)):
            last = path_of(self_play(EXPERT, REF, name, beta, ROUNDS, ref=REF, tau=tau))[-1]
            rows.add("expert", name, "equilibrium", MEASURED, tau, laws.kl(EXPERT, last))


def _ends(rows: Rows) -> None:
    """KL(pi||pi_ref) of the saddle point to first order: from the expert, to the reference."""
    u = np.log(EXPERT / REF)
    pay = -np.asarray(SPIF.b(SPIF.link(u)))
    spread, fall = (law @ of**2 - (law @ of) ** 2 for law, of in ((REF, pay), (EXPERT, u)))
    near, far = TAUS[TAUS < 0.25], TAUS[TAUS > 1.0]
    begun = laws.kl(EXPERT, REF) - near * fall / SPIF.slope_at_zero
    rows.add("ends", "spif", "tau to 0", THEORY, near, begun)
    rows.add("ends", "spif", "tau to infinity", THEORY, far, 0.5 * spread / far**2)


def _guesses(rows: Rows, path: Path) -> None:
    """Gaps at a tau of the point found there, of the one before, and of where its tangent led."""
    step = np.diff(np.log(path.tau))[:, None]
    before, found = path.policies[:-1], path.policies[1:]
    ahead = before * np.exp(step * path.speed[:-1] / before)
    tried = {"before": before, "tangent": ahead / ahead.sum(-1, keepdims=True), "found": found}
    for series, policies in tried.items():
        gaps = [gap_of(law, tau) for law, tau in zip(policies, path.tau[1:], strict=True)]
        rows.add("gap", "spif", series, MEASURED, path.tau[1:], np.maximum(gaps, FLOOR))
        if series != "found":
            bounded = path.tau[1:] * laws.kl_stable(policies, found)
            rows.add("gap", "spif", series, THEORY, path.tau[1:], bounded)


def gap_of(policy: FloatArray, tau: float) -> float:
    """The saddle point's certified gap of any policy, nats."""
    game = Game("saddle", EXPERT, REF, SPIF, float(tau))
    return float(certified(game, policy, 0, "a guess", np.inf, False).gap)


# -- along beta -----------------------------------------------------------------------------------

SIDES = ("near", "saddle", "dumped")
"""Parts of the curve in the order in which it meets them as beta falls."""


def _branches(rows: Rows) -> None:
    first, second = one_step_path(P, Q, SPIF, BETAS[[0, -1]], turns=1).folds
    beside = {"near": first.beta * (1.0 + NEXT_TO), "dumped": second.beta * (1.0 - NEXT_TO)}
    betas = np.unique(np.concatenate([BETAS, *beside.values()]).round(9))[::-1]
    path = one_step_path(P, Q, SPIF, betas, turns=2)
    found = pd.DataFrame({"beta": path.beta.round(9), "side": np.take(SIDES, path.side)})
    found = found.assign(mass=path.policies[:, RARE], risk=path.risk)
    by = found.pivot(index="beta", columns="side")
    drawn = by.index.isin(BETAS.round(9))
    for series in SIDES:
        own = by[drawn].mass[series].dropna()
        rows.add("branches", "spif", series, THEORY, own.index, own)
        more = (by[drawn].risk[series] - by[drawn].risk["near"]).dropna()
        rows.add("risk", "spif", series, THEORY, more.index, more)
    for fold in path.folds:
        rows.add("folds", "spif", "fold", THEORY, fold.beta, fold.policy[RARE])
    for series, at in beside.items():
        apart = by.loc[at.round(9)]
        for name in ("mass", "risk"):
            off = (apart[name]["saddle"] - apart[name][series]).abs()
            _beside_fold(rows, f"{name}, {series}", off, 0.5 if name == "mass" else 1.5)
    both = by[drawn].risk["near"].dropna()
    both = both[both.index < 7.0].iloc[::3]
    for beta, risk in both.items():
        least = one_step_round(P, Q, SPIF, beta, branch="global")
        rows.add("risk", "spif", "global", MEASURED, beta, risk_of(least.policy, beta) - risk)
    _descents(rows)


def _beside_fold(rows: Rows, series: str, off: Any, power: float) -> None:
    """A distance against that of beta from the fold, and the power through its first point."""
    rows.add("beside", "spif", series, MEASURED, NEXT_TO, off)
    line = off.iloc[0] * (NEXT_TO / NEXT_TO[0]) ** power
    rows.add("beside", "spif", series, THEORY, NEXT_TO, line)


def risk_of(policy: FloatArray, beta: float) -> float:
    """SPIF's one-step risk of a law, by its payoffs."""
    r = beta * np.log(policy / Q)
    return float(-(P * SPIF.a(r) + Q * SPIF.b(r)).sum())


def _descents(rows: Rows) -> None:
    for beta in TRIED:
        rows.add("branches", "spif", "descent", MEASURED, beta, descent(beta, Q)[RARE])
    law = descent(TRIED[0], Q)
    for beta in TRIED:
        law = descent(beta, law)
        rows.add("branches", "spif", "beta rises", MEASURED, beta, law[RARE])


def descent(beta: float, start: FloatArray) -> FloatArray:
    """Where BFGS on the logits ends: r = beta log(pi/q), slopes ``beta ((p + q) r - (p - q))``."""

    def risk(logits: FloatArray) -> tuple[float, FloatArray]:
        log_pi = logits - np.logaddexp.reduce(logits)
        r, pi = beta * (log_pi - np.log(Q)), np.exp(log_pi)
        slope = beta * ((P + Q) * r - (P - Q))
        value = float((0.5 * (P + Q) * r**2 - (P - Q) * r).sum())
        return value, slope - pi * slope.sum()

    found = minimize(risk, np.log(start), jac=True, method="BFGS", options={"gtol": 1e-9}).x
    return np.asarray(np.exp(found - np.logaddexp.reduce(found)))


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """Along tau above, along beta below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _expert, _reference, _gap, _s_curve, _risk, _beside)
    style.letters(axes)
    return fig


DASHES: dict[str, Any] = {"saddle": "-", "equilibrium": (0, (4, 1.5))}
MARKS = {"saddle": "s", "equilibrium": "o"}
SAID = {
    ("spif", "saddle"): "SPIF, saddle point",
    ("spif", "equilibrium"): "SPIF, rounds",
    ("spin", "equilibrium"): "SPIN, rounds",
}
DECADES = {1e-6: "10⁻⁶", 1e-4: "10⁻⁴", 1e-2: "0.01", 1.0: "1"}


def _line(name: str, kind: str) -> dict[str, Any]:
    return {"color": style.colour(name), "linestyle": DASHES[kind], "linewidth": 1.3}


def _point(name: str, kind: str) -> dict[str, Any]:
    return style.points(name, MARKS[kind], hollow=kind == "equilibrium", markersize=3.8)


def _expert(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "expert", _line)
    draw.points(ax, table, "expert", _point)
    style.log(ax, x=[0.01, 0.1, 1, 10], y=DECADES)
    ax.set_ylim(1e-5, 3)
    looks = {said: _point(*of) | _line(*of) for of, said in SAID.items()}
    style.legend(ax, looks, loc="lower right", fontsize=6.5)
    style.label(ax, "anchor weight τ", "KL(p‖π) [nats]", "From the expert …")


def _reference(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "ends", lambda *_: {"color": "k", "linestyle": ":", "linewidth": 1.2})
    draw.lines(ax, table, "reference", _line)
    draw.points(ax, table, "reference", _point)
    style.log(ax, x=[0.01, 0.1, 1, 10], y=DECADES)
    ax.set_ylim(5e-5, 3)
    note(ax, 0.04, 0.16, "points: dV/dτ", fontsize=7)
    note(ax, 0.04, 0.07, "dotted: first order", fontsize=7)
    style.label(ax, "anchor weight τ", "KL(π‖π$_{ref}$) [nats]", "… to the reference")


GUESSES = {"before": (style.ORANGE, "o"), "tangent": (style.GREEN, "^"), "found": (style.BLUE, "s")}


def _gap(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "gap", lambda _, s: {"color": GUESSES[s][0]})
    draw.points(ax, table, "gap", lambda _, s: style.points(*GUESSES[s], markersize=3.2))
    ax.axhline(1e-9, color="k", linewidth=0.8)
    ticks = {1e-30: "10⁻³⁰", 1e-20: "10⁻²⁰", 1e-10: "10⁻¹⁰", 1.0: "1"}
    style.log(ax, x=[0.01, 0.1, 1, 10], y=ticks)
    ax.set_ylim(1e-34, 1e5)
    note(ax, 0.97, 0.64, "accepted below 1e-9", fontsize=7, ha="right", va="top")
    note(ax, 0.97, 0.5, "lines: τ KL(π‖π*)", fontsize=7, ha="right", va="top")
    for x, y, said, series in (
        (0.04, 0.97, "the point before", "before"),
        (0.97, 0.745, "its tangent", "tangent"),
        (0.04, 0.2, "the point found", "found"),
    ):
        ha = "left" if x < 0.5 else "right"
        note(ax, x, y, said, fontsize=7, color=GUESSES[series][0], ha=ha, va="top")
    style.label(ax, "anchor weight τ", "certified gap [nats]", "Certificates on the way")


BRANCHES = {"near": style.BLUE, "saddle": style.GREY, "dumped": style.RED}


def _branch(name: str, series: str) -> dict[str, Any]:
    dashed = (0, (3, 2)) if series == "saddle" else "-"
    return {"color": BRANCHES[series], "linestyle": dashed, "linewidth": 1.4}


def _s_curve(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "branches", _branch)
    looks = {
        "descent": style.points("expert", markersize=3.4),
        "beta rises": style.points("expert", "x", markersize=5),
    }
    draw.points(ax, table, "branches", lambda _, s: looks[s])
    for row in table[table.panel == "folds"].itertuples():
        ax.plot([row.x], [row.y], **style.points(style.ORANGE, hollow=True, markersize=8))
        over = row.y > 0.01
        at = (row.x * 1.1, row.y) if over else (row.x * 0.88, row.y)
        mark(ax, *at, f"{row.x:.2f}", fontsize=7, ha="left" if over else "right")
    style.log(ax, x=[1, 2, 5, 10], y={1e-3: "0.001", 0.01: "0.01", 0.1: "0.1", 1.0: "1"})
    ax.set_xlim(0.7, 11.0)
    ax.set_ylim(4e-4, 12.0)
    note(ax, 0.04, 0.95, "●  descent from q", fontsize=7)
    note(ax, 0.04, 0.87, "×  β rising, from the last law", fontsize=7)
    mark(ax, 1.9, 0.03, "saddles", fontsize=7, ha="right", color=style.GREY)
    mark(ax, 1.35, 7e-4, "near minimum", fontsize=7, color=style.BLUE)
    mark(ax, 0.9, 0.16, "mass dumped", fontsize=7, color=style.RED)
    style.label(ax, "β [nats]", "mass of the last outcome", "One-step SPIF along β")


def _risk(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "risk", _branch)
    draw.points(ax, table, "risk", lambda *_: style.points("expert", "D", markersize=3.4))
    style.log(ax, "x", x=[1, 2, 3, 5])
    ax.set_xlim(1.25, 7.0)
    ax.set_ylim(-0.45, 0.25)
    note(ax, 0.97, 0.08, "◆ global minimum,\ncertified", fontsize=7, ha="right")
    mark(ax, 1.35, -0.035, "near minimum", fontsize=7, color=style.BLUE)
    mark(ax, 3.2, 0.1, "saddles", fontsize=7, ha="right", color=style.GREY)
    mark(ax, 1.35, -0.17, "mass dumped", fontsize=7, color=style.RED)
    style.label(ax, "β [nats]", "risk less the near one's [nats]", "Least risk: it changes over")


def _beside(ax: Axes, table: pd.DataFrame) -> None:
    marks = {"mass": "o", "risk": "^"}

    def line(name: str, series: str) -> dict[str, Any]:
        return {"color": BRANCHES[series.split(", ")[1]]}

    def look(name: str, series: str) -> dict[str, Any]:
        what, side = series.split(", ")
        return style.points(BRANCHES[side], marks[what], markersize=3.4)

    draw.lines(ax, table, "beside", line)
    draw.points(ax, table, "beside", look)
    style.log(ax, x=DECADES, y={10.0**k: f"10$^{{{k}}}$" for k in (-12, -8, -4, 0)})
    ax.set_ylim(1e-14, 30)
    note(ax, 0.04, 0.95, "●  in mass: power ½", fontsize=7)
    note(ax, 0.97, 0.27, "▲  in risk [nats]: 3⁄2", fontsize=7, ha="right")
    folds = table[table.panel == "folds"].sort_values("x").x
    for y, side, beta in zip((0.17, 0.09), ("near", "dumped"), folds, strict=True):
        said = f"fold at β = {beta:.2f}"
        note(ax, 0.97, y, said, fontsize=7, ha="right", color=BRANCHES[side])
    style.label(ax, "|β/β$_{fold}$ − 1|", "from minimum to saddle", "Next to the folds")
