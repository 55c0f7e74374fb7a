"""T12: what convergence means for preferences: equilibria, averages, cycles, anchors."""

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
    REWARDED,
    SCALES,
    SMOOTH,
    PreferenceGame,
    interior_game,
    interior_games,
    preference_games,
)
from tests.theory.strategies import label
from theory import laws, objectives, preferences
from theory.errors import NotConverged
from theory.objectives import Objective
from theory.preferences import solve
from theory.result import FloatArray

SPIF = objectives.get("spif")
SCALED = list(SCALES.items())
NEEDS_ANCHOR = "a preference game has an anchor, or the iterates are averaged"
NEEDS_LINEAR = "the reward is a multiple of 2P - 1 (averages of preference rounds)"
NEEDS_STEP = "sigma^2 < 2 beta tau + tau^2 (anchored preference rounds)"


def test_statements_are_about_these_objectives() -> None:
    assert {obj.name for obj in SMOOTH} == set(objectives.names()) - NO_REWARD - KINKED


# --- equilibria and their certificates ----------------------------------------------------------


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


# --- fixed points -------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.rests", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0), tau=st.floats(0.05, 2.0))
def test_anchored_rounds_rest_at_the_anchored_equilibrium(
    claim, obj: Objective, scale: float, game: PreferenceGame, beta: float, tau: float
) -> None:
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    path = preferences.self_play(game.P, z, obj, beta, 1, game.ref, tau)
    claim.close(path.policy, z, 1e-12, what="a round from z*")
    claim.below(path.gap, 0.0, what="anchored gap there", atol=1e-12)
    away = preferences.self_play(game.P, game.start, obj, beta, 1, game.ref, tau)
    gap = preferences.regularised_gap(game.P, away.policy, game.ref, tau, scale)
    claim.close(away.gap, gap, 1e-12, rtol=1e-9, what="the path's certificate")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T12.rests", regime="tabular")
@given(game=interior_games(), beta=st.floats(0.5, 5.0))
def test_every_reward_rests_at_an_interior_nash_equilibrium(claim, obj, game, beta: float) -> None:
    """All win rates are 1/2 there, so every link pays a constant."""
    P, z = game
    path = preferences.self_play(P, z, obj, beta, 1)
    claim.close(path.policy, z, 1e-12, what="a round from z")


# --- no anchor, no average: the last iterate cycles ---------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.last_iterate_leaves", regime="tabular")
@given(
    game=interior_games(),
    betas=st.lists(st.floats(0.3, 5.0), min_size=12, max_size=12),
    seed=st.integers(0, 2**32 - 1),
)
def test_last_iterate_never_comes_nearer_to_an_interior_equilibrium(
    claim, obj: Objective, scale: float, game, betas: list[float], seed: int
) -> None:
    """KL(z||pi_{t+1}) - KL(z||pi_t) = log E_{pi_t} e^{r_t/beta} >= 0, with any step sizes."""
    P, z = game
    start = laws.random_law(np.random.default_rng(seed), z.shape, 0.5)
    path = preferences.self_play(P, start, obj, betas, len(betas)).policies
    assert path is not None
    distance = laws.kl(z, path)
    margin = 2.0 * path[:-1] @ P.T - 1.0
    weight = np.exp(scale * margin / np.array(betas)[:, None])
    growth = np.log((path[:-1] * weight).sum(-1))
    claim.close(np.diff(distance), growth, 1e-11, rtol=1e-9, what="growth of KL a round")
    claim.below(-np.diff(distance), 0.0, what="KL never falls", atol=1e-13)


