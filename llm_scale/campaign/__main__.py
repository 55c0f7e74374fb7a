"""Run an experiment of the campaign and record it: `python -m llm_scale.campaign rates`."""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.files import digest
from llm_scale.campaign import cells, plan
from llm_scale.campaign.experiments import EXPERIMENTS, runs, size_of
from llm_scale.campaign.plan import Size
from llm_scale.store import expert
from llm_scale.store.identity import code, versions
from llm_scale.store.read import read
from theory.command import program
from theory.errors import InvalidInput
from theory.files import write_whole


def record(experiment: str, rows: Sequence[dict[str, Any]], size: Size, command: str) -> str:
    """The rows as JSON, a line each, with where they come from."""
    known = versions()
    settings = plan.start_settings(size, 0)
    where: dict[str, Any] = {
        "command": command,
        "device": f"CPU, {platform.machine()}",
        "python": known.pop("python"),
        "versions": known,
        "date": datetime.date.today().isoformat(),
        "code": code(),
        "preset": size.preset,
        "experiment": experiment,
        "seeds": list(size.seeds),
    }
    if settings.expert == expert.MADE and not size.expert_steps:
        folder = expert.made_run(settings)
        last = read(folder).rounds[-1]
        where["expert"] = {
            "weights": digest(folder / "final" / "model.safetensors")[:16],
            "nll": round(last["nll"], 3),
            "nll_se": round(last["nll_se"], 3),
        }
    lines = cells.as_json(rows)
    return f'{{"provenance": {json.dumps(where)},\n "records": [],\n "rows": [\n  {lines}\n]}}\n'


def main(
    experiment: Annotated[str, typer.Argument(help=f"one of {', '.join(EXPERIMENTS)}")],
    out: Annotated[Path, typer.Option(help="file of the table")],
    workers: Annotated[int, typer.Option(help="runs at a time, one core each")] = 2,
    full: Annotated[bool, typer.Option(help="the record: five seeds, hours; else minutes")] = False,
    seeds: Annotated[
        str, typer.Option(help="other seeds, between commas, to explore (100 and above)")
    ] = "",
) -> None:
    """Run self-play, SFT and theory against each other on real text, and record the rows.

    Finished runs are kept beside the file: the same command goes on after an interruption.
    """
    if experiment not in EXPERIMENTS:
        raise InvalidInput(f"{experiment!r}: no experiment; there are {', '.join(EXPERIMENTS)}")
    size = size_of(experiment, full)
    command = f"make llm-text ONLY={experiment}{' FULL=1' if full else ''}"
    if seeds:
        command = f"python -m llm_scale.campaign {experiment} --out {out}"
        command += f"{' --full' if full else ''} --seeds {seeds}"
        try:
            size = dataclasses.replace(size, seeds=tuple(int(s) for s in seeds.split(",")))
        except ValueError as error:
            raise InvalidInput(f"--seeds {seeds!r}; needed are whole numbers") from error
    planned = runs(experiment, size)
    if not planned:
        raise InvalidInput(f"{experiment!r} has no short version; run it with FULL=1 (--full)")
    parts = out.with_suffix(".parts")
    found = cells.sweep(planned, size, parts, workers)
    write_whole(out, record(experiment, found, size, command))
    shutil.rmtree(parts)


if __name__ == "__main__":
    program(main, resumes=True)()
