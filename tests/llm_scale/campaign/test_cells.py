"""A campaign of minutes in seconds: rows by round, resumed parts, runs that diverge."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from llm_scale import train
from llm_scale.campaign import cells
from llm_scale.campaign.plan import CHECKED, REAL, Run, Size
from llm_scale.measure.frontier import TEMPERATURES

SMALL = Size(
    (100,), prompts=32, held_out=16, epoch=2, start_epochs=1, expert_steps=2, expert_width=16,
    width=16,
)  # fmt: skip
RUNS = [
    Run("rate", "spin", 100, given=(("lr", 1e-2),)),
    Run("rate", "sft", 100, given=(("lr", 1e-2),)),
    Run("history", "spif, per token", 100, rounds=2),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("campaign")


@pytest.fixture(scope="module")
def rows(folder: Path) -> list[dict[str, Any]]:
    return cells.sweep(RUNS, SMALL, folder)


@pytest.fixture(scope="module")
def made(folder: Path, rows: list[dict[str, Any]]) -> tuple[str, str]:
    """The sweep's expert and start, whichever test comes first."""
    (expert,) = (p for p in folder.glob("expert-*") if p.is_dir())
    (start,) = (p for p in folder.glob("start*") if p.is_dir())
    return str(expert), str(start / "final")


def test_a_row_a_round_that_says_where_it_belongs(rows: list[dict[str, Any]]) -> None:
    assert [(r["study"], r["arm"], r["round"]) for r in rows] == [
        ("rate", "spin", 0), ("rate", "sft", 0),
        ("history", "spif, per token", 0), ("history", "spif, per token", 1),
    ]  # fmt: skip
    spin, sft = rows[:2]
    assert (spin["effective_step"], spin["beta"], spin["lr"], spin["steps"]) == (1.0, 1.0, 0.01, 2)
    assert "effective_step" not in sft


def test_runs_of_a_seed_begin_with_one_model_and_the_same_prompts(
    rows: list[dict[str, Any]],
) -> None:
    first = [row for row in rows if row["round"] == 0]
    assert len({row["kl_before"] for row in first}) == 1
    assert all("kl" in row and "reverse_kl" in row for row in rows)
    assert rows[3]["kl_before"] == rows[2]["kl"]


def test_finished_parts_are_read_and_runs_leave_no_folder(
    folder: Path, rows: list[dict[str, Any]]
) -> None:
    there = sorted(p.name for p in folder.iterdir())
    assert cells.sweep(RUNS, SMALL, folder) == rows
    assert sorted(p.name for p in folder.iterdir()) == there
    assert not any(p.is_dir() and p.name.startswith(("rate", "history")) for p in folder.iterdir())


def test_a_destination_is_one_model_a_seed_of_which_all_runs_tell_their_distance(
    tmp_path: Path,
) -> None:
    given = (("lr", 1e-2), ("cosines", 2))
    runs = [Run("destination", arm, 100, rounds=2, given=given) for arm in ("sft", "spin")]
    rows = cells.sweep(runs, SMALL, tmp_path)
    ends = {round(row["kl"] - row["kl_gap_to_sft"], 3) for row in rows}
    assert len(ends) == 1  # the KL of the model that all are measured from
    assert all(row["kl_to_sft"] > -3 * row["kl_to_sft_se"] for row in rows)
    assert {row["arm"] for row in rows if "cosine_start" in row} == {"spin"}


