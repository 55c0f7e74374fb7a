"""What the model says, before and after a round, to the same held-out prompts: a table to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from llm_scale.data.items import Item, Response
from llm_scale.data.prompts import text_of

SHOWN = 100
"""Held-out prompts whose responses a round keeps as text."""


def table(
    tokenizer: Any,
    texts: Sequence[tuple[str, str]],
    items: Sequence[Item],
    own: Sequence[Response],
    more: Mapping[str, Sequence[str]],
) -> list[dict[str, Any]]:
    """A record a prompt: ``prompt, expert, before, after`` as text, and which of these were cut.

    Args:
        tokenizer: writes tokens as text.
        texts: prompt and expert response of every held-out item, as text.
        items: held-out items, whose first own response is a sample of pi_t.
        own: a sample of pi_{t+1} to each.
        more: further texts by name, as many.
    """
    out = []
    for i, ((prompt, expert), item, after) in enumerate(zip(texts, items, own, strict=True)):
        if i == SHOWN:
            break
        before = item.own[0]
        row: dict[str, Any] = {"prompt": prompt, "expert": expert}
        row |= {"before": text_of(tokenizer, before), "after": text_of(tokenizer, after)}
        row["cut"] = [n for n, r in (("before", before), ("after", after)) if r.truncated]
        out.append(row | {name: values[i] for name, values in more.items()})
    return out
