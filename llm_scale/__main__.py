"""Train and measure small language models by self-play: `python -m llm_scale train --out RUN`."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from safetensors import SafetensorError

from lab.command import with_settings
from lab.files import file_problems, folder_problems
from lab.settings import make, read_toml
from llm_scale.data.formats import Turns, read_prompts
from llm_scale.settings import EXPERT_RECIPE, PLAYED, PRESETS, Settings, resolve
from theory.command import Program
from theory.errors import InvalidInput, refuse
from theory.files import write_whole

# Typer's own tables would cut long names of options at 80 columns.
app = Program(__doc__, failures=(SafetensorError,), rich_markup_mode=None)

LISTED = ("objective", "seed")
"""Settings of which a sweep has lists."""

Out = Annotated[Path, typer.Option(help="folder of the run; the same command resumes it")]
Preset = Annotated[str, typer.Option(help="start from a preset (see `presets`)")]
Model = Annotated[Path, typer.Argument(help="folder of a run, or directory of a causal LM")]
Horizon = Annotated[
    int | None, typer.Option(help="longest response in tokens (default: the run's, else 64)")
]
Style = Annotated[
    str | None, typer.Option(help="auto, chat or plain (default: the run's, else auto)")
]
Temperature = Annotated[
    float,
    typer.Option(
        help="1: exact samples of pi; 0: the likeliest tokens; others are allowed as well"
    ),
]
Select = Annotated[
    str,
    typer.Option(
        help="settings to choose by validation_nll (needs --validation), as 'lr=1e-4,1e-3' or "
        "'lr=1e-4,1e-3;dropout=0,0.1': a run of every combination in a subfolder, the best round "
        "of the best one and what was tried in OUT/selection.json"
    ),
]
Device = Annotated[str, typer.Option(help="auto (CUDA if there is one), cpu or cuda")]


@app.command(resumes=True)
@with_settings(Settings)
def train(out: Out, given: dict[str, Any], preset: Preset = "", select: Select = "") -> None:
    """Train by self-play: rounds of sampling, training and measuring, in a folder."""
    _run_or_select(given, preset, out, select)


@app.command("make-expert", resumes=True)
@with_settings(Settings, hidden=PLAYED, defaults=read_toml(PRESETS / f"{EXPERT_RECIPE}.toml"))
def make_expert(
    out: Out,
    given: dict[str, Any],
    preset: Preset = EXPERT_RECIPE,
    steps: Annotated[
        int | None, typer.Option(min=1, help="steps of SFT (the same as --steps-per-round)")
    ] = None,
) -> None:
    """Train an expert by maximum likelihood: a run of `sft`, then `--expert OUT` of others.

    Its model is in OUT/final. The defaults are those of the text game's expert; --task is any.
    """
    _refuse_played(given)
    if steps is not None and "steps_per_round" in given:
        raise InvalidInput("--steps and --steps-per-round are the same: say one of them")
    given = given | ({} if steps is None else {"steps_per_round": steps})
    _run(resolve(preset, given | {"objective": "sft"}), out)
    from llm_scale.store.read import read

    measured = [row for row in read(out).rounds if "nll" in row]
    told = [f"held-out NLL {r['nll']:.2f} ({r['nll_se']:.2f}) nats a response" for r in measured]
    _say("; ".join([f"an expert: --expert {out}", *told[-1:]]))


@app.command(resumes=True)
@with_settings(Settings, hidden=PLAYED)
def sft(
    out: Out,
    given: dict[str, Any],
    preset: Preset = "",
    select: Select = "",
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
        _refuse_played(given)
        _run_or_select(given | {"objective": "sft"}, preset, out, select)
        return
    if given or preset or select:
        said = {"preset": preset, "select": select}
        names = [*(name for name, text in said.items() if text), *given]
        raise InvalidInput(f"--like takes all settings from its run; leave out {', '.join(names)}")
    from llm_scale.launch import sweep as several

    planned = several.baselines(like)
    if "equal-compute" not in planned:
        _say("a step of the run sends no more through the model than SFT's: equal-data is both")
    _exit_if(several.execute(planned, out, _say))


@app.command(resumes=True)
def reproduce(
    record: Annotated[Path, typer.Argument(help="settings.json of a run, or its folder")], out: Out
) -> None:
    """Run again from a recorded configuration."""
    from llm_scale.store import identity
    from llm_scale.store.read import record_of

    begun = record_of(record)
    settings = make(Settings, begun["settings"])
    if begun["files"]:
        refuse(
            f"{record}: recorded with another content of {name}: this would be another run"
            for name in identity.changed(begun["files"], settings)
        )
    _run(settings, out)


@app.command()
def generate(
    model: Model,
    prompts: Annotated[list[str] | None, typer.Argument(help="prompts as text")] = None,
    file: Annotated[
        Path | None, typer.Option(help="file of prompts (field 'prompt'), as --task takes them")
    ] = None,
    count: Annotated[int, typer.Option(min=1, help="responses to each prompt")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="seed of the samples")] = 0,
    temperature: Temperature = 1.0,
    out: Annotated[
        Path | None, typer.Option(help="JSONL file to write (default: standard output)")
    ] = None,
    max_new_tokens: Horizon = None,
    prompt_style: Style = None,
    device: Device = "auto",
) -> None:
    """Samples of a model, exact ones at temperature 1, as JSON lines; cut ones are marked."""
    from llm_scale.launch import evaluate

    asked: Sequence[str | Turns] = list(prompts or [])
    refuse(file_problems(out) if out is not None else [])
    refuse(evaluate.temperature_problems(temperature, count))
    if bool(asked) == (file is not None):
        raise InvalidInput("say prompts as arguments, or --file FILE.jsonl: one of the two")
    asked = read_prompts(file) if file is not None else asked
    given = _given(max_new_tokens=max_new_tokens, prompt_style=prompt_style, device=device)
    opened = evaluate.opened(model, given, _say)
    made = evaluate.responses(opened, asked, count, seed, temperature)
    _warn(evaluate.warning(temperature))
    _put("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in made), out)


@app.command("eval")
def evaluate_(
    model: Model,
    data: Annotated[
        str,
        typer.Option(
            help="file as of --task, phrases, verses or text (default: held-out prompts of the run)"
        ),
    ] = "",
    count: Annotated[int, typer.Option(min=0, help="pairs at most (0: all)")] = 0,
    text_metrics: Annotated[
        bool, typer.Option(help="also BLEU and chrF of samples (needs the package sacrebleu)")
    ] = False,
    match: Annotated[
        str,
        typer.Option(
            help="share of right answers: exact (the reference's text), number (the last one in "
            "it), or FILE.py:FUNCTION of (prompt, response, reference); greedily, and by samples"
        ),
    ] = "none",
    temperature: Temperature = 1.0,
    seed: Annotated[int, typer.Option(min=0, help="seed of the samples")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="JSON file to write (default: standard output)")
    ] = None,
    max_new_tokens: Horizon = None,
    prompt_style: Style = None,
    device: Device = "auto",
) -> None:
    """Negative log-likelihood of responses under a model, in nats, with standard errors."""
    from llm_scale import matching
    from llm_scale.launch import evaluate

    refuse(file_problems(out) if out is not None else [])
    refuse(evaluate.temperature_problems(temperature))
    by = matching.build(match)
    if temperature != 1 and by is None and not text_metrics:
        raise InvalidInput("--temperature is of samples: say --match or --text-metrics as well")
    given = _given(max_new_tokens=max_new_tokens, prompt_style=prompt_style, device=device)
    opened = evaluate.opened(model, given, _say)
    examples = evaluate.examples(opened, data, count)
    matched: dict[str, Any] = {}
    if by is not None:  # before all else: a user's function may fail
        matched = {"match": match, **evaluate.matched(opened, examples, by, seed, temperature)}
    row = evaluate.evaluated(opened, examples) | matched
    if text_metrics:
        row |= evaluate.text_metrics(opened, examples, seed, temperature)
    _warn(evaluate.warning(temperature))
    _put(json.dumps({"model": str(model), "data": data or opened.task, **row}) + "\n", out)


@app.command()
@with_settings(Settings)
def show(
    given: dict[str, Any],
    preset: Preset = "",
    count: Annotated[int, typer.Option(min=0, help="examples, token by token")] = 3,
) -> None:
    """What the model sees of a task: examples by token, lengths, duplicates, what is held out."""
    from llm_scale.launch.show import shown

    typer.echo(shown(resolve(preset, given), count), nl=False)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="folder for report.md and its plots (PNG, PDF)")],
    runs: Annotated[
        list[Path] | None, typer.Argument(help="folders of runs, or folders that hold runs")
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME=RUN: what the runs in a folder, and others that differ from them by their "
            "seed alone, are called; may be given several times"
        ),
    ] = None,
) -> None:
    """Compare runs: what happened, every round in a table, plots, samples."""
    from llm_scale.report import write as comparison

    refuse(folder_problems(out))
    for path in comparison.write(runs or [], out, _named(label or [])):
        typer.echo(str(path))


@app.command(resumes=True)
@with_settings(Settings, hidden=LISTED)
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

    once = [n for n in LISTED if n in given]
    if once or (betas and "beta" in given):
        names = ", ".join([*once, *(["beta"] if betas and "beta" in given else [])])
        raise InvalidInput(f"a sweep has lists: use --objectives, --seeds, --betas for {names}")
    base = resolve(preset, given | ({"objective": "sft"} if given.get("effective_step") else {}))
    if betas and base.effective_step:
        raise InvalidInput("--betas and --effective-step: needed is one of them")
    chosen = several.numbers(betas, "betas", float) if betas else [base.beta]
    drawn = [int(s) for s in several.numbers(seeds, "seeds", int)]
    planned = several.plan(base, several.split(objectives), drawn, chosen)
    stopped = several.execute(planned, out, _say)
    for path in comparison.write([out / name for name in planned], out / "report", replace=True):
        typer.echo(str(path))
    if more := several.others(planned, out):
        _say(
            f"{len(more)} other runs in {out} are not in this report: "
            f"`report {out} --out FOLDER` makes that of all"
        )
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
    from llm_scale.launch.run_folder import run
    from llm_scale.train import Diverged

    try:
        run(settings, out, _say)
    except Diverged as error:
        _say(f"stopped: {error}")
        raise typer.Exit(1) from None


def _run_or_select(given: dict[str, Any], preset: str, out: Path, select: str) -> None:
    """One run, or one of every combination and the best of them."""
    if not select:
        _run(resolve(preset, given), out)
        return
    from llm_scale.launch import choose

    tried = choose.parsed(select)
    refuse(
        f"{name}: given and in --select; needed is one of them" for name in tried if name in given
    )
    _say(choose.run(choose.plan(preset, given, tried), out, _say))


def _refuse_played(given: dict[str, Any]) -> None:
    """InvalidInput: settings that self-play alone reads."""
    refuse(
        f"{name}: SFT has no such setting; leave it out"
        for name in PLAYED
        if name in given and given[name] != "sft"
    )


def _named(labels: list[str]) -> list[tuple[str, Path]]:
    parts = [text.partition("=") for text in labels]
    refuse(
        f"--label {text!r}; needed is NAME=RUN, a folder of runs"
        for text, (name, _, folder) in zip(labels, parts, strict=True)
        if not (name.strip() and folder)
    )
    return [(name.strip(), Path(folder)) for name, _, folder in parts]


def _say(text: str) -> None:
    typer.echo(text, err=True)


def _warn(text: str) -> None:
    if text:
        _say(text)


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


if __name__ == "__main__":
    app()
