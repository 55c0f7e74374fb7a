"""Command line: ``python -m theory card``, ``check`` and ``list``.

python -m theory card spif 'spif(c=0.5)' my_objective.py my_objective.py:mine
python -m theory card 'spif(c=2.02)' --beta 0.1
python -m theory check my_objective.py --thorough
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from theory import objectives
from theory.card import TheoryCard, markdown_table, theory_card
from theory.check import Checked, check_objective
from theory.command import Program
from theory.errors import InvalidInput
from theory.objectives import Objective

app = Program(__doc__)
What = Annotated[
    list[str] | None,
    typer.Argument(
        help="NAME, NAME(parameter=value), FILE.py or FILE.py:NAME; default: all registered"
    ),
]
Parameters = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="a parameter, as in --set c=0.5")
]


@app.command("list")
def list_objectives() -> None:
    """List the registered objectives with where they come from."""
    for name in objectives.names():
        typer.echo(f"{name:18} {objectives.get(name).citation}")


@app.command()
def card(
    what: What = None,
    markdown: Annotated[
        bool, typer.Option(help="one Markdown table instead of full cards")
    ] = False,
    parameter: Parameters = None,
    beta: Annotated[
        float | None, typer.Option(help="add what follows at this beta: effective step, stability")
    ] = None,
) -> None:
    """Print theory cards: what is predicted for an objective, computed from its definition.

    The first line says whether its formulas pass the quick checks; what fails them ends with
    status 2, after the card if there is one.
    """
    every = _objectives(what, parameter)
    checked = [check_objective(obj) for obj in every]
    if markdown:
        cards = [_card(*pair) for pair in zip(every, checked, strict=True)]
        typer.echo(markdown_table([one for one in cards if one is not None]))
    else:
        for obj, found in zip(every, checked, strict=True):
            typer.echo(found)
            _print(_card(obj, found), beta)
    _end(checked)


@app.command()
def check(
    what: What = None,
    thorough: Annotated[
        bool, typer.Option(help="the theorems on random games as well: up to minutes")
    ] = False,
    parameter: Parameters = None,
) -> None:
    """Check definitions: payoffs, losses, links and potentials against each other."""
    checked = []
    for obj in _objectives(what, parameter):
        checked.append(check_objective(obj, thorough))
        typer.echo(checked[-1])
    _end(checked)


def _objectives(what: list[str] | None, parameters: list[str] | None) -> list[Objective]:
    """Everything that is named, with the parameters."""
    given = _parameters(parameters or [])
    names = [n for item in what or objectives.names() for n in _names(item)]
    return [objectives.get(name, **given) for name in names]


def _names(item: str) -> list[str]:
    return objectives.load_file(item) if item.endswith(".py") or Path(item).is_file() else [item]


def _parameters(pairs: list[str]) -> dict[str, float]:
    out: dict[str, float] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if name in out:
            raise InvalidInput(f"--set {pair}: {name} is given twice; needed is each once")
        try:
            out[name] = float(value)
        except ValueError as error:
            raise InvalidInput(f"--set {pair}: needed is name=number") from error
    return out


def _card(obj: Objective, checked: Checked) -> TheoryCard | None:
    """The card; None where the formulas that fail their checks do not even give one."""
    try:
        return theory_card(obj)
    except Exception:
        if checked.ok:
            raise
        return None


def _print(one: TheoryCard | None, beta: float | None) -> None:
    if one is None:
        return
    table = Table(title=one.objective, show_header=False, title_justify="left")
    for name, value in one.rows() + ([] if beta is None else one.at(beta).rows()):
        table.add_row(name, escape(value))
    Console().print(table)


def _end(checked: list[Checked]) -> None:
    """Status 2 if a check failed, with what failed."""
    for one in checked:
        one.require()


if __name__ == "__main__":
    app()
