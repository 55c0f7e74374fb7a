"""Two players: how fast they end, by the Jacobian of their moves, and when they do not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.experiments.players.tabular import games, tabular
from theory import objectives
from toy_games.dynamics.two_players import METHODS, Players, Rules
from toy_games.engine import simulator
from toy_games.predictions.two_players import crossing, growth, predicted_factor


def factor_at(run):
    """Predicted factor at the target of the players."""
    law, reward = run.target
    rest = Players(
        run.policy, run.rewards, run.objective, run.rows, run.expert,
        (law.log().flatten(1), reward.flatten(1)), run.rules, run.log_ref, run.target,
    )  # fmt: skip
    return predicted_factor(rest, rest.start())


@pytest.mark.claim("T10.local_factors", regime="tabular")
@settings(max_examples=6)
@given(n=st.integers(2, 7), coupling=st.floats(0.05, 0.9))
def test_without_a_penalty_the_factors_are_those_of_a_rotation(claim, n, coupling):
    p = np.full((1, 1, n), 1.0 / n)
    x, kick = coupling, np.zeros((2, 1, n))
    root = np.roots([1.0, -(1.0 + 2j * x), 1j * x])
    known = {
        "simultaneous": np.sqrt(1 + x**2),
        "alternating": 1.0,
        "extragradient": np.sqrt(1 - x**2 + x**4),
        "optimistic": np.abs(root).max(),
    }
    for method, value in known.items():
        run = tabular(objectives.get("ipm"), p, p, kick, rules=Rules(method), step=n * x)
        # A double eigenvalue (alternating at modulus 1) is known to the root of the precision.
        claim.close(factor_at(run), [value], 1e-6, what=f"factor of {method}")


@pytest.mark.claim("T10.local_factors", regime="tabular")
@settings(max_examples=6)
@given(n=st.integers(2, 7), c=st.floats(0.05, 0.95), x=st.floats(0.05, 0.9))
def test_the_penalty_moves_the_eigenvalues_inside(claim, n, c, x):
    p = np.full((1, 1, n), 1.0 / n)
    run = tabular(objectives.get("spif", c=c), p, p, np.zeros((2, 1, n)), step=n * x)
    claim.close(
        factor_at(run) ** 2, [1 - 2 * c * x + x**2], 1e-9, what="squared factor, simultaneous"
    )


@pytest.mark.claim("T10.players", regime="dynamics")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "pay"), [("spif", "rounds"), ("nwj", "saddle"), ("gail", "rounds")]
)
def test_measured_rates_are_the_jacobians(claim, method, name, pay):
    p, ref, kick = games(3, 4, seed=101)
    run = tabular(objectives.get(name), p, ref, kick, 0.15, Rules(method, pay), step=0.8)
    measured, error = growth(run, 400)
    off = np.abs(measured - np.log(factor_at(run)))
    claim.below(off, error, what="error of the log-factor a step", because="solver")


@pytest.mark.claim("T10.players", regime="dynamics")
@pytest.mark.parametrize("method", METHODS)
def test_the_largest_stable_step_is_the_predicted_one(claim, method):
    p, ref, kick = games(2, 4, seed=103)
    obj = objectives.get("spif", c=0.4)

    def players(steps, size=1e-5):
        flat, grid = steps.ravel(), steps.shape[1]
        many = (np.repeat(x, grid, axis=0) for x in (p, ref))
        return tabular(
            obj, *many, np.repeat(kick, grid, axis=1), size=size, rules=Rules(method),
            step_policy=flat, step_reward=flat,
        )  # fmt: skip

    def measured(steps):
        return growth(players(steps), 400)[0].reshape(steps.shape)

    def predicted(steps):
        return np.log(factor_at(players(steps))).reshape(steps.shape)

    ends = np.full(2, 0.2), np.full(2, 40.0)
    # A line through 267 steps resolves log-factors of 1/267; they grow by 0.2 and more a log-step.
    claim.close(
        crossing(measured, *ends),
        crossing(predicted, *ends),
        0.0,
        rtol=0.02,
        what="threshold",
        because="solver",
    )


@pytest.mark.claim("T10.players", regime="dynamics", drops="positive_penalty")
def test_without_the_penalty_players_spiral_out_or_cycle(claim):
    p, ref, kick = games(3, 4, seed=104)
    obj = objectives.get("ipm", bound=4.0)
    ends = {}
    for method in METHODS:
        run = tabular(obj, p, ref, kick, rules=Rules(method), step=1.5, size=0.05)
        table = simulator.run(run, [0, 400], progress=False)
        start, end = (table[table.step == s].distance.to_numpy() for s in (0, 400))
        ends[method] = end / start
    claim.exhibits(ends["simultaneous"], 20.0, what="growth of the distance, simultaneous")
    claim.exhibits(ends["alternating"], 0.2, what="distance kept, alternating")
    what = "distance kept, alternating, from above"
    claim.below(ends["alternating"], 5.0, what=what, because="chosen")
    assert max(ends["extragradient"].max(), ends["optimistic"].max()) < 0.2


def test_rewards_in_units_of_one_over_c_make_all_penalties_one_game():
    p, ref, kick = games(2, 5, seed=105)
    c, step = 0.3, 0.4
    one = tabular(objectives.get("spif", c=c), p, ref, kick, step=step, size=1.0)
    kick[1] *= c
    other = tabular(
        objectives.get("spif"), p, ref, kick, size=1.0, step_policy=step / c, step_reward=step * c
    )
    assert one.rows.step_policy[0] != other.rows.step_policy[0]
    ends = []
    for run in (one, other):
        state = run.start()
        for t in range(30):
            state = run.advance(state, t)
        ends.append(run.policy.log_law(state["theta"]).numpy())
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)
