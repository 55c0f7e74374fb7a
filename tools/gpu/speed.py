"""A round of the trainer beside the plain peer's, on one model, in tokens a second."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from typing import Any

from llm_scale import models
from llm_scale.data import verses
from tools.gpu.bench import ENDLESS, NO_MODEL, Bench
from tools.gpu.clock import release
from tools.gpu.ours import Timed, round_of_ours
from tools.gpu.peer import round_of_peer
from tools.gpu.precision import parameters
from tools.gpu.where import PEAK_FLOPS, matrix_flops

PART = "speed"
AIM_ROUND, AIM_MFU = 3.0, 0.4
TRL = "trl is {}; its DPOTrainer is timed by python -m benchmarks, where it is installed"


def of_shape(bench: Bench, _deadline: float) -> None:
    """Of the model of SmolLM2-135M's shape; no response ends before the horizon."""
    compare(bench, bench.shape, "random shape", endless=True)
    there = importlib.util.find_spec("trl") is not None
    bench.record.write(PART, "TRL", skipped=TRL.format("there" if there else "not installed"))


def of_given(bench: Bench, _deadline: float) -> None:
    """Of the trained model; responses end where it ends them."""
    if bench.given is None:
        bench.record.write(PART, "given model", skipped=NO_MODEL)
        return
    compare(bench, bench.given, "given model", endless=False)


def compare(bench: Bench, model: Path, name: str, *, endless: bool) -> None:
    """Rows for generation, scoring, training, the whole round, memory, and use of the card.

    Where responses end by themselves the peer draws another number of tokens: its seconds are
    scaled to ours then.
    """
    language = bench.load(model)
    task = verses.verses(bench.settings, language.tokenizer, language.ends)
    ends = ENDLESS if endless else language.ends
    language = dataclasses.replace(language, ends=ends)
    ours, items = round_of_ours(language, task, bench.work / f"speed {name}")
    _alone(bench, f"ours, {name}", ours)
    _used(bench, name, language, ours)
    del language
    release(bench.device)
    other = dataclasses.replace(bench.load(model), ends=ends)
    peer = round_of_peer(other, items, task.settings, bench.machine)
    _alone(bench, f"peer, {name}", peer)
    del other
    release(bench.device)
    _compared(bench, name, ours, peer)


def _alone(bench: Bench, what: str, timed: Timed) -> None:
    """A side by itself, at once: what comes later may not."""
    seconds = {f"{part}_s": s for part, s in timed.seconds.items()}
    bench.record.write(
        PART, what, **seconds, generated_tokens=timed.generated, trained_tokens=timed.trained,
        sent_tokens=timed.sent, steps=timed.steps, peak_gib=timed.peak_gib,
    )  # fmt: skip


def _used(bench: Bench, name: str, language: models.Language, ours: Timed) -> None:
    """How much of the card's rate training uses: 6 N operations a token that is sent.

    ``of_peak_strict`` counts the output layer for response tokens alone, as no others reach it.
    """
    weights, head = parameters(language), language.model.get_output_embeddings().weight.numel()
    per_s = 6.0 / ours.seconds["training"]
    done = per_s * weights * ours.sent
    strict = per_s * ((weights - head) * ours.sent + head * ours.answered)
    product = matrix_flops(bench.device, bench.machine.dtype, bench.size.matrix)
    bench.record.write(
        PART, f"use of the card in training, {name}", value=done / PEAK_FLOPS, aim=AIM_MFU,
        of_peak_strict=strict / PEAK_FLOPS, of_matrix_product=done / product, weights=weights,
        tokens=ours.sent, seconds=ours.seconds["training"], operations_per_s=done,
    )  # fmt: skip


def _compared(bench: Bench, name: str, ours: Timed, peer: Timed) -> None:
    scale = ours.generated / peer.generated
    drawn = scale * peer.seconds["generation"]
    train = [t.seconds["training"] + t.seconds["scoring"] for t in (ours, peer)]
    whole = [ours.seconds["round"], drawn + peer.seconds["training"]]
    record, scaled = bench.record, {} if scale == 1.0 else {"peer_scaled_by": scale}

    def row(what: str, seconds: list[float], tokens: tuple[int, int], **more: Any) -> None:
        record.write(
            PART, f"{what}, {name}", value=seconds[1] / seconds[0], ours_s=seconds[0],
            peer_s=seconds[1], ours_tokens=tokens[0], peer_tokens=tokens[1],
            ours_tokens_per_s=tokens[0] / seconds[0], peer_tokens_per_s=tokens[0] / seconds[1],
            **more,
        )  # fmt: skip

    row("generation", [ours.seconds["generation"], drawn], (ours.generated, peer.generated),
        **scaled)  # fmt: skip
    row("scoring and training", train, (ours.trained, peer.trained),
        scoring_s=ours.seconds["scoring"], training_s=ours.seconds["training"], steps=ours.steps,
        first_loss_gap=abs(ours.first_loss - peer.first_loss))  # fmt: skip
    tokens = (ours.generated + ours.trained, peer.generated + peer.trained)
    row("whole round", whole, tokens, aim=AIM_ROUND, **scaled)
    record.write(
        PART, f"peak memory, {name}", value=peer.peak_gib / ours.peak_gib,
        ours_gib=ours.peak_gib, peer_gib=peer.peak_gib,
    )  # fmt: skip
