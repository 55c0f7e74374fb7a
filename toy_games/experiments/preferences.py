"""Preference self-play from exact and from sampled preferences (C2, C3, T11, T12).

Parts, by the column ``part``: *gap* (no anchor: last and average policy at horizons of tuned step),
*rate* (gradient descent near the equilibrium, below and above the step that is stable), *floor*
(anchored rounds from K comparisons), *schedule* (Nash-MD with its growing beta), *bias* (the
plug-in estimate), *round* and *loss* (one round of each algorithm, from K samples, against SPPO's).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd

from lab.settings import BaseSettings, option
from lab.streams import Streams
from lab.sweep import Cell
from theory import laws, preferences
from theory.errors import InvalidInput
from theory.result import FloatArray
from toy_games.dynamics.preference_estimates import PlugIn
from toy_games.dynamics.preference_rounds import (
    GAMES,
    NASH_MD,
    PreferenceRounds,
    algorithm_of,
    games,
)
from toy_games.dynamics.preference_sgd import PreferenceSGD
from toy_games.engine import simulator
from toy_games.engine.trainable import left_out, named_problems

SUMMARY = "Preference games: cycles, averages, anchors, and what sampled comparisons do to them."
SPREAD = 0.5  # of random starts and anchors, standard deviation of their logits
NEAR = 1e-8  # distance from the equilibrium at which local rates are measured
CONSTANT_GAIN = "sppo"  # the algorithm that all others' rounds are compared with


def round_problems(spec: str, parts: tuple[str, ...] = ("reward",)) -> list[str]:
    """Check of the objectives of exact rounds: a reward on preferences and its local gain."""
    if problems := named_problems(spec):
        return problems
    algorithm = algorithm_of(spec)
    obj = algorithm.objective
    assert obj is not None
    out = [f"{spec} has no {p}: {obj.missing(p)}" for p in parts if obj.missing(p)]
    try:
        _ = algorithm.gain
    except InvalidInput as error:  # Unavailable is one
        out += error.problems
    return out


def loss_problems(spec: str) -> list[str]:
    """Check of the objectives that are trained: a loss as well."""
    return round_problems(spec, ("reward", "risk"))


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """What is run; every part has the same seeds."""

    objectives: tuple[str, ...] = option(
        ("sppo", "spif(c=2)", "ipo(margin=0.5)", "dpo"),
        "objectives compared at equal effective step",
        check=loss_problems,
    )
    unanchored: tuple[str, ...] = option(
        ("sppo", "dpo"), "objectives played without an anchor", check=round_problems
    )
    games: tuple[str, ...] = option(GAMES, "games played without an anchor", of=GAMES)
    responses: int = option(5, "responses of a game (rock-paper-scissors: 3)", ge=3)
    strength: float = option(0.9, "largest |2P - 1| of a game, in (0, 1)", gt=0, lt=1)
    seeds: int = option(8, "number of seeds, each with its own game and start", ge=3)
    first_seed: int = option(0, "the first of them", ge=0)
    horizons: tuple[int, ...] = option((25, 100, 400, 1600), "rounds without an anchor", ge=1)
    comparisons: int = option(16, "comparisons a response and round without an anchor", ge=1)
    tau: float = option(0.1, "weight of the anchor, nats", gt=0)
    ratios: tuple[float, ...] = option(
        (0.25, 0.5, 0.8, 1.25, 2.0, 4.0, 8.0, 16.0), "beta over its local threshold", gt=0
    )
    rate_rounds: int = option(10, "rounds near the equilibrium", ge=1)
    rate_steps: int = option(40, "exact gradient steps in each of them", ge=1)
    samples: tuple[int, ...] = option(
        (2, 4, 8, 16, 32), "K: group sizes, comparisons a response", ge=2
    )
    groups: int = option(1000, "groups that the plug-in estimate's bias is measured on", ge=1)
    floor_tau: float = option(0.3, "weight of the anchor where the noise is measured, nats", gt=0)
    floor_beta: float = option(20.0, "beta there", gt=0)
    floor_rounds: int = option(1200, "rounds there; the first quarter is left out", ge=8)
    step: float = option(2.0, "effective step gain/beta of the rounds compared", gt=0)
    pair_samples: tuple[int, ...] = option(
        (4, 16, 64, 256), "responses a gradient step, even", ge=2, multiple=2
    )
    group_limit: int = option(64, "largest group of which all are compared with all (SPPO)", ge=2)
    steps: int = option(800, "gradient steps of a round", ge=1)
    rate: float = option(0.2, "learning rate, units of SFT on winners", gt=0)

    @property
    def every_seed(self) -> list[int]:
        """The seeds themselves."""
        return list(range(self.first_seed, self.first_seed + self.seeds))


def cells(settings: Settings) -> list[Cell]:
    """The parts, each independent of the others."""
    s, given = settings, {"s": settings}
    out = [
        Cell(f"gap-{game}-{spec}", gaps, given | {"game": game, "spec": spec})
        for game in s.games
        for spec in s.unanchored
    ]
    for spec in s.unanchored:
        if why := _no_scale(spec):
            out.append(left_out("gap, from comparisons", spec, why))
    out.append(Cell("rate", rates, given))
    out += [Cell(f"floor-{spec}", floors, given | {"spec": spec}) for spec in ("inpo", NASH_MD)]
    out += [Cell("schedule", schedule, given), Cell("bias", biases, given)]
    out.append(Cell("round", one_round, given))
    for spec in (*s.objectives, "sft"):
        out.append(Cell(f"loss-{spec}", one_loss, given | {"spec": spec}))
    return out


def _on_estimates(spec: str) -> bool:
    obj = algorithm_of(spec).objective
    return obj is not None and "preference" in obj.needs


# -- what is played -------------------------------------------------------------------------------


def instances(s: Settings, game: str = "bradley_terry") -> tuple[FloatArray, FloatArray]:
    """Preferences (seeds, n, n) and starts (seeds, n), each from its seed alone."""
    n = 3 if game == "rps" else s.responses
    streams = Streams(s.every_seed)
    drawn = [streams.generator(i, f"game {game}") for i in range(s.seeds)]
    found = games(game, n, drawn, s.strength)
    return found, np.stack([laws.random_law(g, (n,), SPREAD) for g in drawn])


def anchored_instances(s: Settings) -> tuple[FloatArray, FloatArray]:
    """Rock-paper-scissors with certain wins, and an anchor (seeds, 3) a seed."""
    streams = Streams(s.every_seed)
    anchors = [
        laws.random_law(streams.generator(i, "anchor"), (3,), SPREAD) for i in range(s.seeds)
    ]
    return preferences.rock_paper_scissors(), np.stack(anchors)


def _rows(s: Settings, settings: list[dict[str, Any]]) -> tuple[pd.DataFrame, FloatArray]:
    """A line for every setting and seed, and the seed's index in each."""
    rows = pd.DataFrame([{"seed": seed, **one} for one in settings for seed in s.every_seed])
    return rows, np.tile(np.arange(s.seeds), len(settings))


