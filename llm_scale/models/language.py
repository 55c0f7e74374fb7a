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

OTHERWISE = {
    "model": ("'tiny'", "`make model` gets the one of the presets"),
    "expert": ("'none', 'made', a finished run", "`make-expert` trains one"),
}
"""What a setting may be beside a directory, and where one is from."""


@dataclass(frozen=True)
class Language:
    """A model with its tokenizer; EOS also pads, so no mask is ever made by ``== pad``.

    The model stays in evaluation mode: dropout would make ``log pi`` of a response random.
    """

    model: Any
    tokenizer: Any

    @property
    def eos(self) -> int:
        return int(self.tokenizer.eos_token_id)


def load(
    where: str | Path, dtype: torch.dtype, device: torch.device, name: str = "model"
) -> Language:
    """A causal LM and its tokenizer from a directory of transformers.

    Args:
        name: of the setting that it is for, as refusals call it.

    Raises:
        InvalidInput: not a directory of a causal LM, weights that are missing, of other shapes or
            not finite, no EOS, or tokens outside the vocabulary.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    path = directory(where, name)
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
        raise InvalidInput(f"{name}={str(where)!r}: cannot be loaded: {' '.join(first)}") from error
    problems = _weight_problems(model, seen)
    if tokenizer.eos_token_id is None:
        problems.append("its tokenizer has no EOS token")
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        problems.append(f"{len(tokenizer)} tokens, but {rows} rows of embeddings")
    refuse(f"{name}={str(where)!r}: {problem}" for problem in problems)
    return Language(model.to(device).eval(), tokenizer)


def directory(path: str | Path, name: str = "model") -> Path:
    """The path, if a model may be there. InvalidInput: there is no config.json."""
    if not (Path(path) / "config.json").is_file():
        word, hint = OTHERWISE[name]
        raise InvalidInput(
            f"{name}={str(path)!r}: no config.json there; needed is {word} or a directory of a "
            f"Hugging Face causal LM (config.json, *.safetensors, tokenizer files); {hint}"
        )
    return Path(path)


def _config(path: Path) -> None:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON in UTF-8 ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"config.json is a {type(config).__name__}; needed is an object")


def _weight_problems(model: Any, seen: dict[str, Any]) -> list[str]:
    """Weights that transformers would make up, and weights that are no numbers."""
    out = []
    if missing := sorted(seen["missing_keys"]):
        out.append(f"its files have no weights {_few(missing)}")
    shapes = [f"{n} {tuple(a)} instead of {tuple(b)}" for n, a, b in seen["mismatched_keys"]]
    if shapes:
        out.append(f"weights of other shapes than config.json says: {_few(sorted(shapes))}")
    broken = [n for n, p in model.named_parameters() if not bool(torch.isfinite(p).all())]
    if broken and not out:
        out.append(f"weights that are not finite: {_few(broken)}")
    return out


def _few(names: Sequence[str], shown: int = 3) -> str:
    more = f" and {len(names) - shown} more" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without transformers' tables of what it loaded: what is wrong is said by the caller."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def tiny(
    tokenizer: Any,
    seed: int,
    device: torch.device,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
) -> Language:
    """A randomly initialised Llama (0.1 M parameters unless said) for a tokenizer, float32."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
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


def save(language: Language, directory: Path) -> None:
    """Weights (safetensors), configuration and tokenizer, as plain transformers reads them."""
    from transformers.utils import logging

    logging.disable_progress_bar()  # a tiny model is saved every few seconds
    language.model.save_pretrained(directory)
    try:
        language.tokenizer.save_pretrained(directory)
    except Exception as error:  # of a full disk its library says so with this kind
        if type(error) is not Exception:
            raise
        raise OSError(str(error)) from error
