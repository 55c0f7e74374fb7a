"""The loop: an SFT start, then rounds of self-play; resumable at any moment.

A round samples own responses and scores all once (`rounds.begin`), takes optimiser steps on the
objective's risk of the implicit rewards, is measured on held-out prompts (`measure.row`) and kept
(`store.state`). ``pi_t`` is the model as it enters a round; nothing else is in memory.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lab import streams
from lab.progress import progress
from lab.specs import objective_of
from llm_scale import boards, matching, models, processes
from llm_scale.data import oracles
from llm_scale.data.items import experts_only
from llm_scale.data.oracles import Oracle
from llm_scale.data.tasks import Task
from llm_scale.matching import Match
from llm_scale.measure import gradients, held_out, monitors, telemetry
from llm_scale.measure.held_out import HeldOut
from llm_scale.measure.line import Pace
from llm_scale.measure.predicted import RewardTerms
from llm_scale.measure.row import measure
from llm_scale.models import in_training, lora, sharded, weights
from llm_scale.models.player import Machine, Player
from llm_scale.rounds.batches import order, passes, tokens_of
from llm_scale.rounds.begin import begin, references
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from llm_scale.store.journal import METRICS, Journal
from llm_scale.store.read import rows as rows_of
from llm_scale.store.state import SFT_ROUND, Phase, State, Store
from theory.objectives import Objective
from theory.objectives.implicit import implicit_reward


class Diverged(RuntimeError):
    """The loss was not finite; the message says where, the last good state is kept."""


@dataclass(frozen=True)
class Parts:
    """What a run is made of; none of it is replaced while it goes on.

    Attributes:
        objective: whose risk is minimised; None is maximum likelihood.
        oracle: compares own responses in the place of an expert; None is imitation.
        match: compares greedy responses with the reference, in some rounds; None: in none.
        scorer: the player's, or that wrapped for several processes; differentiable.
    """

    settings: Settings
    task: Task
    player: Player
    scorer: nn.Module
    store: Store
    objective: Objective | None
    oracle: Oracle | None
    match: Match | None = None

    @property
    def trained(self) -> list[nn.Parameter]:
        """The parameters that train."""
        return list(weights.trained(self.player.language.model).values())

    def gathered(self) -> contextlib.AbstractContextManager[None]:
        """Whole weights on every process: to sample, to score and to write."""
        return sharded.gathered(self.player.scorer)


def train(
    parts: Parts,
    on_round: Callable[[dict[str, Any]], None] = lambda row: None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Go on from the newest whole checkpoint, or start; to the end of the last round.

    Args:
        on_round: told every round's row when it is measured.
        say: told what was resumed, and what is wrong with a checkpoint or a round's responses.

    Raises:
        Diverged: a loss, gradient or log-probability is not finite; nothing was updated by it.
        InvalidInput: the folder's checkpoint is of another run.
    """
    s, store = parts.settings, parts.store
    state = State(new_optimiser(parts))
    store.resume(state, say)
    for round_ in range(state.round, s.rounds):  # -1 is the SFT start
        began = time.monotonic()
        if state.phase is Phase.BEGIN:
            with parts.gathered():
                sample_and_score(parts, state, say)
        steps = s.sft_steps if round_ == SFT_ROUND else s.steps_per_round
        left, pace = range(state.step, steps), Pace()
        bar = progress(left, steps, "step", processes.rank() == 0, state.step, state.name)
        for _ in bar:
            batch, row = step(parts, state, steps)
            store.journal.write(row, state.total)
            shown = pace.after(row["loss"], tokens_of(state.data, batch))
            bar.set_postfix_str(shown, refresh=False)
            last, due = state.step == steps, state.step % s.checkpoint_every == 0
            if last or due:
                with parts.gathered():
                    refuse_broken(parts, state, batch)
                    if due and not last:
                        store.save(state)
        with parts.gathered():
            if round_ == SFT_ROUND:
                store.keep("base")
            else:
                row = {"round": round_, **state.monitors, **measured(parts, state)}
                row |= validated(parts)
                keep_best(parts, row, say)
                store.journal.write(row, state.total)
                store.journal.time(round_, time.monotonic() - began)
                on_round(row)
        state.next_round()
        if s.reset_optimiser:
            state.optimiser = new_optimiser(parts)
        with parts.gathered():
            store.save(state)
    with parts.gathered():
        store.finish()


def step(parts: Parts, state: State, steps: int) -> tuple[list[int], dict[str, Any]]:
    """One optimiser step: the items it read, and its line of the metrics."""
    s, number = parts.settings, state.step
    played = None if state.round == SFT_ROUND else parts.objective
    batch = order(s.seed, state.round, number, s.batch, len(state.data.items))
    seen = direction(parts, state, steps) if played else {}
    with training_pass(parts, state):
        smoothing = 0.0 if played else s.label_smoothing
        loss = accumulate(parts, state.data, batch, played, smoothing)
    norm = optimise(parts, state, loss, steps)
    return batch, {"at": state.name, "step": number, "loss": loss, "gradient_norm": norm, **seen}


