"""Stability at matched effective step: sampled rounds and true gradient steps, near and far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.streams import Streams
from lab.sweep import Cell
from theory import laws
from theory.result import FloatArray
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.simulator import State
from toy_games.engine.trainable import beta_at, left_out, no_best_response, trainable, untrainable

SUMMARY = "Final KL against effective step: sample size, start, label noise, supports, inner steps."

STUDIES = (
    "map", "unseen", "floor", "burn-in", "labels", "outside", "history", "boundary", "early"
)  # fmt: skip
EXACT = 0
"""Value of the column ``samples`` of exact rounds."""

TINY = 1e-4
"""Log-ratio, in nats, of starts where the linear theory holds."""
WINDOWS = range(10, 20), range(40, 50)
"""Rounds whose largest log-ratios study history compares: oscillating ones need more than one."""
ROUNDING = 1e-12
"""Log-ratios below are rounding: they count as this size."""


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """Of all studies; ``reach`` is the start's largest log p/pi, a round's distance is ``k rate
    lambda`` with lambda the largest eigenvalue of the expert's ``diag p - p p^T``."""

    studies: tuple[str, ...] = option(STUDIES, "which studies to run", of=STUDIES)
    objectives: tuple[str, ...] = option(
        ("spin", "spif", "centred_spif", "ipo", "iq_learn")
        + ("exponential", "nwj", "gail", "spin_hinge"),
        "objectives; sft always runs beside them",
        check=trainable(linked=False, loss=False),
    )
    seeds: int = option(5, "number of seeds: each has its own expert, start and samples", ge=1)
    outcomes: int = option(16, "responses N", ge=3)
    spread: float = option(0.7, "standard deviation of the expert's logits, nats", gt=0)
    steps: tuple[float, ...] = option(
        tuple(float(f"{s:.4g}") for s in np.geomspace(0.1, 20.0, 21)),
        "effective steps R'(0)/beta",
        gt=0,
    )
    reaches: tuple[float, ...] = option(
        tuple(float(f"{r:.4g}") for r in np.geomspace(1.0, 100.0, 9)),
        "reach of the starts, nats",
        gt=0,
    )
    samples: tuple[int, ...] = option(
        (100, 300, 1000), "n of each side and round: noise floors", ge=1
    )
    few: tuple[int, ...] = option(
        (10, 30, 100, 300, 1000), "the same, study unseen: smoothing 0", ge=1
    )
    many: int = option(1000, "n of each side and round in the other studies", ge=1)
    smoothing: float = option(0.5, "added to every count of a round's samples", ge=0)
    rounds: int = option(150, "rounds of the map, and of the other studies of rounds", ge=20)
    one_step: float = option(
        0.5, "effective step of burn-in, label noise and wrong support", gt=0, lt=2
    )
    label_noise: tuple[float, ...] = option(
        (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), "shares of expert labels replaced", ge=0, lt=1
    )
    surplus: int = option(4, "responses that the expert never gives, study outside", ge=1)
    surplus_mass: float = option(0.3, "their mass at the start", gt=0, lt=1)
    shares: tuple[float, ...] = option(
        tuple(float(f"{m:.3g}") for m in np.linspace(0.0, 1.0, 21)),
        "shares of the last opponent's responses among own ones, study history", ge=0, le=1,
    )  # fmt: skip
    history_steps: tuple[float, ...] = option(
        tuple(float(f"{s:.3g}") for s in np.linspace(0.3, 6.0, 20)), "steps of that study", gt=0
    )
    far: float = option(20.0, "reach of its far starts, nats", gt=0)
    break_steps: tuple[float, ...] = option(
        (2.2, 3.0, 5.0, 10.0, 20.0), "steps of study boundary", gt=0
    )
    inner: float = option(0.1, "rate times lambda: progress of one gradient step, SFT units", gt=0)
    distances: tuple[float, ...] = option(
        tuple(float(f"{d:.4g}") for d in np.geomspace(1.2, 7.0, 13)),
        "round distances, boundary",
        gt=0,
    )
    boundary_steps: int = option(400, "gradient steps of study boundary", ge=2)
    early_step: float = option(10.0, "effective step of study early (SPIN's beta = 0.1)", gt=0)
    early_distances: tuple[float, ...] = option(
        (0.2, 0.4, 0.8, 1.4, 2.0, 2.6, 3.4, 5.0, 8.0, 14.0), "round distances, early", gt=0
    )
    early_steps: int = option(900, "gradient steps of study early, equal for all", ge=20)
    batch: int = option(64, "pairs a gradient step, study early", ge=8, multiple=8)

    def problems(self) -> list[str]:
        """Surplus responses that leave the expert none."""
        few = self.surplus < self.outcomes - 1
        return [] if few else [f"surplus={self.surplus}; needed is < outcomes - 1"]