def _table(part: str, algorithm: str, table: pd.DataFrame, **labels: Any) -> pd.DataFrame:
    front = {"part": part, "algorithm": algorithm, **labels}
    for at, (name, value) in enumerate(front.items()):
        table.insert(at, name, value)
    return table


# -- the parts ------------------------------------------------------------------------------------


def gaps(s: Settings, game: str, spec: str, **how: Any) -> pd.DataFrame:
    """Without an anchor: each horizon T with ``beta = Lip sqrt(T/(2 log n))``, its bound's best.

    Exact preferences (``samples`` 0) and, where the reward is a multiple of ``2P - 1``, K
    comparisons. Targets of distances: a Nash equilibrium.
    """
    preference, start = instances(s, game)
    algorithm = algorithm_of(spec)
    constant = _no_scale(spec) is None
    lip = algorithm.gain * s.strength
    tuned = {t: lip * np.sqrt(t / (2.0 * np.log(start.shape[-1]))) for t in s.horizons}
    settings = [
        {"horizon": t, "beta": beta, "samples": k}
        for k in ((0, s.comparisons) if constant else (0,))
        for t, beta in tuned.items()
    ]
    rows, index = _rows(s, settings)
    nash = preferences.nash(preference).policy
    run = PreferenceRounds(spec, rows, preference[index], start[index], target=nash[index])
    table = simulator.run(run, s.horizons, **how)
    table = table[table.step == table.horizon].reset_index(drop=True)
    return _table("gap", spec, table, game=game)


def _no_scale(spec: str) -> str | None:
    """Why comparisons cannot be paid: the reward is no multiple of ``2P - 1``; None if it is."""
    try:
        return None if algorithm_of(spec).scale > 0 else "its reward falls in P"
    except InvalidInput as error:  # Unavailable is one
        return str(error)


def rates(s: Settings, **how: Any) -> pd.DataFrame:
    """Gradient descent on INPO's pair loss from near the equilibrium, with the anchor and without.

    Columns ``ratio`` (beta over the anchored threshold), ``norm`` in L2(z) at the last round and
    ``growth``, its factor a round.
    """
    game, anchor = anchored_instances(s)
    tau, scale = s.tau, algorithm_of("inpo").scale
    star = preferences.regularised_nash(np.stack([game] * s.seeds), anchor, tau, scale).policy
    border = np.array([preferences.local_threshold(game, z, tau, scale) for z in star])
    rows, index = _rows(s, [{"tau": t, "ratio": r} for t in (tau, 0.0) for r in s.ratios])
    rows["beta"] = rows.ratio * border[index]
    rows["rate"] = 1.2 / (rows.beta + rows.tau)  # halves the distance to the round each step
    rows["steps_per_round"] = s.rate_steps
    z = np.where(rows.tau.to_numpy()[:, None] > 0, star[index], 1.0 / 3.0)
    streams = Streams(s.every_seed)
    away = np.stack([streams.generator(i, "direction").standard_normal(3) for i in range(s.seeds)])
    x = away[index] - (z * away[index]).sum(-1, keepdims=True)
    x *= NEAR / np.sqrt((z * x**2).sum(-1, keepdims=True))
    run = PreferenceSGD("inpo", rows, game, z * (1.0 + x), anchor[index], z)
    table = simulator.run(run, [0, s.rate_rounds * s.rate_steps], **how)
    first, last = (table[table.step == step].reset_index(drop=True) for step in table.step.unique())
    last["growth"] = (last.norm / first.norm) ** (1.0 / s.rate_rounds)
    return _table("rate", "inpo", last, game="rps")


