"""T14: one loss per token against rounds with continuation values; where the two are one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.rounds.token_loss.losses import SPIN
from theory import TokenMDP, laws, self_play
from theory.result import FloatArray


def spins_rounds(
    game: TokenMDP, p: FloatArray, start: FloatArray, beta: float
) -> tuple[FloatArray, FloatArray]:
    """Policies after a round of one loss per token, and of soft value iteration."""
    token, whole = (
        self_play(p, start, SPIN, beta, 1, game=game, level="conditional", one_step=one_step)
        for one_step in (True, False)
    )
    return game.sequence_law(token.policy), game.sequence_law(whole.policy)


@pytest.mark.claim("T14.token_values", regime="tabular")
@given(seed=st.integers(0, 2**31), beta=st.floats(0.6, 3.0))
def test_values_are_divergences_of_what_follows(claim, seed: int, beta: float) -> None:
    rng = np.random.default_rng(seed)
    game = TokenMDP.tree(vocab=3, horizon=2, eos=None)
    p, start = game.random_policy(rng, 2.0), game.random_policy(rng, 2.0)
    u = game.conditional_logratio(p, start)
    values = game.soft_value_iteration(u, start, beta).V
    power = np.exp(p / beta + (1 - 1 / beta) * start)  # of last tokens: all that follows them
    claim.close(values[1:], beta * np.log(power[1:].sum(-1)), 1e-9, what="V of the last prefixes")
    whole = [game.log_sequence_law(law) for law in (p, start)]
    power = np.exp(whole[0] / beta + (1 - 1 / beta) * whole[1])
    claim.close(values[:1], beta * np.log(power.sum(-1)), 1e-9, what="V of the prompt")
    rows = np.exp(p[0]), np.exp(start[0])
    independent = [np.log(np.tile(row, (game.n_states, 1))) for row in rows]
    token, with_values = spins_rounds(game, *independent, beta)
    claim.close(token, with_values, 1e-10, what="independent positions: both rounds")
    token, with_values = spins_rounds(game, p, start, 1.0)
    claim.close(token, with_values, 1e-10, what="beta = 1: both rounds")


@pytest.mark.claim("T14.token_values", regime="tabular", drops="equal_values")
def test_where_values_differ_the_rounds_do(claim) -> None:
    rng = np.random.default_rng(0)
    game = TokenMDP.tree(vocab=3, horizon=3, eos=None)
    p, start = game.random_policy(rng, 1.0), game.random_policy(rng, 1.0)
    token, with_values = spins_rounds(game, p, start, 2.0)
    claim.exhibits(laws.total_variation(token, with_values), 0.02, what="TV of the two rounds")
