"""Self-play of two runs on two prompts of three responses: losses, steps and measures in numpy."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams, draw, frequencies
from theory import objectives
from theory.errors import InvalidInput
from toy_games.dynamics import measures, self_play
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.dynamics.two_step import TwoStepRounds
from toy_games.engine.policies import LogLinearPolicy, Softmax

SEEDS = [3, 8]
BETA, RATE, TAU = np.array([0.7, 2.0]), np.array([0.1, 0.3]), np.array([0.4, 0.0])
EXPERT = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
START = np.random.default_rng(0).normal(size=(2, 6))
THETA = np.random.default_rng(1).normal(size=(2, 6))  # where losses are read
REF = np.log(np.array([[0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]))
STREAMS = Streams(SEEDS)
EXACT = Data(batch=None)


def close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


def log_law(theta):
    logits = theta.reshape(2, 2, 3)
    return logits - np.log(np.exp(logits).sum(-1, keepdims=True))


def play(spec, kind=SelfPlay, policy=None, start=START, tau=False, data=EXACT, **given):
    columns = {"temperature": given.pop("temperature", 1.0)}
    columns["steps_per_round"] = given.pop("steps_per_round", 100)
    rows = pd.DataFrame({"seed": SEEDS, "beta": BETA, "rate": RATE, **columns})
    if tau:
        rows["tau"] = TAU
    objective = None if spec == "sft" else objectives.get(spec)
    return kind(policy or Softmax(3, 2), objective, rows, EXPERT, start, data, **given)


def drawn(side, law, step, count):
    """Responses (rows, X, count) by the streams that recorded runs rely on."""
    law = torch.from_numpy(np.broadcast_to(law, (2, 2, 3)).copy())
    return draw(law, STREAMS.uniform(side, step, (2, count))).numpy()


def rewards(tau=False):
    """``beta log pi/pi_0``, and the anchor's part."""
    found = BETA[:, None, None] * (log_law(THETA) - log_law(START))
    return found + TAU[:, None, None] * (log_law(THETA) - REF) if tau else found


LOSSES = {
    "spin": lambda d: np.log1p(np.exp(-d)),
    "ipo": lambda d: (d - 1.0) ** 2,
    "inpo": lambda d: (d - 0.5) ** 2,
    "tspin": lambda d: np.log1p(np.exp(-d)),
}


# -- losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sft", "spif", "spin", "ipo", "inpo", "tspin", "centred_spif"])
def test_losses_in_expectation(name):
    anchored = name in ("spin", "inpo")
    run = play(name, tau=anchored, ref=REF)
    found = run.loss(torch.from_numpy(THETA), run.start(), 0)
    r, q, expected = rewards(anchored), np.exp(log_law(START)), np.zeros((2, 2))
    if name == "tspin":
        r = BETA[:, None, None] * log_law(THETA)
    for b, x in np.ndindex(2, 2):
        p, own, now = EXPERT[x], q[b, x], r[b, x]
        if name == "sft":
            expected[b, x] = -p @ log_law(THETA)[b, x]
        elif name == "spif":
            expected[b, x] = p @ (-now + now**2 / 2) + own @ (now + now**2 / 2)
        elif name == "centred_spif":
            gap = p @ now - own @ now
            spread = p @ now**2 - (p @ now) ** 2 + own @ now**2 - (own @ now) ** 2
            expected[b, x] = 0.5 * spread + (0.5 * gap - 1.0) ** 2
        else:
            expected[b, x] = p @ LOSSES[name](now[:, None] - now[None, :]) @ own
        if name == "tspin":
            expected[b, x] += 0.1 * own @ LOSSES[name](now[:, None] - now[None, :]) @ own
    close(found, expected.mean(1))


@pytest.mark.parametrize("name", ["sft", "spif", "ipo", "tspin", "centred_spif"])
def test_losses_on_a_batch(name):
    data = Data(batch=6, group=3)
    run = play(name, data=data)
    found = run.loss(torch.from_numpy(THETA), run.start(), 4)
    q = np.exp(log_law(START))
    expert, own = drawn("expert", EXPERT, 4, 6), drawn("own", q, 4, 6)
    assert expert.shape == (2, 2, 6)
    r = BETA[:, None, None] * log_law(THETA) if name == "tspin" else rewards()
    at = np.take_along_axis
    on_expert, on_own = at(r, expert, -1), at(r, own, -1)
    if name == "sft":
        expected = -at(log_law(THETA), expert, -1).mean((1, 2))
    elif name == "spif":
        each = -on_expert + on_expert**2 / 2 + on_own + on_own**2 / 2
        expected = each.mean((1, 2))
    elif name == "centred_spif":
        groups = on_expert.reshape(2, 2, 2, 3), on_own.reshape(2, 2, 2, 3)
        gap = groups[0].mean(-1) - groups[1].mean(-1)
        spread = 0.5 * (groups[0].var(-1) + groups[1].var(-1))
        expected = (spread + (0.5 * gap - 1.0) ** 2).mean((1, 2))
    else:
        each = LOSSES[name](on_expert - on_own)
        if name == "tspin":
            first = at(r, drawn("history", q, 4, 6), -1)
            each = each + 0.1 * LOSSES[name](on_own - first)
        expected = each.mean((1, 2))
    close(found, expected)


