"""The recorded gaps of anchored runs: `python -m llm_scale.study.gap_runs --out runs/llm-gap.json`.

SPIN and SPIF at one effective step and anchors of one strength, by the trainer as it is; a round's
row has the gap that the trainer reports and what is exact of the same model, from listed laws.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from lab import streams
from lab.specs import objective_of
from lab.sweep import Cell, run_cells
from llm_scale.data.tasks import KnownExpert
from llm_scale.measure.predicted import RewardTerms
from llm_scale.settings import Settings, resolve
from llm_scale.store.identity import code
from llm_scale.study import exact_gap
from llm_scale.study.columns import Floats, Row, kl
from llm_scale.study.exact_gap import Laws
from llm_scale.study.tiny_model import effective_step, expert_law, law, played, rounds_of
from llm_scale.study.tiny_runs import AT_ONE, PRESET, record, rounded
from llm_scale.train import Parts
from theory.command import program
from theory.errors import NotConverged
from theory.files import write_whole
from theory.rounds.two_step import self_play

PLAYED = ("spin", "spif")
ANCHORS = (0.5, 1.0, 3.0)
"""``tau/R'(0)``: with it, and the effective step, both games are one to first order."""
RATE = 1e-3
KEPT = ("gap", "gap_se", "gap_kl", "gap_reason", "learned_gap", "learned_gap_se",
        "learned_gap_reason")  # fmt: skip
"""What the run's own telemetry says of the same round, from held-out samples."""
FULL = "make llm-gap FULL=1"


@dataclass(frozen=True)
class Size:
    """How much is run: rounds and their steps, held-out prompts, and samples drawn again."""

    seeds: tuple[int, ...]
    anchors: tuple[float, ...]
    rounds: int
    steps: int
    held_out: int
    repetitions: int


SHORT = Size((0, 1, 2), (1.0,), 2, 32, 512, 40)
RECORDED = Size((0, 1, 2, 3, 4), ANCHORS, 4, 96, 1024, 200)


def settings(name: str, anchor: float, seed: int, size: Size) -> Settings:
    """Of a run at effective step 1; 32 prompts a step, so that every prompt is seen twice."""
    objective, slope = AT_ONE[name]
    values = {
        "objective": objective, "beta": slope, "tau": anchor * slope, "seed": seed, "lr": RATE,
        "rounds": size.rounds, "steps_per_round": size.steps, "prompts": 32 * size.steps,
        "held_out": size.held_out, "device": "cpu",
    }  # fmt: skip
    return resolve(PRESET, values)


def cells(size: Size) -> list[Cell]:
    """All runs, as parts of a sweep; exact one-step rounds take long and are of one seed alone."""
    return [
        Cell(
            f"{name} {anchor:g} {seed}",
            rows_of,
            {
                "settings": settings(name, anchor, seed, size),
                "repetitions": size.repetitions,
                "one_step": seed == size.seeds[0],
            },
            resumes=False,
        )
        for seed in size.seeds
        for anchor in size.anchors
        for name in PLAYED
    ]


def rows_of(settings: Settings, repetitions: int, one_step: bool = False) -> list[Row]:
    """A run's rounds, with numbers as they are recorded."""
    s = settings
    rows, told = played(s, lambda parts, task: Watch(parts, task, repetitions, one_step))
    slope = effective_step(s) * s.beta
    same = {
        "objective": s.objective, "seed": s.seed, "beta": s.beta, "tau": s.tau,
        "anchor": s.tau / slope, "effective_step": slope / s.beta, "prompts": s.prompts,
        "steps": s.steps_per_round, "lr": s.lr, "held_out": s.held_out,
        "repetitions": repetitions,
    }  # fmt: skip
    for row, own in zip(rows, rounds_of(told), strict=False):
        row |= {f"sampled_{k}": own[k] for k in KEPT if k in own}
    found: list[Row] = rounded([same | row for row in rows])
    return found


class Watch:
    """Lists the laws of an anchored run's model, as it starts and after each of its rounds."""

    def __init__(
        self, parts: Parts, task: KnownExpert, repetitions: int, one_step: bool = False
    ) -> None:
        self.parts, self.task, self.repetitions = parts, task, repetitions
        s = parts.settings
        objective = objective_of(s.objective)
        assert objective is not None
        self.game = RewardTerms(objective, s.beta, s.tau)
        self.log_p, self.log_ref = expert_law(task), law(parts.player, task)
        self.log_q = self.log_ref
        self.log_end = exact_gap.end_of_rounds(self.log_p, self.log_ref, self.game)
        self.paths = exact_rounds(self.log_p, self.log_ref, self.game, s.rounds, one_step)

    def round(self, number: int) -> Row:
        """Measurements of the round that has just ended; ``*_before`` those of pi_t."""
        s = self.parts.settings
        before = Laws(self.log_p, self.log_ref, self.log_q, self.log_q)
        after = before._replace(log_new=law(self.parts.player, self.task))
        self.log_q = after.log_new
        entered = exact_gap.exact(before, self.log_end, self.game)
        found = exact_gap.exact(after, self.log_end, self.game)
        row: Row = {"round": number} | found
        row |= {f"{k}_before": entered[k] for k in ("kl", "kl_end", "exact_gap")}
        for name, path in self.paths.items():
            row[f"kl_end_{name}"] = float(kl(path[number + 1], self.log_end))
        rng = streams.generator(s.seed, "redrawn", number)
        size = s.held_out
        return row | exact_gap.redrawn(after, self.game, found, size, self.repetitions, rng)


def exact_rounds(
    log_p: Floats, log_ref: Floats, game: RewardTerms, rounds: int, one_step: bool
) -> dict[str, Floats]:
    """Log-laws (rounds + 1, prompts, responses) of exact rounds from pi_0.

    "link": of the two-step rounds; with ``one_step`` "predicted": of the loss as it is trained,
    where that sees the level of rewards (near branch). Those that are not reached are left out.
    """
    sees_level = not game.objective.up_to_constant
    ways = {"link": False} | ({"predicted": True} if one_step and sees_level else {})
    p, ref = np.exp(log_p), np.exp(log_ref)
    found = {}
    for name, way in ways.items():
        try:
            path = self_play(
                p, ref, game.objective, game.beta, rounds, ref, game.tau, way, progress=False
            )
        except NotConverged:
            continue
        assert path.policies is not None
        found[name] = np.log(path.policies)
    return found


def main(
    out: Annotated[Path, typer.Option(help="file of the table")],
    workers: Annotated[int, typer.Option(help="runs at a time, one core each")] = 2,
    full: Annotated[
        bool, typer.Option(help="the record: five seeds, three anchors, four rounds")
    ] = False,
) -> None:
    """Train a tiny model with an anchor and record its gap from samples beside the exact one.

    Finished runs are kept beside the file: the same command goes on after an interruption.
    """
    parts = out.with_suffix(".parts")
    found = run_cells(cells(RECORDED if full else SHORT), parts, workers)
    where = {
        "date": datetime.date.today().isoformat(),
        "code": code(),
    }
    rows = [row for rows in found for row in rows]
    write_whole(out, record(rows, FULL if full else "make llm-gap", False, **where))
    shutil.rmtree(parts)


if __name__ == "__main__":
    program(main, resumes=True)()
