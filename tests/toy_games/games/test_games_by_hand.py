"""Instances that experiments play: laws, seeds, shapes and exact ends, written out in numpy."""

import itertools
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams, draw
from theory import equilibrium, laws, objectives, saddle_point
from theory.rounds.log_linear import LogLinear
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.dynamics.two_players import Rules
from toy_games.dynamics.two_step import TwoStepRounds
from toy_games.engine.policies import Softmax
from toy_games.games import contenders
from toy_games.games.contenders import Method
from toy_games.games.ladder import Ladder
from toy_games.games.two_players import instance, solved, tabular


def close(found, expected, rtol=1e-11):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-13)


def normal(law):
    return law / law.sum(-1, keepdims=True)


# -- two players ----------------------------------------------------------------------------------


def test_instances_are_drawn_seed_by_seed():
    expert, ref, kick = instance(3, 4, 0.7)
    assert (expert.shape, ref.shape, kick.shape) == ((3, 1, 4), (3, 1, 4), (3, 2, 4))
    for seed in range(3):
        rng = Streams([seed]).generator(0, "game")
        law = laws.random_law(rng, (2, 4), 0.7)
        close(expert[seed, 0], law[0])
        close(ref[seed, 0], law[1])
        close(kick[seed], rng.standard_normal((2, 4)))
    close(expert.sum(-1), 1.0)
    assert (expert[0] != expert[1]).all()


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
def test_players_are_kicked_off_their_equilibrium(pay):
    expert, ref, kick = instance(3, 4, 0.7)
    obj = objectives.get("spif")
    point = (saddle_point if pay == "saddle" else equilibrium)(expert, ref, obj, 0.2)
    law, reward = solved(expert, ref, obj, 0.2, pay)
    close(law, point.policy)
    close(reward, point.reward)
    other = (equilibrium if pay == "saddle" else saddle_point)(expert, ref, obj, 0.2)
    assert np.abs(law - other.policy).max() > 1e-4
    rows = pd.DataFrame({"seed": [2, 0]})
    moving, resting = tabular("spif", rows, Rules(pay=pay), 0.2, 0.3, (3, 4, 0.7))
    for run, k in ((moving, 0.3), (resting, 0.0)):
        state = run.start()
        close(state["theta"], (np.log(law[:, 0]) + k * kick[:, 0])[[2, 0]])
        close(state["phi"], (reward[:, 0] + k * kick[:, 1])[[2, 0]])
        close(run.log_ref, np.log(ref)[[2, 0]])
        close(run.target[0], law[[2, 0]])
        close(run.target[1], reward[[2, 0]])
        close(run.expert, expert[[2, 0]])
        assert run.tau.tolist() == [0.2, 0.2]
        assert (run.rules.pay, run.objective.name) == (pay, "spif")
    own = np.array([[0.1], [0.4]])
    moving, _ = tabular("spif", rows, Rules(pay=pay), 0.2, own, (3, 4, 0.7))
    close(moving.start()["phi"], reward[[2, 0], 0] + own * kick[[2, 0], 1])


# -- ladders --------------------------------------------------------------------------------------


def small_ladder():
    return Ladder.random([3, 8], [1, 3, 2], 5, 0.8)


