"""From settings to a model, a task and a machine; whatever cannot work is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from llm_scale import models, tasks, world
from llm_scale.player import Machine
from llm_scale.settings import Settings
from theory.errors import InvalidInput, refuse
from theory.settings import objective_of
from theory.text import load_pairs

TOKENIZER_TEXTS = 4000


@dataclass(frozen=True)
class Prepared:
    """What a trainer is made of."""

    machine: Machine
    language: models.Language
    task: tasks.Task


def prepare(settings: Settings) -> Prepared:
    """Load or make everything. InvalidInput: whatever is wrong with model, data, combination."""
    refuse(combination_problems(settings))
    machine = Machine.of(settings)
    world.start(machine.device)
    if settings.model != "tiny":
        language = models.load(settings.model, torch.float32, machine.device)
        return Prepared(machine, language, _task(settings, language.tokenizer))
    if settings.task == "phrases":
        known = tasks.phrases(settings)
        return Prepared(machine, models.tiny(known.tokenizer, settings.seed, machine.device), known)
    tasks.read_pairs(Path(settings.task))  # before anything is made
    texts = [pair.response for pair in load_pairs()[:TOKENIZER_TEXTS]]
    tokenizer = models.byte_tokenizer(texts)
    language = models.tiny(tokenizer, settings.seed, machine.device)
    return Prepared(machine, language, _task(settings, tokenizer))


def _task(settings: Settings, tokenizer: object) -> tasks.Task:
    if settings.task == "phrases":
        raise InvalidInput(
            f"task='phrases' has its own words; it goes with model='tiny', not {settings.model!r}"
        )
    return tasks.pair_file(Path(settings.task), tokenizer, settings)


def combination_problems(settings: Settings) -> list[str]:
    """Settings that are each right and do not go together."""
    objective = objective_of(settings.objective)
    problems = []
    if objective is not None:
        if reason := objective.missing("risk"):
            problems.append(f"objective={settings.objective!r} has no loss to train: {reason}")
        if "preference" in objective.needs and settings.oracle == "none":
            problems.append(
                f"objective={settings.objective!r} needs preferences: set oracle to "
                "bradley-terry or cyclic"
            )
        if "anchor" in objective.needs and settings.tau == 0:
            problems.append(f"objective={settings.objective!r} is anchored: set tau > 0")
        if objective.reference_free and settings.tau > 0:
            problems.append(f"objective={settings.objective!r} is reference-free: tau must be 0")
        if objective.form == "group" and settings.own_samples == 1 == settings.expert_samples:
            problems.append(
                f"objective={settings.objective!r} needs a group: own_samples >= 2 (with one of "
                "each it is IPO)"
            )
    return problems
