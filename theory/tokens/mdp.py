"""Token MDPs: prompts, a vocabulary with an end-of-sequence token, responses of variable length.

A state is a prompt with the tokens written so far, s_h = (x, y_<h); an action is the next token
y_h; a response ends at EOS or after `horizon` tokens (section 0 of the theory).  On the tree,
policies pi(a|s) and sequence laws pi(y|x) = prod_h pi(y_h|s_h) are in bijection.  On merged states
(the last k tokens) a policy is the class of order-k models, and the graph is a layered DAG.

Arrays are named by their index: policies and rewards are (..., S states, A actions), state values
(..., S), sequence laws (..., prompts, N responses).  Policies are log-probabilities in nats; -inf
is allowed everywhere and never turns into NaN.  Every recursion loops over depth alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from theory import laws
from theory.errors import InvalidInput
from theory.tokens.ngram import ngrams
from theory.tokens.recursions import TokenRecursions
from theory.tokens.tree import (
    MAX_STATE_ACTIONS,
    ROW_TOLERANCE,
    FloatArray,
    IntArray,
    check_layout,
    check_tree,
    is_whole,
    numbers,
    tree_layout,
)


class TokenResponse(NamedTuple):
    """One complete response: its prompt's index, its tokens, and its text if tokens have names."""

    prompt: int
    tokens: tuple[int, ...]
    text: str


