"""What is learned: prompts with expert responses, here from a known expert."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from lab import streams
from llm_scale.data.experts import Expert, Ngram
from llm_scale.data.items import Item, Response, Tokens
from llm_scale.data.prompts import format_prompt
from llm_scale.data.tokenizers import word_tokenizer
from llm_scale.settings import Settings
from theory.tokens.text import common_phrases, load_pairs

NAMED = ("phrases", "verses")
"""Tasks that are no file."""
PHRASE_WORDS = 11
PROMPTS, HORIZON = 64, 8
"""Of a round of phrases, where nothing else is said."""
HELD_OUT = 10**12
"""Ids of held-out prompts begin here: their noise is never that of a training prompt."""


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
        first = (round_ + 1) * 10**7
        return [self._item(first + i, self.settings.expert_samples) for i in range(self.size)]

    def held_out(self) -> list[Item]:
        return [self._item(HELD_OUT + i, 1) for i in range(self.settings.held_out)]

    @property
    def size(self) -> int:
        return self.settings.prompts

    @property
    def longest_prompt(self) -> int:
        return max(map(len, self.prompts))

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        return {}

    def _item(self, ident: int, responses: int) -> Item:
        s = self.settings
        which = streams.generator(s.seed, "prompt", ident).integers(len(self.prompts))
        prompt = self.prompts[int(which)]
        drawn = [
            self.expert.sample(
                prompt, streams.uniform(s.max_new_tokens, s.seed, "expert", ident, g)
            )
            for g in range(responses)
        ]
        return Item(ident, prompt, tuple(drawn))


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
