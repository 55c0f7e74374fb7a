"""Anchored tiny runs and their gaps: the plan, a short run made here, the record and RESULTS.md."""

import dataclasses
import json
import re

import numpy as np
import pytest

from figures.catalogue import ROOT
from figures.recorded import LLM_GAP, llm_gap
from lab.sweep import run_cells
from llm_scale.study import gap_runs
from llm_scale.study.gap_runs import PLAYED, RECORDED, SHORT, Size

TINY = Size((0,), (3.0,), 2, 6, 600, 30)


@pytest.mark.parametrize("size", [SHORT, RECORDED], ids=["short", "recorded"])
def test_the_plan(size):
    cells = gap_runs.cells(size)
    assert len({cell.key for cell in cells}) == len(cells)
    assert len(cells) == 2 * len(size.seeds) * len(size.anchors)
    for cell in cells:
        s = cell.arguments["settings"]
        slope = {"spin": 1.0, "spif(c=1)": 0.5}[s.objective]
        assert s.beta == slope
        assert s.tau / slope in size.anchors
        assert (s.prompts, s.steps_per_round) == (32 * size.steps, size.steps)


@pytest.fixture(scope="module")
def short():
    return {
        name: gap_runs.rows_of(gap_runs.settings(name, 3.0, 0, TINY), 30, True) for name in PLAYED
    }


def test_a_short_run_is_measured_against_its_own_laws(short):
    for name, rows in short.items():
        first, second = rows
        assert [row["round"] for row in rows] == [0, 1]
        for column in ("kl", "kl_end", "exact_gap"):
            assert second[f"{column}_before"] == first[column]
        mu, tau = {"spin": (1.0, 3.0), "spif": (0.0, 1.5)}[name]
        for row in rows:
            assert row["anchor"] == 3.0
            assert row["tau"] == tau
            assert row["kl_end"] < row["exact_gap_prompts"] / (tau + mu) < row["exact_gap"] / tau
            assert row["sampled_gap"] == pytest.approx(
                row["exact_gap"], abs=4.5 * row["sampled_gap_se"]
            )
            assert row["sampled_learned_gap"] == pytest.approx(
                row["exact_learned_gap"], abs=4.5 * row["sampled_learned_gap_se"]
            )
            upper = row["sampled_gap"] + 1.645 * row["sampled_gap_se"]
            assert row["sampled_gap_kl"] == pytest.approx(upper / (tau + mu), rel=1e-2)


def test_exact_rounds_end_nearer_than_a_few_steps(short):
    spin, spif = short["spin"][-1], short["spif"][-1]
    assert "kl_end_predicted" not in spin  # its rounds are those of its link
    assert spin["kl_end_link"] < 1e-9 < spin["kl_end"]  # effective step 1: one round goes there
    assert spif["kl_end_link"] < spif["kl_end_predicted"] < spif["kl_end"]


def test_exact_rounds_that_are_not_reached_are_left_out(monkeypatch):
    def fails(*args, **more):
        if args[7]:
            raise gap_runs.NotConverged("no")
        return found

    law = np.log([[0.6, 0.4]])
    game = gap_runs.RewardTerms(gap_runs.objective_of("spif(c=1)"), 0.5, 0.5)
    assert set(gap_runs.exact_rounds(law, law, game, 1, True)) == {"link", "predicted"}
    assert set(gap_runs.exact_rounds(law, law, game, 1, False)) == {"link"}
    found = gap_runs.self_play(np.exp(law), np.exp(law), "spif", 0.5, 1, np.exp(law), 0.5)
    monkeypatch.setattr(gap_runs, "self_play", fails)
    assert set(gap_runs.exact_rounds(law, law, game, 1, True)) == {"link"}


def test_the_short_version_is_recorded_and_goes_on_after_an_interruption(tmp_path, monkeypatch):
    monkeypatch.setattr(gap_runs, "rows_of", lambda settings, **more: [{"kl": settings.tau}])
    cells = gap_runs.cells(SHORT)
    run_cells(cells[:3], tmp_path / "gap.parts", progress=False)
    monkeypatch.setattr(
        gap_runs, "run_cells", lambda cells, folder, jobs: run_cells(cells, folder, progress=False)
    )
    gap_runs.main(tmp_path / "gap.json", 1, False)
    found = json.loads((tmp_path / "gap.json").read_text())
    assert found["provenance"]["command"] == "make llm-gap"
    assert set(found["provenance"]["code"]) == {"theory", "lab", "llm_scale"}
    assert [row["kl"] for row in found["rows"]] == [1.0, 0.5] * len(SHORT.seeds)
    assert not (tmp_path / "gap.parts").exists()


