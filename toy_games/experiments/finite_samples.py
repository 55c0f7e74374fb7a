"""Finite samples (T13, T16): what a round does with separable data, and overfitting over rounds.

Four parts. ``descent`` and ``flow``: one round on samples that do not overlap, overlap in part, or
show the same outcomes, by gradient descent and by its flow in geometric time. ``threshold``:
pointwise SPIF on random samples that ask for less or for more mass than there is. ``rounds`` and
``text``: rounds of self-play on n fixed expert samples, beside maximum likelihood (SFT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import torch

from lab.settings import BaseSettings, option
from lab.specs import objective_of
from lab.streams import Streams, frequencies
from lab.sweep import Cell
from theory import laws, objectives
from theory.objectives import Objective
from theory.result import FloatArray
from toy_games.dynamics.flow import Flow
from toy_games.dynamics.measures import ON_SAMPLES, missing_mass
from toy_games.dynamics.self_play import FOREVER, Data, SelfPlay, kl_to_expert
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax, Tokens
from toy_games.engine.simulator import log_steps
from toy_games.engine.trainable import bends, beta_at, left_out, trainable
from toy_games.games.real_text import Phrases, read_phrases
from toy_games.predictions.finite_samples import demanded_mass

SUMMARY = "Margins, unseen mass and overfitting when self-play trains on finite samples."

EXACT = Data(batch=None)
OVERLAPS = {"disjoint": (4, 0, 4), "partial": (3, 2, 3), "same": (0, 8, 0)}
"""Outcomes that show on the expert's side only, on both, on the own side only."""
PER_DECADE = 8
"""Records of the rounds, equally spaced in the logarithm of the step."""


@dataclass(frozen=True)
class Settings(BaseSettings):
    """Settings of all parts; an effective step is ``R'(0)/beta``."""

    objectives: tuple[str, ...] = option(
        ("spin", "spif", "centred_spif", "ipo", "spin_hinge"),
        "objectives besides sft",
        check=trainable(linked=False),
    )
    seeds: int = option(8, "number of seeds", ge=1)
    first_seed: int = option(0, "the first seed; the others follow it", ge=0)
    effective_step: float = option(1.0, "R'(0)/beta, the same for all objectives", gt=0)
    outcomes: int = option(12, "outcomes of the tabular round, at least 9", ge=9)
    rate: float = option(0.5, "learning rate of a round, SFT units", gt=0)
    steps: int = option(1000, "gradient steps of descent in one round", ge=10)
    flow_steps: float = option(1e6, "time that the flow reaches, in gradient steps", ge=1)
    etas: tuple[float, ...] = option(
        (0.5, 1.0, 1.5, 2.0, 3.0), "1/(beta c) of pointwise SPIF", gt=0
    )
    rounds_seeds: int = option(24, "number of seeds of the tabular rounds", ge=1)
    support: int = option(30, "outcomes of the expert of the rounds", ge=2)
    sizes: tuple[int, ...] = option((10, 100, 1000, 10000), "expert samples n of the rounds", ge=1)
    total_steps: int = option(1000, "gradient steps over all rounds", ge=1)
    steps_per_round: int = option(20, "gradient steps of one round", ge=1)
    rounds_step: float = option(0.5, "effective step of the rounds", gt=0)
    rounds_rate: float = option(1.0, "learning rate of the rounds, SFT units", gt=0)
    late_every: int = option(
        0, "steps between further records in the last quarter of the rounds; 0: none", ge=0
    )
    words: int = option(5, "words of the real text", ge=3)
    text_sizes: tuple[int, ...] = option((10, 100), "expert phrases n of the real text", ge=1)
    text_steps: int = option(1000, "gradient steps on the real text", ge=1)
    text_rate: float = option(1.0, "learning rate on the real text, SFT units", gt=0)
    batch: int = option(
        64, "pairs a gradient step on the real text, a multiple of 8", ge=8, multiple=8
    )

    @property
    def late_from(self) -> int:
        """First step of the last quarter of the rounds."""
        return self.total_steps - self.total_steps // 4

    def seeds_of(self, many: bool = False) -> list[int]:
        """The seeds themselves; ``many``: those of the tabular rounds."""
        count = self.rounds_seeds if many else self.seeds
        return list(range(self.first_seed, self.first_seed + count))


