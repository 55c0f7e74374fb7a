"""T6, history: rounds whose own responses are partly the previous opponent's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.strategies import Instance, games, label, with_fixed_link
from theory import TokenMDP, laws, self_play
from theory.errors import InvalidInput
from theory.objectives import Objective
from theory.result import FloatArray

SMOOTH = [obj for obj in with_fixed_link() if obj.name != "ipm"]
P, Q = np.array([0.7, 0.2, 0.1]), np.array([0.2, 0.3, 0.5])


def near(game: Instance) -> FloatArray:
    """A start next to the expert."""
    start = game.expert * np.exp(1e-6 * game.rng.standard_normal(game.expert.shape))
    return np.asarray(start / start.sum(-1, keepdims=True))


def test_a_round_by_hand() -> None:
    """SPIN at beta = 2: pi_t sqrt(p/q'), normalised."""
    path = self_play(P, Q, "spin", beta=2.0, rounds=2, history=0.25)
    first = Q * np.sqrt(P / Q)
    first /= first.sum()
    mixture = 0.75 * first + 0.25 * Q
    second = first * np.sqrt(P / mixture)
    assert np.allclose(path.policies[1], first)
    assert np.allclose(path.policies[2], second / second.sum())


@pytest.mark.parametrize("name", ["spin", "spif", "ipo", "renyi"])
def test_without_old_responses_rounds_are_what_they_were(name: str) -> None:
    plain = self_play(P, Q, name, effective_step=0.7, rounds=9)
    tiny = self_play(P, Q, name, effective_step=0.7, rounds=9, history=1e-14)
    assert np.allclose(plain.policies, tiny.policies, atol=1e-10)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_games_are_stacked_and_padding_stays(share: float) -> None:
    p, q = np.array([[0.5, 0.5, 0.0], P]), np.array([[0.2, 0.8, 0.0], Q])
    both = self_play(p, q, "spif", effective_step=0.8, rounds=6, history=share)
    for i in range(2):
        one = self_play(p[i], q[i], "spif", effective_step=0.8, rounds=6, history=share)
        assert np.allclose(both.policies[:, i], one.policies, atol=1e-13)
    assert (both.policies[:, 0, 2] == 0).all()


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@given(game=games(), step=st.floats(0.1, 4.0), share=st.floats(0.0, 1.0))
def test_local_map(obj: Objective, game: Instance, step: float, share: float) -> None:
    """x' = x - s((1-m) x + m x_old), up to a constant."""
    p = game.expert
    path = self_play(p, near(game), obj, effective_step=step, rounds=2, history=share)
    old, new, after = (laws.log_ratio(p, policy) for policy in path.policies)
    moved = after - new + step * ((1 - share) * new + share * old)
    left = moved - (p * moved).sum(-1, keepdims=True)
    assert np.abs(left).max() < 2e-10 * (1 + step) ** 2


@pytest.mark.parametrize(("log_odds", "settles"), [(2.0, True), (8.0, False)])
def test_from_afar_a_quarter_of_history_does_not_hold_spin(log_odds: float, settles: bool) -> None:
    """Effective step 2.5 is below the local threshold 4 and beyond that from afar, 2."""
    start = np.exp([log_odds, 0.0]) / np.exp([log_odds, 0.0]).sum()
    path = self_play([0.5, 0.5], start, "spin", effective_step=2.5, rounds=120, history=0.25)
    reach = path.details["max_logratio"]
    assert reach[-1] < 1e-6 if settles else reach[-1] > 100 * reach[0]


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"history": -0.1}, "history=-0.1"),
        ({"history": 1.5}, "history=1.5"),
        ({"history": "some"}, "history='some'"),
        ({"history": 0.5, "one_step": True}, "two-step"),
        ({"history": 2.0, "tau": -1.0}, "(?s)tau=-1.0.*history=2.0"),
    ],
)
def test_what_is_no_share_is_refused(given_: dict[str, object], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        self_play(P, Q, "spif", **given_)  # type: ignore[arg-type]


def test_rewards_per_token_have_no_old_responses() -> None:
    game = TokenMDP.from_text(["a b", "b a"], horizon=2)
    policy = game.uniform_policy()
    with pytest.raises(InvalidInput, match="level='sequence'"):
        self_play(game.expert, policy, "spif", game=game, level="conditional", history=0.5)
