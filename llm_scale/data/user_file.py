"""A user's file as a task: pairs to imitate, or given preferences to learn from."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lab import streams
from lab.specs import objective_of
from llm_scale.data.experts import Expert
from llm_scale.data.formats import Example, Examples, read_examples
from llm_scale.data.items import Item, Response, Tokens
from llm_scale.data.prompts import check_style, encode_response, format_prompt, today, written
from llm_scale.data.records import Problem
from llm_scale.oracle_spec import NONE
from llm_scale.settings import Settings
from theory.errors import InvalidInput, refuse

PAIRS, RESPONSES = "pairs", "responses"
LONGEST = 512
"""Tokens; the horizon that a file with longer responses gets where nothing else is said."""
WHOLE = 2**31
"""A horizon that cuts nothing."""


class Encoded(NamedTuple):
    """A row as tokens; responses with their end, uncut.

    ``rejected`` is None where the losing response is not used.
    """

    line: int
    prompt: Tokens
    response: Tokens
    rejected: Tokens | None

    @property
    def used(self) -> tuple[Tokens, ...]:
        """The responses that a run reads."""
        return (self.response,) if self.rejected is None else (self.response, self.rejected)


@dataclass(frozen=True)
class PairFile:
    """A user's prompts and responses; some prompts, chosen by the seed, are held out.

    An item of ``pairs`` has one expert response and, of given preferences, the loser in the own
    one's place; with ``expert_samples`` G > 1 it has all of its prompt's, and a round draws G of
    them. Of a held-out prompt one row is kept; its others, if the file has several, are not used.
    ``texts`` are prompts and first responses as they were written, by `Item.id`.
    """

    tokenizer: Any
    pairs: tuple[Item, ...]
    settings: Settings
    expert: Expert | None = None
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    def items(self, round_: int) -> list[Item]:
        train, s = self._split[0], self.settings
        drawn = s.drawn_round(round_)
        order = streams.generator(s.seed, "round", drawn + 1).permutation(len(train))
        return [self._drawn(train[int(i)], drawn) for i in order[: self.size]]

    def held_out(self) -> list[Item]:
        return [dataclasses.replace(i, expert=i.expert[:1]) for i in self._split[1]]

    def validation(self) -> list[Item]:
        return [dataclasses.replace(i, expert=i.expert[:1]) for i in self._split[2]]

    def held_out_texts(self) -> list[tuple[str, str]]:
        return [self.texts[item.id] for item in self.held_out()]

    @property
    def size(self) -> int:
        train = len(self._split[0])
        return min(self.settings.prompts or train, train)

    @property
    def longest_prompt(self) -> int:
        return max(len(item.prompt) for item in self.pairs)

    def text_row(self, responses: Sequence[Response], when: str = "") -> dict[str, float]:
        return {}

    @cached_property
    def _split(self) -> tuple[list[Item], list[Item], list[Item]]:
        """Items to train, held-out ones, and those of validation; no prompt is in two of them."""
        first, count = self.settings.held_out, self.settings.validation
        order = streams.generator(self.settings.seed, "held out").permutation(len(self.pairs))
        chosen = [self.pairs[int(i)] for i in order]
        kept: dict[Tokens, Item] = {}
        for item in chosen:
            if len(kept) < first + count:
                kept.setdefault(item.prompt, item)
        apart = list(kept.values())
        train = [item for item in chosen if item.prompt not in kept]
        return train, apart[:first], apart[first:]

    def _drawn(self, item: Item, round_: int) -> Item:
        """An item with G of its expert responses."""
        count = responses_of(self.settings)
        if len(item.expert) == count:
            return item
        rng = streams.generator(self.settings.seed, "group", round_ + 1, item.id)
        some = rng.permutation(len(item.expert))[:count]
        return dataclasses.replace(item, expert=tuple(item.expert[int(i)] for i in some))


@dataclass(frozen=True)
class FileRows:
    """A file as tokens: its rows, and the settings with what it says of preferences and dates."""

    found: Examples
    rows: tuple[Encoded, ...]
    settings: Settings


def pair_file(
    path: Path,
    tokenizer: Any,
    settings: Settings,
    room: int | None = None,
    ends: Sequence[int] = (),
) -> PairFile:
    """A task from a file of any of the formats. InvalidInput: see `read_rows`, `task_of`."""
    return task_of(read_rows(path, tokenizer, settings, ends), tokenizer, room)


def read_rows(path: Path, tokenizer: Any, settings: Settings, ends: Sequence[int] = ()) -> FileRows:
    """The rows of a file as tokens, closed as `encode_response` says.

    Two settings may be left to it: how preferences are used, and the date of a template (today).

    InvalidInput: a file that cannot be read, bad rows, long prompts.
    """
    found = read_examples(path)
    settings = settings.filled(
        data=PAIRS if _are_pairs(found, settings) else RESPONSES,
        prompt_date=today(tokenizer, settings.prompt_style),
    )
    rows, problems = encoded(found, tokenizer, settings, ends)
    refuse((f"{found.records.where(line)}: {problem}" for line, problem in problems), most=10)
    return FileRows(found, tuple(rows), settings)


def task_of(read: FileRows, tokenizer: Any, room: int | None = None) -> PairFile:
    """A task from rows.

    Two settings may be left to them: prompts a round (all), and the horizon (the longest response
    with its end, up to `LONGEST` and to what the model's context of ``room`` tokens leaves).

    InvalidInput: too few prompts, or too few responses to them.
    """
    found, rows, settings = read.found, read.rows, read.settings
    groups = _grouped(rows) if responses_of(settings) > 1 else [(row,) for row in rows]
    refuse(_count_problems(found, rows, groups, settings))
    longest = max(len(tokens) for row in rows for tokens in row.used)
    free = LONGEST if room is None else room - max(len(row.prompt) for row in rows)
    settings = settings.filled(max_new_tokens=max(1, min(longest, LONGEST, free)))
    pairs = tuple(_item(i, group, settings) for i, group in enumerate(groups))
    by_line = {example.line: example for example in found.examples}
    first = [by_line[group[0].line] for group in groups]
    texts = tuple((written(example.prompt), example.response) for example in first)
    train = len(PairFile(tokenizer, pairs, settings)._split[0])
    made = PairFile(tokenizer, pairs, settings.filled(prompts=train), texts=texts)
    return dataclasses.replace(made, notes=_notes(found, rows, made))


def cut(tokens: Tokens, horizon: int) -> Response:
    """A response as it is trained on; one that is cut has lost its end."""
    return Response(tokens[:horizon], len(tokens) > horizon)


def encoded(
    found: Examples, tokenizer: Any, settings: Settings, ends: Sequence[int]
) -> tuple[list[Encoded], list[Problem]]:
    """Rows as tokens, closed as `encode_response` says; and all problems of a file by line."""
    style, date = settings.prompt_style, settings.prompt_date
    check_style(tokenizer, style, date)  # a bad template is said once
    rows, problems = [], list(found.problems)
    for example in found.examples:
        try:
            rows.append(_encoded(example, tokenizer, settings, ends))
        except InvalidInput as error:
            problems += [(example.line, problem) for problem in error.problems]
    return rows, sorted(problems)


def _encoded(example: Example, tokenizer: Any, settings: Settings, ends: Sequence[int]) -> Encoded:
    style, date, most = settings.prompt_style, settings.prompt_date, settings.max_prompt_tokens
    problems: list[str] = []
    sides: list[Tokens] = []
    prompt: Tokens = ()
    try:
        prompt = tuple(format_prompt(tokenizer, example.prompt, style, date))
    except InvalidInput as error:
        problems += error.problems
    if len(prompt) > most:
        problems.append(
            f"its prompt has {len(prompt)} tokens; allowed are max_prompt_tokens={most}"
        )
    texts = [example.response]
    if settings.data == PAIRS:
        if example.rejected is None:
            problems.append("data='pairs': it has no response that is not preferred")
        else:
            texts.append(example.rejected)
    for text in texts:
        try:
            sides.append(tuple(encode_response(tokenizer, text, WHOLE, ends)[0]))
        except InvalidInput as error:
            problems += error.problems
    refuse(problems)
    return Encoded(example.line, prompt, sides[0], sides[1] if len(sides) > 1 else None)


def _are_pairs(found: Examples, settings: Settings) -> bool:
    alone = settings.oracle == NONE and not settings.expert_known
    return found.preferences and alone and settings.level == "sequence"


def responses_of(settings: Settings) -> int:
    """Expert responses to a prompt that a file has to give: G, or one beside a known expert's."""
    return 1 if settings.expert_known else settings.expert_samples


def _grouped(rows: Sequence[Encoded]) -> list[tuple[Encoded, ...]]:
    """Rows of the same prompt together, in the order of the file."""
    groups: dict[Tokens, list[Encoded]] = {}
    for row in rows:
        groups.setdefault(row.prompt, []).append(row)
    return [tuple(group) for group in groups.values()]


def _item(ident: int, rows: Sequence[Encoded], settings: Settings) -> Item:
    horizon = settings.max_new_tokens
    own = [cut(row.rejected, horizon) for row in rows if row.rejected is not None]
    expert = tuple(cut(row.response, horizon) for row in rows)
    return Item(ident, rows[0].prompt, expert, tuple(own))


def _count_problems(
    found: Examples,
    rows: Sequence[Encoded],
    items: Sequence[tuple[Encoded, ...]],
    settings: Settings,
) -> list[str]:
    """Too few responses to a prompt, or too few prompts."""
    path, count, out = found.records.path, responses_of(settings), []
    few = [group for group in items if len(group) < count]
    if few:
        out.append(
            f"expert_samples={count}: {len(few)} of {counted(len(items), 'prompt')} of {path} have "
            f"fewer responses (that of {found.records.unit} {few[0][0].line} has "
            f"{counted(len(few[0]), 'response')} to a prompt)"
        )
    different = len({row.prompt for row in rows})
    if different < settings.held_out + settings.validation + 1:
        also = f", validation={settings.validation}" if settings.validation else ""
        out.append(
            f"{path}: {counted(len(rows), 'pair')} of {counted(different, 'prompt')}; needed are "
            f"held_out={settings.held_out}{also} prompts and one to train"
        )
    return out


# -- what is said of it --------------------------------------------------------------------------


def _notes(found: Examples, rows: Sequence[Encoded], task: PairFile) -> tuple[str, ...]:
    """One line on what the file is, how it is used, and what is cut."""
    s = task.settings
    each = sorted(len(group) for group in _grouped(rows))
    train, held, chosen_by = task._split
    said = [
        f"{found.records.path}: {found.format} ({found.records.kind}), {_use(found, s)}",
        f"{counted(len(rows), 'pair')}, {counted(len(each), 'prompt')}, {_span(each)} a prompt",
        f"{counted(len(held), 'prompt')} held out{_chosen_by(chosen_by)}, {task.size} of "
        f"{len(train)} used a round",
    ]
    read = s.batch * s.steps_per_round
    if s.rounds and task.size > read:
        said[-1] += f" (of which its {s.steps_per_round} steps of {s.batch} read {read})"
    said.append(cut_note(rows, s.max_new_tokens))
    said.append(
        f"longest prompt {max(len(row.prompt) for row in rows)} tokens, "
        f"longest response {max(len(t) for row in rows for t in row.used)}"
    )
    same = sum(row.response == row.rejected for row in rows)
    if same:
        said.append(f"{counted(same, 'pair')} of equal responses")
    if found.unread:
        said.append(f"not read: {', '.join(found.unread)}")
    return ("; ".join(said),)


def counted(number: int, noun: str) -> str:
    """How many of something: "1 pair", "2 pairs"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def _chosen_by(items: Sequence[Item]) -> str:
    return f", {len(items)} to choose by" if items else ""


def _use(found: Examples, settings: Settings) -> str:
    """What the responses are for, and what of them is left out."""
    if settings.data == PAIRS and objective_of(settings.objective) is None:
        return "winners of given pairs imitated"
    if settings.data == PAIRS:
        return "given pairs of winner and loser (data=responses imitates the winners)"
    if settings.expert_known:
        return "its prompts answered by the expert, its responses not read"
    which, left = "responses", ""
    if found.preferences:
        which, left = "chosen responses", ", rejected ones not read"
    elif any(example.rejected is not None for example in found.examples):
        which, left = "real responses", ", generated ones not read"
    if settings.oracle == NONE:
        return f"{which} imitated{left}" + " (data=pairs learns from both)" * bool(left)
    done = "imitated by the SFT start alone" if settings.sft_steps else "measured, not imitated"
    return f"{which} {done}{left}"


def _span(sizes: Sequence[int]) -> str:
    low, high = min(sizes), max(sizes)
    return f"{low if low == high else f'{low} to {high}'} response{'s' * (high > 1)}"


def cut_note(rows: Sequence[Encoded], horizon: int) -> str:
    """How many expert responses the horizon cuts, and by how much."""
    over = [len(row.response) - horizon for row in rows if len(row.response) > horizon]
    if not over:
        return f"horizon {horizon} tokens (max_new_tokens) cuts no expert response"
    mean = float(np.mean(over))
    return (
        f"horizon {horizon} tokens (max_new_tokens) cuts {len(over)} of {len(rows)} expert "
        f"responses, by {mean:.0f} tokens in the mean and {max(over)} at most: they lose their end"
    )
