"""Preferences as numbers: what is refused and why, rounding, generators."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logit

from theory import laws, objectives, preferences
from theory.errors import InvalidInput
from theory.result import FloatArray

RPS = preferences.rock_paper_scissors()
THIRD = np.full(3, 1 / 3)
SPIF = objectives.get("spif")


def changed(i: int, j: int, value: float) -> FloatArray:
    P = RPS.copy()
    P[i, j] = value
    return P


def test_narrower_types_have_their_own_rounding() -> None:
    """A matrix and laws as models give them; laws of pairs are laws again."""
    rng = np.random.default_rng(3)
    score = rng.standard_normal(6).astype(np.float32)
    P = 1.0 / (1.0 + np.exp(score[None, :] - score[:, None]))
    assert P.dtype == np.float32
    exact = preferences.bradley_terry(score)
    np.testing.assert_allclose(preferences.nash(P).policy, preferences.nash(exact).policy)
    law = np.float32(laws.random_law(rng, (6,)))
    for pair in preferences.winner_loser(P, law):
        np.testing.assert_allclose(pair.sum(), 1.0, atol=1e-12)
    with pytest.raises(InvalidInput, match=r"P \+ P\^T at"):
        preferences.nash(P.astype(np.float64) + 1e-7 * np.triu(np.ones((6, 6)), 1))
    weak = preferences.rock_paper_scissors(np.float32(0.5))
    np.testing.assert_array_equal(weak, preferences.rock_paper_scissors(0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: preferences.check_preference("P"), "P: not an array of numbers"),
        (lambda: preferences.check_preference(np.ones(3)), r"P: shape \(3,\); needed is"),
        (lambda: preferences.check_preference(np.ones((2, 3))), r"P: shape \(2, 3\)"),
        (lambda: preferences.nash(np.ones((0, 0))), r"P: shape \(0, 0\)"),
        (lambda: preferences.nash(changed(0, 1, np.nan)), r"not finite at \(0, 1\)"),
        (lambda: preferences.nash(changed(0, 1, -0.5)), r"out of range at \(0, 1\) \(-0.5, 1 in"),
        (lambda: preferences.nash(changed(0, 1, 0.25)), r"P \+ P\^T at \(0, 1\) \(1.25, 2 in all"),
        (lambda: preferences.nash(changed(1, 1, 0.0)), r"diagonal at \(1, 1\) \(0, 1 in all"),
        (
            lambda: preferences.nash(changed(2, 1, 1.5) + np.diag([0.1, 0, 0])),
            r"out of range at \(2, 1\).*; .*diagonal at \(0, 0\).*; .*P \+ P\^T at \(1, 2\)",
        ),
        (lambda: preferences.duality_gap(RPS, [0.5, 0.5]), "policy: 2 outcomes on the last axis"),
        (lambda: preferences.win_rate(RPS, [0.5, 0.4, 0.0]), "policy: sums to 0.9"),
        (
            lambda: preferences.win_rate(np.stack([RPS] * 3), np.full((2, 3), 1 / 3)),
            r"prompt axes do not broadcast: P \(3,\), policy \(2,\)",
        ),
        (lambda: preferences.reward(RPS, THIRD, 1), "obj=1; needed is an objective"),
        (lambda: preferences.self_play(RPS, THIRD, 1), "obj=1; needed is an objective"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF), "beta=None; needed is a finite number"),
        (lambda: preferences.exploitability(THIRD, RPS), r"^swapped\? policy is a preference"),
        (lambda: preferences.win_rate(RPS[0], RPS), r"swapped\? policy is a preference"),
        (lambda: preferences.nash(RPS, max_iterations=0), "max_iterations=0; needed is a whole"),
        (
            lambda: preferences.self_play(RPS, THIRD, SPIF, -1.0, 1.5, None, 0.5),
            r"rounds=1.5.*; beta=-1.0.*; tau=0.5 needs ref",
        ),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, [1.0, 2.0], 3), "2 values for 3 rounds"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, "x", 3), "beta='x'; needed is a finite"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 0.0, 3), r"beta=0.0; .*> 0"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, True), "rounds=True; needed is"),
        (lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, 3, THIRD, -1), "tau=-1; needed is"),
        (
            lambda: preferences.self_play(RPS, THIRD, SPIF, 1.0, 3, [0.5, 0.5, 0.0], 0.1),
            r"start has mass at \(2,\) where ref has none",
        ),
        (lambda: preferences.nash_md(RPS, THIRD, THIRD, 1.0, 0.0), "Nash-MD needs ref, tau > 0"),
        (lambda: preferences.nash_md(RPS, THIRD, THIRD, -1.0, 1.0), "beta=-1.0; .*>= 0"),
        (lambda: preferences.regularised_nash(RPS, THIRD, 0.0), "tau=0.0; needed is a finite"),
        (lambda: preferences.regularised_gap(RPS, THIRD, THIRD, 1.0, -1), "scale=-1; needed is"),
        (
            lambda: preferences.regularised_gap(RPS, THIRD, [0.5, 0.5, 0.0], 1.0),
            r"policy has mass at \(2,\) where ref has none",
        ),
        (lambda: preferences.nash(RPS, tolerance=np.nan), "tolerance=nan; needed is"),
        (lambda: preferences.rock_paper_scissors(2.0, 4), r"strength=2.0.*; n=4; needed is an odd"),
        (lambda: preferences.bradley_terry("x"), "scores: not an array of numbers"),
        (lambda: preferences.bradley_terry([0.0, np.inf]), r"scores: shape \(2,\); needed are"),
        (
            lambda: preferences.low_rank(np.random.default_rng(0), 4, 3),
            "rank=3; needed is an even number",
        ),
    ],
)
def test_bad_input_is_refused_with_its_reason(call, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        call()


def test_small_asymmetries_are_evened_out() -> None:
    P = changed(0, 1, RPS[0, 1] + 4e-10)
    checked = preferences.check_preference(P)
    np.testing.assert_array_equal(checked + checked.T, np.ones((3, 3)))
    np.testing.assert_allclose(checked, RPS, atol=3e-10)


def test_generators() -> None:
    rng = np.random.default_rng(0)
    assert preferences.rock_paper_scissors(0.4).tolist() == [
        [0.5, 0.3, 0.7],
        [0.7, 0.5, 0.3],
        [0.3, 0.7, 0.5],
    ]
    five = preferences.rock_paper_scissors(1.0, 5)
    assert five[1].tolist() == [1.0, 0.5, 0.0, 0.0, 1.0]
    assert preferences.bradley_terry([0.0, np.log(3.0)])[1, 0] == pytest.approx(0.75)
    low = preferences.low_rank(rng, 8, 4, (2,))
    assert (np.linalg.matrix_rank(logit(low), tol=1e-9) == 4).all()
    spread = preferences.random_preference(rng, 40, strength=0.5)
    assert np.abs(spread - 0.5).max() == pytest.approx(0.25, abs=0.01)
    for P in (five, low, spread):
        preferences.check_preference(P)