def test_a_ladder_has_nested_orthogonal_features():
    ladder = small_ladder()
    assert ladder.seeds == (3, 3, 3, 8, 8, 8)
    assert ladder.capacities == (1, 3, 2) * 2
    assert (ladder.features.shape, ladder.expert.shape) == ((6, 5, 3), (6, 1, 5))
    close(ladder.expert.sum(-1), 1.0)
    for row, d in enumerate(ladder.capacities):
        x = ladder.features[row].numpy()
        whole = ladder.features[1 if row < 3 else 4].numpy()
        close(x[:, :d], whole[:, :d])
        assert not x[:, d:].any()
        close(x[:, :d].T @ x[:, :d] / 5, np.eye(d), 1e-10)
        close(x.mean(0), np.zeros(3))
        close(ladder.expert[row], ladder.expert[0 if row < 3 else 3])
        assert ladder.model(row).features.shape == (5, d)
        assert ladder.law(row).shape == (5,)
    rng = Streams([8]).generator(0, "ladder of log-linear classes")
    drawn = np.column_stack([np.ones(5), rng.standard_normal((5, 4))])
    close(ladder.expert[3, 0], laws.random_law(rng, (5,), 0.8))
    ortho = ladder.features[4].numpy()
    for k in range(3):  # each within the span of what was drawn up to it
        least = np.linalg.lstsq(drawn[:, : k + 2], ortho[:, k], rcond=None)[0]
        close(drawn[:, : k + 2] @ least, ortho[:, k], 1e-9)
    theta = np.random.default_rng(0).normal(size=(6, 3))
    logits = np.einsum("bnd,bd->bn", ladder.features.numpy(), theta)
    found = ladder.policy.log_law(torch.from_numpy(theta)).exp()
    close(found[:, 0], normal(np.exp(logits)))


def test_where_a_ladder_ends():
    ladder, obj = Ladder.random([8], [1, 2], 4, 0.8), objectives.get("spif")
    best, least = ladder.maximum_likelihood(), ladder.potential_minimiser(obj)
    anchored = ladder.anchored(obj, 4.0, 0.1)
    assert best.shape == (2, 1, 4)
    for row, d in enumerate(ladder.capacities):
        x, p = ladder.features[row, :, :d].numpy(), ladder.law(row)
        close(x.T @ np.exp(best[row, 0].numpy()), x.T @ p, 1e-7)
        model, start = LogLinear(x), np.zeros(d)
        found = model.log_law(model.potential_minimiser(p, obj, start))
        close(least[row, 0], found, 1e-7)
        path = model.self_play(p, start, obj, 4.0, rounds=20, tau=0.1, ref=np.full(4, 0.25))
        close(anchored[row, 0], model.log_law(path.details["theta"][-1]))
        s_p, s_q = ladder.covariances(row)
        q = np.exp(best[row, 0].numpy())
        for found, weight in ((s_p, p), (s_q, q)):
            centred = x - weight @ x
            assert found.shape == (d, d)
            close(found, (centred.T * weight) @ centred, 1e-6)


def test_contenders_end_where_theory_says():
    ends = SimpleNamespace(
        potential_minimiser=lambda obj: obj.name,
        anchored=lambda obj, beta, tau: (obj.name, beta, tau),
    )
    best = torch.from_numpy(np.log(np.array([[[0.5, 0.3, 0.2]]])))
    by = lambda method: contenders.predicted(ends, method, 0.7, best)  # noqa: E731
    assert by(Method("spif", "two steps")) == "spif"
    assert by(Method("ipo", "one step", tau=0.5)) == ("ipo", 0.7, 0.5)
    hot = by(Method("sft", "mle", temperature=2.0)).exp()
    close(hot, normal(np.array([[[0.25, 0.09, 0.04]]])))


# -- contenders -----------------------------------------------------------------------------------


def test_names_of_methods():
    found = contenders.methods(["spin", "ipo"], ["spif"])
    assert [(m.spec, m.kind) for m in found] == [
        ("sft", "mle"), ("spin", "one step"), ("ipo", "one step"), ("spif", "two steps"),
    ]  # fmt: skip
    assert [m.name for m in found] == ["sft", "spin", "ipo", "spif, two steps"]
    assert Method("spif", "linear").name == "moment matching"
    named = Method("spin", "one step", temperature=0.5, tau=0.25).name
    assert named == "spin, temperature 0.5, anchor 0.25"
    assert found[0].objective is None
    assert found[1].objective.name == "spin"


