"""A task as the model sees it, in plain text: examples token by token, lengths, duplicates."""

from __future__ import annotations

import textwrap
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from llm_scale import models
from llm_scale.data import tasks, text_game, user_file, verses
from llm_scale.data.items import Item, Tokens
from llm_scale.data.user_file import Encoded, FileRows, PairFile, counted
from llm_scale.launch import sources
from llm_scale.models import output
from llm_scale.settings import Settings
from llm_scale.store import expert
from theory.errors import InvalidInput

WIDTH = 100
"""Columns."""
CUT_OFF, NAMED_LINES = 40, 20
"""Tokens shown of what a horizon cuts off, and lines named of what is held out or twice there."""
QUANTILES = (0.0, 0.1, 0.5, 0.9, 0.99, 1.0)


def shown(settings: Settings, count: int) -> str:
    """The first ``count`` examples, lengths, duplicates, and what is held out.

    The model's weights are not loaded. InvalidInput: whatever training would refuse of the data.
    """
    if settings.task == "phrases":
        return _of_items(tasks.phrases(settings), count)
    tokenizer, room, ends = _tokens(settings)
    if settings.task == verses.NAME:
        return _of_items(verses.verses(settings, tokenizer, ends), count)
    if settings.task == text_game.NAME:
        return _of_items(text_game.text_game(settings, tokenizer, ends), count)
    read = user_file.read_rows(Path(settings.task), tokenizer, settings, ends)
    return _of_file(read, user_file.task_of(read, tokenizer, room), count)


def _tokens(settings: Settings) -> tuple[Any, int | None, tuple[int, ...]]:
    """Tokenizer, context and ends of the model; a tiny one speaks its expert's tokens."""
    if settings.model == "tiny" and settings.expert in (expert.NONE, expert.MADE):
        return sources.made_tokenizer(settings, None), None, ()
    tiny = settings.model == "tiny"
    name = "expert" if tiny else "model"
    where = str(expert.folder(settings)) if tiny else settings.model
    try:
        tokenizer, config, ends = models.tokens(where, settings.prompt_style)
    except InvalidInput as error:
        raise InvalidInput(f"{name}={where!r}: {error}") from error
    return tokenizer, None if tiny else output.context(SimpleNamespace(config=config)), ends


def _of_file(read: FileRows, task: PairFile, count: int) -> str:
    rows, horizon = read.rows, task.settings.max_new_tokens
    names = ("winner", "loser") if task.settings.data == user_file.PAIRS else ("response",)
    out = [*_wrapped(task.notes)]
    for number, row in enumerate(rows[:count], 1):
        out += ["", f"example {number}, {read.found.records.where(row.line)}"]
        sides = [(name, tokens, False) for name, tokens in zip(names, row.used, strict=True)]
        out += _example(task.tokenizer, row.prompt, sides, horizon)
    sizes = {"prompt": [len(row.prompt) for row in rows]}
    for i, name in enumerate(names):
        sizes[name] = [len(row.used[i]) for row in rows]
    return "\n".join([*out, "", *_lengths(sizes), "", *_twice(rows), *_held(rows, task)]) + "\n"


def _of_items(task: tasks.Task, count: int) -> str:
    """A task that is no file: prompts of its first round."""
    items, held = task.items(0), task.held_out()
    s = task.settings
    sizes = counted(len(items), "prompt"), counted(len(held), "prompt")
    out = [f"{s.task}: {sizes[0]} a round, {sizes[1]} held out"]
    for number, item in enumerate(items[:count], 1):
        sides = [("response", *response) for response in item.expert]
        out += ["", f"example {number}", *_example(task.tokenizer, item.prompt, sides)]
    return "\n".join([*out, "", *_lengths(_sides(items))]) + "\n"


def _sides(items: Sequence[Item]) -> dict[str, list[int]]:
    responses = [len(r.tokens) for item in items for r in item.expert]
    return {"prompt": [len(item.prompt) for item in items], "response": responses}


# -- an example ----------------------------------------------------------------------------------


