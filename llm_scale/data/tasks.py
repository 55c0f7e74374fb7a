"""What is learned: prompts with expert responses, here from a known expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Protocol

from lab import streams
from llm_scale.data.experts import Expert, Ngram, answers
from llm_scale.data.items import Item, Response, Tokens
from llm_scale.data.prompts import format_prompt, text_of, texts_of
from llm_scale.data.tokenizers import word_tokenizer
from llm_scale.settings import Settings
from theory.tokens.text import common_phrases, load_pairs

NAMED = ("phrases", "verses", "text")
"""Tasks that are no file."""
PHRASE_WORDS = 11
PROMPTS, HORIZON = 64, 8
"""Of a round of phrases, where nothing else is said."""
HELD_OUT, VALIDATION = 10**12, 10**13
"""Ids of held-out and of validation prompts begin here: their noise is never that of others."""


class Task(Protocol):
    """Prompts and expert responses; ``expert`` where its log-probabilities are known."""

    @property
    def tokenizer(self) -> Any: ...

    @property
    def expert(self) -> Expert | None: ...

    @property
    def settings(self) -> Settings:
        """The run's, with what was left to the task filled in."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What is to be said of the data before work, a line each."""
        ...

    def items(self, round_: int) -> list[Item]:
        """Training prompts of a round (-1: of the SFT start) with their expert responses."""
        ...

    def held_out(self) -> list[Item]:
        """Prompts for measurement, disjoint from training in data or in noise."""
        ...

    def validation(self) -> list[Item]:
        """Prompts to choose by: none of training and none of `held_out`."""
        ...

    def held_out_texts(self) -> list[tuple[str, str]]:
        """(prompt, expert response) of every one of `held_out`, as text."""
        ...

    @property
    def size(self) -> int:
        """Number of training prompts of a round."""
        ...

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        ...

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        """What the task itself measures of responses' texts; ``when`` is added to the names."""
        ...


@dataclass(frozen=True)
class KnownExpert:
    """Endless prompts and responses drawn from an expert."""

    tokenizer: Any
    expert: Expert
    prompts: tuple[Tokens, ...]
    settings: Settings
    notes: tuple[str, ...] = ()

    def items(self, round_: int) -> list[Item]:
        first = (self.settings.drawn_round(round_) + 1) * 10**7
        return self._items(range(first, first + self.size), self.settings.expert_samples)

    def held_out(self) -> list[Item]:
        return self._items(range(HELD_OUT, HELD_OUT + self.settings.held_out), 1)

    def validation(self) -> list[Item]:
        return self._items(range(VALIDATION, VALIDATION + self.settings.validation), 1)

    def held_out_texts(self) -> list[tuple[str, str]]:
        return texts_of(self.tokenizer, self.held_out())

    @property
    def size(self) -> int:
        return self.settings.prompts

    @property
    def longest_prompt(self) -> int:
        return max(map(len, self.prompts))

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        return {}

    def _items(self, idents: Sequence[int], responses: int) -> list[Item]:
        s, count = self.settings, len(self.prompts)
        which = [streams.generator(s.seed, "prompt", ident).integers(count) for ident in idents]
        items = [Item(n, self.prompts[int(i)], ()) for n, i in zip(idents, which, strict=True)]
        return answered(items, self.expert, responses, s, "expert")


def answered(
    items: Sequence[Item], expert: Expert, count: int, settings: Settings, *key: str | int
) -> list[Item]:
    """The prompts of items with ``count`` responses of an expert.

    Args:
        key: purpose of the noise and its first indices; those of item and response follow.
    """
    each = [(item, g) for item in items for g in range(count)]
    purpose, *indices = key

    def noise(i: int) -> Any:
        item, g = each[i]
        at = (*map(int, indices), item.id, g)
        return streams.uniform(settings.max_new_tokens, settings.seed, str(purpose), *at)

    drawn = answers(expert, [item.prompt for item, _ in each], noise)
    return [
        replace(item, expert=tuple(drawn[i * count : (i + 1) * count]))
        for i, item in enumerate(items)
    ]


@dataclass(frozen=True)
class Answered:
    """A task's prompts, with responses of a known expert in the place of its own."""

    asked: Task
    expert: Expert
    settings: Settings
    _kept: dict[str, list[Item]] = field(default_factory=dict, repr=False, compare=False)

    @property
    def tokenizer(self) -> Any:
        return self.asked.tokenizer

    @property
    def notes(self) -> tuple[str, ...]:
        return self.asked.notes

    def items(self, round_: int) -> list[Item]:
        drawn = self.settings.drawn_round(round_)
        if self.settings.round_data == "fixed" and drawn == 0:
            if "fixed" not in self._kept:
                self._kept["fixed"] = self._drawn(drawn)
            return self._kept["fixed"]
        return self._drawn(drawn)

    def held_out(self) -> list[Item]:
        if "held out" not in self._kept:
            asked = self.asked.held_out()
            found = answered(asked, self.expert, 1, self.settings, "held-out expert")
            self._kept["held out"] = found
        return self._kept["held out"]

    def validation(self) -> list[Item]:
        if "validation" not in self._kept:
            asked = self.asked.validation()
            found = answered(asked, self.expert, 1, self.settings, "validation expert")
            self._kept["validation"] = found
        return self._kept["validation"]

    def held_out_texts(self) -> list[tuple[str, str]]:
        asked = [prompt for prompt, _ in self.asked.held_out_texts()]
        said = [text_of(self.tokenizer, item.expert[0]) for item in self.held_out()]
        return list(zip(asked, said, strict=True))

    @property
    def size(self) -> int:
        return self.asked.size

    @property
    def longest_prompt(self) -> int:
        return self.asked.longest_prompt

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        return self.asked.text_row(responses, when)

    def _drawn(self, round_: int) -> list[Item]:
        s, asked = self.settings, self.asked.items(round_)
        return answered(asked, self.expert, s.expert_samples, s, "expert", round_ + 1)


def phrases(settings: Settings, words: int = PHRASE_WORDS, order: int = 2) -> KnownExpert:
    """Known expert: an order-``order`` model of short phrases of real text.

    A prompt is a phrase's first word, its response the rest; a token is a word.
    """
    texts = _texts(words)
    counts: dict[str, int] = {}
    for text in texts:
        for word in text.split():
            counts[word] = counts.get(word, 0) + 1
    tokenizer = word_tokenizer(sorted(counts, key=lambda w: (-counts[w], w)))
    sequences = [tuple(ids) for ids in tokenizer(texts)["input_ids"]]
    eos = int(tokenizer.eos_token_id)
    expert = Ngram(sequences, len(tokenizer), eos, order)
    first = sorted({sequence[0] for sequence in sequences})
    prompts = [format_prompt(tokenizer, str(tokenizer.decode([i]))) for i in first]
    filled = settings.filled(data="responses", prompts=PROMPTS, max_new_tokens=HORIZON)
    return KnownExpert(tokenizer, expert, tuple(tuple(p) for p in prompts), filled)


@lru_cache
def _texts(words: int) -> list[str]:
    """Phrases of the shipped text, found once a process: a sweep asks for them with every run."""
    return common_phrases((pair.response for pair in load_pairs()), words, 2, 6)