def losses(
    objective: Objective | None,
    batch: Round,
    log_pi: Tensor,
    beta: float,
    tau: float,
    terms: str = "both",
    length_normalised: bool = False,
) -> Tensor:
    """Loss per prompt (n,) of a round's data, from ``log pi`` of all of their responses."""
    if objective is None:
        return batch.likelihood_loss(log_pi)
    reward = implicit_reward(objective, log_pi, batch.opponent, beta, batch.log_anchor, tau)
    reward = batch.by_length(reward) if length_normalised else reward
    return batch.risk(objective, batch.held_at_zero(reward, terms))


def training_pass(parts: Parts, state: State) -> contextlib.AbstractContextManager[None]:
    """With the run's dropout, whose noise is a function of seed, round, step and process."""
    s = parts.settings
    if s.dropout == 0:
        return contextlib.nullcontext()
    key = state.round + 1, state.step, processes.rank()
    noise = int(streams.generator(s.seed, "dropout", *key).integers(2**63))
    return in_training.dropped(parts.player.language.model, noise)


def accumulate(
    parts: Parts,
    data: Round,
    chosen: Sequence[int],
    objective: Objective | None,
    smoothing: float = 0.0,
) -> float:
    """Add the gradient of the mean loss over items to the parameters; the loss itself.

    ``smoothing`` is of maximum likelihood's labels.
    """
    s, total = parts.settings, 0.0
    batches, most = passes(data, chosen, s.tokens_per_batch)
    padded = s.sharded * (most - len(batches))  # a pass gathers layers of all processes
    for number, rows in enumerate([*batches, *batches[-1:] * padded], 1):
        with (
            sharded.no_sync(parts.scorer, number == len(batches)),
            parts.player.machine.precision(),
        ):
            batch = data.subset(rows)
            if smoothing:
                log_pi = batch.smoothed(parts.scorer, smoothing)
            else:
                log_pi = batch.log_probs(parts.scorer)
            each = losses(
                objective, batch.to(log_pi.device), log_pi, s.beta, s.tau, s.terms,
                s.length_normalised,
            )  # fmt: skip
            loss = (number <= len(batches)) * each.sum() / len(chosen)
            (loss * processes.size()).backward()
        total += float(loss.detach())
    return float(sum(processes.together([total]))) if processes.size() > 1 else total


def optimise(parts: Parts, state: State, loss: float, steps: int) -> float:
    """One step along the gradient that is there; its norm before it was clipped.

    Raises:
        Diverged: the loss or its gradient is not finite; nothing was updated.
    """
    s = parts.settings
    if not np.isfinite(loss):
        raise diverged(parts, state, state.step, "loss", loss)
    limit = s.clip if s.clip > 0 else float("inf")
    norm = float(sharded.whole(nn.utils.clip_grad_norm_(parts.trained, limit)))
    if not np.isfinite(norm):
        raise diverged(parts, state, state.step, "gradient's norm", norm)
    for group in state.optimiser.param_groups:
        group["lr"] = s.lr * (1.0 - state.step / steps if s.schedule == "linear" else 1.0)
    state.optimiser.step()
    state.optimiser.zero_grad(set_to_none=True)
    state.step, state.total = state.step + 1, state.total + 1
    return norm


# -- the parts of a round ------------------------------------------------------------------------


def assemble(settings: Settings, out: Path, language: models.Language, task: Task) -> Parts:
    """A run's parts, in a folder."""
    player = Player(language, settings, Machine.of(settings))
    oracle = oracles.build(settings.oracle, task.expert, task.tokenizer)
    base = {}
    if language.adapter is not None:
        path = language.adapter.base_model_name_or_path or settings.model
        base = {"path": path, "digest": language.base}
        lora.narrow(language, player.machine.dtype)
    lead = processes.rank() == 0
    journal = Journal(out, boards.opened(settings.log, out, asdict(settings)) if lead else ())
    store = Store(out, settings, language, journal, base)
    scorer: nn.Module = player.scorer
    if settings.sharded:
        with player.machine.precision():
            sharded.shard(scorer)
    elif processes.size() > 1:
        scorer = nn.parallel.DistributedDataParallel(scorer)
    objective, match = objective_of(settings.objective), matching.build(settings.match)
    return Parts(settings, task, player, scorer, store, objective, oracle, match)


def new_optimiser(parts: Parts) -> torch.optim.Optimizer:
    """AdamW without any moments yet; what is no matrix (biases, norms) does not decay."""
    s = parts.settings
    matrices = [p for p in parts.trained if p.ndim > 1]
    others = [p for p in parts.trained if p.ndim <= 1]
    groups: list[dict[str, Any]] = [
        {"params": some, "weight_decay": decay}
        for some, decay in ((matrices, s.weight_decay), (others, 0.0))
        if some
    ]
    return torch.optim.AdamW(groups, lr=s.lr, fused=True)


