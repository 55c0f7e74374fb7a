"""Rows of a batch: what a column takes, and what it is where rows have none."""

from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from toy_games.engine.rows import Batch, Column


class Runs(Batch):
    columns: ClassVar = {
        "beta": Column(None, positive=True),
        "tau": Column(0.25),
        "samples": Column(8, whole=True),
        "share": Column(0.0, below=1.0),
    }

    def __init__(self, **given):
        self.rows = pd.DataFrame({"seed": [3, 4], "beta": [1.0, 2.0], **given})


def test_columns_are_read_and_those_that_are_not_there_have_their_default():
    runs = Runs(samples=np.array([0, 5]), label=["a", "b"])
    assert runs.row_problems() == []
    assert runs.column("samples").tolist() == [0.0, 5.0]
    assert runs.column("tau").tolist() == [0.25, 0.25]
    assert runs.streams.seeds.tolist() == [3, 4]


@pytest.mark.parametrize(
    ("name", "values", "said"),
    [
        ("seed", [0, -1], "seed=-1 in line 1; needed is a whole number >= 0"),
        ("seed", [0, 0.5], "seed=0.5 in line 1; needed is a whole number >= 0"),
        ("beta", [0.0, -1.0], "beta=0.0 in line 0; needed is a number > 0"),
        ("tau", ["0.1", 1.0], "tau='0.1' in line 0; needed is a number >= 0"),
        ("tau", [1.0, np.inf], "tau=inf in line 1; needed is a number >= 0"),
        ("tau", [np.nan, 1.0], "tau=nan in line 0; needed is a number >= 0"),
        ("samples", [True, False], "samples=True in line 0; needed is a whole number >= 0"),
        ("samples", [1, np.inf], "samples=inf in line 1; needed is a whole number >= 0"),
        ("share", [0.0, 1.0], "share=1.0 in line 1; needed is a number >= 0 and < 1"),
    ],
)
def test_a_wrong_number_is_said_with_its_line(name, values, said):
    assert Runs(**{name: values}).row_problems() == [f"rows: {said}"]


def test_a_column_without_a_default_is_needed():
    runs = Runs()
    runs.rows = runs.rows[["beta"]]
    assert runs.row_problems() == ["rows: no column 'seed'"]
    runs.rows = runs.rows.rename(columns={"beta": "seed"})
    assert runs.row_problems() == ["rows: no column 'beta'"]
