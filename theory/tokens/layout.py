"""The states of a token MDP: fields, sizes, names, and the check of policies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from theory import arguments
from theory.errors import InvalidInput, refuse
from theory.laws import is_real
from theory.tokens.tree import (
    BoolArray,
    FloatArray,
    IntArray,
    check_layout,
    is_whole,
    policy_of,
    policy_problems,
)


@dataclass(frozen=True, eq=False, repr=False)
class TokenLayout:
    """Fields and names of a token MDP; see `theory.tokens.mdp.TokenMDP`."""

    next_state: IntArray
    depth: IntArray
    prompt: IntArray
    allowed: BoolArray
    eos: int | None = None
    vocabulary: tuple[str, ...] | None = None
    prompt_names: tuple[str, ...] | None = None
    expert: FloatArray | None = None
    source: Any = None
    source_state: IntArray | None = None

    def __post_init__(self) -> None:
        arrays = check_layout(self.next_state, self.depth, self.prompt, self.allowed)
        for name, array in zip(("next_state", "depth", "prompt", "allowed"), arrays, strict=True):
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        problems = []
        if self.eos is not None and not (is_whole(self.eos, 0) and self.eos < self.n_actions):
            problems.append(
                f"eos must be a token index in 0..{self.n_actions - 1}, got {self.eos!r}"
            )
        elif self.eos is not None and (self.next_state[:, self.eos] >= 0).any():
            problems.append(f"the end-of-sequence token {self.eos} must end every response")
        for name, names, count in (
            ("vocabulary", self.vocabulary, self.n_actions),
            ("prompt_names", self.prompt_names, self.n_prompts),
        ):
            if names is not None and len(names) != count:
                problems.append(f"{name} must have {count} entries, got {len(names)}")
        if not problems and self.expert is not None:
            problems += policy_problems(self.expert, self.allowed, self.describe, "expert")
            if np.ndim(self.expert) != 2:
                problems.append("expert must be one (states, actions) policy, without batch axes")
        if problems:
            raise InvalidInput(problems)
        if self.expert is not None:
            object.__setattr__(self, "expert", policy_of(self.expert))

    # ------------------------------------------------------------------ sizes and names

    @property
    def n_states(self) -> int:
        """Number of states S."""
        return int(self.next_state.shape[0])

    @property
    def n_actions(self) -> int:
        """Number of actions A: tokens, the end included."""
        return int(self.next_state.shape[1])

    @property
    def n_prompts(self) -> int:
        """Number of prompts: states 0 to n_prompts - 1 are their starts."""
        return int(self.prompt.max()) + 1

    @property
    def horizon(self) -> int:
        """Largest number of tokens of a response."""
        return int(self.depth[-1]) + 1

    @cached_property
    def is_tree(self) -> bool:
        """Whether no state is reached on two ways."""
        return len(self.edges) == self.n_states - self.n_prompts

    @cached_property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(first, last + 1) state of every depth."""
        bounds = np.searchsorted(self.depth, np.arange(self.horizon + 1))
        return tuple((int(a), int(b)) for a, b in pairwise(bounds))

    @cached_property
    def edges(self) -> IntArray:
        """Flat state-action index of every edge, sorted by the state that it leads to."""
        flat = self.next_state.reshape(-1)
        inner = np.flatnonzero(flat >= 0)
        return inner[np.argsort(flat[inner], kind="stable")]

    @cached_property
    def edge_start(self) -> IntArray:
        """(S + 1,): the edges to state s are ``edges[edge_start[s]:edge_start[s + 1]]``."""
        flat = self.next_state.reshape(-1)
        counts = np.bincount(flat[flat >= 0], minlength=self.n_states)
        return np.concatenate([[0], np.cumsum(counts)])

    @cached_property
    def responses(self) -> IntArray:
        """(prompts, N) flat state-action index at which each response ends, padded with -1."""
        state, action = np.nonzero(self.allowed & (self.next_state < 0))
        owner = self.prompt[state]
        order = np.argsort(owner, kind="stable")
        counts = np.bincount(owner, minlength=self.n_prompts)
        table = np.full((self.n_prompts, counts.max()), -1, dtype=np.int64)
        table[np.arange(counts.max()) < counts[:, None]] = (state * self.n_actions + action)[order]
        return table

    @cached_property
    def prefixes(self) -> IntArray:
        """(S, horizon - 1) tokens written before each state, padded with -1 (for a merged state:
        those of one of the paths that lead to it)."""
        tokens = np.full((self.n_states, max(self.horizon - 1, 0)), -1, dtype=np.int64)
        for level, (first, last) in enumerate(self.layers[1:]):
            state, action = np.divmod(self.edges[self.edge_start[first:last]], self.n_actions)
            tokens[first:last] = tokens[state]
            tokens[first:last, level] = action
        return tokens

    def describe(self, state: int) -> str:
        """A state in words, for messages: index, prompt, tokens before it."""
        prompt = self.prompt[state]
        name = f"{prompt}" if self.prompt_names is None else repr(self.prompt_names[prompt])
        tokens = [t for t in self.prefixes[state].tolist() if t >= 0]
        return f"state {state} (prompt {name}, after {self.decode(tokens) or 'no tokens'})"

    def decode(self, tokens: Sequence[int]) -> str:
        """Tokens as text: their names, or their numbers, separated by spaces.

        InvalidInput: something else than tokens of the game.
        """
        names = self.vocabulary or range(self.n_actions)
        try:
            return " ".join(str(names[token]) for token in tokens)
        except (TypeError, IndexError):
            needed = f"token indices in 0..{self.n_actions - 1}"
            raise InvalidInput([f"tokens must be {needed}, got {tokens!r}"]) from None

    def __repr__(self) -> str:
        kind = "tree" if self.is_tree else "merged"
        return (
            f"TokenMDP({kind}, states={self.n_states}, actions={self.n_actions}, "
            f"horizon={self.horizon}, prompts={self.n_prompts})"
        )

    # ------------------------------------------------------------------ policies

    def uniform_policy(self) -> FloatArray:
        """(S, A) log-policy, uniform over the allowed actions."""
        return np.where(self.allowed, -np.log(self.allowed.sum(-1, keepdims=True)), -np.inf)

    def random_policy(
        self, rng: np.random.Generator, concentration: float = 1.0, batch: tuple[int, ...] = ()
    ) -> FloatArray:
        """(*batch, S, A) log-policy, each row drawn from a symmetric Dirichlet distribution."""
        refuse(arguments.generator("rng", rng) + arguments.shape("batch", batch))
        if not (is_real(concentration) and np.isfinite(concentration) and concentration > 0):
            sentence = f"concentration must be positive and finite, got {concentration!r}"
            raise InvalidInput([sentence])
        shape = (*batch, self.n_states, self.n_actions)
        # log of a Gamma(c) variable without underflow at small c: Gamma(c + 1) U^{1/c}
        logits = np.log(rng.gamma(concentration + 1.0, size=shape))
        logits += np.log1p(-rng.random(shape)) / concentration
        logits = np.where(self.allowed, logits, -np.inf)
        return logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)

    def validate_policy(self, log_policy: ArrayLike, what: str = "policy") -> FloatArray:
        """`log_policy` as float64 if it is a policy of this game; else InvalidInput with all
        problems (shape, NaN, rows that do not sum to 1, actions not allowed) and where they are."""
        problems = policy_problems(log_policy, self.allowed, self.describe, what)
        if problems:
            raise InvalidInput(problems)
        return policy_of(log_policy)
