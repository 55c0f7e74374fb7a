"""The one function that turns a prompt into tokens, for generation and for training alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llm_scale.data.items import Item, Response
from theory.errors import InvalidInput

SEPARATOR = "\n"


def format_prompt(tokenizer: Any, prompt: str, style: str = "auto") -> list[int]:
    """Token ids of a prompt, ready for the response's first token.

    Args:
        tokenizer: of transformers.
        prompt: text of the user.
        style: "chat" applies the tokenizer's chat template with the generation prompt, "plain"
            writes the prompt and a line break, "auto" takes the template if there is one.

    Raises:
        InvalidInput: a template that is missing or fails, or a prompt that has no tokens.
    """
    there = bool(getattr(tokenizer, "chat_template", None))
    if style == "chat" and not there:
        raise InvalidInput("prompt_style='chat': the tokenizer has no chat template; use plain")
    if there and style != "plain":
        ids = tokenizer(_chat(tokenizer, prompt), add_special_tokens=False)["input_ids"]
    else:
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        separator = getattr(tokenizer, "prompt_separator", SEPARATOR)
        ids = start + tokenizer(prompt + separator, add_special_tokens=False)["input_ids"]
    if not ids:
        raise InvalidInput(f"prompt {prompt[:40]!r} is formatted to nothing (style {style!r})")
    return [int(i) for i in ids]


def _chat(tokenizer: Any, prompt: str) -> str:
    messages = [{"role": "user", "content": prompt}]
    try:
        made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    except Exception as error:  # whatever a template raises
        said = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"the tokenizer's chat template fails ({said}); use plain") from error
    return str(made)


def encode_response(
    tokenizer: Any, response: str, horizon: int, ends: Sequence[int] = ()
) -> tuple[list[int], bool]:
    """Tokens of a response with its end, cut at the horizon; and whether it was cut.

    A response that is cut gets no end: length alone must not tell real from generated ones.

    Args:
        tokenizer: of transformers. response: text. horizon: tokens at most.
        ends: all tokens that end a response, the first closes this one; empty: the tokenizer's EOS.

    Raises:
        InvalidInput: a text that the tokenizer reads as the end of a response.
    """
    ends = ends or (int(tokenizer.eos_token_id),)
    ids = [int(i) for i in tokenizer(response, add_special_tokens=False)["input_ids"]]
    if within := [i for i in ids if i in ends]:
        text = tokenizer.decode(within[:1])
        raise InvalidInput(
            f"response {response[:40]!r} has the end token {text!r} within, or a word that the "
            "tokenizer does not know and reads as that"
        )
    return [*ids, ends[0]][:horizon], len(ids) >= horizon


def texts_of(tokenizer: Any, items: Sequence[Item]) -> list[tuple[str, str]]:
    """Prompts as text with their first expert response."""
    prompts = (tokenizer.decode(list(i.prompt), skip_special_tokens=True).strip() for i in items)
    return [(p, text_of(tokenizer, i.expert[0])) for p, i in zip(prompts, items, strict=True)]


def text_of(tokenizer: Any, response: Response) -> str:
    """The text of a response, without the token that ends it."""
    words = response.tokens if response.truncated else response.tokens[:-1]
    return str(tokenizer.decode(list(words)))
