"""Random token MDPs for property tests, and their responses listed one by one."""

import numpy as np
from hypothesis import strategies as st

from theory import TokenMDP


def pruned(vocab: int, horizon: int, prompts: int, rng: np.random.Generator) -> TokenMDP:
    """A tree with some actions forbidden or ending early, so that prompts differ in responses."""
    full = TokenMDP.tree(vocab, horizon, prompts, eos=None)
    allowed = rng.random(full.allowed.shape) < 0.75
    allowed[np.arange(full.n_states), rng.integers(vocab, size=full.n_states)] = True
    goes_on = allowed & (full.next_state >= 0) & (rng.random(allowed.shape) < 0.8)
    kept = np.zeros(full.n_states, dtype=bool)
    kept[: full.n_prompts] = True
    for first, last in full.layers:
        leaving = goes_on[first:last] & kept[first:last, None]
        kept[full.next_state[first:last][leaving]] = True
    number = np.cumsum(kept) - 1
    following = np.where(goes_on, number[full.next_state], -1)[kept]
    return TokenMDP.from_arrays(following, allowed=allowed[kept])


@st.composite
def games(draw: st.DrawFn, max_horizon: int = 4, tree: bool = True) -> tuple:
    """(game, generator): a full tree, a pruned one, or (tree=False) a merged one."""
    vocab = draw(st.integers(2, 4))
    horizon = draw(st.integers(1, max_horizon))
    prompts = draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    if not tree and draw(st.booleans()):
        return TokenMDP.tree(vocab, horizon, prompts, order=draw(st.integers(0, 2))), rng
    if draw(st.booleans()):
        return pruned(vocab, horizon, prompts, rng), rng
    return TokenMDP.tree(vocab, horizon, prompts, eos=draw(st.sampled_from([None, 0, 1]))), rng


def enumerate_responses(game: TokenMDP) -> list[dict]:
    """Per prompt {tokens: [(state, action), ...]}, by plain recursion: the independent oracle."""

    def below(state: int) -> dict:
        out = {}
        for action in np.flatnonzero(game.allowed[state]).tolist():
            after = int(game.next_state[state, action])
            tails = {(): []} if after < 0 else below(after)
            out |= {(action, *t): [(state, action), *path] for t, path in tails.items()}
        return out

    return [below(prompt) for prompt in range(game.n_prompts)]


def with_zeros(policy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    cut = np.where(rng.random(policy.shape) < 0.3, -np.inf, policy)
    cut = np.where(np.isneginf(cut).all(-1, keepdims=True), policy, cut)
    return cut - np.logaddexp.reduce(cut, axis=-1, keepdims=True)
