"""Arms of self-play on the trained model, on two tasks, each a run in a folder."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path
from typing import Any

from llm_scale.launch import run_folder
from llm_scale.settings import Settings, resolve
from llm_scale.store.journal import METRICS
from llm_scale.train import Diverged
from tools.gpu.bench import NO_MODEL, Bench

PART = "arms"
PRESET = "smollm2-h100"
MATCHED = {"effective_step": 1.0}
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"objective": "sft"},
    "spif": {"objective": "spif(c=1)", **MATCHED},
    "spin": {"objective": "spin", **MATCHED},
    "author's code": {"objective": "spif(c=2.02)", "beta": 0.1},
    "spif, per token": {"objective": "spif(c=1)", "level": "token", **MATCHED},
}
"""In the order in which they are run; a seed has all of them on all tasks before the next."""
CHECKED = "lists"
TASKS: dict[str, dict[str, Any]] = {
    "verses": {},
    CHECKED: {
        "task": "data/word_reversal.jsonl.gz", "match": "exact", "prompt_style": "plain",
        "lr": 1e-4,
    },
}  # fmt: skip
"""What a task sets beside the preset; greedy answers to lists are right or wrong."""
WHY_NOT = (
    f"{NO_MODEL}; the arms are of a pretrained model on real text, for which one with random "
    "weights does not stand"
)


class _Rows:
    """Copies a run's new rows into the record whenever the run says something."""

    def __init__(self, bench: Bench, run: Path, named: dict[str, Any]) -> None:
        self.bench, self.run, self.named, self.copied = bench, run, named, 0

    @property
    def what(self) -> str:
        return f"{self.named['task']}: {self.named['arm']}, seed {self.named['seed']}"

    def said(self, text: str) -> None:
        self.bench.record.say(f"{self.what}: {text}")
        self.copy()

    def copy(self) -> None:
        """Numbers of every round that is measured."""
        path = self.run / METRICS
        if not path.exists():
            return
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in [row for row in rows if "round" in row][self.copied :]:
            kept = {k: v for k, v in row.items() if isinstance(v, (int, float, bool))}
            self.bench.record.write(
                PART, f"{self.what}, round {row['round']}", **self.named, **kept
            )
            self.copied += 1


def arms(bench: Bench, deadline: float) -> None:
    """All arms of the first seed, then of the others, as far as the time goes."""
    model = bench.given
    if model is None:
        bench.record.write(PART, PART, skipped=WHY_NOT)
        return
    longest = 0.0
    for seed, task in itertools.product(bench.size.seeds, TASKS):
        start, named = bench.work / f"start {seed} {task}", {"seed": seed, "task": task}
        _run(bench, start_settings(bench, model, task, seed), start, named | {"arm": "start"})
        final = start / "final"
        for arm in ARMS:
            left, what = deadline - time.monotonic(), f"{task}: {arm}, seed {seed}"
            if left < longest:
                why = f"{left:.0f} s are left, the longest arm took {longest:.0f} s"
                bench.record.write(PART, what, skipped=why)
                continue
            if not (final / "config.json").is_file():
                bench.record.write(PART, what, skipped="its start diverged")
                continue
            out = bench.work / f"arm {seed} {len(bench.record.rows)}"
            settings = arm_settings(bench, final, arm, task, seed)
            longest = max(longest, _run(bench, settings, out, named | {"arm": arm}))
            bench.record.summarise()
            shutil.rmtree(out)
        shutil.rmtree(start)


def _run(bench: Bench, settings: Settings, out: Path, named: dict[str, Any]) -> float:
    """Seconds of a run, whose rows are in the record; one that diverged says so in a row."""
    began, rows = time.monotonic(), _Rows(bench, out, named | {"beta": settings.beta})
    try:
        run_folder.run(settings, out, rows.said)
    except Diverged as error:
        bench.record.write(PART, rows.what, error=f"Diverged: {error}")
    rows.copy()
    took = time.monotonic() - began
    bench.record.say(f"{rows.what}: {took:.1f} s")
    return took


def _common(bench: Bench, seed: int) -> dict[str, Any]:
    s = bench.size
    return {
        "seed": seed, "prompts": s.arm_prompts, "held_out": s.held_out, "batch": s.batch,
        "max_new_tokens": s.horizon, "max_prompt_tokens": 512, "own_samples": 1,
        "tokens_per_batch": s.tokens_per_batch, "generate_batch": s.generate_batch,
        "checkpoint_every": 10**6, "cosines": 0, "device": bench.on,
    }  # fmt: skip


def start_settings(bench: Bench, model: Path, task: str, seed: int) -> Settings:
    """Of the SFT start that a seed's arms share: some of a task's prompts, no round."""
    given = TASKS[task] | {"model": str(model), "objective": "sft", "rounds": 0}
    return resolve(PRESET, _common(bench, seed) | given | {"sft_steps": bench.size.sft_steps})


def arm_settings(bench: Bench, start: Path, arm: str, task: str, seed: int) -> Settings:
    """Of an arm's rounds from a start."""
    s = bench.size
    given = TASKS[task] | {"model": str(start), "rounds": s.rounds}
    given |= {"steps_per_round": s.arm_steps}
    return resolve(PRESET, _common(bench, seed) | given | {"sft_steps": 0} | ARMS[arm])
