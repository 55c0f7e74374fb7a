"""Run experiments on toy games: `python -m toy_games run NAME [--set key=value ...]`."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from lab.settings import described, make, read_values
from theory.command import Program

if importlib.util.find_spec("pandas") is None or importlib.util.find_spec("joblib") is None:
    raise SystemExit("toy_games needs pandas and joblib: pip install 'selfplay-theory[toys]'")
from toy_games import launch

app = Program(__doc__)


@app.command("list")
def list_all(
    name: Annotated[str, typer.Argument(help="only this one, with all its settings")] = "",
) -> None:
    """Say what the experiments are; with a NAME, what its settings do, with their defaults."""
    console = Console()
    for each in [name] if name else launch.NAMES:
        module = launch.load(each)
        console.print(f"[bold]{each}[/]  {escape(module.SUMMARY)}")
        for field in dataclasses.fields(module.Settings) if name else ():
            text = escape(described(field, field.default))
            console.print(f"  {field.name}: {text}", soft_wrap=True)


@app.command("run", resumes=True)
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
    settings = make(launch.load(name).Settings, read_values(values, config))
    table = launch.run(name, settings, out, jobs)
    if out is None:
        typer.echo(table.to_csv(index=False, lineterminator="\n"), nl=False)
    else:
        typer.echo(f"{len(table)} lines in {out / 'table.csv'}", err=True)


if __name__ == "__main__":
    app()
