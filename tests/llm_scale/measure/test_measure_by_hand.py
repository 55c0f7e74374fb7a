"""Directions of gradients and slopes over tokens, from a few numbers."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from llm_scale import models
from llm_scale.data.items import Item, Response
from llm_scale.measure import gradients, telemetry
from llm_scale.measure.held_out import HeldOut, random_response, sft_distance
from llm_scale.measure.tokens import regression
from tests.llm_scale import tiny_game
from theory import objectives


@pytest.mark.parametrize(
    ("steps", "count", "expected"),
    [
        (10, 4, [0, 3, 6, 9]),
        (10, 2, [0, 9]),
        (10, 1, [0]),
        (3, 5, [0, 1, 2]),
        (1, 3, [0]),
        (0, 2, []),
        (2, 0, []),
    ],
)
def test_points_at_equal_distance(steps, count, expected):
    assert gradients.points(steps, count) == expected


def direction(played, sft):
    """Of two parameters with the given gradients (None: none)."""
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(1))]
    parameters[0].grad = torch.full((2,), 99.0)  # left over from before

    def accumulate(plain):
        for parameter, values in zip(parameters, sft if plain else played, strict=True):
            if values is not None:
                assert parameter.grad is None
                parameter.grad = torch.tensor(values)
        return 0.0

    found = gradients.cosine_to_sft(accumulate, parameters)
    assert all(parameter.grad is None for parameter in parameters)
    return found


def test_the_cosine_of_two_gradients():
    found = direction([[3.0, 4.0], None], [[4.0, 3.0], [1.0]])
    assert found["cosine"] == pytest.approx(24 / np.sqrt(25 * 26))
    assert found["gradient_ratio"] == pytest.approx(np.sqrt(25 / 26))
    both = direction([[1.0, 0.0], [2.0]], [[1.0, 0.0], [1.0]])
    assert both["cosine"] == pytest.approx(3 / np.sqrt(5 * 2))
    assert direction([None, None], [[4.0, 3.0], [1.0]]) == {}
    assert direction([[3.0, 4.0], None], [None, [0.0]]) == {}


def test_a_weighted_slope_over_tokens():
    """Each position's weights sum to 1 and its values are centred; NaN positions do not count."""
    x = np.array([[0.0, 1.0, 3.0], [2.0, 0.0, 1.0], [np.nan, 1.0, 0.0]])
    y = np.array([[0.5, 1.0, 4.0], [3.0, 0.0, 1.0], [9.0, 9.0, 9.0]])
    weight = np.array([[2.0, 1.0, 1.0], [0.1, 0.2, 0.1], [1.0, 1.0, 1.0]])
    share = (weight / weight.sum(-1, keepdims=True))[:2]
    a, b = (v[:2] - (share * v[:2]).sum(-1, keepdims=True) for v in (x, y))
    found = regression("token", x, y, weight, np.array([0, 1, 1]))
    assert found["token_slope"] == pytest.approx((share * a * b).sum() / (share * a * a).sum())
    correlation = (share * a * b).sum() / np.sqrt((share * a * a).sum() * (share * b * b).sum())
    assert found["token_correlation"] == pytest.approx(correlation)
    flat = np.ones((3, 3))
    assert regression("token", flat, y, weight, np.array([0, 1, 1])) == {}
    assert regression("token", x, flat, weight, np.array([0, 1, 1])) == {}
    assert regression("token", flat * np.nan, y, weight, np.array([0, 1, 1])) == {}


def test_random_responses_have_every_length_and_one_end():
    who = tiny_game.player(tiny_game.settings())
    found = [random_response(who, ident) for ident in range(60)]
    assert {len(r.tokens) for r in found} == {1, 2, 3}
    for response in found:
        assert response.tokens[-1] == who.language.eos
        assert not set(response.tokens[:-1]) & set(who.language.ends)
    assert found == [random_response(who, ident) for ident in range(60)]


def test_rewards_without_known_bounds_say_why():
    sides = np.array(["expert", "own", "expert", "own"])
    seen = SimpleNamespace(
        reward=lambda game: np.array([0.5, -0.2, 0.1, 0.3]),
        on=lambda *wanted: np.isin(sides, wanted),
        prompt=np.array([0, 0, 1, 1]),
    )
    game = SimpleNamespace(level="sequence", ablated=False, objective=objectives.get("spin_hinge"))
    row = telemetry.rewards(seen, game)
    assert "spin_hinge" in row["reward_bound_reason"]
    assert row["margin"] == pytest.approx((0.7 - 0.2) / 2)
    assert row["reward_range"] == pytest.approx(0.7)
    game.objective = objectives.get("spif", c=0.5)
    row = telemetry.rewards(seen, game)
    assert (row["reward_low"], row["reward_high"], row["reward_range_bound"]) == (-2.0, 2.0, 4.0)
    assert "reward_bound_reason" not in row


def test_the_distance_to_an_sft_run_is_that_of_its_final_model(tmp_path):
    who, sft = (tiny_game.player(tiny_game.settings(seed=seed)) for seed in (0, 1))
    models.save(sft.language, tmp_path / "final")
    some = [[(*word, 0) for word in words] for words in (
        [(1,), (2, 3), (3,), (2, 1)], [(2, 2), (1,), (), (3, 3)],
        [(3, 1), (), (2,), (1,)], [(), (3, 3), (1, 1), (2,)],
    )]  # fmt: skip
    items = [
        Item(i, tiny_game.PROMPT, (Response(a, False),), (Response(b, False), Response(c, False)))
        for i, (a, b, c, _) in enumerate(some)
    ]
    fresh = [Item(i, tiny_game.PROMPT, (), (Response(d, False),)) for i, (*_, d) in enumerate(some)]
    row = sft_distance(who, tmp_path, HeldOut(items, *(torch.empty(0),) * 3), fresh)

    def apart(side):
        pairs = [(tiny_game.PROMPT, words[side]) for words in some]
        return (who.score(pairs) - sft.score(pairs)).double().numpy()

    expert, own, new = map(apart, (0, 1, 3))
    assert row["sft_distance_expert"] == pytest.approx(np.abs(expert).mean(), rel=1e-5)
    assert row["sft_distance_own"] == pytest.approx(np.abs(own).mean(), rel=1e-5)
    assert row["kl_gap_to_sft"] == pytest.approx(-expert.mean(), rel=1e-5)
    assert row["kl_to_sft"] == pytest.approx(new.mean(), rel=1e-5)


def test_nothing_held_out_has_no_numbers():
    none = HeldOut.none()
    assert none.items == []
    assert len(none.before) == len(none.opponent) == len(none.anchor) == 0
