"""One self-play round of a small language model, by our trainer or by TRL, in a process of its own.

`python -m benchmarks.llm_round WHO FOLDER [memory]` with WHO one of `WHO`: "prepare" makes the
model, the data and the pairs that all train on; the others write what they measured to
FOLDER/WHO.json. With "memory" peaks are measured instead of times.

Everybody has the same model, prompts, pairs, epochs, prompts a step, optimiser and cores, works in
the same precision, and draws from the same law: temperature 1, the whole vocabulary.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from benchmarks.probe import Probe
from llm_scale import models
from llm_scale.data.items import Item, Response, Tokens, pack, unpack
from llm_scale.data.prompts import encode_response, format_prompt
from llm_scale.data.user_file import PairFile
from llm_scale.models.player import Machine
from llm_scale.rounds import begin as rounds
from llm_scale.rounds.batches import order
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from llm_scale.store.state import SFT_ROUND, State
from llm_scale.train import Parts, accumulate, assemble, new_optimiser, optimise
from theory import objectives
from theory.tokens.text import load_pairs

SPIN = objectives.get("spin")
EPOCHS = 2
CORES = 2
PEERS: dict[str, dict[str, Any]] = {
    # DPOConfig beside what is the same for all
    "trl": {},
    "trl, references ahead": {"precompute_ref_log_probs": True},
    "trl, checkpointed activations": {"gradient_checkpointing": True},
    "trl, four parts a step": {"precompute_ref_log_probs": True, "gradient_accumulation_steps": 4},
}
WHO = ("prepare", "ours", *PEERS)


@dataclasses.dataclass(frozen=True)
class Size:
    """A Llama of this width and depth, and the round's length."""

    width: int = 192
    layers: int = 4
    prompts: int = 64
    batch: int = 16
    horizon: int = 96
    sft_steps: int = 60
    generate_batch: int = 64
    tokens_per_batch: int = 2048


SMALL = Size()
LARGE = Size(
    width=512,
    layers=12,
    prompts=1024,
    batch=32,
    sft_steps=150,
    generate_batch=256,
    tokens_per_batch=16384,
)


def settings_of(size: Size) -> Settings:
    """The trainer's settings for both."""
    steps = EPOCHS * size.prompts // size.batch
    return Settings(
        prompts=size.prompts, held_out=0, max_new_tokens=size.horizon, steps_per_round=steps,
        batch=size.batch, lr=1e-4, generate_batch=size.generate_batch,
        tokens_per_batch=size.tokens_per_batch, max_prompt_tokens=512,
    )  # fmt: skip


def _steps(settings: Settings, probe: Probe) -> int:
    """Steps to take; for the memory one epoch has met all pairs."""
    return settings.steps_per_round // (EPOCHS if probe.memory else 1)


# -- what all share ------------------------------------------------------------------------------


