"""open_spiel agrees: exploitability, magnetic mirror descent and its limit, on the same games.

Its matrix games have a payoff for each player; here ``2P - 1`` and its negative. Its exploitability
is the mean over both players of what a best response gains, hence our duality gap in this scale.
"""

import numpy as np
import pandas as pd
import pyspiel
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_spiel.python import policy as spiel_policy
from open_spiel.python.algorithms import exploitability, mmd_dilated

from theory import laws, preferences
from toy_games.dynamics.preference_rounds import GAMES, PreferenceRounds, games
from toy_games.dynamics.preference_sgd import PreferenceSGD


def turn_based(P, scale=1.0):
    payoff = scale * (2.0 * P - 1.0)
    return pyspiel.convert_to_turn_based(pyspiel.create_matrix_game(payoff, -payoff))


def both_play(game, law):
    tabular = spiel_policy.TabularPolicy(game)
    tabular.action_probability_array[:] = law
    return tabular


CASES = {
    "kind": st.sampled_from(GAMES),
    "n": st.integers(3, 6),
    "seed": st.integers(0, 2**31 - 1),
}


def drawn(kind, n, seed):
    rng = np.random.default_rng(seed)
    P = games(kind, n, [rng], 0.9)[0]
    return P, rng


@pytest.mark.claim("T12.equilibria", regime="tabular", of="games")
@settings(max_examples=10)
@given(**CASES)
def test_exploitability_is_open_spiels(claim, kind, n, seed):
    """Of sampled rounds' last and average policies."""
    P, rng = drawn(kind, n, seed)
    start = laws.random_law(rng, (len(P),), 0.7)
    run = PreferenceRounds("sppo", pd.DataFrame({"seed": [seed], "samples": [4]}), P, start)
    state = run.start()
    for t in range(15):
        state = run.advance(state, t)
    ours = run.measure(state, 15)
    for name, law in (("gap", state["log_law"].exp()), ("average_gap", state["total"] / 15)):
        law = law[0].numpy() / law[0].numpy().sum()
        full, half = turn_based(P), turn_based(P, 0.5)
        theirs = exploitability.exploitability(full, both_play(full, law))
        claim.close(ours[name][0], theirs, 1e-12, what=f"{name} against their exploitability")
        conv = exploitability.nash_conv(full, both_play(full, law))
        claim.close(conv, 2.0 * theirs, 1e-12, what="NashConv is the sum over both players")
        theirs = exploitability.exploitability(half, both_play(half, law))
        claim.close(
            preferences.exploitability(P, law), theirs, 1e-12, what="exploitability, payoff P - 1/2"
        )


@pytest.mark.claim("T11.anchored", regime="tabular", of="games")
@settings(max_examples=5)
@given(**CASES, tau=st.floats(0.1, 0.8), beta=st.floats(1.0, 4.0))
def test_anchored_rounds_are_open_spiels_magnetic_mirror_descent(claim, kind, n, seed, tau, beta):
    """Step size g/beta and temperature tau/g, anchored at the uniform policy where both start."""
    P, _ = drawn(kind, n, seed)
    scale, uniform = 0.5, np.full(len(P), 1.0 / len(P))
    mmd = mmd_dilated.MMDDilatedEnt(turn_based(P), tau / scale, stepsize=scale / beta)
    rows = pd.DataFrame({"seed": [0], "beta": beta, "tau": tau})
    run = PreferenceRounds("inpo", rows, P, uniform)
    state = run.start()
    for t in range(25):
        mmd.update_sequences()
        state = run.advance(state, t)
        theirs = mmd.get_policies().action_probability_array
        ours = state["log_law"].exp()
        claim.close(ours, theirs[:1], 1e-11, what="policies round by round")
        claim.close(theirs[1], theirs[0], 1e-11, what="both of their players")
    gap = preferences.regularised_gap(P, ours[0].numpy(), uniform, tau, scale)
    claim.close(2.0 * gap, mmd.get_gap(), 1e-11, what="anchored gap, twice in their payoff")


@pytest.mark.claim("T12.sampled", regime="dynamics", of="games")
@settings(max_examples=3)
@given(kind=CASES["kind"], seed=CASES["seed"], tau=st.floats(0.3, 0.8))
def test_descent_on_inpos_loss_ends_where_open_spiels_does(claim, kind, seed, tau):
    """Both at the quantal response equilibrium, theirs with its own step size."""
    P, _ = drawn(kind, 4, seed)
    scale, uniform = 0.5, np.full(len(P), 1.0 / len(P))
    mmd = mmd_dilated.MMDDilatedEnt(turn_based(P), tau / scale)
    for _ in range(150):
        mmd.update_sequences()
    limit = mmd.get_policies().action_probability_array[0]
    star = preferences.regularised_nash(P, uniform, tau, scale).policy
    claim.close(limit, star, 1e-7, what="their limit and the anchored equilibrium")
    beta = float(preferences.anchored_beta(P, tau, scale))
    rows = pd.DataFrame(
        {"seed": [0], "beta": beta, "tau": tau, "rate": 1.2 / (beta + tau), "steps_per_round": 20}
    )
    run = PreferenceSGD("inpo", rows, P, uniform)
    state = run.start()
    for t in range(20 * 60):
        state = run.advance(state, t)
    found = torch.softmax(state["theta"], -1)
    claim.close(found[0], limit, 1e-6, what="descent's limit and theirs")
