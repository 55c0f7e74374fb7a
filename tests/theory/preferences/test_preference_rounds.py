"""T11: rounds on preferences are SPPO's, INPO's and Nash-MD's as published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import lambertw

from tests.theory.preference_strategies import SCALES, PreferenceGame, preference_games
from theory import laws, objectives, preferences
from theory.objectives import Objective
from theory.result import FloatArray


def multiplicative_weights(P: FloatArray, start: FloatArray, eta: float, rounds: int) -> FloatArray:
    """SPPO as published: pi_T ∝ pi_0 exp(eta sum_t P(y > pi_t)), in probability space."""
    path, total = [start], np.zeros_like(start)
    for _ in range(rounds):
        total = total + np.einsum("...ij,...j->...i", P, path[-1])
        weight = start * np.exp(eta * (total - total.max(-1, keepdims=True)))
        path.append(weight / weight.sum(-1, keepdims=True))
    return np.stack(path)


@pytest.mark.parametrize(("obj", "scale"), SCALES.items(), ids=str)
@pytest.mark.claim("T11.sppo", "T11.squared", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0))
def test_spif_ipo_and_sppo_rounds_are_multiplicative_weights(
    claim, obj: Objective, scale: float, game: PreferenceGame, beta: float
) -> None:
    """eta_SPPO = 2 g/beta: 2/(beta c) for SPIF, 2 m/beta for IPO, 1/beta for SPPO."""
    path = preferences.self_play(game.P, game.start, obj, beta, 6)
    expected = multiplicative_weights(game.P, game.start, 2.0 * scale / beta, 6)
    assert path.policies is not None
    claim.close(path.policies, expected, 1e-12, what="iterates against SPPO's closed form")


@pytest.mark.claim("T11.sppo", regime="tabular", of="identities")
@given(
    ratios=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    beta=st.floats(0.01, 10.0),
)
def test_sppo_hard_is_the_pointwise_spif_loss(claim, ratios, beta: float) -> None:
    """SPIF with c = 2 is beta^2 [(a - 1/(2 beta))^2 + (b + 1/(2 beta))^2] - 1/2."""
    a, b = (np.array([x]) for x in ratios)
    published = beta**2 * ((a - 0.5 / beta) ** 2 + (b + 0.5 / beta) ** 2)
    loss = objectives.get("spif", c=2.0).loss(a, b, beta)
    claim.close(loss + 0.5, published, 1e-10, rtol=1e-12, what="SPIF (c = 2) + 1/2")
    hard = objectives.get("sppo").loss(
        a, b, beta, expert_preference=np.array([1.0]), policy_preference=np.array([0.0])
    )
    claim.close(hard, published, 1e-10, rtol=1e-12, what="SPPO with labels 1 and 0")


@pytest.mark.claim("T11.anchored", regime="tabular")
@given(game=preference_games(), eta=st.floats(0.2, 5.0), share=st.floats(0.05, 0.95))
def test_inpo_is_magnetic_mirror_descent(
    claim, game: PreferenceGame, eta: float, share: float
) -> None:
    """INPO's published step ∝ exp(P(y > pi_t)/eta) ref^(tau/eta) pi_t^(1 - tau/eta)."""
    tau, pi = share * eta, game.start
    beta = eta - tau
    step = preferences.self_play(game.P, pi, objectives.get("inpo"), beta, 1, game.ref, tau)
    rate = np.einsum("...ij,...j->...i", game.P, pi)
    weight = np.exp(rate / eta) * game.ref**share * pi ** (1 - share)
    published = weight / weight.sum(-1, keepdims=True)
    claim.close(step.policy, published, 1e-13, what="INPO's published step")
    # magnetic mirror descent: the gradient of <r, pi> - beta KL(pi||pi_t) - tau KL(pi||ref) is flat
    r = preferences.reward(game.P, pi, objectives.get("inpo"))
    new = step.policy
    gradient = r - beta * np.log(new / pi) - tau * np.log(new / game.ref)
    claim.close(np.ptp(gradient, axis=-1), 0.0, 1e-11, what="range of the step's gradient, nats")