def cells(settings: Settings) -> list[Cell]:
    """One part an objective, study and sample size; what a study cannot play is said instead."""
    s, out = settings, []
    both: list[dict[str, Any]] = [{"samples": n} for n in (s.many, EXACT)]
    given = {
        "unseen": [{"samples": n} for n in s.few],
        "floor": [{"samples": n} for n in s.samples],
        "burn-in": both,
        "labels": [{"noise": kind} for kind in ("uniform", "own")],
        "outside": both,
        "history": [{"samples": EXACT}],
    }
    for study, spec in product(s.studies, (*s.objectives, "sft")):
        obj, call = objective_of(spec), CALLS[study]
        lack = untrainable(obj) if study in ("boundary", "early") else no_best_response(obj)
        if lack:
            out.append(left_out(study, spec, lack))
            continue
        for more in given.get(study, [{}]):
            name = "-".join([study, spec, *map(str, more.values())])
            out.append(Cell(name, call, {"settings": s, "spec": spec, **more}))
    return out


def instance(seeds: int, outcomes: int, spread: float) -> tuple[FloatArray, FloatArray]:
    """Expert laws and directions of the starts, (seeds, N) each; a seed has always its own."""
    streams = Streams(range(seeds))
    drawn = [streams.generator(s, "instance") for s in range(seeds)]
    experts = np.stack([laws.random_law(g, (outcomes,), spread) for g in drawn])
    return experts, np.stack([g.standard_normal(outcomes) for g in drawn])


# -- rounds ---------------------------------------------------------------------------------------


