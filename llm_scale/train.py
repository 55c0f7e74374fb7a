"""The loop: SFT start, then rounds of sampling, training, measuring; resumable at any moment."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from lab.specs import objective_of
from llm_scale import models, processes
from llm_scale.data import oracles
from llm_scale.data.items import Item, Response
from llm_scale.data.tasks import Task
from llm_scale.measure import gradients, held_out, monitors, telemetry
from llm_scale.measure import preferences as preference_telemetry
from llm_scale.measure import tokens as token_telemetry
from llm_scale.measure.held_out import HeldOut
from llm_scale.measure.predicted import Game
from llm_scale.models.player import Machine, Player
from llm_scale.rounds.batches import micro_batches, order
from llm_scale.rounds.begin import begin, references, restore
from llm_scale.rounds.sequence import Round, self_play_loss, sft_loss
from llm_scale.settings import Settings
from llm_scale.store import checkpoint
from llm_scale.store.identity import mark
from llm_scale.store.journal import METRICS, Journal
from theory.errors import InvalidInput
from theory.objectives import Objective

Say = Callable[[str], None]
KEPT_WEIGHTS = ("base.safetensors", "current.safetensors")
"""Of pi_0, and of pi_t of the round: what a checkpoint leans on beside its own files."""
SFT_ROUND = -1
"""Number of the round of the SFT start, as a key of its data and order."""


class Diverged(RuntimeError):
    """The loss was not finite; the message says where, the last good state is kept."""


@dataclass
class Position:
    """Where a run stands: a round (-1 is the SFT start), and the steps done in it."""

    round: int
    step: int
    total: int


class Trainer:
    """One run in its folder."""

    def __init__(
        self, settings: Settings, out: Path, language: models.Language, task: Task
    ) -> None:
        self.settings, self.out, self.task = settings, out, task
        self.machine = Machine.of(settings)
        self.objective: Objective | None = objective_of(settings.objective)
        self.oracle = oracles.build(settings.oracle, task.expert, task.tokenizer)
        self.player = Player(language, settings, self.machine)
        self.scorer: nn.Module = self.player.scorer
        if processes.size() > 1:
            self.scorer = nn.parallel.DistributedDataParallel(self.player.scorer)
        self.optimiser = self._optimiser()
        self.journal = Journal(out)
        self.position = Position(SFT_ROUND, 0, 0)
        self.data: Round | None = None
        self.held: HeldOut | None = None
        self.fresh: list[Response] | None = None
        """Held-out responses of the model as it enters the next round, drawn once for both."""
        self.monitors: dict[str, Any] = {}
        self.previous: dict[str, Tensor] = {}
        """Weights of pi_{t-1}, kept only for the opponent that needs them."""

    # -- running ------------------------------------------------------------------------------

    def run(self, say: Say) -> None:
        """Go on from the newest whole checkpoint, or start; to the end of the last round."""
        self._resume(say)
        first = self.position
        if first.round == SFT_ROUND:
            self._train(SFT_ROUND, self.settings.sft_steps, say)
            self._keep("base")
            self._next_round(0)
        for round_ in range(self.position.round, self.settings.rounds):
            started = time.monotonic()
            self._begin(round_)
            self._train(round_, self.settings.steps_per_round, say)
            row = {"round": round_, **self.monitors, **self._measure(round_)}
            self.journal.write(row, self.position.total)
            self.journal.time(round_, time.monotonic() - started)
            say(telemetry.line(row))
            self._next_round(round_ + 1)
        self._finish()

    def _next_round(self, round_: int) -> None:
        self.position = Position(round_, 0, self.position.total)
        self.data = self.held = None
        if self.settings.reset_optimiser:
            self.optimiser = self._optimiser()
        self._save()

    def _begin(self, round_: int) -> None:
        """Draw the round's responses, unless a checkpoint within the round brought them."""
        if self.data is not None:
            return
        items, held = self.task.items(round_), self.task.held_out()
        own = self.fresh or held_out.own_responses(self.player, held, round_)
        look = None
        self._keep("current")
        if self.objective is None:
            self.data, self.monitors = sft_round(items), telemetry.lengths(items)
        else:
            base = load_file(self.out / "base.safetensors")
            mixed = self.settings.opponent == "mixture"
            now = checkpoint.weights(self.player.language) if mixed else {}
            previous = self.previous or now
            made = begin(self.player, items, round_, self.objective, previous, base, self.oracle)
            self.data, self.monitors = made.data, monitors.of_round(self.player, made)
            look = partial(
                references, self.player, objective=self.objective, previous=previous, base=base
            )
            self.previous = now
        self.monitors |= monitors.of_policy(self.player.language, items)
        self.held = HeldOut.draw(self.player, held, own, look) if held else None
        self._save()

    def _train(self, round_: int, steps: int, say: Say) -> None:
        if round_ == SFT_ROUND and steps:
            self.data = sft_round(self.task.items(SFT_ROUND))
        data = self.data
        if data is None or self.position.step >= steps:
            return
        name = _name(round_)
        lead = processes.rank() == 0
        bar = tqdm(
            range(self.position.step, steps),
            initial=self.position.step,
            total=steps,
            desc=name,
            disable=None if lead else True,
            leave=False,
        )
        for step in bar:
            chosen = order(self.settings.seed, round_, step, self.settings.batch, len(data.items))
            seen = self._direction(data, round_, step, steps)
            loss, norm = self.step(data, chosen, round_, step, steps)
            self.position = Position(round_, step + 1, self.position.total + 1)
            row = {"at": name, "step": step, "loss": loss, "gradient_norm": norm, **seen}
            self.journal.write(row, self.position.total)
            bar.set_postfix(loss=f"{loss:.4f}")
            last = step + 1 == steps
            if last or (step + 1) % self.settings.checkpoint_every == 0:
                self._refuse_broken(data, chosen)
            if not last and (step + 1) % self.settings.checkpoint_every == 0:
                self._save()

    def _refuse_broken(self, data: Round, chosen: Sequence[int]) -> None:
        """Before the weights are kept: Diverged if the last step broke them."""
        if not bool(torch.isfinite(data.subset(chosen).rescored(self.player)).all()):
            what = "log-probability after it"
            raise self._diverged(self.position.round, self.position.step - 1, float("nan"), what)

    def step(
        self, data: Round, chosen: Sequence[int], round_: int, step: int, steps: int
    ) -> tuple[float, float]:
        """One optimiser step on some items; returns the loss and the gradient's norm.

        Raises:
            Diverged: the loss or its gradient is not finite; nothing was updated.
        """
        s = self.settings
        rate = s.lr if s.schedule == "constant" else s.lr * (1.0 - step / steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        total = self.accumulate(data, chosen, sft=round_ == SFT_ROUND)
        if not np.isfinite(total):
            raise self._diverged(round_, step, total)
        parameters = self.player.language.model.parameters()
        limit = s.clip if s.clip > 0 else float("inf")
        norm = float(nn.utils.clip_grad_norm_(parameters, limit))
        if not np.isfinite(norm):
            raise self._diverged(round_, step, norm, "gradient's norm")
        self.optimiser.step()
        return total, norm

    def accumulate(self, data: Round, chosen: Sequence[int], sft: bool = False) -> float:
        """Add the gradient of the mean loss over items to the parameters; the loss itself."""
        share = processes.mine(chosen)
        parts = micro_batches(data, share, self.settings.tokens_per_batch)
        total = 0.0
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            with _no_sync(self.scorer, last), self.machine.precision():
                some = data.subset(part)
                log_probs = some.log_probs(self.scorer)
                on_device = some.to(log_probs.device)
                if sft or self.objective is None:
                    losses = sft_loss(on_device, log_probs)
                else:
                    s = self.settings
                    losses = self_play_loss(self.objective, on_device, log_probs, s.beta, s.tau)
                loss = losses.sum() / len(chosen)
                (loss * processes.size()).backward()
            total += float(loss.detach())
        return float(sum(processes.together([total]))) if processes.size() > 1 else total

    # -- measuring ----------------------------------------------------------------------------

    def _direction(self, data: Round, round_: int, step: int, steps: int) -> dict[str, float]:
        """Cosine to the SFT gradient on two steps' worth of fixed items, at some steps (S7)."""
        at = gradients.points(steps, self.settings.cosines)
        if round_ == SFT_ROUND or self.objective is None or step not in at:
            return {}
        fixed = list(range(min(len(data.items), 2 * self.settings.batch)))
        parameters = list(self.player.language.model.parameters())
        found = gradients.cosine_to_sft(
            lambda sft: self.accumulate(data, fixed, sft=sft), parameters
        )
        for name, here in (("start", at[0]), ("end", at[-1])):
            if found and step == here:
                self.monitors[f"cosine_{name}"] = found["cosine"]
        return found

    def _measure(self, round_: int) -> dict[str, Any]:
        """The round's row: what is measured on held-out prompts; their points as a table."""
        if self.held is None:
            return {}
        s, expert = self.settings, self.task.expert if self.oracle is None else None
        game = None
        if self.objective is not None:
            game = Game(self.objective, s.beta, s.tau, s.expert_samples, s.own_samples, s.level)
        measured = self.held.measured(self.player, expert)
        self.fresh = held_out.own_responses(self.player, self.held.items, round_ + 1)
        items = held_out.with_own(self.held.items, self.fresh)
        with self.player.frozen(load_file(self.out / "current.safetensors")) as start:
            before = start.score(held_out.own_pairs(items))
            more = self._measure_game(start, game, round_)
        fresh = held_out.fresh(self.player, before, items, expert)
        predicted = telemetry.predictions(measured, game)
        row = telemetry.summary(measured, game, predicted, fresh)
        row |= telemetry.lengths(self.held.items, "held_out_") | more
        own = [item.own[0] for item in self.held.items]
        row |= self.task.text_row(own, "_before") | self.task.text_row(self.fresh)
        if s.sft_run:
            row |= held_out.sft_distance(self.player, Path(s.sft_run), self.held, items)
        self.journal.points(round_, telemetry.table(measured, game, predicted))
        return row

    def _measure_game(self, start: Player, game: Game | None, round_: int) -> dict[str, Any]:
        """What only preferences, or only rewards per token, have to measure; start plays pi_t."""
        assert self.held is not None
        if game is None or self.fresh is None:
            return {}
        items = self.held.items
        if self.oracle is not None:
            base = load_file(self.out / "base.safetensors")
            return preference_telemetry.measured(
                self.player, start, self.oracle, game, items, self.fresh, base, round_
            )
        if game.level == "token":
            return token_telemetry.measured(self.player, start, items, self.task.expert, game)
        return {}

    # -- keeping ------------------------------------------------------------------------------

    def _optimiser(self) -> torch.optim.Optimizer:
        s = self.settings
        parameters = self.player.language.model.parameters()
        return torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay, fused=True)

    def _save(self) -> None:
        if processes.rank() == 0:
            files = {
                "optimiser": checkpoint.optimiser_tensors(self.optimiser),
                "previous": self.previous,
            }
            if self.data is not None:
                files["round"] = self.data.tensors()
            if self.held is not None:
                files["held_out"] = self.held.tensors()
            state = {
                **asdict(self.position),
                "mark": mark(self.settings),
                "metrics": self.journal.digest(),
                "monitors": self.monitors,
            }
            number = 2 * (self.position.total * 1000 + self.position.round + 1) + bool(self.data)
            folder = self.out / "checkpoints"
            kept = [self.out / name for name in KEPT_WEIGHTS if (self.out / name).exists()]
            checkpoint.save(folder, number, self.player.language, files, state, kept)
        processes.wait()

    def _resume(self, say: Say) -> None:
        found, said = checkpoint.latest(self.out / "checkpoints")
        for number, sentence in enumerate(said, 1):
            older = found is not None or number < len(said)
            say(f"warning: {sentence}; {'using the one before' if older else 'starting again'}")
        if found is None:
            self.journal.cut(0)
            return
        if found.state["mark"] != mark(self.settings):
            raise InvalidInput(
                f"{found.path}: a checkpoint of a run with other settings or versions; "
                "nothing was changed; choose another --out"
            )
        state = found.state
        if not self.journal.holds(*state["metrics"]):
            raise InvalidInput(
                f"{self.out / METRICS}: not what it was when {found.path} was written; nothing was "
                "changed; put it back, or choose another --out"
            )
        checkpoint.set_weights(self.player.language, found.tensors("model"))
        checkpoint.set_optimiser(self.optimiser, found.tensors("optimiser"))
        self.position = Position(state["round"], state["step"], state["total"])
        self.previous = found.tensors("previous")
        if tensors := found.tensors("round"):
            self.data = restore(tensors)
            held = found.tensors("held_out")
            self.held = HeldOut.of(held) if held else None
            self.monitors = state["monitors"]
        if processes.rank() == 0:
            found.put_back(self.out, KEPT_WEIGHTS)
        self.journal.cut(state["metrics"][0])
        say(f"resumed from {found.path.name}: {_name(state['round'])}, step {state['step']}")

    def _keep(self, name: str) -> None:
        """The weights as they are: "base" is pi_0, "current" is pi_t of the round."""
        if processes.rank() == 0:
            part = self.out / f"{name}.safetensors.tmp"
            save_file(checkpoint.weights(self.player.language), part)
            part.replace(self.out / f"{name}.safetensors")
        processes.wait()

    def _finish(self) -> None:
        """The final model, in its place when all of it is there."""
        if processes.rank() == 0:
            part, final = self.out / "final.tmp", self.out / "final"
            shutil.rmtree(part, ignore_errors=True)
            models.save(self.player.language, part)
            shutil.rmtree(final, ignore_errors=True)
            part.replace(final)
        processes.wait()

    def _diverged(self, round_: int, step: int, seen: float, what: str = "loss") -> Diverged:
        where = f"{_name(round_)}, step {step}: the {what} is {seen}"
        self.journal.failure({"round": round_, "step": step, "what": what, "value": str(seen)})
        return Diverged(f"{where}; the last good state is in {self.out / 'checkpoints'}")


def _name(round_: int) -> str:
    return "SFT" if round_ == SFT_ROUND else f"round {round_}"


def sft_round(items: Sequence[Item]) -> Round:
    """Items for maximum likelihood: nothing to store."""
    return Round(list(items), *(torch.zeros(sum(len(i.responses) for i in items)),) * 3)


def _no_sync(scorer: nn.Module, last: bool) -> Any:
    if last or not isinstance(scorer, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return scorer.no_sync()
