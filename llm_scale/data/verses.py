"""The shipped real text as a task: a King James verse, to be put into modern English.

Whole books are held out, chosen so that no other book retells them (as Chronicles retells Kings and
the Gospels each other): a verse that is measured has no near copy in training. See data/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from lab import streams
from lab.stats import standard_error
from llm_scale.data.experts import Expert
from llm_scale.data.items import Item, Response
from llm_scale.data.prompts import encode_response, format_prompt, text_of, today
from llm_scale.settings import Settings
from theory.errors import refuse
from theory.tokens.text import Pair, load_pairs, split_by_book

NAME = "verses"
INSTRUCTION = "Rewrite this verse in modern English:\n"
PROMPTS, HORIZON = 64, 96
"""Of a round, where nothing else is said."""
HELD_OUT_BOOKS = ("Job", "Ecclesiastes", "Amos", "Acts", "Galatians")
ARCHAIC_WORDS = (
    "thee thou thy thine thyself ye hath hast hadst doth dost didst saith sayest shalt wilt wast "
    "wert canst mayest knowest art unto spake begat brethren verily wherefore thereof "
    "hither thither whither thence whence yea nay whosoever whatsoever nigh wroth smote"
)
ARCHAIC = frozenset(ARCHAIC_WORDS.split())
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Verses:
    """Verses as text; those that a run uses become tokens when they are asked for."""

    tokenizer: Any
    train: tuple[Pair, ...]
    held: tuple[Pair, ...]
    settings: Settings
    ends: tuple[int, ...] = ()
    expert: Expert | None = None
    notes: tuple[str, ...] = ()
    _made: dict[int, Item] = field(default_factory=dict, repr=False, compare=False)

    def items(self, round_: int) -> list[Item]:
        """Training verses of a round (-1: of the SFT start)."""
        s = self.settings
        rng = streams.generator(s.seed, "round", s.drawn_round(round_) + 1)
        return [self._item(int(i)) for i in rng.permutation(len(self.train))[: self.size]]

    def held_out(self) -> list[Item]:
        """Verses of the held-out books."""
        return [self._item(len(self.train) + i) for i in self._chosen()]

    def validation(self) -> list[Item]:
        """Verses of the held-out books that `held_out` does not have."""
        first, count = self.settings.held_out, self.settings.validation
        return [self._item(len(self.train) + i) for i in self._order()[first : first + count]]

    def held_out_texts(self) -> list[tuple[str, str]]:
        """(prompt, response) of `held_out` as text."""
        return [(prompt_of(self.held[i]), self.held[i].response) for i in self._chosen()]

    @property
    def size(self) -> int:
        """Number of training verses of a round."""
        return min(self.settings.prompts, len(self.train))

    @property
    def longest_prompt(self) -> int:
        """Tokens of the longest prompt that the run uses."""
        rounds = range(-1 if self.settings.sft_steps else 0, self.settings.rounds)
        used = [
            *self.held_out(),
            *self.validation(),
            *(item for r in rounds for item in self.items(r)),
        ]
        return max((len(item.prompt) for item in used), default=0)

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        """Share of archaic words a response, mean and standard error."""
        shares = [archaic(text_of(self.tokenizer, r)) for r in responses]
        name = f"archaic{when}"
        return {name: float(np.mean(shares)), f"{name}_se": standard_error(shares)}

    def _chosen(self) -> list[int]:
        return self._order()[: self.settings.held_out]

    def _order(self) -> list[int]:
        order = streams.generator(self.settings.seed, "held out").permutation(len(self.held))
        return [int(i) for i in order]

    def _item(self, number: int) -> Item:
        if number not in self._made:
            kept = len(self.train)
            pair = self.train[number] if number < kept else self.held[number - kept]
            s = self.settings
            text = prompt_of(pair)
            prompt = format_prompt(self.tokenizer, text, s.prompt_style, s.prompt_date)
            tokens, cut = encode_response(
                self.tokenizer, pair.response, s.max_new_tokens, self.ends
            )
            self._made[number] = Item(number, tuple(prompt), (Response(tuple(tokens), cut),))
        return self._made[number]


def verses(settings: Settings, tokenizer: Any, ends: Sequence[int] = ()) -> Verses:
    """The task for a tokenizer, and the tokens that end a response as of `encode_response`.

    Raises:
        InvalidInput: more verses held out than there are, prompts that are too long, or a wish for
            more than the one wording that there is.
    """
    train, held = split_by_book(load_pairs(), HELD_OUT_BOOKS)
    date = today(tokenizer, settings.prompt_style)
    settings = settings.filled(
        data="responses", prompts=PROMPTS, prompt_date=date, max_new_tokens=HORIZON
    )
    task = Verses(tokenizer, tuple(train), tuple(held), settings, tuple(ends))
    problems = []
    if settings.held_out + settings.validation > len(held):
        also = f" and validation={settings.validation}" if settings.validation else ""
        problems.append(
            f"held_out={settings.held_out}{also}; task={NAME!r} has {len(held)} verses in the "
            f"books {', '.join(HELD_OUT_BOOKS)}"
        )
    if settings.expert_samples > 1 and not settings.expert_known:
        problems.append(f"expert_samples={settings.expert_samples}; a verse has 1 modern wording")
    if (longest := task.longest_prompt) > settings.max_prompt_tokens:
        problems.append(
            f"max_prompt_tokens={settings.max_prompt_tokens}; task={NAME!r} has a prompt of "
            f"{longest} tokens"
        )
    refuse(problems)
    return task


def prompt_of(pair: Pair) -> str:
    """What the user says, before the chat template."""
    return INSTRUCTION + pair.prompt


def archaic(text: str) -> float:
    """Share of a text's words that are archaic: 5 % of the King James side, none of the other's."""
    words = _WORD.findall(text.lower())
    return sum(word in ARCHAIC for word in words) / max(1, len(words))
