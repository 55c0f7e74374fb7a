"""Smaller classes of two players, and phrases of real text: settings and ends in numpy."""

from types import SimpleNamespace
from unittest import mock

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from lab.streams import Streams
from theory import TokenMDP, objectives, saddle_point
from theory.rounds.log_linear import LogLinear
from toy_games.engine.rewards import Network, one_hot_tokens
from toy_games.games import player_classes, real_text
from toy_games.games.two_players import instance

EXPERT = instance(2, 12, 0.7)[0][:, 0]


def close(found, expected, rtol=1e-9):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


def normal(law):
    return law / law.sum(-1, keepdims=True)


def tv(p, q):
    return 0.5 * np.abs(p - q).sum(-1)


@pytest.mark.parametrize("natural", [False, True])
def test_a_policy_of_logits_against_three_features(natural):
    table = player_classes.few_features(3, natural, 2, 1, progress=False)
    rng = Streams([0]).generator(0, "features")
    drawn = np.column_stack([np.ones(12), rng.standard_normal((12, 11))])
    x = np.linalg.qr(drawn)[0][:, 1:4] * np.sqrt(12)
    family = LogLinear(x)
    likely = np.stack([family.law(family.maximum_likelihood(p)) for p in EXPERT])
    assert table.seed.tolist() == [0, 1, 0, 1]
    assert table.step.tolist() == [0, 0, 1, 1]
    q = np.full(12, 1 / 12)
    phi = 0.15 * (EXPERT - q) @ x
    r = phi @ x.T
    pay = r if natural else r + r**2 / 2
    centred = pay - pay.mean(-1, keepdims=True)
    law = normal(np.exp(0.1 * centred if natural else 4.0 * centred / 12))
    close(table.tv, [*tv(likely, q), *tv(likely, law)], 1e-7)
    close(table.tv_to_expert, [*tv(EXPERT, q), *tv(EXPERT, law)])
    close(table.largest_reward, [0, 0, *np.abs(r).max(-1)])
    close(table.predicted, [*tv(likely, EXPERT)] * 2, 1e-7)
    same = table[["part", "objective", "features", "natural"]].drop_duplicates()
    assert same.to_numpy().tolist() == [["features", "spif", 3, natural]]


def ends(kind, own, other, family, best):
    """Laws (2, 12) where theory puts the policy."""
    if kind == "sft":
        return np.stack([family.law(b) for b in best])
    if kind == "table rounds":
        spif = objectives.get("spif")
        return np.stack([family.law(family.potential_minimiser(p, spif, b))
                         for p, b in zip(EXPERT, best, strict=True)])  # fmt: skip
    found = []
    for p, b in zip(EXPERT, best, strict=True):
        seen = 0.7 * own + 0.3 * other

        def miss(theta, p=p, seen=seen):
            q = family.law(theta)
            if kind == "table saddle":
                return 0.5 * ((p - q) ** 2 / (p + q)).sum()
            return (((q - p) @ seen) ** 2).sum()

        found.append(family.law(minimize(miss, b, options={"gtol": 1e-12}).x))
    return np.stack(found)


@pytest.mark.parametrize("kind", ["sft", "mixture 0.3", "table rounds", "table saddle"])
def test_a_log_linear_policy_against_other_rewards(kind):
    table = player_classes.reward_classes(kind, 2, 1, progress=False)
    own, other = Streams([0]).generator(0, "classes").standard_normal((2, 12, 3))
    family, q = LogLinear(own), np.full(12, 1 / 12)
    best = [family.maximum_likelihood(p) for p in EXPERT]
    likely = np.stack([family.law(b) for b in best])
    where = tv(ends(kind, own, other, family, best), likely)
    np.testing.assert_allclose(table.predicted, [*where] * 2, atol=2e-6)
    assert (where > 1e-3).all() == (kind != "sft")
    if kind == "sft":
        theta = 0.3 * (EXPERT - q) @ own
    else:
        r = (EXPERT - q) * 1.0  # a table's first step
        if kind == "mixture 0.3":
            x = 0.7 * own + 0.3 * other
            r = 0.3 * (EXPERT - q) @ x @ x.T
        pay = r if kind == "table rounds" else r + r**2 / 2
        theta = 0.5 / 12 * (pay - pay.mean(-1, keepdims=True)) @ own
        assert table.share.tolist() == [0.3 if kind == "mixture 0.3" else 0.0] * 4
    law = normal(np.exp(theta @ own.T))
    close(table.tv, [*tv(likely, q), *tv(likely, law)], 1e-6)
    same = table[["part", "kind", "objective"]].drop_duplicates()
    assert same.to_numpy().tolist() == [["classes", kind, "sft" if kind == "sft" else "spif"]]


