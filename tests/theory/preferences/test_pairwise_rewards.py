"""T11: rewards of losses on dependent pairs: squared losses' and DPO's, which differ."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logit

from tests.theory.preference_strategies import REWARDED, PreferenceGame, preference_games
from tests.theory.strategies import label
from theory import laws, objectives, preferences
from theory.errors import InvalidInput
from theory.objectives import Objective, derivatives
from theory.result import FloatArray

PAIRWISE = [obj for obj in REWARDED if obj.form == "pairwise"]
LOGISTIC = [objectives.get("dpo"), objectives.get("spin")]


def minimiser_over_pairs(weight: FloatArray, obj: Objective) -> FloatArray:
    """Newton's method on ``sum W_ij l(r_i - r_j)`` as it stands, damped by the risk."""
    n = weight.shape[-1]
    scale = weight.sum((-2, -1))[..., None]
    r = np.zeros(weight.shape[:-1])

    def risk(x: FloatArray) -> FloatArray:
        return (weight * np.asarray(obj.pair_loss(x[..., :, None] - x[..., None, :]))).sum((-2, -1))

    for _ in range(200):
        d = r[..., :, None] - r[..., None, :]
        first, second = (weight * derivatives.derivative(obj.pair_loss, d, k) for k in (1, 2))
        gradient = first.sum(-1) - first.sum(-2)
        if np.abs(gradient / scale).max() <= 1e-13:
            break
        pairs = second + np.swapaxes(second, -1, -2)
        hessian = np.eye(n) * pairs.sum(-1)[..., None] - pairs + scale[..., None] / n**2
        step = np.linalg.solve(hessian, -gradient[..., None])[..., 0]
        for _ in range(60):
            rises = risk(r + step) > risk(r) + 1e-14 * np.abs(risk(r))
            step = np.where(rises[..., None], 0.5 * step, step)
        r = r + step
    return r


@pytest.mark.parametrize("obj", PAIRWISE, ids=label)
@pytest.mark.claim("T11.squared", "T11.logistic", regime="tabular")
@given(game=preference_games())
def test_pairwise_rewards_minimise_the_risk_of_dependent_pairs(
    claim, obj: Objective, game: PreferenceGame
) -> None:
    """Against Newton's method on the weights of all pairs, which divides by no mass."""
    pairs = game.start[..., :, None] * game.start[..., None, :] * game.P
    found = minimiser_over_pairs(pairs, obj)
    found = found - laws.expect(game.start, found)[..., None]
    r = preferences.reward(game.P, game.start, obj)
    # that solver's tolerance, 1e-13, is on gradients; the smallest curvature of a pair divides it
    back = np.swapaxes(pairs, -1, -2)
    accuracy = 1e-12 * pairs.shape[-1] / (pairs * back / (pairs + back)).min()
    claim.close(r, found, accuracy, what="reward against Newton on W", because="solver")
    d = r[..., :, None] - r[..., None, :]
    slope = pairs * derivatives.derivative(obj.pair_loss, d)
    gradient = (slope.sum(-1) - slope.sum(-2)) / game.start
    claim.close(gradient, 0.0, 1e-13, what="gradient of the risk, over the outcome's mass")
    claim.close(laws.expect(game.start, r), 0.0, 1e-12, what="mean reward under the policy")


@pytest.mark.parametrize("name", ["ipo", "inpo"])
@pytest.mark.claim("T11.squared", regime="tabular")
@given(game=preference_games(), margin=st.floats(0.1, 3.0))
def test_dependence_of_pairs_takes_kappa_away(
    claim, name: str, game: PreferenceGame, margin: float
) -> None:
    """On independent winners and losers the same loss has gain m/(1 + Delta/2)."""
    obj = objectives.get(name, margin=margin)
    won, lost = preferences.winner_loser(game.P, game.start)
    delta = laws.triangular(won, lost)[..., None]
    independent = obj.link(np.log(won / lost), delta)
    r = preferences.reward(game.P, game.start, obj)
    claim.close(r, (1 + 0.5 * delta) * independent, 1e-12, what="gain over independent pairs")


