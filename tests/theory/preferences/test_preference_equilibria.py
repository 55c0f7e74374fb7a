"""T12: Nash equilibria of preference games, plain and anchored, and their certificates."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import OptimizeResult, linprog, root
from scipy.special import logsumexp

from tests.theory.preference_strategies import (
    KINKED,
    NO_REWARD,
    SMOOTH,
    PreferenceGame,
    preference_games,
)
from theory import laws, objectives, preferences
from theory.errors import NotConverged
from theory.preferences import solve
from theory.result import FloatArray


def test_statements_are_about_these_objectives() -> None:
    assert {obj.name for obj in SMOOTH} == set(objectives.names()) - NO_REWARD - KINKED


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games(max_n=25))
def test_nash_equilibrium_has_no_gap(claim, game: PreferenceGame) -> None:
    found = preferences.nash(game.P)
    z = found.policy
    claim.below(-z, 0.0, what="negative mass")
    claim.close(z.sum(-1), 1.0, 1e-12, what="mass")
    against = np.einsum("...ij,...j->...i", game.P, z)
    claim.below(against.max(-1) - 0.5, 0.0, what="best response less a draw", atol=1e-10)
    claim.below(found.gap, 0.0, what="certified gap", atol=1e-9)
    claim.close(found.primal, against.max(-1), 1e-12, what="primal: best response")
    claim.close(found.dual, 1.0 - against.max(-1), 1e-12, what="dual: worst opponent")
    claim.close(found.reward, 2.0 * against - 1.0, 1e-12, what="reward at the equilibrium")
    assert found.converged


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games(max_n=12))
def test_nash_value_by_another_program(claim, game: PreferenceGame) -> None:
    """Maximin over win rates by interior points, against the certificate of ours."""
    P, n = game.P[0], game.P.shape[-1]
    other = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.hstack([-P.T, np.ones((n, 1))]),
        b_ub=np.zeros(n),
        A_eq=[[1.0] * n + [0.0]],
        b_eq=[1.0],
        bounds=[(0, 1)] * n + [(None, None)],
        method="highs-ipm",
    )
    found = preferences.nash(P)
    claim.close(found.dual, -other.fun, 1e-7, what="value of the game", because="solver")
    law = np.maximum(other.x[:n], 0.0)
    gap = preferences.duality_gap(P, law / law.sum())
    claim.below(gap, 0.0, what="gap of the rival", atol=1e-6, because="solver")


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(
    n=st.sampled_from([3, 5, 7, 11]),
    strength=st.floats(0.01, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_nash_of_rock_paper_scissors_and_of_scores(
    claim, n: int, strength: float, seed: int
) -> None:
    cyclic = preferences.nash(preferences.rock_paper_scissors(strength, n)).policy
    claim.close(cyclic, 1.0 / n, 1e-9, what="uniform equilibrium of the cycle")
    scores = 3.0 * strength * np.random.default_rng(seed).standard_normal((2, n))
    top = preferences.nash(preferences.bradley_terry(scores)).policy
    best = (scores == scores.max(-1, keepdims=True)).astype(float)
    claim.close(top, best, 1e-9, what="Bradley-Terry: the response of top score")


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games())
def test_duality_gap_is_what_best_responses_win(claim, game: PreferenceGame) -> None:
    """Against the definition, with every pure and many mixed opponents."""
    P, pi = game.P, game.start
    n = P.shape[-1]
    rivals = np.concatenate([np.eye(n), laws.random_law(game.rng, (50, n), 2.0)])
    wins = np.einsum("ri,pij,pj->pr", rivals, P, pi)
    losses = np.einsum("pi,pij,rj->pr", pi, P, rivals)
    gap = preferences.duality_gap(P, pi)
    claim.close(gap, wins.max(-1) - losses.min(-1), 1e-14, what="max win less min win")
    claim.close(preferences.exploitability(P, pi), wins.max(-1) - 0.5, 1e-14, what="exploitability")
    claim.below(-gap, 0.0, what="gap is not negative", atol=1e-15)
    claim.below(gap, 1.0, what="gap in win probability")


def anchored_payoff(
    P: FloatArray, one: FloatArray, two: FloatArray, ref: FloatArray, weight: float
) -> FloatArray:
    """J(one, two) = P(one > two) - weight [KL(one||ref) - KL(two||ref)]."""
    win = np.einsum("...i,...ij,...j->...", one, P, two)
    return win - weight * (laws.kl(one, ref) - laws.kl(two, ref))


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.05, 3.0), scale=st.floats(0.3, 3.0))
def test_anchored_gap_is_what_anchored_best_responses_win(
    claim, game: PreferenceGame, tau: float, scale: float
) -> None:
    P, pi, ref = game.P, game.start, game.ref
    weight = 0.5 * tau / scale
    margin = 2.0 * np.einsum("...ij,...j->...i", P, pi) - 1.0
    answer = np.log(ref) + scale * margin / tau
    answer = np.exp(answer - logsumexp(answer, axis=-1, keepdims=True))

    def won(rival: FloatArray) -> FloatArray:
        ahead = anchored_payoff(P, rival, pi, ref, weight)
        return ahead - anchored_payoff(P, pi, rival, ref, weight)

    gap = preferences.regularised_gap(P, pi, ref, tau, scale)
    claim.close(gap, won(answer), 1e-12, rtol=1e-9, what="gap at the best response")
    for rival in laws.random_law(game.rng, (20, *pi.shape), 1.0):
        near = answer**0.9 * rival**0.1
        claim.below(won(near / near.sum(-1, keepdims=True)), gap, what="rival's win", atol=1e-13)


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games(max_n=12), tau=st.floats(0.01, 5.0), scale=st.floats(0.3, 3.0))
def test_anchored_equilibrium_is_its_own_soft_best_response(
    claim, game: PreferenceGame, tau: float, scale: float
) -> None:
    found = preferences.regularised_nash(game.P, game.ref, tau, scale)
    z = found.policy
    margin = 2.0 * np.einsum("...ij,...j->...i", game.P, z) - 1.0
    answer = np.log(game.ref) + scale * margin / tau
    answer = answer - logsumexp(answer, axis=-1, keepdims=True)
    claim.close(np.exp(answer), z, 1e-11, what="z against ref e^{g A z/tau}")
    claim.below(found.gap, 0.0, what="certified gap", atol=1e-12)
    claim.close(found.primal - found.dual, found.gap, 1e-15, what="primal less dual")
    claim.close(found.reward, scale * margin, 1e-10, what="reward at the equilibrium")
    again = preferences.regularised_gap(game.P, z, game.ref, tau, scale)
    claim.below(again, 0.0, what="gap recomputed from probabilities", atol=1e-12)


@pytest.mark.claim("T12.equilibria", regime="tabular")
@given(game=preference_games(max_n=6), tau=st.floats(0.2, 3.0))
def test_anchored_equilibrium_by_another_solver(claim, game: PreferenceGame, tau: float) -> None:
    """MINPACK's hybrid method on the fixed point in logits."""
    P, ref = game.P[0], game.ref[0]

    def off(x: FloatArray) -> FloatArray:
        z = ref * np.exp(x - x.max())
        return x - (2.0 * P - 1.0) @ (z / z.sum()) / tau

    answer = root(off, np.zeros(len(ref)), tol=1e-12)
    z = ref * np.exp(answer.x - answer.x.max())
    z = z / z.sum()
    claim.close(preferences.regularised_nash(P, ref, tau).policy, z, 1e-8, what="policy")


