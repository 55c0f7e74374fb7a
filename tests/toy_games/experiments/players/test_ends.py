"""Two players: where they end, from exact moves and from samples."""

import numpy as np
import pandas as pd
import pytest
import torch

from tests.toy_games.experiments.players.tabular import games, solution, tabular
from theory import equilibrium, laws, objectives, saddle_point, self_play
from toy_games.dynamics.two_players import Players, Rules, distance, gap, observed
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.rewards import Table
from toy_games.predictions.two_players import predicted_spread

SADDLES = ("spif", "iq_learn", "policy_only", "airl", "nwj", "gail")


def ends_of(name):
    clause = "T10.coincide" if name in ("iq_learn", "gail") else "T10.differ"
    return pytest.param(name, marks=pytest.mark.claim("T10.players", clause, regime="dynamics"))


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
@pytest.mark.parametrize("name", [ends_of(name) for name in SADDLES])
def test_the_last_iterate_is_the_equilibrium_of_its_pay(claim, name, pay):
    tau, obj = 0.3, objectives.get(name)
    p, ref, _ = games(3, 4, seed=106)
    method = "alternating" if pay == "saddle" else "extragradient"
    run = tabular(obj, p, ref, np.zeros((2, 3, 4)), tau, Rules(method, pay), step=0.7)
    run._theta = torch.zeros_like(run._theta)
    run._phi = torch.full_like(run._phi, float(obj.link(0.0)))
    state = run.start()
    for t in range(500):
        state = run.advance(state, t)
    off = observed(run, state)
    claim.close(off, 0.0, 1e-6, what="log-law and reward against theory's solution")
    claim.below(gap(run, state), 1e-10, what="certified gap of the last iterate")
    other = solution(obj, p, ref, tau, "rounds" if pay == "saddle" else "saddle").policy
    law = run.policy.log_law(state["theta"]).exp().numpy()
    apart = 0.5 * np.abs(law - other).sum(-1)
    if name in ("iq_learn", "gail"):
        claim.below(apart, 1e-6, what="TV between the two pays' ends, b(r) + r constant")
    else:
        claim.exhibits(apart.max(), 1e-4, what="TV between the two pays' ends")


@pytest.mark.claim("T10.saddle_point", regime="tabular")
@pytest.mark.parametrize("name", SADDLES)
def test_the_gap_brackets_the_value_of_theory(claim, name):
    tau, obj = 0.25, objectives.get(name)
    p, ref, kick = games(4, 5, seed=107)
    run = tabular(obj, p, ref, kick, tau, size=0.2)
    state = run.start()
    law = run.policy.log_law(state["theta"]).exp().numpy()
    reward = state["phi"].numpy()[:, None]
    best = np.asarray(obj.link(np.log(p / law)))
    primal = obj.value(p, law, best) + tau * laws.kl(law, ref)
    dual = laws.expect(p, np.asarray(obj.a(reward))) - tau * np.log(
        laws.expect(ref, np.exp(-np.asarray(obj.b(reward)) / tau))
    )
    claim.close(gap(run, state), (primal - dual)[:, 0], 1e-12, what="gap = primal - dual")
    value = saddle_point(p, ref, obj, tau).primal
    claim.below(dual, value, what="dual value", atol=1e-12)
    claim.below(value, primal, what="value under the primal", atol=1e-12)


