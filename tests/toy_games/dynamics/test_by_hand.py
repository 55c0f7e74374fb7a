"""Dynamics of two or three responses, step by step against formulas written out."""

from math import exp, log, log1p, sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import solve_ivp

from theory import objectives
from theory.errors import InvalidInput
from toy_games.dynamics import measures, self_play
from toy_games.dynamics.finite_class import hellinger
from toy_games.dynamics.flow import Flow
from toy_games.dynamics.preference_estimates import group_estimates
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.dynamics.two_step import TwoStepRounds
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.trainable import beta_at
from toy_games.predictions.misspecification import finite_class_bound

EXPERT = np.array([[0.75, 0.25], [0.5, 0.5]])


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def sigmoid(x):
    return 1 / (1 + exp(-x))


def tensor(values):
    return torch.tensor(values, dtype=torch.float64)


def get(name):
    return None if name == "sft" else objectives.get(name)


def play(name, start=(0.0, 0.0, 0.0, 0.0), kind=SelfPlay, expert=EXPERT, policy=None, **given):
    """One run of two prompts with two responses each, exact expectations."""
    names = {"beta", "rate", "tau", "temperature", "steps_per_round"} & given.keys()
    rows = pd.DataFrame({"seed": [0], **{n: [given.pop(n)] for n in names}})
    policy = policy or Softmax(2, prompts=2)
    return kind(policy, get(name), rows, expert, np.array(start), Data(batch=None), **given)


# -- one loss -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "spin", "spif", "ipo", "iq_learn", "centred_spif"])
def test_all_first_steps_are_supervised_fine_tuning(name):
    """``rate (p - pi)``, a mean over the two prompts, whatever the objective, beta and tau."""
    run = play(name, beta=3.0, rate=0.1, tau=0.0 if name == "sft" else 0.5)
    moved = run.advance(run.start(), 0)["theta"]
    close(moved, [[0.1 * 0.25 / 2, -0.1 * 0.25 / 2, 0.0, 0.0]])


def test_spins_second_step_and_a_falling_rate():
    run = play("spin", beta=2.0, rate=0.1, half_after=1.0)
    state = run.advance(run.start(), 0)
    d = 2.0 * 0.025  # beta times the difference of the logits, 0.025 after the first step
    slope = -0.375 * 2.0 * sigmoid(-d) + 0.125 * 2.0 * sigmoid(d)
    step = 0.1 / (2.0 / 2) / 2  # in units of SFT; half as large after one step
    moved = run.advance(state, 1)["theta"] - state["theta"]
    close(moved[0, :2], [-step * slope / 2, step * slope / 2])
    loss = 0.5 * log(2.0) + 0.375 * log1p(exp(-d)) + 0.125 * log1p(exp(d))
    close(run.loss(state["theta"], state, 1), [(loss + log(2.0)) / 2])
    close(run.gradient(state["theta"], state)[0, :2], [slope / 2, -slope / 2])


def test_the_implicit_reward_and_its_anchor():
    run = play("spin", start=(0.2, 0.0, 0.0, 0.0), beta=2.0, tau=0.5, ref=np.log(EXPERT))
    state = run.start()
    log_law = tensor(np.log([[[0.6, 0.4], [0.5, 0.5]]]))
    first = sigmoid(0.2)
    found = run.implicit_reward(log_law, state)[0, 0]
    close(found, [2 * log(0.6 / first) + 0.5 * log(0.6 / 0.75),
                  2 * log(0.4 / (1 - first)) + 0.5 * log(0.4 / 0.25)])  # fmt: skip


def test_an_opponent_is_frozen_for_a_round_and_may_be_hot():
    run = play("spin", start=(1.0, 0.0, 0.0, 0.0), temperature=2.0, steps_per_round=2, rate=0.3)
    state = run.start()
    close(state["own"][0, 0, 0], sigmoid(0.5))
    close(state["opponent"][0, 0, 0].exp(), sigmoid(1.0))
    once = run.advance(state, 0)
    twice = run.advance(once, 1)
    close(twice["opponent"], state["opponent"])
    thrice = run.advance(twice, 2)
    close(thrice["opponent"], run.policy.log_law(twice["theta"]))
    gap = float(twice["theta"][0, 0] - twice["theta"][0, 1])
    close(thrice["own"][0, 0, 0], sigmoid(gap / 2))