def test_where_the_anchored_equilibrium_turns_fast_steps_are_halved(monkeypatch) -> None:
    """Found by a homotopy in steps of 1 % of 1/tau, to 4e-13; steps of a factor two missed it."""
    P = np.array([
        [0.5, 0.3196, 0.8973, 0.5109, 0.9364, 0.6588],
        [0.6804, 0.5, 0.3947, 0.7211, 0.3364, 0.6141],
        [0.1027, 0.6053, 0.5, 0.9856, 0.9238, 0.0343],
        [0.4891, 0.2789, 0.0144, 0.5, 0.534, 0.6899],
        [0.0636, 0.6636, 0.0762, 0.466, 0.5, 0.8948],
        [0.3412, 0.3859, 0.9657, 0.3101, 0.1052, 0.5],
    ])  # fmt: skip
    ref = [0.002568271287660931, 0.18160333927206154, 9.522604332407252e-09,
           0.23769327088562886, 1.4456271498102524e-09, 0.5781351075864173]  # fmt: skip
    tau, scale = 0.0057758409430347865, 11.048024609690163
    known = [0.092, 0.5946, 0.2012, 0.0, 0.033, 0.0793]
    found = preferences.regularised_nash(P, ref, tau, scale)
    np.testing.assert_allclose(found.policy, known, atol=1e-4)
    answer = np.log(ref) + scale * (2.0 * P - 1.0) @ found.policy / tau
    np.testing.assert_allclose(np.exp(answer - logsumexp(answer)), found.policy, atol=1e-10)
    for few in (3, 5):  # Newton's steps a stage: more stages are needed, and found
        monkeypatch.setattr(solve, "NEWTON", few)
        again = preferences.regularised_nash(P, ref, tau, scale)
        np.testing.assert_allclose(again.policy, found.policy, atol=1e-9)
    with pytest.raises(NotConverged, match="regularised_nash: not converged") as raised:
        preferences.regularised_nash(P, ref, tau, scale, max_iterations=20)
    reached = raised.value.solution.policy  # that of a larger tau, no point off the path
    gap = preferences.regularised_gap(P, reached, ref, tau, scale)
    assert raised.value.solution.gap == pytest.approx(gap, rel=1e-6)


