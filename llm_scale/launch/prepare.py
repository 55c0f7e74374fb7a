"""From settings to a model, a task and a machine; whatever cannot work is refused here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from lab.specs import objective_of
from llm_scale import boards, matching, models, processes
from llm_scale.data import oracles, records, tasks, user_file
from llm_scale.data.items import Item, Response
from llm_scale.launch import sources
from llm_scale.launch.combinations import combination_problems
from llm_scale.models import in_training, lora, output, probe
from llm_scale.models.expert import ModelExpert
from llm_scale.models.player import Machine
from llm_scale.oracle_spec import NONE
from llm_scale.rounds.preferences import PreferenceRound, given_pairs
from llm_scale.rounds.sequence import Round
from llm_scale.rounds.tokens import TokenRound
from llm_scale.settings import Settings
from llm_scale.store import expert
from llm_scale.train import losses
from theory.check import check_objective
from theory.errors import InvalidInput, refuse
from theory.objectives import Objective


@dataclass(frozen=True)
class Prepared:
    """What a trainer is made of."""

    machine: Machine
    language: models.Language
    task: tasks.Task

    @property
    def settings(self) -> Settings:
        """The run's, with what was left to the task filled in."""
        return self.task.settings


def prepare(settings: Settings) -> Prepared:
    """A run's parts, after every check. InvalidInput: all `problems`, or what `load` finds."""
    refuse(problems(settings))
    return load(settings)


def load(settings: Settings, say: Callable[[str], None] = lambda text: None) -> Prepared:
    """Load or make everything, then meet the other processes.

    Args:
        say: told by the first process what is worth knowing of the model and its files.

    Raises:
        InvalidInput: whatever is wrong with model and data, or does not fit together.
    """
    machine, notes = Machine.of(settings), list[str]()
    known = sources.known_expert(settings, machine, notes.append)
    made = _prepare(settings, machine, known, notes.append)
    refuse(combination_problems(made.settings))
    refuse(_fit_problems(made.settings, made))
    made = replace(made, language=_fitted(made.settings, made, notes.append))
    processes.start(machine.device)
    if settings.lora:
        base = "" if settings.model == "tiny" else settings.model
        if models.is_adapter(base):
            notes.append(
                "the model is an adapter: final/ will have all weights, and no folder adapter, "
                "which peft loads onto whole weights only"
            )
        shape = (settings.lora, settings.lora_alpha, settings.lora_targets)
        made = replace(made, language=lora.add(made.language, *shape, settings.seed, base))
    if processes.rank() == 0:
        for note in notes:
            say(note)
    return made


def _fitted(settings: Settings, made: Prepared, say: Callable[[str], None]) -> models.Language:
    """The language as it can be sampled. InvalidInput: it cannot; nothing to recompute or drop."""
    longest = made.task.longest_prompt + settings.max_new_tokens
    try:
        language = probe.fitted(made.language, longest, say)
    except InvalidInput as error:
        raise InvalidInput(f"model={settings.model!r}: {error}") from error
    if settings.recompute:
        in_training.recompute(language.model)
    if settings.dropout:
        in_training.set_dropout(language.model, settings.dropout)
    return language


def rehearse(settings: Settings) -> None:
    """What `load` would refuse once the expert of the text game is made, said before that.

    InvalidInput: see `load`.
    """
    machine = Machine.of(settings)
    stand_in = sources.untrained_expert(settings, machine)
    made = _prepare(settings, machine, stand_in, lambda text: None)
    refuse(_fit_problems(made.settings, made))


def problems(settings: Settings) -> list[str]:
    """All that can be said before anything is loaded: combinations, device, files."""
    out = combination_problems(settings) + _sft_run_problems(settings)
    out += boards.missing(settings.log)
    checks: list[Callable[[], object]] = [lambda: Machine.of(settings)]
    if settings.sharded and processes.announced() == 1:
        out.append("sharded is for several processes: start them with torchrun, or leave it out")
    if settings.task not in tasks.NAMED:
        name, named = f"task={settings.task!r}", f"{', '.join(map(repr, tasks.NAMED))} or "
        checks.append(lambda: records.there(Path(settings.task), name, named))
    if settings.model != "tiny":
        checks.append(lambda: models.there(settings.model))
    if settings.expert not in (expert.NONE, expert.MADE):
        checks.append(lambda: models.there(str(expert.folder(settings)), "expert"))
    if ":" in settings.objective:  # a user's; the others' formulas are tested
        checks.append(lambda: _check_objective(settings.objective))
    for check in checks:
        try:
            check()
        except InvalidInput as error:
            out += error.problems
    return out


def _check_objective(spec: str) -> None:
    """InvalidInput: formulas that contradict each other, or cannot be trained with."""
    objective = objective_of(spec)
    if objective is not None:
        found = check_objective(objective, progress=False)
        refuse(f"objective={spec!r}: {problem}" for problem in found.problems)