def test_scales_of_first_gradients():
    weight = tensor([3.0])
    for name, scale in (("sft", 1.0), ("spin", 1.5), ("spif", 3.0), ("ipo", 6.0), ("gail", 1.0)):
        close(self_play.sft_scale(get(name), weight), [scale])
    assert beta_at(None, 0.5) == 1.0
    assert beta_at(get("spin"), 0.5) == 2.0
    assert beta_at(get("spif"), 0.25) == pytest.approx(2.0)


# -- measures -------------------------------------------------------------------------------------

THETA = (log(3.0), 0.0, 0.0, log(4.0))  # laws (3/4, 1/4) and (1/5, 4/5)


def test_distances_to_the_expert():
    expert = np.array([[0.5, 0.5], [0.6, 0.4]])
    run = play("spin", start=(0.0, 0.0, 0.0, 0.0), expert=expert, beta=2.0)
    state = run.start() | {"theta": tensor([THETA])}
    at = lambda measure: float(measure(run, state, 0))  # noqa: E731
    close(at(self_play.kl_to_expert),
          (0.5 * log(4 / 3) + 0.6 * log(3.0) + 0.4 * log(0.5)) / 2)  # fmt: skip
    reverse = 0.75 * log(1.5) + 0.25 * log(0.5) + 0.2 * log(1 / 3) + 0.8 * log(2.0)
    close(at(self_play.reverse_kl), reverse / 2)
    close(at(self_play.total_variation), (0.25 + 0.4) / 2)
    close(at(self_play.max_logratio), log(3.0))
    close(at(self_play.max_reward), 2 * log(2.5))
    close(at(measures.judge), (log(0.5) + 0.2 * log(0.6) + 0.8 * log(0.4)) / 2)
    entropy = -(0.75 * log(0.75) + 0.25 * log(0.25) + 0.2 * log(0.2) + 0.8 * log(0.8))
    close(at(measures.entropy), entropy / 2)
    target = tensor(np.log([[[0.65, 0.35], [0.4, 0.6]]]))
    close(at(measures.distance_to(target)), (0.1 + 0.2) / 2)
    close(at(measures.stray), (0.25 + 0.3) / 2)
    close(at(measures.logit_range), log(4.0))


def test_measures_of_a_round_on_samples():
    """Three responses: expert only, own only, unseen, from an even start."""
    third = np.full((1, 3), 1 / 3)
    given = {"data": np.array([[[1.0, 0.0, 0.0]]]), "own": np.array([[[0.0, 1.0, 0.0]]])}
    rows = pd.DataFrame({"seed": [0], "beta": [2.0], "rate": [0.3]})
    expert = np.array([[0.5, 0.3, 0.2]])
    run = SelfPlay(Softmax(3), get("spin"), rows, expert, np.log(third[0]), Data(batch=None),
                   measures.ON_SAMPLES | measures.UNSEEN, given=given)  # fmt: skip
    law = np.array([0.6, 0.1, 0.3])
    state = run.start() | {"theta": tensor(np.log(law)[None])}
    found = {name: float(value) for name, value in run.measure(state, 0).items()}
    margin = 2 * log(6.0)
    pull = 2 * sigmoid(-margin)
    size = sqrt(2.0) * pull  # of the gradient in the logits
    close(found["margin"], margin)
    close(found["reward_range"], margin)
    close(found["logit_range"], log(6.0))
    close(found["loss"], log1p(exp(-margin)))
    close(found["gradient_norm"], size / (2.0 / 2))
    close(found["unseen_mass"], 0.3)
    close(found["before"], 1 / 3)
    close(found["after"], 0.3)
    close(found["reward_unseen"], 2 * abs(log(0.9)))
    close(found["reward_seen"], 2 * log(10 / 3))
    close(found["stray"], 0.6 - 0.5)
    close(float(measures.missing_mass(run, state, 0)), 0.5)
    state["opponent"] = state["opponent"].clone()
    state["opponent"][..., 2] = -700.0  # padding is not unseen
    assert not measures.unseen(state).any()


# -- flow and two steps ---------------------------------------------------------------------------