# -- the simulation -------------------------------------------------------------------------------


def test_a_step_follows_the_loss_down_at_the_rows_own_rates():
    run = play("ipo", tau=True, ref=REF, half_after=5.0, steps_per_round=2)
    state = run.start() | {"theta": torch.from_numpy(THETA)}
    slope = np.zeros((2, 6))
    for k in range(6):
        kick = 1e-6 * np.eye(6)[k]
        up, down = (run.loss(torch.from_numpy(THETA + s * kick), state, 1) for s in (1, -1))
        slope[:, k] = (up - down).numpy() / 2e-6
    close(run.gradient(torch.from_numpy(THETA), state, 1), slope, 1e-6)
    size = RATE / (2.0 * (BETA + TAU)) / (1 + 1 / 5.0)  # the slope of the loss at 0 is 2
    close(run.step_size, RATE / (2.0 * (BETA + TAU)))
    after = run.advance(state, 1)
    close(after["theta"], THETA - size[:, None] * slope, 1e-6)
    for same in (after, run.advance(state, 0)):
        close(same["opponent"], log_law(START))
    close(run.advance(state, 2)["opponent"], log_law(THETA))


def test_only_rows_whose_round_begins_have_a_new_opponent():
    run = play("spin", steps_per_round=[2, 3])
    state = run.start() | {"theta": torch.from_numpy(THETA)}
    found = run.advance(state, 3)["opponent"]
    close(found, np.stack([log_law(START)[0], log_law(THETA)[1]]))


def test_where_responses_come_from():
    run = play("spin", data=Data(batch=4, expert_samples=5, own_samples=7), temperature=[0.5, 2.0])
    state = run.start()
    law = torch.from_numpy(np.broadcast_to(EXPERT, (2, 2, 3)).copy())
    close(state["data"], frequencies(law, STREAMS.uniform("expert data", 0, (2, 5))))
    for step, theta in ((0, START), (100, THETA)):
        hot = np.exp(log_law(theta) / np.array([0.5, 2.0])[:, None, None])
        hot = torch.from_numpy(hot / hot.sum(-1, keepdims=True))
        pool = frequencies(hot, STREAMS.uniform("own pool", step, (2, 7)))
        if step:
            state = run.advance(state | {"theta": torch.from_numpy(theta)}, step)
        close(state["own"], pool)
    weights = {"data": np.ones((2, 2, 3)), "own": 2 * np.ones((2, 2, 3)), "theta": THETA}
    given = play("spin", given=weights)
    state = given.start()
    for name, value in weights.items():
        close(state[name], value)
    close(state["opponent"], log_law(START))


def test_the_opponent_may_be_a_mixture_with_the_anchor():
    state = play("alpha_spin", ref=REF).start()
    mixed = np.exp(0.5 * log_law(START) + 0.5 * REF)
    mixed = mixed / mixed.sum(-1, keepdims=True)
    close(state["opponent"], np.log(mixed))
    close(state["own"], mixed)
    close(play("alpha_spin").start()["opponent"], log_law(START))  # the start is the anchor


def test_what_is_wrong_is_said():
    for size in ({"batch": 0}, {"batch": True}, {"batch": 1.5}, {"group": None}):
        ((name, value),) = size.items()
        (problem,) = Data(**size).problems()
        assert f"{name}={value}" in problem
    assert Data(batch=1, expert_samples=1, own_samples=1, group=1).problems() == []
    for change, said in (
        ({"start": np.zeros(5)}, "start: shape"),
        ({"start": np.full(6, np.nan)}, "finite parameters"),
        ({"half_after": 0.0}, "half_after"),
        ({"spec": "centred_spif", "data": Data(batch=6, group=4)}, "not a multiple of group=4"),
    ):
        with pytest.raises(InvalidInput, match=said):
            play(**({"spec": "spin"} | change))
    one = np.zeros(6)
    one[2] = np.nan
    for start in (one, START + one):
        with pytest.raises(InvalidInput, match="finite parameters"):
            play("spin", start=start)
    play("spin", data=Data(batch=6, group=4), half_after=0.5)  # no groups there
    play("centred_spif", data=Data(batch=5, group=1))
    close(play("spin", start=START[0]).start()["theta"], START[[0, 0]])


