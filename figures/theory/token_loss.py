"""One loss per token: without continuation values, by depth of the tree, at own prefixes.

Numbers: `table` below, by `theory.self_play` on `theory.TokenMDP`, `theory.rounds.one_step` and a
descent by scipy; out/token_loss.csv.
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
from figures.tidy import MEASURED, THEORY, Rows
from theory import TokenMDP, laws, objectives, self_play
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round, partition_gap
from theory.rounds.predictions import spif_burn_in

SPIN, SPIF = objectives.get("spin"), objectives.get("spif")
CENTRED = objectives.get("centred_spif")
WAYS = {"no values": True, "values": False}
"""Rounds of one loss per token, and of one reward per token with soft value iteration."""
BETAS = np.array([0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.3, 1.6, 2.0, 2.5, 3.0])
PATH_BETA, ROUNDS = 2.0, 24
GAMES, STEP = 60, 0.5
NATS, BURN_STEP, HORIZONS = 20.0, 0.5, (1, 2, 3, 4, 5, 6)
DUMP_STEP, FAR, NEGLECTED, DEPTHS = 1.0, 0.95, 1e-9, (1, 2, 3, 4, 5)
OFTEN, OWN_STEPS = (0.25, 0.5, 1.0, 1.5, 1.8, 2.5, 3.5, 5.0), (0.5, 1.0, 3.0)
CAPTION = (
    "One loss per token at the expert's prefixes, which has no continuation values, beside one "
    "reward per token that has (two steps), and rewards per response. Points: exact rounds; lines: "
    "theory. (a) Total variation of SPIN's two rounds from one start, 3 tokens deep; with "
    "independent positions there is none (drawn at 1e-16). (b) KL at beta = "
    f"{PATH_BETA:g}, SPIN's and centred SPIF's; lines: the local factor squared. (c) Fall of KL in "
    f"a round of centred SPIF, eta = {STEP:g}, over eta(1 - eta/2) sum_s d_p Delta_s, in {GAMES} "
    f"random games. (d) Rounds until KL is at most a nat, {NATS:g} nats a token at first, an "
    f"expert with one response, eta = {BURN_STEP:g}; lines: bounds. (e) Mass that a round of "
    f"pointwise SPIF at eta = {DUMP_STEP:g} leaves to tokens that somebody gives; lines: Z per "
    "response, the product of Z per token, e^-eta. (f) Own tokens at prefixes that own responses "
    "visit rho times as often: share of a small log-ratio that a SPIF round goes; points: descent "
    "by BFGS; lines: eta/((1 + rho) + eta(1 - rho)) up to its pole."
)
CLAIMS = ("T14", "C4", "C5")


def table() -> pd.DataFrame:
    """Distances of rounds, KL in nats, rounds, masses and shares."""
    rows = Rows()
    _two_rounds(rows)
    _falls(rows)
    _burn_in(rows)
    _dumped(rows)
    _own_prefixes(rows)
    return rows.table()


def independent(horizon: int, p: Any, q: Any) -> tuple[TokenMDP, FloatArray, FloatArray]:
    """A tree and two policies that have one next-token law at every prefix."""
    game = TokenMDP.tree(vocab=len(p), horizon=horizon, eos=None)
    expert, start = (np.tile(np.log(law), (game.n_states, 1)) for law in (p, q))
    return game, expert, start


# -- with and without values ----------------------------------------------------------------------


def _two_rounds(rows: Rows) -> None:
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=3, horizon=3, eos=None)
    p, start = game.random_policy(rng, 1.0), game.random_policy(rng, 1.0)
    fine = np.unique(np.concatenate([np.geomspace(0.55, 3.2, 60), BETAS]))
    rows.add("apart", "spin", "a tree", THEORY, fine, [apart(game, p, start, b) for b in fine])
    flat = independent(3, np.exp(p[0]), np.exp(start[0]))
    for series, case in {"a tree": (game, p, start), "independent": flat}.items():
        for beta in map(float, BETAS):
            found = [_after(*case, beta, one_step) for one_step in WAYS.values()]
            off = laws.total_variation(*found)
            rows.add("apart", "spin", series, MEASURED, beta, np.maximum(off, 1e-16))
    for name in ("spin", "centred_spif"):
        for series, one_step in WAYS.items():
            path = self_play(p, start, name, PATH_BETA, ROUNDS, one_step=one_step, game=game,
                             level="conditional", progress=False)  # fmt: skip
            kl = path.details["kl"][:, 0]
            rows.add("path", name, series, MEASURED, np.arange(ROUNDS + 1), kl)
            factor = 1.0 - objectives.get(name).slope_at_zero / PATH_BETA
            late = np.arange(ROUNDS // 2, ROUNDS + 1)
            line = kl[-1] * factor ** (2.0 * (late - ROUNDS))
            rows.add("path", name, series, THEORY, late, line)


def _after(
    game: TokenMDP, p: FloatArray, start: FloatArray, beta: float, one_step: bool
) -> FloatArray:
    """Law of responses after a round of SPIN."""
    given: dict[str, Any] = {"game": game, "level": "conditional", "one_step": one_step}
    return game.sequence_law(self_play(p, start, SPIN, beta, 1, progress=False, **given).policy)[0]


def apart(game: TokenMDP, p: FloatArray, start: FloatArray, beta: float) -> float:
    """TV of SPIN's rounds in closed form: ``p^{1/beta} pi^{1-1/beta}`` of tokens, of responses."""
    mixed = p / beta + (1.0 - 1.0 / beta) * start
    tokens = game.sequence_law(mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True))[0]
    log_p, log_q = (game.log_sequence_law(law)[0] for law in (p, start))
    whole = np.exp(log_p / beta + (1.0 - 1.0 / beta) * log_q)
    return float(laws.total_variation(tokens, whole / whole.sum()))