def sample_and_score(
    parts: Parts, state: State, say: Callable[[str], None] = lambda text: None
) -> None:
    """Draw the round's responses and score all of them once; the checkpoint holds them.

    ``say`` is told what is wrong with them.
    """
    s, player, store, objective = parts.settings, parts.player, parts.store, parts.objective
    state.phase = Phase.TRAIN
    if state.round == SFT_ROUND:
        if s.sft_steps:
            state.data = Round.plain(experts_only(parts.task.items(SFT_ROUND)))
        return
    items, held = parts.task.items(state.round), parts.task.held_out()
    own = state.own or held_out.own_responses(player, held, state.round)
    store.keep("current")
    look = None
    if objective is None:
        items = experts_only(items)
        state.data, state.monitors = Round.plain(items), telemetry.lengths(items)
    else:
        base, now = store.weights("base"), {}
        if s.opponent == "mixture" or s.history > 0:
            now = weights.copy_of(player.language)
        previous = state.previous or now
        made = begin(player, items, state.round, objective, previous, base, parts.oracle)
        state.data, state.monitors = made.data, monitors.of_round(player, made)
        look = partial(references, player, objective=objective, previous=previous, base=base)
        state.previous = now
    for warning in monitors.warnings(state.monitors, s, player.machine.dtype):
        say(f"{state.name}: {warning}")
    state.monitors |= monitors.of_policy(player.language, items)
    state.held = HeldOut.draw(player, held, own, look) if held else HeldOut.none()
    store.save(state)


def direction(parts: Parts, state: State, steps: int) -> dict[str, float]:
    """Cosine to the SFT gradient on two steps' worth of fixed items, at some steps (S7)."""
    at = gradients.points(steps, parts.settings.cosines)
    if state.step not in at:
        return {}
    fixed = range(min(len(state.data.items), 2 * parts.settings.batch))
    found = gradients.cosine_to_sft(
        lambda sft: accumulate(parts, state.data, fixed, None if sft else parts.objective),
        parts.trained,
    )
    for name, here in (("start", at[0]), ("end", at[-1])):
        if found and state.step == here:
            state.monitors[f"cosine_{name}"] = found["cosine"]
    return found


def measured(parts: Parts, state: State) -> dict[str, Any]:
    """What the round's row says of held-out prompts; their points go to the journal."""
    s, store, game = parts.settings, parts.store, None
    if parts.objective is not None:
        sizes = s.expert_samples, s.own_samples
        ablated = s.terms != "both" or s.length_normalised or bool(s.not_of_current)
        game = RewardTerms(parts.objective, s.beta, s.tau, *sizes, s.level, s.history, ablated)
    due = (state.round + 1) % s.eval_every == 0
    found = measure(
        parts.player,
        parts.task,
        state.held,
        game,
        parts.oracle,
        store.weights,
        state.round,
        parts.match if due else None,
    )
    state.own = found.own
    if found.points:
        store.journal.points(state.round, found.points)
        store.journal.samples(state.round, found.samples)
    return found.values


def validated(parts: Parts) -> dict[str, float]:
    """``validation_nll`` (nats a response) and its error, of prompts to choose by."""
    items = parts.task.validation()
    if not items:
        return {}
    scores = parts.player.score([(i.prompt, i.expert[0].tokens) for i in items])
    return telemetry.mean("validation_nll", -scores.double().numpy())


def keep_best(parts: Parts, row: dict[str, Any], say: Callable[[str], None]) -> None:
    """The model as ``best/`` if no round before had a validation NLL as small.

    A round that is done again after an interruption is compared with those before it alone.
    """
    if not parts.settings.keep_best or not np.isfinite(row["validation_nll"]):
        return
    seen = rows_of(parts.store.out / METRICS)
    least = min((r["validation_nll"] for r in seen if "validation_nll" in r), default=np.inf)
    if row["validation_nll"] < least:
        parts.store.finish("best")
        found = f"validation NLL {row['validation_nll']:.3f} ({row['validation_nll_se']:.3f})"
        say(f"round {row['round']}: the best so far, {found} nats; kept in best/")


def refuse_broken(parts: Parts, state: State, chosen: Sequence[int]) -> None:
    """Before the weights are kept: Diverged if the last step broke them."""
    if not bool(torch.isfinite(state.data.subset(chosen).rescored(parts.player)).all()):
        what = "log-probability after it"
        raise diverged(parts, state, state.step - 1, what, float("nan"))


def diverged(parts: Parts, state: State, step: int, what: str, seen: float) -> Diverged:
    """Why the run stops, also for its folder."""
    told = {"round": state.round, "step": step, "what": what, "value": str(seen)}
    parts.store.journal.failure(told)
    where = f"{state.name}, step {step}: the {what} is {seen}"
    return Diverged(f"{where}; the last good state is in {parts.store.out / 'checkpoints'}")
