"""The README's table of cards is what the cards say, and its example runs."""

import re
from pathlib import Path

from theory import objectives
from theory.card import markdown_table, theory_card

README = Path(__file__).parents[2] / "README.md"


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
