"""Arms of self-play on the trained model and real verses, each a run in a folder."""

from __future__ import annotations

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
"""In the order in which they are run; every seed has all of them before the next one begins."""
WHY_NOT = (
    f"{NO_MODEL}; the arms are of a pretrained model on real text, for which one with random "
    "weights does not stand"
)


class _Rows:
    """Copies a run's new rows into the record whenever the run says something."""

    def __init__(self, bench: Bench, run: Path, named: dict[str, Any]) -> None:
        self.bench, self.run, self.named, self.copied = bench, run, named, 0

    def said(self, text: str) -> None:
        self.bench.record.say(f"{self.named['arm']}, seed {self.named['seed']}: {text}")
        self.copy()

    def copy(self) -> None:
        """Numbers of every round that is measured."""
        path = self.run / METRICS
        if not path.exists():
            return
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        for row in [row for row in rows if "round" in row][self.copied :]:
            kept = {k: v for k, v in row.items() if isinstance(v, (int, float, bool))}
            what = f"{self.named['arm']}, seed {self.named['seed']}, round {row['round']}"
            self.bench.record.write(PART, what, **self.named, **kept)
            self.copied += 1


def arms(bench: Bench, deadline: float) -> None:
    """All arms of the first seed, then of the others, as far as the time goes."""
    model = bench.given
    if model is None:
        bench.record.write(PART, PART, skipped=WHY_NOT)
        return
    longest = 0.0
    for seed in bench.size.seeds:
        start = bench.work / f"start {seed}"
        took = _run(bench, start_settings(bench, model, seed), start, "start", seed)
        final = start / "final"
        for arm in ARMS:
            left = deadline - time.monotonic()
            if left < longest:
                why = f"{left:.0f} s are left, the longest arm took {longest:.0f} s"
                bench.record.write(PART, f"{arm}, seed {seed}", skipped=why)
                continue
            if not (final / "config.json").is_file():
                bench.record.write(PART, f"{arm}, seed {seed}", skipped="its start diverged")
                continue
            out = bench.work / f"arm {seed} {len(bench.record.rows)}"
            took = _run(bench, arm_settings(bench, final, arm, seed), out, arm, seed)
            longest = max(longest, took)
            bench.record.summarise()
            shutil.rmtree(out)
        shutil.rmtree(start)


def _run(bench: Bench, settings: Settings, out: Path, arm: str, seed: int) -> float:
    """Seconds of a run, whose rows are in the record; one that diverged says so in a row."""
    began = time.monotonic()
    rows = _Rows(bench, out, {"arm": arm, "seed": seed, "beta": settings.beta})
    try:
        run_folder.run(settings, out, rows.said)
    except Diverged as error:
        bench.record.write(PART, f"{arm}, seed {seed}", error=f"Diverged: {error}")
    rows.copy()
    took = time.monotonic() - began
    bench.record.say(f"{arm}, seed {seed}: {took:.1f} s")
    return took


def _common(bench: Bench, seed: int) -> dict[str, Any]:
    s = bench.size
    return {
        "seed": seed, "prompts": s.arm_prompts, "held_out": s.held_out, "batch": s.batch,
        "max_new_tokens": s.horizon, "max_prompt_tokens": 512, "own_samples": 1,
        "tokens_per_batch": s.tokens_per_batch, "generate_batch": s.generate_batch,
        "checkpoint_every": 10**6, "cosines": 0, "device": bench.on,
    }  # fmt: skip


def start_settings(bench: Bench, model: Path, seed: int) -> Settings:
    """Of the SFT start that a seed's arms share: some of the verses, no round."""
    given = {"model": str(model), "objective": "sft", "rounds": 0}
    return resolve(PRESET, _common(bench, seed) | given | {"sft_steps": bench.size.sft_steps})


def arm_settings(bench: Bench, start: Path, arm: str, seed: int) -> Settings:
    """Of an arm's rounds from a start."""
    s = bench.size
    given = {"model": str(start), "rounds": s.rounds, "steps_per_round": s.arm_steps}
    return resolve(PRESET, _common(bench, seed) | given | {"sft_steps": 0} | ARMS[arm])
