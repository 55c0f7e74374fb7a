"""Sweeps: the same table in one process, in two, on a Dask cluster, and after an interruption."""

import dataclasses
import importlib.machinery
import json
import sys
import types

import joblib
import pandas as pd
import pytest

from lab.sweep import Cell, run_cells, run_tables
from tests.toy_games import demo
from theory.errors import InvalidInput

CELLS = demo.cells(demo.Settings(steps=20))


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.fixture(scope="module")
def table():
    return run_tables(CELLS, progress=False)


def test_processes_give_the_table_of_one_process(table):
    same(run_tables(CELLS, jobs=2, progress=False), table)
    assert table.objective.unique().tolist() == ["spin", "spif", "sft"]


def test_a_dask_cluster_gives_the_same_table(table):
    import dask
    from distributed import Client, LocalCluster

    patience = {f"distributed.comm.timeouts.{step}": "120s" for step in ("connect", "tcp")}
    with (
        dask.config.set(patience),  # on a loaded machine its processes take long to start
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster),
        joblib.parallel_config(backend="dask"),
    ):
        same(run_tables(CELLS, jobs=2, progress=False), table)


def test_finished_parts_are_kept_and_not_run_again(tmp_path, table):
    first = run_tables(CELLS[:2], tmp_path, progress=False)
    assert len(list(tmp_path.glob("*.json"))) == 2
    for path in tmp_path.glob("spin-*.json"):
        path.write_text(path.read_text().replace("spin", "kept"))
    again = run_tables(CELLS, tmp_path, progress=False)
    assert again.objective.unique().tolist() == ["kept", "spif", "sft"]
    same(again[again.objective == "spif"], first[first.objective == "spif"])
    same(again[again.objective == "sft"], table[table.objective == "sft"])


def test_other_arguments_are_other_parts(tmp_path):
    run_tables(CELLS[:1], tmp_path, progress=False)
    run_tables(demo.cells(demo.Settings(steps=10))[:1], tmp_path, progress=False)
    assert len(list(tmp_path.glob("spin-*.json"))) == 2


def fails_at_first(flag, checkpoint=None, progress=True):
    if not flag.exists():
        flag.touch()
        raise KeyboardInterrupt
    return demo.one("spif", seeds=1, steps=10, rate=0.1, checkpoint=checkpoint)


def test_an_interrupted_sweep_goes_on(tmp_path, table):
    broken = Cell("broken", fails_at_first, {"flag": tmp_path / "flag"})
    cells = [CELLS[0], broken, CELLS[1]]
    with pytest.raises(KeyboardInterrupt):
        run_tables(cells, tmp_path / "parts", progress=False)
    assert len(list((tmp_path / "parts").glob("*.json"))) == 1
    again = run_tables(cells, tmp_path / "parts", progress=False)
    same(again[again.objective == "spin"], table[table.objective == "spin"])
    assert not list((tmp_path / "parts").glob("*.tmp"))


def test_names_are_needed_and_unique():
    with pytest.raises(InvalidInput, match="'spin' is taken twice"):
        run_tables([CELLS[0], dataclasses.replace(CELLS[1], name="spin")])
    with pytest.raises(InvalidInput, match="at least one part"):
        run_tables([])


def plain(numbers, power):
    return {"powers": [n**power for n in numbers], "none": None}


def test_results_may_be_any_plain_values(tmp_path):
    given = [Cell(f"power {k}", plain, {"numbers": [1, 2], "power": k}, False) for k in (1, 2)]
    found = run_cells(given, tmp_path, jobs=2, progress=False)
    assert found == [{"powers": [1, 2], "none": None}, {"powers": [1, 4], "none": None}]
    assert json.loads((tmp_path / f"{given[1].key}.json").read_text()) == found[1]
    with pytest.raises(TypeError, match="neither plain values nor a table"):
        _ = Cell("odd", plain, {"numbers": {1, 2}, "power": 1}).key


def test_a_program_s_own_parts_are_known_by_its_module(monkeypatch):
    """Run by ``python -m``: another code of the package is another part."""
    known = Cell("odd", plain, {"numbers": [1], "power": 1}).key
    program = types.ModuleType("__main__")
    program.__spec__ = importlib.machinery.ModuleSpec(plain.__module__, None)
    monkeypatch.setitem(sys.modules, "__main__", program)
    monkeypatch.setattr(plain, "__module__", "__main__")
    assert Cell("odd", plain, {"numbers": [1], "power": 1}).key == known
    program.__spec__ = None  # a file: of no package
    assert Cell("odd", plain, {"numbers": [1], "power": 1}).key != known


def test_without_joblib_one_process_works_and_two_are_refused(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "joblib", None)
    one = Cell("one", plain, {"numbers": [3], "power": 2}, False)
    assert run_cells([one], progress=False) == [{"powers": [9], "none": None}]
    with pytest.raises(InvalidInput, match="jobs=2: several processes need joblib"):
        run_cells([one], jobs=2, progress=False)
