"""Real text: prompt and response pairs from JSON lines, split by book, and tokens of a text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from theory.errors import InvalidInput, refuse
from theory.files import json_lines

SHIPPED = Path(__file__).resolve().parents[2] / "data" / "modern_english.jsonl.gz"
"""The text that comes with the repository (not with an installed package)."""

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*|\d+|[^\w\s]")
_PHRASE_END = re.compile(r"[.,;:!?()“”\"—]+")
_VERSE = re.compile(r"\s+\d+(:\d+)?$")


class Pair(NamedTuple):
    """One example: the book it belongs to ("" if unknown), its prompt and its response."""

    book: str
    prompt: str
    response: str


def load_pairs(path: str | Path | None = None) -> list[Pair]:
    """Pairs of a JSON-lines file (plain or .gz) with the fields prompt, response and perhaps ref.

    Without a path: the shipped text, see data/README.md.  The book is `ref` without chapter and
    verse; paragraph marks (¶) and surrounding space are dropped.

    Raises InvalidInput as `theory.files.json_lines` does.
    """
    file = SHIPPED if path is None else Path(path)
    if not file.is_file():
        hint = (
            ": the text comes with the repository, not with the installed package; work in a "
            "clone, or pass the path of a JSON-lines file"
            if path is None
            else ""
        )
        raise InvalidInput([f"{file}: no such file{hint}"])
    return [
        Pair(_VERSE.sub("", ref), *(side.replace("¶", "").strip() for side in sides))
        for _, (*sides, ref) in json_lines(file, ("prompt", "response"), ("ref",))
    ]


def split_by_book(
    pairs: Sequence[Pair],
    held_out: Collection[str] | float = 0.1,
    rng: np.random.Generator | None = None,
) -> tuple[list[Pair], list[Pair]]:
    """(kept, held out) pairs without a common book.

    held_out: names of books, or a share of the pairs in (0, 1): books are then drawn by `rng`
    (required) until the share is reached.  Raises InvalidInput for unknown books, a share outside
    (0, 1), or a split that leaves one part empty.
    """
    books = list(dict.fromkeys(p.book for p in pairs))
    if isinstance(held_out, (int, float)):
        problems = []
        if not 0 < held_out < 1:
            problems.append(f"held_out must be a share in (0, 1) or names of books, got {held_out}")
        if rng is None:
            problems.append("rng is required to draw books")
        if problems or rng is None:
            raise InvalidInput(problems)
        sizes = dict.fromkeys(books, 0)
        for pair in pairs:
            sizes[pair.book] += 1
        shuffled = [books[i] for i in rng.permutation(len(books))]
        before = np.cumsum([0, *(sizes[b] for b in shuffled)])[:-1]
        chosen = {b for b, n in zip(shuffled, before, strict=True) if n < held_out * len(pairs)}
    else:
        chosen = {held_out} if isinstance(held_out, str) else set(held_out)
        unknown = sorted(chosen - set(books))
        if unknown:
            raise InvalidInput([f"no such book: {', '.join(map(repr, unknown))}"])
    kept = [p for p in pairs if p.book not in chosen]
    held = [p for p in pairs if p.book in chosen]
    if not kept or not held:
        raise InvalidInput([f"one part is empty: {len(kept)} kept, {len(held)} held out"])
    return kept, held


def phrases(texts: Iterable[str]) -> list[str]:
    """The parts of the texts between punctuation marks: short responses with a natural end."""
    parts = (part.strip() for text in texts for part in _PHRASE_END.split(text))
    return [part for part in parts if part]


def common_phrases(texts: Iterable[str], words: int, shortest: int, longest: int) -> list[str]:
    """Phrases of ``shortest..longest`` words that use only ``words`` different words.

    The words are collected from the commonest phrases downwards, so that whole phrases survive.
    """
    parts = [tokens(part) for part in phrases(texts)]
    short = [p for p in parts if shortest <= len(p) <= longest and all(map(str.isalpha, p))]
    kept: list[str] = []
    for part, _ in Counter(map(tuple, short)).most_common():
        new = [word for word in dict.fromkeys(part) if word not in kept]
        if len(kept) + len(new) <= words:
            kept += new
    return [" ".join(part) for part in short if set(part) <= set(kept)]


def tokens(text: str, unit: str = "word") -> list[str]:
    """Lower-case words, numbers and punctuation marks of a text, or its characters."""
    lowered = text.lower().replace("’", "'")
    return _WORD.findall(lowered) if unit == "word" else list(" ".join(lowered.split()))


def as_pairs(texts: Any) -> tuple[list[tuple[str, str]], bool]:
    """(prompt, response) pairs of what a user passes, and whether it came with prompts.

    Texts are strings, (prompt, response) tuples, or `Pair`s.  Raises InvalidInput naming the
    entries that are neither.
    """
    if isinstance(texts, (str, bytes)):
        raise InvalidInput(["texts must be a sequence of texts or pairs, got one string"])
    if not isinstance(texts, Iterable):
        kind = type(texts).__name__
        raise InvalidInput([f"texts must be a sequence of texts or pairs, got {kind}"])
    entries = list(texts)
    if not entries:
        raise InvalidInput(["texts is empty"])
    with_prompts = not isinstance(entries[0], str)
    out, problems = [], []
    for number, entry in enumerate(entries):
        if isinstance(entry, str) and not with_prompts:
            out.append(("", entry))
        elif isinstance(entry, Pair) and with_prompts:
            out.append((entry.prompt, entry.response))
        elif (
            isinstance(entry, (tuple, list))
            and with_prompts
            and len(entry) == 2
            and all(isinstance(side, str) for side in entry)
        ):
            out.append((entry[0], entry[1]))
        else:
            wanted = "a (prompt, response) pair of texts" if with_prompts else "a text"
            problems.append(f"texts[{number}] must be {wanted}, got {type(entry).__name__}")
    refuse(problems, most=10)
    return out, with_prompts
