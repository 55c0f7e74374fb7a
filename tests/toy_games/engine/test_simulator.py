"""The batched simulator: rows do not touch each other, and an interrupted run loses nothing."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.toy_games.demo import batch
from tests.toy_games.interrupted import interrupt
from theory.errors import InvalidInput
from toy_games.engine import simulator

RECORD = (0, 1, 7, 30, 61)


def same(one, other):
    pd.testing.assert_frame_equal(one, other, check_exact=True)


@pytest.mark.parametrize("spec", ["spin", "spif", "centred_spif", "tspin", "sft"])
def test_rows_run_alone_as_they_run_together(spec):
    table = simulator.run(batch(spec, [4, 9, 2]), RECORD, progress=False)
    alone = [simulator.run(batch(spec, [seed]), RECORD, progress=False) for seed in (4, 9, 2)]
    for part in alone:
        both = table[table.seed == part.seed[0]].reset_index(drop=True)
        pd.testing.assert_frame_equal(both, part, rtol=1e-12, atol=1e-14)
    assert table.groupby("seed").kl.last().nunique() == 3


def test_the_table_has_a_line_for_every_row_and_step():
    table = simulator.run(batch("spif", [1, 2]), RECORD, progress=False)
    assert table.step.tolist() == [s for s in RECORD for _ in range(4)]
    assert table.columns.tolist()[:5] == ["seed", "beta", "rate", "steps_per_round", "step"]
    assert np.isfinite(table.select_dtypes("number")).all().all()
    same(table, simulator.run(batch("spif", [1, 2]), RECORD, progress=False))


@pytest.mark.parametrize("at", [0, 1, 7, 15, 16, 60])
def test_an_interrupted_run_resumes_to_bitwise_the_same_table(tmp_path, monkeypatch, at):
    whole = simulator.run(batch("spif", [1, 2]), RECORD, progress=False)
    path = tmp_path / "run.npz"
    interrupt(batch("spif", [1, 2]), at, RECORD, path, monkeypatch)
    assert path.exists() == (at > 0)
    same(simulator.run(batch("spif", [1, 2]), RECORD, path, False), whole)
    assert not list(tmp_path.iterdir()), "a finished run leaves no checkpoint"


@pytest.mark.parametrize(
    ("seeds", "record", "settings"),
    [([1, 3], RECORD, {}), ([1, 2], (0, 61), {}), ([1, 2], RECORD, {"rate": 0.4})],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(
    tmp_path, monkeypatch, seeds, record, settings
):
    path = tmp_path / "run.npz"
    interrupt(batch("spif", [1, 2]), 20, RECORD, path, monkeypatch)
    before = path.read_bytes()
    with pytest.raises(InvalidInput, match="another run"):
        simulator.run(batch("spif", seeds, **settings), record, path, False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", ["torn", "text", "empty"])
def test_a_damaged_checkpoint_is_named(tmp_path, monkeypatch, damage):
    path = tmp_path / "run.npz"
    interrupt(batch("spif", [1, 2]), 20, RECORD, path, monkeypatch)
    whole = path.read_bytes()
    path.write_bytes({"torn": whole[: len(whole) // 2], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(InvalidInput, match=r"run\.npz: not a readable checkpoint"):
        simulator.run(batch("spif", [1, 2]), RECORD, path, False)


def test_unusable_steps_are_refused():
    with pytest.raises(InvalidInput, match=r"-1.*2\.5"):
        simulator.run(batch("spif", [1]), [-1, 2.5], progress=False)
    with pytest.raises(InvalidInput, match="at least one"):
        simulator.run(batch("spif", [1]), [], progress=False)


def test_log_steps_are_spaced_in_their_logarithm():
    steps = simulator.log_steps(10_000, per_decade=4)
    assert steps[:2] == [0, 1]
    assert steps[-1] == 10_000
    assert np.diff(np.log(steps[8:])).max() < 0.7
    assert simulator.log_steps(1) == [0, 1]


def test_checkpoints_hold_every_tensor(tmp_path):
    state = {"theta": torch.randn(3, 2, dtype=torch.float64), "n": torch.arange(3)}
    simulator.save(tmp_path / "a.npz", state, 5, {"kl": [np.ones(3), np.zeros(3)]}, "mark")
    found, at, records = simulator._load(tmp_path / "a.npz", "mark")
    assert at == 5
    assert all(torch.equal(found[k], v) and found[k].dtype == v.dtype for k, v in state.items())
    np.testing.assert_array_equal(records["kl"], [np.ones(3), np.zeros(3)])