def prepare(folder: Path, size: Size) -> dict[str, Any]:
    """Train a model a little on text, so that its responses end, and draw the round's pairs."""
    settings = settings_of(size)
    machine = Machine.of(settings)
    texts = load_pairs()
    tokenizer = models.byte_tokenizer([pair.response for pair in texts[:4000]])
    language = models.tiny(tokenizer, 0, machine.device, size.width, size.layers)
    language.model.config.max_position_embeddings = 1024
    items = [
        Item(
            i,
            tuple(format_prompt(tokenizer, pair.prompt)),
            (Response(*_frozen(encode_response(tokenizer, pair.response, size.horizon))),),
        )
        for i, pair in enumerate(texts[:: len(texts) // 4096][:4096])
    ]
    parts = _parts(language, dataclasses.replace(settings, lr=3e-3), folder)
    _steps_on(parts, Round.plain(items), SFT_ROUND, size.sft_steps)
    models.save(language, folder / "model")
    made = rounds.begin(parts.player, items[: size.prompts], 0, SPIN, {}, {})
    save_file(pack("items", made.data.items), folder / "items.safetensors")
    weights = sum(p.numel() for p in language.model.parameters())
    return {"weights": weights, **_counts(made.data.items)}


def _frozen(encoded: tuple[list[int], bool]) -> tuple[Tokens, bool]:
    return tuple(encoded[0]), encoded[1]


def _counts(items: Sequence[Item]) -> dict[str, Any]:
    return {
        "prompts": len(items),
        "prompted": sum(len(i.prompt) for i in items),
        "generated": sum(len(r.tokens) for i in items for r in i.own),
        "trained": sum(len(i.prompt) + len(r.tokens) for i in items for r in i.responses),
    }


# -- ours ----------------------------------------------------------------------------------------


def ours(folder: Path, size: Size, probe: Probe) -> dict[str, Any]:
    """Our round: own responses, their log-probabilities, and the steps."""
    settings = settings_of(size)
    language = models.load(folder / "model", torch.float32, Machine.of(settings).device)
    items = unpack("items", load_file(folder / "items.safetensors"))
    bare = [dataclasses.replace(item, own=()) for item in items]
    parts = _parts(language, settings, folder)
    player = parts.player

    def begin(some: list[Item]) -> rounds.Started:
        return rounds.begin(player, some, 0, SPIN, {}, {})

    pairs = [(i.prompt, r.tokens) for i in items for r in i.responses]
    current, generated = player.score(pairs), 0  # warm
    if not probe.memory:
        begin(bare[:8])  # warm
        with probe("generate"):
            generated = _counts(begin(bare).data.items)["generated"]
        with probe("score"):
            player.score(pairs)
        probe.seen["generate"] -= probe.seen["score"]
    data = Round(items, current, current, torch.empty(0))
    still = dataclasses.replace(parts, settings=dataclasses.replace(settings, lr=1e-12))
    state = State(new_optimiser(parts))
    first = accumulate(still, data, range(size.batch), SPIN)
    optimise(still, state, first, 1)  # gradients and moments exist
    with probe("train"):
        _steps_on(parts, data, 0, _steps(settings, probe), state)
    return {
        "parts": probe.seen,
        "first_loss": first,
        "matrix_flops": _matrix_flops(size, player.machine),
        "generated": generated,
    }


def _matrix_flops(size: Size, machine: Machine) -> float:
    """Operations a second of the model's commonest product: a batch of tokens by an MLP weight."""
    device = machine.device
    left = torch.randn(size.tokens_per_batch, size.width, device=device, dtype=machine.dtype)
    right = torch.randn(size.width, 2 * size.width, device=device, dtype=machine.dtype)
    best = float("inf")
    for _ in range(20):
        probe = Probe(memory=False)
        with probe("product"):
            for _ in range(10):
                torch.mm(left, right)
        best = min(best, probe.seen["product"])
    return 10 * 2.0 * size.tokens_per_batch * size.width * 2 * size.width / best


def _steps_on(
    parts: Parts, data: Round, round_: int, steps: int, state: State | None = None
) -> None:
    """Optimiser steps of the loop on a round's data, nothing else."""
    state, s = state or State(new_optimiser(parts)), parts.settings
    state.step = 0
    for step in range(steps):
        chosen = order(s.seed, round_, step, s.batch, len(data.items))
        loss = accumulate(parts, data, chosen, None if round_ == SFT_ROUND else SPIN)
        optimise(parts, state, loss, steps)


def _parts(language: models.Language, settings: Settings, folder: Path) -> Parts:
    task = PairFile(language.tokenizer, (), settings)
    return assemble(settings, folder / "run", language, task)


# -- TRL -----------------------------------------------------------------------------------------


def trl(folder: Path, size: Size, probe: Probe, **options: Any) -> dict[str, Any]:
    """The same round by transformers' generate and TRL's DPOTrainer, on the pairs of `prepare`."""
    settings = settings_of(size)
    machine = Machine.of(settings)
    language = models.load(folder / "model", torch.float32, machine.device)
    items = unpack("items", load_file(folder / "items.safetensors"))
    prompts = sorted((item.prompt for item in items), key=len)

    def draw(some: Sequence[Tokens], horizon: int) -> int:
        tokens = 0
        language.model.eval()
        for at in range(0, len(some), size.generate_batch):
            tokens += _generate(language, machine, some[at : at + size.generate_batch], horizon)
        language.model.train()
        return tokens

    generated = 0
    if not probe.memory:
        draw(prompts[:8], 8)  # warm
        with probe("generate"):
            generated = draw(prompts, size.horizon)

    rows = [
        {
            "prompt_ids": list(i.prompt),
            "chosen_ids": list(i.expert[0].tokens),
            "rejected_ids": list(i.own[0].tokens),
        }
        for i in items
    ]
    trainer = _dpo_trainer(language, rows, folder, settings, machine, probe, options)
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    return {"parts": probe.seen, "first_loss": losses[0], "generated": generated}


def _generate(
    language: models.Language, machine: Machine, prompts: Sequence[Tokens], horizon: int
) -> int:
    """Sample by transformers; the number of tokens up to and with EOS."""
    longest = max(map(len, prompts))
    ids = torch.full((len(prompts), longest), language.eos)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    with torch.no_grad(), machine.precision():
        out = language.model.generate(
            input_ids=ids.to(machine.device),
            attention_mask=mask.to(machine.device),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=horizon,
            eos_token_id=language.eos,
            pad_token_id=language.eos,
        )
    ended = (out[:, longest:] == language.eos).long().cumsum(1)
    return int((ended - (out[:, longest:] == language.eos).long() == 0).sum())


def _dpo_trainer(
    language: models.Language,
    rows: list[dict[str, list[int]]],
    folder: Path,
    settings: Settings,
    machine: Machine,
    probe: Probe,
    options: dict[str, Any],
) -> Any:
    """A DPOTrainer on tokens that are there already, whose first step is not measured."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Measured(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *_: Any, **__: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *arguments: Any) -> Any:
            with probe("references"):
                return super()._precompute_ref_logps(*arguments)

    class Clock(TrainerCallback):
        """Starts when the first step has made gradients and moments; stops at the end."""

        def on_optimizer_step(self, *_: Any, **__: Any) -> None:
            if "train" not in probe.running and "train" not in probe.seen:
                probe.start("train")

        def on_train_end(self, *_: Any, **__: Any) -> None:
            probe.stop("train")

    parts = options.pop("gradient_accumulation_steps", 1)
    steps = _steps(settings, probe)
    args = DPOConfig(
        output_dir=str(folder / "trl"),
        **{"gradient_checkpointing": False, **options},
        per_device_train_batch_size=settings.batch // parts,
        gradient_accumulation_steps=parts,
        max_steps=steps + 1,
        learning_rate=settings.lr,
        lr_scheduler_type="constant",
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        beta=settings.beta,
        max_length=None,
        bf16=machine.dtype == torch.bfloat16,
        use_cpu=machine.device.type == "cpu",
        dataloader_pin_memory=machine.device.type != "cpu",
        logging_steps=1 if probe.memory else steps + 1,
        logging_first_step=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=True,
    )
    ref = None
    if not options.get("precompute_ref_log_probs"):
        ref = models.load(folder / "model", torch.float32, machine.device).model
        probe.beside = 4 * sum(p.numel() for p in ref.parameters())
    return Measured(
        model=language.model,
        ref_model=ref,
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=language.tokenizer,
        callbacks=[Clock()],
    )


def main(who: str, folder: Path, *, memory: bool, full: bool) -> None:
    """Do one part and write what was measured."""
    torch.set_num_threads(1 if memory else min(CORES, len(os.sched_getaffinity(0))))
    size = LARGE if full else SMALL
    works: dict[str, Callable[[], dict[str, Any]]] = {
        "prepare": lambda: prepare(folder, size),
        "ours": lambda: ours(folder, size, Probe(memory)),
    }
    if who in PEERS:
        warnings.simplefilter("ignore")
        works[who] = lambda: trl(folder, size, Probe(memory), **PEERS[who])
    found = works[who]()
    name = f"{who}{' memory' if memory else ''}.json"
    (folder / name).write_text(json.dumps(found))


if __name__ == "__main__":
    main(
        sys.argv[1],
        Path(sys.argv[2]),
        memory="memory" in sys.argv[3:],
        full="full" in sys.argv[3:],
    )
