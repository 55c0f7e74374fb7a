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
from safetensors import SafetensorError

from lab.files import write_whole
from lab.settings import make
from llm_scale.launch.run_folder import (
    PRESETS,
    file_problems,
    folder_problems,
    resolve,
    run,
)
from llm_scale.settings import CHOICES, Settings
from llm_scale.store.read import settings_of
from theory.errors import InvalidInput, refuse

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    help=__doc__,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # its tables cut long names of options at 80 columns
)

PLAYED = (
    "objective", "beta", "tau", "level", "opponent", "oracle", "comparisons", "own_samples",
    "cosines",
)  # fmt: skip
"""Settings that self-play alone reads."""


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
        text = f"{field.metadata['help']} (default: {field.default})"
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
Model = Annotated[Path, typer.Argument(help="folder of a run, or directory of a causal LM")]
Horizon = Annotated[
    int | None, typer.Option(help="longest response in tokens (default: the run's, else 64)")
]
Style = Annotated[
    str | None, typer.Option(help="auto, chat or plain (default: the run's, else auto)")
]
Device = Annotated[str, typer.Option(help="auto (CUDA if there is one), cpu or cuda")]


@app.command()
@with_settings
def train(out: Out, given: dict[str, Any], preset: Preset = "") -> None:
    """Train by self-play: rounds of sampling, training and measuring, in a folder."""
    _run(resolve(preset, given), out)


@app.command()
@with_settings
def sft(
    out: Out,
    given: dict[str, Any],
    preset: Preset = "",
    like: Annotated[
        Path | None,
        typer.Option(
            help="folder of a self-play run: makes OUT/equal-data (its prompts, rounds, steps and "
            "batches) and OUT/equal-compute (more steps a round, so that as many tokens go forward "
            "and backward in training; sampling is not counted)"
        ),
    ] = None,
) -> None:
    """The baseline: maximum likelihood with the same prompts, steps and measurements."""
    if like is None:
        refuse(
            f"{name}: SFT has no such setting; leave it out"
            for name in PLAYED
            if name in given and given[name] != "sft"
        )
        _run(resolve(preset, given | {"objective": "sft"}), out)
        return
    if given or preset:
        names = [*(["preset"] if preset else []), *given]
        raise InvalidInput(f"--like takes all settings from its run; leave out {', '.join(names)}")
    from llm_scale.launch import sweep as several

    planned = several.baselines(like)
    if "equal-compute" not in planned:
        _say("a step of the run sends no more through the model than SFT's: equal-data is both")
    _exit_if(several.execute(planned, out, _say))


@app.command()
def reproduce(
    record: Annotated[Path, typer.Argument(help="settings.json of a run, or its folder")], out: Out
) -> None:
    """Run again from a recorded configuration."""
    _or_exit(lambda: _run(make(Settings, settings_of(record)), out))


@app.command()
def generate(
    model: Model,
    prompts: Annotated[list[str] | None, typer.Argument(help="prompts as text")] = None,
    file: Annotated[
        Path | None, typer.Option(help="JSONL file of prompts (field 'prompt')")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="responses to each prompt")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="seed of the samples")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="JSONL file to write (default: standard output)")
    ] = None,
    max_new_tokens: Horizon = None,
    prompt_style: Style = None,
    device: Device = "auto",
) -> None:
    """Exact samples of a model (temperature 1) as JSON lines; cut responses are marked."""

    def call() -> None:
        asked = list(prompts or [])
        refuse(file_problems(out) if out is not None else [])
        if bool(asked) == (file is not None):
            raise InvalidInput("say prompts as arguments, or --file FILE.jsonl: one of the two")
        from llm_scale.launch import evaluate

        asked = evaluate.read_prompts(file) if file is not None else asked
        given = _given(max_new_tokens=max_new_tokens, prompt_style=prompt_style, device=device)
        made = evaluate.responses(evaluate.opened(model, given), asked, count, seed)
        _put("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in made), out)

    _or_exit(call)


@app.command("eval")
def evaluate_(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            help="JSONL of pairs, phrases or verses (default: held-out prompts of the run)"
        ),
    ] = "",
    count: Annotated[int, typer.Option(min=0, help="pairs at most (0: all)")] = 0,
    text_metrics: Annotated[
        bool, typer.Option(help="also BLEU and chrF of samples (needs the package sacrebleu)")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="seed of the samples of --text-metrics")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write (default: standard output)")
    ] = None,
    max_new_tokens: Horizon = None,
    prompt_style: Style = None,
    device: Device = "auto",
) -> None:
    """Negative log-likelihood of responses under a model, in nats, with standard errors."""

    def call() -> None:
        from llm_scale.launch import evaluate

        refuse(file_problems(out) if out is not None else [])
        given = _given(max_new_tokens=max_new_tokens, prompt_style=prompt_style, device=device)
        opened = evaluate.opened(model, given)
        examples = evaluate.examples(opened, data, count)
        row = evaluate.evaluated(opened, examples)
        if text_metrics:
            row |= evaluate.text_metrics(opened, examples.texts, seed)
        _put(json.dumps({"model": str(model), "data": data or opened.task, **row}) + "\n", out)

    _or_exit(call)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="folders of runs, or folders that hold runs")],
    out: Annotated[Path, typer.Option(help="folder for report.md and its plots (PNG)")],
) -> None:
    """Compare runs: every round in a table, plots, and intervals from three seeds on."""

    def call() -> None:
        from llm_scale.report import write as comparison

        refuse(folder_problems(out))
        for path in comparison.write(runs, out):
            typer.echo(str(path))

    _or_exit(call)