def whole_map(settings: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """All effective steps and reaches of the start; means over the last 20 rounds."""
    s = settings
    varied = {"effective_step": s.steps, "reach": s.reaches}
    record = range(max(1, s.rounds - 19), s.rounds + 1)
    return _labelled("map", spec, s, _late(_rounds(s, spec, record, how, varied)))


def unseen(settings: Settings, spec: str, samples: int, **how: Any) -> pd.DataFrame:
    """At the expert without smoothing: one side's samples show what the other's do not."""
    table = _late(_rounds(settings, spec, _second_half(settings), how, n=samples, smoothing=0.0))
    return _labelled("unseen", spec, settings, table, samples)


def floor(settings: Settings, spec: str, samples: int, **how: Any) -> pd.DataFrame:
    """At the expert, all effective steps: how far samples drive the policy away."""
    varied = {"effective_step": settings.steps}
    table = _late(_rounds(settings, spec, _second_half(settings), how, varied, samples))
    return _labelled("floor", spec, settings, table, samples)


def burn_in(settings: Settings, spec: str, samples: int, **how: Any) -> pd.DataFrame:
    """From all reaches until the start is forgotten: the last of so many rounds as that takes."""
    s = settings
    # The slowest, IPO and IQ-Learn, move a far log-ratio by one effective step a round.
    enough = int(1.1 * max(s.reaches) / s.one_step) + 10
    table = _late(_rounds(s, spec, [enough], how, {"reach": s.reaches}, samples))
    return _labelled("burn-in", spec, s, table, samples).assign(rounds=enough)


def labels(settings: Settings, spec: str, noise: str, **how: Any) -> pd.DataFrame:
    """Shares of the expert's labels that are ``noise``: uniform, or the policy's own."""
    varied = {"label_noise": settings.label_noise}
    table = _late(_rounds(settings, spec, _second_half(settings), how, varied, noise=noise))
    return _labelled("labels", spec, settings, table, noise=noise)


def outside(settings: Settings, spec: str, samples: int, **how: Any) -> pd.DataFrame:
    """Responses that the expert never gives and the start does: the whole path."""
    record = simulator.log_steps(settings.rounds)
    table = _rounds(settings, spec, record, how, n=samples, surplus=True)
    return _labelled("outside", spec, settings, table, samples)


def history(settings: Settings, spec: str, samples: int, **how: Any) -> pd.DataFrame:
    """Shares of the last opponent's responses, from next to the expert and from far away.

    ``growth`` is that of the log of the largest log-ratio between the two of `WINDOWS`: from next
    to the expert no run has yet come to its end there.
    """
    s = settings
    varied = {"effective_step": s.history_steps, "reach": (TINY, s.far), "history": s.shares}
    record = sorted({*WINDOWS[0], *WINDOWS[1], s.rounds})
    table = _rounds(s, spec, record, how, varied, n=samples)
    labels = list(table.columns[: table.columns.get_loc("step")])
    first, second = (
        table[table.step.isin(window)].groupby(labels, sort=False).max_logratio.max()
        for window in WINDOWS
    )
    growth = np.log(second.clip(lower=ROUNDING) / first.clip(lower=ROUNDING)).rename("growth")
    end = table[table.step == s.rounds].drop(columns="step").merge(growth.reset_index(), on=labels)
    return _labelled("history", spec, s, end, samples)


def _rounds(
    settings: Settings,
    spec: str,
    record: Iterable[int],
    how: dict[str, Any],
    varied: Mapping[str, Iterable[float]] | None = None,
    n: int | None = None,
    noise: str = "uniform",
    smoothing: float | None = None,
    surplus: bool = False,
) -> pd.DataFrame:
    """Rounds of one objective, a row a seed and each combination of what is ``varied``.

    A reach of 0 starts at the expert. ``n``: samples a side, `EXACT` for none, None for the usual
    number; with ``surplus`` the expert lacks some responses and the start has them.
    """
    s, obj = settings, objective_of(spec)
    columns = {"effective_step": (s.one_step,), "reach": (0.0,), "label_noise": (0.0,)}
    columns |= {"history": (0.0,)}
    rows = _product(seed=range(s.seeds), **{**columns, **(varied or {})})
    rows["beta"] = beta_at(obj, rows.effective_step.to_numpy())
    experts, directions = instance(s.seeds, s.outcomes, s.spread)
    p, v = experts[rows.seed], directions[rows.seed]
    if surplus:
        p[:, -s.surplus :] = 0.0
        p /= p.sum(-1, keepdims=True)
        start = np.log(_with_surplus(p, v, s.surplus, s.surplus_mass))
    else:
        reach, start = rows.reach.to_numpy(), np.log(p)
        far = reach > 0
        start[far] = far_start(p[far], v[far], reach[far])
    n = s.many if n is None else n
    added = s.smoothing if smoothing is None else smoothing
    run = SampledRounds(obj, rows, p, start, n or None, added, noise)
    return simulator.run(run, record, **how)


def _with_surplus(p: FloatArray, v: FloatArray, surplus: int, mass: float) -> FloatArray:
    """The expert with a share ``mass`` spread over its last ``surplus`` responses by ``e^v``."""
    weight = np.exp(v[:, -surplus:])
    q = (1.0 - mass) * p
    q[:, -surplus:] = mass * weight / weight.sum(-1, keepdims=True)
    return q


def _second_half(settings: Settings) -> range:
    return range(settings.rounds // 2, settings.rounds + 1, 5)


def _late(table: pd.DataFrame) -> pd.DataFrame:
    """Means of the measurements over the recorded steps; a row a run."""
    labels = list(table.columns[: table.columns.get_loc("step")])
    return table.drop(columns="step").groupby(labels, sort=False).mean().reset_index()


def _labelled(
    study: str,
    spec: str,
    settings: Settings,
    table: pd.DataFrame,
    samples: int | None = None,
    noise: str = "uniform",
) -> pd.DataFrame:
    n = settings.many if samples is None else samples
    labels = {"study": study, "objective": spec, "samples": n, "noise": noise}
    return table.assign(**labels, rounds=settings.rounds)


# -- gradient steps: k a round; ``inner`` = rate lambda, ``distance`` = k inner --------------------


def boundary(settings: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """Exact gradients from a tiny deviation, along the eigenvector of lambda: does it grow?

    ``growth`` is that of the log of the deviation over the second half of the steps.
    """
    s, last = settings, settings.boundary_steps
    rows, p, v, top = _gradient_rows(s, spec, s.break_steps, s.distances)
    measures = {"along": along(top)}
    run = SelfPlay(
        Softmax(s.outcomes), objective_of(spec), rows, p[:, None], np.log(p) + TINY * v,
        Data(batch=None), measures,
    )  # fmt: skip
    table = simulator.run(run, [last // 2, last], **how)
    first, end = (
        np.maximum(table[table.step == at].along.to_numpy(), ROUNDING) for at in (last // 2, last)
    )
    labels = {"study": "boundary", "objective": spec, "gradient_steps": last}
    return rows.assign(growth=np.log(end / first), **labels)


def early(settings: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """Minibatches from a uniform start, equal steps for all; means over their last third."""
    s, last = settings, settings.early_steps
    rows, p, *_ = _gradient_rows(s, spec, (s.early_step,), s.early_distances)
    obj, data = objective_of(spec), Data(batch=s.batch)
    run = SelfPlay(Softmax(s.outcomes), obj, rows, p[:, None], np.zeros_like(p), data)
    table = _late(simulator.run(run, range(last - last // 3, last + 1, 20), **how))
    return table.assign(study="early", objective=spec, gradient_steps=last)


def _gradient_rows(
    settings: Settings, spec: str, steps: Iterable[float], distances: Iterable[float]
) -> tuple[pd.DataFrame, FloatArray, FloatArray, FloatArray]:
    """Rows of seeds, effective steps and distances; their experts, directions, eigenvectors."""
    s = settings
    experts, directions = instance(s.seeds, s.outcomes, s.spread)
    rows = _product(seed=range(s.seeds), effective_step=steps, asked=distances)
    k = np.maximum(1, np.round(rows.pop("asked") / s.inner)).astype(int)
    rows["steps_per_round"], rows["distance"] = k, np.round(k * s.inner, 9)
    rows = rows.drop_duplicates(ignore_index=True)
    rate, top = steepest(experts)
    rows["beta"] = beta_at(objective_of(spec), rows.effective_step.to_numpy())
    rows["rate"] = s.inner / rate[rows.seed]
    return rows, experts[rows.seed], directions[rows.seed], top[rows.seed]


def steepest(experts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Largest eigenvalue (seeds,) and its eigenvector (seeds, N) of ``diag p - p p^T``."""
    fisher = experts[..., :, None] * np.eye(experts.shape[-1])
    values, vectors = np.linalg.eigh(fisher - experts[..., :, None] * experts[..., None, :])
    return values[..., -1], vectors[..., -1]


def along(vectors: FloatArray) -> Callable[[SelfPlay, State, int], Tensor]:
    """Measure ``|w . log p/pi_t|`` of the policy at the start of the current round."""
    weight = torch.from_numpy(vectors)

    def measure(run: SelfPlay, state: State, step: int) -> Tensor:
        u = run.expert[:, 0].log() - state["opponent"][:, 0]
        return (weight * u).sum(-1).abs()

    return measure


def _product(**columns: Iterable[Any]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([list(c) for c in columns.values()], names=list(columns))
    return index.to_frame(index=False)


CALLS: dict[str, Callable[..., pd.DataFrame]] = {
    "map": whole_map,
    "unseen": unseen,
    "floor": floor,
    "burn-in": burn_in,
    "labels": labels,
    "outside": outside,
    "history": history,
    "boundary": boundary,
    "early": early,
}
