"""Causal language models through transformers: from a directory, or a tiny one made on the spot."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from theory.errors import InvalidInput, refuse


@dataclass(frozen=True)
class Language:
    """A model with its tokenizer; EOS also pads, so no mask is ever made by ``== pad``.

    The model stays in evaluation mode: dropout would make ``log pi`` of a response random.
    ``adapter`` is peft's configuration of the LoRA layers in the model; without, all weights train.
    """

    model: Any
    tokenizer: Any
    adapter: Any = None

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)


def load_whole(path: Path, dtype: torch.dtype, device: torch.device) -> Language:
    """A causal LM and its tokenizer from a directory of transformers with all of its weights.

    Raises:
        InvalidInput: not a directory of a causal LM, weights that are missing, of other shapes or
            not finite, no EOS, or tokens outside the vocabulary.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        _config(path)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        with _quiet():
            model, seen = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises many kinds
        first = str(error).strip().splitlines()[:1]
        raise InvalidInput(f"model={str(path)!r}: cannot be loaded: {' '.join(first)}") from error
    problems = _key_problems(seen) or nonfinite(model)
    if tokenizer.eos_token_id is None:
        problems.append("its tokenizer has no EOS token")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        problems.append(f"{len(tokenizer)} tokens, but {rows} rows of embeddings")
    refuse(f"model={str(path)!r}: {problem}" for problem in problems)
    return Language(model.to(device).eval(), tokenizer)


def _config(path: Path) -> None:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON in UTF-8 ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"config.json is a {type(config).__name__}; needed is an object")


def _key_problems(seen: dict[str, Any]) -> list[str]:
    """Weights that transformers would make up."""
    out = []
    if missing := sorted(seen["missing_keys"]):
        out.append(f"its files have no weights {few(missing)}")
    shapes = [f"{n} {tuple(a)} instead of {tuple(b)}" for n, a, b in seen["mismatched_keys"]]
    if shapes:
        out.append(f"weights of other shapes than config.json says: {few(sorted(shapes))}")
    return out


def nonfinite(model: Any) -> list[str]:
    """Weights that are no numbers, as a problem."""
    broken = [n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    return [f"weights that are not finite: {few(broken)}"] if broken else []


def few(names: Sequence[str], shown: int = 3) -> str:
    """Some of many names."""
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' tables of what it loaded: what is wrong is said by the caller."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def tiny(
    tokenizer: Any, seed: int, device: torch.device, width: int = 64, layers: int = 2
) -> Language:
    """A randomly initialised Llama of about 0.1 M parameters for a tokenizer, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    return Language(model.to(device).eval(), tokenizer)
