"""Known preferences: how likely one response to a prompt beats another (theory, section 4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from llm_scale.data.experts import Expert
from llm_scale.data.items import Item, Tokens
from llm_scale.oracle_spec import NONE, function_of, is_judge, parse
from theory.errors import InvalidInput
from theory.preferences import bradley_terry, rock_paper_scissors

FloatArray = NDArray[np.float64]
CLASSES = 3
PROBED, BIASED = 8, 0.75
"""Pairs on which a user's judge sees both orders, and how far from 1 their sum may be in the mean.

A fair judge that draws 0 or 1 by chance is 3 standard errors from that, one that goes by the order
of its arguments is at 1.
"""


class Oracle(Protocol):
    """A general preference that can be evaluated."""

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        """``P[i, j] = P(y_i > y_j | x)`` (k, k), ``P + P^T = 1``.

        Args:
            item: the prompt; its expert response is the reference where there is no known expert.
            responses: k responses to it, EOS included where they ended.
        """
        ...


@dataclass(frozen=True)
class BradleyTerry:
    """``P(y > y') = s(scale (score(y) - score(y')))`` of a known score in nats."""

    score: Callable[[Item, Sequence[Tokens]], FloatArray]
    scale: float = 1.0

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        return bradley_terry(self.scale * self.score(item, responses))


@dataclass(frozen=True)
class Cyclic:
    """Rock, paper, scissors: a response's class is its first token's number modulo 3.

    ``strength`` is ``2P - 1`` between two classes, in (0, 1]; within a class nothing wins.
    """

    strength: float = 1.0

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        kind = np.array([r[0] % CLASSES for r in responses])
        return rock_paper_scissors(self.strength, CLASSES)[kind[:, None], kind[None, :]]


@dataclass(frozen=True)
class Judge:
    """A user's preference ``function(prompt, first, second)`` -> ``P(first > second)`` of texts.

    Each two responses are shown once, in the order of the arguments; the other order is 1 - P.
    """

    function: Callable[[str, str, str], float]
    tokenizer: Any
    name: str

    def compare(self, item: Item, responses: Sequence[Tokens]) -> FloatArray:
        prompt, *texts = _texts(self.tokenizer, item, responses)
        out = np.full((len(texts), len(texts)), 0.5)
        for i in range(len(texts)):
            for j in range(i + 1, len(texts)):
                out[i, j] = _number(self.name, self.function, prompt, texts[i], texts[j])
                out[j, i] = 1.0 - out[i, j]
        if not np.all((out >= 0) & (out <= 1)):
            wrong = out[(out < 0) | (out > 1)][0]
            raise InvalidInput(f"oracle={self.name!r} gave {wrong:g}; needed is within [0, 1]")
        return out


def build(spec: str, expert: Expert | None, tokenizer: Any) -> Oracle | None:
    """The oracle of a specification (see `llm_scale.oracle_spec`); None for "none".

    "bradley-terry" scores with the known expert's mean log-probability per token; without a known
    expert with the token F1 of a response and the prompt's reference response.

    Args:
        expert: known expert of the task, if any. tokenizer: writes texts for a user's function.

    Raises:
        InvalidInput: see `llm_scale.oracle_spec.problems`.
    """
    if spec == NONE:
        return None
    path, name, value = parse(spec)
    if path:
        function = function_of(path, name)
        if is_judge(function):
            return Judge(function, tokenizer, spec)
        return BradleyTerry(_user_score(function, tokenizer, spec))
    if name == "cyclic":
        return Cyclic(value)
    return BradleyTerry(overlap if expert is None else _per_token(expert), value)


def probe(oracle: Oracle, items: Sequence[Item]) -> None:
    """Ask once before work, so that a user's function fails there.

    Raises:
        InvalidInput: it fails, or it is a judge that goes by the order of its arguments.
    """
    first = items[0]
    oracle.compare(first, [first.expert[0].tokens] * 2)
    if not isinstance(oracle, Judge):
        return
    texts = [item.expert[0].tokens for item in items[: PROBED + 1]]
    sums = []
    for item, pair in zip(items, pairwise(texts), strict=False):
        if pair[0] == pair[1]:
            continue
        one, other = (oracle.compare(item, order)[0, 1] for order in (pair, pair[::-1]))
        sums.append(one + other)
    if sums and abs(np.mean(sums) - 1.0) > BIASED:
        raise InvalidInput(
            f"oracle={oracle.name!r}: P(first beats second) of two responses in both orders adds "
            f"up to {np.mean(sums):.2g}, a mean over {len(sums)} pairs; needed is about 1: it goes "
            "by the order of its arguments"
        )


def overlap(item: Item, responses: Sequence[Tokens]) -> FloatArray:
    """Token F1 (k,) of responses with the item's reference response, in [0, 1]."""
    reference = Counter(item.expert[0].tokens)
    size = sum(reference.values())
    common = [sum((Counter(r) & reference).values()) for r in responses]
    return np.array([2.0 * n / (size + len(r)) for n, r in zip(common, responses, strict=True)])


def _per_token(expert: Expert) -> Callable[[Item, Sequence[Tokens]], FloatArray]:
    def score(item: Item, responses: Sequence[Tokens]) -> FloatArray:
        whole = expert.log_probs([(item.prompt, r) for r in responses])
        return whole / np.array([len(r) for r in responses])

    return score


def _user_score(
    function: Callable[..., Any], tokenizer: Any, name: str
) -> Callable[[Item, Sequence[Tokens]], FloatArray]:
    def score(item: Item, responses: Sequence[Tokens]) -> FloatArray:
        prompt, *texts = _texts(tokenizer, item, responses)
        return np.array([_number(name, function, prompt, text) for text in texts])

    return score


def _texts(tokenizer: Any, item: Item, responses: Sequence[Tokens]) -> list[str]:
    """The prompt as it is formatted, then the responses, without special tokens."""
    return [
        str(tokenizer.decode(list(t), skip_special_tokens=True)) for t in (item.prompt, *responses)
    ]


def _number(name: str, function: Callable[..., Any], *texts: str) -> float:
    try:
        value = float(function(*texts))
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"oracle={name!r} failed: {type(error).__name__}: {error}") from error
    if not np.isfinite(value):
        raise InvalidInput(f"oracle={name!r} gave {value}; needed is a finite number")
    return value