def cells(settings: Settings) -> list[Cell]:
    """One cell a part and objective."""
    s, out = settings, []
    for spec in s.objectives:
        given = {"s": s, "spec": spec}
        out.append(Cell(f"descent {spec}", descent, given))
        if bends(objective_of(spec)):
            out.append(Cell(f"flow {spec}", flow, given))
        else:
            out.append(left_out("flow", spec, "its loss is not curved at reward 0: no smooth flow"))
    out.append(Cell("threshold", threshold, {"s": s}))
    for spec in (*s.objectives, "sft"):
        out.append(Cell(f"rounds {spec}", rounds_of, {"s": s, "spec": spec}))
        out.append(Cell(f"text {spec}", text, {"s": s, "spec": spec}))
    return out


# -- one round ------------------------------------------------------------------------------------


def samples(seed: int, overlap: str, outcomes: int) -> tuple[FloatArray, ...]:
    """Expert's law, opponent's law and the frequencies of both sides' samples, each (outcomes,).

    The samples are those of 20 draws a side, given which outcomes show.
    """
    rng = _rng(seed, f"samples {overlap}")
    p, q = laws.random_law(rng, (2, outcomes), 1.0)
    place = rng.permutation(outcomes)
    expert_only, shared, own_only = OVERLAPS[overlap]
    sides = (place[: expert_only + shared], place[expert_only : expert_only + shared + own_only])
    drawn = []
    for law, side in zip((p, q), sides, strict=True):
        counts = np.zeros(outcomes)
        counts[side] = 1 + rng.multinomial(20 - len(side), law[side] / law[side].sum())
        drawn.append(counts / 20)
    return p, q, *drawn


def one_round(s: Settings, spec: str) -> SelfPlay:
    """The batch of all seeds and overlaps, one objective."""
    objective = objective_of(spec)
    rows = pd.DataFrame([{"seed": i, "overlap": o} for o in OVERLAPS for i in s.seeds_of()])
    rows = rows.assign(beta=beta_at(objective, s.effective_step), rate=s.rate)
    parts = [samples(r.seed, r.overlap, s.outcomes) for r in rows.itertuples()]
    p, q, data, own = (np.stack(part)[:, None] for part in zip(*parts, strict=True))
    return on_both(objective, rows, p, q, data, own)


def on_both(
    objective: Objective | None, rows: pd.DataFrame, p: Any, q: Any, data: Any, own: Any
) -> SelfPlay:
    """One tabular round from ``q`` on given samples of both sides, all (rows, 1, N); exact."""
    start = torch.as_tensor(np.log(q))[:, 0]
    given = {"data": data, "own": own}
    rows = rows.assign(steps_per_round=FOREVER)
    policy = Softmax(start.shape[-1])
    return SelfPlay(policy, objective, rows, p, start, EXACT, ON_SAMPLES, given=given)


