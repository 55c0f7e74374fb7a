"""What all measurements share: sizes, device, the model of SmolLM2-135M's shape, a given one."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from llm_scale import models
from llm_scale.data import verses
from llm_scale.data.items import experts_only
from llm_scale.models.player import Machine
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from llm_scale.store.state import SFT_ROUND, State
from llm_scale.train import Parts, accumulate, assemble, new_optimiser, optimise
from theory.tokens.text import load_pairs
from tools.get_model import MODELS, SMOLLM2
from tools.gpu.record import Record

TOKENIZER_TEXTS = 4000
PLACE = MODELS / SMOLLM2.directory
"""Of the trained model, where `make model` puts it."""
NO_MODEL = "no trained model: neither models/smollm2-135m-instruct nor --model DIR"
ENDLESS = (-1,)
"""Ends that no token is: all responses have the whole horizon, and token counts are equal."""


@dataclass(frozen=True)
class Size:
    """How large everything is; the defaults are for one card of 141 GB.

    Attributes:
        layers, width, heads, key_heads, inner, vocabulary: of the model; SmolLM2-135M's.
        start_steps: of SFT on verses, so that its laws are not uniform.
        prompts, batch, epochs, horizon: of a timed round; tokens_per_batch: padded, a pass.
        generate_batch: responses at a time, of ours and of the peer.
        checked: prompts whose responses are scored in both precisions.
        decoded: responses at a time in decoding; decode_prompt, decode_steps: tokens of each.
        matrix: rows and columns of the timed product. copied: bytes of the timed copy.
        small: model and round of the interrupted run.
        rounds, arm_prompts, arm_steps, held_out, sft_steps, seeds: of the arms.
    """

    layers: int = 30
    width: int = 576
    heads: int = 9
    key_heads: int = 3
    inner: int = 1536
    vocabulary: int = 49152
    start_steps: int = 40
    prompts: int = 1024
    batch: int = 64
    epochs: int = 2
    horizon: int = 96
    tokens_per_batch: int = 32768
    generate_batch: int = 1024
    checked: int = 128
    decoded: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    decode_prompt: int = 96
    decode_steps: int = 64
    matrix: int = 8192
    copied: int = 2**31
    small_width: int = 256
    small_layers: int = 4
    small_steps: int = 16
    rounds: int = 2
    arm_prompts: int = 1024
    arm_steps: int = 32
    held_out: int = 256
    sft_steps: int = 128
    seeds: tuple[int, ...] = (0, 1, 2)


FULL = Size()
TOY = Size(
    layers=2, width=32, heads=4, key_heads=2, inner=64, vocabulary=512, start_steps=2, prompts=8,
    batch=4, horizon=8, tokens_per_batch=2048, generate_batch=8, checked=4, decoded=(2, 4),
    decode_prompt=8, decode_steps=4, matrix=64, copied=2**20, small_width=32, small_layers=1,
    small_steps=4, rounds=1, arm_prompts=8, arm_steps=2, held_out=4, sft_steps=2, seeds=(0,),
)  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """One machine's measurements.

    Attributes:
        work: folder for runs and models, thrown away afterwards.
        model: directory of a trained causal LM; None where there is none.
        on: device, as of `Settings.device`.
        toy: a rehearsal, in which the model of the size's shape stands for the trained one too.
    """

    size: Size
    record: Record
    work: Path
    model: Path | None
    on: str = "cuda"
    toy: bool = False

    @property
    def given(self) -> Path | None:
        """Directory of the trained model."""
        return self.model or (self.shape if self.toy else None)

    @property
    def settings(self) -> Settings:
        """Of the timed rounds: SPIN on verses."""
        s = self.size
        return Settings(
            task=verses.NAME, prompts=s.prompts, held_out=0, max_new_tokens=s.horizon,
            max_prompt_tokens=512, rounds=1, steps_per_round=s.epochs * s.prompts // s.batch,
            batch=s.batch, lr=1e-5, beta=0.1, cosines=0, tokens_per_batch=s.tokens_per_batch,
            generate_batch=s.generate_batch, device=self.on,
        )  # fmt: skip

    @cached_property
    def machine(self) -> Machine:
        """The card in bfloat16, or the CPU in float32."""
        return Machine.of(self.settings)

    @property
    def device(self) -> torch.device:
        return self.machine.device

    @cached_property
    def shape(self) -> Path:
        """Directory of the model of the size's shape, a few SFT steps from random weights.

        A file, so that everyone who measures begins with the same weights.
        """
        language = random_model(self.size, self.device)
        start = dataclasses.replace(self.settings, lr=1e-3, prompts=4 * self.size.batch)
        parts, data = trained_on(start, language, self.work / "start")
        take_steps(parts, data, self.size.start_steps)
        models.save(language, self.work / "shape")
        return self.work / "shape"

    def load(self, path: Path) -> models.Language:
        """A model from its directory, float32."""
        return models.load(path, torch.float32, self.device)


def random_model(size: Size, device: torch.device) -> models.Language:
    """A Llama of the size's shape with random weights (seed 0), float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    texts = [pair.response for pair in load_pairs()[:TOKENIZER_TEXTS]]
    tokenizer = models.byte_tokenizer(texts)
    config = LlamaConfig(
        vocab_size=size.vocabulary,
        hidden_size=size.width,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.key_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return models.Language(model.to(device).eval(), tokenizer)


def trained_on(settings: Settings, language: models.Language, out: Path) -> tuple[Parts, Round]:
    """A run's parts, and verses of its SFT start."""
    task = verses.verses(settings, language.tokenizer, language.ends)
    parts = assemble(task.settings, out, language, task)
    return parts, Round.plain(experts_only(task.items(SFT_ROUND)))


def take_steps(parts: Parts, data: Round, steps: int) -> None:
    """Steps of maximum likelihood, each on the next batch of the items."""
    state, batch, count = State(new_optimiser(parts)), parts.settings.batch, len(data.items)
    for step in range(steps):
        chosen = [(step * batch + i) % count for i in range(batch)]
        optimise(parts, state, accumulate(parts, data, chosen, None), steps)
