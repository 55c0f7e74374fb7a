"""Two players by hand: turns, spread, growth of a distance, and where a rate turns positive."""

from math import sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from scipy.linalg import solve_discrete_lyapunov

from tests.toy_games.predictions.by_hand.examples import SPIF, close
from theory import objectives
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import Softmax
from toy_games.engine.rewards import Table
from toy_games.predictions import two_players

EQUAL = np.array([0.5, 0.5])


def two_responses(name, step_policy, step_reward, **rules):
    """Even expert of two responses, both players at rest; only differences d and rho matter."""
    rows = pd.DataFrame({"seed": [0], "step_policy": step_policy, "step_reward": step_reward})
    rest = np.zeros(2), np.zeros(2)
    return Players(Softmax(2), Table(2), objectives.get(name), rows, EQUAL, rest, Rules(**rules))


def test_without_a_penalty_two_players_turn_outwards():
    """d gains step rho/2 and rho loses step d/2."""
    run = two_responses("ipm", 0.3, 1.2)
    close(two_players.predicted_factor(run, run.start()), sqrt(1 + 0.3 * 1.2 / 4), 1e-9)


def test_the_spread_of_two_players_by_batches():
    """The penalty takes c of rho a unit step; 2/m is the variance of both sides' p_1 - p_2."""
    run = two_responses("spif(c=0.5)", 0.6, 0.8, batch=20)
    map_ = np.array([[1.0, 0.6 / 2], [-0.8 / 2, 1.0 - 0.8 * 0.5]])
    close(two_players.predicted_factor(run, run.start()), np.abs(np.linalg.eigvals(map_)).max())
    spread = solve_discrete_lyapunov(map_, np.diag([0.0, 0.8**2 * 2 * (2 / 20) / 2]))
    close(two_players.predicted_spread(run, run.start()), np.trace(spread) / 2)


def test_the_spread_of_an_uneven_game():
    """Gradients of a side are of one response each: (diag p - p p^T)/m from either."""
    p, rest = np.array([0.7, 0.2, 0.1]), (np.log([0.7, 0.2, 0.1]), np.zeros(3))
    rows = pd.DataFrame({"seed": [0], "step_policy": [0.6], "step_reward": [0.8]})
    run = Players(Softmax(3), Table(3), SPIF, rows, p, rest, Rules(batch=20))
    state = run.start()
    noise = np.zeros((6, 6))  # the reward's three numbers come first
    noise[:3, :3] = 0.8**2 * 2 * (np.diag(p) - np.outer(p, p)) / 20
    update, spread = two_players.update_jacobian(run, state)[0], np.zeros((6, 6))
    for _ in range(3000):
        spread = update @ spread @ update.T + noise
    seen = two_players.observation_jacobian(run, state)[0]
    close(two_players.predicted_spread(run, state), np.trace(seen @ spread @ seen.T), 1e-6)


def test_the_growth_of_a_distance_is_read_off_the_linear_regime():
    run = two_responses("spif(c=0.5)", 0.6, 0.8)
    run._phi = torch.tensor([[1e-3, -1e-3]], dtype=torch.float64)
    slope, error = two_players.growth(run, 200)
    predicted = np.log(two_players.predicted_factor(run, two_responses("spif", 1, 1).start()))
    assert abs(slope - predicted)[0] <= error[0] < 0.05


def test_the_linear_regime_of_two_rows(monkeypatch):
    """Row 0 enters at a distance of e^-4 and leaves for good; row 1 grows slowly all the time."""
    time = np.arange(101.0)
    first = np.where(time < 10, -1.0 + 0.1 * time, -4.0 - 0.2 * (time - 10))
    first = np.where(time < 90, first, np.where(time < 95, -1.0, -10.0))
    size = np.exp(np.stack([first, -20.0 + 0.05 * time], -1))
    asked = {}

    def run(players, record, checkpoint, progress):
        asked.update(record=record, measures=players.measures)
        return pd.DataFrame({"distance": size.ravel()})

    monkeypatch.setattr(two_players.simulator, "run", run)
    slope, resolution = two_players.growth(SimpleNamespace(), 100)
    close(slope, [-0.2, 0.05], 1e-9)
    close(resolution, 0.0)
    np.testing.assert_array_equal(asked["record"], time)
    assert asked["measures"] == {"distance": two_players.distance}


def test_where_a_rate_turns_positive():
    low, high = np.array([0.01, 0.01, 0.01]), np.array([10.0, 10.0, 10.0])
    at = np.array([0.3, 1e3, 2.0])[:, None]
    close(two_players.crossing(lambda s: np.log(s / at), low, high), [0.3, 10.0, 2.0], 1e-9)
    broken = two_players.crossing(lambda s: np.where(s < 0.3, -1.0, np.nan), low[:1], high[:1])
    close(broken, 0.3, 0.03)


def test_the_slope_of_a_line_and_its_ripple():
    time = np.arange(5.0)[:, None]
    used = np.array([[False], [True], [True], [True], [True]])
    wave = np.array([[9.0], [0.1], [-0.1], [-0.1], [0.1]])
    slope, resolution = two_players._line(time, 2.0 - 0.5 * time + wave, used)
    close(slope, [-0.5])
    close(resolution, [3 * 0.2 / 3])
