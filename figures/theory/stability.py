"""Which objectives settle, cycle or diverge as the effective step R'(0)/beta grows.

Numbers: `table` below, by `theory.self_play`; out/stability.csv.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from figures import draw, style
from figures.sizes import sized
from figures.style import mark, note, shown
from figures.tidy import MEASURED, THEORY, Rows, curves, path_of
from theory import laws, objectives, self_play, theory_card, xp
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.predictions import spif_reach

DRAWN = ("spin", "iq_learn", "spif", "ipo")
MAP = ["spin", "airl", "nwj", "renyi", "exponential", "spif", "centred_spif", "ipo"]
MAP += ["iq_learn", "gail", "policy_only"]
SETTLED, CAP = 1e-3, 1e4
SEEDS, ROUNDS, OUTCOMES = sized(6, 16), sized(300, 800), 20
STEPS = np.geomspace(0.1, 20.0, sized(29, 47))
CAPTION = (
    "Stability against the effective step R'(0)/beta, the same scale for every objective. "
    "Black line: the threshold 2; white bars: the step R'(0)/L up to which descent is "
    "guaranteed from everywhere; B*: SPIF's bound on late u = log p/pi, above and below 0 (less "
    "than 2 eta); between 1/2 and 1 times beta c max u_0 rounds: its burn-in until max u = O(1). "
    f"Points and colours: exact rounds on {SEEDS} random laws, the largest late |u| of all; of "
    "SPIF, IPO and IQ-Learn the geometric mean of the laws' largest with 95 % intervals; lines: "
    "theory. What is chaotic (where the exponent is above 0; those three far beyond step 2) is one "
    "realisation, another on each processor."
)
CLAIMS = ("T6", "T7", "T8", "C4", "C5")
BOUNDED = ("spif", "centred_spif", "ipo", "iq_learn")
REALISATIONS = ("bifurcation", "lyapunov", *(f"map, {name}" for name in BOUNDED))
"""Beyond step 2 the bounded ones neither settle nor diverge; far beyond it they are chaotic."""


def table() -> pd.DataFrame:
    """Late log-ratios by objective and step, SPIF's attractor by eta, burn-in times."""
    rows = Rows()
    rng = np.random.default_rng(4)
    expert, start = (laws.random_law(rng, (SEEDS, OUTCOMES), 1.0) for _ in range(2))
    for name in MAP:
        obj = objectives.get(name)
        card = theory_card(obj)
        sizes = np.stack([late_sizes(obj, expert, start, card.slope_at_zero / s) for s in STEPS])
        if name in BOUNDED:
            runs = pd.DataFrame({"step": np.repeat(STEPS, SEEDS), "size": sizes.ravel()})
            rows.means("map", name, "late |u|", runs, "step", "size", geometric=True)
        else:
            rows.add("map", name, "late |u|", MEASURED, STEPS, sizes.max(axis=1))
        rows.add("map", name, "descent", THEORY, card.slope_at_zero / card.descent_beta, 0.0)
    beyond = STEPS[STEPS > 2.0]
    rows.add("map", "spif", "B*", THEORY, beyond, [max(spif_reach(2.0 * s)) for s in beyond])
    _bifurcation(rows)
    _burn_in(rows, rng)
    return rows.table()


