"""Stability at matched effective step: sampled rounds and true gradient steps, near and far."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
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
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.dynamics.self_play import Data, SelfPlay, beta_at
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.simulator import State
from toy_games.engine.trainable import trainable

SUMMARY = "Final KL against effective step: sample size, start, label noise, supports, inner steps."

STUDIES = ("map", "unseen", "floor", "burn-in", "labels", "outside", "boundary", "early")
EXACT = 0
"""Value of the column ``samples`` of exact rounds."""

TINY = 1e-4
"""Log-ratio, in nats, of starts where the linear theory holds."""
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
    one_step: float = option(0.5, "effective step of burn-in, label noise and wrong support", gt=0)
    label_noise: tuple[float, ...] = option(
        (0.0, 0.02, 0.05, 0.1, 0.2, 0.4), "shares of expert labels replaced", ge=0, lt=1
    )
    surplus: int = option(4, "responses that the expert never gives, study outside", ge=1)
    surplus_mass: float = option(0.3, "their mass at the start", gt=0, lt=1)
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
    """One part an objective, study and sample size, where the objective has what it needs."""
    out = []
    shared = {"seeds": settings.seeds, "outcomes": settings.outcomes, "spread": settings.spread}
    for study in settings.studies:
        for spec in (*settings.objectives, "sft"):
            obj = objective_of(spec)
            if study in ("boundary", "early"):
                if obj is None or obj.missing("risk") is None:
                    given = _sgd_arguments(settings, study)
                    out.append(
                        Cell(f"{study}-{spec}", sgd_study, {"spec": spec, **shared, **given})
                    )
            elif obj is None or obj.has_link:
                for given in _round_arguments(settings, study):
                    name = f"{study}-{spec}-{given['samples']}-{given['noise']}"
                    arguments = {"study": study, "spec": spec, **shared, **given}
                    out.append(Cell(name, rounds_study, arguments))
    return out


def _round_arguments(settings: Settings, study: str) -> list[dict[str, Any]]:
    base = {
        "samples": settings.many,
        "smoothing": settings.smoothing,
        "noise": "uniform",
        "rounds": settings.rounds,
        "steps": (settings.one_step,),
        "reaches": (0.0,),
        "label_noise": (0.0,),
        "surplus": 0,
        "surplus_mass": 0.0,
    }
    if study == "map":
        return [base | {"steps": settings.steps, "reaches": settings.reaches}]
    if study == "unseen":
        return [base | {"samples": n, "smoothing": 0.0} for n in settings.few]
    if study == "floor":
        return [base | {"steps": settings.steps, "samples": n} for n in settings.samples]
    if study == "labels":
        noisy = base | {"label_noise": settings.label_noise}
        return [noisy | {"noise": kind} for kind in ("uniform", "own")]
    both = [base, base | {"samples": EXACT}]
    if study == "outside":
        mass = {"surplus": settings.surplus, "surplus_mass": settings.surplus_mass}
        return [given | mass for given in both]
    # The slowest, IPO and IQ-Learn, move a far log-ratio by one effective step a round.
    enough = int(1.1 * max(settings.reaches) / settings.one_step) + 10
    return [given | {"reaches": settings.reaches, "rounds": enough} for given in both]


def _sgd_arguments(settings: Settings, study: str) -> dict[str, Any]:
    if study == "boundary":
        return {
            "study": study,
            "steps": settings.break_steps,
            "distances": settings.distances,
            "gradient_steps": settings.boundary_steps,
            "inner": settings.inner,
            "batch": None,
        }
    return {
        "study": study,
        "steps": (settings.early_step,),
        "distances": settings.early_distances,
        "gradient_steps": settings.early_steps,
        "inner": settings.inner,
        "batch": settings.batch,
    }


def instance(seeds: int, outcomes: int, spread: float) -> tuple[FloatArray, FloatArray]:
    """Expert laws and directions of the starts, (seeds, N) each; a seed has always its own."""
    streams = Streams(range(seeds))
    drawn = [streams.generator(s, "instance") for s in range(seeds)]
    experts = np.stack([laws.random_law(g, (outcomes,), spread) for g in drawn])
    return experts, np.stack([g.standard_normal(outcomes) for g in drawn])


# -- rounds ---------------------------------------------------------------------------------------


def rounds_study(
    study: str,
    spec: str,
    seeds: int,
    outcomes: int,
    spread: float,
    samples: int,
    smoothing: float,
    noise: str,
    rounds: int,
    steps: tuple[float, ...],
    reaches: tuple[float, ...],
    label_noise: tuple[float, ...],
    surplus: int,
    surplus_mass: float,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Rounds of one objective from starts at the given reaches (0 starts at the expert).

    The table has the path (study outside), the last round (burn-in), or means over every fifth of
    the last half of the rounds (floor, labels, unseen), or over the last 20 (map).
    """
    experts, directions = instance(seeds, outcomes, spread)
    rows = _product(seed=range(seeds), effective_step=steps, reach=reaches, label_noise=label_noise)
    obj = objective_of(spec)
    rows["beta"] = beta_at(obj, rows.effective_step.to_numpy())
    p, v = experts[rows.seed], directions[rows.seed]
    if surplus:
        p[:, -surplus:] = 0.0
        p /= p.sum(-1, keepdims=True)
        start = np.log(_with_surplus(p, v, surplus, surplus_mass))
    else:
        reach = rows.reach.to_numpy()
        far = reach > 0
        start = np.log(p)
        start[far] = far_start(p[far], v[far], reach[far])
    run = SampledRounds(obj, rows, p, start, samples or None, smoothing, noise)
    record: Iterable[int] = range(max(1, rounds - 19), rounds + 1)
    if study == "outside":
        record = simulator.log_steps(rounds)
    elif study == "burn-in":
        record = [rounds]
    elif study != "map":
        record = range(rounds // 2, rounds + 1, 5)
    table = simulator.run(run, record, checkpoint, progress)
    if study != "outside":
        table = _late(table, [*rows.columns])
    extra = {"study": study, "objective": spec, "samples": samples, "noise": noise}
    return table.assign(**extra, rounds=rounds)


def _with_surplus(p: FloatArray, v: FloatArray, surplus: int, mass: float) -> FloatArray:
    """The expert with a share ``mass`` spread over its last ``surplus`` responses by ``e^v``."""
    weight = np.exp(v[:, -surplus:])
    q = (1.0 - mass) * p
    q[:, -surplus:] = mass * weight / weight.sum(-1, keepdims=True)
    return q


def _late(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Means of the measurements over the recorded steps."""
    return table.drop(columns="step").groupby(by, sort=False).mean().reset_index()


# -- gradient steps -------------------------------------------------------------------------------


def sgd_study(
    study: str,
    spec: str,
    seeds: int,
    outcomes: int,
    spread: float,
    steps: tuple[float, ...],
    distances: tuple[float, ...],
    gradient_steps: int,
    inner: float,
    batch: int | None,
    checkpoint: Path | None = None,
    progress: bool = True,
) -> pd.DataFrame:
    """Self-play with k gradient steps a round; ``inner`` = rate lambda, ``distance`` = k inner.

    Study boundary: exact gradients from a tiny deviation; ``growth`` is the growth of its log over
    the second half of the steps, along the eigenvector of lambda. Study early: minibatches from a
    uniform start; means over the last third of the steps.
    """
    experts, directions = instance(seeds, outcomes, spread)
    rows = _product(seed=range(seeds), effective_step=steps, asked=distances)
    k = np.maximum(1, np.round(rows.pop("asked") / inner)).astype(int)
    rows["steps_per_round"], rows["distance"] = k, np.round(k * inner, 9)
    rows = rows.drop_duplicates(ignore_index=True)
    rate, top = steepest(experts)
    obj = objective_of(spec)
    rows["beta"] = beta_at(obj, rows.effective_step.to_numpy())
    rows["rate"] = inner / rate[rows.seed]
    p = experts[rows.seed]
    boundary = study == "boundary"
    start = np.log(p) + TINY * directions[rows.seed] if boundary else np.zeros_like(p)
    measures = {"along": along(top[rows.seed])} if boundary else None
    run = SelfPlay(Softmax(outcomes), obj, rows, p[:, None], start, Data(batch), measures)
    half, last = gradient_steps // 2, gradient_steps
    record = [half, last] if boundary else range(last - last // 3, last + 1, 20)
    table = simulator.run(run, record, checkpoint, progress)
    if boundary:
        first, end = (table[table.step == s].along.to_numpy() for s in (half, last))
        table = rows.assign(growth=np.log(np.maximum(end, ROUNDING) / np.maximum(first, ROUNDING)))
    else:
        table = _late(table, [*rows.columns])
    return table.assign(study=study, objective=spec, gradient_steps=gradient_steps)


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


def inner_factor(step: Any, distance: Any, inner: float) -> FloatArray:
    """Factor of a small log-ratio over a round of ``k = distance/inner`` exact gradient steps.

    ``1 - s (1 - rho^k)`` with ``rho = 1 - inner/s``: to the best response a round goes by the
    effective step s, of which k steps make the share ``1 - rho^k`` (reconstruction, T6 and T15).
    """
    s = np.asarray(step, dtype=float)
    return np.asarray(1.0 - s * (1.0 - (1.0 - inner / s) ** (np.asarray(distance) / inner)))


def breaking_distance(step: Any, inner: float = 0.0) -> FloatArray:
    """Distance ``k rate lambda`` beyond which rounds diverge: `inner_factor` at -1.

    ``inner log(1 - 2/s) / log(1 - inner/s)``, and ``-s log(1 - 2/s)`` for small gradient steps;
    at most every s > 2 has one, it is +inf below and tends to 2 for large s.
    """
    s = np.asarray(step, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.log(1.0 - 2.0 / s)
        found = -s * share if inner == 0 else inner * share / np.log(1.0 - inner / s)
    return np.where(s > 2.0, found, np.inf)


def noise_floor(step: Any, outcomes: int, samples: Any, own: Any = 0.0) -> FloatArray:
    """Stationary KL(p||pi) of sampled rounds near the expert, ``(N-1)/n s/(2-s)``, for s < 2.

    The log-ratio is an autoregression with factor 1 - s, driven by s times the errors of both
    empirical laws, whose variances under p sum to ``2 (N-1)/n`` (reconstruction, T6 linearised).
    A share ``own`` of expert labels that are the policy's own makes the factor 1 - s (1 - own) and
    leaves the errors as they are.
    """
    s, pull = np.asarray(step, dtype=float), np.asarray(step) * (1.0 - np.asarray(own))
    return np.asarray((outcomes - 1) / np.asarray(samples) * s**2 / (pull * (2.0 - pull)))


def slowest_rate(obj: Objective, step: Any, samples: Any, share: float) -> FloatArray:
    """Nats a round by which sampled rounds at least raise a missing response of mass ``share``.

    ``(R(u) - R(0))/beta`` at the largest log-ratio that n samples with smoothing 1/2 can show.
    """
    shown = np.log((np.asarray(samples) * share + 0.5) / 0.5)
    gain = np.asarray(obj.link(shown, 2.0)) - np.asarray(obj.link(0.0, 2.0))
    return np.asarray(gain / beta_at(obj, step))


def tail_mass(
    obj: Objective, step: float, samples: int, rounds: Any, smoothing: float = 0.5
) -> FloatArray:
    """Bound of the expected mass of a response that the expert never gives, after many rounds.

    A round sees it with probability about ``n q`` and then multiplies it at least once by
    ``g = e^{R(log a/(1+a))/beta}``, so that ``E q`` falls at least like ``1/((1-g) n t)``, not
    exponentially, whatever the objective (reconstruction, T6 with samples). Of first order in
    1/n: the drift of the normaliser, about s N/n a round, is left out (t much less than n/(s N)).
    """
    with np.errstate(divide="ignore"):
        shown = np.log(smoothing / (1.0 + smoothing))
    gain = float(np.asarray(obj.link(shown, 0.0))) - float(np.asarray(obj.link(0.0, 0.0)))
    kept = float(np.exp(gain / beta_at(obj, np.asarray(step))))
    return np.asarray(1.0 / ((1.0 - kept) * samples * np.asarray(rounds, dtype=float)))


def _product(**columns: Iterable[Any]) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([list(c) for c in columns.values()], names=list(columns))
    return index.to_frame(index=False)
