"""From settings to a model, a task and a machine; whatever cannot work is refused here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoTokenizer

from llm_scale import models, oracles, tasks, world
from llm_scale.player import Machine
from llm_scale.settings import Settings
from theory.errors import InvalidInput, refuse
from theory.objectives import Objective
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
    refuse(combination_problems(settings) + _sft_run_problems(settings))
    machine = Machine.of(settings)
    world.start(machine.device)
    made = _prepare(settings, machine)
    if settings.sft_run:
        final = Path(settings.sft_run) / "final"
        other = AutoTokenizer.from_pretrained(final, local_files_only=True)
        if other.get_vocab() != made.language.tokenizer.get_vocab():
            raise InvalidInput(f"sft_run={settings.sft_run!r}: its model has other tokens")
    return made


def _prepare(settings: Settings, machine: Machine) -> Prepared:
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


def _sft_run_problems(settings: Settings) -> list[str]:
    there = (Path(settings.sft_run) / "final" / "config.json").is_file()
    if there or not settings.sft_run:
        return []
    return [f"sft_run={settings.sft_run!r}: not the folder of a finished run (no final/ in it)"]


def _task(settings: Settings, tokenizer: object) -> tasks.Task:
    if settings.task == "phrases":
        raise InvalidInput(
            f"task='phrases' has its own words; it goes with model='tiny', not {settings.model!r}"
        )
    return tasks.pair_file(Path(settings.task), tokenizer, settings)


def combination_problems(settings: Settings) -> list[str]:
    """Settings that are each right and do not go together."""
    objective = objective_of(settings.objective)
    name, problems = f"objective={settings.objective!r}", []
    by_oracle, by_token = settings.oracle != oracles.NONE, settings.level == "token"
    if by_oracle:
        problems += _preference_problems(settings, objective)
    elif settings.comparisons != "drawn":
        problems.append(f"comparisons={settings.comparisons!r} is for an oracle; set one")
    if by_token:
        problems += _token_problems(settings, objective)
    if objective is None:
        return problems
    if reason := objective.missing("risk"):
        problems.append(f"{name} has no loss to train: {reason}")
    if "preference" in objective.needs and not by_oracle:
        problems.append(
            f"{name} needs preferences: set oracle to bradley-terry, cyclic or your own"
        )
    if "anchor" in objective.needs and settings.tau == 0:
        problems.append(f"{name} is anchored: set tau > 0")
    if objective.reference_free and settings.tau > 0:
        problems.append(f"{name} is reference-free: tau must be 0")
    ours, theirs = settings.own_samples, settings.expert_samples
    if objective.form == "group" and not by_oracle and ours == 1 and (by_token or theirs == 1):
        problems.append(f"{name} needs a group: own_samples >= 2 (with one of each it is IPO)")
    return problems


def _preference_problems(settings: Settings, objective: Objective | None) -> list[str]:
    name, oracle = f"objective={settings.objective!r}", f"oracle={settings.oracle!r}"
    out = []
    if settings.own_samples < 2:
        out.append(
            f"{oracle} compares own responses with each other: own_samples="
            f"{settings.own_samples}; needed is >= 2"
        )
    if settings.expert_samples > 1:
        out.append(
            f"{oracle}: no expert response is trained on, expert_samples="
            f"{settings.expert_samples} must be 1"
        )
    if settings.level == "token":
        out.append(f"{oracle} compares whole responses: level must be sequence")
    if objective is None:
        return [*out, f"{name} learns from expert responses: oracle must be none"]
    if "history" in objective.needs:
        out.append(f"{name} needs responses of pi_0 beside an expert's: oracle must be none")
    if objective.form == "group" and settings.own_samples == 2:
        out.append(f"{name} needs a group: own_samples >= 3 (with one pair it is IPO)")
    return out


def _token_problems(settings: Settings, objective: Objective | None) -> list[str]:
    out = []
    if settings.opponent == "mixture":
        out.append(
            "opponent='mixture' draws a whole response from one of two models: level must be "
            "sequence (per token there are last, base, and objectives with a geometric mixture)"
        )
    if objective is not None and "history" in objective.needs:
        out.append(
            f"objective={settings.objective!r} compares with whole responses of pi_0: level must "
            "be sequence"
        )
    return out