@pytest.mark.parametrize("obj", LOGISTIC, ids=label)
@pytest.mark.claim("T11.logistic", regime="tabular")
@given(
    n=st.integers(2, 7),
    spread=st.floats(0.1, 4.0),
    rare=st.floats(0.0, 250.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_dpo_under_bradley_terry_returns_the_score(
    claim, obj: Objective, n: int, spread: float, rare: float, seed: int
) -> None:
    """Also for outcomes of mass down to 1e-250."""
    rng = np.random.default_rng(seed)
    scores, policy = spread * rng.standard_normal((2, n)), laws.random_law(rng, (2, n))
    policy[0, 0] *= 10.0**-rare
    policy /= policy.sum(-1, keepdims=True)
    r = preferences.reward(preferences.bradley_terry(scores), policy, obj)
    centred = scores - laws.expect(policy, scores)[..., None]
    # P is stored to 1e-16, and its logarithmic odds lose e^|score difference| of that
    rounding = 1e-14 * np.exp(np.ptp(scores, axis=-1))[..., None]
    claim.below(np.abs(r - centred), 1e-12 + rounding, what="distance of the reward to the score")


@pytest.mark.claim("T11.dpo_differs", regime="tabular")
def test_dpo_does_not_return_the_log_odds_of_winning(claim) -> None:
    """Scores (0, 1, 4): DPO's reward and logit P(y > pi), which SPPO and IPO see, differ."""
    P, policy = preferences.bradley_terry([0.0, 1.0, 4.0]), np.array([0.5, 0.3, 0.2])
    r = preferences.reward(P, policy, objectives.get("dpo"))
    u = logit(preferences.win_rate(P, policy))
    difference = (r - r[0]) - (u - u[0])
    claim.exhibits(
        np.ptp(difference), 0.5, what="DPO's reward less logit P, up to a constant, nats"
    )
    # so a round goes elsewhere: the same first-order step, another policy
    dpo = preferences.self_play(P, policy, objectives.get("dpo"), 1.0, 1).policy
    sppo = preferences.self_play(P, policy, objectives.get("ipo", margin=2.0), 1.0, 1).policy
    claim.exhibits(
        laws.total_variation(dpo, sppo), 0.05, what="TV of a DPO and an IPO round of equal gain"
    )


@pytest.mark.parametrize("obj", LOGISTIC, ids=label)
@pytest.mark.claim("T11.logistic", regime="tabular")
@given(game=preference_games(), size=st.floats(1e-3, 1.0))
def test_logistic_and_squared_rewards_agree_to_second_order(
    claim, obj: Objective, game: PreferenceGame, size: float
) -> None:
    """|s(d) - 1/2 - d/4| <= |d|^3/48, so r - 2(2P - 1) is at most D^3/12, D the range of r."""
    P = 0.5 + size * (game.P - 0.5)
    r = preferences.reward(P, game.start, obj)
    squared = preferences.reward(P, game.start, objectives.get("ipo", margin=2.0))
    cube = np.ptp(r, axis=-1)[..., None] ** 3
    claim.below(np.abs(r - squared), cube / 12, what="DPO less IPO (m = 2)", atol=1e-13)


def test_separable_pairs_are_refused_where_the_loss_has_no_minimiser() -> None:
    order = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]])
    policy = np.full(3, 1 / 3)
    with pytest.raises(InvalidInput, match="outcome 1 never beats 0, directly or in turn"):
        preferences.reward(order, policy, objectives.get("dpo"))
    r = preferences.reward(order, policy, objectives.get("ipo"))
    assert r == pytest.approx([2 / 3, 0.0, -2 / 3])
    cycle = preferences.rock_paper_scissors(1.0)  # certain wins, but everybody beats somebody
    weights = np.array([0.5, 0.3, 0.2])
    r = preferences.reward(cycle, weights, objectives.get("dpo"))
    d = r[:, None] - r
    assert (weights / (1 + np.exp(-d))).sum(-1) == pytest.approx(cycle @ weights, abs=1e-13)
    with pytest.raises(InvalidInput, match=r"prompt \(1,\)"):
        preferences.reward(np.stack([cycle, order]), policy, objectives.get("dpo"))