@pytest.mark.parametrize(
    ("law", "said"),
    [
        ([0.5, np.nan, 0.5], "finite probabilities"),
        ([0.6, 0.6, -0.2], "finite probabilities"),
        ([0.5, 0.3, 0.2 + 2e-9], "sum to 1 within 2.0e-09"),
        ([0.5, 0.5], "shape"),
        (["a", "b", "c"], "needed are probabilities"),
    ],
)
def test_laws_that_are_none_are_refused(law, said):
    good = [0.5, 0.3, 0.2] if len(law) == 3 else [0.5, 0.5]
    rows = pd.DataFrame({"seed": [0]})
    with pytest.raises(InvalidInput, match=said):
        SelfPlay(Softmax(3, 2), None, rows, [good, law], np.zeros(6))


def test_gradients_are_those_of_the_first_step_unless_said():
    run = play("spin", data=Data(batch=4))
    state, theta = run.start(), torch.from_numpy(THETA)
    first, second = (run.gradient(theta, state, step) for step in (0, 1))
    assert torch.equal(run.gradient(theta, state), first)
    assert not torch.equal(first, second)


# -- measures -------------------------------------------------------------------------------------

DATA = np.array([[[0.5, 0.5, 0], [0, 0, 1]], [[0, 0, 1], [0.2, 0, 0.8]]])
OWN = np.array([[[0.5, 0, 0.5], [0, 1, 0]], [[0, 1, 0], [1, 0, 0]]])


def test_measures_of_two_runs():
    run = play("spin", given={"data": DATA, "own": OWN})
    state = run.start() | {"theta": torch.from_numpy(THETA)}
    at = lambda measure: measure(run, state, 0).numpy()  # noqa: E731
    law, q, r = np.exp(log_law(THETA)), np.exp(log_law(START)), rewards()
    in_data, in_own = DATA > 0, OWN > 0
    for name, low in (("max_reward", ...), ("reward_seen", in_data | in_own),
                      ("reward_unseen", ~(in_data | in_own))):  # fmt: skip
        found = at(getattr(self_play, name, None) or getattr(measures, name))
        close(found, [np.abs(r[b] if low is ... else r[b][low[b]]).max() for b in range(2)])
    close(at(self_play.kl_to_expert), (EXPERT * np.log(EXPERT / law)).sum(-1).mean(-1))
    close(at(self_play.reverse_kl), (law * np.log(law / EXPERT)).sum(-1).mean(-1))
    close(at(self_play.total_variation), 0.5 * np.abs(law - EXPERT).sum(-1).mean(-1))
    close(at(self_play.max_logratio), np.abs(np.log(law / EXPERT)).max((1, 2)))
    prompts = [[(r[b, x], in_data[b, x], in_own[b, x]) for x in range(2)] for b in range(2)]
    least = [min(v[d].min() - v[o].max() for v, d, o in each) for each in prompts]
    close(at(measures.margin), least)
    widest = [max(np.ptp(v[d | o]) for v, d, o in each) for each in prompts]
    close(at(measures.reward_range), widest)
    close(at(measures.logit_range), np.ptp(log_law(THETA), axis=-1).max(-1))
    close(at(measures.missing_mass), (EXPERT * (DATA == 0)).sum(-1).mean(-1))
    every = state | {"data": torch.ones(2, 2, 3)}
    assert measures.reward_unseen(run, every, 0).tolist() == [0.0, 0.0]
    unseen = DATA + OWN == 0
    assert unseen.any((1, 2)).all()
    close(at(measures.mass_before), (q * unseen).sum(-1).mean(-1))
    close(at(measures.mass_after), (law * unseen).sum(-1).mean(-1))
    more = np.maximum(law - np.maximum(EXPERT, q), 0.0)
    close(at(measures.stray), more.sum(-1).mean(-1))
    close(at(measures.judge), (law * np.log(EXPERT)).sum(-1).mean(-1))
    close(at(measures.entropy), -(law * np.log(law)).sum(-1).mean(-1))
    target = torch.from_numpy(log_law(START))
    close(at(measures.distance_to(target)), 0.5 * np.abs(law - q).sum(-1).mean(-1))
    slope = run.gradient(state["theta"], state).numpy()
    close(at(measures.gradient_norm), np.sqrt((slope**2).sum(-1)) / (BETA / 2))
    close(at(measures.loss), run.loss(state["theta"], state, 0))


