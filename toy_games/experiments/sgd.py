"""Stochastic gradient steps against the exact one-step rounds, on the responses of a token MDP.

Five parts, each for every objective with a loss or a risk (SPPO has no expert law; GAIL and IPM
have no loss per pair, for the reasons that the registry gives):

* ``round``: full-batch descent within one round, in each class of policies, against its minimiser;
* ``floor``: minibatches around that minimiser, and where finite groups go instead;
* ``contraction``: the factor of a round of many steps near the fixed point;
* ``steps``: the same factor for 1, 2, 4, ... steps a round, from SFT to the exact round;
* ``path``: rounds from a random start, against the exact path in the class.

The hinge loss has no exact round (its best responses are many): its ``excess`` above the value of
the linear program takes the place of a distance.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.sweep import Cell
from theory.objectives import names
from toy_games.dynamics.self_play import Data, Measure, SelfPlay, kl_to_expert
from toy_games.engine import simulator
from toy_games.engine.simulator import State
from toy_games.engine.trainable import left_out, trainable, untrainable
from toy_games.games.sgd_case import CLASSES, Case, chain_factor, least_hinge, shares
from toy_games.predictions.linearised import distance, fisher, step_factor

SUMMARY = (
    "SGD on the one-step losses against exact rounds: rates, noise floors, few steps, classes."
)
PARTS = ("round", "floor", "contraction", "steps", "path")


PLAYED = tuple(n for n in names() if (o := objective_of(n)) is not None and not untrainable(o))


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """Which parts are run, on which game, and how finely."""

    parts: tuple[str, ...] = option(PARTS, f"parts to run, of {', '.join(PARTS)}", of=PARTS)
    objectives: tuple[str, ...] = option(
        PLAYED, "objectives; SFT runs beside them", check=trainable(linked=False)
    )
    classes: tuple[str, ...] = option(
        CLASSES, f"classes of policies, of {', '.join(CLASSES)}", of=CLASSES
    )
    seeds: int = option(8, "number of seeds of the minibatches", ge=1)
    game: int = option(0, "seed of the game, its expert and the starts", ge=0)
    vocab: int = option(2, "tokens, EOS included", ge=2)
    horizon: int = option(3, "largest number of tokens of a response", ge=2)
    step: float = option(0.5, "effective step R'(0)/beta of the parts round, floor and path", gt=0)
    effective: tuple[float, ...] = option(
        (0.25, 0.5, 1.5), "effective steps of the other parts", gt=0
    )
    rate: float = option(0.3, "learning rate, SFT units", gt=0)
    steps: int = option(240, "gradient steps of a round", ge=20)
    rounds: int = option(2, "rounds of the parts over rounds", ge=1)
    batch: int = option(64, "pairs a gradient step, in the parts over rounds", ge=1)
    group: int = option(4, "responses a side and group of group objectives", ge=1)
    reach: float = option(0.3, "root mean square of log p/pi_0 of the starts near p, nats", gt=0)
    floor_batches: tuple[int, ...] = option((8, 64), "pairs a gradient step, part floor", ge=1)
    floor_rates: tuple[float, ...] = option((0.1, 0.2, 0.4), "learning rates of part floor", gt=0)
    counts: tuple[int, ...] = option(
        (1, 2, 4, 8, 16, 32, 64, 128), "steps a round, where varied", ge=1
    )

    def problems(self) -> list[str]:
        """Batches that cannot be cut into groups."""
        sizes = (self.batch, *self.floor_batches) if self.group >= 1 else ()
        wrong = [n for n in sizes if n % self.group]
        return [f"batch {n} is not a multiple of group={self.group}" for n in wrong]


def cells(settings: Settings) -> list[Cell]:
    """One part, objective and class each."""
    made = []
    for part, spec in product(settings.parts, (*settings.objectives, "sft")):
        if why := lacking(part, Case(spec)):
            made.append(left_out(part, spec, why))
            continue
        families = settings.classes if part in ("round", "path") else ("tokens",)
        for family in families if Case(spec).has_round else ("tokens",):
            arguments = {"part": part, "spec": spec, "family": family, "settings": settings}
            made.append(Cell(f"{part}-{spec}-{family}", one, arguments))
    return made


def lacking(part: str, case: Case) -> str | None:
    """Why a part is not for an objective; None if it is."""
    if case.no_round:
        return case.no_round
    if not case.has_round and part != "round":
        return "its loss has no curvature at reward 0, hence no one exact round to be held to"
    if part == "steps" and not case.starts_as_sft:
        return "its rounds do not start along SFT's gradient (T15): few steps are no SFT"
    if part == "contraction" and case.objective is None:
        return "its rounds are all one: there is nothing to contract"
    return None


def one(
    part: str,
    spec: str,
    family: str,
    settings: Settings,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Table of one cell, with its part, objective and class in front."""
    case = Case(spec, family, settings.vocab, settings.horizon, settings.game)
    make = {"round": within, "floor": floors, "contraction": contraction}
    make |= {"steps": few_steps, "path": along_path}
    table = make[part](case, settings, {"checkpoint": checkpoint, "progress": progress})
    for at, (name, value) in enumerate([("part", part), ("objective", spec), ("class", family)]):
        table.insert(at, name, value)
    return table


