"""Data of rounds with a handful of responses: slices, batches and risks worked by hand."""

from itertools import chain
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lab import streams
from llm_scale.data.items import Item, Response
from llm_scale.rounds.batches import micro_batches, order
from llm_scale.rounds.preferences import PreferenceRound, judged
from llm_scale.rounds.sequence import Round
from llm_scale.rounds.tokens import TokenRound
from theory import objectives

SPIN, SPIF = objectives.get("spin"), objectives.get("spif")


def response(*tokens):
    return Response(tokens, False)


def item(number, prompt=(7, 8), expert=((1, 2, 0),), own=((3,), (4, 0)), history=()):
    sides = (tuple(response(*r) for r in side) for side in (expert, own, history))
    return Item(number, prompt, *sides)


def flat(values):
    return torch.tensor(values, dtype=torch.float64)


def softplus(x):
    return np.log1p(np.exp(x))


# -- steps ----------------------------------------------------------------------------------------


def test_steps_take_slices_of_one_permutation_an_epoch():
    epochs = [streams.generator(5, "order", 3 + 2, e).permutation(7).tolist() for e in range(3)]
    taken = [order(5, 3, step, 4, 7) for step in range(5)]
    assert [len(step) for step in taken] == [4] * 5
    assert list(chain(*taken)) == list(chain(*epochs))[:20]
    assert order(5, 4, 0, 7, 7) != epochs[0]


def test_forward_passes_hold_so_many_padded_tokens():
    """A prompt of two and at most three tokens on two sides: 10 padded tokens an item."""
    data = Round.plain([item(i, own=((3,),)) for i in range(5)])
    assert micro_batches(data, [4, 2, 0, 1], 20) == [[4, 2], [0, 1]]
    assert micro_batches(data, [4, 2, 0], 19) == [[4], [2], [0]]
    assert micro_batches(data, [4, 2], 1) == [[4], [2]]
    alone = Round.plain([item(i, own=()) for i in range(4)])
    assert micro_batches(alone, [3, 1, 2], 10) == [[3, 1], [2]]
    mixed = Round.plain([item(0, expert=((1,) * 8,), own=((3,),)), item(1, own=((3,),))])
    assert micro_batches(mixed, [0, 1], 39) == [[1], [0]]
    assert micro_batches(mixed, [0, 1], 40) == [[1, 0]]


# -- a round of pairs -----------------------------------------------------------------------------


def pairs_of(count, history=()):
    items = [item(i, history=history) for i in range(count)]
    size = count * len(items[0].responses)
    return Round(items, torch.arange(size).float(), torch.arange(size) + 0.5, torch.empty(0))


def test_a_part_of_a_round_keeps_its_rows():
    data = pairs_of(3)
    part = data.subset([2, 0])
    assert [i.id for i in part.items] == [2, 0]
    assert part.current.tolist() == [6, 7, 8, 0, 1, 2]
    assert part.opponent.tolist() == [6.5, 7.5, 8.5, 0.5, 1.5, 2.5]
    assert part.log_anchor is None
    tensors = data.tensors()
    assert Round.of(tensors).items == data.items
    assert torch.equal(tensors["current"], data.current)


def test_sides_of_a_flat_row():
    data = pairs_of(2, history=((5,),))
    expert, own, history = data._sides(flat(range(8)))
    assert (expert.tolist(), own.tolist(), history.tolist()) == (
        [[0], [4]], [[1, 2], [5, 6]], [[3], [7]],
    )  # fmt: skip
    empty = data._sides(torch.empty(0))
    assert [side.shape for side in empty] == [(0, 0)] * 3


def test_risk_and_likelihood_of_pairs():
    data, r = pairs_of(2), flat([0.5, -0.2, 0.1, 1.0, 0.3, 0.0])
    rows = r.reshape(2, 3).numpy()
    expected = softplus(-(rows[:, :1] - rows[:, 1:])).mean(-1)
    np.testing.assert_allclose(data.risk(SPIN, r), expected)
    np.testing.assert_allclose(data.likelihood_loss(r), [-0.5, -1.0])
    many = Round.plain([item(0, expert=((1,), (2,)))])
    np.testing.assert_allclose(many.likelihood_loss(flat([0.5, 0.2, 9.0, 9.0])), [-0.35])
    tspin = objectives.get("tspin", history_weight=0.5)
    found = pairs_of(1, history=((5,),)).risk(tspin, flat([0.5, -0.2, 0.1, 0.4]))
    own = np.array([-0.2, 0.1])
    history = softplus(-(own - 0.4)).mean()
    np.testing.assert_allclose(found, [softplus(-(0.5 - own)).mean() + 0.5 * history])


