"""Exact laws over all responses of a small game, so that a trained model is compared with a round.

Every response of at most ``horizon`` tokens is listed once, by depth: the words of a prefix and
EOS, and at the horizon the words alone (cut). With ``W`` words there are ``1 + W + ... + W^H``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from llm_scale.data.items import Tokens
from llm_scale.models.player import Player
from theory.errors import refuse

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
NextLaw = Callable[[Ints], Floats]
"""Sequences (m, length) of one length to the log-laws (m, V) of their next token."""

LARGEST = 2_000_000
"""Responses of one prompt."""
_ROWS = 4096


def size(vocabulary: int, horizon: int) -> int:
    """Number of responses to a prompt."""
    return sum((vocabulary - 1) ** h for h in range(horizon + 1))


def log_laws(
    next_law: NextLaw, prompts: Sequence[Tokens], vocabulary: int, eos: int, horizon: int
) -> Floats:
    """``log pi(y|x)`` of every response y to every prompt x, (prompts, `size`), in nats.

    Raises:
        InvalidInput: too many responses to list.
    """
    _check(vocabulary, horizon)
    return np.stack([_of_prompt(next_law, p, vocabulary, eos, horizon) for p in prompts])


def responses(vocabulary: int, eos: int, horizon: int) -> list[Tokens]:
    """All responses in the order of `log_laws`; those of ``horizon`` words are cut."""
    _check(vocabulary, horizon)
    levels = [_prefixes(vocabulary, eos, h) for h in range(horizon + 1)]
    ended = [(*map(int, row), eos) for level in levels[:-1] for row in level]
    return [*ended, *(tuple(map(int, row)) for row in levels[-1])]


def of_player(player: Player) -> NextLaw:
    """The model's next-token laws, at temperature 1 in its own precision."""

    @torch.no_grad()
    def next_law(sequences: Ints) -> Floats:
        parts = []
        for rows in torch.from_numpy(sequences).split(_ROWS):
            with player.machine.precision():
                hidden = player.model(
                    input_ids=rows.to(player.machine.device), logits_to_keep=1
                ).logits[:, -1]
            parts.append(hidden.double().log_softmax(-1).cpu().numpy())
        return np.concatenate(parts)

    return next_law


def _of_prompt(
    next_law: NextLaw, prompt: Tokens, vocabulary: int, eos: int, horizon: int
) -> Floats:
    words = _words(vocabulary, eos)
    log_prefix = np.zeros(1)
    ended = []
    for h in range(horizon):
        prefixes = _prefixes(vocabulary, eos, h)
        context = np.broadcast_to(np.array(prompt, dtype=np.int64), (len(prefixes), len(prompt)))
        law = log_prefix[:, None] + next_law(np.concatenate([context, prefixes], axis=1))
        ended.append(law[:, eos])
        log_prefix = law[:, words].ravel()
    return np.concatenate([*ended, log_prefix])


def _words(vocabulary: int, eos: int) -> Ints:
    return np.array([t for t in range(vocabulary) if t != eos], dtype=np.int64)


def _prefixes(vocabulary: int, eos: int, length: int) -> Ints:
    """All ``W^length`` sequences of words, the last one running fastest."""
    words = _words(vocabulary, eos)
    place = len(words) ** np.arange(length - 1, -1, -1, dtype=np.int64)
    return words[np.arange(len(words) ** length)[:, None] // place % len(words)]


def _check(vocabulary: int, horizon: int) -> None:
    count = size(vocabulary, horizon)
    refuse(
        [f"{count} responses to a prompt (vocabulary={vocabulary}, horizon={horizon}); at most "
         f"{LARGEST} can be listed"] * (count > LARGEST)
    )  # fmt: skip