def test_all_methods_read_as_many_responses():
    ladder = small_ladder()
    expert, start = np.array([0.5, 0.3, 0.2]), np.zeros(3)
    rows = pd.DataFrame({"seed": [0, 1]})
    policy, measures = ladder.policy, {"x": lambda run, state, step: run.beta}
    two = TwoStepRounds
    for kind, size, made in (("mle", 12, SelfPlay), ("one step", 6, SelfPlay),
                             ("two steps", 12, two), ("linear", 12, two)):  # fmt: skip
        spec = "sft" if kind == "mle" else "spif"
        method = Method(spec, kind, temperature=2.0, tau=0.25)
        if kind == "linear":
            here = (policy, pd.DataFrame({"seed": range(6)}), ladder.expert, start)
        else:
            here = (Softmax(3), rows, expert, start)
        for batch in (6, None):
            run = contenders.simulation(method, *here, Data(batch=batch), measures, 0.1, 7.0)
            assert type(run) is made
            assert run.data.batch == (None if batch is None else size)
            assert run.half_after == 7.0
            assert set(run.temperature.tolist()) == {2.0}
            assert set(run.tau.tolist()) == {0.25}
            assert list(run.measures) == ["x"]
            if made is TwoStepRounds:
                assert run.smoothing == 0.1
                assert run.rewards == ("linear" if kind == "linear" else "tabular")


def test_runs_are_not_smoothed_nor_slowed_unless_said():
    expert, rows = np.array([0.5, 0.3, 0.2]), pd.DataFrame({"seed": [0, 1]})
    run = contenders.simulation(Method("spif", "two steps"), Softmax(3), rows, expert,
                                np.zeros(3), Data(batch=None), {})  # fmt: skip
    assert run.smoothing == 0.0
    assert run.half_after == np.inf


def test_tables_are_labelled_and_checkpoints_numbered():
    table = pd.DataFrame({"seed": [0], "beta": [9.0], "kl": [0.5]})
    found = contenders.labelled(table, "ladder", Method("spif", "two steps"), 0.7)
    assert found.columns.tolist() == ["part", "method", "kind", "beta", "seed", "kl"]
    assert found.iloc[0].tolist() == ["ladder", "spif, two steps", "two steps", 0.7, 0, 0.5]
    assert contenders.kept({"checkpoint": None, "a": 1}, 3) == {"checkpoint": None, "a": 1}
    assert str(contenders.kept({"checkpoint": "x/y"}, 3)["checkpoint"]) == "x/y.3"


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_first_gradients_in_units_of_the_predicted_one(temperature):
    p = np.array([[0.5, 0.3, 0.2], [0.1, 0.6, 0.3]])
    start = np.array([0.3, -0.2, 0.1, 0.5, 0.0, -0.4])
    other = np.array([1.0, 2.0, -1.0, 0.5, 0.0, -3.0])
    more = {} if temperature == 1.0 else {"temperature": temperature}
    found = contenders.first_gradients(
        Method("ipo", "one step"), Softmax(3, 2), p, torch.from_numpy(start),
        torch.from_numpy(other), 4, 3, **more
    )  # fmt: skip
    law = normal(np.exp(start.reshape(2, 3)))
    own = normal(law ** (1 / temperature))
    sft, whole = ((law - p) / 2).ravel(), ((own - p) / 2).ravel()
    across = other - (other @ sft) / (sft @ sft) * sft
    across *= np.linalg.norm(sft) / np.linalg.norm(across)
    length = np.linalg.norm(sft) * np.linalg.norm(whole)
    close(found["cosine"], np.full(3, whole @ sft / length))
    streams = Streams(range(3))
    numbers = [streams.uniform(side, 0, (2, 4)) for side in ("expert", "own")]
    drawn = [draw(torch.from_numpy(np.stack([of] * 3)), u).numpy()
             for of, u in zip((p, own), numbers, strict=True)]  # fmt: skip
    gradient = np.zeros((3, 2, 3))
    for b, x, k in itertools.product(range(3), range(2), range(4)):
        gradient[b, x, drawn[0][b, x, k]] -= 1 / 8
        gradient[b, x, drawn[1][b, x, k]] += 1 / 8
    close(found["along"], gradient.reshape(3, 6) @ sft / (sft @ sft), 1e-10)
    close(found["across"], gradient.reshape(3, 6) @ across / (sft @ sft), 1e-9)