@given(
    game=preference_games(max_n=9),
    tau=st.floats(-12.0, 0.0).map(lambda x: 10.0**x),
    scale=st.floats(0.3, 30.0),
    rare=st.floats(0.0, 30.0),
)
def test_anchored_equilibria_are_found_at_small_anchors_and_rare_outcomes(
    game: PreferenceGame, tau: float, scale: float, rare: float
) -> None:
    ref = game.ref * np.exp(-rare * np.arange(game.ref.shape[-1]) / game.ref.shape[-1])
    ref = ref / ref.sum(-1, keepdims=True)
    found = preferences.regularised_nash(game.P, ref, tau, scale)
    assert (found.gap < 1e-12).all()
    assert (preferences.duality_gap(game.P, found.policy) <= 1e-12 + tau / scale * -np.log(
        ref.min(-1)
    )).all()  # fmt: skip


@pytest.mark.parametrize("tau", [1e-100, 1e-300])
def test_an_anchor_below_all_digits_gives_a_plain_equilibrium(tau: float) -> None:
    for ref in ([1 / 3] * 3, [1.0 - 2e-12, 1e-12, 1e-12]):
        for scale in (1e-6, 1.0, 1e3):
            found = preferences.regularised_nash(
                preferences.rock_paper_scissors(), ref, tau, scale, raise_on_failure=False
            )
            np.testing.assert_allclose(found.policy, 1 / 3, atol=1e-6)


@pytest.mark.claim("T12.small_anchor", regime="tabular")
@given(game=preference_games(min_n=3))
def test_anchored_equilibria_tend_to_a_nash_equilibrium(claim, game: PreferenceGame) -> None:
    """z* is optimal for J, so its plain gap is at most (tau/g) max_y log 1/ref(y)."""
    for tau in (0.3, 0.01, 1e-4):
        z = preferences.regularised_nash(game.P, game.ref, tau).policy
        bound = tau * -np.log(game.ref.min(-1))
        claim.below(preferences.duality_gap(game.P, z), bound, what="plain gap of z*", atol=1e-12)


def test_failures_to_converge_are_raised_with_the_solution(monkeypatch) -> None:
    P, ref = preferences.low_rank(np.random.default_rng(0), 5), np.full(5, 0.2)
    with monkeypatch.context() as broken:
        broken.setattr(solve, "linprog", lambda *a, **k: OptimizeResult(x=None, nit=0))
        with pytest.raises(NotConverged, match="nash: not converged") as raised:
            preferences.nash(P)
        assert raised.value.solution.gap == pytest.approx(preferences.duality_gap(P, ref))
        assert not preferences.nash(P, raise_on_failure=False).converged
        with pytest.raises(NotConverged, match="regularised_nash: not converged: duality gap"):
            preferences.regularised_nash(P, ref, 0.01, max_iterations=1)
        found = preferences.regularised_nash(P, ref, 0.01, raise_on_failure=False, max_iterations=1)
        assert not found.converged
    stacked = preferences.nash(np.stack([P, 1.0 - P])).policy
    np.testing.assert_allclose(stacked[0], preferences.nash(P).policy, atol=1e-14)
