"""Run experiments on toy games: `python -m toy_games run NAME [--set key=value ...]`."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lab.settings import make, read_values
from theory.errors import InvalidInput, NotConverged
from toy_games import launch

app = typer.Typer(add_completion=False, no_args_is_help=True, help=__doc__)


@app.command("list")
def list_all(
    name: Annotated[str, typer.Argument(help="only this one, with all its settings")] = "",
) -> None:
    """Say what the experiments are; with a NAME, what its settings do, with their defaults."""
    console = Console()
    for each in [name] if name else launch.NAMES:
        module = _or_exit(lambda each=each: launch.load(each))
        console.print(f"[bold]{each}[/]  {escape(module.SUMMARY)}")
        for field in dataclasses.fields(module.Settings) if name else ():
            text = escape(f"{field.metadata['help']} (default {field.default!r})")
            console.print(f"  {field.name}: {text}", soft_wrap=True)


@app.command("run")
def run_one(
    name: Annotated[str, typer.Argument(help="the experiment")],
    values: Annotated[
        list[str], typer.Option("--set", help="key=value, as in --set seeds=10; repeatable")
    ] = [],  # noqa: B006 - typer reads the default
    config: Annotated[Path | None, typer.Option(help="TOML file of settings")] = None,
    out: Annotated[
        Path | None, typer.Option(help="folder of the run; the same command resumes it")
    ] = None,
    jobs: Annotated[int, typer.Option(help="processes at a time", min=1)] = 1,
) -> None:
    """Run an experiment and write its tidy table: to the folder OUT, or to standard output."""

    def call() -> None:
        module = launch.load(name)
        settings = make(module.Settings, read_values(values, config))
        table = launch.run(name, settings, out, jobs)
        if out is None:
            typer.echo(table.to_csv(index=False, lineterminator="\n"), nl=False)
        else:
            typer.echo(f"{len(table)} lines in {out / 'table.csv'}", err=True)

    _or_exit(call)


def _or_exit(call):  # type: ignore[no-untyped-def]
    try:
        return call()
    except InvalidInput as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None
    except NotConverged as error:
        typer.echo(f"error: {error}; a smaller rate or effective step may help", err=True)
        raise typer.Exit(1) from None


if __name__ == "__main__":
    if importlib.util.find_spec("pandas") is None:
        raise SystemExit("toy_games needs pandas and joblib: pip install 'selfplay-theory[toys]'")
    app()
