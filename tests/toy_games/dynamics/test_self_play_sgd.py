"""The stochastic self-play loop: its data, its rounds, its units; and what it refuses."""

import numpy as np
import pandas as pd
import pytest
import torch

from theory import TokenMDP, laws, objectives, self_play
from theory.errors import InvalidInput, Unavailable
from toy_games.dynamics.self_play import MEASURES, Data, SelfPlay, reverse_kl, sft_scale
from toy_games.engine import simulator
from toy_games.engine.policies import Neural, Softmax, Tokens

TRAINABLE = [n for n in objectives.names() if n != "sppo" and not objectives.get(n).missing("risk")]


def instance(n=7, seed=3):
    rng = np.random.default_rng(seed)
    return laws.random_law(rng, (n,), 1.0), laws.random_law(rng, (n,), 1.0)


def table_of(**columns):
    return pd.DataFrame({"seed": [0], **{k: [v] for k, v in columns.items()}})


def exact(name, **columns):
    """A run with exact expectations on seven outcomes."""
    p, q = instance()
    obj = None if name == "sft" else objectives.get(name)
    rows = table_of(**({"tau": 0.3} if name == "inpo" else {}), **columns)
    return SelfPlay(Softmax(7), obj, rows, p, np.log(q), Data(batch=None)), p, q


@pytest.mark.claim("T15.first_gradient", regime="dynamics")
@pytest.mark.parametrize("name", [n for n in TRAINABLE if n != "tspin"])
def test_the_first_step_of_every_objective_is_sfts_step(claim, name):
    beta = 0.7
    run, p, q = exact(name, beta=beta, rate=0.01)
    sft, _, _ = exact("sft", rate=0.01)
    step, base = (r.advance(r.start(), 0)["theta"] - r.start()["theta"] for r in (run, sft))
    claim.close(base, 0.01 * (p - q)[None], 1e-15, what="SFT's step is rate (p - pi)")
    claim.close(step, base, 1e-12, what="first step at the same rate in SFT units")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_reference")
def test_tspin_starts_elsewhere(claim):
    run, p, q = exact("tspin", rate=1.0)
    step = run.advance(run.start(), 0)["theta"] - run.start()["theta"]
    cosine = torch.nn.functional.cosine_similarity(step, torch.tensor((p - q)[None]))
    claim.exhibits(1.0 - cosine, 1e-3, what="1 - cosine with SFT's step, reference-free loss")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.claim(clause, regime="dynamics"))
        for clause, names in {
            "T3.descent_reaches_it": ("spin", "ipo", "centred_spif", "renyi"),
            "T4.solvers": ("spif", "nwj"),
        }.items()
        for name in names
    ],
)
def test_long_rounds_of_exact_gradients_are_the_exact_one_step_rounds(claim, name):
    run, p, q = exact(name, beta=1.5, rate=1.0, steps_per_round=3000)
    table = simulator.run(run, [3000, 6000], progress=False)
    path = self_play(p, q, objectives.get(name), 1.5, rounds=2, one_step=True)
    claim.close(table.kl, path.details["kl"][1:], 1e-9, what="KL after 3000 exact steps a round")


@pytest.mark.parametrize("name", TRAINABLE)
def test_every_objective_with_a_loss_trains_on_batches(name):
    p, q = instance()
    rows = pd.DataFrame({"seed": range(3), "rate": 0.05, "tau": 0.1 if name == "inpo" else 0.0})
    obj = objectives.get(name)
    run = SelfPlay(Softmax(7), obj, rows, p, np.log(p * 0.5 + q * 0.5), Data(batch=16))
    table = simulator.run(run, [0, 60], progress=False)
    first, last = table[table.step == 0], table[table.step == 60]
    assert np.isfinite(table.kl).all()
    if name != "tspin":
        assert last.kl.mean() < first.kl.mean()
    assert last.kl.nunique() == 3


def test_rounds_begin_where_the_row_says():
    p, q = instance()
    rows = pd.DataFrame({"seed": [0, 0], "steps_per_round": [2, 3], "rate": 0.2})
    run = SelfPlay(Softmax(7), objectives.get("spif"), rows, p, np.log(q), Data(batch=None))
    state, frozen = run.start(), []
    for t in range(7):
        state = run.advance(state, t)
        frozen.append(state["opponent"][:, 0, 0].tolist())
    changes = np.diff(np.array(frozen), axis=0) != 0
    np.testing.assert_array_equal(np.flatnonzero(changes[:, 0]) + 1, [2, 4, 6])
    np.testing.assert_array_equal(np.flatnonzero(changes[:, 1]) + 1, [3, 6])


def test_fixed_data_stay_and_pools_are_drawn_once_a_round():
    p, q = instance()
    rows = pd.DataFrame({"seed": [0, 1], "steps_per_round": 4})
    data = Data(batch=8, expert_samples=30, own_samples=12)
    run = SelfPlay(Softmax(7), objectives.get("spin"), rows, p, np.log(q), data)
    state = first = run.start()
    assert torch.allclose(first["data"] * 30, (first["data"] * 30).round())
    assert torch.allclose(first["own"].sum(-1), torch.ones(2, 1, dtype=torch.float64))
    assert not torch.equal(first["data"][0], first["data"][1])
    for t in range(5):
        state = run.advance(state, t)
        assert torch.equal(state["data"], first["data"])
        assert torch.equal(state["own"], first["own"]) == (t < 4)


