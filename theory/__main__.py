"""Command line: ``python -m theory card NAME|FILE ...`` and ``python -m theory list``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from theory import objectives
from theory.card import markdown_table, theory_card
from theory.command import Program
from theory.errors import InvalidInput

app = Program(__doc__)


@app.command("list")
def list_objectives() -> None:
    """List the registered objectives with where they come from."""
    for name in objectives.names():
        typer.echo(f"{name:18} {objectives.get(name).citation}")


@app.command()
def card(
    what: Annotated[
        list[str] | None,
        typer.Argument(help="names of objectives, or Python files that register some; default all"),
    ] = None,
    markdown: Annotated[
        bool, typer.Option(help="one Markdown table instead of full cards")
    ] = False,
    parameter: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="a parameter, as in --set c=0.5")
    ] = None,
) -> None:
    """Print theory cards: what is predicted for an objective, computed from its definition."""
    try:
        parameters = _parameters(parameter or [])
        names = [n for item in what or objectives.names() for n in _names(item)]
        cards = [theory_card(objectives.get(name, **parameters)) for name in names]
    except InvalidInput as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if markdown:
        typer.echo(markdown_table(cards))
        return
    for one in cards:
        table = Table(title=one.objective, show_header=False, title_justify="left")
        for name, value in one.rows():
            table.add_row(name, escape(value))
        Console().print(table)


def _names(item: str) -> list[str]:
    return objectives.load_file(item) if item.endswith(".py") or Path(item).is_file() else [item]


def _parameters(pairs: list[str]) -> dict[str, float]:
    out = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        try:
            out[name] = float(value)
        except ValueError as error:
            raise InvalidInput(f"--set {pair}: needed is name=number") from error
    return out


if __name__ == "__main__":
    app()