@pytest.mark.claim("T11.anchored", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.1, 5.0), tau=st.floats(0.05, 2.0))
def test_nash_md_scores_against_the_mixture(
    claim, game: PreferenceGame, beta: float, tau: float
) -> None:
    """Munos et al. 2023: pi^(1 - eta t) ref^(eta t), then e^(eta P); eta t = tau/(beta+tau)."""
    eta, share = 2.0 / (beta + tau), tau / (beta + tau)
    pi = game.start
    for _ in range(2):
        mixture = pi ** (1 - share) * game.ref**share
        mixture = mixture / mixture.sum(-1, keepdims=True)
        weight = mixture * np.exp(eta * np.einsum("...ij,...j->...i", game.P, mixture))
        pi = weight / weight.sum(-1, keepdims=True)
    found = preferences.nash_md(game.P, game.start, game.ref, beta, tau, 2)
    claim.close(found.policy, pi, 1e-13, what="two Nash-MD rounds")


@pytest.mark.claim("T12.nash_md_constant_step", regime="tabular")
def test_nash_md_and_inpo_end_at_different_policies_at_constant_step(claim) -> None:
    """Nash-MD's fixed point tends to the anchored equilibrium only as beta grows."""
    P, ref, tau = preferences.rock_paper_scissors(1.0), np.array([0.6, 0.3, 0.1]), 0.5
    z = preferences.regularised_nash(P, ref, tau).policy
    distance = []
    for beta in (4.0, 40.0):
        inpo = preferences.self_play(P, ref, objectives.get("spif"), beta, 4000, ref, tau)
        claim.close(inpo.policy, z, 1e-9, what="INPO's last iterate and the equilibrium")
        other = preferences.nash_md(P, ref, ref, beta, tau, 4000).policy
        distance.append(float(laws.total_variation(other, z)))
    claim.exhibits(distance[0], 0.01, what="TV of Nash-MD's fixed point from it at beta = 4")
    share = distance[1] / distance[0]
    claim.close(share, 0.1, 0.02, what="its share left at beta = 40", because="expansion")


@pytest.mark.claim("T4.no_dumping", regime="tabular")
@given(game=preference_games(), beta=st.floats(0.2, 5.0))
def test_one_step_sppo_has_a_gap_but_dumps_no_mass(
    claim, game: PreferenceGame, beta: float
) -> None:
    """E_pi[2P - 1] = 0, so log Z >= 0 by Jensen, and the one-step problem is convex.

    min sum pi (x - r)^2 over implicit rewards with sum pi e^{x/beta} <= 1, a convex set: as r is
    outside of it, the minimum has equality, and is the global one over normalised policies.
    """
    pi = game.start[:1]
    pi[0, 0] *= 1e-9  # the rare outcome on which imitation's one step puts mass
    pi /= pi.sum(-1, keepdims=True)
    r = preferences.reward(game.P[:1], pi, objectives.get("spif"))
    log_z = preferences.log_partition(r, pi, beta)
    claim.below(-log_z, 0.0, what="-log Z", atol=1e-14)

    def implicit(multiplier: float) -> FloatArray:
        return r - beta * np.real(lambertw(multiplier * np.exp(r / beta)))

    low, high = 0.0, 1e3
    for _ in range(200):
        middle = 0.5 * (low + high)
        too_much = (pi * np.exp(implicit(middle) / beta)).sum() > 1
        low, high = (middle, high) if too_much else (low, middle)
    x = implicit(high)
    after = pi * np.exp(x / beta)
    claim.close(after.sum(-1), 1.0, 1e-9, what="mass of the one-step policy")
    claim.below(after[..., 0], pi[..., 0] * np.exp(2.0 / beta), what="mass of the rare outcome")
    loss = (pi * (x - r) ** 2).sum(-1)
    dumped = np.concatenate(
        [
            laws.random_law(game.rng, (300, pi.shape[-1]), 2.0),
            after * np.exp(0.1 * game.rng.standard_normal((300, pi.shape[-1]))),
            after + np.linspace(0, 0.5, 100)[:, None] * (np.arange(pi.shape[-1]) == 0),
        ]
    )
    dumped = dumped / dumped.sum(-1, keepdims=True)
    others = (pi * (beta * np.log(dumped / pi) - r) ** 2).sum(-1)
    claim.below(loss, others.min(keepdims=True), what="one-step loss, least rival", atol=1e-9)
