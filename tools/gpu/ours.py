"""One self-play round by the trainer: own responses, their log-probabilities, optimiser steps."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from lab import streams
from llm_scale import models
from llm_scale.data.items import Item
from llm_scale.data.tasks import Task
from llm_scale.models.sample import generate
from llm_scale.models.shared_prompts import row_length, shared_rows
from llm_scale.rounds.batches import order
from llm_scale.rounds.sequence import Round
from llm_scale.store.state import State
from llm_scale.train import Parts, accumulate, assemble, new_optimiser, optimise
from theory import objectives
from tools.gpu.clock import Stopwatch, peak_gib, reset_peak

SPIN = objectives.get("spin")
STILL = 1e-12
"""Learning rate of the warm-up's step."""


@dataclass(frozen=True)
class Timed:
    """What a round took.

    Attributes:
        seconds: of "generation", "scoring", "training", and of "round", all of it.
        generated: tokens drawn, ends included. trained: prompt and response tokens of all pairs of
            all steps, a prompt once a response; sent: those that went through the model, a prompt
            that its responses share once. answered: response tokens of these.
        steps: of the optimiser. first_loss: of the first batch before any step.
        peak_gib: of memory in the round.
    """

    seconds: dict[str, float]
    generated: int
    trained: int
    sent: int
    answered: int
    steps: int
    first_loss: float
    peak_gib: float


def round_of_ours(language: models.Language, task: Task, out: Path) -> tuple[Timed, list[Item]]:
    """A round on the task's items, timed; the items with the responses that it drew."""
    parts = assemble(task.settings, out, language, task)
    player, s, items = parts.player, parts.settings, task.items(0)

    def noise(i: int) -> np.ndarray:
        return streams.uniform(s.max_new_tokens, s.seed, "own", 0, items[i].id, 0)

    _warm(parts, items)
    watch = Stopwatch(player.machine.device)
    reset_peak(player.machine.device)
    with watch("round"):
        with watch("generation"):
            own, _ = player.sample([item.prompt for item in items], noise, "own responses")
        full = [dataclasses.replace(i, own=(r,)) for i, r in zip(items, own, strict=True)]
        with watch("scoring"):
            current = player.score([(i.prompt, r.tokens) for i in full for r in i.responses])
        data, state = Round(full, current, current, torch.empty(0)), State(new_optimiser(parts))
        with watch("training"):
            losses = [_step(parts, data, state) for _ in range(s.steps_per_round)]
    epochs = s.steps_per_round * s.batch / len(full)
    shares = bool(player.scorer.shares_prompts)
    timed = Timed(
        seconds=watch.seen,
        generated=sum(len(r.tokens) for r in own),
        trained=round(epochs * sum(tokens_of(item) for item in full)),
        sent=round(epochs * sum(_sent(item) if shares else tokens_of(item) for item in full)),
        answered=round(epochs * sum(len(r.tokens) for i in full for r in i.responses)),
        steps=s.steps_per_round,
        first_loss=losses[0],
        peak_gib=peak_gib(player.machine.device),
    )
    return timed, full


def tokens_of(item: Item) -> int:
    """Tokens of the pairs of a prompt."""
    return sum(len(item.prompt) + len(r.tokens) for r in item.responses)


def _sent(item: Item) -> int:
    pairs = [(item.prompt, r.tokens) for r in item.responses]
    return sum(row_length(pairs, row) for row in shared_rows(pairs))


def _step(parts: Parts, data: Round, state: State) -> float:
    s = parts.settings
    chosen = order(s.seed, 0, state.step, s.batch, len(data.items))
    loss = accumulate(parts, data, chosen, SPIN)
    optimise(parts, state, loss, s.steps_per_round)
    return loss


def _warm(parts: Parts, items: Sequence[Item]) -> None:
    """Every kernel once at the sizes of the round: short responses, a pass, a step of no length."""
    player, s = parts.player, parts.settings
    some = [item.prompt for item in items[: s.generate_batch]]
    with player.machine.precision():
        generate(
            [player.model], some, lambda _: np.full(2, 0.5), min(2, s.max_new_tokens),
            player.language.ends, s.generate_batch, past=player.language.past,
        )  # fmt: skip
    doubled = [dataclasses.replace(item, own=item.expert) for item in items[: s.batch]]
    current = player.score([(i.prompt, r.tokens) for i in doubled for r in i.responses])
    data = Round(doubled, current, current, torch.empty(0))
    still = dataclasses.replace(parts, settings=dataclasses.replace(s, lr=STILL))
    state = State(new_optimiser(still))
    optimise(still, state, accumulate(still, data, range(len(doubled)), SPIN), s.steps_per_round)
