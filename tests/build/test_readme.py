"""The READMEs name files that exist; the table of cards is what the cards say; examples run."""

import re
from pathlib import Path

import pytest

from theory import check_objective, objectives
from theory.card import markdown_table, theory_card

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
FOLDERS = ["", "theory", "toy_games", "llm_scale", "figures"]
MADE = {  # by a reader, or by a run
    "my_objective.py", "prefs.jsonl", "metrics.jsonl", "report.md", "settings.json", "table.csv",
    "OUT/selection.json", "best/", "failure.json", "final/", "samples/", "tensorboard/", "wandb/",
}  # fmt: skip
NAMED = re.compile(r"`([\w./]+(?:/|\.(?:py|md|toml|json|csv)))`|\]\(([^)#:]+)[)#]")


def between(start: str, end: str) -> str:
    return README.read_text().split(f"<!-- {start} -->")[1].split(f"<!-- {end} -->")[0]


def test_card_table_is_current() -> None:
    known = map(objectives.get, objectives.names())
    shipped = [obj for obj in known if type(obj).__module__.startswith("theory.")]
    cards = [theory_card(obj) for obj in shipped]
    shown = between("theory cards", "end theory cards").strip()
    assert shown == markdown_table(cards), "paste the output of: python -m theory card --markdown"


def test_first_example_runs(capsys) -> None:
    block = re.search(r"## In five lines\n\n```python\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    exec(compile(block.group(1), "README.md", "exec"), {})
    assert "converged" in capsys.readouterr().out


@pytest.mark.parametrize(
    "file", [*(f"{folder}/README.md".lstrip("/") for folder in FOLDERS), "llm_scale/RESULTS.md"]
)
def test_the_files_that_a_readme_names_exist(file) -> None:
    home = (ROOT / file).parent
    found = {a or b for a, b in NAMED.findall((ROOT / file).read_text(encoding="utf-8"))}
    named = {n for n in found if not re.search(r"^runs/|NAME|NNN", n)} - MADE
    places = [home, ROOT, *(path for path in home.iterdir() if path.is_dir())]
    gone = [name for name in sorted(named) if not any((p / name).exists() for p in places)]
    assert named
    assert not gone


def test_the_pairwise_example_is_a_whole_objective(tmp_path) -> None:
    (block,) = re.findall(r"```python\n([^`]*?Pairwise.*?)```", README.read_text(), re.S)
    (tmp_path / "mine.py").write_text(block)
    mine = objectives.get(f"{tmp_path / 'mine.py'}:huber")
    assert check_objective(mine).ok
    assert mine.slope_at_zero == 0.5  # -l'(0) / (2 l''(0)) at the margin 1


def test_the_group_example_is_a_whole_objective(tmp_path) -> None:
    (block,) = re.findall(r"```python\n([^`]*?Group.*?)```", README.read_text(), re.S)
    (tmp_path / "mine.py").write_text(block)
    mine = objectives.get(f"{tmp_path / 'mine.py'}:donsker_varadhan")
    assert check_objective(mine).ok
    assert mine.slope_at_zero == pytest.approx(1.0)  # its link is u, up to a constant
