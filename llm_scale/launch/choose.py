"""Choice by validation: runs of every combination of some settings, and the best round of one.

What is chosen by is ``validation_nll`` alone. The held-out numbers of the chosen round are told
once, with how much was tried: whoever compares arms gives each as many trials.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from llm_scale import processes
from llm_scale.launch.sweep import Plan, execute, numbers, others
from llm_scale.settings import Settings, resolve
from llm_scale.store.read import Run, read
from theory.errors import InvalidInput, refuse
from theory.files import write_whole

FILE = "selection.json"
TUNED = (
    "lr", "steps_per_round", "batch", "sft_steps", "weight_decay", "label_smoothing", "dropout",
    "clip", "beta", "effective_step", "tau", "lora",
)  # fmt: skip
"""Settings that may be chosen."""
TOLD = ("nll", "kl", "reverse_kl", "win_rate", "match_greedy")
"""Held-out numbers of the chosen round that are told, each with its error, where they are there."""


def parsed(text: str) -> dict[str, list[float]]:
    """Values by setting of a text as ``lr=1e-4,1e-3;dropout=0,0.1``. InvalidInput: all problems."""
    out: dict[str, list[float]] = {}
    problems: list[str] = []
    kinds = {f.name: type(f.default) for f in dataclasses.fields(Settings)}
    for part in filter(None, (p.strip() for p in text.split(";"))):
        name, sign, values = (p.strip() for p in part.partition("="))
        if not sign or name not in TUNED or name in out:
            problems.append(
                f"--select {part!r}; needed is NAME=VALUES, each once, of {', '.join(TUNED)}"
            )
            continue
        try:
            out[name] = numbers(values, f"select {name}", kinds[name])
        except InvalidInput as error:
            problems += error.problems
    if not out and not problems:
        problems.append("--select: nothing to choose; needed is NAME=VALUES")
    refuse(problems)
    return out


def plan(preset: str, given: Mapping[str, Any], tried: Mapping[str, Sequence[float]]) -> Plan:
    """A run of every combination, which keeps its best round. InvalidInput: all problems."""
    out: Plan = {}
    problems: list[str] = []
    for values in itertools.product(*tried.values()):
        one = dict(zip(tried, values, strict=True))
        name = "-".join(f"{n.replace('_', '-')}-{value:g}" for n, value in one.items())
        if name in out:
            problems.append(f"--select: two values that are {name} to six digits")
        try:
            out[name] = resolve(preset, {**given, **one, "keep_best": True})
        except InvalidInput as error:
            problems += error.problems
    refuse(dict.fromkeys(problems))
    return out


def run(planned: Plan, out: Path, say: Callable[[str], None]) -> str:
    """Run what is not finished, choose, write `FILE`; the choice in a sentence.

    A candidate that stopped by itself counts as tried, with the rounds that it finished.

    Raises:
        InvalidInput: before any run, also if the folder holds runs of another choice; or no round
            of any candidate could be measured.
    """
    if processes.announced() > 1:
        raise InvalidInput("--select runs one candidate after the other, in one process")
    refuse(_others(planned, out))
    stopped = execute(planned, out, say)
    found = chosen([read(out / name) for name in planned], stopped)
    write_whole(out / FILE, json.dumps(found, indent=1) + "\n")
    best, told = found["chosen"], found["held_out"]
    shown = [f"{n} {told[n]:.3f} ({told[n + '_se']:.3f})" for n in TOLD if n in told]
    return (
        f"chosen of {found['trials']} runs and {found['rounds_seen']} rounds by validation NLL "
        f"{best['validation_nll']:.3f} ({best['validation_nll_se']:.3f}): {best['model']}, round "
        f"{best['round']}; held out: {', '.join(shown) or 'not measured'}; written to {out / FILE}"
    )


def chosen(runs: Sequence[Run], stopped: Sequence[str] = ()) -> dict[str, Any]:
    """What is tried, each candidate's best round, and the best of all (the first of equal ones).

    InvalidInput: no validation number at all.
    """
    tried = [_candidate(run, run.path.name in stopped) for run in runs]
    seen = [t for t in tried if t["validation_nll"] is not None]
    if not seen:
        raise InvalidInput("--select: no round of any candidate has a finite validation NLL")
    best = min(seen, key=lambda t: t["validation_nll"])
    run = runs[tried.index(best)]
    row = next(r for r in run.rounds if r["round"] == best["round"])
    names = [n for name in TOLD for n in (name, f"{name}_se")]
    return {
        "chosen": {k: v for k, v in best.items() if k != "rounds"}
        | {"model": f"{best['run']}/best", "settings": run.settings},
        "trials": len(tried),
        "rounds_seen": sum(len(t["rounds"]) for t in tried),
        "validation_prompts": run.settings["validation"],
        "held_out": {n: row[n] for n in names if n in row},
        "tried": tried,
    }


def _candidate(run: Run, stopped: bool) -> dict[str, Any]:
    """A run's validation numbers by round, and the round that has the least."""
    keys = ("round", "validation_nll", "validation_nll_se")
    rounds = [{k: row[k] for k in keys} for row in run.rounds if "validation_nll" in row]
    nothing = {"round": None, "validation_nll": None, "validation_nll_se": None}
    best = min(rounds, key=lambda r: r["validation_nll"], default=nothing)
    assert all(math.isfinite(r["validation_nll"]) for r in rounds)  # others are not written
    return {"run": run.path.name, **best, "stopped": stopped, "rounds": rounds}


def _others(planned: Plan, out: Path) -> list[str]:
    """Runs in the folder that this choice would hide."""
    more = others(planned, out)
    return [
        f"{out}: holds candidates of another choice ({', '.join(more)}), which would not be "
        "counted; name them in --select as well, or choose another --out"
    ] * bool(more)