@dataclass(frozen=True, eq=False, repr=False)
class TokenMDP(TokenRecursions):
    """A layered graph of states with token actions; build it with `tree`, `random`, `from_arrays`
    or `from_text`.

    next_state: (S, A) integers, the state after action a, or -1 where the response ends.
    depth, prompt: (S,) integers; states are sorted by depth and the first ones are the prompts.
    allowed: (S, A) booleans; actions that are not allowed have probability 0 in every policy.
    eos: index of the end-of-sequence token, or None.
    vocabulary, prompt_names: readable names, if any.
    expert: (S, A) log-policy of the expert, if the game came with one.
    source, source_state: the game whose states were merged into this one, and the merged state of
        each of its states.

    Raises InvalidInput with every problem of the arrays at once.
    """

    # ------------------------------------------------------------------ construction

    @classmethod
    def tree(
        cls,
        vocab: int,
        horizon: int,
        prompts: int = 1,
        eos: int | None = 0,
        order: int | None = None,
        vocabulary: Sequence[str] | None = None,
        prompt_names: Sequence[str] | None = None,
        max_state_actions: int = MAX_STATE_ACTIONS,
    ) -> TokenMDP:
        """The full tree of `vocab` tokens (EOS included; eos=None: every response has full length).

        With `order=k` states that share depth and the last k tokens are merged from the start, so
        that large horizons need no tree.  Raises InvalidInput, with the size, before allocating
        more than `max_state_actions` state-action pairs.
        """
        check_tree(vocab, horizon, prompts, eos, order, max_state_actions)
        next_state, depth, prompt = tree_layout(vocab, horizon, prompts, eos, order)
        return cls(
            next_state,
            depth,
            prompt,
            np.ones(next_state.shape, dtype=bool),
            eos,
            _names("vocabulary", vocabulary),
            _names("prompt_names", prompt_names),
        )

    @classmethod
    def random(
        cls,
        vocab: int = 4,
        horizon: int = 3,
        seed: int | None = 0,
        rng: np.random.Generator | None = None,
        prompts: int = 1,
        order: int | None = None,
        eos: int | None = 0,
        concentration: float = 1.0,
    ) -> TokenMDP:
        """`tree(...)` with a random expert: next-token laws drawn from a Dirichlet distribution.

        Drawn from `rng`, or from a generator seeded with `seed` if rng is None.  Raises
        InvalidInput for a seed that is none, a generator of another kind, and as `tree` does.
        """
        problems = []
        if not (seed is None or is_whole(seed, 0)):
            problems.append(f"seed must be a whole number >= 0 or None, got {seed!r}")
        if not (rng is None or isinstance(rng, np.random.Generator)):
            problems.append(f"rng must be a numpy Generator or None, got {type(rng).__name__}")
        if problems:
            raise InvalidInput(problems)
        game = cls.tree(vocab, horizon, prompts, eos, order)
        generator = np.random.default_rng(seed) if rng is None else rng
        return replace(game, expert=game.random_policy(generator, concentration))

    @classmethod
    def from_arrays(
        cls,
        next_state: ArrayLike,
        depth: ArrayLike | None = None,
        prompt: ArrayLike | None = None,
        allowed: ArrayLike | None = None,
        eos: int | None = None,
        vocabulary: Sequence[str] | None = None,
        prompt_names: Sequence[str] | None = None,
        expert: ArrayLike | None = None,
    ) -> TokenMDP:
        """A game from given arrays (see the class); `depth` and `prompt` are derived if left out.

        Raises InvalidInput naming every inconsistency and the states where it occurs.
        """
        arrays = check_layout(next_state, depth, prompt, allowed)
        try:
            kept = expert.dtype if isinstance(expert, np.ndarray) else np.float64
            given = None if expert is None else np.array(expert, dtype=kept)
        except (TypeError, ValueError, OverflowError) as error:
            sentence = f"expert must be an array of log-probabilities ({error})"
            raise InvalidInput([sentence]) from error
        return cls(
            *arrays,
            eos=eos,
            vocabulary=_names("vocabulary", vocabulary),
            prompt_names=_names("prompt_names", prompt_names),
            expert=given,
        )

    @classmethod
    def from_text(
        cls,
        texts: Iterable[Any],
        vocab_size: int | None = None,
        horizon: int = 6,
        order: int = 1,
        prompts: int = 1,
        smoothing: float = 0.1,
        unit: str = "word",
        tree: bool = False,
        max_state_actions: int = MAX_STATE_ACTIONS,
    ) -> TokenMDP:
        """A game over the tokens of real text, with the text's n-gram model as `expert`.

        texts: strings, or (prompt, response) pairs (of which the response is modelled).
        vocab_size: the commonest tokens, end-of-sequence (index 0) and "<unk>" (the last, all rarer
            tokens) included; None: all tokens of the texts, and no "<unk>".
        horizon: a response is the first `horizon` tokens of a text, or all of it and EOS.
        order: the next token depends on the last `order` tokens; before the `order`-th token, on
            all tokens since the start of the text.
        prompts: 1 (one prompt that says nothing), or the number of prompts: the commonest first
            tokens, of the prompt's text for pairs, of the text itself for strings (the response is
            the rest).
        smoothing: k >= 0 of add-k smoothing, in counts a token; with several prompts, k vocab_size
            pseudo-counts follow the model of all prompts together.  Contexts never seen are
            uniform.
        unit: "word" or "char".
        tree: the full tree of prefixes, instead of states merged to (prompt, depth, last tokens).

        The expert is a (S, A) log-policy.  Raises InvalidInput for settings out of range, a text
        with fewer distinct tokens or prompts than asked for, and games too large to enumerate.

        >>> game = TokenMDP.from_text(["the cat sat", "the dog ran", "a cat ran"], smoothing=0.0)
        >>> game.vocabulary
        ('</s>', 'the', 'cat', 'ran', 'sat', 'dog', 'a')
        >>> np.exp(game.expert[0]).round(3).tolist()
        [0.0, 0.667, 0.0, 0.0, 0.0, 0.0, 0.333]
        """
        model = ngrams(
            texts, vocab_size, horizon, order, prompts, smoothing, unit, tree, max_state_actions
        )
        game = cls.tree(
            len(model.vocabulary), horizon, prompts, 0, None if tree else order,
            model.vocabulary, model.prompt_names, max_state_actions,
        )  # fmt: skip
        expert = model.expert(horizon)
        if tree:
            where = game.merged(order).source_state
            assert where is not None
            expert = expert[where]
        with np.errstate(divide="ignore"):
            return replace(game, expert=np.log(expert))

    # ------------------------------------------------------------------ sequence laws

    @property
    def n_responses(self) -> int:
        """N, the largest number of complete responses of a prompt (of the unrolled tree)."""
        return int(self.unrolled()[0].responses.shape[1])

    def unrolled(self) -> tuple[TokenMDP, IntArray]:
        """The tree of all prefixes, and the state of this game that each of its states belongs to.

        A tree is its own.  Raises InvalidInput, with the size, for trees too large to enumerate.
        """
        if self.is_tree:
            return self, np.arange(self.n_states)
        if self.source is not None and self.source_state is not None and self.source.is_tree:
            return self.source, self.source_state
        return self._unrolled

    @cached_property
    def _unrolled(self) -> tuple[TokenMDP, IntArray]:
        paths = np.zeros(self.n_states + 1)
        for first, last in reversed(self.layers):
            paths[first:last] = 1.0 + paths[self.next_state[first:last]].sum(-1)
        count = paths[: self.n_prompts].sum() * self.n_actions
        if count > MAX_STATE_ACTIONS:
            raise InvalidInput(
                [
                    f"the tree behind {self!r} has {count:,.0f} state-action pairs, more than "
                    f"{MAX_STATE_ACTIONS:,}: it cannot be enumerated; use per-token quantities"
                ]
            )
        layer = np.arange(self.n_prompts)
        nodes, rows, done = [layer], [], self.n_prompts
        while len(layer):
            following = self.next_state[layer]
            inner = following >= 0
            layer = following[inner]
            rows.append(np.where(inner, done + np.cumsum(inner).reshape(inner.shape) - 1, -1))
            done += len(layer)
            nodes.append(layer)
        where = np.concatenate(nodes)
        tree = TokenMDP(
            np.concatenate(rows),
            self.depth[where],
            self.prompt[where],
            self.allowed[where],
            self.eos,
            self.vocabulary,
            self.prompt_names,
            None if self.expert is None else self.expert[where],
        )
        return tree, where

    def lift(self, per_state: ArrayLike) -> FloatArray:
        """An (..., S, A) array of this game on the states of its tree (`unrolled`)."""
        return self.per_state_action(per_state, "per_state")[..., self.unrolled()[1], :]

    def sequence_sum(self, per_state_action: ArrayLike, padding: float = 0.0) -> FloatArray:
        """(..., prompts, N) sum of f(s, a) along every complete response.

        +inf and -inf on one response count as 0 (probability 0 on both sides is ignored).
        """
        tree, where = self.unrolled()
        summand = self.per_state_action(per_state_action, "per_state_action")
        if np.isnan(summand).any():
            raise InvalidInput(["per_state_action has NaN entries"])
        if not laws.is_real(padding):
            raise InvalidInput([f"padding must be a number, got {padding!r}"])
        if tree is not self:
            summand = summand[..., where, :]
        with np.errstate(invalid="ignore"):
            sums = tree.forward(summand, log=True)[1].reshape(*summand.shape[:-2], -1)
        sums = np.where(np.isnan(sums), 0.0, sums)
        ended = np.take(sums, tree.responses, axis=-1)
        return np.where(tree.responses >= 0, ended, padding)

    def log_sequence_law(self, log_policy: ArrayLike) -> FloatArray:
        """(..., prompts, N) log pi(y|x) of every response; -inf where a prompt has fewer."""
        return self.sequence_sum(self.validate_policy(log_policy), padding=-np.inf)

    def sequence_law(self, log_policy: ArrayLike) -> FloatArray:
        """(..., prompts, N) probabilities of the complete responses; 0 where a prompt has fewer."""
        return np.exp(self.log_sequence_law(log_policy))

    def policy_from_log_law(self, log_law: ArrayLike) -> FloatArray:
        """(..., S, A) log-policy of log pi(y|x), inverse of `log_sequence_law` (trees only).

        States of probability 0 get a uniform policy.  Raises InvalidInput for NaN, wrong shapes,
        laws that do not sum to 1, and probability on padding.
        """
        rounding = laws.rounding_of(log_law, ROW_TOLERANCE)
        return self._from_log_law(numbers("law", log_law), rounding)

    def _from_log_law(self, law: FloatArray, tolerance: float) -> FloatArray:
        problems = self._law_shape_problems(law, "law")
        if not problems:
            live = self.responses >= 0
            if np.isnan(law).any():
                problems.append("law has NaN entries")
            else:
                total = np.exp(np.where(live, law, -np.inf)).sum(-1)
                off = np.argwhere(np.abs(total - 1.0) > tolerance)
                for *batch, prompt in off[:3]:
                    which = f"{prompt} of batch {batch}" if batch else f"{prompt}"
                    problems.append(
                        f"law of prompt {which} sums to {total[(*batch, prompt)]:.9g}, not 1 "
                        f"(to within {tolerance:g})"
                    )
                if (law[..., ~live] > -np.inf).any():
                    problems.append("law has probability on padding (prompts with fewer responses)")
        if problems:
            raise InvalidInput(problems)
        inner = np.where(self.next_state >= 0, 0.0, -np.inf)
        payoff = np.where(self.next_state >= 0, inner, self._spread(law, -np.inf))
        return self.backward(payoff, 1.0)[0]

    def policy_from_law(self, law: ArrayLike) -> FloatArray:
        """(..., S, A) log-policy of a sequence law (..., prompts, N), inverse of `sequence_law`."""
        given = numbers("law", law)
        if (given < 0).any():
            raise InvalidInput([f"law has negative entries, the least is {given.min():.3g}"])
        with np.errstate(divide="ignore"):
            log_law = np.log(given)
        return self._from_log_law(log_law, laws.rounding_of(law, ROW_TOLERANCE))

    @cached_property
    def sequence_tokens(self) -> IntArray:
        """(prompts, N, horizon) tokens of the complete responses, padded with -1."""
        tree = self.unrolled()[0]
        state, action = np.divmod(tree.responses, tree.n_actions)
        tokens = np.concatenate([tree.prefixes[state], np.full((*state.shape, 1), -1)], axis=-1)
        np.put_along_axis(tokens, tree.depth[state][..., None], action[..., None], axis=-1)
        return np.where((tree.responses >= 0)[..., None], tokens, -1)

    def sequences(self) -> list[list[TokenResponse]]:
        """For every prompt its complete responses, in the order of the sequence laws, readable."""
        out = []
        for prompt, table in enumerate(self.sequence_tokens.tolist()):
            rows = [tuple(t for t in row if t >= 0) for row in table]
            out.append([TokenResponse(prompt, row, self.decode(row)) for row in rows if row])
        return out

    # ------------------------------------------------------------------ merged states

    def merged(self, order: int) -> TokenMDP:
        """The game whose states are (prompt, depth, last `order` tokens).

        Its `source` is this game and `source_state[s]` the merged state of state s.  The expert is
        carried over by `merge_policy`.  Raises InvalidInput if states that would be merged allow
        different actions, or do not determine their last tokens.
        """
        if not is_whole(order, 0):
            raise InvalidInput([f"order must be a whole number >= 0, got {order!r}"])
        kept = np.full((self.n_states, order), -1, dtype=np.int64)
        for back in range(min(order, self.horizon - 1)):
            level = self.depth - 1 - back
            seen = level >= 0
            kept[seen, back] = self.prefixes[seen, level[seen]]
        keys = np.column_stack([self.depth, self.prompt, kept[:, ::-1]])
        _, first, where = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        where = where.reshape(-1)
        problems = []
        state, action = np.nonzero(self.next_state >= 0)
        target = self.next_state[state, action]
        if order and (kept[target, 0] != action).any():
            problems.append("states do not determine their last token, so they cannot be merged")
        elif order > 1 and (kept[target, 1:] != kept[state, :-1]).any():
            problems.append(f"states do not determine their last {order} tokens")
        following = np.where(self.next_state >= 0, where[self.next_state], -1)
        for name, array in (
            ("allow different actions", self.allowed),
            ("end differently", following),
        ):
            clash = (array != array[first][where]).any(-1)
            if clash.any():
                state_a = int(np.flatnonzero(clash)[0])
                named = f"{self.describe(int(first[where[state_a]]))} and {self.describe(state_a)}"
                problems.append(f"states that share the last {order} tokens {name}: {named}")
        if problems:
            raise InvalidInput(problems)
        game = TokenMDP(
            following[first],
            self.depth[first],
            self.prompt[first],
            self.allowed[first],
            self.eos,
            self.vocabulary,
            self.prompt_names,
            source=self,
            source_state=where,
        )
        if self.expert is None:
            return game
        return replace(game, expert=game.merge_policy(self.expert))

    def merge_policy(self, log_policy: ArrayLike) -> FloatArray:
        """(..., S, A) log-policy of this merged game with the occupancy of a policy of its source.

        Merged states that are never reached get a uniform policy.
        """
        if self.source is None or self.source_state is None:
            raise InvalidInput(["merge_policy needs a game made by merged(order)"])
        flow = self.source.log_occupancy(log_policy)
        order = np.argsort(self.source_state, kind="stable")
        starts = np.searchsorted(self.source_state[order], np.arange(self.n_states))
        pooled = np.logaddexp.reduceat(flow[..., order, :], starts, axis=-2)
        total = np.logaddexp.reduce(pooled, axis=-1, keepdims=True)
        dead = np.isneginf(total)
        return np.where(dead, self.uniform_policy(), pooled - np.where(dead, 0.0, total))


def _names(what: str, given: Any) -> tuple[str, ...] | None:
    """Names as a tuple. InvalidInput: not a sequence."""
    if given is None:
        return None
    if not isinstance(given, Iterable):
        raise InvalidInput([f"{what} must be a sequence of names, got {type(given).__name__}"])
    return tuple(given)
