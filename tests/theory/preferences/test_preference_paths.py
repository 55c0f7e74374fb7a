"""Paths of rounds on preferences: shapes, schedules, certificates, missing mass."""

from __future__ import annotations

import numpy as np
import pytest

from theory import laws, objectives, preferences
from theory.errors import NotConverged


def test_a_path_holds_its_iterates_and_gaps() -> None:
    rng = np.random.default_rng(0)
    P, start = preferences.random_preference(rng, 4, (2, 3)), laws.random_law(rng, (3, 4))
    path = preferences.self_play(P, start, objectives.get("sppo"), [1.0, 2.0], 2)
    assert path.policies is not None
    assert path.policies.shape == (3, 2, 3, 4)
    assert path.iterations == 2
    np.testing.assert_allclose(path.policies[0, 1], start, rtol=1e-14)
    np.testing.assert_array_equal(path.policy, path.policies[-1])
    scored = (path.policies[0] / 1.0 + path.policies[1] / 2.0) / 1.5
    np.testing.assert_allclose(path.details["average"], scored, atol=1e-15)
    gaps = np.stack([preferences.duality_gap(P, pi) for pi in path.policies])
    np.testing.assert_allclose(path.details["duality_gap"], gaps, atol=1e-15)
    np.testing.assert_allclose(path.gap, gaps[-1], atol=1e-15)
    np.testing.assert_allclose(path.primal - path.dual, path.gap)
    np.testing.assert_allclose(
        path.details["average_gap"], preferences.duality_gap(P, scored), atol=1e-14
    )
    np.testing.assert_allclose(path.reward, preferences.win_rate(P, path.policy) - 0.5, atol=1e-14)
    alone = preferences.self_play(P[1, 2], start[2], objectives.get("sppo"), [1.0, 2.0], 2)
    np.testing.assert_allclose(alone.policy, path.policy[1, 2], atol=1e-15)
    assert "duality gap of the preference game" in path.status
    assert path.status.startswith("moving")


def test_no_rounds_and_settled_rounds() -> None:
    P, uniform = preferences.rock_paper_scissors(0.4), np.full(3, 1 / 3)
    none = preferences.self_play(P, uniform, objectives.get("spif"), 1.0, 0)
    assert none.policies is not None
    assert none.policies.shape == (1, 3)
    assert not none.converged
    np.testing.assert_array_equal(none.details["average"], uniform)
    still = preferences.self_play(P, uniform, objectives.get("spif"), 1.0, 3, uniform, 0.5)
    assert still.converged
    assert "gap of the anchored game" in still.status
    other = preferences.self_play(P, uniform, objectives.get("dpo"), 1.0, 3, uniform, 0.5)
    assert "gap of the preference game" in other.status
    assert other.details["scale"] is None


def test_zero_mass_stays_zero_and_underflow_does_not() -> None:
    P = preferences.rock_paper_scissors(0.5)
    path = preferences.self_play(P, [0.5, 0.5, 0.0], objectives.get("dpo"), 1.0, 5)
    assert path.policies is not None
    assert (path.policies[..., 2] == 0).all()
    # an outcome of mass e^-1500 wins for sure against the rest, and comes back
    winner = np.array([[0.5, 0.999], [0.001, 0.5]])
    back = preferences.self_play(
        winner, [0.0 + 1e-300, 1.0], objectives.get("spif", c=0.01), 1.0, 20
    )
    assert back.policy[0] > 0.999


def test_an_infinite_reward_is_reported_not_spread() -> None:
    order = np.array([[0.5, 1.0], [0.0, 0.5]])
    start = np.array([1e-20, 1.0])
    # s(-inf) arises once the loser's mass underflows: 0 log-odds of the winner against itself
    with pytest.raises(NotConverged, match="use a bounded link"):
        preferences.self_play(order, start, objectives.get("iq_learn", c=1e-3), 0.01, 50)
    bounded = preferences.self_play(order, start, objectives.get("spif"), 0.01, 50)
    assert bounded.policy == pytest.approx([1.0, 0.0])


def test_alpha_spin_draws_its_pairs_from_the_mixture() -> None:
    rng = np.random.default_rng(2)
    P, start, ref = preferences.random_preference(rng, 4), *laws.random_law(rng, (2, 4))
    obj = objectives.get("alpha_spin", base_weight=0.3)
    found = preferences.self_play(P, start, obj, 2.0, 1, ref, 0.5)
    mixture = start**0.7 * ref**0.3
    mixture /= mixture.sum()
    r = preferences.reward(P, mixture, objectives.get("dpo"))
    weight = (mixture**2.0 * ref**0.5 * np.exp(r)) ** (1 / 2.5)
    np.testing.assert_allclose(found.policy, weight / weight.sum(), atol=1e-13)
    own = preferences.self_play(P, start, obj, 2.0, 1)  # without a reference the start is the base
    plain = preferences.self_play(P, start, objectives.get("dpo"), 2.0, 1)
    np.testing.assert_allclose(own.policy, plain.policy, atol=1e-14)
