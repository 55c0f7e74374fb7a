"""Tables: what is written is what is read, and what counts as the same."""

import numpy as np
import pytest

from figures import tidy
from figures.tidy import MEASURED, THEORY, Rows
from lab.stats import intervals


@pytest.fixture
def table():
    rows = Rows()
    rows.add("a", "spif", "", THEORY, [1.0, 2.0], [1e-14, 0.5])
    rows.add("a", "spif", "10", MEASURED, 3.0, 0.25, 0.125, np.inf)
    return rows.table()


def test_what_is_written_is_read(table, tmp_path):
    (tmp_path / "a.csv").write_text(tidy.as_text(table))
    found = tidy.read(tmp_path / "a.csv")
    assert found.equals(table)
    assert tidy.difference(found, table) == ""


def test_rounding_is_no_difference_and_all_else_is_said(table):
    near = table.assign(y=[3e-13, 0.500001, 0.25])
    assert tidy.difference(near, table) == ""
    far = table.assign(y=[1e-14, 0.6, 0.25])
    assert tidy.difference(far, table) == "1 of 3 rows differ, most a, spif, theory: 0.6, was 0.5"
    lost = table.assign(low=[np.nan, np.nan, np.nan])
    assert "a, spif, 10, measured: nan, was 0.125" in tidy.difference(lost, table)
    assert tidy.difference(table.iloc[:2], table) == "other rows: 2, were 3"
    assert tidy.difference(table.assign(series="x"), table) == "other rows: 3, were 3"


def test_tolerances_are_those_that_are_stated(table):
    def moved(by, **how):
        return tidy.difference(table.assign(y=table.y + by), table, **how)

    wide = table.assign(low=[np.nan, np.nan, 0.2], high=[np.nan, np.nan, 0.3])
    for shift, agrees in ((0.009, True), (0.011, False)):  # of an interval 0.1 wide
        new = wide.assign(y=wide.y + [0.0, 0.0, shift])
        assert (tidy.difference(new, wide) == "") is agrees
    assert moved([0.0, 0.02, 0.0]) != ""
    assert moved([0.0, 0.02, 0.0], realisations=["a"]) == ""
    assert "other range of a chaotic curve" in moved([0.0, 0.2, 0.0], realisations=["a"])


def test_curves_of_chaos_agree_by_their_intervals():
    rows = Rows()
    for name in ("spif", "ipo"):
        rows.add("a", name, "s", MEASURED, [1.0, 2.0], [0.5, 1.0], [0.5, 0.8], [0.5, 1.2])
    rows.add("a", "ipo", "line", THEORY, 1.0, 0.5)
    table = rows.table()

    def moved(at, by, *realisations):
        new = table.assign(**{c: table[c] + by * (table.index == at) for c in ("y", "low", "high")})
        return tidy.difference(new, table, realisations)

    for names in (("a",), ("a, spif",), ("a, s",)):
        assert moved(1, 0.79, *names) == ""  # two intervals, each 0.4 wide
        assert "1 of 5 rows differ, most a, spif, s" in moved(1, 0.81, *names)
        assert moved(0, 1e-3, *names) != ""  # seeds that settle leave no interval
    assert moved(3, 0.1, "a, spif") != ""
    assert moved(3, 0.1, "a, ipo") == ""
    assert moved(4, 0.1, "a, s") != ""
    wide = table.assign(high=table.high + 0.1 * (table.index == 1))
    assert tidy.difference(wide, table) != ""
    assert tidy.difference(wide, table, ("a, spif",)) == ""


def test_means_are_those_of_the_intervals(table):
    runs = table.loc[[0] * 4].assign(x=2.0, y=[1.0, 10.0, 100.0, 1000.0])
    rows = Rows()
    rows.means("a", "spif", "", runs, "x", "y", geometric=True)
    rows.means("a", "spif", "", runs, "x", "y", least=0.0)
    rows.means("a", "spif", "", runs, "x", "y", kind=THEORY)
    log, plain, theory = rows.table().itertuples()
    expected = intervals(runs.assign(y=[0.0, 1.0, 2.0, 3.0]), ["x"], "y").iloc[0]
    np.testing.assert_allclose(
        [log.y, log.low, log.high], 10.0 ** expected[["mean", "low", "high"]]
    )
    expected = intervals(runs, ["x"], "y").iloc[0]
    assert (plain.y, plain.low, plain.high) == (expected["mean"], 0.0, expected.high)
    assert (theory.y, theory.kind) == (plain.y, THEORY)
    assert np.isnan([theory.low, theory.high]).all()