def test_flow_is_the_differential_equation():
    run = play("sft", rate=0.2)
    flow = Flow(run, 10.0, per_decade=15)
    state = flow.start()
    for step in range(flow.steps):
        state = flow.advance(state, step)
    exact = solve_ivp(lambda _, t: 0.2 * (0.75 - 1 / (1 + np.exp(-t))), (0, 10), [0.0],
                      rtol=1e-10, atol=1e-12).y[0, -1]  # fmt: skip
    close(float(state["theta"][0, 0] - state["theta"][0, 1]), exact, 2e-4)
    close(float(flow.measure(state, flow.steps)["time"]), 10.0)
    assert flow.times[0] == 0.0
    assert flow.times[1] == pytest.approx(0.01)
    assert flow.steps == 15 * 3 + 1


def test_two_steps_reward_then_policy():
    """SPIF pays (p - q)/(p + q); the policy's loss is beta KL less that pay."""
    run = play("spif", kind=TwoStepRounds, beta=2.0, rate=0.1, smoothing=0.2)
    state = run.start()
    mixed = 0.8 * 0.75 + 0.2 * 0.5
    close(state["reward"][0, 0], [(mixed - 0.5) / (mixed + 0.5), (0.5 - mixed) / (1.5 - mixed)])
    theta = tensor([[0.4, 0.0, 0.0, 0.0]])
    law = np.array([sigmoid(0.4), 1 - sigmoid(0.4)])
    pay = state["reward"][0, 0].numpy()
    cost = 2.0 * (law * np.log(law / 0.5)).sum() - (law * pay).sum()
    close(run.loss(theta, state, 0), [cost / 2])
    first = run.advance(state, 0)["theta"][0, :2]
    slope = -0.5 * (pay - pay.mean())  # of the logits of an even coin
    close(first, -0.1 / 0.5 * slope / 2)


def test_a_linear_reward_of_one_feature():
    features = np.array([[[1.0, 0.0], [3.0, 0.0]]])
    policy = LogLinearPolicy(tensor(features)[None])
    run = play("spif", start=(0.0, 0.0), kind=TwoStepRounds, policy=policy, expert=EXPERT[:1],
               rewards="linear")  # fmt: skip
    weight = (0.75 + 3 * 0.25 - 2.0) / (0.75 + 9 * 0.25 + 5.0)
    close(run.start()["reward"][0, 0], [weight, 3 * weight])


# -- sampled rounds -------------------------------------------------------------------------------


def rounds(name, expert, log_start, beta=2.0, **given):
    share = {"label_noise": given.pop("share")} if "share" in given else {}
    rows = pd.DataFrame({"seed": 0, "beta": [beta], **share})
    return SampledRounds(get(name), rows, np.array([expert]), np.array([log_start]), **given)


def test_exact_rounds_by_hand():
    q = np.array([0.2, 0.3, 0.5])
    p = np.array([0.5, 0.5, 0.0])
    for share, noise, labels in ((0.0, "uniform", p), (0.3, "uniform", 0.7 * p + 0.1),
                                 (0.3, "own", 0.7 * p + 0.3 * q)):  # fmt: skip
        run = rounds("spif", p, np.log(q) + 1.0, share=share, noise=noise)
        state = run.advance(run.start(), 0)
        new = q * np.exp((labels - q) / (labels + q) / 2.0)
        new = new / new.sum()
        close(state["log_q"].exp()[0], new)
        found = {name: float(value) for name, value in run.measure(state, 1).items()}
        close(found["kl"], (0.5 * np.log(0.5 / new[:2])).sum())
        close(found["max_logratio"], np.abs(np.log(0.5 / new[:2])).max())
        close(found["outside"], new[2])
        assert (found["burn_in_u"], found["burn_in_kl"]) == (0.0, 0.0)
    run = rounds("sft", p, np.log(q), share=0.3)
    close(run.advance(run.start(), 0)["log_q"].exp()[0], 0.7 * p + 0.1)