def _example(
    tokenizer: Any,
    prompt: Tokens,
    sides: Iterable[tuple[str, Tokens, bool]],
    horizon: int | None = None,
) -> list[str]:
    """Lines of a prompt and its responses, of which ``horizon`` tokens are trained on.

    ``sides``: names, tokens, and whether the end was cut off before.
    """
    out = [
        f"  prompt, {len(prompt)} tokens; a response begins after the last",
        *_by_token(tokenizer, prompt),
    ]
    for name, tokens, without in sides:
        kept, off = tokens[:horizon], tokens[len(tokens[:horizon]) :]
        said = (
            f"cut to {len(kept)} by the horizon, without an end"
            if off
            else f"with{'out an' if without else ' its'} end"
        )
        out += [f"  {name}, {len(tokens)} tokens, {said}", *_by_token(tokenizer, kept)]
        if off:
            more = f", the first {CUT_OFF}" if len(off) > CUT_OFF else ""
            out += [f"  ... cut off, {len(off)} tokens{more}", *_by_token(tokenizer, off[:CUT_OFF])]
    return out


def _by_token(tokenizer: Any, tokens: Tokens) -> list[str]:
    """Tokens between bars, in lines that fit."""
    lines, line = [], "    |"
    for piece in (piece_of(tokenizer, token) for token in tokens):
        if columns(line) + columns(piece) + 1 > WIDTH and line != "    |":
            lines.append(line)
            line = "    |"
        line += piece + "|"
    return [*lines, line]


def piece_of(tokenizer: Any, token: int) -> str:
    """A token as text: spaces are spaces, what cannot be seen is escaped, part of a character is
    its number."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    text = raw.replace("\u2581", " ") if "\u2581" in raw else str(tokenizer.decode([token]))
    if not text or "\ufffd" in text:
        text = raw if raw.isascii() and raw else f"#{token}"
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text.replace("|", "\\|"))
    most = WIDTH - 10
    return text if columns(text) <= most else text[: most // 2 - 3] + "..."


def columns(text: str) -> int:
    """Columns of a terminal that a text takes."""
    return sum(1 + (unicodedata.east_asian_width(c) in "WF") for c in text)


# -- all rows ------------------------------------------------------------------------------------


def _lengths(sides: dict[str, list[int]]) -> list[str]:
    """Quantiles of lengths in tokens, uncut and with the end."""
    head = "".join(f"{f'{q:.0%}':>8}" for q in QUANTILES[1:-1])
    out = [f"{'tokens, quantiles':20}{'least':>8}{head}{'most':>8}"]
    for name, sizes in sides.items():
        found = np.quantile(sizes, QUANTILES, method="inverted_cdf")
        out.append(f"{name:20}" + "".join(f"{int(n):8d}" for n in found))
    return out


def _twice(rows: Sequence[Encoded]) -> list[str]:
    """How often a prompt, and a whole pair, are there again."""
    prompts: dict[Tokens, int] = {}
    whole: dict[tuple[Any, ...], int] = {}
    again = []
    for row in rows:
        prompts[row.prompt] = prompts.get(row.prompt, 0) + 1
        first = whole.setdefault((row.prompt, *row.used), row.line)
        if first != row.line:
            again.append(f"{row.line} is {first}")
    several = [n for n in prompts.values() if n > 1]
    said = (
        f"prompts that are there more than once: {len(several)} (in {counted(sum(several), 'row')})"
    )
    return _wrapped([said, f"pairs that are there again: {len(again)}{_few(again)}"])


def _held(rows: Sequence[Encoded], task: PairFile) -> list[str]:
    """What the seed holds out."""
    prompts = {item.prompt for item in task.held_out()}
    lines = [str(row.line) for row in rows if row.prompt in prompts]
    seed = task.settings.seed
    some = f"{counted(len(prompts), 'prompt')} (in {counted(len(lines), 'row')})"
    said = f"held out by seed {seed}: {some}{_few(lines)}"
    return _wrapped([said])


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED_LINES} more" if len(names) > NAMED_LINES else ""
    return f": {', '.join(names[:NAMED_LINES])}{more}" if names else ""


def _wrapped(texts: Iterable[str]) -> list[str]:
    return [line for text in texts for line in textwrap.wrap(text, WIDTH, subsequent_indent="  ")]