def test_measures_outside_of_a_support():
    run = SelfPlay(Softmax(3), None, pd.DataFrame({"seed": [0]}), [0.5, 0.5, 0.0], np.zeros(3),
                   Data(batch=None))  # fmt: skip
    state = run.start()
    assert self_play.reverse_kl(run, state, 0).tolist() == [np.inf]
    close(self_play.max_logratio(run, state, 0), [np.log(1.5)])
    state["theta"] = torch.tensor([[0.0, -2.0, -800.0]], dtype=torch.float64)
    state["opponent"] = torch.tensor([[[-0.5, -1.5, -900.0]]], dtype=torch.float64)
    log_pi = np.array([0.0, -2.0]) - np.log1p(np.exp(-2.0))
    law = np.exp(log_pi)
    close(self_play.reverse_kl(run, state, 0), [(law * np.log(law / 0.5)).sum()])
    close(self_play.max_reward(run, state, 0), [np.abs(log_pi + [0.5, 1.5]).max()])  # beta is 1
    state["theta"][0, 2] = -600.0  # alive on one side
    close(self_play.max_reward(run, state, 0), [900.0 - 600.0 - np.log1p(np.exp(-2.0))])


# -- two steps ------------------------------------------------------------------------------------


def test_two_steps_on_two_prompts():
    run = play("spif", TwoStepRounds, smoothing=0.2)
    state, q = run.start(), np.exp(log_law(START))
    mixed = 0.8 * EXPERT + 0.2 * q
    pay = (mixed - q) / (mixed + q)
    close(state["reward"], pay)
    price = BETA[:, None, None] * (log_law(THETA) - log_law(START)) - pay
    found = run.loss(torch.from_numpy(THETA), state, 0)
    close(found, (np.exp(log_law(THETA)) * price).sum(-1).mean(-1))
    close(run.step_size, RATE / 0.5)
    moved = state | {"theta": torch.from_numpy(THETA)}
    for step in (0, 99):
        close(run.advance(moved, step)["reward"], pay)
    now = np.exp(log_law(THETA))
    close(run.advance(moved, 100)["reward"], (mixed - now) / (mixed + now))
    some = play("spif", TwoStepRounds, smoothing=0.2, steps_per_round=[2, 3])
    fresh = some.advance(moved, 3)["reward"]
    close(fresh, np.stack([pay[0], ((mixed - now) / (mixed + now))[1]]))


def test_two_steps_on_a_batch_are_weighted_scores():
    for batch in (1, 2, 4):
        run = play("spif", TwoStepRounds, data=Data(batch=batch))
        state = run.start()
        own = drawn("own", np.exp(log_law(THETA)), 2, batch)
        at = np.take_along_axis
        price = BETA[:, None, None] * (log_law(THETA) - log_law(START)) - state["reward"].numpy()
        cost, score = at(price, own, -1), at(log_law(THETA), own, -1)
        found = run.loss(torch.from_numpy(THETA), state, 2)
        if batch == 1:
            close(found, [0.0, 0.0])
            continue
        others = (cost.sum(-1, keepdims=True) - cost) / (batch - 1)
        close(found, ((cost - others) * score).mean((1, 2)))


def test_a_linear_reward_of_two_features():
    features = np.random.default_rng(2).normal(size=(2, 1, 3, 2))
    features[1, :, :, 1] = 0.0  # not used by the second row
    features[0, 0, 2, 1] = 0.0
    rows = pd.DataFrame({"seed": SEEDS, "beta": BETA})
    run = TwoStepRounds(LogLinearPolicy(features), objectives.get("spif"), rows, EXPERT[:1],
                        np.zeros(2), Data(batch=None), rewards="linear")  # fmt: skip
    found, p, q = run.start()["reward"].numpy(), EXPERT[0], np.full(3, 1 / 3)
    for b, used in ((0, 2), (1, 1)):
        x = features[b, 0, :, :used]
        weight = np.linalg.solve((x.T * (p + q)) @ x, x.T @ (p - q))
        close(found[b, 0], x @ weight)
    for wrong in ({"rewards": "cubic"}, {"smoothing": 1.0}, {"smoothing": -0.1}):
        with pytest.raises(InvalidInput, match="needed are 'tabular'"):
            play("spif", TwoStepRounds, **wrong)
    with pytest.raises(InvalidInput, match="needed is a LogLinearPolicy"):
        play("spif", TwoStepRounds, rewards="linear")
