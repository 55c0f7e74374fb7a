"""The real small model through the whole loop, measured: `python -m tools.real_model --out FILE`.

Preset `smollm2-cpu`: SFT, one round of self-play, measurements before, between and after. With
`--on DEVICE` elsewhere than on the CPU. Needs the model (`make model`).
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from lab import streams
from llm_scale.launch import evaluate, prepare
from llm_scale.models.player import Player
from llm_scale.rounds.begin import begin
from llm_scale.settings import Settings, resolve
from llm_scale.store import read
from llm_scale.store.identity import versions
from llm_scale.store.journal import METRICS
from llm_scale.train import accumulate, assemble, train
from theory.files import write_whole
from tools.get_model import MODELS, SMOLLM2

PRESET = "smollm2-cpu"
KEPT = (
    "sampler_gap", "stored_gap", "kl_step", "kl_step_se", "margin", "margin_se", "archaic_before",
    "archaic", "archaic_se", "after_length_own", "after_truncated_own", "max_reward_other",
)  # fmt: skip


def chosen(**given: Any) -> Settings:
    """The preset's settings, with the model where `make model` puts it."""
    return resolve(PRESET, {"model": str(MODELS / SMOLLM2.directory)} | given)


def measure(settings: Settings, out: Path) -> dict[str, Any]:
    """Run the loop in a folder; what was measured, in nats and tokens a second.

    ``nll``: of the held-out modern verses, for each of the three models in turn;
    ``loss_at_start`` of the round, and ``loss_gap``, its distance from SPIN's ln 2;
    ``sampler_gap``: largest difference of the sampler's log pi_t of own responses from the scored.
    """
    made = prepare.prepare(settings)
    player = Player(made.language, settings, made.machine)
    held = made.task.held_out()
    first = [item.expert[0] for item in held]
    pairs = [(item.prompt, r.tokens) for item, r in zip(held, first, strict=True)]
    examples = evaluate.ScoredPairs(pairs, [r.truncated for r in first], [])

    def likelihood(who: Player) -> dict[str, float]:
        return evaluate.evaluated(evaluate.Opened(who, settings, settings.task), examples)

    row: dict[str, Any] = {"held_out": len(pairs), "as_it_comes": likelihood(player)}
    started = time.monotonic()
    drawn, _ = player.sample(
        [item.prompt for item in held],
        lambda i: streams.uniform(settings.max_new_tokens, settings.seed, "speed", i),
        "speed",
    )
    row["sampled_tokens_per_second"] = _rate(sum(len(r.tokens) for r in drawn), started)
    row["archaic_as_it_comes"] = made.task.text_row(drawn)
    parts = assemble(settings, out, made.language, made.task)
    train(parts)
    base = parts.store.weights("base")
    with player.frozen(base) as start:
        row["after_sft"] = likelihood(start)
    row["after_round"] = likelihood(player)
    items = made.task.items(settings.rounds)[: settings.batch]
    data = begin(player, items, settings.rounds, parts.objective, {}, base).data
    started = time.monotonic()
    accumulate(parts, data, range(len(items)), parts.objective)
    through = sum(len(p) + len(r) for p, r in data.pairs)
    row["trained_tokens_per_second"] = _rate(through, started)
    rows = read.rows(out / METRICS)
    start = next(r["loss"] for r in rows if r.get("at") == "round 0")
    row |= {"loss_at_start": start, "loss_gap": abs(start - math.log(2))}
    row |= {k: rows[-1][k] for k in KEPT if k in rows[-1]}
    row["peak_memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


def _rate(tokens: int, started: float) -> float:
    return round(tokens / (time.monotonic() - started), 1)


def main(arguments: list[str] | None = None) -> int:
    """Measure and write the record."""
    parser = argparse.ArgumentParser(description="The real small model through the whole loop.")
    parser.add_argument("--out", type=Path, default=Path("results/real_model.json"))
    parser.add_argument("--on", default="cpu", help="device")
    given = parser.parse_args(arguments)
    settings = chosen(device=given.on)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        row = measure(settings, Path(folder))
    on = torch.cuda.get_device_name() if given.on == "cuda" else platform.machine()
    where = {
        "device": on, "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1), "seconds": round(time.monotonic() - started),
    }  # fmt: skip
    record = {
        "model": SMOLLM2.name, "command": f"python -m tools.real_model --on {given.on}",
        "preset": PRESET, "where": where, "versions": versions(), "measured": row,
    }  # fmt: skip
    write_whole(given.out, json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
