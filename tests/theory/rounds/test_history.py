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
from theory.rounds.history import (
    OwnResponses,
    best_history,
    history_factor,
    history_threshold,
)

SMOOTH = [obj for obj in with_fixed_link() if obj.name != "ipm"]
BOUNDED = [obj for obj in SMOOTH if np.isfinite(obj.reward_bounds).all()]
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


def test_from_nearby_a_quarter_of_history_holds_spin() -> None:
    """Effective step 2.5 is below the local threshold 4 and beyond that from afar, 2."""
    start = np.exp([2.0, 0.0]) / np.exp([2.0, 0.0]).sum()
    path = self_play([0.5, 0.5], start, "spin", effective_step=2.5, rounds=120, history=0.25)
    assert path.details["max_logratio"][-1] < 1e-6


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"history": -0.1}, "history=-0.1"),
        ({"history": 1.5}, "history=1.5"),
        ({"history": "some"}, "history='some'; needed are shares, or 'average'"),
        ({"history": [0.6, 0.6]}, "sum of at most 1"),
        ({"history": [0.6, -0.1]}, "numbers in"),
        ({"history": np.eye(2)}, "a number in"),
        ({"history": "average", "one_step": True}, "two-step"),
        ({"history": [0.1, 0.1], "one_step": True}, "two-step"),
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


@pytest.mark.claim("T6.history", regime="tabular", drops="near_expert")
def test_below_its_threshold_a_quarter_of_history_may_lose_spin_from_afar(claim) -> None:
    """At effective step 3, below 4: settled from a log-odds of 1, lost from one of 8."""
    settles, leaves = (
        self_play([0.5, 0.5], start / start.sum(), "spin", effective_step=3.0, rounds=150,
                  history=0.25).details["max_logratio"]
        for start in np.exp([[1.0, 0.0], [8.0, 0.0]])
    )  # fmt: skip
    claim.below(
        settles[-1], 1e-6, what="largest log-ratio at the end, from nearby", because="chosen"
    )
    claim.exhibits(leaves[-1] / leaves[0], 100.0, what="growth of the largest log-ratio, from afar")


@pytest.mark.claim("T6.history_bounded", regime="tabular", drops="bounded_link")
def test_without_bounds_a_quarter_of_history_does_not_hold_spin(claim) -> None:
    """From afar, at effective step 2.5, though its local threshold is 4."""
    start = np.exp([8.0, 0.0]) / np.exp([8.0, 0.0]).sum()
    path = self_play([0.5, 0.5], start, "spin", effective_step=2.5, rounds=120, history=0.25)
    reach = path.details["max_logratio"]
    claim.exhibits(reach[-1] / reach[0], 100.0, what="growth of the largest log-ratio")


def test_what_has_no_threshold_is_refused() -> None:
    for wrong in ("average", "some", [0.7, 0.7], -0.1):
        with pytest.raises(InvalidInput, match="history="):
            history_threshold(wrong)
    for step in (0.0, -0.5, np.inf):
        with pytest.raises(InvalidInput, match=r"step=.*; needed is a finite number > 0"):
            best_history(step, 1)
    with pytest.raises(InvalidInput, match="rounds"):
        best_history(2.0, 0)
    with pytest.raises(InvalidInput, match="step=-1"):
        history_factor(-1.0, 0.25)


def test_one_share_in_closed_form() -> None:
    for share, edge in ((0.0, 2.0), (0.1, 2.5), (0.25, 4.0), (0.4, 2.5), (0.75, 4 / 3), (1.0, 1.0)):
        assert history_threshold(share) == pytest.approx(edge, rel=1e-9)
    for share, factor in ((0.0, 1.5), (0.25, np.sqrt(0.625)), (1.0, np.sqrt(2.5))):
        assert history_factor(2.5, share) == pytest.approx(factor, rel=1e-12)


def test_a_law_alone_stays_what_it_is() -> None:
    own = OwnResponses(0.0)
    law = np.log(P)
    assert own.after(law) is law
