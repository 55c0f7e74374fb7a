"""The recorded runs: `python -m llm_scale.study.tiny_runs --out results/llm_tiny.json`.

Several objectives and SFT, the same seeds each, by the trainer as it is, against exact rounds.
"""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lab.sweep import Cell, run_cells
from llm_scale.settings import resolve
from llm_scale.store.identity import versions
from llm_scale.study.tiny_model import Job, Row, run
from theory.command import program
from theory.files import write_whole

PRESET = "tiny-cpu"
AT_ONE = {
    "spin": ("spin", 1.0),
    "spif": ("spif(c=1)", 0.5),
    "ipo": ("ipo(margin=1)", 0.5),
    "centred_spif": ("centred_spif(c=1)", 0.5),
    "sft": ("sft", 1.0),
}
"""Objective and the beta of effective step ``R'(0)/beta = 1``."""
PLAYED = ("spin", "spif", "ipo")
SHORT, MIDDLE, LONG = 64, 256, 1024
"""Steps a round; 32 prompts for each, so that every prompt is seen twice."""
FAR = 10.0
RATES = (1e-3, 1e-2, 3e-2)
"""Learning rates beside the preset's."""
WEIGHTS = (0.03, 0.1, 0.3, 1.0)
"""Of the level; 1 is pointwise SPIF."""
LEVELLED = Path(__file__).with_name("levelled_ipo.py")
FULL = "make llm-tiny FULL=1"


def job(study: str, name: str, step: float = 1.0, level: float | None = None, **given: Any) -> Job:
    """A run of an objective at an effective step."""
    arm, beta = AT_ONE[name]
    objective = arm if level is None else f"{LEVELLED}:levelled_ipo(level={level})"
    steps = given.get("steps_per_round", MIDDLE)
    base = {"rounds": 1, "steps_per_round": steps, "prompts": 32 * steps, "device": "cpu"}
    values = base | {"objective": objective, "beta": beta / step} | given
    points = study == "link" and steps > SHORT and values["seed"] == 0
    return Job(study, resolve(PRESET, values), arm, level, points)


def plan(full: bool = False) -> list[Job]:
    """All runs for seeds 0, 1, ..., the longest first; `LONG` rounds only if ``full``."""
    jobs = []
    levels = (SHORT, MIDDLE, LONG) if full else (SHORT, MIDDLE)
    for seed in range(5 if full else 3):
        fixed: dict[str, Any] = {"seed": seed}
        two = fixed | {"rounds": 2}
        groups = fixed | {"own_samples": 4}
        for steps in levels:
            more = (two if steps == MIDDLE else fixed) | {"steps_per_round": steps}
            jobs += [job("link", name, **more) for name in (*PLAYED, "sft")]
        jobs.append(job("equal compute", "sft", batch=128, **two))
        jobs.append(job("link", "centred_spif", **groups))
        jobs += [job("stability", name, FAR, **two) for name in PLAYED]
        if full:
            more = fixed | {"steps_per_round": LONG, "held_out": 0}
            jobs += [job("more data", name, FAR, **more) for name in ("spif", "ipo")]
        jobs.append(job("stability", "centred_spif", FAR, **groups))
        for weight in WEIGHTS:
            jobs.append(job("level", "ipo", FAR, weight, held_out=0, **fixed))
        for rate in RATES:
            short = fixed | {"steps_per_round": SHORT, "lr": rate, "held_out": 0}
            jobs += [job("rate", name, **short) for name in (*PLAYED, "sft")]
    return sorted(jobs, key=lambda j: -_cost(j))


def _cost(made: Job) -> int:
    s = made.settings
    return s.steps_per_round * s.rounds * s.batch * (1 + s.own_samples)


def cells(jobs: Sequence[Job]) -> list[Cell]:
    """The jobs as parts of a sweep, in their order."""
    return [
        Cell(f"{i:03d} {j.study} {j.arm.partition('(')[0]} {j.settings.seed}", rows_of, {"job": j},
             resumes=False)
        for i, j in enumerate(jobs)
    ]  # fmt: skip


def rows_of(job: Job) -> list[Row]:
    """`run` with numbers as they are recorded."""
    found: list[Row] = rounded(run(job))
    return found


def record(rows: list[Row], command: str, decides: bool = True, **more: Any) -> str:
    """The rows as JSON, a line each, with where they come from; numbers to four digits.

    Args:
        decides: whether the report's statuses are derived from it, which then names it.
        more: is said of where they come from beside command, versions and preset.
    """
    known = versions()
    where = {
        "command": command,
        "device": f"CPU, {platform.machine()}",
        "python": known.pop("python"),
        "versions": known,
        "preset": PRESET,
        **more,
    }
    lines = ",\n  ".join(json.dumps(rounded(row), allow_nan=False) for row in rows)
    named = '"records": [],\n ' if decides else ""
    return f'{{"provenance": {json.dumps(where)},\n {named}"rows": [\n  {lines}\n]}}\n'


def rounded(value: Any) -> Any:
    """Numbers to four digits; those that are not finite are left out of a row."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        finite = {k: v for k, v in value.items() if not isinstance(v, float) or math.isfinite(v)}
        return {k: rounded(v) for k, v in finite.items()}
    return [rounded(v) for v in value] if isinstance(value, list) else value


def main(
    out: Annotated[Path, typer.Option(help="file of the table")],
    workers: Annotated[int, typer.Option(help="runs at a time, one core each")] = 2,
    full: Annotated[
        bool, typer.Option(help="five seeds and long rounds; else three seeds without")
    ] = False,
) -> None:
    """Train a tiny model by several objectives and record how it compares with exact rounds.

    Finished runs are kept beside the file: the same command goes on after an interruption.
    """
    parts = out.with_suffix(".parts")
    found = run_cells(cells(plan(full)), parts, workers)
    command = FULL if full else "make llm-tiny"
    write_whole(out, record([row for rows in found for row in rows], command))
    shutil.rmtree(parts)


if __name__ == "__main__":
    program(main, resumes=True)()
