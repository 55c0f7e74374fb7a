"""A campaign of minutes in seconds: rows by round, resumed parts, runs that diverge."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from llm_scale import train
from llm_scale.campaign import cells
from llm_scale.campaign.plan import Run, Size

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


def test_an_interrupted_run_goes_on_and_ends_with_the_same_rows(
    folder: Path, rows: list[dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped within its second round, as by a signal; the same call goes on."""
    step, taken = train.step, []

    def stopped(*given: Any) -> Any:
        taken.append(1)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return step(*given)

    expert, model = (str(p) for p in _made(folder))
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


def test_a_run_that_diverges_is_a_row(folder: Path, tmp_path: Path) -> None:
    run = Run("rate", "spin", 100, rounds=2, given=(("lr", 1e30), ("clip", 0.0)))
    expert, model = (str(p) for p in _made(folder))
    (row,) = cells.play(run, SMALL, expert, model, tmp_path / "run.npz", progress=False)
    assert row["diverged"] is True
    assert row["round"] == 0
    assert "kl" not in row


def _made(folder: Path) -> tuple[Path, Path]:
    (expert,) = (p for p in folder.glob("expert-*") if p.is_dir())
    (start,) = (p for p in folder.glob("start*") if p.is_dir())
    return expert, start / "final"