def floors(s: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """Anchored rounds from K comparisons, with and without self-comparison, and exact ones.

    The mean of 120 rounds after the first quarter; distances to the equilibrium of the exact game.
    """
    game, anchor = anchored_instances(s)
    star = preferences.regularised_nash(
        np.stack([game] * s.seeds), anchor, s.floor_tau, algorithm_of(spec).scale
    ).policy
    settings = [{"samples": k, "self_comparison": own} for k in s.samples for own in (0, 1)]
    rows, index = _rows(s, [{"samples": 0, "self_comparison": 0}, *settings])
    rows = rows.assign(beta=s.floor_beta, tau=s.floor_tau)
    run = PreferenceRounds(spec, rows, game, anchor[index], anchor[index], star[index])
    record = np.unique(np.linspace(s.floor_rounds // 4, s.floor_rounds, 120).astype(int))
    table = simulator.run(run, record, **how)
    by = [*rows.columns]
    mean = table.groupby(by, sort=False)[["gap", "kl", "tv"]].mean().reset_index()
    return _table("floor", spec, mean, game="rps")


def schedule(s: Settings, **how: Any) -> pd.DataFrame:
    """Nash-MD's published schedule ``beta_t = tau t/2``, exact and from K comparisons."""
    game, anchor = anchored_instances(s)
    tau, scale = s.floor_tau, algorithm_of(NASH_MD).scale
    star = preferences.regularised_nash(np.stack([game] * s.seeds), anchor, tau, scale).policy
    rows, index = _rows(s, [{"samples": k} for k in (0, *s.samples)])
    rows = rows.assign(beta=0.0, beta_growth=0.5 * tau, tau=tau)
    run = PreferenceRounds(NASH_MD, rows, game, anchor[index], anchor[index], star[index])
    table = simulator.run(run, simulator.log_steps(s.floor_rounds, 4), **how)
    return _table("schedule", NASH_MD, table, game="rps")


def biases(s: Settings, **how: Any) -> pd.DataFrame:
    """Bias and variance of the estimate of ``P(y > pi)`` from K own responses, both ways."""
    preference, policy = instances(s)
    settings = [{"samples": k, "self_comparison": own} for k in s.samples for own in (0, 1)]
    rows, index = _rows(s, settings)
    run = PlugIn(rows, preference[index], policy[index])
    table = simulator.run(run, [s.groups], **how)
    return _table("bias", "plug-in", table, game="bradley_terry")


def one_round(s: Settings, **how: Any) -> pd.DataFrame:
    """One exact policy step on payoffs from K comparisons: TV to SPPO's exact round.

    SPPO, SPIF and IPO are one algorithm here: the same numbers at equal step.
    """
    preference, start = instances(s)
    goal = exact_round(preference, start, s.step)
    rows, index = _rows(s, [{"samples": k} for k in s.pair_samples])
    rows = rows.assign(beta=algorithm_of(CONSTANT_GAIN).gain / s.step)
    run = PreferenceRounds(CONSTANT_GAIN, rows, preference[index], start[index], None, goal[index])
    table = simulator.run(run, [1], **how)
    return _table("round", CONSTANT_GAIN, table, game="bradley_terry")


def one_loss(s: Settings, spec: str, checkpoint: Any = None, progress: bool = True) -> pd.DataFrame:
    """One round of gradient steps from the warm start: TV to SPPO's exact round.

    Exact expectations (``samples`` 0) and K fresh responses a step.
    """
    preference, start = instances(s)
    goal = exact_round(preference, start, s.step)
    most = s.group_limit if _on_estimates(spec) else max(s.pair_samples)
    tables = []
    for group in ([0], [k for k in s.pair_samples if k <= most]):
        rows, index = _rows(s, [{"samples": k} for k in group])
        beta = 1.0 if spec == "sft" else algorithm_of(spec).gain / s.step
        rows = rows.assign(beta=beta, rate=s.rate, steps_per_round=s.steps)
        run = PreferenceSGD(spec, rows, preference[index], start[index], None, goal[index])
        own = checkpoint and f"{checkpoint}.{'samples' if group[0] else 'exact'}"
        tables.append(simulator.run(run, [s.steps], own, progress))
    return _table("loss", spec, pd.concat(tables, ignore_index=True), game="bradley_terry")


def exact_round(
    preference: FloatArray, start: FloatArray, step: float, spec: str = CONSTANT_GAIN
) -> FloatArray:
    """Policies (seeds, n) after one exact round of an objective at an effective step."""
    algorithm = algorithm_of(spec)
    assert algorithm.objective is not None
    beta = algorithm.gain / step
    return np.asarray(preferences.self_play(preference, start, algorithm.objective, beta, 1).policy)
