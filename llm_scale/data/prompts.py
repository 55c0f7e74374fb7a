"""The one function that turns a prompt into tokens, for generation and for training alike.

Texts of users are data: what a tokenizer reads in them as control, or does not know, is refused.
"""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from llm_scale.data.formats import USER, Turn
from llm_scale.data.items import Item, Response
from theory.errors import InvalidInput, refuse
from theory.files import HALF_PAIR

SEPARATOR = "\n"
DATED = "strftime_now"
"""What a chat template that writes today's date calls."""
DATE_CALL = re.compile(rf"""{DATED}\(\s*(['"])(.*?)\1\s*\)""")


def format_prompt(
    tokenizer: Any, prompt: str | Sequence[Turn], style: str = "auto", date: str = ""
) -> list[int]:
    """Token ids of a prompt, ready for the response's first token.

    Args:
        tokenizer: of transformers.
        prompt: text of the user, or turns of a conversation up to the user's last.
        style: "chat" applies the tokenizer's chat template with the generation prompt, "plain"
            writes the prompt and a line break (several turns: `plain`), "auto" takes the template
            if there is one.
        date: YYYY-MM-DD that a template writes as today's; "" is today.

    Raises:
        InvalidInput: a template that is missing, fails or leaves a turn out, a prompt that has no
            tokens, or a text that is not plain text to the tokenizer (`text_problems`).
    """
    turns = (Turn(USER, prompt),) if isinstance(prompt, str) else tuple(prompt)
    for turn in turns:
        name = "prompt" if turn.role == USER else f"{turn.role} turn"
        refuse(text_problems(tokenizer, turn.content, name))
    return _written(tokenizer, turns, style, date)


def check_style(tokenizer: Any, style: str, date: str = "") -> None:
    """InvalidInput: a style that works with no prompt at all."""
    _written(tokenizer, [Turn(USER, "prompt")], style, date)


def _written(tokenizer: Any, turns: Sequence[Turn], style: str, date: str) -> list[int]:
    """Token ids of turns that are plain text."""
    if style == "chat" and not has_template(tokenizer):
        raise InvalidInput("prompt_style='chat': the tokenizer has no chat template; use plain")
    if has_template(tokenizer) and style != "plain":
        ids = tokenizer(_chat(tokenizer, turns, date), add_special_tokens=False)["input_ids"]
    else:
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        separator = getattr(tokenizer, "prompt_separator", SEPARATOR)
        ids = start + tokenizer(plain(turns, separator), add_special_tokens=False)["input_ids"]
    if not ids:
        shown = next((t.content for t in turns[::-1] if t.role == USER), "")[:40]
        raise InvalidInput(f"prompt {shown!r} is formatted to nothing (style {style!r})")
    return [int(i) for i in ids]


def has_template(tokenizer: Any) -> bool:
    """Whether there is a chat template."""
    return bool(getattr(tokenizer, "chat_template", None))


def today(tokenizer: Any, style: str) -> str:
    """Today as YYYY-MM-DD if prompts are written with it, else ""."""
    asks = style != "plain" and DATED in str(getattr(tokenizer, "chat_template", None))
    return datetime.date.today().isoformat() if asks else ""


def plain(turns: Sequence[Turn], separator: str = SEPARATOR) -> str:
    """Turns without a chat template: a user's alone is its text and a separator.

    Of several each is written as "User: text", and the last line is "Assistant:".
    """
    if len(turns) == 1:
        return turns[0].content + separator
    said = [f"{turn.role.capitalize()}: {turn.content}" for turn in turns]
    return separator.join([*said, "Assistant:"]) + separator


def _chat(tokenizer: Any, turns: Sequence[Turn], date: str) -> str:
    messages = [{"role": turn.role, "content": turn.content} for turn in turns]
    more = {"chat_template": _on(tokenizer.get_chat_template(), date)} if date else {}
    try:
        made = str(
            tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=False, **more
            )
        )
    except Exception as error:  # whatever a template raises
        said = f"{type(error).__name__}: {error}"
        raise InvalidInput(f"the tokenizer's chat template fails ({said}); use plain") from error
    left_out = [t for t in turns if t.role != "assistant" and t.content.strip() not in made]
    if made and left_out:  # an assistant's turns may be shortened: templates drop its thoughts
        raise InvalidInput(
            f"the tokenizer's chat template leaves out or changes the {left_out[0].role}'s turn "
            f"{left_out[0].content[:40]!r}; use plain, or leave the turn out"
        )
    return made


