"""The text game: first tokens of a shipped verse (modern side) are the prompt, the rest is said.

Verses are parted by a digest of their prompt: no prompt is in two parts, and none of the game's is
one on which an expert was trained. Without an expert the task is that text itself.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lab import streams
from lab.files import digest
from llm_scale.data.experts import Expert
from llm_scale.data.items import Item, Response, Tokens
from llm_scale.data.prompts import texts_of
from llm_scale.data.tokenizers import byte_tokenizer
from llm_scale.settings import Settings
from theory.errors import refuse
from theory.tokens.text import load_pairs

NAME = "text"
PROMPT_TOKENS = 4
PROMPTS, HORIZON = 64, 32
"""Of a round of prompts that an expert answers, where nothing else is said."""
PARTS = {"text": 58, "start": 17, "rounds": 17, "validation": 4, "test": 4}
"""Shares in percent: what an expert is trained on; prompts of the SFT start, of the rounds, and of
the two held-out parts. A prompt is there once, but in "text", which has all of its verses."""
REPEATED = 10**6
"""Step of the ids of a prompt that a round has again, with other responses."""


@dataclass(frozen=True)
class TextGame:
    """Verses by part; with an expert its prompts are asked and its responses are not used."""

    tokenizer: Any
    parts: dict[str, list[Item]]
    settings: Settings
    expert: Expert | None = None
    notes: tuple[str, ...] = ()

    def items(self, round_: int) -> list[Item]:
        """Prompts of a round (-1: of the SFT start); of the text itself without an expert.

        More prompts than there are come again: with an expert, whose other responses they get.
        """
        s, pool = self.settings, self._pool("start" if round_ < 0 else "rounds")
        size = self._size(pool)
        found: list[Item] = []
        for again in range(-(-size // len(pool))):
            key = (again,) if again else ()
            rng = streams.generator(s.seed, "round", s.drawn_round(round_) + 1, *key)
            order = rng.permutation(len(pool))
            found += [replace(pool[i], id=pool[i].id + again * REPEATED) for i in order]
        return found[:size]

    def held_out(self) -> list[Item]:
        """Prompts of the part that is measured."""
        return self._first(self.settings.measured_on, self.settings.held_out)

    def validation(self) -> list[Item]:
        """Prompts of the part to choose by; the other one is measured."""
        return self._first("validation", self.settings.validation)

    def held_out_texts(self) -> list[tuple[str, str]]:
        """Their beginnings and ends as text."""
        return texts_of(self.tokenizer, self.held_out())

    @property
    def size(self) -> int:
        """Number of training prompts of a round."""
        return self._size(self._pool("rounds"))

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt."""
        return max(len(item.prompt) for part in self.parts.values() for item in part)

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        """Nothing more."""
        return {}

    def _first(self, part: str, count: int) -> list[Item]:
        """So many prompts of a held-out part, drawn by the seed."""
        pool = self.parts[part]
        order = streams.generator(self.settings.seed, "held out").permutation(len(pool))
        return [pool[int(i)] for i in order[:count]]

    def _pool(self, part: str) -> list[Item]:
        return self.parts[part if self.settings.expert_known else "text"]

    def _size(self, pool: Sequence[Item]) -> int:
        most = self.settings.prompts if self.settings.expert_known else len(pool)
        return min(self.settings.prompts or len(pool), most or len(pool))


def text_game(settings: Settings, tokenizer: Any, ends: Sequence[int] = ()) -> TextGame:
    """The task for a tokenizer; responses are closed by the first of ``ends``, else by its EOS.

    InvalidInput: more held out than there is, or more responses.
    """
    settings = settings.filled(data="responses", max_new_tokens=HORIZON)
    parts = parted(tokenizer, settings.max_new_tokens, ends)
    settings = settings.filled(prompts=PROMPTS if settings.expert_known else len(parts["text"]))
    problems = []
    asked = [("held_out", settings.measured_on), ("validation", "validation")]
    for name, part in asked:
        there, wanted = len(parts[part]), getattr(settings, name)
        if wanted > there:
            problems.append(f"{name}={wanted}; task={NAME!r} has {there} prompts for {part}")
    if settings.expert_samples > 1 and not settings.expert_known:
        problems.append(f"expert_samples={settings.expert_samples}; a verse has 1 continuation")
    refuse(problems)
    return TextGame(tokenizer, parts, settings)


@dataclass(frozen=True)
class _Speech:
    """A tokenizer, equal to any other of the same rules."""

    rules: str
    tokenizer: Any = field(compare=False)


def parted(tokenizer: Any, horizon: int, ends: Sequence[int] = ()) -> dict[str, list[Item]]:
    """All verses as items by part; those of no more tokens than a prompt are left out.

    What was parted last is kept: runs of a sweep in one process have the same verses.
    """
    eos = int((*ends, tokenizer.eos_token_id)[0])
    start = () if tokenizer.bos_token_id is None else (int(tokenizer.bos_token_id),)
    backend = getattr(tokenizer, "backend_tokenizer", None)
    speech = _Speech(digest(backend.to_str()) if backend else "", tokenizer)
    part = _parted if backend else _parted.__wrapped__
    return {name: list(items) for name, items in part(speech, horizon, eos, start).items()}


@functools.lru_cache(maxsize=1)
def _parted(speech: _Speech, horizon: int, eos: int, start: Tokens) -> dict[str, list[Item]]:
    texts = [pair.response for pair in load_pairs()]
    parts: dict[str, list[Item]] = {name: [] for name in PARTS}
    seen: set[Tokens] = set()
    all_ids = speech.tokenizer(texts, add_special_tokens=False)["input_ids"]
    for number, ids in enumerate(all_ids):
        prompt, rest = tuple(ids[:PROMPT_TOKENS]), tuple(ids[PROMPT_TOKENS:])
        if not rest:
            continue
        part = part_of(prompt)
        if part == "text" or prompt not in seen:
            response = Response((*rest, eos)[:horizon], len(rest) >= horizon)
            parts[part].append(Item(number, start + prompt, (response,)))
        seen.add(prompt)
    return parts


def part_of(prompt: Tokens) -> str:
    """Which part a prompt is in: a function of its tokens alone."""
    at = int(digest(",".join(map(str, prompt)))[:12], 16) % sum(PARTS.values())
    for name, share in PARTS.items():
        if at < share:
            return name
        at -= share
    raise AssertionError("the shares are of their sum")


def text_tokenizer(size: int) -> Any:
    """Byte-level BPE of all shipped modern verses; a text is its own prompt, without a line end.

    What was trained last is kept: runs of a sweep in one process have the same one.
    """
    return copy.deepcopy(_text_tokenizer(size))


@functools.lru_cache(maxsize=1)
def _text_tokenizer(size: int) -> Any:
    texts = (pair.response for pair in load_pairs())
    return byte_tokenizer(texts, size, template="{{ messages[0]['content'] }}")