# -- preferences ----------------------------------------------------------------------------------

WINS = flat([[[0, 1, 1], [0, 0, 0], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]])


def judged_round():
    items = [item(i, expert=(), own=((1,), (2,), (3,))) for i in range(2)]
    nothing = torch.zeros(6)
    return PreferenceRound(items, nothing, nothing, torch.empty(0), wins=WINS)


def test_risks_of_comparisons():
    """The first prompt's 0 beats 1 and 2, and 2 beats 1; the second's turn in a circle."""
    data, r = judged_round(), flat([0.5, -0.2, 0.1, 1.0, 0.3, 0.0])
    x, y = r.reshape(2, 3).numpy()
    gaps = [[x[0] - x[1], x[0] - x[2], x[2] - x[1]], [y[0] - y[2], y[1] - y[0], y[2] - y[1]]]
    np.testing.assert_allclose(data.risk(SPIN, r), softplus(-np.array(gaps)).mean(-1))
    sppo = objectives.get("sppo")
    shares = np.array([[1.0, 0.0, 0.5], [0.5, 0.5, 0.5]])
    losses = ((r.reshape(2, 3).numpy() - (shares - 0.5)) ** 2) * 2 * 1 / 3  # each met two others
    np.testing.assert_allclose(data.risk(sppo, r), losses.sum(-1))
    likelihood = [-(2 * x[0] + x[2]) / 3, -y.sum() / 3]
    np.testing.assert_allclose(data.likelihood_loss(r), likelihood)
    centred = objectives.get("centred_spif")
    group = centred.group_risk(x, x, np.array([2.0, 0, 1]), np.array([0, 2.0, 1]))
    assert float(data.risk(centred, r)[0]) == pytest.approx(float(group))
    assert torch.equal(data.tensors()["wins"], WINS)
    assert torch.equal(data.subset([1]).wins, WINS[1:])


def test_who_wins_is_drawn_once_a_pair():
    data = judged_round()
    chance = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])
    oracle = SimpleNamespace(compare=lambda item, given: chance)
    exact = judged(data, oracle, data.items, 4, 5, True)
    np.testing.assert_allclose(exact.wins[1], chance - 0.5 * np.eye(3))
    found = judged(data, oracle, data.items, 4, 5, False).wins.numpy()
    for number, wins in enumerate(found):
        luck = streams.uniform(3, 5, "comparison", 4, number)
        first = luck < [0.9, 0.2, 0.6]
        assert wins[0, 1:].tolist() == first[:2].astype(float).tolist()
        assert wins[1, 2] == first[2]
        np.testing.assert_array_equal(wins + wins.T, 1 - np.eye(3))


# -- tokens ---------------------------------------------------------------------------------------


def token_round():
    """Items of 3, and of 1 + 2, positions; two own tokens at each."""
    items = [
        item(0, expert=((1, 2, 0), (1,)), own=()),
        item(1, expert=((1,), (2, 0)), own=()),
    ]
    table = torch.arange(21.0).reshape(7, 3)
    return TokenRound(items, table, table + 0.5, torch.empty(0), own=torch.arange(14).reshape(7, 2))


def test_rounds_of_tokens_sum_along_responses():
    data = token_round()
    part = data.subset([1])
    assert part.current[:, 0].tolist() == [12, 15, 18]
    assert part.own.tolist() == [[8, 9], [10, 11], [12, 13]]
    assert len(part.anchor) == 0
    assert set(data.tensors()) >= {"own", "current", "opponent", "anchor"}
    r = 0.1 * torch.arange(21.0, dtype=torch.float64).reshape(7, 3) ** 1.5
    each = softplus(-(r[:, :1] - r[:, 1:]).numpy()).mean(-1)
    np.testing.assert_allclose(data.risk(SPIN, r), [each[:4].sum() / 2, each[4:].sum() / 2])
    likelihood = [-float(r[:4, 0].sum()) / 2, -float(r[4:, 0].sum()) / 2]
    np.testing.assert_allclose(data.likelihood_loss(r), likelihood)