def test_a_token_policy_against_a_network():
    table = player_classes.network(3, 2, 1, 0.2, progress=False)
    made = [TokenMDP.random(3, 2, seed=i) for i in range(2)]
    expert = np.stack([g.sequence_law(g.expert) for g in made])
    assert made[0].expert.tolist() != made[1].expert.tolist()
    start = made[0].sequence_law(made[0].uniform_policy())
    law = saddle_point(expert, start, objectives.get("spif"), 0.2).policy[:, 0]
    close(table.tv[:2], tv(law, start[0]), 1e-6)
    close(table.tv_to_expert[:2], tv(expert[:, 0], start[0]))
    net, streams = Network(one_hot_tokens(made[0]), 3), Streams(range(2))
    phi = torch.stack([net.initial(streams.generator(i, "net"), 0.5) for i in range(2)])
    phi.requires_grad_()
    reward = net.reward(phi)
    close(table.largest_reward[:2], reward.detach().abs().amax((1, 2)))
    p, q = torch.from_numpy(expert), torch.from_numpy(start)
    paid = (p * (reward - reward**2 / 2) - q * (reward + reward**2 / 2)).sum()
    (slope,) = torch.autograd.grad(paid, phi)
    moved = net.reward(phi.detach() + 2.0 / 6.0 * slope)
    close(table.largest_reward[2:], moved.abs().amax((1, 2)))
    assert (table.tv_to_expert[2:].to_numpy() != table.tv_to_expert[:2].to_numpy()).all()
    assert table.step.tolist() == [0, 0, 1, 1]
    same = table[["part", "objective", "width", "tau"]].drop_duplicates()
    assert same.to_numpy().tolist() == [["network", "spif", 3, 0.2]]


# -- real text ------------------------------------------------------------------------------------

TEXTS = ["A b c, a b.", "a b; b c d e f g, c b.", "c, b c. a b, h i, h j, a b c d, a b a b."]
PAIRS = [SimpleNamespace(response=text) for text in TEXTS]
MADE = mock.patch.object(real_text, "load_pairs", return_value=PAIRS)


def test_phrases_are_counted_response_by_response():
    with MADE:
        found = real_text.read_phrases(3, 4, 1, 0.5)
    game = found.game
    assert (game.n_actions, game.horizon) == (5, 4)
    assert found.counts.shape == found.law.shape == (1, game.n_responses)
    close(found.law, game.sequence_law(game.expert))
    close(found.law.sum(), 1.0)
    names = [r.text.removesuffix(" </s>") for r in game.sequences()[0]]
    seen = {names[i]: found.counts[0, i] for i in np.flatnonzero(found.counts[0])}
    assert seen == {"a b": 3, "a b c": 1, "b c": 1, "c b": 1}
    close(found.empirical, found.counts / 6)


def test_phrases_as_a_rule():
    with MADE:
        found, named = real_text.read_phrases(), real_text.read_phrases(6, 4, 2, 0.01)
    assert (found.game.n_actions, found.game.horizon) == (8, 4)
    close(found.law, named.law)
    close(found.empirical, named.empirical)
    with MADE:
        other = [real_text.read_phrases(6, 4, 1, 0.01), real_text.read_phrases(6, 4, 2, 0.02)]
    for law in (x.law for x in other):
        assert np.abs(law - found.law).max() > 1e-4
    with MADE:
        longer = real_text.read_phrases(4, 5)
    assert longer.game.horizon == 5
    names = [r.text.removesuffix(" </s>") for r in longer.game.sequences()[0]]
    seen = {names[i] for i in np.flatnonzero(longer.counts[0])}
    assert {"a b c d", "a b a b"} <= seen