def _on(template: str, date: str) -> str:
    """A template that writes this date wherever it would write today's."""
    day = datetime.datetime.fromisoformat(date)
    return DATE_CALL.sub(lambda call: json.dumps(day.strftime(call[2])), template)


def encode_response(
    tokenizer: Any, response: str, horizon: int, ends: Sequence[int] = ()
) -> tuple[list[int], bool]:
    """Tokens of a response with its end, cut at the horizon; and whether it was cut.

    A response that is cut gets no end: length alone must not tell real from generated ones.

    Args:
        tokenizer: of transformers. response: text. horizon: tokens at most.
        ends: all tokens that end a response, the first closes this one; empty: the tokenizer's EOS.

    Raises:
        InvalidInput: a text that the tokenizer reads as the end of a response, or that is not
            plain text to it (`text_problems`).
    """
    ends = ends or (int(tokenizer.eos_token_id),)
    ids = [int(i) for i in tokenizer(response, add_special_tokens=False)["input_ids"]]
    if within := [i for i in ids if i in ends]:
        text = tokenizer.decode(within[:1])
        raise InvalidInput(
            f"response {response[:40]!r} has the end token {text!r} within, or a word that the "
            "tokenizer does not know and reads as that"
        )
    refuse(text_problems(tokenizer, response, "response", ids))
    return [*ids, ends[0]][:horizon], len(ids) >= horizon


def texts_of(tokenizer: Any, items: Sequence[Item]) -> list[tuple[str, str]]:
    """Prompts as text with their first expert response."""
    prompts = (tokenizer.decode(list(i.prompt), skip_special_tokens=True).strip() for i in items)
    return [(p, text_of(tokenizer, i.expert[0])) for p, i in zip(prompts, items, strict=True)]


def text_of(tokenizer: Any, response: Response) -> str:
    """The text of a response, without the token that ends it."""
    words = response.tokens if response.truncated else response.tokens[:-1]
    return str(tokenizer.decode(list(words)))


def written(prompt: str | Sequence[Turn]) -> str:
    """A prompt for people and functions: the text of a single turn, else all turns."""
    if isinstance(prompt, str):
        return prompt
    return prompt[0].content if len(prompt) == 1 else plain(prompt).removesuffix("Assistant:\n")


# -- what is not plain text ----------------------------------------------------------------------


def text_problems(
    tokenizer: Any, text: str, name: str, ids: Sequence[int] | None = None
) -> list[str]:
    """Why a text of a user is not plain text to a tokenizer: at most one reason.

    A special token within would be control and not data (a turn of another speaker, an end), and
    a word that the tokenizer does not know would be trained as its unknown token.

    Args:
        name: what the text is, for the reason.
        ids: its tokens, where they are known already.
    """
    head = f"{name} {text[:40]!r}"
    if HALF_PAIR.search(text):
        return [f"{head} has half of a surrogate pair; needed is Unicode text"]
    special = _special(tokenizer, len(tokenizer))
    seen = tokenizer(text, add_special_tokens=False)["input_ids"] if ids is None else ids
    found = next((i for i in seen if i in special), None)
    if found is None:
        return []
    token = special[found]
    if found == tokenizer.unk_token_id and token not in text:
        return [f"{head}: the tokenizer does not know {_unknown(tokenizer, text)}"]
    return [
        f"{head} has the special token {token!r} within, which the tokenizer reads as control and "
        "not as text; write it otherwise"
    ]


def _unknown(tokenizer: Any, text: str, shown: int = 3) -> str:
    """The first words of a text that are unknown, in words."""
    if not tokenizer.is_fast:
        return "all of its words"
    made = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    unknown = tokenizer.unk_token_id
    places = zip(made["input_ids"], made["offset_mapping"], strict=True)
    words = dict.fromkeys(text[a:b] for i, (a, b) in places if i == unknown)
    more = f" and {len(words) - shown} more" if len(words) > shown else ""
    return ", ".join(map(repr, list(words)[:shown])) + more


@lru_cache(maxsize=8)
def _special(tokenizer: Any, size: int) -> dict[int, str]:
    """Special tokens by their number, those added ones that are special too.

    ``size`` of the tokenizer tells when tokens were added to it.
    """
    known = {int(i): str(t.content) for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    named = zip(tokenizer.all_special_ids, tokenizer.all_special_tokens, strict=True)
    return known | {int(i): str(t) for i, t in named}
