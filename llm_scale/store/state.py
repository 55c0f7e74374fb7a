"""Where a run stands, and its folder: what it goes on from after any interruption."""

from __future__ import annotations

import enum
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from llm_scale import models, processes
from llm_scale.data.items import Response
from llm_scale.measure.held_out import HeldOut
from llm_scale.models import weights
from llm_scale.models.weights import Weights
from llm_scale.rounds.begin import restore
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from llm_scale.store import checkpoint
from llm_scale.store.identity import mark
from llm_scale.store.journal import METRICS, Journal
from theory.errors import InvalidInput, refuse
from theory.files import clear, whole

KEPT_WEIGHTS = ("base.safetensors", "current.safetensors")
"""Of pi_0, and of pi_t of the round: what a checkpoint leans on beside its own files."""
WRITTEN = r"(base|current)\.safetensors|best|final|settings\.json"
"""What is written whole into the folder itself, as a regular expression."""
SFT_ROUND = -1
"""Number of the round of the SFT start, as a key of its data and order."""


class Phase(enum.IntEnum):
    """What a round does next."""

    BEGIN = 0
    """Draw its responses and score them."""
    TRAIN = 1
    """Take its optimiser steps; its data are there."""


@dataclass
class State:
    """Where a run stands.

    Attributes:
        optimiser: with its moments.
        round: number of the round; -1 is the SFT start.
        phase: what the round does next.
        step: optimiser steps done in the round. total: in the run.
        data: the round's responses with their stored log-probabilities.
        held: the held-out responses of the round, scored by pi_t.
        monitors: what the round's row says of its start.
        previous: weights of pi_{t-1}; only where own responses need them.
        own: held-out responses of the model as it enters the round, where they are drawn already.
    """

    optimiser: torch.optim.Optimizer
    round: int = SFT_ROUND
    phase: Phase = Phase.BEGIN
    step: int = 0
    total: int = 0
    data: Round = field(default_factory=lambda: Round.plain([]))
    held: HeldOut = field(default_factory=HeldOut.none)
    monitors: dict[str, Any] = field(default_factory=dict)
    previous: Weights = field(default_factory=dict)
    own: list[Response] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The round in words."""
        return "SFT" if self.round == SFT_ROUND else f"round {self.round}"

    @property
    def number(self) -> int:
        """Of its checkpoint: larger for whatever comes later."""
        return int(f"{self.total}{self.round + 1:05d}{self.phase:d}")

    def next_round(self) -> None:
        """To the beginning of the next round."""
        self.round, self.phase, self.step = self.round + 1, Phase.BEGIN, 0
        self.data, self.held = Round.plain([]), HeldOut.none()


@dataclass(frozen=True)
class Store:
    """The folder of a run as it is written; only the first process writes.

    ``base`` is the path and the digest of what an adapter is for, and empty where all trains.
    """

    out: Path
    settings: Settings
    language: models.Language
    journal: Journal
    base: dict[str, str] = field(default_factory=dict)

    def save(self, state: State) -> None:
        """A checkpoint of the model and the state; the last two are kept."""
        moments = checkpoint.optimiser_tensors(state.optimiser)
        if processes.rank() == 0:
            files = {"optimiser": moments, "previous": state.previous}
            if state.phase is Phase.TRAIN:
                files["round"] = state.data.tensors()
                files["held_out"] = state.held.tensors()
            where = {name: getattr(state, name) for name in ("round", "phase", "step", "total")}
            rest = {"mark": mark(self.settings), "metrics": self.journal.digest()}
            told = where | rest | {"monitors": state.monitors, "base": self.base}
            kept = [self.out / name for name in KEPT_WEIGHTS if (self.out / name).exists()]
            folder = self.out / "checkpoints"
            checkpoint.save(folder, state.number, self.language, files, told, kept)
        processes.wait()

    def resume(self, state: State, say: Callable[[str], None]) -> None:
        """Put the newest whole checkpoint into the model and the state, if there is one.

        What a killed process left of files that it wrote is removed.

        Raises:
            InvalidInput: it is of another run, none is whole, or the metrics are not what they
                were.
        """
        found, said = checkpoint.latest(self.out / "checkpoints")
        if found is None:
            refuse(
                f"{sentence}; nothing was changed; put it back, or choose another --out"
                for sentence in said
            )
        for sentence in said:
            say(f"warning: {sentence}; using the one before")
        if found is None:
            self._begin(0)
            return
        told = found.state
        if told["mark"] != mark(self.settings):
            raise InvalidInput(
                f"{found.path}: a checkpoint of a run with other settings or versions; "
                "nothing was changed; choose another --out"
            )
        if not self.journal.holds(*told["metrics"]):
            raise InvalidInput(
                f"{self.out / METRICS}: not what it was when {found.path} was written; nothing was "
                "changed; put it back, or choose another --out"
            )
        if told.get("base", {}) != self.base:
            raise InvalidInput(
                f"{found.path}: an adapter of another base than {self.base.get('path') or 'this'}: "
                "that was changed since; nothing was done; put it back, or choose another --out"
            )
        weights.put(self.language, models.saved(self.language, found.tensors))
        checkpoint.set_optimiser(state.optimiser, found.tensors("optimiser"))
        state.round, state.step, state.total = told["round"], told["step"], told["total"]
        state.phase, state.monitors = Phase(told["phase"]), told["monitors"]
        state.previous = found.tensors("previous")
        if state.phase is Phase.TRAIN:
            state.data = restore(found.tensors("round"))
            state.held = HeldOut.of(found.tensors("held_out"))
        if processes.rank() == 0:
            found.put_back(self.out, KEPT_WEIGHTS)
        self._begin(told["metrics"][0])
        say(f"resumed from {found.path.name}: {state.name}, step {state.step}")

    def _begin(self, metrics: int) -> None:
        """Without what came after a checkpoint, and without parts of files."""
        if processes.rank() == 0:
            clear(self.out, WRITTEN)
        self.journal.cut(metrics)

    def keep(self, name: str) -> None:
        """The weights as they are: "base" is pi_0, "current" is pi_t of the round."""
        if processes.rank() == 0:
            # one entry: safetensors writes several in an order that is drawn anew every time
            told = {"base": json.dumps(self.base, sort_keys=True)} if self.base else None
            with whole(self.out / f"{name}.safetensors") as part:
                save_file(weights.copy_of(self.language), part, told)
        processes.wait()

    def weights(self, name: str) -> Weights:
        """What `keep` kept."""
        return load_file(self.out / f"{name}.safetensors")

    def finish(self, name: str = "final") -> None:
        """The model as it is, a plain directory, in its place when all of it is there."""
        if processes.rank() == 0:
            with whole(self.out / name) as part:
                models.save_final(self.language, part)
        processes.wait()
