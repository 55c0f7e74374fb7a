"""Self-play as a tool: padding, kinds of numbers, steps of any size, rewards, what a path says."""

from __future__ import annotations

import numpy as np
import pytest

from theory import equilibrium, objectives, self_play


@pytest.mark.parametrize("name", ["gail", "nwj", "spif", "spin"])
def test_padding_gets_no_reward_on_a_path(name: str) -> None:
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.2, 0.8, 0.0])
    assert self_play(p, q, objectives.get(name), 1.0, rounds=2).reward[-1] == 0.0


def test_numpy_numbers_are_numbers() -> None:
    p, q, obj = [0.5, 0.5], [0.2, 0.8], objectives.get("spif")
    for tau in (np.float32(0.5), np.float64(0.5)):
        path = self_play(
            p, q, obj, np.int64(1), rounds=np.int64(2), ref=q, tau=tau, one_step=np.False_
        )
        expected = self_play(p, q, obj, 1.0, rounds=2, ref=q, tau=0.5)
        np.testing.assert_array_equal(path.policies, expected.policies)


def test_a_step_of_any_size_makes_no_law_nan() -> None:
    for name in ("spin", "spif", "ipo"):
        path = self_play([0.7, 0.2, 0.1], [0.2, 0.3, 0.5], name, beta=1e-300, rounds=3)
        assert np.isfinite(path.policies).all()


def test_laws_in_single_precision_are_normalised_again() -> None:
    p, q = np.float32([0.3, 0.7]), np.float32([0.1, 0.9])
    path = self_play(p, q, objectives.get("spin"), beta=1.0, rounds=1)
    exact = p.astype(np.float64) / p.astype(np.float64).sum()
    np.testing.assert_allclose(path.policy, exact, atol=1e-15)


@pytest.mark.parametrize("name", ["spin", "ipo", "centred_spif", "gail"])
def test_rewards_of_solutions_are_those_of_the_objective(name: str) -> None:
    """Centred where only defined up to a constant, 0 on padding, from every solver alike."""
    p, q = np.array([0.5, 0.3, 0.2, 0.0]), np.array([0.1, 0.2, 0.7, 0.0])
    obj = objectives.get(name)
    path = self_play(p, q, obj, beta=2.0, rounds=2)
    np.testing.assert_allclose(path.reward, obj.reward(p, path.policy), atol=1e-13)
    point = equilibrium(p, q, obj, tau=0.3)
    np.testing.assert_allclose(point.reward, obj.reward(p, point.policy), atol=1e-9)


def test_default_margins_are_those_of_the_literature() -> None:
    assert objectives.get("ipo").label == "ipo(margin=1)"
    assert objectives.get("inpo").label == "inpo(margin=0.5)"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "(beta 1, as none was given)"),
        ({"beta": 0.25}, "(beta 0.25)"),
        ({"effective_step": 0.5}, "(beta 1 (effective step 0.5))"),
        ({"beta": [1.0, 2.0]}, "(beta 1 to 2)"),
    ],
)
def test_the_status_says_which_beta_was_used(given, said):
    path = self_play([0.7, 0.3], [0.4, 0.6], "spif", rounds=2, **given)
    assert path.status.endswith(said)
