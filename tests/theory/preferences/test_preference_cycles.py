"""T12: without anchor and average the last iterate cycles; the threshold where it stops."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.theory.preference_strategies import (
    SCALED,
    SMOOTH,
    SPIF,
    interior_game,
    interior_games,
)
from tests.theory.strategies import label
from theory import laws, objectives, preferences
from theory.objectives import Objective
from theory.result import FloatArray


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
