"""The recorded runs: `python -m llm_scale.study.tiny_runs --out results/llm_tiny.json`.

Several objectives and SFT, the same seeds each, by the trainer as it is, against exact rounds.
"""

from __future__ import annotations

import dataclasses
import json
import math
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from lab.files import write_whole
from llm_scale.launch.run_folder import resolve
from llm_scale.store.identity import versions
from llm_scale.study.tiny_model import Job, Row, run

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
"""Of `llm_scale.study.tiny_model.LevelledIpo`; 1 is pointwise SPIF."""
FULL = "make llm-tiny FULL=1"


def job(study: str, name: str, step: float = 1.0, level: float | None = None, **given: Any) -> Job:
    """A run of an objective at an effective step."""
    objective, beta = AT_ONE[name]
    steps = given.get("steps_per_round", MIDDLE)
    base = {"rounds": 1, "steps_per_round": steps, "prompts": 32 * steps, "device": "cpu"}
    values = base | {"objective": objective, "beta": beta / step} | given
    points = study == "link" and steps > SHORT and values["seed"] == 0
    return Job(study, resolve(PRESET, values), level, points)


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


def collect(jobs: list[Job], workers: int, part: Path) -> list[Row]:
    """Rows of all jobs in the jobs' order; ``part`` keeps those of finished ones, a job a line.

    A job that ``part`` already holds is not run again.
    """
    found = _finished(part)
    part.parent.mkdir(parents=True, exist_ok=True)
    left = [j for j in jobs if _key(j) not in found]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool, part.open("a") as file:
        tasks = {pool.submit(run, j): j for j in left}
        for task in tqdm(as_completed(tasks), total=len(tasks), desc="runs", disable=None):
            key, rows = _key(tasks[task]), _rounded(task.result())
            found[key] = rows
            file.write(json.dumps({"job": key, "rows": rows}, allow_nan=False) + "\n")
            file.flush()
    return [row for j in jobs for row in found[_key(j)]]


def _key(made: Job) -> str:
    return json.dumps([dataclasses.asdict(made), versions()], sort_keys=True)


def _finished(part: Path) -> dict[str, list[Row]]:
    """Jobs with their rows; a line that was torn when a run was killed is forgotten."""
    found: dict[str, list[Row]] = {}
    whole = ""
    for line in part.read_text(encoding="utf-8").splitlines() if part.exists() else []:
        try:
            known = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[known["job"]] = known["rows"]
        whole += line + "\n"
    if found:
        write_whole(part, whole)
    return found


def record(rows: list[Row], command: str) -> str:
    """The rows as JSON, a line each, with where they come from; numbers to four digits."""
    known = versions()
    where = {
        "command": command,
        "device": f"CPU, {platform.machine()}",
        "python": known.pop("python"),
        "versions": known,
        "preset": PRESET,
    }
    lines = ",\n  ".join(json.dumps(_rounded(row), allow_nan=False) for row in rows)
    return f'{{"provenance": {json.dumps(where)},\n "records": [],\n "rows": [\n  {lines}\n]}}\n'


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        finite = {k: v for k, v in value.items() if not isinstance(v, float) or math.isfinite(v)}
        return {k: _rounded(v) for k, v in finite.items()}
    return [_rounded(v) for v in value] if isinstance(value, list) else value


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
    part = out.with_suffix(".part.jsonl")
    command = FULL if full else "make llm-tiny"
    write_whole(out, record(collect(plan(full), workers, part), command))
    part.unlink()


if __name__ == "__main__":
    typer.run(main)