@pytest.mark.claim("T10.players", regime="dynamics")
def test_the_pairwise_logistic_game_has_the_rounds_of_the_pointwise_one_and_another_saddle(claim):
    p, ref, kick = games(3, 4, seed=108)
    ends = {}
    for name, pay in (("spin", "rounds"), ("spin", "saddle"), ("airl", "saddle")):
        rules = Rules("alternating", pay)
        run = tabular(objectives.get(name), p, ref, kick, 0.3, rules, step=1.0)
        state = run.start()
        for t in range(400):
            state = run.advance(state, t)
        ends[name, pay] = run.policy.log_law(state["theta"]).exp().numpy()
        claim.below(gap(run, state), 1e-9, what="certified gap of the last iterate")
    same = equilibrium(p, ref, objectives.get("airl"), 0.3).policy
    claim.close(ends["spin", "rounds"], same, 1e-6, what="SPIN's rounds end where AIRL's do")
    apart = 0.5 * np.abs(ends["spin", "saddle"] - ends["airl", "saddle"]).sum(-1)
    claim.exhibits(apart, 1e-4, what="TV between the saddle points of SPIN and AIRL")


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(150, marks=pytest.mark.claim("T2.players", regime="dynamics")),
        pytest.param(3, marks=pytest.mark.claim(
            "T2.players", regime="dynamics", drops="exact_best_response")),
    ],
)  # fmt: skip
def test_many_reward_steps_and_a_proximal_step_are_a_round(claim, count):
    p, ref, _ = games(3, 7, seed=109)
    obj, beta, tau, n = objectives.get("spif", c=0.8), 1.2, 0.2, 7
    path = self_play(p, ref, obj, beta, 4, ref, tau, progress=False).policies
    rows = pd.DataFrame({"seed": range(3), "tau": tau, "step_reward": 1.5})
    rows["step_policy"] = 1.0 / (beta + tau)
    rules = Rules("alternating", "rounds", natural=True, reward_steps=count)
    start = np.log(ref[:, 0]), np.zeros(n)
    run = Players(Softmax(n), Table(n), obj, rows, p, start, rules, np.log(ref))
    state = run.start()
    for t in range(4):
        state = run.advance(state, t)
        law = run.policy.log_law(state["theta"]).exp().numpy()
        if t == 0:
            best = np.asarray(obj.link(np.log(p / ref)))
            left = (1.0 - 1.5 * 0.8 * (p + ref)) ** count
            reward = state["phi"].numpy()[:, None]
            claim.close(reward, best * (1.0 - left), 1e-12, what="reward after k steps")
        if count == 150:
            claim.close(law, path[t + 1], 1e-10, what="policy after a round")
    if count == 3:
        apart = 0.5 * np.abs(law - path[4]).sum(-1)
        claim.exhibits(apart.max(), 1e-4, what="TV to four rounds, three reward steps a round")


@pytest.mark.parametrize(
    ("name", "pay"), [("spif", "saddle"), ("nwj", "rounds"), ("ipo", "saddle")]
)
def test_sampled_moves_are_unbiased(name, pay):
    rows = 3000
    p, ref, kick = games(1, 4, seed=110)
    p, ref, kick = (np.repeat(x, rows, axis=a) for x, a in ((p, 0), (ref, 0), (kick, 1)))
    rules = Rules(pay=pay, batch=5)
    run = tabular(objectives.get(name), p, ref, kick, 0.3, rules, size=0.5)
    state = run.start()
    theta, phi = state["theta"], state["phi"]
    draws = run._draws(theta, 0, "")
    for move in (run.policy_move, run.reward_move):
        sampled, exact = move(theta, phi, draws), move(theta, phi)[0]
        error = sampled.std(0) / np.sqrt(rows)
        assert ((sampled.mean(0) - exact).abs() <= 4.0 * error).all()
        assert sampled.std(0).min() > 1e-3


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
def test_the_score_function_has_no_variance_at_the_equilibrium(pay):
    p, ref, kick = games(6, 5, seed=111)
    run = tabular(objectives.get("airl"), p, ref, kick, 0.3, Rules(pay=pay, batch=4), size=0.0)
    state = run.start()
    draws = run._draws(state["theta"], 0, "")
    move = run.policy_move(state["theta"], state["phi"], draws)
    assert move.abs().max() <= 1e-9
    assert run.reward_move(state["theta"], state["phi"], draws).abs().max() > 1e-2


@pytest.mark.claim("T10.sampled_players", regime="dynamics")
def test_minibatches_hover_at_the_predicted_spread(claim):
    rows, batch = 24, 400
    p, ref, kick = games(1, 4, seed=112)
    p, ref, kick = (np.repeat(x, rows, axis=a) for x, a in ((p, 0), (ref, 0), (kick, 1)))
    rules = Rules(batch=batch)
    run = tabular(objectives.get("spif"), p, ref, kick, 0.1, rules, step=0.25, size=0.0)
    predicted = predicted_spread(run, run.start())[0]
    run.measures = {"distance": distance}
    table = simulator.run(run, range(200, 800, 15), progress=False)
    squares = (table.distance**2).groupby(table.seed).mean()
    error = squares.std() / np.sqrt(rows)
    claim.below(abs(squares.mean() - predicted), 4.0 * error, what="mean square distance",
                because="sampling")  # fmt: skip
    assert error < 0.1 * predicted
