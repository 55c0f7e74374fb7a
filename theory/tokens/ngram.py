"""N-gram models of real text: the experts of `TokenMDP.from_text`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np

from theory.errors import InvalidInput
from theory.laws import is_real
from theory.tokens import text
from theory.tokens.tree import FloatArray, IntArray, check_tree, is_whole

EOS, UNKNOWN = "</s>", "<unk>"


class NGrams(NamedTuple):
    """An n-gram model of texts: the names of tokens and prompts, and a law for every context."""

    vocabulary: tuple[str, ...]
    prompt_names: tuple[str, ...] | None
    order: int
    laws: list[FloatArray]
    """For context lengths 0..order: (prompts, (vocab-1)^length contexts, vocab)."""

    def expert(self, horizon: int) -> FloatArray:
        """(S, A) probabilities on the states (prompt, depth, last ``order`` tokens)."""
        vocab = len(self.vocabulary)
        rows = [self.laws[min(d, self.order)].reshape(-1, vocab) for d in range(horizon)]
        return np.concatenate(rows)


def ngrams(
    texts: Any,
    vocab_size: int | None,
    horizon: int,
    order: int,
    prompts: int,
    smoothing: float,
    unit: str,
    tree: bool,
    max_state_actions: int,
) -> NGrams:
    """Estimate what `TokenMDP.from_text` makes a game of; arguments and errors are described there.

    The size of the game is checked here, before anything is counted.
    """
    problems = []
    if str(unit) not in ("word", "char"):  # also of an array, which is equal to neither
        problems.append(f"unit must be 'word' or 'char', got {unit!r}")
    if not (is_real(smoothing) and np.isfinite(smoothing) and smoothing >= 0):
        problems.append(f"smoothing must be a finite number >= 0, got {smoothing!r}")
    if not is_whole(order, 0):
        problems.append(f"order must be a whole number >= 0, got {order!r}")
    if not (vocab_size is None or is_whole(vocab_size, 3)):
        problems.append(
            "vocab_size must be a whole number of at least 3 (end of sequence, <unk> and a token) "
            f"or None (all tokens), got {vocab_size!r}"
        )
    if problems:
        raise InvalidInput(problems)
    rest = (horizon, prompts, 0, None if tree else order, max_state_actions)
    check_tree(3 if vocab_size is None else vocab_size, *rest)
    pairs, with_prompts = text.as_pairs(texts)
    responses = [text.tokens(response, unit) for _, response in pairs]
    if prompts == 1:
        names, owner = None, np.zeros(len(responses), dtype=np.int64)
    else:
        if with_prompts:
            first = [text.tokens(prompt, unit)[:1] for prompt, _ in pairs]
        else:
            first = [response[:1] for response in responses]
            responses = [response[1:] for response in responses]
        names, owner = _prompts([f[0] if f else "" for f in first], prompts)
    vocabulary = _vocabulary(responses, vocab_size)
    vocab = len(vocabulary)
    if vocab_size is None:
        try:
            check_tree(vocab, *rest)
        except InvalidInput as error:
            raise InvalidInput([f"{p}; or set vocab_size" for p in error.problems]) from None
    index = {token: i for i, token in enumerate(vocabulary)}
    sequences = [[index.get(token, vocab - 1) for token in response] for response in responses]
    reach = min(order, horizon - 1)
    groups: list[list[list[int]]] = [[] for _ in range(prompts if prompts > 1 else 0)]
    for i, sequence in zip(owner, sequences, strict=True):
        if groups and i >= 0:
            groups[i].append(sequence)
    own = [_counts(group, vocab, reach) for group in groups]
    laws = []
    for length, counts in enumerate(_counts(sequences, vocab, reach)):
        pooled = _normalised(counts + float(smoothing), np.full(vocab, 1.0 / vocab))
        parts = [part[length] + smoothing * vocab * pooled for part in own]
        laws.append(_normalised(np.stack(parts), pooled) if parts else pooled[None])
    return NGrams(vocabulary, names, reach, laws)


def count_ngrams(
    sequences: Iterable[Sequence[int]], order: int, start: int, end: int
) -> Counter[tuple[int, ...]]:
    """How often each token follows the ``order`` tokens before it: {(context..., token): count}.

    Before a sequence's first token there are ``start``, and after its last one there is ``end``.

    >>> count_ngrams([[7, 8]], 1, start=0, end=9)
    Counter({(0, 7): 1, (7, 8): 1, (8, 9): 1})
    """
    seen: Counter[tuple[int, ...]] = Counter()
    for sequence in sequences:
        padded = (*(start,) * order, *sequence, end)
        seen.update(zip(*(padded[i:] for i in range(order + 1)), strict=False))
    return seen


def _prompts(first: list[str], prompts: int) -> tuple[tuple[str, ...], IntArray]:
    """Names of the commonest first tokens and, for every text, its prompt (-1: another one)."""
    counts = Counter(f for f in first if f)
    if len(counts) < prompts:
        raise InvalidInput([f"prompts={prompts}, but only {len(counts)} different first tokens"])
    names = tuple(name for name, _ in counts.most_common(prompts))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number.get(f, -1) for f in first], dtype=np.int64)


def _vocabulary(responses: list[list[str]], size: int | None) -> tuple[str, ...]:
    counts = Counter(chain.from_iterable(responses))
    if size is None:
        return (EOS, *(token for token, _ in counts.most_common()))
    if len(counts) < size - 2:
        raise InvalidInput(
            [f"vocab_size={size} needs {size - 2} different tokens, the text has {len(counts)}"]
        )
    return (EOS, *(token for token, _ in counts.most_common(size - 2)), UNKNOWN)


def _counts(sequences: list[list[int]], vocab: int, order: int) -> list[FloatArray]:
    """For context lengths 0..order: ((vocab-1)^length contexts, vocab) counts of next tokens.

    Contexts shorter than ``order`` are those at a sequence's start; EOS, token 0, is in none.
    """
    counts = [np.zeros(((vocab - 1) ** length, vocab)) for length in range(order + 1)]
    for (*before, token), number in count_ngrams(sequences, order, start=0, end=0).items():
        context = [word - 1 for word in before if word != 0]
        code = 0
        for word in context:
            code = code * (vocab - 1) + word
        counts[len(context)][code, token] = number
    return counts


def _normalised(counts: Any, fallback: FloatArray) -> FloatArray:
    total = counts.sum(-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), fallback)