@pytest.mark.parametrize("obj", [o for o in SMOOTH if o.name != "alpha_spin"], ids=label)
@pytest.mark.claim("T12.repels", regime="tabular")
def test_near_an_interior_equilibrium_every_smooth_link_moves_away(claim, obj: Objective) -> None:
    """KL(z||pi) grows by ``g^2 E_z m^2/(2 beta^2)`` there, m = 2P(y > pi) - 1, g = 2 R'(0)."""
    P, z = interior_game(np.random.default_rng(8), 4, 0.4)
    gain = preferences.local_gain(obj)
    for beta in (gain, 4.0 * gain):
        start = z * (1.0 + 1e-4 * np.array([1.0, -0.6, 0.4, -0.2]))
        path = preferences.self_play(P, start / start.sum(), obj, beta, 1).policies
        assert path is not None
        margin = (2.0 * P - 1.0) @ path[0]
        predicted = gain**2 * (z * margin**2).sum() / (2.0 * beta**2)
        growth = np.diff(laws.kl_stable(z, path))
        claim.close(
            growth / predicted,
            1.0,
            5e-3,
            what="growth of KL a round over its second order",
            because="expansion",
        )


def test_a_nash_equilibrium_leaves_no_other() -> None:
    """(b) is of policies that are none: where nothing is preferred each is one, and stays."""
    path = preferences.self_play(np.full((3, 3), 0.5), [0.5, 0.3, 0.2], "sppo", 1.0, rounds=3)
    np.testing.assert_allclose(path.policies, np.tile([0.5, 0.3, 0.2], (4, 1)), atol=1e-15)


@pytest.mark.claim("T12.last_iterate_leaves", regime="tabular", drops="linear_in_P")
@pytest.mark.parametrize(("name", "least"), [("gail", 0.15), ("policy_only", 0.5)])
def test_far_from_it_other_links_come_nearer(claim, name: str, least: float) -> None:
    """Rock-paper-scissors of strength .8 from (.6, .3, .1): by a sixth and by half."""
    P, z, start = preferences.rock_paper_scissors(0.8), np.full(3, 1 / 3), np.array([0.6, 0.3, 0.1])
    path = preferences.self_play(P, start, objectives.get(name), 5.0, 600).policies
    assert path is not None
    distance = laws.kl(z, path)
    claim.exhibits(1.0 - distance[-200:].max() / distance[0], least, what="share of KL(z||pi) lost")
    claim.exhibits(-np.diff(distance).min(), 0.005, what="largest fall of KL(z||pi) in a round")
    linear = preferences.self_play(P, start, SPIF, 5.0, 500).policies
    assert linear is not None
    claim.below(-np.diff(laws.kl(z, linear)), 0.0, what="SPIF: KL never falls", atol=1e-13)


@pytest.mark.claim("T12.last_iterate_leaves", regime="tabular", drops="linear_in_P")
@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("spin", 0.005),
        ("exponential", 0.005),
        ("iq_learn", 0.15),
        ("policy_only", 0.15),
        ("gail", 0.1),
    ],
)
def test_single_rounds_of_other_links_come_nearer(claim, name: str, share: float) -> None:
    """Of 150 random games, starts and steps: 2 % of rounds for u, a quarter for the others."""
    rng, obj = np.random.default_rng(77), objectives.get(name)
    change = []
    for _ in range(150):
        P, z = interior_game(rng, int(rng.integers(3, 7)), rng.uniform(0.1, 1.0))
        q, beta = laws.random_law(rng, z.shape, rng.uniform(0.1, 1.5)), 10 ** rng.uniform(-0.5, 1.7)
        weight = q * np.exp((reward := obj.preference_response(P, q)) / beta - reward.max() / beta)
        change.append(laws.kl(z, weight / weight.sum()) - laws.kl(z, q))
    claim.exhibits(-np.min(change), 4e-4, what="largest fall of KL(z||pi), 150 rounds")
    claim.exhibits(np.mean(np.array(change) < -1e-12), share, what="share of rounds where it falls")


@pytest.mark.claim("T12.last_iterate_leaves", regime="tabular")
def test_last_iterate_leaves_rock_paper_scissors(claim) -> None:
    """From (.4, .3, .3), near the equilibrium, to the border; the average stays."""
    P, start = preferences.rock_paper_scissors(), np.array([0.4, 0.3, 0.3])
    for beta in (1.0, 3.0):
        path = preferences.self_play(P, start, SPIF, beta, round(200 * beta**2))
        assert path.policies is not None
        distance = laws.kl(np.full(3, 1 / 3), path.policies[[0, -1]])
        claim.exhibits(distance[1] - distance[0], 5.0, what="growth of KL(z*||pi), nats")
        late = path.details["duality_gap"][-100:].max()
        claim.exhibits(late, 0.95, what="largest duality gap of the last 100 iterates")
        leaders = path.policies.argmax(-1)
        claim.exhibits(len(set(leaders)), 3, what="responses that lead in turn")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T12.local_threshold", "T12.repels", regime="tabular")
