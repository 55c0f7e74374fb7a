"""The recorded runs of the tiny model: `python -m llm_scale.tiny_runs --out results/llm_tiny.json`.

Several objectives and SFT, three seeds each, by the trainer as it is, against exact rounds.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Annotated, Any

import typer
from tqdm import tqdm

from llm_scale.known_expert import Job, Row, run
from llm_scale.record import versions
from llm_scale.runs import resolve
from theory.settings import write_whole

SEEDS = (0, 1, 2)
PRESET = "tiny-cpu"
AT_ONE = {
    "spin": ("spin", 1.0),
    "spif": ("spif(c=1)", 0.5),
    "ipo": ("ipo(margin=1)", 0.5),
    "centred_spif": ("centred_spif(c=1)", 0.5),
    "sft": ("sft", 1.0),
}
"""Objective and the beta of effective step ``R'(0)/beta = 1``."""
LEVELS = (64, 256, 512)
"""Steps a round; 32 prompts for each, so that every prompt is seen twice."""
MIDDLE = 256
FAR = 10.0


def job(study: str, name: str, step: float = 1.0, labels: str = "pairs", **given: Any) -> Job:
    """A run of an objective at an effective step."""
    objective, beta = AT_ONE[name]
    steps = given.get("steps_per_round", MIDDLE)
    base = {"rounds": 1, "steps_per_round": steps, "prompts": 32 * steps, "device": "cpu"}
    values = base | {"objective": objective, "beta": beta / step} | given
    points = study == "link" and steps == LEVELS[-1] and values["seed"] == SEEDS[0]
    return Job(study, resolve(PRESET, values), labels, points)


def plan(seeds: tuple[int, ...] = SEEDS) -> list[Job]:
    """All runs, the longest first."""
    jobs = []
    for seed in seeds:
        for steps in LEVELS:
            more: dict[str, Any] = {
                "seed": seed,
                "steps_per_round": steps,
                "rounds": 2 if steps == MIDDLE else 1,
            }
            jobs += [job("link", name, **more) for name in ("spin", "spif", "ipo", "sft")]
        middle: dict[str, Any] = {"seed": seed, "rounds": 2}
        jobs.append(job("equal compute", "sft", batch=128, **middle))
        jobs.append(job("link", "centred_spif", own_samples=4, seed=seed))
        for name in ("spin", "spif", "ipo"):
            jobs.append(job("stability", name, FAR, **middle))
            jobs.append(job("stability", name, 3.0, seed=seed))
        jobs.append(job("stability", "centred_spif", FAR, own_samples=4, **middle))
        for study, given in WHY.items():
            jobs.append(job(study, "ipo", FAR, seed=seed, **given))
    cost = [j.settings.steps_per_round * j.settings.rounds * j.settings.own_samples for j in jobs]
    return [jobs[i] for i in sorted(range(len(jobs)), key=lambda i: -cost[i])]


WHY: dict[str, dict[str, Any]] = {
    "few prompts": {"prompts": 512},
    "twice the steps": {"steps_per_round": 2 * MIDDLE},
    "all pairs of 4 and 4": {"own_samples": 4, "expert_samples": 4},
    "a third of the rate": {"lr": 2e-3},
    "exact labels": {"labels": "exact", "held_out": 0},
    "exact labels, twice the steps": {
        "labels": "exact", "held_out": 0, "steps_per_round": 2 * MIDDLE,
    },
}  # fmt: skip
"""What could make IPO at effective step 10 worse than its exact round, one change at a time."""


def collect(jobs: list[Job], workers: int) -> list[Row]:
    """Rows of all jobs in the jobs' order."""
    found: dict[int, list[Row]] = {}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context) as pool:
        tasks = {pool.submit(run, j): i for i, j in enumerate(jobs)}
        for task in tqdm(as_completed(tasks), total=len(tasks), desc="runs", disable=None):
            found[tasks[task]] = task.result()
    return [row for i in range(len(jobs)) for row in found[i]]


def record(rows: list[Row]) -> str:
    """The rows as JSON, a line each, with where they come from; numbers to four digits."""
    known = versions()
    where = {
        "command": "make llm-tiny",
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
) -> None:
    """Train a tiny model by several objectives and record how it compares with exact rounds."""
    write_whole(out, record(collect(plan(), workers)))


if __name__ == "__main__":
    typer.run(main)
