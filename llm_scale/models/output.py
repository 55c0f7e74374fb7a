"""From tokens to logits in the two halves of a causal LM: its layers, and its output layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def text_config(model: Any) -> Any:
    """The part of the configuration that is of text: a multimodal model has it one level down."""
    return model.config.get_text_config(decoder=True)


def vocabulary(model: Any) -> int:
    """Rows of the model's logits, also those that its tokenizer does not use."""
    return int(text_config(model).vocab_size)


def context(model: Any) -> int | None:
    """Longest sequence of the model in tokens; None if it has no limit."""
    room = getattr(text_config(model), "max_position_embeddings", None)
    return int(room) if room is not None and room > 0 else None


def states(model: Any, ids: Tensor, **seen: Tensor) -> Tensor:
    """Last hidden states (B, L, d) of tokens (B, L).

    No cache is made: it would hold memory, and a layer that is computed again would fill it twice.
    """
    out: Tensor = model.base_model(input_ids=ids, use_cache=False, **seen).last_hidden_state
    return out


def logits(model: Any, hidden: Tensor) -> Tensor:
    """Logits (..., V) of hidden states (..., d), scaled and capped as the configuration says.

    Cohere multiplies by ``logit_scale``, Granite divides by ``logits_scaling``, Gemma 2 caps at
    ``final_logit_softcapping``. `llm_scale.models.score.Scorer` compares the result with the
    model's own logits, so that a class that does something else is refused.
    """
    config = text_config(model)
    out: Tensor = model.get_output_embeddings()(hidden)
    if (times := getattr(config, "logit_scale", None)) is not None:
        out = out * times
    if (over := getattr(config, "logits_scaling", None)) is not None:
        out = out / over
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        out = cap * (out / cap).tanh()
    return out