def test_temperature_changes_the_samples_and_not_the_opponent():
    p, q = instance()
    rows = pd.DataFrame({"seed": [0, 0], "temperature": [1.0, 0.5]})
    run = SelfPlay(Softmax(7), objectives.get("spin"), rows, p, np.log(q), Data(batch=None))
    state = run.start()
    np.testing.assert_allclose(state["own"][0, 0], q, atol=1e-14)
    np.testing.assert_allclose(state["own"][1, 0], q**2 / (q**2).sum(), atol=1e-14)
    assert torch.equal(state["opponent"][0], state["opponent"][1])


def test_scales_of_the_first_step():
    beta = torch.tensor([0.5, 2.0], dtype=torch.float64)
    scales = {"spin": 0.5, "spif": 1.0, "ipo": 2.0, "spin_hinge": 1.0, "airl": 0.5}
    for name, scale in scales.items():
        found = sft_scale(objectives.get(name), beta)
        assert torch.allclose(found, scale * beta), name
    assert torch.equal(sft_scale(None, beta), torch.ones(2, dtype=torch.float64))


def test_measures_are_their_definitions():
    run, p, q = exact("spif", beta=0.7)
    state = run.start()
    found = {**run.measure(state, 0), "reverse": reverse_kl(run, state, 0)}
    assert list(found)[:4] == list(MEASURES)
    expected = {
        "kl": laws.kl(p, q),
        "tv": 0.5 * np.abs(p - q).sum(),
        "max_logratio": np.abs(np.log(p / q)).max(),
        "max_reward": 0.0,
        "reverse": laws.kl(q, p),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, atol=1e-13)
    moved = run.advance(state, 0)
    u = run.log_law(moved) - state["opponent"]
    np.testing.assert_allclose(run.measure(moved, 1)["max_reward"], 0.7 * u.abs().max())


@pytest.mark.parametrize("make", [Tokens, Neural])
def test_token_policies_are_the_games_own_laws(make):
    rng = np.random.default_rng(0)
    for game in (
        TokenMDP.random(3, 3, prompts=2, rng=rng),
        TokenMDP.random(3, 4, rng=rng, order=1),
        TokenMDP.from_text(["a b", "b b a", "a"], order=1, tree=True, vocab_size=4, horizon=3),
    ):
        policy = make(game)
        theta = torch.stack([policy.initial(np.random.default_rng(s), 1.0) for s in range(2)])
        law = policy.log_law(theta)
        expected = game.log_sequence_law(policy.log_policy(theta).numpy())
        live = np.isfinite(expected)
        assert law.shape == (2, *policy.shape) == expected.shape
        np.testing.assert_allclose(law.numpy()[live], expected[live], atol=1e-12)
        assert (law.exp().numpy()[~live] == 0).all()
        np.testing.assert_allclose(law.exp().sum(-1), 1.0, atol=1e-12)


def test_padding_neither_breaks_nor_moves_training():
    texts = [("one", "a b"), ("one", "b"), ("two", "a"), ("two", "b a b")]
    game = TokenMDP.from_text(texts, order=1, tree=True, vocab_size=4, horizon=4)
    policy = Tokens(game)
    run = SelfPlay(
        policy,
        objectives.get("ipo"),
        pd.DataFrame({"seed": range(3), "rate": 1.0}),
        game.sequence_law(game.expert),
        policy.initial(np.random.default_rng(0), 0.0),
        Data(batch=32),
    )
    table = simulator.run(run, [0, 300], progress=False)
    ends = table.groupby("step").kl.mean()
    assert np.isfinite(table.to_numpy()).all()
    assert ends[300] < 0.6 * ends[0]


def test_everything_wrong_is_said_at_once():
    p, _ = instance()
    rows = pd.DataFrame(
        {"seed": [0, -1], "beta": [1.0, 0.0], "rate": "x", "steps_per_round": [1.5, 2]}
    )
    with pytest.raises(InvalidInput) as caught:
        SelfPlay(
            Softmax(7),
            objectives.get("centred_spif"),
            rows,
            2.0 * p,
            np.zeros(6),
            Data(batch=10, own_samples=0, group=4),
        )
    said = str(caught.value)
    for part in ("seed", "beta=", "rate=", "steps_per_round=1.5", "expert", "start", "own_samples"):
        assert part in said
    assert "multiple of group=4" in said


@pytest.mark.parametrize(
    ("name", "columns", "reason"),
    [
        ("sppo", {}, "no expert law"),
        ("tspin", {"tau": 0.1}, "reference-free"),
        ("ipo", {"tau": 0.1, "beta": np.inf}, "beta"),
        ("gail", {}, "starts at r = 0"),
    ],
)
def test_what_cannot_be_played_says_why(name, columns, reason):
    p, q = instance()
    with pytest.raises(InvalidInput, match=reason) as caught:
        SelfPlay(Softmax(7), objectives.get(name), table_of(**columns), p, np.log(q))
    assert isinstance(caught.value, Unavailable) == (name != "ipo")


def test_an_empty_table_or_another_kind_of_objective_is_refused():
    p, q = instance()
    with pytest.raises(InvalidInput, match="rows: empty"):
        SelfPlay(Softmax(7), None, pd.DataFrame({"seed": []}), p, np.log(q))
    with pytest.raises(InvalidInput, match="no column 'seed'"):
        SelfPlay(Softmax(7), None, pd.DataFrame({"beta": [1.0]}), p, np.log(q))
    with pytest.raises(InvalidInput, match="obj=7; needed is an objective"):
        SelfPlay(Softmax(7), 7, table_of(), p, np.log(q))
    assert SelfPlay(Softmax(7), "spif(c=2)", table_of(), p, np.log(q)).objective.c == 2
