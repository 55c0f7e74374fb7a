"""Files that are written whole or not at all, and texts from files of JSON lines."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from theory.errors import InvalidInput, refuse

HALF_PAIR = re.compile("[\ud800-\udfff]")
"""Half of a surrogate pair: no character, and nothing that UTF-8 can hold."""
_RANDOM = 4
"""Bytes in the name of what is being written."""


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write a file or a folder at, which then takes the place of it.

    It does so when all of it is on the disk and the block ended well; else ``path`` stays as it
    was and nothing is left beside it. Only a killed process leaves its ``NAME.*.tmp``, which
    `clear` removes. A link is followed; what is no file (a terminal, a pipe, /dev/null) is written
    to in place.

        with whole(folder / "weights.safetensors") as part:
            save_file(tensors, part)

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not (final.is_file() or final.is_dir()):
        yield final
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.{secrets.token_hex(_RANDOM)}.tmp")
    try:
        yield part
        for written in [*part.rglob("*"), part] if part.is_dir() else [part]:
            _sync(written)
        if part.is_dir():
            shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        _sync(final.parent)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def clear(folder: Path, names: str) -> None:
    """Remove what killed processes left where they wrote files or folders of ``names`` by `whole`.

    Nobody may be writing them now. Whatever has another name than `whole` makes stays.

    Args:
        names: a regular expression.
    """
    made = re.compile(rf"(?:{names})\.[0-9a-f]{{{2 * _RANDOM}}}\.tmp")
    for left in sorted(folder.iterdir()) if folder.is_dir() else ():
        if made.fullmatch(left.name) and left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)
        elif made.fullmatch(left.name):
            left.unlink()


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8, line ends as they are) or bytes whole or not at all: see `whole`."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # of folders some file systems cannot be asked
            raise
    finally:
        os.close(handle)


# -- JSON lines ----------------------------------------------------------------------------------


def json_lines(
    path: Path, keys: Sequence[str], optional: Sequence[str] = ()
) -> list[tuple[int, tuple[str, ...]]]:
    """(line number, texts) of every line of a JSONL file, plain or .gz, that is not blank.

    A line is an object with a text under each of ``keys``, which is not blank, and perhaps under
    ``optional`` ones ("" where it has none).

    Raises:
        InvalidInput: file, line and reasons of every bad line (the first ten in full).
    """
    try:
        with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
            text = file.read().decode("utf-8")
    except UnicodeDecodeError as error:
        at = error.object.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{path}:{at}: not UTF-8 ({error.reason}); save it as UTF-8") from error
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path}: cannot be read ({why})") from error
    if text.startswith("\ufeff"):
        raise InvalidInput(f"{path}:1: begins with a byte order mark; save it as UTF-8 without one")
    found, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):  # other separators may be within a text
        if line.strip():
            try:
                found.append((number, _texts(line, keys, optional)))
            except ValueError as error:
                problems.append(f"{path}:{number}: {error}")
    refuse(problems, most=10)
    if not found:
        raise InvalidInput(f"{path}: no lines in it; needed are objects with {' and '.join(keys)}")
    return found


def kind_of(value: Any) -> str:
    """What a value of JSON is, in words: "an int", "a list", "null"."""
    name = type(value).__name__
    return "null" if value is None else f"a{'n' * (name[0] in 'aeiou')} {name}"


def _texts(line: str, keys: Sequence[str], optional: Sequence[str]) -> tuple[str, ...]:
    """The texts of a line; what is wrong with it is raised."""
    record = json_value(line)
    if not isinstance(record, dict):
        needed = " and ".join(keys)
        raise ValueError(f"{kind_of(record)}; needed is an object with {needed}")
    has = ", ".join(map(repr, record)) or "nothing"
    problems = [f"no {key!r}; it has {has}" for key in keys if key not in record]
    for key in (k for k in (*keys, *optional) if k in record):
        if not isinstance(record[key], str):
            problems.append(f"{key!r} is {kind_of(record[key])}; needed is text")
        elif key in keys and not record[key].strip():
            problems.append(f"{key!r} is empty")
        elif HALF_PAIR.search(record[key]):
            problems.append(f"{key!r} has half of a surrogate pair; needed is Unicode text")
    refuse(problems)
    return tuple(record.get(key, "") for key in (*keys, *optional))


def json_value(text: str) -> Any:
    """The value of a text of JSON. ValueError: why it is none, or a key is there twice."""
    try:
        return json.loads(text, object_pairs_hook=no_key_twice)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON that can be read ({error})") from None


def no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, for a decoder. ValueError: a key is there twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"{next(k for k in keys if keys.count(k) > 1)!r} is there twice")
    return found
