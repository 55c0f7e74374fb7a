"""What an experiment leaves: rows as they were measured, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lab.files import source_digest
from llm_scale.campaign import __main__ as command
from llm_scale.campaign import cells
from llm_scale.campaign.plan import SHORT
from theory.command import program

ROOT = Path(__file__).parents[3]
ROWS = [{"study": "rate", "arm": "spin", "seed": 7, "kl": 27.5}, {"study": "rate", "arm": "sft"}]


def called(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(program(command.main, resumes=True), list(arguments))
    return result.exit_code, result.output


def test_the_record_holds_the_rows_and_says_where_they_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def sweep(runs: Any, size: Any, folder: Path, workers: int) -> Any:
        asked.append((len(runs), size.seeds, workers))
        folder.mkdir()
        return ROWS

    monkeypatch.setattr(cells, "sweep", sweep)
    out = tmp_path / "rates.json"
    code, _ = called("rates", "--out", str(out), "--seeds", "107,108", "--workers", "1")
    found = json.loads(out.read_text())
    assert (code, found["rows"], found["records"]) == (0, ROWS, [])
    about = found["provenance"]
    again = f"python -m llm_scale.campaign rates --out {out} --seeds 107,108"
    assert about["command"] == again, "make has no option for seeds"
    assert about["seeds"] == [107, 108]
    assert about["code"]["llm_scale"] == source_digest(ROOT / "llm_scale")
    assert "expert" not in about, "the short version's own expert is no text game's"
    assert asked[0][1:] == ((107, 108), 1)
    assert not out.with_suffix(".parts").exists()


def test_the_short_version_has_two_seeds_and_leaves_the_record_alone() -> None:
    assert SHORT.seeds == (0, 1)
    makefile = (ROOT / "Makefile").read_text()
    assert "TEXT = $(if $(filter-out 0,$(FULL)),results/llm_text_,runs/llm-text/)" in makefile


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("steqs",), "there are rates, steps"),
        (("rates", "--seeds", "1,x"), "whole numbers"),
        (("history",), "no short version"),
    ],
)
def test_what_it_does_not_know_is_refused(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    code, text = called(*arguments, "--out", str(tmp_path / "x.json"))
    assert code == 2
    assert said in text
    assert not list(tmp_path.iterdir())