def _falls(rows: Rows) -> None:
    """What a round takes off KL over what tokens take off at least."""
    for seed in range(GAMES):
        rng = np.random.default_rng(seed)
        game = TokenMDP.random(3, 4, rng=rng, concentration=0.3)
        p, start = game.expert, game.random_policy(rng, 0.1)
        assert p is not None
        delta = game.occupancy(p).sum(-1) @ laws.triangular(np.exp(p), np.exp(start))
        least = STEP * (1.0 - 0.5 * STEP) * delta
        for series, one_step in WAYS.items():
            kl = self_play(p, start, CENTRED, 1.0 / STEP, 1, one_step=one_step, game=game,
                           level="conditional", progress=False).details["kl"][:, 0]  # fmt: skip
            rows.add("fall", "centred_spif", series, MEASURED, least, (kl[0] - kl[1]) / least)


# -- by depth -------------------------------------------------------------------------------------


def _burn_in(rows: Rows) -> None:
    expert, start = [1.0 - 1e-14, 1e-14], [np.exp(-NATS), -np.expm1(-NATS)]
    levels: Any = {"per token": "conditional", "per response": "sequence"}
    for horizon in HORIZONS:
        game, p, begun = independent(horizon, expert, start)
        most = int(3 * horizon * NATS / BURN_STEP)
        for series, level in levels.items():
            path = self_play(p, begun, CENTRED, 1.0 / BURN_STEP, most, one_step=True, game=game,
                             level=level, progress=False)  # fmt: skip
            done = int((path.details["kl"][:, 0] <= 1.0).argmax())
            rows.add("burn-in", "centred_spif", series, MEASURED, horizon, done)
        whole = spif_burn_in(horizon * NATS, BURN_STEP)
        token = spif_burn_in(NATS, BURN_STEP, 1.0 / horizon)
        rows.add("burn-in", "centred_spif", "per response", THEORY, horizon, whole.at_least)
        for series, bound in (("at least", token.at_least), ("at most", token.at_most)):
            rows.add("burn-in", "centred_spif", f"per token, {series}", THEORY, horizon, bound)


