"""Causal language models: load, save, sample, score."""

from llm_scale.models.language import (
    BYTE_VOCABULARY,
    EOS,
    Language,
    byte_tokenizer,
    directory,
    load,
    save,
    tiny,
    word_tokenizer,
)

__all__ = [
    "BYTE_VOCABULARY",
    "EOS",
    "Language",
    "byte_tokenizer",
    "directory",
    "load",
    "save",
    "tiny",
    "word_tokenizer",
]