@app.command()
@with_settings
def sweep(
    out: Annotated[Path, typer.Option(help="folder of the runs; the same command goes on")],
    given: dict[str, Any],
    preset: Preset = "",
    objectives: Annotated[
        str, typer.Option(help="objectives between commas, sft among them for the baseline")
    ] = "sft,spin,spif,ipo",
    seeds: Annotated[str, typer.Option(help="seeds between commas")] = "0,1,2",
    betas: Annotated[str, typer.Option(help="weights beta between commas (default: beta)")] = "",
) -> None:
    """Runs of all objectives, betas and seeds in subfolders, then their report; resumable."""
    from llm_scale.launch import sweep as several
    from llm_scale.report import write as comparison

    once = [n for n in ("objective", "seed") if n in given]
    if once or (betas and "beta" in given):
        names = ", ".join([*once, *(["beta"] if betas and "beta" in given else [])])
        raise InvalidInput(f"a sweep has lists: use --objectives, --seeds, --betas for {names}")
    base = resolve(preset, given)
    chosen = several.numbers(betas, "betas", float) if betas else [base.beta]
    drawn = [int(s) for s in several.numbers(seeds, "seeds", int)]
    planned = several.plan(base, several.split(objectives), drawn, chosen)
    stopped = several.execute(planned, out, _say)
    for path in comparison.write([out / name for name in planned], out / "report"):
        typer.echo(str(path))
    _exit_if(stopped)


@app.command()
def presets() -> None:
    """List the presets and what they set."""
    for path in sorted(PRESETS.glob("*.toml")):
        text = path.read_text(encoding="utf-8")
        typer.echo(f"{path.stem:14} {text.splitlines()[0].lstrip('# ')}")
        typer.echo("".join(f"  {name} = {value}\n" for name, value in tomllib.loads(text).items()))


def _run(settings: Settings, out: Path) -> None:
    """One run; exit code 1 if its loss was not finite."""
    from llm_scale.train import Diverged

    try:
        run(settings, out, _say)
    except Diverged as error:
        _say(f"stopped: {error}")
        raise typer.Exit(1) from None


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _exit_if(stopped: list[str]) -> None:
    if stopped:
        _say(f"stopped by themselves: {', '.join(stopped)}")
        raise typer.Exit(1)


def _given(**options: Any) -> dict[str, Any]:
    return {k: v for k, v in options.items() if v is not None}


def _put(text: str, out: Path | None) -> None:
    if out is None:
        typer.echo(text, nl=False)
    else:
        write_whole(out, text)


def _or_exit(call: Callable[[], None]) -> None:
    try:
        call()
    except InvalidInput as error:
        for problem in error.problems:
            _say(f"error: {problem}")
        raise typer.Exit(2) from None
    except (OSError, SafetensorError) as error:  # a full disk, say
        _say(f"error: {error}")
        raise typer.Exit(1) from None


__all__ = ["CHOICES", "app"]

if __name__ == "__main__":
    sys.exit(app())
