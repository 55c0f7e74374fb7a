"""A token MDP whose expert is an n-gram model estimated from real text."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np

from theory.errors import InvalidInput
from theory.laws import is_real
from theory.tokens import text
from theory.tokens.mdp import TokenMDP
from theory.tokens.tree import MAX_STATE_ACTIONS, FloatArray, IntArray, check_tree, is_whole

EOS, UNKNOWN = "</s>", "<unk>"


def ngram_game(
    texts: Any,
    vocab_size: int = 50,
    horizon: int = 6,
    order: int = 1,
    prompts: int = 1,
    smoothing: float = 0.1,
    unit: str = "word",
    tree: bool = False,
    max_state_actions: int = MAX_STATE_ACTIONS,
) -> TokenMDP:
    """A game over the commonest tokens of real text, with the text's n-gram model as `expert`.

    texts: strings, or (prompt, response) pairs (of which the response is modelled).
    vocab_size: tokens, end-of-sequence (index 0) and "<unk>" (the last, all rarer tokens) included.
    horizon: a response is the first `horizon` tokens of a text, or all of it and EOS.
    order: the next token depends on the last `order` tokens; before the `order`-th token, on all
        tokens since the start of the text.
    prompts: 1 (one prompt that says nothing), or the number of prompts: the commonest first tokens,
        of the prompt's text for pairs, of the text itself for strings (the response is the rest).
    smoothing: k >= 0 of add-k smoothing, in counts a token; with several prompts, k vocab_size
        pseudo-counts follow the model of all prompts together.  Contexts never seen are uniform.
    unit: "word" or "char".
    tree: the full tree of prefixes, instead of states merged to (prompt, depth, last tokens).

    The expert is a (S, A) log-policy.  Raises InvalidInput for settings out of range, a text with
    fewer distinct tokens or prompts than asked for, and games too large to enumerate.
    """
    problems = []
    if unit not in ("word", "char"):
        problems.append(f"unit must be 'word' or 'char', got {unit!r}")
    if not (is_real(smoothing) and np.isfinite(smoothing) and smoothing >= 0):
        problems.append(f"smoothing must be a finite number >= 0, got {smoothing!r}")
    if not is_whole(order, 0):
        problems.append(f"order must be a whole number >= 0, got {order!r}")
    if not is_whole(vocab_size, 3):
        problems.append(
            "vocab_size must be a whole number of at least 3 (end of sequence, <unk> and a token), "
            f"got {vocab_size!r}"
        )
    if problems:
        raise InvalidInput(problems)
    check_tree(vocab_size, horizon, prompts, 0, None if tree else order, max_state_actions)
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
    index = {token: i for i, token in enumerate(vocabulary)}
    unknown = len(vocabulary) - 1
    lengths = np.array([len(r) for r in responses])
    flat = np.fromiter(
        (index.get(t, unknown) for t in chain.from_iterable(responses)),
        dtype=np.int64,
        count=int(lengths.sum()),
    )
    laws = _laws(flat, lengths, owner, prompts, vocab_size, min(order, horizon - 1), smoothing)
    expert = np.concatenate([laws[min(d, order)].reshape(-1, vocab_size) for d in range(horizon)])
    game = TokenMDP.tree(
        vocab_size, horizon, prompts, 0, None if tree else order, vocabulary, names,
        max_state_actions,
    )  # fmt: skip
    if tree:
        where = game.merged(order).source_state
        assert where is not None
        expert = expert[where]
    with np.errstate(divide="ignore"):
        return replace(game, expert=np.log(expert))


def _prompts(first: list[str], prompts: int) -> tuple[tuple[str, ...], IntArray]:
    """Names of the commonest first tokens and, for every text, its prompt (-1: another one)."""
    counts = Counter(f for f in first if f)
    if len(counts) < prompts:
        raise InvalidInput([f"prompts={prompts}, but only {len(counts)} different first tokens"])
    names = tuple(name for name, _ in counts.most_common(prompts))
    number = {name: i for i, name in enumerate(names)}
    return names, np.array([number.get(f, -1) for f in first], dtype=np.int64)


def _vocabulary(responses: list[list[str]], size: int) -> tuple[str, ...]:
    counts = Counter(chain.from_iterable(responses))
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