def test_an_interrupted_run_goes_on_and_ends_with_the_same_rows(
    made: tuple[str, str],
    rows: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped within its second round, as by a signal; the same call goes on."""
    step, taken = train.step, []

    def stopped(*given: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(*given)

    expert, model = made
    arguments: dict[str, Any] = {
        "run": RUNS[2],
        "size": SMALL,
        "expert_folder": expert,
        "model": model,
    }
    more: dict[str, Any] = {"checkpoint": tmp_path / "run.npz", "progress": False}
    monkeypatch.setattr(train, "step", stopped)
    with pytest.raises(KeyboardInterrupt):
        cells.play(**arguments, **more)
    monkeypatch.setattr(train, "step", step)
    assert json.loads(json.dumps(cells.play(**arguments, **more))) == rows[2:]


def test_a_distance_is_told_by_its_tokens(made: tuple[str, str], tmp_path: Path) -> None:
    run = Run("distance", "spif", 100, given=(("max_new_tokens", 2),))
    expert, model = made
    (row,) = cells.play(run, SMALL, expert, model, tmp_path / "run.npz", progress=False)
    assert row["max_new_tokens"] == 2
    assert row["held_out_length_expert"] <= 2
    assert all(abs(row[f"{c}_correlation"]) <= 1 for c in ("linear", "bounded", "sign"))


def test_a_run_that_diverges_is_a_row(made: tuple[str, str], tmp_path: Path) -> None:
    run = Run("rate", "spin", 100, rounds=2, given=(("lr", 1e30), ("clip", 0.0)))
    expert, model = made
    (row,) = cells.play(run, SMALL, expert, model, tmp_path / "run.npz", progress=False)
    assert row["diverged"] is True
    assert row["round"] == 0
    assert "kl" not in row


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    size = dataclasses.replace(SMALL, seeds=(0,))
    settings = [("lr", 1e-2)], [("lr", 1e-2), ("label_smoothing", 0.1)]
    runs = [Run("best", "sft", 0, given=tuple(given)) for given in settings]
    runs += [Run("best", "spif", 0, rounds=3, given=(("lr", 1e-2),))]
    return cells.sweep(runs, size, tmp_path_factory.mktemp("best"))


def of(rows: list[dict[str, Any]], study: str, method: str) -> list[dict[str, Any]]:
    return [r for r in rows if (r["study"], r.get("method")) == (study, method)]


@pytest.mark.parametrize(("method", "trials"), [("sft", 2), ("spif", 3)])
def test_validation_chooses_and_the_test_prompts_are_reported(
    best: list[dict[str, Any]], method: str, trials: int
) -> None:
    tried = of(best, "best", method)
    assert len(tried) == trials
    least = min(tried, key=lambda row: row["validation_nll"])
    (chosen,) = of(best, "chosen", method)
    assert chosen["arm"] == method
    assert chosen["setting"] == least["arm"]
    assert [chosen[k] for k in ("kl", "validation_nll", "round", "passes")] == [
        least[k] for k in ("kl", "validation_nll", "round", "passes")
    ]
    assert chosen["passes"] == chosen["round"] + 1


@pytest.mark.parametrize(("method", "models"), [("sft", 2), ("spif", 1)])
def test_the_best_model_is_measured_at_temperatures(
    best: list[dict[str, Any]], method: str, models: int
) -> None:
    """At temperature 1 it is the chosen round's model: the same forward KL on the same prompts."""
    points = of(best, "temperature", method)
    assert len(points) == models * len(TEMPERATURES)
    (chosen,) = of(best, "chosen", method)
    same = [p for p in points if p["temperature"] == 1 and p["arm"] == chosen["setting"]]
    assert same[0]["kl"] == pytest.approx(chosen["kl"], rel=1e-4)
    (point,) = of(best, "chosen temperature", method)
    sums = [p["validation_kl"] + p["validation_reverse_kl"] for p in points]
    assert point["validation_kl"] + point["validation_reverse_kl"] == min(sums)


def test_settings_of_supervised_fine_tuning_are_told_apart(best: list[dict[str, Any]]) -> None:
    assert {r["arm"] for r in of(best, "best", "sft")} == {"sft", "sft, 0.1 smoothing"}


def test_rounds_on_new_responses_are_chosen_apart_and_count_all_that_they_read(
    tmp_path: Path,
) -> None:
    size, given = dataclasses.replace(SMALL, seeds=(0,)), (("lr", 1e-2),)
    new = (*given, ("round_data", "fresh"))
    runs = [Run("fresh", "spif", 0, rounds=2, given=new), Run("best", "spif", 0, given=given)]
    runs += [Run("fresh", "sft", 0, given=given, prompts=64)]
    rows = cells.sweep(runs, size, tmp_path)
    seen = {r["arm"]: (r["prompts"], r["passes"]) for r in of(rows, "chosen fresh", "spif")}
    assert seen == {"spif": (64, 1)}
    assert [r["prompts"] for r in of(rows, "chosen fresh", "sft")] == [64]
    assert [r["prompts"] for r in of(rows, "chosen", "spif")] == [32]
    for study in ("chosen temperature", "chosen fresh temperature"):
        assert len(of(rows, study, "spif")) == 1
    models = [r["prompts"] for r in of(rows, "fresh temperature", "spif")]
    assert models == [64] * len(TEMPERATURES)


@pytest.mark.parametrize(
    ("of_size", "measured"), [(REAL, "archaic"), (CHECKED, "match_greedy")], ids=["verses", "lists"]
)
def test_an_experiment_without_a_known_expert_has_none_to_make(
    tmp_path: Path, of_size: Size, measured: str
) -> None:
    """As the real model's, of a tiny one."""
    tiny = (("model", "tiny"), ("max_prompt_tokens", 400), ("max_new_tokens", 16))
    size = dataclasses.replace(
        of_size, seeds=(0,), prompts=16, held_out=8, epoch=2, width=16, given=tiny
    )
    rows = cells.sweep([Run("real", "spin", 0), Run("real", "sft", 0)], size, tmp_path)
    assert [(r["arm"], r["round"]) for r in rows] == [("spin", 0), ("sft", 0)]
    for row in rows:
        assert row["nll"] - row["nll_before"] == pytest.approx(row["nll_change"], abs=1e-3)
        assert {measured, f"{measured}_before"} <= row.keys()
        assert "kl" not in row
    assert not list(tmp_path.glob("expert*"))
