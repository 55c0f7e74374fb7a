"""T11: which objectives have a reward on preferences, and what it is on winner and loser laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from scipy.special import logit

from tests.theory.preference_strategies import (
    EVERY,
    KINKED,
    NO_REWARD,
    REWARDED,
    SCALES,
    SMOOTH,
    PreferenceGame,
    has_scale,
    preference_games,
)
from tests.theory.strategies import label
from theory import laws, objectives, preferences, xp
from theory.errors import Unavailable
from theory.objectives import Objective

MARGINAL = [obj for obj in REWARDED if obj.form != "pairwise"]


def test_objectives_without_a_reward_say_why() -> None:
    P, policy = preferences.rock_paper_scissors(0.5), np.full(3, 1 / 3)
    assert {obj.name for obj in REWARDED} | NO_REWARD == set(objectives.names())
    for name in NO_REWARD:
        obj = objectives.get(name)
        for call in (
            lambda obj=obj: preferences.reward(P, policy, obj),
            lambda obj=obj: preferences.self_play(P, policy, obj, 1.0, 2),
            lambda obj=obj: preferences.payoff_scale(obj),
            lambda obj=obj: preferences.local_gain(obj),
        ):
            with pytest.raises(Unavailable, match=f"{name} has no reward: "):
                call()


def test_objectives_of_constant_gain_are_enumerated() -> None:
    assert {obj.name for obj in EVERY if obj.name not in NO_REWARD and has_scale(obj)} == {
        obj.name for obj in SCALES
    }
    assert not has_scale(objectives.get("spif", alpha=0.3))
    for obj, scale in SCALES.items():
        assert preferences.payoff_scale(obj) == pytest.approx(scale, abs=1e-15)
    for name in KINKED:
        with pytest.raises(Unavailable, match="not differentiable at 0"):
            preferences.local_gain(objectives.get(name))
    with pytest.raises(Unavailable, match="not differentiable at 0"):
        preferences.local_gain(Flat())


class Flat(objectives.Pairwise):
    """A pairwise loss without curvature at 0."""

    name = "flat"

    def pair_loss(self, d):
        return xp.relu(1.0 - d)


@pytest.mark.claim("T11.winner_loser", regime="tabular")
@given(game=preference_games())
def test_winner_and_loser_laws(claim, game: PreferenceGame) -> None:
    won, lost = preferences.winner_loser(game.P, game.start)
    claim.close(won.sum(-1), 1.0, 1e-14, what="mass of the winner law")
    claim.close(lost.sum(-1), 1.0, 1e-14, what="mass of the loser law")
    claim.close(0.5 * (won + lost), game.start, 1e-15, what="their mean is the policy")
    u = np.log(won / lost)
    rate = preferences.win_rate(game.P, game.start)
    claim.close(u, logit(rate), 1e-12, what="log-ratio against logit P(y > pi)")
    claim.close(preferences.preference_logit(game.P, game.start), u, 1e-12, what="preference_logit")
    # against pairs counted one by one: i wins over j with probability P_ij
    pairs = game.start[..., :, None] * game.start[..., None, :] * game.P
    claim.close(pairs.sum(-1) + 0.0, 0.5 * won, 1e-15, what="winners of all pairs")
    claim.close(pairs.sum(-2), 0.5 * lost, 1e-15, what="losers of all pairs")


def test_logit_is_accurate_for_outcomes_that_nearly_always_win_or_lose() -> None:
    P = np.array([[0.5, 1.0], [0.0, 0.5]])
    u = preferences.preference_logit(P, np.array([1e-200, 1.0]))
    assert u == pytest.approx([np.log(2e200), 0.0], rel=1e-13, abs=1e-15)


@pytest.mark.parametrize("obj", MARGINAL, ids=label)
@pytest.mark.claim("T11.winner_loser", regime="tabular")
@given(game=preference_games())
def test_pointwise_and_group_rewards_are_those_of_winner_and_loser_laws(
    claim, obj: Objective, game: PreferenceGame
) -> None:
    won, lost = preferences.winner_loser(game.P, game.start)
    extras = {}
    if "preference" in obj.needs:
        rate = preferences.win_rate(game.P, game.start)
        extras = {"expert_preference": rate, "policy_preference": rate}
    expected = obj.reward(won, lost, **extras)
    if obj.up_to_constant:
        expected = expected - laws.expect(game.start, expected)[..., None]
    r = preferences.reward(game.P, game.start, obj)
    claim.close(r, expected, 1e-12, rtol=1e-10, what="reward of preference pairs")


@pytest.mark.parametrize(("obj", "scale"), SCALES.items(), ids=str)
@pytest.mark.claim("T11.squared", "T11.sppo", regime="tabular")
@given(game=preference_games())
def test_squared_losses_give_a_multiple_of_the_win_margin(
    claim, obj: Objective, scale: float, game: PreferenceGame
) -> None:
    r = preferences.reward(game.P, game.start, obj)
    margin = 2.0 * (game.P * game.start[..., None, :]).sum(-1) - 1.0
    claim.close(r, scale * margin, 1e-14, rtol=1e-13, what="g (2 P(y > pi) - 1)")


def test_first_order_gain_is_the_slope_of_every_reward() -> None:
    """The reward at P = 1/2 + small: local_gain times 2P - 1, for each smooth objective."""
    rng = np.random.default_rng(5)
    small = preferences.random_preference(rng, 5, strength=1e-4)
    policy = laws.random_law(rng, (5,))
    margin = 2.0 * preferences.win_rate(small, policy) - 1.0
    for obj in SMOOTH:
        r = preferences.reward(small, policy, obj)
        r = r - laws.expect(policy, r)
        gain = preferences.local_gain(obj)
        assert r == pytest.approx(gain * margin, abs=3e-8), obj.label
        if obj.has_link:
            assert gain == pytest.approx(2 * float(obj.slope(0.0, 0.0)), rel=1e-12), obj.label


def test_outcomes_that_are_never_drawn_get_the_formula_s_value() -> None:
    P = preferences.random_preference(np.random.default_rng(3), 4)
    policy = np.array([0.2, 0.5, 0.0, 0.3])
    exact = P @ policy
    spif = preferences.reward(P, policy, objectives.get("spif"))
    assert spif == pytest.approx(2 * exact - 1, abs=1e-15)
    dpo = preferences.reward(P, policy, objectives.get("dpo"))
    predicted = (policy / (1 + np.exp(dpo - dpo[:, None]))).sum(-1)
    assert predicted == pytest.approx(exact, abs=1e-14)
    P[2], P[:, 2] = 1.0, 0.0
    P[2, 2] = 0.5
    assert preferences.reward(P, policy, objectives.get("dpo"))[2] == np.inf
    assert preferences.reward(P, policy, objectives.get("airl"))[2] == np.inf
    P[2], P[:, 2] = 0.0, 1.0
    P[2, 2] = 0.5
    assert preferences.reward(P, policy, objectives.get("dpo"))[2] == -np.inf
