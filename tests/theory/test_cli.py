"""The command line: cards of names and of anybody's file, a list, and messages for mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from theory import objectives
from theory.__main__ import app
from theory.card import markdown_table, theory_card

MINE = """
from theory import xp
from theory.objectives import Pairwise, Pointwise, register

@register("first")
class First(Pointwise):
    c: float = 1.0
    positive = ("c",)
    citation = "[bold]a paper[/bold]"
    def a(self, r):
        return r - 0.5 * self.c * r * r
    def b(self, r):
        return -r - 0.5 * self.c * r * r

@register("second")
class Second(Pairwise):
    def pair_loss(self, d):
        return xp.square(1 - d)
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")


@pytest.fixture
def mine(tmp_path) -> Path:
    path = tmp_path / "my_objective.py"
    path.write_text(MINE)
    return path


def call(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


def table(shown: str) -> dict[str, str]:
    """Rows of a printed card."""
    rows = [line.split("│") for line in shown.splitlines() if line.startswith("│")]
    return {row[1].strip(): row[2].strip() for row in rows}


def test_list() -> None:
    done = call("list")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == objectives.names()
    assert "arXiv 2401.01335" in lines[objectives.names().index("spin")]


def test_card_of_a_name() -> None:
    done = call("card", "spif", "--set", "c=0.5", "-s", "alpha=0.25")
    assert done.exit_code == 0
    assert "spif(c=0.5, alpha=0.25)" in done.stdout
    rows = table(done.stdout)
    assert rows["L"].split(";")[0] == f"{1 / (8 * 0.5 * 0.25 * 0.75):.6g}"
    assert rows["slope_at_zero"] == "1"
    assert rows["reward_bounds"] == "-1.33333, 4"
    assert rows["one_step_exact"].startswith("no; the loss changes")


def test_card_of_a_file(mine: Path) -> None:
    done = call("card", mine)
    assert done.exit_code == 0, done.stderr
    assert "first(c=1)" in done.stdout
    assert "second" in done.stdout
    assert "[bold]a paper[/bold]" in done.stdout  # text is shown as it is
    first = table(done.stdout.split("second")[0])
    values = [first[key].split(";")[0] for key in ("L", "mu", "stability_beta")]
    assert values == ["0.5", "0", "0.25"]
    assert first["L"].endswith("from a grid of log-ratios and its limits, not proved")
    assert first["reward_bounds"] == "-1, 1"


def test_names_and_files_together(mine: Path) -> None:
    done = call("card", "spin", mine, "--markdown")
    assert done.exit_code == 0
    names = ("spin", "first", "second")
    assert done.stdout.strip() == markdown_table([theory_card(objectives.get(n)) for n in names])


def test_all_cards() -> None:
    done = call("card", "--markdown")
    assert done.exit_code == 0
    assert len(done.stdout.splitlines()) == 2 + len(objectives.names())


def test_without_arguments_it_explains_itself() -> None:
    done = call()
    assert "card" in done.output
    assert "list" in done.output


WRONG = {
    "unknown name": (["card", "spinn"], r"unknown objective 'spinn'. Did you mean 'spin'?"),
    "no such file": (["card", "nowhere.py"], "nowhere.py: no such file"),
    "unknown parameter": (["card", "spif", "-s", "d=1"], "spif: unknown parameter 'd'; it takes c"),
    "no number": (["card", "spif", "-s", "c=x"], "--set c=x: needed is name=number"),
    "no value": (["card", "spif", "-s", "c"], "--set c: needed is name=number"),
    "twice": (
        ["card", "spif", "-s", "c=0.5", "--set", "c=0.7"],
        "--set c=0.7: c is given twice; needed is each once",
    ),
    "out of range": (["card", "spif", "-s", "c=-1"], "spif: c=-1.0; needed is a number > 0"),
    "not finite": (["card", "spif", "-s", "alpha=nan"], "alpha=nan; needed is a finite number"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG.values(), ids=WRONG)
def test_mistakes_end_in_a_sentence(arguments: list[str], message: str) -> None:
    done = call(*arguments)
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert done.stdout == ""
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "registers no objective"),
        ("import nothing_like_this", "ModuleNotFoundError: No module named 'nothing_like_this'"),
        ("def f(:", "SyntaxError: invalid syntax"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        (MINE.replace('"second"', '"spin"'), "objective name 'spin' is taken; choose another"),
        (MINE.replace("Pairwise)", "object)"), "derive from Pointwise, Pairwise or Group"),
        (MINE.replace("c: float = 1.0", "c: float"), "first: missing parameter 'c'"),
        (MINE.replace("return r -", "return -r -").replace("return -r - 0", "return r - 0"),
         "first(c=1): no reward at which a increases and b decreases"),
    ],
)  # fmt: skip
def test_files_that_do_not_work(tmp_path, text: str, message: str) -> None:
    path = tmp_path / "my_objective.py"
    path.write_text(text)
    done = call("card", path)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def test_a_card_at_a_beta() -> None:
    shown = table(call("card", "spif(c=2.02)", "--beta", "0.1").stdout)
    assert (shown["beta"], shown["effective_step"]) == ("0.1", "2.47525")
    assert (shown["largest_move"], shown["locally_stable"]) == ("-4.9505, 4.9505", "no")
    assert "beta" not in table(call("card", "spif").stdout)
    wrong = call("card", "spif", "--beta", "-1")
    assert wrong.exit_code == 2
    assert "beta=-1.0; needed is a finite number > 0" in wrong.stderr
