"""Where prompts, expert responses and tokens of a run come from: its task and its expert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from llm_scale import models
from llm_scale.data import tasks, text_game, user_file, verses
from llm_scale.data.prompts import format_prompt
from llm_scale.models import output, probe
from llm_scale.models.expert import ModelExpert
from llm_scale.models.player import Machine, Player
from llm_scale.settings import Settings
from llm_scale.store import expert
from theory.errors import InvalidInput, refuse
from theory.tokens.text import load_pairs

TOKENIZER_TEXTS = 4000
PROBED_PROMPTS = 64
"""Prompts of which learner and expert must have the same tokens."""
OWN_FORMAT = ("phrases", text_game.NAME)
"""Tasks whose prompts are tokens of text as it is, without a chat template."""


def known_expert(
    settings: Settings, machine: Machine, say: Callable[[str], None] = lambda text: None
) -> ModelExpert | None:
    """The language model that a run has as its expert, ready to sample and score.

    ``say`` is told what is worth knowing of it. InvalidInput: it cannot be loaded or sampled.
    """
    if settings.expert == expert.NONE:
        return None
    where = expert.folder(settings)
    style = settings.prompt_style
    language = models.load(where, torch.float32, machine.device, style, say, "expert")
    try:
        language = probe.fitted(language, settings.max_new_tokens, say)
        return ModelExpert(Player(language, settings, machine))
    except InvalidInput as error:
        raise InvalidInput([f"expert={settings.expert!r}: {p}" for p in error.problems]) from error


def untrained_expert(settings: Settings, machine: Machine) -> ModelExpert:
    """The expert of the text game before its first step."""
    s = expert.recipe(settings)
    tokenizer = text_game.text_tokenizer(s.vocabulary)
    language = models.tiny(tokenizer, s.seed, machine.device, s.width, s.layers, s.heads)
    return ModelExpert(Player(language, settings, machine))


def task_of(settings: Settings, language: models.Language, known: ModelExpert | None) -> tasks.Task:
    """The task for a learner, its expert responses from the known expert if there is one.

    Raises:
        InvalidInput: unreadable data, or an expert that does not go with task or learner.
    """
    tokenizer = language.tokenizer
    asked: tasks.Task
    if settings.task == "phrases":
        asked = tasks.phrases(settings)
    elif settings.task == verses.NAME:
        asked = verses.verses(settings, tokenizer, language.ends)
    elif settings.task == text_game.NAME:
        asked = text_game.text_game(settings, tokenizer, language.ends)
    else:
        room = output.context(language.model)
        asked = user_file.pair_file(Path(settings.task), tokenizer, settings, room, language.ends)
    if known is None:
        return asked
    refuse(
        f"expert={settings.expert!r}: {problem}"
        for problem in _expert_problems(settings, language, known.player.language, asked)
    )
    return tasks.Answered(asked, known, asked.settings)


def _expert_problems(
    settings: Settings, learner: models.Language, other: models.Language, asked: tasks.Task
) -> list[str]:
    """Why an expert cannot answer a task's prompts in the learner's tokens."""
    ours, theirs = learner.tokenizer, other.tokenizer
    if ours.get_vocab() != theirs.get_vocab() or learner.eos != other.eos:
        return ["its tokenizer is not the learner's: another vocabulary, or another end token"]
    out = []
    prompts = [item.prompt for item in [*asked.held_out(), *asked.items(0)][:PROBED_PROMPTS]]
    texts = [ours.decode(list(prompt), skip_special_tokens=True) for prompt in prompts]
    both = [t(texts, add_special_tokens=False)["input_ids"] for t in (ours, theirs)]
    written = settings.task not in OWN_FORMAT
    if written:
        both = [
            [*ids, format_prompt(t, "A prompt.", settings.prompt_style)]
            for ids, t in zip(both, (ours, theirs), strict=True)
        ]
    if both[0] != both[1]:
        out.append("its tokenizer is not the learner's: other tokens for the task's prompts")
    room = output.context(other.model)
    needed = asked.longest_prompt + asked.settings.max_new_tokens
    if room is not None and needed > room:
        out.append(
            f"a prompt of {asked.longest_prompt} tokens and max_new_tokens="
            f"{asked.settings.max_new_tokens} are beyond its context of {room} tokens"
        )
    rows = [output.vocabulary(language.model) for language in (learner, other)]
    if settings.level == "token" and rows[0] != rows[1]:
        out.append(f"level='token' compares whole laws: it has {rows[1]} outputs, not {rows[0]}")
    return out


def made_tokenizer(settings: Settings, known: ModelExpert | None) -> Any:
    """Of a model that is made on the spot: the task's words, the expert's tokens, or new ones."""
    if settings.task == "phrases":
        return tasks.phrases(settings).tokenizer
    if known is not None:
        tokenizer, usual = known.player.language.tokenizer, Settings().vocabulary
        if settings.vocabulary not in (usual, len(tokenizer)):
            raise InvalidInput(
                f"vocabulary={settings.vocabulary}; the expert has {len(tokenizer)} tokens, and "
                f"model='tiny' speaks those: say that number, or leave it out"
            )
        return tokenizer
    if settings.task == text_game.NAME:
        return text_game.text_tokenizer(settings.vocabulary)
    texts = [pair.response for pair in load_pairs()[:TOKENIZER_TEXTS]]
    return models.byte_tokenizer(texts, settings.vocabulary)
