"""Whether a run that was interrupted at a checkpoint ends like one that was not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from llm_scale.launch import prepare
from llm_scale.settings import Settings
from llm_scale.store.journal import METRICS
from llm_scale.train import assemble, train
from tools.gpu.bench import Bench

PART = "resume"


class Interrupted(Exception):
    """In the place of whatever ends a process."""


def resume(bench: Bench, _deadline: float) -> None:
    """Two rounds of SPIN on verses with a small model, once in one go and once interrupted.

    The interruption comes when the first round's steps are done and its row is written, before its
    checkpoint: the run goes on from the checkpoint in the middle of the round. Gaps are of final
    weights and of all losses; on the CPU they are 0, on CUDA sums have no fixed order.
    """
    s = bench.size
    settings = dataclasses.replace(
        bench.settings, model="tiny", width=s.small_width, layers=s.small_layers, lr=1e-3,
        prompts=8 * s.batch, held_out=s.batch, max_new_tokens=s.horizon // 2, rounds=2,
        steps_per_round=s.small_steps, sft_steps=s.small_steps, cosines=2,
        checkpoint_every=s.small_steps // 2,
    )  # fmt: skip
    whole, broken = bench.work / "whole", bench.work / "broken"
    again = bench.work / "again"
    for out in (whole, again):  # twice in one go: what rounding alone does
        run(settings, out)
    said: list[str] = []
    try:
        run(settings, broken, stop=True)
    except Interrupted:
        run(settings, broken, said=said)
    resumed = next(text for text in said if text.startswith("resumed"))
    bench.record.write(PART, "twice in one go", **apart(whole, again))
    bench.record.write(
        PART, "interrupted", **apart(whole, broken), steps=3 * s.small_steps, resumed=resumed
    )


def run(settings: Settings, out: Path, stop: bool = False, said: list[str] | None = None) -> None:
    """Train in a folder; with ``stop`` `Interrupted` after the first round."""

    def on_round(_row: dict[str, Any]) -> None:
        if stop:
            raise Interrupted

    out.mkdir(exist_ok=True)
    made = prepare.prepare(settings)
    parts = assemble(made.settings, out, made.language, made.task)
    train(parts, on_round, (said if said is not None else []).append)


def apart(one: Path, other: Path) -> dict[str, Any]:
    """Largest gap of two runs' final weights and losses, and of the weights relative to theirs."""
    a, b = (load_file(out / "final" / "model.safetensors") for out in (one, other))
    gaps = torch.cat([(a[name].double() - b[name].double()).flatten() for name in a])
    size = torch.cat([tensor.double().flatten() for tensor in a.values()])
    first, second = losses(one), losses(other)
    return {
        "largest_weight_gap": gaps.abs().max(),
        "relative_weight_gap": gaps.norm() / size.norm(),
        "largest_loss_gap": max(abs(x - y) for x, y in zip(first, second, strict=True)),
        "losses": len(first),
    }


def losses(out: Path) -> list[float]:
    """Of all steps of a run."""
    rows = map(json.loads, (out / METRICS).read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "step" in row]
