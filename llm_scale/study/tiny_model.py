"""Rounds of a tiny model against exact rounds; `llm_scale.study.tiny_runs` runs and records them.

The game is that of task "phrases" with a horizon at which every response can be listed, so laws
are compared with laws: what the trained model is, and what exact rounds from the same start give.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lab.specs import objective_of
from llm_scale.data.experts import Ngram
from llm_scale.data.tasks import KnownExpert
from llm_scale.launch import prepare
from llm_scale.models.language import Language
from llm_scale.models.player import Player
from llm_scale.settings import Settings
from llm_scale.store import read
from llm_scale.store.journal import METRICS
from llm_scale.study import columns
from llm_scale.study import listed_laws as listed
from llm_scale.study.columns import Row
from llm_scale.train import Diverged, Parts, assemble, train
from theory.errors import InvalidInput

Floats = NDArray[np.float64]

START_BATCH, START_RATE = 64, 2e-3
KEPT = (
    "cosine_start", "cosine_end", "link_slope", "link_slope_se", "link_correlation", "dumped",
    "dumped_se", "kl", "kl_se", "stored_gap", "sampler_gap",
)  # fmt: skip
"""What the run's own telemetry says of the same round, from held-out samples."""


@dataclass(frozen=True)
class Job:
    """One run: its study and what it sets; ``sft_steps`` at a constant rate make its start.

    Attributes:
        study: name that its rows carry.
        settings: of the run; their objective is the one that is trained.
        arm: what its rows call the objective.
        level: weight of `levelled_ipo` where that is trained, else None.
        points: whether the listed points of the first round are kept, for the scatter of the link.
    """

    study: str
    settings: Settings
    arm: str
    level: float | None = None
    points: bool = False


def run(job: Job) -> list[Row]:
    """Train in a folder that is thrown away; a row a round."""
    s = job.settings
    rows, told = played(s, lambda parts, task: Watch(parts, task, job.points))
    same = {
        "study": job.study, "objective": job.arm, "seed": s.seed, "prompts": s.prompts,
        "steps": s.steps_per_round, "batch": s.batch, "lr": s.lr, "schedule": s.schedule,
        "beta": s.beta, "G": s.expert_samples, "K": s.own_samples, "level": job.level,
        "effective_step": effective_step(s),
    }  # fmt: skip
    for row, own in zip(rows, rounds_of(told), strict=False):
        row |= {f"sampled_{k}": own[k] for k in KEPT if k in own}
    losses = [row["loss"] for row in told if "loss" in row]
    tail = max(1, s.steps_per_round // 10)
    for i, row in enumerate(rows):
        end = len(losses) - (len(rows) - 1 - i) * s.steps_per_round
        row["loss"] = float(np.mean(losses[max(0, end - tail) : end]))
    return [same | row for row in rows]


class Watching(Protocol):
    """Measures a round that has just ended."""

    def round(self, number: int) -> Row: ...


def played(
    settings: Settings, watching: Callable[[Parts, KnownExpert], Watching]
) -> tuple[list[Row], list[Row]]:
    """Train in a folder that is thrown away: what watches it says of its rounds, and its metrics.

    Args:
        settings: ``sft_steps`` at a constant rate make the start.
        watching: told of the run before its first round.
    """
    torch.set_num_threads(1)
    made = prepare.prepare(settings)
    if not (isinstance(made.task, KnownExpert) and isinstance(made.task.expert, Ngram)):
        raise InvalidInput(f"task={settings.task!r}; needed is 'phrases'")
    with tempfile.TemporaryDirectory() as folder:
        start(settings, Path(folder) / "start", made.language, made.task)
        started = dataclasses.replace(settings, sft_steps=0)
        parts = assemble(started, Path(folder), made.language, made.task)
        watch = watching(parts, made.task)
        rows: list[Row] = []
        try:
            train(parts, lambda row: rows.append(watch.round(row["round"])))
        except Diverged:
            rows.append({"round": len(rows), "diverged": True})
        return rows, read.rows(Path(folder) / METRICS)


def rounds_of(told: Sequence[Row]) -> list[Row]:
    """What a run's metrics say of its rounds."""
    return [row for row in told if "round" in row]


def start(settings: Settings, out: Path, language: Language, task: KnownExpert) -> None:
    """Train the model by maximum likelihood, the same for all runs of a seed."""
    chosen = dataclasses.replace(
        settings, objective="sft", rounds=0, prompts=settings.sft_steps * START_BATCH,
        batch=START_BATCH, schedule="constant", lr=START_RATE, expert_samples=1,
    )  # fmt: skip
    out.mkdir()
    some = dataclasses.replace(task, settings=chosen)
    train(assemble(chosen, out, language, some))


class Watch:
    """Lists the laws of a run's model, as it starts and after each of its rounds."""

    def __init__(self, parts: Parts, task: KnownExpert, points: bool = False) -> None:
        self.parts, self.points, self.task = parts, points, task
        self.log_p, self.log_q = expert_law(task), law(parts.player, task)

    def round(self, number: int) -> Row:
        """Measurements of the round that has just ended."""
        player, s, objective = self.parts.player, self.parts.settings, self.parts.objective
        before, after = self.log_q, law(player, self.task)
        self.log_q = after
        row = {"round": number} | columns.divergences(self.log_p, before, after)
        if objective is not None and objective.missing("reward") is None:
            sizes = s.expert_samples, s.own_samples
            row |= columns.rewards(self.log_p, before, after, objective, s.beta, sizes)
            if self.points and number == 0:
                row |= columns.points(self.log_p, before, after, objective, s.beta)
        return row


def expert_law(task: KnownExpert) -> Floats:
    """``log p`` of all responses, (prompts, responses)."""
    assert isinstance(task.expert, Ngram)
    return _listed(task.expert.next_log_laws, task)


def law(player: Player, task: KnownExpert) -> Floats:
    """``log pi`` of all responses, (prompts, responses)."""
    return _listed(listed.of_player(player), task)


def _listed(next_law: listed.NextLaw, task: KnownExpert) -> Floats:
    vocabulary, eos = len(task.tokenizer), int(task.tokenizer.eos_token_id)
    horizon = task.settings.max_new_tokens
    return listed.log_laws(next_law, task.prompts, vocabulary, eos, horizon)


def effective_step(s: Settings) -> float:
    """``R'(0)/beta``; NaN for SFT."""
    objective = objective_of(s.objective)
    return float("nan") if objective is None else objective.slope_at_zero / s.beta
