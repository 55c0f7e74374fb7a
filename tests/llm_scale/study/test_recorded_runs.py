"""The recorded runs of the tiny model (`make llm-tiny`): made by this code, and RESULTS.md's.

What they say of the claims is computed from the rows, in figures/report.
"""

import json

import pytest

from figures.catalogue import ROOT
from figures.recorded import LLM_TINY, llm_tiny
from llm_scale.study import tiny_model, tiny_runs
from llm_scale.study.tiny_runs import LONG, PLAYED, SHORT

LINK = "link"


@pytest.fixture(scope="module")
def recorded():
    return json.loads(LLM_TINY.read_text())


@pytest.fixture(scope="module")
def table(recorded):
    """RESULTS.md shows the whole record."""
    if recorded["provenance"]["command"] != tiny_runs.FULL:
        pytest.skip(f"the record is the short one; {tiny_runs.FULL}")
    return llm_tiny()


def test_the_shortest_runs_are_those_recorded():
    """Run again here: another machine's rounding is allowed, another algorithm is not."""
    table = llm_tiny()
    for name in (*PLAYED, "sft"):
        again = tiny_model.run(tiny_runs.job(LINK, name, seed=0, steps_per_round=SHORT))[0]
        same = (table.study == LINK) & (table.name == name) & (table.steps == SHORT)
        old = table[same & (table.seed == 0)].iloc[0]
        assert again["kl_before"] == pytest.approx(old.kl_before, rel=1e-3)
        assert again["kl"] == pytest.approx(old.kl, rel=0.05)


def test_where_the_table_comes_from(recorded):
    assert set(recorded["provenance"]) == {"command", "device", "python", "versions", "preset"}
    assert {row["seed"] for row in recorded["rows"]} >= {0, 1, 2}


def test_the_results_table_is_that_of_the_record(table):
    means = table[(table.study == LINK) & (table.steps == LONG) & (table["round"] == 0)]
    means = means.groupby("name").mean(numeric_only=True)
    lines = (ROOT / "llm_scale" / "RESULTS.md").read_text().splitlines()
    columns = {"slope": "link_slope", "correlation": "link_correlation", "KL(p‖π) in": "kl"}
    for begins, column in columns.items():
        (row,) = (line for line in lines if line.startswith(f"| {begins}"))
        written = dict(zip((*PLAYED, "sft"), row.strip("|").split("|")[1:], strict=True))
        for name, text in written.items():
            if text.strip() != "–":
                digits = len(text.strip().partition(".")[2])
                assert float(text) == round(means.loc[name, column], digits), (row, name)
