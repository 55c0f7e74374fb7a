"""Train and measure small language models by self-play: `python -m llm_scale train --out RUN`."""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from llm_scale.settings import CHOICES, Settings
from theory.errors import InvalidInput
from theory.settings import make, write_whole

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help=__doc__, pretty_exceptions_enable=False
)
PRESETS = Path(__file__).parent / "presets"


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Add an option for every setting; the command gets those that were given, as ``given``."""

    def call(**arguments: Any) -> None:
        names = {f.name for f in dataclasses.fields(Settings)}
        given = {k: v for k, v in arguments.items() if k in names and v is not None}
        rest = {k: v for k, v in arguments.items() if k not in names}
        _or_exit(lambda: command(given=given, **rest))

    own = [p for p in inspect.signature(command).parameters.values() if p.name != "given"]
    options = []
    for field in dataclasses.fields(Settings):
        flag = f"--{field.name.replace('_', '-')}"
        if isinstance(field.default, bool):
            flag = f"{flag}/--no{flag[1:]}"
        text = f"{field.metadata['help']} [default: {field.default}]"
        kind: Any = type(field.default) | None
        kind = Annotated[kind, typer.Option(flag, help=text)]
        keyword = inspect.Parameter.KEYWORD_ONLY
        options.append(inspect.Parameter(field.name, keyword, default=None, annotation=kind))
    hints = inspect.get_annotations(command, eval_str=True)
    own = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hints[p.name]) for p in own]
    call.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
    call.__annotations__ = {p.name: p.annotation for p in (*own, *options)}
    call.__doc__ = command.__doc__
    call.__name__ = command.__name__
    return call


Out = Annotated[Path, typer.Option(help="folder of the run; the same command resumes it")]
Preset = Annotated[str, typer.Option(help="start from a preset (see `presets`)")]


@app.command()
@with_settings
def train(out: Out, given: dict[str, Any], preset: Preset = "") -> None:
    """Train by self-play: rounds of sampling, training and measuring, in a folder."""
    run(resolve(preset, given), out)


@app.command()
@with_settings
def sft(out: Out, given: dict[str, Any], preset: Preset = "") -> None:
    """The baseline: maximum likelihood with the same prompts, steps and measurements."""
    run(resolve(preset, given | {"objective": "sft"}), out)


@app.command()
def reproduce(
    record: Annotated[Path, typer.Argument(help="settings.json of a run, or its folder")], out: Out
) -> None:
    """Run again from a recorded configuration."""
    _or_exit(lambda: run(make(Settings, _recorded(record)), out))


@app.command()
def presets() -> None:
    """List the presets and what they set."""
    for path in sorted(PRESETS.glob("*.toml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        typer.echo(f"{path.stem:14} {first}")


def resolve(preset: str, given: dict[str, Any]) -> Settings:
    """Defaults, then the preset, then what was given. InvalidInput: all problems."""
    values: dict[str, Any] = {}
    if preset:
        path = PRESETS / f"{preset}.toml"
        known = sorted(p.stem for p in PRESETS.glob("*.toml"))
        if path.stem not in known:
            raise InvalidInput(f"unknown preset {preset!r}; there are {', '.join(known)}")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    return make(Settings, values | given)


def run(settings: Settings, out: Path) -> None:
    """Check everything, write the resolved configuration, then train."""
    import torch

    from llm_scale import setup, world
    from llm_scale.record import versions
    from llm_scale.training import Diverged, Trainer

    trainer_parts = setup.prepare(settings)
    record = {"settings": dataclasses.asdict(settings), "versions": versions()}
    path = out / "settings.json"
    if path.exists() and _recorded(path) != record["settings"]:
        raise InvalidInput(f"{out}: holds a run with other settings; choose another --out")
    if world.rank() == 0:
        write_whole(path, json.dumps(record, indent=1) + "\n")
    torch.use_deterministic_algorithms(trainer_parts.machine.device.type == "cpu")
    trainer = Trainer(settings, out, trainer_parts.language, trainer_parts.task)
    try:
        trainer.run(lambda text: typer.echo(text, err=True) if world.rank() == 0 else None)
    except Diverged as error:
        typer.echo(f"stopped: {error}", err=True)
        raise typer.Exit(1) from None
    finally:
        world.stop()


def _recorded(path: Path) -> dict[str, Any]:
    path = path / "settings.json" if path.is_dir() else path
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: not the record of a run ({error})") from error
    return dict(settings)


def _or_exit(call: Callable[[], None]) -> None:
    try:
        call()
    except InvalidInput as error:
        for problem in error.problems:
            typer.echo(f"error: {problem}", err=True)
        raise typer.Exit(2) from None


__all__ = ["CHOICES", "app"]

if __name__ == "__main__":
    sys.exit(app())
