"""A user's file as rows: JSON lines, a JSON array, CSV or Parquet, each also compressed by gzip.

What a file is, is read from its content, except CSV (.csv, .tsv), which has no mark of its own.
"""

from __future__ import annotations

import csv
import gzip
import importlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from theory.errors import InvalidInput, gist
from theory.files import json_value, kind_of, no_key_twice

NEEDED = "needed is JSON lines, a JSON array, CSV or Parquet, each also .gz"
BEGINNINGS = (
    (b"PK\x03\x04", "a zip archive, or a spreadsheet; unpack it, or save it as CSV"),
    (b"BZh", "compressed by bzip2; unpack it, or use gzip"),
    (b"\xfd7zXZ\x00", "compressed by xz; unpack it, or use gzip"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd; unpack it, or use gzip"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"ARROW1", "an Arrow file; save it as Parquet or JSON lines"),
    (b"SQLite format 3\x00", "a database of SQLite; save a table of it as CSV"),
)
GZIP, PARQUET, TAR = b"\x1f\x8b", b"PAR1", b"ustar"
LARGEST_CELL = 2**31 - 1
"""Characters; the csv module's own limit of 131,072 is shorter than long conversations."""
_SPACE = re.compile(r"[ \t\r\n]*")
_QUOTED = re.compile(r'"[^"]*"')

Row = tuple[int, dict[str, Any]]
Problem = tuple[int, str]


class Fields(dict[str, Any]):
    """Fields of a row that are there; ``null`` are the names of those that are null."""

    null: tuple[str, ...] = ()


@dataclass(frozen=True)
class Records:
    """The rows of a file.

    Attributes:
        path: the file. kind: what it is, in words.
        rows: (line, or number where rows have no line of their own; fields that are not null) of
            good rows; no two have the same number.
        problems: (line or number, reason) of the others.
        unit: what the numbers count, "line" or "row".
    """

    path: Path
    kind: str
    rows: tuple[Row, ...]
    problems: tuple[Problem, ...] = ()
    unit: str = "line"

    def where(self, number: int) -> str:
        """A row's place in words."""
        return f"{self.path}:{number}" if self.unit == "line" else f"{self.path}, row {number}"


def there(path: Path, name: str = "", more: str = "") -> None:
    """InvalidInput: there is no such file, or it is a folder.

    Args:
        name: what the file is called, else its path. more: what may be instead of a file.
    """
    name = name or str(path)
    if path.is_dir():
        saved = (path / "dataset_info.json").exists() or (path / "dataset_dict.json").exists()
        how = (
            "; of a data set on disk write one: load_from_disk(...).to_json(FILE)" if saved else ""
        )
        raise InvalidInput(f"{name}: a folder; needed is a file{how}")
    if not path.exists():
        raise InvalidInput(
            f"{name}: no such file; needed is {more}a file of JSON lines (also a JSON array, CSV, "
            "Parquet)"
        )
    if not path.is_file():
        raise InvalidInput(f"{name}: not a plain file; it is read again when a run goes on")


def read_records(path: Path) -> Records:
    """All rows of a file, and what is wrong with the rows that are bad.

    Raises:
        InvalidInput: no such file, or one that cannot be read at all, with the true reason.
    """
    there(path)
    try:
        data = path.read_bytes()
        if data.startswith(GZIP):
            data = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or error
        raise InvalidInput(f"{path}: cannot be read ({why})") from error
    if data.startswith(PARQUET):
        return _parquet(path, data)
    text = _text(path, data)
    suffix = (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv(path, text)
    return _json(path, text)


def _text(path: Path, data: bytes) -> str:
    """UTF-8 with or without a byte order mark. InvalidInput: something else, and what it is."""
    for beginning, what in BEGINNINGS:
        if data.startswith(beginning):
            raise InvalidInput(f"{path}: {what}; {NEEDED}")
    if data[257:262] == TAR:
        raise InvalidInput(f"{path}: a tar archive; unpack it; {NEEDED}")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise InvalidInput(f"{path}:1: not UTF-8 but UTF-16; save it as UTF-8")
    if b"\x00" in data:
        raise InvalidInput(f"{path}: not text (it has bytes of value 0); {NEEDED}")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        at = error.object.count(b"\n", 0, error.start) + 1
        raise InvalidInput(f"{path}:{at}: not UTF-8 ({error.reason}); save it as UTF-8") from error


# -- JSON ----------------------------------------------------------------------------------------


def _json(path: Path, text: str) -> Records:
    if text.lstrip().startswith("["):
        made = _whole(path, "a JSON array", lambda: _in_array(text))
        if made is not None:
            return made
    lines = _lines(path, text)
    if lines.problems and not lines.rows and text.lstrip().startswith("{"):
        made = _whole(path, "JSON objects", lambda: _in_sequence(text))
        if made is not None:
            return made
    return lines


def _lines(path: Path, text: str) -> Records:
    """An object a line; other separators than line feeds may be within a text."""
    rows, problems = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((number, _object(json_value(line))))
            except ValueError as error:
                problems.append((number, str(error)))
    return Records(path, "JSON lines", tuple(rows), tuple(problems))


def _whole(
    path: Path, kind: str, values: Callable[[], Iterator[tuple[int, Any]]]
) -> Records | None:
    """Values of a text that is read as a whole, or None if that is not how it is written.

    They go by their lines, or are counted if a line has several: a number tells rows apart.
    """
    found: list[tuple[int, Any]] = []
    end: json.JSONDecodeError | None = None
    try:
        for pair in values():
            found.append(pair)
    except _OtherKind:
        return None
    except json.JSONDecodeError as error:
        end = error
    lined = len(dict(found)) == len(found)
    rows, problems = [], []
    for row, (line, value) in enumerate(found, 1):
        number = line if lined else row
        try:
            rows.append((number, _object(value)))
        except ValueError as error:
            problems.append((number, str(error)))
    if end is not None:
        number = end.lineno if lined else len(found) + 1
        problems.append((number, f"not JSON ({end.msg} at column {end.colno})"))
    return Records(path, kind, tuple(rows), tuple(problems), "line" if lined else "row")


class _OtherKind(Exception):
    """A text that is not what it was read as."""


def _in_array(text: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of the members of an array that is the whole text."""
    reader = _Reader(text)
    reader.expect("[")
    if reader.found("]"):
        return
    while True:
        yield reader.value()
        if reader.found("]"):
            if not reader.done:
                raise _OtherKind
            return
        reader.expect(",")


def _in_sequence(text: str) -> Iterator[tuple[int, Any]]:
    """(line, value) of objects written one after the other, over several lines each."""
    reader = _Reader(text)
    while not reader.done:
        try:
            yield reader.value()
        except ValueError as error:
            raise _OtherKind from error


class _Reader:
    """A place in a text of JSON, and the line it is on."""

    def __init__(self, text: str) -> None:
        self.text, self.at, self.line, self.counted = text, 0, 1, 0
        self.decoder = json.JSONDecoder(object_pairs_hook=no_key_twice)
        self._space()

    @property
    def done(self) -> bool:
        return self.at == len(self.text)

    def found(self, mark: str) -> bool:
        """Whether a mark is next, which is then passed."""
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        self._space()
        return True

    def expect(self, mark: str) -> None:
        if not self.found(mark):
            raise json.JSONDecodeError(f"Expecting {mark!r}", self.text, self.at)

    def value(self) -> tuple[int, Any]:
        """The line on which the next value begins, and the value."""
        self.line += self.text.count("\n", self.counted, self.at)
        self.counted = self.at
        try:
            value, self.at = self.decoder.raw_decode(self.text, self.at)
        except json.JSONDecodeError:
            raise
        except (ValueError, RecursionError) as error:
            raise json.JSONDecodeError(str(error), self.text, self.at) from None
        self._space()
        return self.line, value

    def _space(self) -> None:
        space = _SPACE.match(self.text, self.at)
        self.at = space.end() if space else self.at


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{kind_of(value)}; needed is an object with prompt and response")
    return _without_null(value)


def _without_null(row: dict[str, Any]) -> Fields:
    """Fields that are there: tables of rows with different fields fill up with null."""
    found = Fields((key, value) for key, value in row.items() if value is not None)
    found.null = tuple(key for key in row if key not in found)
    return found


# -- tables --------------------------------------------------------------------------------------


def _csv(path: Path, text: str) -> Records:
    """A table with a header; a cell that is a conversation in JSON is one."""
    csv.field_size_limit(LARGEST_CELL)
    head = next((line for line in text.splitlines() if line.strip()), "")
    separator = max(",;\t", key=_QUOTED.sub("", head).count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=separator)
    rows: list[Row] = []
    problems: list[Problem] = []
    names: list[str] = []
    line = 1
    try:
        for cells in reader:
            if any(cells) and not names:
                names = [name.strip() for name in cells]
                if len(set(names)) < len(names):
                    raise InvalidInput(f"{path}:{line}: a column is there twice in its header")
            elif any(cells) and len(cells) != len(names):
                problems.append((line, f"{len(cells)} cells; the header has {len(names)}"))
            elif any(cells):
                rows.append((line, {n: _cell(c) for n, c in zip(names, cells, strict=True)}))
            line = reader.line_num + 1
    except csv.Error as error:
        problems.append((line, f"not CSV ({error})"))
    return Records(path, "CSV", tuple(rows), tuple(problems))


def _cell(text: str) -> Any:
    """A cell: its text, or the turns that it holds as JSON."""
    if not text.lstrip().startswith("[{"):
        return text
    try:
        value = json_value(text)
    except ValueError:
        return text
    turns = all(isinstance(v, dict) and {"role", "from"} & v.keys() for v in value)
    return value if turns else text


def _parquet(path: Path, data: bytes) -> Records:
    """A table of Parquet, by pyarrow or what pandas has for it."""
    try:
        try:
            table = importlib.import_module("pyarrow.parquet").read_table(io.BytesIO(data))
            found = table.to_pylist()
        except ImportError:
            frame = importlib.import_module("pandas").read_parquet(io.BytesIO(data))
            found = json.loads(frame.to_json(orient="records"))
    except ImportError as error:
        raise InvalidInput(
            f"{path}: Parquet, which the package pyarrow reads: install it, or save the table as "
            "JSON lines"
        ) from error
    except Exception as error:  # their libraries raise many kinds
        raise InvalidInput(f"{path}: Parquet that cannot be read: {gist(error)}") from error
    rows = tuple((n, _without_null(row)) for n, row in enumerate(found, 1))
    return Records(path, "Parquet", rows, unit="row")
