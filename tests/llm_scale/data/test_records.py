"""Files to rows: what a file is, is read from its content; what it is not is said truly."""

import bz2
import gzip
import io
import json
import sys
import tarfile
import zipfile

import pytest

from llm_scale.data.formats import conversations
from llm_scale.data.records import read_records
from theory.errors import InvalidInput

A, B = {"prompt": "a", "response": "b"}, {"prompt": "c\u2028d", "response": "e"}
ROWS = [A, B]


def written(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("pairs.jsonl", json.dumps(A))
    return buffer.getvalue()


def tar():
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        file.addfile(tarfile.TarInfo("pairs.jsonl"), io.BytesIO(b""))
    return buffer.getvalue()


LINES = json.dumps(A) + "\n\n" + json.dumps(B, ensure_ascii=False) + "\n"
GOOD = {
    "lines": ("p.jsonl", LINES, [1, 3], "JSON lines"),
    "no line feed at the end": ("p.jsonl", LINES.rstrip(), [1, 3], "JSON lines"),
    "line ends of Windows": ("p.jsonl", LINES.replace("\n", "\r\n"), [1, 3], "JSON lines"),
    "byte order mark": ("p.jsonl", "\ufeff" + LINES, [1, 3], "JSON lines"),
    "lines called json": ("p.json", LINES, [1, 3], "JSON lines"),
    "no name that says it": ("pairs", LINES, [1, 3], "JSON lines"),
    "array": ("p.json", json.dumps(ROWS), [1, 2], "a JSON array"),
    "indented": ("p.json", json.dumps(ROWS, indent=1), [2, 6], "a JSON array"),
    "array called lines": ("p.jsonl", json.dumps(ROWS, indent=1), [2, 6], "a JSON array"),
    "objects over lines": (
        "p.jsonl",
        "\n".join(json.dumps(r, indent=1) for r in ROWS),
        [1, 5],
        "JSON objects",
    ),
    "CSV": ("p.csv", "prompt,response\na,b\n\nc\u2028d,e\n", [2, 4], "CSV"),
    "old line ends": (
        "p.jsonl",
        "\r".join(json.dumps(r) for r in ROWS),
        [1, 2],
        "JSON objects",
    ),
    "blank lines before": ("p.csv", "\n\nprompt;response\na;b\nc\u2028d;e\n", [4, 5], "CSV"),
    "CSV of Excel": ("p.csv", "\ufeffprompt;response\r\na;b\r\nc\u2028d;e\r\n", [2, 3], "CSV"),
    "tabs": ("p.tsv", "prompt\tresponse\na\tb\nc\u2028d\te\n", [2, 3], "CSV"),
}


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", GOOD)
def test_the_same_rows_from_every_kind_of_file(name, compressed, tmp_path):
    file, content, lines, kind = GOOD[name]
    data = gzip.compress(content.encode()) if compressed else content.encode()
    found = read_records(written(tmp_path, file + ".gz" * compressed, data))
    assert found.rows == tuple(zip(lines, ROWS, strict=True))
    assert (found.kind, found.problems) == (kind, ())


def test_cells_of_csv(tmp_path):
    """Line feeds and quotes within, a long cell, turns as JSON, and a text that only looks so."""
    turns = [{"role": "user", "content": "a"}]
    odd, long = '[{"a": 1}]', "x" * 200_000
    quoted = ['"' + text.replace('"', '""') + '"' for text in (json.dumps(turns), odd, long)]
    path = written(tmp_path, "p.csv", f'm,n\n{quoted[0]},"b\n""c"""\n{quoted[1]},{quoted[2]}\n')
    assert read_records(path).rows == (
        (2, {"m": turns, "n": 'b\n"c"'}),
        (4, {"m": odd, "n": long}),
    )


def test_a_separator_within_a_quoted_name_is_none(tmp_path):
    path = written(tmp_path, "p.csv", '"a, b, or c";"n"\n"1";"2"\n')
    assert read_records(path).rows == ((2, {"a, b, or c": "1", "n": "2"}),)


def test_rows_of_one_line_are_told_apart(tmp_path):
    """As json.dump writes a list; a problem has the number of its row."""
    path = written(tmp_path, "p.json", json.dumps([A, 3, B])[:-1] + "; 1]")
    found = read_records(path)
    assert [number for number, _ in found.rows] == [1, 3]
    assert [number for number, _ in found.problems] == [2, 4]
    assert found.where(2) == f"{path}, row 2"


def test_null_is_a_field_that_is_not_there(tmp_path):
    path = written(tmp_path, "p.jsonl", '{"a": null, "b": 1}')
    assert read_records(path).rows == ((1, {"b": 1}),)
    path = written(tmp_path, "q.jsonl", '{"prompt": null, "answer": "b"}')
    (problem,) = conversations(read_records(path)).problems
    assert problem == (1, "'prompt' is null, no 'response'; it has 'answer'")


BAD_ROWS = {
    "a line": ("p.jsonl", json.dumps(A) + "\n{'a'\n[1]\n", [(2, "not JSON"), (3, "a list")]),
    "a member": ("p.json", f'[{json.dumps(A)},\n3]', [(2, "an int; needed is an object")]),
    "a comma": ("p.json", f'[{json.dumps(A)}\n{json.dumps(B)}]', [(2, "Expecting ','")]),
    "no end": ("p.json", f"[{json.dumps(A)},\n", [(2, "Expecting value at column 1")]),
    "a key twice": ("p.json", '[{"a": 1},\n{"a": 1, "a": 2}]', [(2, "'a' is there twice")]),
    "too deep": ("p.json", "[" * 10**5, [(1, "not JSON")]),
    "cells": ("p.csv", "a,b\n1\n1,2\n1,2,3\n", [(2, "1 cells; the header has 2"), (4, "3 cells")]),
    "quotes": ("p.csv", 'a,b\n1,"2\n', [(2, "not CSV")]),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_rows_by_line(name, tmp_path):
    file, content, expected = BAD_ROWS[name]
    problems = read_records(written(tmp_path, file, content)).problems
    assert [line for line, _ in problems] == [line for line, _ in expected]
    for (_, said), (_, part) in zip(problems, expected, strict=True):
        assert part in said


UNREADABLE = {
    "zip": (archive(), "a zip archive"),
    "tar": (tar(), "a tar archive"),
    "tar.gz": (gzip.compress(tar()), "a tar archive"),
    "bzip2": (bz2.compress(b"{}"), "compressed by bzip2"),
    "zstd": (b"\x28\xb5\x2f\xfd\x00", "compressed by zstd"),
    "torn gzip": (gzip.compress(LINES.encode())[:-9], "cannot be read"),
    "UTF-16": (LINES.encode("utf-16"), "UTF-16; save it as UTF-8"),
    "Latin-1": (b'{"a": 1}\n{"b": "\xe9"}', "p.jsonl:2: not UTF-8"),
    "binary": (b"\x80\x04\x95\x00\x00", "not text"),
    "damaged Parquet": (b"PAR1", "Parquet"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_the_true_reason(name, tmp_path):
    content, expected = UNREADABLE[name]
    path = written(tmp_path, "p.jsonl", content)
    with pytest.raises(InvalidInput, match=expected) as seen:
        read_records(path)
    assert str(path) in str(seen.value)


def test_a_folder_is_not_no_file(tmp_path):
    with pytest.raises(InvalidInput, match=r"a folder; needed is a file$"):
        read_records(tmp_path)
    (tmp_path / "dataset_info.json").write_text("{}")
    with pytest.raises(InvalidInput, match=r"load_from_disk\(...\).to_json"):
        read_records(tmp_path)
    with pytest.raises(InvalidInput, match="no such file"):
        read_records(tmp_path / "no")


def test_parquet_without_its_library(tmp_path, monkeypatch):
    for name in ("pyarrow", "pyarrow.parquet", "pandas"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InvalidInput, match="pyarrow reads: install it, or save the table as JSON"):
        read_records(written(tmp_path, "p.parquet", b"PAR1"))


def test_parquet(tmp_path):
    """Rows that lack a field have null there; lists of turns come back as lists."""
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"messages": [{"role": "user", "content": "a"}], "x": None}, {"messages": [], "x": "b"}]
    path = tmp_path / "p.parquet"
    parquet.write_table(arrow.Table.from_pylist(rows), path)
    found = read_records(path)
    assert found.rows == ((1, {"messages": rows[0]["messages"]}), (2, rows[1]))
    assert found.where(2) == f"{path}, row 2"
