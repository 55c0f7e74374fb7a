"""Several runs of one kind in subfolders: sweeps, and the SFT baselines of a run."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from llm_scale.launch import run_folder
from llm_scale.settings import Settings, at_step
from llm_scale.store import identity
from llm_scale.store.read import EQUAL_COMPUTE, RECORD, read, record_of
from llm_scale.train import Diverged
from theory.errors import InvalidInput, refuse

Plan = dict[str, Settings]
"""Name of a subfolder to the settings of its run."""
SELF_PLAY_ONLY = (
    "terms",
    "own_from",
    "own_temperature",
    "own_cut",
    "own_prompt",
    "length_normalised",
    "history",
    "effective_step",
)
"""Settings that SFT refuses or does not read."""
WITHOUT: dict[str, Any] = {
    f.name: f.default for f in dataclasses.fields(Settings) if f.name in SELF_PLAY_ONLY
}


def split(text: str) -> list[str]:
    """Parts of a list between commas, those within brackets excepted: ``spin,spif(c=1,alpha=.3)``.

    InvalidInput: an empty part.
    """
    parts = [p.strip() for p in re.split(r",(?![^()]*\))", text)]
    if not all(parts):
        raise InvalidInput(f"{text!r}: an empty part between commas")
    return parts


def numbers(text: str, name: str, kind: type) -> list[float]:
    """Numbers between commas. InvalidInput: a part that is none of this kind, or twice there."""
    out, problems = [], []
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise InvalidInput(f"--{name} {text!r}: an empty part between commas")
    for part in parts:
        try:
            out.append(kind(part))
        except ValueError:
            needed = "whole numbers" if kind is int else "numbers"
            problems.append(f"--{name} {part!r}; needed are {needed} between commas")
    if len(set(out)) < len(out):
        problems.append(f"--{name} {text!r}: the same number twice")
    refuse(problems)
    return out


def plan(
    base: Settings, objectives: Sequence[str], seeds: Sequence[int], betas: Sequence[float]
) -> Plan:
    """All combinations; SFT has no beta and runs once a seed. With an effective step every
    objective has the beta of its own. InvalidInput: all problems."""
    out: Plan = {}
    problems: list[str] = []
    for objective in objectives:
        for beta in betas[:1] if objective == "sft" else betas:
            for seed in seeds:
                changed = {"objective": objective, "beta": float(beta), "seed": int(seed)}
                changed |= WITHOUT if objective == "sft" else {}
                try:
                    made = at_step(dataclasses.replace(base, **changed))  # type: ignore[arg-type]
                except InvalidInput as error:
                    problems += error.problems
                    continue
                name = slug(made.objective, None if objective == "sft" else made.beta, seed)
                if name in out:
                    problems.append(
                        f"--objectives: {objective!r} is there twice, or its folder {name} is that "
                        "of another; leave one out"
                    )
                out[name] = made
    refuse(dict.fromkeys(problems))
    return out


def slug(objective: str, beta: float | None, seed: int) -> str:
    """Name of a run's folder, as in ``spif_c-0.5-beta-1-seed-0``."""
    word = re.sub(r"[^A-Za-z0-9.]+", "_", objective.rpartition("/")[2]).strip("_")
    return f"{word}{'' if beta is None else f'-beta-{beta:g}'}-seed-{seed}"


def baselines(like: Path) -> Plan:
    """SFT runs that a self-play run is to be compared with: equal data, and equal compute.

    Equal data: the same prompts, expert responses, rounds, steps and batches. Equal compute: as
    many tokens forward and backward in training; a self-play step sends expert and own responses
    through the model, so SFT gets more steps by the ratio of (expert + own) to expert tokens that
    the run recorded. Sampling own responses and measuring are not counted. Where a step sends no
    more than SFT's (rewards per token), that run is the one of equal data, and is planned once.

    Raises:
        InvalidInput: no finished round of self-play with expert responses there, or the data or
            models that a baseline shares with it are others now.
    """
    record = record_of(like)
    settings = Settings(**record["settings"])
    rows = [row for row in read(like).rounds if "tokens_own" in row]
    if not rows or not any(row["tokens_expert"] for row in rows):
        raise InvalidInput(f"{like}: no finished self-play round with expert responses to match")
    expert, own = (sum(row[f"tokens_{side}"] for row in rows) for side in ("expert", "own"))
    sft = dataclasses.replace(
        settings, objective="sft", oracle="none", level="sequence", sft_run="", **WITHOUT
    )
    refuse(
        f"{like}: was begun with another content of {name}, and its baselines would not have the "
        "same data; put it back, or make the run again"
        for name in identity.changed(record["files"], sft)
    )
    steps = math.ceil(settings.steps_per_round * (expert + own) / expert)
    out = {"equal-data": sft}
    if steps > settings.steps_per_round:
        out[EQUAL_COMPUTE] = dataclasses.replace(sft, steps_per_round=steps)
    return out


def others(planned: Plan, out: Path) -> list[str]:
    """Names of runs in the folder that are not of this plan."""
    there = sorted(p.parent.name for p in out.glob(f"*/{RECORD}"))
    return [name for name in there if name not in planned]


def execute(planned: Plan, out: Path, say: Callable[[str], None]) -> list[str]:
    """Run all of a plan that is not finished yet; names of runs that stopped by themselves.

    A run that was interrupted goes on from its checkpoint. InvalidInput: before any run starts.
    """
    refuse(dict.fromkeys(p for n, s in planned.items() for p in run_folder.problems(out / n, s)))
    stopped = []
    for number, (name, settings) in enumerate(planned.items(), 1):
        head = f"[{number}/{len(planned)}] {name}"
        if run_folder.finished(out / name, settings):
            say(f"{head}: finished before, skipped")
            continue
        say(head)
        try:
            run_folder.run(settings, out / name, say)
        except Diverged as error:
            say(f"stopped: {error}")
            stopped.append(name)
    return stopped
