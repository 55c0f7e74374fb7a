"""Tokenizers made on the spot: a word a token, or frequent pairs of bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

EOS = "</s>"
BYTE_VOCABULARY = 512
TURNS = (
    "{% if messages | length == 1 %}{{ messages[0]['content'] + '\\n' }}{% else %}"
    "{% for m in messages %}{{ m['role'] | capitalize + ': ' + m['content'] + '\\n' }}"
    "{% endfor %}{{ 'Assistant:\\n' if add_generation_prompt else '' }}{% endif %}"
)
"""Turns as `llm_scale.data.prompts.plain` writes them."""


def word_tokenizer(words: Sequence[str]) -> Any:
    """One token a word and EOS: the vocabulary is exactly what a known expert can say."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    vocabulary = {EOS: 0, **{word: i + 1 for i, word in enumerate(words)}}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token=EOS))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = _fast(core, template="{{ messages[0]['content'] }}")
    tokenizer.unk_token = EOS  # said aloud, so that unknown words can be refused
    return tokenizer


def byte_tokenizer(texts: Iterable[str], size: int = BYTE_VOCABULARY, template: str = TURNS) -> Any:
    """Byte-level pair encoding trained on the texts: 256 bytes, EOS, and frequent pairs."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(texts, trainer)
    return _fast(core, template)


def _fast(core: Any, template: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=EOS, pad_token=EOS)
    tokenizer.chat_template = template
    return tokenizer
