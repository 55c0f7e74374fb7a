"""Of large vocabularies as many positions are read and solved as there is time for."""

import numpy as np
import pytest

from lab.specs import objective_of
from llm_scale.measure import tokens
from llm_scale.measure.predicted import RewardTerms
from llm_scale.models.expert import ModelExpert
from tests.llm_scale import tiny_game
from theory import laws

GAME = RewardTerms(objective_of("spif(c=0.5)"), 2.0, own_samples=2, level="token")


@pytest.fixture
def near():
    """Laws of 40 prefixes that are close to each other."""
    q = laws.random_law(np.random.default_rng(0), (40, 4), 0.3)
    p = q * np.exp(0.1 * np.random.default_rng(1).standard_normal(q.shape))
    return p / p.sum(-1, keepdims=True), q


def test_one_step_rounds_are_solved_for_the_first_prefixes(near, monkeypatch):
    link, whole, why = tokens.predictions(*near, GAME)
    assert why == ""
    assert np.isfinite(whole).all()
    monkeypatch.setattr(tokens, "MOST_SOLVED", 4 * 20)
    same, part, _ = tokens.predictions(*near, GAME)
    np.testing.assert_array_equal(same, link)
    np.testing.assert_allclose(part[:20], whole[:20], atol=1e-9)
    assert np.isnan(part[20:]).all()
    monkeypatch.setattr(tokens, "MOST_SOLVED", 4 * 15)
    _, none, why = tokens.predictions(*near, GAME)
    np.testing.assert_array_equal(none, link)
    assert "one-step rounds of 4 tokens take too long" in why
    spin = RewardTerms(objective_of("centred_spif"), 2.0, own_samples=2, level="token")
    assert np.isfinite(tokens.predictions(*near, spin)[1]).all(), "nothing is solved"


def test_tables_of_laws_are_of_the_first_responses(monkeypatch):
    s = tiny_game.settings(held_out=12, level="token")
    expert, who = ModelExpert(tiny_game.player(s, 16)), tiny_game.player(s, 32)
    other = tiny_game.player(s, 64)
    held = tiny_game.task(s).held_out()
    lengths = [len(item.expert[0].tokens) for item in held]
    game = RewardTerms(objective_of("spin"), 1.0, level="token")
    row = tokens.measured(who, other, held, expert, game)
    assert row["token_positions"] == sum(lengths)
    monkeypatch.setattr(tokens, "MOST_NUMBERS", 4 * (sum(lengths[:5]) + lengths[5] - 1))
    assert tokens.measured(who, other, held, expert, game)["token_positions"] == sum(lengths[:5])
    monkeypatch.setattr(tokens, "MOST_NUMBERS", 0)
    assert tokens.measured(who, other, held, expert, game)["token_positions"] == lengths[0]


def test_tables_need_known_laws_and_the_last_opponent():
    s = tiny_game.settings(level="token")
    expert = ModelExpert(tiny_game.player(s, 16))
    held = tiny_game.task(s).held_out()
    game = RewardTerms(objective_of("spin"), 1.0, level="token")
    for opponent, who_knows, empty in (
        ("last", expert, False), ("base", expert, True), ("last", None, True)
    ):  # fmt: skip
        start, moved = (
            tiny_game.player(tiny_game.settings(level="token", opponent=opponent), width)
            for width in (32, 64)
        )
        assert (tokens.measured(moved, start, held, who_knows, game) == {}) is empty
