"""Decoding against the bound of the memory's bandwidth, by responses at a time."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import torch

from llm_scale import models
from llm_scale.launch.estimate import cache_width
from llm_scale.models.player import Machine
from llm_scale.models.sample import generate
from tools.gpu.bench import ENDLESS, Bench
from tools.gpu.clock import Stopwatch, peak_gib, release, reset_peak
from tools.gpu.precision import parameters
from tools.gpu.where import copy_bytes

PART = "decoding"
AIM_BANDWIDTH, AIMED_BATCH = 0.5, 4096


def decoding(bench: Bench, deadline: float) -> None:
    """A row for every number of responses, the fewest first, until memory or time is over.

    The bound of a step: weights and cache in the precision of computation are read once, as fast as
    a copy reads and writes.
    """
    s, machine = bench.size, bench.machine
    language = dataclasses.replace(bench.load(bench.shape), ends=ENDLESS)
    bandwidth = copy_bytes(bench.device, s.copied)
    warm(language, machine, s.decode_prompt)
    took = 0.0
    for batch in s.decoded:
        began, what = time.monotonic(), f"{batch} at a time"
        if deadline - began < 2.5 * took:
            bench.record.write(PART, what, skipped="would not end within the part's time")
            break
        try:
            row = steps(language, machine, batch, s.decode_prompt, s.decode_steps, bandwidth)
        except torch.OutOfMemoryError:
            bench.record.write(PART, what, skipped="does not fit into the device's memory")
            break
        aim = {"aim": AIM_BANDWIDTH} if batch == AIMED_BATCH else {}
        bench.record.write(PART, what, **row, **aim)
        took = time.monotonic() - began
        release(bench.device)


def steps(
    language: models.Language,
    machine: Machine,
    batch: int,
    prompt: int,
    count: int,
    bandwidth: float,
) -> dict[str, Any]:
    """Seconds of a decoding step and its share of the bound; ``value`` is that share.

    Args:
        batch: responses. prompt: tokens of each prompt. count: tokens drawn of each response.
        bandwidth: bytes a second.
    """
    watch = Stopwatch(machine.device)
    reset_peak(machine.device)
    for horizon in (2, 1, count):  # the first is a warm-up at this size
        with watch(str(horizon)):
            _draw(language, machine, batch, prompt, horizon)
    seconds = (watch.seen[str(count)] - watch.seen["1"]) / (count - 1)
    wide = torch.empty((), dtype=machine.dtype).element_size()
    length = prompt + count / 2  # of the cache that a step reads, its mean
    read = wide * (parameters(language) + batch * length * cache_width(language.model))
    return {
        "value": read / bandwidth / seconds, "step_ms": 1e3 * seconds,
        "tokens_per_s": batch / seconds, "first_token_s": watch.seen["1"],
        "read_gb": read / 1e9, "bandwidth_gb_per_s": bandwidth / 1e9, "tokens": batch * count,
        "peak_gib": peak_gib(machine.device),
    }  # fmt: skip


def warm(language: models.Language, machine: Machine, prompt: int) -> None:
    """The first call of every kernel."""
    _draw(language, machine, 2, prompt, 2)


def _draw(
    language: models.Language, machine: Machine, batch: int, prompt: int, horizon: int
) -> None:
    """Responses of ``horizon`` tokens to random prompts."""
    rng = np.random.default_rng(0)
    tokens = rng.integers(len(language.tokenizer), size=prompt)
    prompts = [tuple(np.roll(tokens, i).tolist()) for i in range(batch)]
    noise = rng.random((batch, horizon))
    with machine.precision():
        generate(
            [language.model], prompts, lambda i: noise[i], horizon, language.ends, batch,
            past=language.past,
        )  # fmt: skip
