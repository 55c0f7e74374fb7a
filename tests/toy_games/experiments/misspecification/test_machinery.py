"""The engine of explicit rewards, the ladder of classes, and settings that are refused."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams
from theory import objectives
from theory.errors import InvalidInput
from theory.rounds.log_linear import LogLinear
from toy_games.dynamics.self_play import Data
from toy_games.dynamics.two_step import TwoStepRounds
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy
from toy_games.experiments.misspecification import Settings
from toy_games.games.ladder import Ladder


def two_steps(batch, seeds=1, **given):
    it = Ladder.random([2], [4], 9, 1.0)
    rows = pd.DataFrame({"seed": range(seeds), "beta": 1.0, "rate": 0.2, "steps_per_round": 4})
    policy = LogLinearPolicy(it.features.expand(seeds, -1, -1)[:, None])
    start = torch.linspace(-0.4, 0.5, 4, dtype=torch.float64)
    objective = objectives.get("spin")
    data = Data(batch=batch)
    return it, TwoStepRounds(policy, objective, rows, it.expert[0], start, data, **given)


def gradient_of(simulation_, state, step=0):
    point = state["theta"].clone().requires_grad_()
    (found,) = torch.autograd.grad(simulation_.loss(point, state, step).sum(), point)
    return found


def test_two_step_spin_at_beta_one_descends_the_reverse_kl():
    it, made = two_steps(None)
    state = made.start()
    state["theta"] = state["theta"] * 0.2 + 0.3  # within a round: the opponent cancels
    point = state["theta"].clone().requires_grad_()
    log_law = it.policy.log_law(point)
    (wanted,) = torch.autograd.grad((log_law.exp() * (log_law - it.expert.log())).sum(), point)
    torch.testing.assert_close(gradient_of(made, state), wanted, rtol=1e-10, atol=1e-12)


def test_the_policy_gradient_is_unbiased():
    _, exact = two_steps(None)
    _, drawn = two_steps(8, seeds=3000)
    state = drawn.start()
    state["theta"] = state["theta"] + 0.3  # within a round: the KL term counts
    there = exact.start()
    there["theta"] = there["theta"] + 0.3
    found = gradient_of(drawn, state)
    noise = 4 * found.std(0) / np.sqrt(len(found))
    assert ((found.mean(0) - gradient_of(exact, there)[0]).abs() < noise).all()


def test_linear_rewards_solve_their_normal_equations():
    it, made = two_steps(None, rewards="linear")
    state = made.start()
    p, q, x = it.expert[0, 0], state["opponent"][0, 0].exp(), it.features[0]
    reward = state["reward"][0, 0]
    torch.testing.assert_close(((p + q) * reward) @ x, (p - q) @ x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_an_interrupted_run_resumes_to_bitwise_the_same_table(tmp_path, at):
    whole = simulator.run(two_steps(8, 3, half_after=5.0)[1], [3, 11], progress=False)
    stopped = two_steps(8, 3, half_after=5.0)[1]
    inner = stopped.advance

    def advance(state, step):
        if step == at:
            raise KeyboardInterrupt
        return inner(state, step)

    stopped.advance = advance
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        simulator.run(stopped, [3, 11], path, False, every=0.0)
    resumed = simulator.run(two_steps(8, 3, half_after=5.0)[1], [3, 11], path, False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_ladders_are_nested_and_the_widest_class_holds_the_expert():
    it = Ladder.random([7], [2, 5, 8], 9, 1.2)
    assert torch.equal(it.features[0, :, :2], it.features[2, :, :2])
    likelihood = (it.expert * it.maximum_likelihood()).sum((-2, -1))
    assert (likelihood.diff() > 0).all()
    torch.testing.assert_close(it.maximum_likelihood()[2].exp(), it.expert[2], rtol=1e-6, atol=1e-9)
    assert isinstance(it.model(1), LogLinear)
    assert it.model(1).features.shape == (9, 5)


def test_draws_do_not_depend_on_the_other_experts():
    many, one = Ladder.random([1, 4], [3], 9, 1.0), Ladder.random([4], [3], 9, 1.0)
    assert torch.equal(many.features[1:], one.features)
    assert Streams([4]).seeds.tolist() == [4]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"capacities": (1, 40), "delta": 1.5, "seeds": 2}, ["capacities", "delta", "seeds"]),
        ({"parts": ("ladder", "letter"), "smoothing": 0.0}, ["letter", "smoothing"]),
        ({"objectives": ("sft", "spam"), "widths": (0,)}, ["sft", "spam", "widths"]),
        ({"explicit": ("ipo", "gail", "spin_hinge")}, ["ipo has no potential", "spin_hinge"]),
        ({"temperatures": (0.0,), "half_after": -1.0}, ["temperatures", "half_after"]),
        ({"parts": ("gradient",), "horizon": 3}, ["horizon=3; needed is >= 4"]),
    ],
)
def test_bad_settings_are_refused_all_at_once(given, words):
    with pytest.raises(InvalidInput) as caught:
        Settings(**given)
    assert all(word in str(caught.value) for word in words)


def test_unusable_rewards_and_rates_are_refused():
    with pytest.raises(InvalidInput, match="rewards='rich'"):
        two_steps(None, rewards="rich")
    with pytest.raises(InvalidInput, match="half_after"):
        two_steps(None, half_after=0.0)
    with pytest.raises(InvalidInput, match="features"):
        LogLinearPolicy(torch.zeros(3))