def late_sizes(obj: Objective, expert: FloatArray, start: FloatArray, beta: float) -> FloatArray:
    """Largest |log p/pi_t| of every seed in the last fifth of the rounds, clipped to the axis."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        path = self_play(expert, start, obj, beta, rounds=ROUNDS)
    size = np.nan_to_num(path.details["max_logratio"][-ROUNDS // 5 :], nan=CAP, posinf=CAP)
    return np.asarray(np.clip(size.max(axis=0), SETTLED, CAP))


def _bifurcation(rows: Rows) -> None:
    """SPIF on three outcomes, all etas at once: late log-ratios and the Lyapunov exponent."""
    p = np.array([0.5, 0.3, 0.2])
    eta = np.linspace(3.0, 11.0, sized(201, 641))
    log_q = np.tile(np.log([0.2, 0.45, 0.35]), (len(eta), 1))
    tangent = np.tile([0.3, -0.5, 0.2], (len(eta), 1))
    burn, kept, growth = 500, 16, np.zeros(len(eta))
    total = burn + 400
    for t in range(total):
        u = np.log(p) - log_q
        log_q = np.asarray(xp.log_normalise(log_q + eta[:, None] * np.tanh(0.5 * u)))
        tangent = tangent * (1.0 - 0.5 * eta[:, None] / np.cosh(0.5 * u) ** 2)
        tangent = tangent - (np.exp(log_q) * tangent).sum(-1, keepdims=True)
        size = np.linalg.norm(tangent, axis=-1)
        tangent /= size[:, None]
        growth += np.log(size) if t >= burn else 0.0
        if t >= total - kept:
            rows.add("bifurcation", "spif", "u", MEASURED, eta, np.round(u[:, 2], 4))
    rows.add("lyapunov", "spif", "exponent", MEASURED, eta, growth / (total - burn))
    grid = np.linspace(3.0, 11.0, 33)
    above, below = np.array([spif_reach(x) for x in grid]).T
    rows.add("bifurcation", "spif", "B* above", THEORY, grid, above)
    rows.add("bifurcation", "spif", "B* below", THEORY, grid, -below)


def _burn_in(rows: Rows, rng: np.random.Generator) -> None:
    """Rounds from far starts until max log p/pi_t <= 1 and until KL <= 1, for SPIF and SPIN."""
    reach = np.geomspace(6.0, 150.0, 14)
    p = laws.random_law(rng, (len(reach), 30), 1.0)
    v = rng.standard_normal((len(reach), 30))
    v *= (reach / v.max(-1))[:, None]
    start = p * np.exp(-v)
    start /= start.sum(-1, keepdims=True)
    top = np.max(np.log(p / start), axis=-1)
    for name, beta in (("spif", 1.0), ("spin", 2.0)):
        path = self_play(p, start, objectives.get(name), beta, rounds=int(1.1 * top.max()))
        ratio = np.log(p) - laws.log_law(path_of(path))
        for series, size in (("max log p/π", ratio.max(-1)), ("KL", path.details["kl"])):
            first = np.argmax(size <= 1.0, axis=0)
            rows.add("burn-in", name, series, MEASURED, top, np.maximum(first, 1))
    ends = np.array([6.0, 500.0])
    rows.add("burn-in", "spif", "low", THEORY, ends, 0.5 * ends)
    rows.add("burn-in", "spif", "high", THEORY, ends, ends)


def plot(table: pd.DataFrame) -> Figure:
    """Sizes and map above, bifurcation and price below."""
    fig, (top, bottom) = style.stacked(5.9, 1.0, 1.05)
    draw.fill(top.subplots(1, 2, width_ratios=(1.0, 1.25)), table, _sizes, _map)
    grid = bottom.add_gridspec(2, 2, height_ratios=(3.0, 1.0), width_ratios=(1.35, 1.0))
    _orbit(bottom.add_subplot(grid[0, 0]), bottom.add_subplot(grid[1, 0]), table)
    _price(bottom.add_subplot(grid[:, 1]), table)
    return fig


TICKS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20]


def _sizes(ax: Axes, table: pd.DataFrame) -> None:
    table = table[table.series != "descent"]
    draw.lines(ax, table, "map", lambda name, _: style.line(name) | {"linewidth": 1.6, "zorder": 1})
    for name, _, rows in curves(table[table.objective.isin(DRAWN)], "map", MEASURED):
        out = rows.y >= CAP
        inside, above = (style.points(name, m, markersize=s) for m, s in (("o", 3.4), ("^", 4)))
        ax.plot(rows.x[~out], rows.y[~out], **inside, label=shown(name))
        ax.vlines(rows.x, rows.low, rows.high, color=style.colour(name), linewidth=0.8)
        ax.plot(rows.x[out], rows.y[out], **above)
    ax.axvline(2.0, color="k", linewidth=1.2)
    levels = {1e-3: "settled", 1e-1: "0.1", 1e1: "10", 1e3: "10³", CAP: "diverged"}
    style.log(ax, x=TICKS, y=levels)
    ax.set_ylim(6e-4, 2.5e4)
    ax.legend(loc="upper left", bbox_to_anchor=(-0.02, 0.95), handletextpad=0.1)
    mark(ax, 5.2, 45, "B*", color=style.BLUE)
    style.label(ax, "effective step R'(0)/β", "largest late |log p/π| [nats]", "Beyond step 2 …")


def _map(ax: Axes, table: pd.DataFrame) -> None:
    part = table[(table.panel == "map") & (table.series == "late |u|")]
    grid = part.pivot(index="objective", columns="x", values="y").loc[MAP]
    values = np.clip(grid.to_numpy(), 2e-3, 2 * CAP)
    values = np.where(values >= CAP, 2 * CAP, np.where(values <= 2e-3, 1e-3, values))
    edges = draw.cells(grid.columns.to_numpy(dtype=float)), np.arange(len(MAP) + 1) - 0.5
    mesh = ax.pcolormesh(*edges, values, cmap=draw.heat(), norm=LogNorm(0.05, CAP))
    for i, name in enumerate(MAP):
        bar = table[(table.series == "descent") & (table.objective == name)].x.iloc[0]
        if bar > 0:
            ax.plot([bar, bar], [i - 0.45, i + 0.45], color="white", linewidth=2.2)
    ax.axvline(2.0, color="k", linewidth=1.2)
    mark(ax, 0.105, 3.5, "left of a white bar\n(R'(0)/L): descent\nfrom every start", fontsize=7)
    style.log(ax, "x", x=TICKS, y=dict(enumerate(map(shown, MAP))))
    ax.tick_params(axis="y", labelsize=7.5)
    ax.invert_yaxis()
    ax.grid(False)
    bar = ax.figure.colorbar(mesh, ax=ax, extend="both", shrink=0.95, pad=0.02, aspect=16)
    bar.set_ticks([0.1, 1, 10, 100, 1000], labels=["0.1", "1", "10", "100", "10³"])
    bar.ax.minorticks_off()
    bar.ax.set_title("diverged", fontsize=7, pad=9)
    bar.ax.set_xlabel("settled", fontsize=7, labelpad=8)
    style.label(ax, "effective step R'(0)/β", "", "… bounded rewards cycle, others do not")


def _orbit(ax: Axes, below: Axes, table: pd.DataFrame) -> None:
    bound = style.line("spif") | {"linewidth": 1.2}
    draw.lines(ax, table, "bifurcation", lambda *_: bound)
    for _, _, rows in curves(table, "bifurcation", MEASURED):
        ax.plot(rows.x, rows.y, **style.points("expert", "."), markersize=2.0, rasterized=True)
    for one in (ax, below):
        one.axvline(4.0, color="k", linewidth=1.2)
        one.set_xlim(3.0, 11.0)
    ax.set_ylim(-12, 16)
    mark(ax, 7.2, 13.2, "bounds B*", color=style.BLUE)
    mark(ax, 4.1, -10.5, "η = 4")
    ax.set_xticklabels([])
    style.label(ax, "", "late log p/π of\noutcome 3 [nats]", "SPIF: two-cycle, doubling, chaos")
    for _, _, rows in curves(table, "lyapunov"):
        calm = rows.y <= 0
        below.plot(rows.x[calm], rows.y[calm], ".", color="k", markersize=2)
        below.plot(rows.x[~calm], rows.y[~calm], ".", color=style.RED, markersize=2)
    below.axhline(0, color=style.GREY, linewidth=0.8)
    below.set_ylim(-1.2, 0.8)
    note(below, 0.99, 0.2, "above 0: chaos", color=style.RED, ha="right")
    style.label(below, "η = 1/(βc), effective step η/2", "Lyapunov\nexponent")


def _price(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "burn-in", lambda name, _: style.line(name) | {"linewidth": 1.3})
    draw.points(
        ax, table, "burn-in", lambda name, s: style.points(name, hollow=s == "KL", markersize=3.8)
    )
    style.log(ax)
    ax.set_ylim(0.8, 700)
    note(ax, 0.04, 0.93, "SPIF: lines ½ and 1 × βc max u₀", color=style.BLUE)
    note(ax, 0.98, 0.40, "SPIN, same effective step", color=style.RED, ha="right")
    looks = {
        "until max u ≤ 1 nat": style.points("expert", markersize=3.8),
        "until KL(p‖π) ≤ 1 nat": style.points("expert", hollow=True, markersize=3.8),
    }
    style.legend(ax, looks, loc="lower right", handletextpad=0.1, fontsize=7)
    title = "The price of bounds: a linear burn-in"
    style.label(ax, "βc · max u₀, u = log p/π [nats]", "rounds", title)
