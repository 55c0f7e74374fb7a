"""The one function that turns a prompt into tokens, for generation and for training alike."""

from __future__ import annotations

from typing import Any

SEPARATOR = "\n"


def format_prompt(tokenizer: Any, prompt: str, style: str = "auto") -> list[int]:
    """Token ids of a prompt, ready for the response's first token.

    Args:
        tokenizer: of transformers.
        prompt: text of the user.
        style: "chat" applies the tokenizer's chat template with the generation prompt, "plain"
            writes the prompt and a line break, "auto" takes the template if there is one.
    """
    chat = style == "chat" or (style == "auto" and bool(getattr(tokenizer, "chat_template", None)))
    if chat:
        messages = [{"role": "user", "content": prompt}]
        made = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        ids = tokenizer(made, add_special_tokens=False)["input_ids"]
    else:
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        separator = getattr(tokenizer, "prompt_separator", SEPARATOR)
        ids = start + tokenizer(prompt + separator, add_special_tokens=False)["input_ids"]
    return [int(i) for i in ids]


def encode_response(tokenizer: Any, response: str, horizon: int) -> tuple[list[int], bool]:
    """Tokens of a response with its EOS, cut at the horizon; and whether it was cut.

    A response that is cut gets no EOS: length alone must not tell real from generated ones.
    """
    ids = [int(i) for i in tokenizer(response, add_special_tokens=False)["input_ids"]]
    ids = [*ids, int(tokenizer.eos_token_id)]
    return ids[:horizon], len(ids) > horizon