def descent(s: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """One round by full-batch gradient descent."""
    table = simulator.run(one_round(s, spec), log_steps(s.steps, 4), **how)
    return _labelled(table.assign(time=table.step.astype(float)), "descent", spec)


def flow(s: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """One round by gradient flow, measured five times a decade."""
    run = Flow(one_round(s, spec), s.flow_steps)
    table = simulator.run(run, [*range(0, run.steps, 5), run.steps], **how)
    return _labelled(table, "flow", spec)


def threshold(s: Settings, **how: Any) -> pd.DataFrame:
    """Pointwise SPIF on disjoint samples; ``demanded`` is the mass that its targets ask for."""
    objective = objectives.get("spif")
    rows = pd.DataFrame([{"seed": i, "eta": e} for e in s.etas for i in s.seeds_of()])
    rows = rows.assign(beta=1.0 / rows.eta, rate=s.rate)
    parts = [samples(i, "disjoint", s.outcomes) for i in rows.seed]
    p, q, data, own = (np.stack(part)[:, None] for part in zip(*parts, strict=True))
    beta = rows.beta.to_numpy()
    rows["demanded"] = demanded_mass(objective, beta[:, None], data[:, 0], own[:, 0], q[:, 0])
    run = Flow(on_both(objective, rows, p, q, data, own), s.flow_steps)
    table = simulator.run(run, [*range(0, run.steps, 5), run.steps], **how)
    return _labelled(table, "threshold", "spif")


# -- rounds on n fixed samples --------------------------------------------------------------------

OVERFITTING = {"kl": kl_to_expert, "missing": missing_mass}


def rounds_of(s: Settings, spec: str, **how: Any) -> pd.DataFrame:
    """Tabular rounds on n expert samples of a random expert, own responses in expectation."""
    rows = _rows(s, spec, s.sizes, s.seeds_of(many=True), s.rounds_rate)
    experts = [laws.random_law(_rng(seed), (1, s.support), 1.5) for seed in rows.seed]
    start = np.zeros(s.support)
    run = _on_n_samples(Softmax(s.support), spec, rows, np.stack(experts), start, EXACT)
    record = log_steps(s.total_steps, PER_DECADE)
    if s.late_every:
        record += range(s.late_from, s.total_steps + 1, s.late_every)
    table = simulator.run(run, record, **how)
    return _labelled(table, "rounds", spec)


def text(s: Settings, spec: str, exact: bool = False, **how: Any) -> pd.DataFrame:
    """A tabular token policy on n phrases of real text; ``exact`` takes expectations."""
    phrases = _phrases(s.words)
    policy = Tokens(phrases.game)
    rows = _rows(s, spec, s.text_sizes, s.seeds_of(), s.text_rate)
    experts = np.repeat(phrases.law[None], len(rows), 0)
    data = EXACT if exact else Data(batch=s.batch)
    run = _on_n_samples(policy, spec, rows, experts, np.zeros(policy.size), data)
    table = simulator.run(run, log_steps(s.text_steps, 8), **how)
    return _labelled(table, "text", spec)


@cache
def _phrases(words: int) -> Phrases:
    """Phrases of two words; the expert is the order-1 model of the text."""
    return read_phrases(words, 3, order=1)


def _rows(
    s: Settings, spec: str, sizes: Sequence[int], seeds: Sequence[int], rate: float
) -> pd.DataFrame:
    rows = pd.DataFrame([{"seed": i, "n": n} for n in sizes for i in seeds])
    beta = beta_at(objective_of(spec), s.rounds_step)
    return rows.assign(beta=beta, rate=rate, steps_per_round=s.steps_per_round)


def _on_n_samples(
    policy: Any, spec: str, rows: pd.DataFrame, experts: FloatArray, start: FloatArray, data: Data
) -> SelfPlay:
    """Every row draws its n responses once; the same ones for every objective."""
    drawn = []
    for seed, n, law in zip(rows.seed, rows.n, experts, strict=True):
        uniform = torch.from_numpy(_rng(seed, f"{n} expert samples").random((law.shape[0], n)))
        drawn.append(frequencies(torch.from_numpy(law.copy()), uniform))
    given = {"data": torch.stack(drawn)}
    return SelfPlay(
        policy, objective_of(spec), rows, experts, start, data, OVERFITTING, given=given
    )


def _rng(seed: int, name: str = "expert") -> np.random.Generator:
    return Streams([seed]).generator(0, name)


def _labelled(table: pd.DataFrame, part: str, spec: str) -> pd.DataFrame:
    table.insert(0, "part", part)
    table.insert(1, "objective", spec)
    return table