def _dumped(rows: Rows) -> None:
    """Mass of the responses that have no neglected token, after a round."""
    expert, start = ([share, 1.0 - share, NEGLECTED] for share in (FAR, 1.0 - FAR))
    for depth in DEPTHS:
        game, p, q = independent(depth, *(np.array(of) / sum(of) for of in (expert, start)))
        kept = (game.sequence_tokens[0] < 2).all(-1)
        branches: dict[str, Any] = {"spif": "global", "centred_spif": True}
        for name, branch in branches.items():
            path = self_play(p, q, name, 1.0 / DUMP_STEP, 1, one_step=branch, game=game,
                             level="conditional", progress=False)  # fmt: skip
            left = game.sequence_law(path.policy)[0][kept].sum()
            rows.add("left", name, "per token", MEASURED, depth, left)
        on_expert, on_own = (game.sequence_law(law)[0] for law in (p, q))
        found = one_step_round(on_expert, on_own, SPIF, 1.0 / DUMP_STEP, branch="global")
        rows.add("left", "spif", "per response", MEASURED, depth, 1.0 - found.dumped_mass)
        z = np.exp(partition_gap(on_expert, on_own, SPIF, 1.0 / DUMP_STEP))
        z_token = np.exp(partition_gap(np.exp(p[0]), np.exp(q[0]), SPIF, 1.0 / DUMP_STEP))
        rows.add("left", "spif", "per response", THEORY, depth, z)
        rows.add("left", "spif", "per token", THEORY, depth, z_token**depth)
    rows.add("left", "spif", "bound", THEORY, DEPTHS, np.exp(-DUMP_STEP))


# -- own prefixes ---------------------------------------------------------------------------------


def _own_prefixes(rows: Rows) -> None:
    for eta in OWN_STEPS:
        pole = (eta + 1.0) / (eta - 1.0) if eta > 1.0 else np.inf
        fine = np.linspace(0.1, min(5.5, pole - 0.1), 60)
        line = eta / ((1.0 + fine) + eta * (1.0 - fine))
        rows.add("own", "spif", f"{eta:g}", THEORY, fine, line)
        for often in OFTEN:
            if often < pole:
                rows.add("own", "spif", f"{eta:g}", MEASURED, often, share_gone(eta, often))


def share_gone(eta: float, often: float) -> float:
    """Share of a log-ratio of 1e-4 nats that a round goes at one prefix of three tokens."""
    p, beta = np.array([0.5, 0.3, 0.2]), 1.0 / eta
    q = p * np.exp([1e-4, -2e-4, 0.0])
    q /= q.sum()
    own = often * q

    def risk(move: FloatArray) -> tuple[float, FloatArray]:
        """Logits from the opponent's, in units of 1e-4."""
        log_pi = np.log(q) + 1e-4 * np.append(move, 0.0)
        log_pi -= np.logaddexp.reduce(log_pi)
        r = beta * (log_pi - np.log(q))
        slope = beta * ((p + own) * r - (p - own))
        value = (0.5 * (p + own) * r**2 - (p - own) * r).sum()
        return 1e8 * float(value), 1e4 * (slope - np.exp(log_pi) * slope.sum())[:2]

    found = minimize(risk, np.zeros(2), jac=True, method="BFGS", options={"gtol": 1e-8}).x
    wanted = np.log(p / q)
    return float((found / (1e4 * (wanted[:2] - wanted[2]))).mean())


# -- the picture ----------------------------------------------------------------------------------


def plot(table: pd.DataFrame) -> Figure:
    """With and without values above; burn-in, dumping and own prefixes below."""
    fig, axes = style.panel(3, 2, aspect=1.0)
    draw.fill(axes, table, _apart, _path, _fall, _rounds, _left, _own)
    style.letters(axes)
    return fig


MARKS = {"no values": "o", "values": "s", "per token": "o", "per response": "s"}


def _point(name: str, series: str) -> dict[str, Any]:
    hollow = series in ("values", "per response")
    return style.points(name, MARKS[series], hollow=hollow, markersize=3.8)


def _apart(ax: Axes, table: pd.DataFrame) -> None:
    shown = table[(table.kind == MEASURED) | (table.y > 1e-15)]
    draw.lines(ax, shown, "apart")
    looks = {"a tree": style.points("spin"), "independent": style.points(style.BLACK, "x")}
    draw.points(ax, table, "apart", lambda _, s: looks[s])
    style.log(ax, x=[0.6, 1, 2, 3], y={1e-16: "10⁻¹⁶", 1e-12: "10⁻¹²", 1e-8: "10⁻⁸", 1e-4: "10⁻⁴"})
    ax.set_ylim(2e-17, 1e3)
    note(ax, 0.97, 0.93, "SPIN, a tree", color=style.RED, fontsize=7, ha="right")
    note(ax, 0.97, 0.2, "× independent positions", fontsize=7, ha="right")
    style.label(ax, "β [nats]", "TV of the two rounds", "Two rounds, one at β = 1")