@given(game=interior_games(max_n=5), share=st.floats(0.3, 0.9), tau=st.floats(0.1, 1.0))
def test_sharp_threshold_at_an_interior_equilibrium_for_every_reward(
    claim, obj: Objective, game, share: float, tau: float
) -> None:
    """Anchored at z itself: growth sqrt(beta^2 + sigma^2)/(beta + tau), both sides, and tau = 0."""
    P, z = game
    gain = preferences.local_gain(obj)
    sigma = preferences.cycle_speed(P, z, gain)
    mixed = 1.0 - getattr(obj, "base_weight", 0.0)  # alpha-SPIN steps from pi^(1-w) z^w
    plane = fastest_cycle(P, z)
    border = preferences.local_threshold(P, z, tau, gain)
    cases = [(0.0, float(sigma))]
    if border > 0.05:
        cases += [(tau, border * share), (tau, border * (2.0 - share))]
    for anchor, beta in cases:
        measured = measured_growth(P, z, obj, beta, anchor, z, plane)
        predicted = mixed * preferences.local_growth(P, z, beta, anchor, gain)
        claim.close(
            measured, predicted, 2e-4, what="growth a round, 1e-6 from z*", because="expansion"
        )
        if mixed == 1.0:
            assert (measured > 1.0) == (anchor == 0.0 or beta < border)