def _fit_problems(settings: Settings, made: Prepared) -> list[str]:
    """What does not go together of model and data."""
    task, language, out = made.task, made.language, []
    if settings.batch > task.size:
        out.append(
            f"batch={settings.batch}; a round has {task.size} prompts, needed is no more than that"
        )
    if settings.batch < processes.announced():
        out.append(
            f"batch={settings.batch}; {processes.announced()} processes need one prompt each"
        )
    if settings.own_prompt == "cut" and task.longest_prompt < 2:
        out.append("own_prompt='cut': the prompts are single tokens, nothing of them is cut")
    room = output.context(language.model)
    needed = task.longest_prompt + settings.max_new_tokens
    if room is not None and needed > room:
        out.append(
            f"max_new_tokens={settings.max_new_tokens} and the longest prompt "
            f"({task.longest_prompt} tokens) are beyond the model's context of {room} tokens"
        )
    if settings.sft_run:
        from transformers import AutoTokenizer

        final = Path(settings.sft_run) / "final"
        other = AutoTokenizer.from_pretrained(final, local_files_only=True)
        if other.get_vocab() != language.tokenizer.get_vocab():
            out.append(f"sft_run={settings.sft_run!r}: its model has other tokens")
    attempts: list[Callable[[], None]] = [
        lambda: _try_lora(settings, language),
        lambda: _try_oracle(settings, task),
        lambda: _try_match(settings, task),
        lambda: _try_objective(settings, task, language.eos),
    ]
    for attempt in attempts:
        try:
            attempt()
        except InvalidInput as error:
            out += error.problems
    return out


def _try_lora(settings: Settings, language: models.Language) -> None:
    if settings.lora:
        lora.check(language.model, settings.lora, settings.lora_targets)


def _try_oracle(settings: Settings, task: tasks.Task) -> None:
    oracle = oracles.build(settings.oracle, task.expert, task.tokenizer)
    if oracle is not None:
        oracles.probe(oracle, task.held_out() or task.items(0))


def _try_match(settings: Settings, task: tasks.Task) -> None:
    match = matching.build(settings.match)
    if match is not None:
        matching.probe(match, task.held_out_texts())


def _try_objective(settings: Settings, task: tasks.Task, eos: int) -> None:
    """One loss and its gradient, so that formulas and arguments fail before work and not in it."""
    objective = objective_of(settings.objective)
    if objective is None:
        return
    data = _smallest(settings, objective, eos)
    log_pi = (0.9 * data.current).requires_grad_()
    try:
        losses(
            objective,
            data,
            log_pi,
            settings.beta,
            settings.tau,
            settings.terms,
            settings.length_normalised,
        ).mean().backward()
    except (Exception, SystemExit) as error:
        raise InvalidInput(
            f"objective={settings.objective!r}: its loss of torch tensors fails: "
            f"{type(error).__name__}: {error} (functions of theory.xp take numpy and torch alike)"
        ) from error


def _smallest(settings: Settings, objective: Objective, eos: int) -> Round:
    """A round of one prompt with responses of one token, of the kind that the run will have."""
    some, own = Response((eos,), False), settings.own_samples
    by_oracle, by_token = settings.oracle != NONE, settings.level == "token"
    experts = 0 if by_oracle else settings.expert_samples
    old = (some,) if "history" in objective.needs else ()
    item = Item(0, (0,), (some,) * experts, () if by_token else (some,) * own, old)
    stored = torch.linspace(-2.0, -1.0, len(item.responses))
    if by_token:
        stored = torch.linspace(-2.0, -1.0, 1 + own).expand(experts, -1)
        return TokenRound([item], stored, stored, stored, torch.zeros(experts, own).long())
    if by_oracle:
        wins = 0.5 * (1.0 - torch.eye(own, dtype=torch.float64))[None]
        return PreferenceRound([item], stored, stored, stored, wins)
    made = Round([item], stored, stored, stored)
    return given_pairs(made) if settings.data == user_file.PAIRS else made


def _prepare(
    settings: Settings, machine: Machine, known: ModelExpert | None, say: Callable[[str], None]
) -> Prepared:
    s = settings
    if s.model != "tiny":
        language = models.load(s.model, torch.float32, machine.device, s.prompt_style, say)
    else:
        tokenizer = sources.made_tokenizer(s, known)
        language = models.tiny(tokenizer, s.seed, machine.device, s.width, s.layers, s.heads)
    return Prepared(machine, language, sources.task_of(s, language, known))


def _sft_run_problems(settings: Settings) -> list[str]:
    there = (Path(settings.sft_run) / "final" / "config.json").is_file()
    if there or not settings.sft_run:
        return []
    return [f"sft_run={settings.sft_run!r}: not the folder of a finished run (no final/ in it)"]
