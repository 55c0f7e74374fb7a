"""The benchmark runner, on benches of its own."""

import json

import pytest

from benchmarks import __main__ as bench
from benchmarks.timing import timed

ROW = {"name": "saddle", "size": 10, "ours_s": 0.5, "peer": "cvxpy", "peer_s": 2.0, "aim": 3}
ROW["note"] = "[gap] 1e-12"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    package = tmp_path / "fakebenches"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "bench_a.py").write_text(
        f"def run(full): return [{ROW!r} | {{'note': f'[full={{full}}]'}}]"
    )
    (package / "bench_b.py").write_text(f"def run(full): return [{ROW!r} | {{'peer_s': None}}]")
    monkeypatch.syspath_prepend(str(tmp_path))
    return package


def test_one_table_and_one_record(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("FULL", "1")
    record = tmp_path / "out" / "bench.json"
    assert bench.main([], record, folder) == 0
    shown = capsys.readouterr().out
    assert "4 x" in shown
    assert "[full=True]" in shown
    assert "500 ms" in shown or "0.5 s" in shown
    assert "not run" in shown
    assert max(map(len, shown.splitlines())) <= 80
    content = json.loads(record.read_text())
    assert [row["ratio"] for row in content["rows"]] == [4.0, None]
    assert content["rows"][0]["note"] == "[full=True]"
    assert content["device"]["cores"] >= 1


def test_a_part_is_shown_and_not_recorded(folder, tmp_path, capsys):
    assert bench.main(["b"], tmp_path / "bench.json", folder) == 0
    assert not (tmp_path / "bench.json").exists()
    assert "full=" not in capsys.readouterr().out


def test_an_unknown_name_lists_the_names(folder, tmp_path, capsys):
    with pytest.raises(SystemExit):
        bench.main(["c"], tmp_path / "bench.json", folder)
    assert "no bench c; there are: a, b" in capsys.readouterr().err


@pytest.mark.parametrize("row", [{**ROW, "speed": 1}, {k: ROW[k] for k in ROW if k != "aim"}])
def test_wrong_rows_are_refused(row):
    with pytest.raises(ValueError, match="a row has the keys"):
        bench.checked(row)


def test_the_clock_takes_the_best():
    ticks = iter(range(100))
    seconds, last = timed(lambda: next(ticks), repeat=4)
    assert last == 3
    assert 0 <= seconds < 1