@pytest.fixture(scope="module")
def recorded():
    return json.loads(LLM_GAP.read_text())


def test_where_the_record_comes_from(recorded):
    where = recorded["provenance"]
    assert where["command"] == gap_runs.FULL
    assert set(where["code"]) == {"theory", "lab", "llm_scale"}
    runs = {(row["objective"], row["anchor"], row["seed"]) for row in recorded["rows"]}
    assert {seed for _, _, seed in runs} == set(RECORDED.seeds)
    assert len(runs) == len(gap_runs.cells(RECORDED))
    assert len(recorded["rows"]) == RECORDED.rounds * len(runs)


def test_the_record_obeys_what_is_proved_of_exact_gaps(recorded):
    """T10's distance and Jensen's inequality, of every trained model."""
    for row in recorded["rows"]:
        mu = {"spin": 1.0, "spif(c=1)": 0.0}[row["objective"]]
        assert row["kl_end"] <= row["exact_gap_prompts"] / (row["tau"] + mu) * (1 + 1e-3)
        for name in ("gap", "learned_gap"):
            assert row[f"exact_{name}_prompts"] <= row[f"exact_{name}"] * (1 + 1e-3)


def test_a_recorded_round_is_made_again():
    """Another machine's rounding is allowed, another algorithm is not."""
    table = llm_gap()
    (again,) = gap_runs.rows_of(
        gap_runs.settings("spin", 3.0, 0, dataclasses.replace(RECORDED, rounds=1)), 2
    )
    same = (table.name == "spin") & (table.anchor == 3.0) & (table.seed == 0)
    old = table[same & (table["round"] == 0)].iloc[0]
    assert again["kl_end_before"] == pytest.approx(old.kl_end_before, rel=1e-3)
    assert again["exact_gap_before"] == pytest.approx(old.exact_gap_before, rel=1e-3)
    assert again["kl_end"] == pytest.approx(old.kl_end, rel=0.05)
    assert again["exact_gap"] == pytest.approx(old.exact_gap, rel=0.05)


def of_the_readme(rows):
    """Its line of an objective and an anchor, from the rows of the record (pandas)."""
    first, last = (rows[rows["round"] == t] for t in (0, RECORDED.rounds - 1))
    seen = rows[rows.sampled_gap.notna()]
    near = (seen.sampled_gap - seen.exact_gap).abs() <= 1.96 * seen.sampled_gap_se
    found = [
        len(seen),
        int(near.sum()),
        100 * (rows.covered_gap * rows.given_gap).sum() / rows.given_gap.sum(),
        100 * (rows.covered_gap_ref * rows.given_gap_ref).sum() / rows.given_gap_ref.sum(),
        100 * (rows.exact_gap / rows.exact_gap_prompts - 1).mean(),
        (seen.sampled_gap_kl / seen.kl_end).mean(),
        first.exact_gap_before.mean(),
        last.exact_gap.mean(),
        first.kl_end_before.mean(),
        last.kl_end.mean(),
        (last.exact_learned_gap / last.exact_gap).mean(),
    ]
    return [value for value in found if np.isfinite(value)]


def test_the_readme_s_table_is_that_of_the_record():
    table = llm_gap()
    lines = (ROOT / "llm_scale" / "RESULTS.md").read_text(encoding="utf-8").splitlines()
    written = {line.split("|")[1].strip(): line for line in lines if line.startswith("| SPI")}
    for (name, anchor), rows in table.groupby(["name", "anchor"]):
        line = written[f"{name.upper()}, {anchor:g}"]
        texts = re.findall(r"\d*\.?\d+", line.split("|", 2)[2])
        for text, value in zip(texts, of_the_readme(rows), strict=True):
            digits = len(text.partition(".")[2])
            assert abs(float(text) - value) <= 0.51 * 10.0**-digits, (name, anchor, text, value)
