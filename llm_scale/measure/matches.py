"""How many held-out prompts a model answers right, by the response that it gives greedily."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from llm_scale.data.items import Response, Tokens
from llm_scale.data.prompts import text_of
from llm_scale.matching import Match
from llm_scale.measure.telemetry import Row, mean
from llm_scale.models.player import Player
from theory.errors import InvalidInput


class Greedy(NamedTuple):
    """The numbers of a round's row, and the responses of pi_t and of pi_{t+1} as text."""

    values: Row
    before: list[str]
    after: list[str]


def responses(player: Player, prompts: Sequence[Tokens]) -> list[Response]:
    """The response to every prompt made of the likeliest tokens: no sample of the model."""
    none = np.zeros(player.settings.max_new_tokens)
    return player.sample(prompts, lambda i: none, "greedy responses", temperature=0.0)[0]


def measured(
    start: Player,
    player: Player,
    prompts: Sequence[Tokens],
    texts: Sequence[tuple[str, str]],
    match: Match,
) -> Greedy:
    """Greedy matches of pi_t and pi_{t+1} on the same prompts, and the paired change.

    A user's function that fails on a response leaves them out and says so in ``match_problem``: the
    round has been trained and is kept.

    Args:
        start: plays pi_t. player: plays pi_{t+1}.
        prompts: formatted tokens. texts: the same prompts as text, with their references.
        match: how a response is compared with its reference.
    """
    said = []
    for who in (start, player):
        tokenizer = who.language.tokenizer
        said.append([text_of(tokenizer, r) for r in responses(who, prompts)])
    try:
        before, after = (scores(match, texts, answers) for answers in said)
    except InvalidInput as error:
        return Greedy({"match_problem": str(error)}, *said)
    row = mean("match_greedy_before", before) | mean("match_greedy", after)
    return Greedy(row | mean("match_greedy_change", after - before), *said)


def scores(match: Match, texts: Sequence[tuple[str, str]], answers: Sequence[str]) -> np.ndarray:
    """(n,): how well each answer does. InvalidInput: a user's function fails on one."""
    return np.array(
        [match(prompt, answer, ref) for (prompt, ref), answer in zip(texts, answers, strict=True)]
    )
