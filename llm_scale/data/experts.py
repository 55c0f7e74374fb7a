"""Experts whose log-probabilities can be evaluated: a truth to hold the theory against."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from llm_scale import processes
from llm_scale.data.items import Response, Tokens
from theory.errors import refuse
from theory.tokens.ngram import count_ngrams

FloatArray = NDArray[np.float64]
Noise = Callable[[int], FloatArray]
"""Index of a prompt to its (horizon,) uniform numbers."""


class Expert(Protocol):
    """What tasks and the telemetry ask of a known expert; `answers`, `known` share the work."""

    def log_probs(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        """``log p(y|x)`` (n,) in nats; of a response cut at the horizon that of its tokens."""
        ...

    def sample(self, prompts: Sequence[Tokens], noise: Noise) -> list[Response]:
        """A response to every prompt, drawn with uniform numbers: one a token."""
        ...


@runtime_checkable
class NextTokens(Protocol):
    """An expert whose whole next-token laws are known."""

    def laws_along(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        """Log-laws (T, V) of the next token at all positions of the responses, in their order."""
        ...


def answers(expert: Expert, prompts: Sequence[Tokens], noise: Noise) -> list[Response]:
    """A response to every prompt; several processes share the work."""
    share = processes.mine(range(len(prompts)))
    drawn = expert.sample([prompts[i] for i in share], lambda i: noise(share[i]))
    return processes.together(drawn)


def known(expert: Expert | None, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
    """``log p`` (n,), NaN without an expert; several processes share the work."""
    if expert is None:
        return np.full(len(pairs), np.nan)
    return np.array(processes.together(expert.log_probs(processes.mine(pairs)).tolist()))


class Ngram:
    """A model of the last ``order`` tokens, prompt included, estimated from real text."""

    def __init__(
        self,
        sequences: Iterable[Tokens],
        vocabulary: int,
        eos: int,
        order: int = 2,
        smoothing: float = 0.5,
    ) -> None:
        """Count next tokens in token sequences (each ended by EOS here).

        Args:
            sequences: token ids without EOS.
            vocabulary: V. eos: the token that ends a sequence.
            order: number of tokens a next one depends on.
            smoothing: added to every count, so that every response is possible.
        """
        refuse(
            [f"smoothing={smoothing!r}; needed is > 0"] * (not smoothing > 0)
            + [f"order={order!r}; needed is >= 1"] * (order < 1)
        )
        self.order, self.vocabulary, self.eos = order, vocabulary, eos
        counts = np.full((vocabulary + 1,) * order + (vocabulary,), smoothing)
        blank = vocabulary  # before the first token
        for ngram, number in count_ngrams(sequences, order, start=blank, end=eos).items():
            counts[ngram] += number
        law = counts / counts.sum(-1, keepdims=True)
        self.log_law: FloatArray = np.log(law)
        self._cdf = law.cumsum(-1)

    def log_probs(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        out = np.zeros(len(pairs))
        for i, (prompt, response) in enumerate(pairs):
            whole = np.array((*(self.vocabulary,) * self.order, *prompt, *response))
            first = len(whole) - len(response)
            at = np.arange(first, len(whole))
            context = tuple(whole[at - back] for back in range(self.order, 0, -1))
            out[i] = self.log_law[(*context, whole[at])].sum()
        return out

    def laws_along(self, pairs: Sequence[tuple[Tokens, Tokens]]) -> FloatArray:
        prefixes = [(*x, *y[:h]) for x, y in pairs for h in range(len(y))]
        return np.concatenate([self.next_log_laws(np.array([prefix])) for prefix in prefixes])

    def next_log_laws(self, sequences: NDArray[np.int64]) -> FloatArray:
        """Log-laws (m, V) of the next token after sequences (m, length), prompt included."""
        blank = np.full((len(sequences), self.order), self.vocabulary)
        context = np.concatenate([blank, sequences], axis=1)[:, -self.order :]
        return np.asarray(self.log_law[tuple(context.T)])

    def sample(self, prompts: Sequence[Tokens], noise: Noise) -> list[Response]:
        return [self._drawn(prompt, noise(i)) for i, prompt in enumerate(prompts)]

    def _drawn(self, prompt: Tokens, noise: FloatArray) -> Response:
        context = (*(self.vocabulary,) * self.order, *prompt)[-self.order :]
        tokens: list[int] = []
        for number in noise:
            cdf = self._cdf[context]
            token = int(np.searchsorted(cdf, number * cdf[-1], side="right"))
            tokens.append(token)
            if token == self.eos:
                return Response(tuple(tokens), False)
            context = (*context, token)[1:]
        return Response(tuple(tokens), True)