def test_a_sampled_round_is_that_of_its_counts():
    p, q, n = np.array([0.6, 0.3, 0.1]), np.array([0.2, 0.3, 0.5]), 40
    for smoothing in (0.5, 2.0):
        run = rounds("ipo", p, np.log(q), samples=n, smoothing=smoothing)
        expert = run.counts("expert", tensor(p[None]), 0)[0].numpy()
        own = run.counts("own", tensor(q[None]), 0)[0].numpy()
        assert expert.sum() == own.sum() == n
        a, b = expert + smoothing, own + smoothing
        shares = a / a.sum(), b / b.sum()
        delta = ((shares[0] - shares[1]) ** 2 / (shares[0] + shares[1])).sum()
        reward = get("ipo").link(np.log(a / b), delta)
        new = q * np.exp(np.asarray(reward) / 2.0)
        close(run.advance(run.start(), 0)["log_q"].exp()[0], new / new.sum(), 1e-9)
        sft = rounds("sft", p, np.log(q), samples=n, smoothing=smoothing)
        close(sft.advance(sft.start(), 0)["log_q"].exp()[0], a / a.sum(), 1e-9)


def test_counts_are_those_of_the_law():
    run = rounds("spin", [0.6, 0.3, 0.1], np.log([0.2, 0.3, 0.5]), samples=200_000)
    found = run.counts("own", tensor([[0.2, 0.3, 0.5]]), 0)[0].numpy() / 200_000
    close(found, [0.2, 0.3, 0.5], 0.02)


def test_burn_in_is_the_first_round_within_a_nat():
    run = rounds("spin", [0.5, 0.5], [log(exp(-9.0)), 0.0], beta=2.0)
    state = run.start()
    for step in range(8):
        state = run.advance(state, step)
    logit = np.array([-9.0 / 2**k for k in range(9)])  # half of it stays each round
    u = np.log(0.5) + np.logaddexp(0.0, -logit)
    kl = 0.5 * u + 0.5 * (np.log(0.5) + np.logaddexp(0.0, logit))
    assert float(state["burn_in_u"]) == np.argmax(u <= 1.0)
    assert float(state["burn_in_kl"]) == np.argmax(kl <= 1.0)


def test_a_far_start_has_the_reach_that_is_asked_for():
    p = np.array([[0.2, 0.5, 0.3], [0.6, 0.4, 0.0]])
    start = far_start(p, np.array([[1.0, -2.0, 0.5], [0.0, 1.0, 3.0]]), np.array([7.0, 2.0]))
    with np.errstate(divide="ignore", invalid="ignore"):
        u = np.log(p) - start
    close([u[0].max(), u[1, :2].max()], [7.0, 2.0], 1e-6)
    close(np.exp(start).sum(-1), 1.0)
    with pytest.raises(InvalidInput, match="different values"):
        far_start(p, np.ones((2, 3)), np.array([7.0, 2.0]))


# -- groups and classes ---------------------------------------------------------------------------


def test_plug_in_estimates_of_one_group():
    """0 beats 1, the second 0 beats the first, and beats 1."""
    preference = tensor([[[0.5, 0.8], [0.2, 0.5]]])
    luck = torch.zeros(1, 3, 3, dtype=torch.float64)
    luck[0, 0, 1], luck[0, 0, 2], luck[0, 1, 2] = 0.5, 0.7, 0.9
    drawn = torch.tensor([[0, 1, 0]])
    for size, own, expected in (
        (3, True, [1.5 / 3, 0.5 / 3, 2.5 / 3]),
        (3, False, [0.5, 0.0, 1.0]),
        (2, True, [0.75, 0.25]),
        (2, False, [1.0, 0.0]),
    ):
        found = group_estimates(preference, drawn, luck, torch.tensor([size]), torch.tensor([own]))
        close(found[0, :size], expected)


def test_hellingers_distance_and_the_bound_of_a_class():
    close(hellinger(tensor([0.25, 0.75]), tensor([1.0, 0.0])), 0.25 + 0.75)
    close(finite_class_bound(10, 0.1, 50), 2 * log(100.0) / 50)


def test_members_of_a_mask_do_not_count_padding():
    state = {"data": tensor([[[0.5, 0.0, 0.0]]]), "own": tensor([[[0.0, 0.0, 0.0]]]),
             "opponent": tensor([[[-1.0, -599.0, -601.0]]])}  # fmt: skip
    assert measures.unseen(state).tolist() == [[[False, True, False]]]
    run = SimpleNamespace(log_law=lambda s: tensor([[[-1.0, log(0.3), -601.0]]]))
    close(float(measures.mass_after(run, state, 0)), 0.3)
