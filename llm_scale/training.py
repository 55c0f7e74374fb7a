"""The loop: SFT start, then rounds of sampling, training, measuring; resumable at any moment."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from llm_scale import checkpoint, models, noise, telemetry, world
from llm_scale.experts import Expert
from llm_scale.losses import Round, self_play_loss, sft_loss
from llm_scale.player import Machine, Player
from llm_scale.rounds import Started, begin
from llm_scale.samples import Item, Response, pack, unpack
from llm_scale.scoring import Pair, buckets, sequence_log_probs
from llm_scale.settings import Settings
from llm_scale.tasks import Task
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.settings import objective_of, write_whole

Say = Callable[[str], None]
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
        self.player = Player(language, settings, self.machine)
        self.scorer: nn.Module = self.player.scorer
        if world.size() > 1:
            self.scorer = nn.parallel.DistributedDataParallel(self.player.scorer)
        self.optimiser = self._optimiser()
        self.position = Position(SFT_ROUND, 0, 0)
        self.data: Round | None = None
        self.held: HeldOut | None = None
        self.monitors: dict[str, float] = {}
        self.previous: dict[str, Tensor] = {}
        """Weights of pi_{t-1}, kept only for the opponent that needs them."""

    # -- running ------------------------------------------------------------------------------

    def run(self, say: Say) -> None:
        """Go on from the newest whole checkpoint, or start; to the end of the last round."""
        self._resume(say)
        first = self.position
        if first.round == SFT_ROUND:
            self._train(SFT_ROUND, self.settings.sft_steps, say)
            self._keep_base()
            self._next_round(0)
        for round_ in range(self.position.round, self.settings.rounds):
            started = time.monotonic()
            self._begin(round_)
            self._train(round_, self.settings.steps_per_round, say)
            row = {"round": round_, **self.monitors, **self._measure()}
            self._write(row)
            self._time(round_, time.monotonic() - started)
            say(line(row))
            self._next_round(round_ + 1)
        if world.rank() == 0:
            models.save(self.player.language, self.out / "final")

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
        self.held = HeldOut.draw(self.player, self.task.held_out(), round_)
        items = self.task.items(round_)
        if self.objective is None:
            self.data, self.monitors = sft_round(items), {}
        else:
            base = load_file(self.out / "base.safetensors")
            mixed = self.settings.opponent == "mixture"
            now = checkpoint.weights(self.player.language) if mixed else {}
            made = begin(self.player, items, round_, self.objective, self.previous or now, base)
            self.data, self.monitors = made.data, monitors(made)
            self.previous = now
        self._save()

    def _train(self, round_: int, steps: int, say: Say) -> None:
        if round_ == SFT_ROUND and steps:
            self.data = sft_round(self.task.items(SFT_ROUND))
        data = self.data
        if data is None or self.position.step >= steps:
            return
        name = "SFT" if round_ == SFT_ROUND else f"round {round_}"
        lead = world.rank() == 0
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
            loss, norm = self.step(data, chosen, round_, step, steps)
            self.position = Position(round_, step + 1, self.position.total + 1)
            self._write({"at": name, "step": step, "loss": loss, "gradient_norm": norm})
            bar.set_postfix(loss=f"{loss:.4f}")
            if (step + 1) % self.settings.checkpoint_every == 0 and step + 1 < steps:
                self._save()

    def step(
        self, data: Round, chosen: Sequence[int], round_: int, step: int, steps: int
    ) -> tuple[float, float]:
        """One optimiser step on some items; returns the loss and the gradient's norm.

        Raises:
            Diverged: the loss is not finite; nothing was updated.
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
        self.optimiser.step()
        return total, norm

    def accumulate(self, data: Round, chosen: Sequence[int], sft: bool = False) -> float:
        """Add the gradient of the mean loss over items to the parameters; the loss itself."""
        share = world.mine(chosen)
        parts = micro_batches(data, share, self.settings.tokens_per_batch)
        total = 0.0
        for number, part in enumerate(parts):
            last = number + 1 == len(parts)
            with _no_sync(self.scorer, last), self.machine.precision():
                some = data.subset(part)
                pairs = [(i.prompt, r.tokens) for i in some.items for r in i.responses]
                log_probs = sequence_log_probs(self.scorer, pairs)
                on_device = some.to(log_probs.device)
                if sft or self.objective is None:
                    losses = sft_loss(on_device, log_probs)
                else:
                    s = self.settings
                    losses = self_play_loss(self.objective, on_device, log_probs, s.beta, s.tau)
                loss = losses.sum() / len(chosen)
                (loss * world.size()).backward()
            total += float(loss.detach())
        return float(sum(world.together([total]))) if world.size() > 1 else total

    # -- measuring ----------------------------------------------------------------------------

    def _measure(self) -> dict[str, float]:
        assert self.held is not None
        measured = self.held.measured(self.player, self.task.expert)
        said = telemetry.summary(measured, self.objective, self.settings.beta)
        return said | {f"held_out_{k}": v for k, v in telemetry.lengths(self.held.items).items()}

    # -- keeping ------------------------------------------------------------------------------

    def _optimiser(self) -> torch.optim.Optimizer:
        s = self.settings
        parameters = self.player.language.model.parameters()
        return torch.optim.AdamW(parameters, lr=s.lr, weight_decay=s.weight_decay)

    def _save(self) -> None:
        if world.rank() == 0:
            files = {
                "optimiser": checkpoint.optimiser_tensors(self.optimiser),
                "previous": self.previous,
            }
            if self.data is not None and self.held is not None:
                files |= {"round": self.data.tensors(), "held_out": self.held.tensors()}
            metrics = self.out / "metrics.jsonl"
            state = {
                **asdict(self.position),
                "mark": mark(self.settings),
                "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
                "monitors": self.monitors,
            }
            number = 2 * (self.position.total * 1000 + self.position.round + 1) + bool(self.data)
            folder = self.out / "checkpoints"
            checkpoint.save(folder, number, self.player.language, files, state)
        world.wait()

    def _resume(self, say: Say) -> None:
        found, said = checkpoint.latest(self.out / "checkpoints")
        for sentence in said:
            say(f"warning: {sentence}; using the one before")
        if found is None:
            self._cut_metrics(0)
            return
        if found.state["mark"] != mark(self.settings):
            raise InvalidInput(
                f"{found.path}: a checkpoint of a run with other settings or versions; "
                "nothing was changed; choose another --out"
            )
        state = found.state
        checkpoint.set_weights(self.player.language, found.tensors("model"))
        checkpoint.set_optimiser(self.optimiser, found.tensors("optimiser"))
        self.position = Position(state["round"], state["step"], state["total"])
        self.previous = found.tensors("previous")
        if tensors := found.tensors("round"):
            self.data = Round.of(tensors)
            self.held = HeldOut.of(found.tensors("held_out"))
            self.monitors = state["monitors"]
        self._cut_metrics(state["metrics_bytes"])
        say(f"resumed from {found.path.name}: {self.position}")

    def _keep_base(self) -> None:
        """pi_0, for anchors and opponents that need it."""
        if world.rank() == 0:
            part = self.out / "base.safetensors.tmp"
            save_file(checkpoint.weights(self.player.language), part)
            part.replace(self.out / "base.safetensors")
        world.wait()

    def _cut_metrics(self, size: int) -> None:
        """Metrics written after the checkpoint are written again."""
        path = self.out / "metrics.jsonl"
        if world.rank() == 0 and path.exists():
            with path.open("r+b") as file:
                file.truncate(size)
        world.wait()

    def _write(self, row: dict[str, Any]) -> None:
        if world.rank() == 0:
            with (self.out / "metrics.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")

    def _time(self, round_: int, seconds: float) -> None:
        if world.rank() == 0:
            with (self.out / "timing.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps({"round": round_, "seconds": round(seconds, 3)}) + "\n")

    def _diverged(self, round_: int, step: int, loss: float) -> Diverged:
        where = f"round {round_}, step {step}: the loss is {loss}"
        if world.rank() == 0:
            content = {"round": round_, "step": step, "loss": str(loss)}
            write_whole(self.out / "failure.json", json.dumps(content) + "\n")
        return Diverged(f"{where}; the last good state is in {self.out / 'checkpoints'}")


@dataclass(frozen=True)
class HeldOut:
    """Held-out prompts with an expert, an own and (as history) a random response, scored by pi_t.

    ``before`` (3 n,): log pi_t of all expert, then all own, then all random responses.
    """

    items: list[Item]
    before: Tensor

    @classmethod
    def draw(cls, player: Player, items: Sequence[Item], round_: int) -> HeldOut:
        """Own responses from pi_t, and random tokens: like neither side."""
        s = player.settings

        def number(i: int) -> np.ndarray:
            return noise.uniform(s.max_new_tokens, s.seed, "held out", round_, items[i].id)

        own, _ = player.sample([item.prompt for item in items], number, "held-out responses")
        full = [
            replace(i, expert=i.expert[:1], own=(r,), history=(random_response(player, i.id),))
            for i, r in zip(items, own, strict=True)
        ]
        return cls(full, player.score(_held_pairs(full)))

    def tensors(self) -> dict[str, Tensor]:
        """As plain tensors, for a checkpoint."""
        return pack("items", self.items) | {"before": self.before}

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> HeldOut:
        """Inverse of `tensors`."""
        return cls(unpack("items", tensors), tensors["before"])

    def measured(self, player: Player, expert: Expert | None) -> telemetry.Measured:
        """Log-probabilities before and after the round, and the expert's where known."""
        pairs = _held_pairs(self.items)
        return telemetry.Measured(
            prompt=telemetry.prompt_numbers([p for p, _ in pairs]),
            side=np.array(["expert", "own", "other"]).repeat(len(self.items)),
            before=self.before.double().numpy(),
            after=player.score(pairs).double().numpy(),
            expert=np.full(len(pairs), np.nan) if expert is None else expert.log_probs(pairs),
        )


def _held_pairs(items: Sequence[Item]) -> list[Pair]:
    sides = [[item.responses[side] for item in items] for side in range(3)]
    return [(i.prompt, r.tokens) for side in sides for i, r in zip(items, side, strict=True)]


def random_response(player: Player, ident: int) -> Response:
    """Tokens drawn uniformly, of random length with EOS: like neither expert nor model."""
    s, eos = player.settings, player.language.eos
    rng = noise.generator(s.seed, "other", ident)
    length = int(rng.integers(1, s.max_new_tokens + 1))
    drawn = rng.integers(len(player.language.tokenizer) - 1, size=length - 1)
    return Response((*(int(t) + int(t >= eos) for t in drawn), eos), False)


def sft_round(items: Sequence[Item]) -> Round:
    """Items for maximum likelihood: nothing to store."""
    return Round(list(items), *(torch.zeros(sum(len(i.responses) for i in items)),) * 3)


def monitors(made: Started) -> dict[str, float]:
    """Assumptions of the theory, checked: the sampler's log pi_t(y') against the stored ones."""
    apart = (made.sampler - made.own.double()).abs()
    return {"sampler_gap": float(apart.max()), **telemetry.lengths(made.data.items)}


def order(seed: int, round_: int, step: int, batch: int, items: int) -> list[int]:
    """Items of a step: consecutive slices of one permutation an epoch, a function of the step."""
    chosen: list[int] = []
    for at in range(step * batch, (step + 1) * batch):
        epoch, within = divmod(at, items)
        chosen.append(int(_permutation(seed, round_, epoch, items)[within]))
    return chosen


def _permutation(seed: int, round_: int, epoch: int, items: int) -> np.ndarray:
    return noise.generator(seed, "order", round_ + 2, epoch).permutation(items)


def micro_batches(data: Round, chosen: Sequence[int], tokens: int) -> list[list[int]]:
    """Items of a step in forward passes of at most ``tokens`` padded tokens."""
    sides = max(1, len(data.items[0].responses))
    longest = [
        len(data.items[i].prompt) + max(len(r.tokens) for r in data.items[i].responses)
        for i in chosen
    ]
    return [[chosen[i] for i in b] for b in buckets(longest, max(1, tokens // sides))]


def _no_sync(scorer: nn.Module, last: bool) -> Any:
    import contextlib

    if last or not isinstance(scorer, nn.parallel.DistributedDataParallel):
        return contextlib.nullcontext()
    return scorer.no_sync()


def mark(settings: Settings) -> str:
    """Digest of what a checkpoint depends on: settings and versions."""
    text = json.dumps(asdict(settings), sort_keys=True) + json.dumps(versions(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    named = {p: metadata.version(p) for p in ("torch", "transformers", "numpy")}
    return {"python": platform.python_version(), **named}


def line(row: dict[str, Any]) -> str:
    """A round in one readable line."""
    parts = [f"round {row['round']}"]
    for key, text in (
        ("kl_before", "KL(p|pi) {:.3f}"),
        ("kl", "-> {:.3f}"),
        ("nll", "NLL {:.2f}"),
        ("link_slope", "link slope {:.2f}"),
        ("link_correlation", "corr {:.2f}"),
        ("contraction", "contraction {:.2f}"),
        ("margin", "margin {:.2f}"),
        ("max_reward_other", "max|r| other {:.1f}"),
        ("length_own", "length {:.1f}"),
    ):
        if key in row:
            parts.append(text.format(row[key]))
    return "  ".join(parts)
