"""Causal language models through transformers: from a directory, or a tiny one made on the spot."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from llm_scale.data import ends as ends_of
from theory.errors import InvalidInput, gist, refuse
from theory.files import kind_of

Past = Literal["cache", "kept rows", "none"]
"""How the sampler goes from token to token: with a cache that drops finished rows, with one that
keeps them, or by whole forward passes."""


@dataclass(frozen=True)
class Language:
    """A model with its tokenizer; EOS may also pad, so no mask is ever made by ``== pad``.

    The model stays in evaluation mode: dropout would make ``log pi`` of a response random.

    Attributes:
        ends: all tokens that end an own response, first the one that closes an expert's; empty is
            the tokenizer's EOS.
        past: what the sampler can do with this class; `llm_scale.models.probe` finds it out.
        adapter: peft's configuration of the LoRA layers in the model; without, all weights train.
        base: digest of the weights that the adapter is put on.
    """

    model: Any
    tokenizer: Any
    ends: tuple[int, ...] = ()
    past: Past = "cache"
    adapter: Any = None
    base: str = ""

    def __post_init__(self) -> None:
        eos = getattr(self.tokenizer, "eos_token_id", None)
        if not self.ends and eos is not None:
            object.__setattr__(self, "ends", (int(eos),))

    @property
    def eos(self) -> int:
        """What closes an expert response."""
        return self.ends[0]


def load_whole(
    path: Path,
    dtype: torch.dtype,
    device: torch.device,
    style: str = "auto",
    say: Callable[[str], None] = lambda text: None,
    setting: str = "model",
) -> Language:
    """A causal LM and its tokenizer from a directory of transformers with all of its weights.

    Args:
        path: the directory. dtype: of the weights. device: where they go.
        style: of the prompts; decides whether the chat template's end counts.
        say: told which tokens end a response if that is not plain, and which options are ignored.
        setting: that the directory is for, as refusals call it.

    Raises:
        InvalidInput: not a causal LM, weights that are missing, of other shapes or not finite, no
            end of a response, or tokens outside the vocabulary.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    told = f"{setting}={str(path)!r}"

    try:
        refuse(_kind_problems(_config(path)))
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
        with _quiet():
            model, seen = AutoModelForCausalLM.from_pretrained(
                path,
                dtype=dtype,
                local_files_only=True,
                use_safetensors=True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                return_dict=True,
            )
    except InvalidInput as error:
        raise InvalidInput(f"{told}: {error}") from error
    except Exception as error:  # transformers raises many kinds
        raise InvalidInput(f"{told}: cannot be loaded: {gist(error)}") from error
    problems = _key_problems(seen) or nonfinite(model)
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        problems.append(f"{len(tokenizer)} tokens, but {rows} rows of embeddings")
    refuse(f"{told}: {problem}" for problem in problems)
    _make_savable(model)
    return with_ends(Language(model.to(device).eval(), tokenizer), told, style, say)


def with_ends(language: Language, told: str, style: str, say: Callable[[str], None]) -> Language:
    """The language with all of its ends, which are said where they are not plain.

    InvalidInput: no token ends a response; ``told`` is the setting that names the model.
    """
    try:
        ends, said = ends_of.find(language.model, language.tokenizer, style)
    except InvalidInput as error:
        raise InvalidInput(f"{told}: {error}") from error
    for line in (*said, *ends_of.ignored_options(language.model)):
        say(f"{told}: {line}")
    return dataclasses.replace(language, ends=ends)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json is not JSON in UTF-8 ({error})") from error
    if not isinstance(config, dict):
        raise ValueError(f"config.json is {kind_of(config)}; needed is an object")
    return config


def _kind_problems(config: dict[str, Any]) -> list[str]:
    """Why whole weights in floating point cannot be had from these files."""
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, dict) else None
    how = config.get("quantization_config") or nested
    if not how:
        return []
    method = how.get("quant_method", "") if isinstance(how, dict) else ""
    return [
        f"its weights are quantised ({method or 'quantization_config'} in config.json), and whole "
        "weights of integers cannot be trained; dequantise them first, or take the unquantised "
        "model"
    ]


def _make_savable(model: Any) -> None:
    """Options of sampling without ``do_sample`` are read, but not written, by transformers."""
    config = getattr(model, "generation_config", None)
    if config is None:
        return
    try:
        config.validate(strict=True)
    except ValueError:
        config.do_sample = True


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
    """A randomly initialised Llama for a tokenizer, float32; as it stands about 0.1 M parameters.

    Args:
        width: of the hidden states; a multiple of ``heads``, an even one for the rotation.
        layers: of attention and feed-forward units (twice the width). heads: of attention.
    """
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