def _path(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "path", lambda name, _: draw.colours(name) | {"linewidth": 1.0})
    turn = (table.x + (table.series == "values")) % 2 == 0  # both nearly coincide: in turn
    draw.points(ax, table[turn], "path", _point)
    style.log(ax, "y", y={1e-12: "10⁻¹²", 1e-8: "10⁻⁸", 1e-4: "10⁻⁴", 1.0: "1"})
    mark(ax, 11.0, 1e-9, "SPIN", color=style.RED, ha="right")
    mark(ax, 15.0, 5e-2, "centred SPIF", color=style.DEEP_SKY)
    note(ax, 0.04, 0.17, "●  one loss per token", fontsize=7)
    note(ax, 0.04, 0.08, "□  with values", fontsize=7)
    style.label(ax, "round t", "KL(p‖πₜ) [nats]", "One end, one local rate")


def _fall(ax: Axes, table: pd.DataFrame) -> None:
    draw.points(ax, table, "fall", lambda n, s: _point(n, s) | {"markersize": 3.2})
    ax.axhline(1.0, color="k", linewidth=1.0)
    style.log(ax, "x", x=[0.01, 0.1, 1])
    ax.set_ylim(0.7, 2.8)
    note(ax, 0.04, 0.93, "□  with values", fontsize=7)
    note(ax, 0.04, 0.85, "●  one loss per token", fontsize=7)
    style.label(ax, "bound of tokens [nats]", "fall of KL / bound", "Descent, by tokens")


def _rounds(ax: Axes, table: pd.DataFrame) -> None:
    dashes = {"per response": "-", "per token, at least": ":", "per token, at most": "--"}
    draw.lines(ax, table, "burn-in", lambda _, s: {"color": "k", "linestyle": dashes[s]})
    draw.points(ax, table, "burn-in", _point)
    ax.set_ylim(0.0, 130.0)
    mark(ax, 3.9, 92.0, "per response", ha="right", color=style.DEEP_SKY)
    mark(ax, 3.2, 40.0, "per token", color=style.DEEP_SKY)
    note(ax, 0.04, 0.93, "dotted: least, dashed: most", fontsize=7)
    style.label(ax, "tokens H", "rounds until KL ≤ 1 nat", "Burn-in by length")


def _left(ax: Axes, table: pd.DataFrame) -> None:
    def line(name: str, series: str) -> dict[str, Any]:
        if series == "bound":
            return {"color": "k", "linestyle": "--"}
        return draw.colours(name)

    draw.lines(ax, table, "left", line)
    draw.points(ax, table, "left", _point)
    style.log(ax, "y", y=[0.05, 0.1, 0.2, 0.5, 1])
    ax.set_ylim(0.025, 1.8)
    mark(ax, 1.1, 1.25, "centred SPIF, per token", fontsize=7, color=style.DEEP_SKY)
    mark(ax, 5.0, 0.49, "per response", fontsize=7, color=style.BLUE, ha="right")
    mark(ax, 2.3, 0.31, "e$^{−η}$", fontsize=8)
    mark(ax, 3.2, 0.1, "per token", fontsize=7, color=style.BLUE, ha="right")
    style.label(ax, "tokens H", "mass left", "Pointwise: not dumped")


SHADES = {"0.5": style.SKY, "1": style.BLUE, "3": style.ORANGE}


def _own(ax: Axes, table: pd.DataFrame) -> None:
    draw.lines(ax, table, "own", lambda _, s: {"color": SHADES[s]})
    draw.points(ax, table, "own", lambda _, s: style.points(SHADES[s], markersize=3.6))
    ax.axvline(2.0, color=style.ORANGE, linewidth=0.8, linestyle=":")
    style.log(ax, "y", y=[0.1, 0.3, 1, 3, 10])
    ax.set_ylim(0.08, 20.0)
    ax.set_xlim(0.0, 5.6)
    mark(ax, 2.15, 8.0, "η = 3, pole at ρ = 2", fontsize=7, color=style.ORANGE)
    mark(ax, 4.2, 0.65, "η = 1", fontsize=7, color=style.BLUE)
    mark(ax, 4.2, 0.2, "η = ½", fontsize=7, color=style.DEEP_SKY)
    style.label(ax, "ρ: own visits / the expert's", "share of u that a round goes", "Own prefixes")
