"""N-gram models of real text: the experts of `TokenMDP.from_text`."""

from __future__ import annotations

from collections import Counter
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
    if unit not in ("word", "char"):
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
    unknown = len(vocabulary) - 1
    lengths = np.array([len(r) for r in responses])
    flat = np.fromiter(
        (index.get(t, unknown) for t in chain.from_iterable(responses)),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    reach = min(order, horizon - 1)
    laws = _laws(flat, lengths, owner, prompts, vocab, reach, smoothing)
    return NGrams(vocabulary, names, reach, laws)


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


def _laws(
    flat: IntArray,
    lengths: IntArray,
    owner: IntArray,
    prompts: int,
    vocab: int,
    order: int,
    smoothing: float,
) -> list[FloatArray]:
    """For context lengths 0..order: (prompts, (vocab-1)^length contexts, vocab) next-token laws."""
    ends = np.cumsum(lengths + 1) - 1  # every text is followed by its EOS, token 0
    stream = np.zeros(len(flat) + len(lengths), dtype=np.int64)
    inner = np.ones(len(stream), dtype=bool)
    inner[ends] = False
    stream[inner] = flat
    position = np.arange(len(stream)) - np.repeat(ends - lengths, lengths + 1)
    owners = np.repeat(owner, lengths + 1)
    base = vocab - 1
    laws = []
    for length in range(order + 1):
        seen = position >= length if length == order else position == length
        at = np.flatnonzero(seen)
        code = np.zeros(len(at), dtype=np.int64)
        for back in range(length, 0, -1):
            code = code * base + stream[at - back] - 1
        cell = code * vocab + stream[at]
        cells = base**length * vocab
        pooled = np.bincount(cell, minlength=cells).reshape(-1, vocab) + float(smoothing)
        whole = _normalised(pooled, np.full(vocab, 1.0 / vocab))
        if prompts == 1:
            laws.append(whole[None])
            continue
        own = owners[at] >= 0
        seen_in = np.bincount((owners[at] * cells + cell)[own], minlength=prompts * cells)
        counts = seen_in.reshape(prompts, -1, vocab) + smoothing * vocab * whole
        laws.append(_normalised(counts, whole))
    return laws


def _normalised(counts: Any, fallback: FloatArray) -> FloatArray:
    total = counts.sum(-1, keepdims=True)
    return np.where(total > 0, counts / np.where(total > 0, total, 1.0), fallback)
