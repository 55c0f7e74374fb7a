"""Causal language models: load, save, sample, score."""

from llm_scale.data.tokenizers import BYTE_VOCABULARY, EOS, byte_tokenizer, word_tokenizer
from llm_scale.models.folders import (
    chain,
    directory,
    is_adapter,
    load,
    save,
    save_final,
    saved,
    there,
    tokens,
)
from llm_scale.models.language import Language, tiny

__all__ = [
    "BYTE_VOCABULARY",
    "EOS",
    "Language",
    "byte_tokenizer",
    "chain",
    "directory",
    "is_adapter",
    "load",
    "save",
    "save_final",
    "saved",
    "there",
    "tiny",
    "tokens",
    "word_tokenizer",
]