def _play(
    case: Case,
    rows: list[dict[str, Any]],
    start: Tensor,
    measures: dict[str, Measure],
    data: Data,
    ref: Tensor | None = None,
    given: dict[str, Tensor] | None = None,
) -> SelfPlay:
    ref = case.ref if ref is None else ref
    table = pd.DataFrame(rows)
    return SelfPlay(
        case.policy, case.objective, table, case.expert, start, data, measures, ref, given
    )


def _row(case: Case, effective: float, **columns: Any) -> dict[str, Any]:
    weights = {"beta": case.beta(effective), "tau": case.tau(effective)}
    return {"seed": 0, "effective": effective, **weights, **columns}


def _from(target: Tensor) -> Measure:
    return lambda run, state, step: distance(run.log_law(state)[:, 0], target)


# -- the parts ------------------------------------------------------------------------------------


def within(case: Case, settings: Settings, how: dict[str, Any]) -> pd.DataFrame:
    """Distance D to the round's minimiser after k full-batch steps; excess risk for the hinge.

    ``predicted`` is the linearised distance from the step ``anchor`` on (where the distance is a
    thousandth of the start's, or after three quarters of the steps), ``factor`` its slowest factor
    a step, ``mismatch`` the distance of the minimiser found from the iterate to the exact round,
    which was computed without it.
    """
    theta = case.start()
    row = _row(case, settings.step, rate=settings.rate, steps_per_round=settings.steps)
    record = range(0, settings.steps + 1, max(1, settings.steps // 60))
    own = case.round(case.log_law(theta), settings.step)
    if not case.has_round:
        least = least_hinge(case.expert.numpy(), own.opponent.exp().numpy())

        def excess(run: SelfPlay, state: State, step: int) -> Tensor:
            return run.loss(state["theta"], state, step) - least

        run = _play(case, [row], theta, {"excess": excess}, Data(batch=None))
        return simulator.run(run, record, **how)
    target = case.path(theta, settings.step, 1)[1]
    run = _play(case, [row], theta, {"distance": _from(target)}, Data(batch=None))
    state, anchor = run.start(), 0
    first = distance(case.log_law(theta), target)
    while anchor < 3 * settings.steps // 4:
        state, anchor = run.advance(state, anchor), anchor + 1
        if distance(run.log_law(state)[0, 0], target) < 1e-3 * first:
            break
    at = state["theta"][0]
    local = own.near(own.minimise(at))
    size = float(run.step_size[0])
    table = simulator.run(run, record, **how)
    line = local.decay(at, size, (table.step - anchor).clip(lower=0))
    return table.assign(
        predicted=np.where(table.step >= anchor, line, np.nan),
        anchor=anchor,
        factor=local.rate(size),
        mismatch=float(distance(case.log_law(local.theta), target)),
    )


def floors(case: Case, settings: Settings, how: dict[str, Any]) -> pd.DataFrame:
    """Mean square distance of minibatch steps that begin at the minimiser, over the later half.

    ``from_limit`` is the distance to the minimiser of the expected minibatch loss, ``predicted``
    that of the Lyapunov equation; ``from_exact`` that to the exact round, ``bias`` the square of
    the distance between the two (0 but for groups).
    """
    theta, tables = case.start(), []
    own = case.round(case.log_law(theta), settings.step, settings.group)
    exact = case.path(theta, settings.step, 1)[1]
    local = own.near(own.minimise(case.theta_of(exact)))
    limit = case.log_law(local.theta)
    bias = float(distance(limit, exact)) ** 2
    rows = [
        _row(case, settings.step, seed=seed, rate=rate, steps_per_round=10**6)
        for rate, seed in product(settings.floor_rates, range(settings.seeds))
    ]
    for batch in settings.floor_batches:
        measures = {"from_limit": _from(limit), "from_exact": _from(exact)}
        data = Data(batch=batch, group=settings.group)
        run = _play(case, rows, theta, measures, data, given={"theta": local.theta})
        late = range(settings.steps, 2 * settings.steps + 1, 5)
        file = how["checkpoint"] and Path(how["checkpoint"]).with_suffix(f".{batch}.npz")
        table = simulator.run(run, late, **{**how, "checkpoint": file})
        table[list(measures)] **= 2
        table = table.groupby([*run.rows], as_index=False, sort=False)[list(measures)].mean()
        examples = batch // settings.group if case.grouped else batch
        sizes = run.step_size.tolist()
        predicted = [local.floor(size, examples) for size in sizes]
        tables.append(table.assign(batch=batch, step_size=sizes, predicted=predicted, bias=bias))
    return pd.concat(tables, ignore_index=True)


def contraction(case: Case, settings: Settings, how: dict[str, Any]) -> pd.DataFrame:
    """Factor of a round of many steps, measured from both sides of the fixed point.

    ``predicted`` is the factor of small log-ratios; ``exact`` that of exact rounds measured like
    SGD's, from the same starts, both with groups of the size drawn; ``unlimited`` is ``exact`` of
    exact laws.
    """
    ref, tables = case.expert.log(), []
    rows, starts, centres = [], [], []
    for effective, sign in product(settings.effective, (1.0, -1.0)):
        centre = case.fixed_point(effective)
        theta = case.theta_of(case.beside(centre, sign * settings.reach))
        for seed in range(settings.seeds):
            columns = {"rate": settings.rate, "steps_per_round": settings.steps, "sign": sign}
            rows.append(_row(case, effective, seed=seed, **columns))
            starts.append(theta)
            centres.append(centre)
    start, centre = torch.stack(starts), torch.stack(centres)
    table = _factors(case, settings, rows, start, centre, ref, [settings.steps], how)
    for effective in settings.effective:
        size = (effective, settings.reach, settings.rounds)
        numbers = {
            "predicted": case.local_factor(effective, settings.group),
            "exact": case.factor(*size, settings.group),
            "unlimited": case.factor(*size),
        }
        tables.append(table[table.effective == effective].assign(**numbers))
    return pd.concat(tables, ignore_index=True)


def few_steps(case: Case, settings: Settings, how: dict[str, Any]) -> pd.DataFrame:
    """Factor of a round of k steps along the steepest direction at the expert, for every k."""
    theta = case.theta_of(case.expert.log())
    values, vectors = fisher(case.policy, theta)
    scale = settings.reach / float(values[-1]) ** 0.5
    rows, starts = [], []
    effective = settings.effective if case.objective is not None else settings.effective[:1]
    for step, sign, count in product(effective, (1.0, -1.0), settings.counts):
        for seed in range(settings.seeds):
            columns = {"rate": settings.rate, "steps_per_round": count, "sign": sign}
            rows.append(_row(case, step, seed=seed, **columns))
            starts.append(theta + sign * scale * vectors[:, -1])
    start, centre = torch.stack(starts), case.expert.log().expand(len(rows), -1)
    table = _factors(case, settings, rows, start, centre, centre[0], settings.counts, how)
    rho = {step: case.local_factor(step, settings.group) for step in effective}
    predicted = [
        float(step_factor(rho[step], settings.rate, float(values[-1]), count))
        for step, count in zip(table.effective, table.steps_per_round, strict=True)
    ]
    return table.assign(predicted=predicted, eigenvalue=float(values[-1]))


def _factors(
    case: Case,
    settings: Settings,
    rows: list[dict[str, Any]],
    start: Tensor,
    centre: Tensor,
    ref: Tensor,
    counts: Iterable[int],
    how: dict[str, Any],
) -> pd.DataFrame:
    """Factor of a round in every run: mean over the runs from both sides of the centre."""
    first = case.policy.log_law(start)[:, 0]

    def share(run: SelfPlay, state: State, step: int) -> Tensor:
        return shares(run.log_law(state)[:, 0], first, centre)

    data = Data(batch=settings.batch, group=settings.group)
    run = _play(case, rows, start, {"share": share}, data, ref)
    record = {count * t for count in counts for t in range(settings.rounds + 1)}
    table = simulator.run(run, record, **how)
    table["round"] = table.step // table.steps_per_round
    table = table[(table.step % table.steps_per_round == 0) & (table["round"] <= settings.rounds)]
    by = [c for c in run.rows if c != "sign"]
    sides = table.groupby([*by, "round"], sort=False).share.mean().unstack("round")
    sides["measured"] = chain_factor(sides.to_numpy().T)
    return sides.measured.reset_index()


def along_path(case: Case, settings: Settings, how: dict[str, Any]) -> pd.DataFrame:
    """Distance to the exact path in the class after all rounds of k steps, from a random start.

    ``limit`` is measured to the path of rounds with groups of the size drawn; ``kl`` to the expert.
    """
    theta = case.start()
    exact = case.path(theta, settings.step, settings.rounds)[-1]
    limit = case.path(theta, settings.step, settings.rounds, settings.group)[-1]
    rows = [
        _row(case, settings.step, seed=seed, rate=settings.rate, steps_per_round=count)
        for count, seed in product(settings.counts, range(settings.seeds))
    ]
    measures = {"distance": _from(exact), "limit": _from(limit), "kl": kl_to_expert}
    data = Data(batch=settings.batch, group=settings.group)
    run = _play(case, rows, theta, measures, data)
    table = simulator.run(run, {count * settings.rounds for count in settings.counts}, **how)
    table = table[table.step == table.steps_per_round * settings.rounds].reset_index(drop=True)
    p = case.expert
    return table.assign(exact_kl=float((p * (p.log() - exact)).sum()))