@pytest.mark.parametrize(("obj", "scale"), SCALED[:4], ids=str)
@pytest.mark.claim("T12.local_threshold", "T12.repels", regime="tabular")
@given(
    game=interior_games(),
    tau=st.floats(0.05, 0.3),
    share=st.floats(0.3, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_sharp_threshold_at_an_anchored_equilibrium(
    claim, obj: Objective, scale: float, game, tau: float, share: float, seed: int
) -> None:
    """With a reference of its own, so that the equilibrium is not the game's."""
    P = game[0]
    ref = laws.random_law(np.random.default_rng(seed), game[1].shape, 0.5)
    z = preferences.regularised_nash(P, ref, tau, scale).policy
    plane = fastest_cycle(P, z)
    border = preferences.local_threshold(P, z, tau, scale)
    claim.close(
        preferences.local_growth(P, z, border, tau, scale),
        1.0 if border > 0 else float(preferences.cycle_speed(P, z, scale)) / tau,
        1e-12,
        what="growth at the threshold",
    )
    for beta in (max(border, 0.1) * share, max(border, 0.1) * (2.0 - share)):
        measured = measured_growth(P, z, obj, beta, tau, ref, plane)
        predicted = preferences.local_growth(P, z, beta, tau, scale)
        claim.close(
            measured, predicted, 2e-4, what="growth a round, 1e-6 from z*", because="expansion"
        )
        assert (measured < 1.0) == (beta > border)


def fastest_cycle(P: FloatArray, z: FloatArray) -> FloatArray:
    """Relative perturbation x = dpi/z of mean zero in the plane of the largest sigma."""
    n = len(z)
    mean_zero = np.eye(n) - np.outer(np.ones(n), z)
    operator = mean_zero @ (2.0 * P - 1.0) @ np.diag(z) @ mean_zero
    values, vectors = np.linalg.eig(operator)
    x = np.real(vectors[:, np.abs(values).argmax()])
    return x / np.sqrt((z * x**2).sum())


def measured_growth(
    P: FloatArray,
    z: FloatArray,
    obj: Objective,
    beta: float,
    tau: float,
    ref: FloatArray,
    x: FloatArray,
) -> FloatArray:
    """Growth of the L2(z) distance over two real rounds from z (1 + 1e-6 x), a round."""
    size = 1e-6 / max(1.0, np.abs(x).max())
    start = z * (1.0 + size * x)
    path = preferences.self_play(P, start / start.sum(), obj, beta, 2, ref, tau).policies
    assert path is not None
    distance = np.sqrt((np.square(path - z) / z).sum(-1))
    return np.sqrt(distance[2] / distance[0])


@pytest.mark.claim("T12.local_threshold", regime="tabular", drops="local_step")
def test_a_weak_anchor_with_large_steps_still_cycles(claim) -> None:
    """Rock-paper-scissors, tau = 0.05: sigma = 1/sqrt(3), so beta must exceed 3.31."""
    P, z = preferences.rock_paper_scissors(), np.full(3, 1 / 3)
    border = float(preferences.local_threshold(P, z, 0.05))
    assert border == pytest.approx((1 / 3 - 0.05**2) / 0.1)
    start = np.array([0.34, 0.33, 0.33])
    unstable = preferences.self_play(P, start, SPIF, 0.5 * border, 2000, z, 0.05)
    stable = preferences.self_play(P, start, SPIF, 1.5 * border, 4000, z, 0.05)
    claim.exhibits(unstable.details["duality_gap"][-50:].min(), 0.1, what="gap, half the threshold")
    settled = stable.details["duality_gap"][-1]
    claim.below(settled, 1e-6, what="gap at 1.5 times the threshold", because="chosen")


@pytest.mark.claim("T12.repels", regime="tabular", drops="mean_zero")
def test_sigma_of_the_uncompressed_payoff_gives_a_false_threshold(claim) -> None:
    """Two outcomes: the weighted payoff has a cycle, the rounds none, and every step is stable."""
    P, tau, beta = preferences.bradley_terry([0.0, 2.0]), 0.2, 0.1
    ref = np.array([0.97, 0.03])
    z = preferences.regularised_nash(P, ref, tau).policy
    root_z = np.sqrt(z)
    weighted = (2.0 * P - 1.0) * np.outer(root_z, root_z)
    sigma = np.abs(np.linalg.eigvals(weighted)).max()
    claim.exhibits(sigma**2 - (2 * beta * tau + tau**2), 0.03, what="sigma^2 less its limit")
    path = preferences.self_play(P, np.array([0.9, 0.1]), SPIF, beta, 30, ref, tau).policies
    assert path is not None
    odds = np.log(path[:, 0] / path[:, 1]) - np.log(z[0] / z[1])
    claim.close(odds[1:], odds[:-1] * beta / (beta + tau), 1e-12, what="log-odds a round")
    claim.close(preferences.cycle_speed(P, z), 0.0, 1e-12, what="compressed sigma")


# --- averages -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.average", regime="tabular")
@given(
    game=preference_games(),
    betas=st.lists(st.floats(0.1, 20.0), min_size=1, max_size=40),
)
def test_average_policy_has_a_small_gap(
    claim, obj: Objective, scale: float, game: PreferenceGame, betas: list[float]
) -> None:
    """Any step sizes, with the theorem's constant."""
    path = preferences.self_play(game.P, game.start, obj, betas, len(betas))
    bound = preferences.average_gap_bound(game.P, game.start, betas, len(betas), scale)
    claim.below(path.details["average_gap"], bound, what="gap of the average", atol=1e-13)
    weights = 1.0 / np.array(betas)
    by_hand = (
        -np.log(game.start.min(-1))
        + 2.0 * scale**2 * np.abs(game.P - 0.5).max((-2, -1)) ** 2 * (weights**2).sum()
    ) / (scale * weights.sum())
    claim.close(bound, by_hand, 1e-12, rtol=1e-12, what="the bound")


@pytest.mark.claim("T12.average", regime="tabular")
def test_average_gap_falls_as_the_root_of_the_rounds(claim) -> None:
    """Tuned step on rock-paper-scissors: gap sqrt(T) stays below max|2P-1| sqrt(2 log n)."""
    P, start = preferences.rock_paper_scissors(), np.full(3, 1 / 3) + [0.0, 1e-3, -1e-3]
    start = start / start.sum()
    for rounds in (30, 300, 3000):
        beta = np.sqrt(rounds / (2.0 * -np.log(start.min())))
        path = preferences.self_play(P, start, SPIF, beta, rounds)
        bound = np.sqrt(2.0 * -np.log(start.min()) / rounds)
        claim.below(path.details["average_gap"], bound, what="gap of the average, tuned step")
        predicted = preferences.average_gap_bound(P, start, beta, rounds)
        claim.close(predicted, bound, 1e-12, what="the bound at the tuned step")


@pytest.mark.claim("T12.average", regime="tabular")
def test_the_bound_of_the_average_is_attained(claim) -> None:
    """A winner that starts with a thousandth of the mass, many small steps: to half a per cent."""
    P, start = np.array([[0.5, 1.0], [0.0, 0.5]]), np.array([1e-3, 1 - 1e-3])
    rounds, beta = 8000, 608.0
    path = preferences.self_play(P, start, SPIF, beta, rounds)
    bound = preferences.average_gap_bound(P, start, beta, rounds)
    share = np.max(path.details["average_gap"]) / np.max(bound)
    claim.below(share, 1.0, what="gap of the average over its bound")
    claim.exhibits(share, 0.995, what="gap of the average over its bound", because="theory")


@pytest.mark.parametrize("name", ["iq_learn", "ipm"])
@pytest.mark.claim("T12.average", regime="tabular", drops="linear_in_P")
def test_averages_of_other_rewards_keep_a_gap(claim, name: str) -> None:
    """An uneven cycle: SPIF's average obeys the bound, other links' do not, even four times it."""
    P = np.array([[0.5, 0.01, 0.8], [0.99, 0.5, 0.4], [0.2, 0.6, 0.5]])
    start, rounds = np.array([0.8, 0.15, 0.05]), 3000
    beta = np.sqrt(rounds / (2.0 * np.log(3.0)))
    bound = preferences.average_gap_bound(P, start, beta, rounds)
    spif = preferences.self_play(P, start, SPIF, beta, rounds).details["average_gap"]
    claim.below(spif, bound, what="SPIF: gap of the average")
    other = preferences.self_play(P, start, objectives.get(name), beta, rounds)
    claim.exhibits(other.details["average_gap"] / bound, 2.0, what="gap over SPIF's bound")


# --- anchors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("obj", "scale"), SCALED, ids=str)
@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.05, 2.0), slack=st.floats(1.0, 3.0))
def test_anchored_rounds_contract_at_the_theorem_s_rate(
    claim, obj: Objective, scale: float, game: PreferenceGame, tau: float, slack: float
) -> None:
    """KL(z*||pi_{t+1}) <= KL(z*||pi_t)/(1 + tau/beta) from any start, beta >= Lip^2/tau."""
    beta = slack * float(preferences.anchored_beta(game.P, tau, scale).max())
    lip = scale * 2.0 * np.abs(game.P - 0.5).max()
    assert beta == pytest.approx(slack * lip**2 / tau, rel=1e-12)
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    path = preferences.self_play(game.P, game.start, obj, beta, 25, game.ref, tau).policies
    assert path is not None
    distance = laws.kl_stable(z, path)
    rate = preferences.anchored_rate(beta, tau)
    assert rate == pytest.approx(beta / (beta + tau))
    claim.below(distance[1:], rate * distance[:-1], what="KL(z*||pi) a round", atol=1e-14)


@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
def test_that_rate_is_attained_where_nothing_is_preferred(claim) -> None:
    """Log-ratios to the anchor shrink by beta/(beta + tau); far from it KL is linear in them."""
    even, ref = np.full((2, 2), 0.5), np.array([0.5, 0.5])
    start = np.exp(-np.logaddexp(0.0, [-600.0, 600.0]))
    beta, tau = 2.0, 0.5
    spif = objectives.get("spif")
    path = preferences.self_play(even, start, spif, beta, 1, ref, tau).policies
    assert path is not None
    distance = [laws.kl(ref, policy) for policy in path]
    share = distance[1] / (preferences.anchored_rate(beta, tau) * distance[0])
    claim.exhibits(share, 0.99, what="KL(z*||pi) a round over its bound")


@pytest.mark.claim("T12.nash_md", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.2, 4.0), scale=st.floats(0.5, 2.0))
def test_nash_md_obeys_its_published_bound(
    claim, game: PreferenceGame, tau: float, scale: float
) -> None:
    """beta_t = tau t/2, start at ref: KL(z*||pi_T) <= 8/(t^2 (T+1)), and its one-round form."""
    rounds, unit = 30, tau / (2.0 * scale)
    betas = [0.5 * tau * t for t in range(rounds)]
    path = preferences.nash_md(game.P, game.ref, game.ref, betas, tau, rounds, scale).policies
    assert path is not None
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    distance = laws.kl_stable(z, path)
    for t in range(rounds):
        eta = 2.0 / (unit * (t + 2))
        claim.below(distance[t + 1], (1 - eta * unit) * distance[t] + 2 * eta**2, what="one round")
        bound = preferences.nash_md_bound(tau, t + 1, scale)
        claim.below(distance[t + 1], np.full_like(distance[t + 1], bound), what="KL(z*||pi_T)")


# --- scores: the last iterate converges without anchor ------------------------------------------


@pytest.mark.parametrize("obj", REWARDED, ids=label)
@pytest.mark.claim("T12.bradley_terry", regime="tabular")
@given(n=st.integers(2, 6), beta=st.floats(0.5, 5.0), seed=st.integers(0, 2**32 - 1))
def test_under_bradley_terry_the_top_response_gains_every_round(
    claim, obj: Objective, n: int, beta: float, seed: int
) -> None:
    """Its win rate is the highest whatever the policy, so no anchor is needed there."""
    if obj.name == "alpha_spin":
        obj = objectives.get("alpha_spin", base_weight=1e-9)  # the base holds it back otherwise
    rng = np.random.default_rng(seed)
    scores, start = rng.standard_normal(n), laws.random_law(rng, (n,))
    P = preferences.bradley_terry(scores)
    path = preferences.self_play(P, start, obj, beta, 6).policies
    assert path is not None
    top = path[:, scores.argmax()]
    claim.below(-np.diff(top), 0.0, what="mass of the top response never falls", atol=1e-12)
    if obj.name in ("dpo", "spin"):
        log_odds = np.diff(np.log(path / path[:, :1]), axis=0)
        claim.close(
            log_odds, (scores - scores[0]) / beta, 1e-10, what="DPO: log-odds a round are scores"
        )


# --- predictions by hand ------------------------------------------------------------------------


def test_predictions_by_hand() -> None:
    cycle, third = preferences.rock_paper_scissors(0.6), np.full(3, 1 / 3)
    assert preferences.cycle_speed(cycle, third, 2.0) == pytest.approx(2.0 * 0.6 / np.sqrt(3.0))
    assert preferences.local_threshold(cycle, third, 0.0) == np.inf
    assert preferences.local_threshold(preferences.bradley_terry([0.0, 1.0]), [0.5, 0.5], 0.0) == 0
    assert preferences.local_threshold(cycle, third, 0.2) == pytest.approx((0.12 - 0.04) / 0.4)
    assert preferences.local_threshold(cycle, third, 2.0) == 0
    assert preferences.nash_md_bound(1.0, 3, 0.25) == pytest.approx(0.5)
    assert preferences.anchored_beta(cycle, 0.1, 2.0) == pytest.approx(1.2**2 / 0.1)
    assert preferences.average_gap_bound(cycle, third, 2.0, 4, 0.5) == pytest.approx(
        (np.log(3.0) + 4 * 0.3**2 / 8.0) / (0.5 * 4 / 2.0)
    )
    z = preferences.log_partition(np.array([1.0, -1.0]), np.array([0.3, 0.7]), 2.0)
    assert z == pytest.approx(np.log(0.3 * np.exp(0.5) + 0.7 * np.exp(-0.5)))
    assert preferences.log_partition(np.array([0.0, 9.0]), np.array([1.0, 0.0]), 1.0) == 0.0
