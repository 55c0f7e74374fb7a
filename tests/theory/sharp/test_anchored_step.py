"""T12 c in its own geometry: the factor is attained, the step condition holds with room.

``kappa`` is ``beta tau/Lip^2``, of which (c) asks for 1. At a fixed equilibrium z the reference
drops out of a round: ``(beta+tau) log pi' = beta log pi + tau log z + A(pi - z)`` + const.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, logsumexp

from theory import laws, preferences
from theory.result import FloatArray

CYCLE = np.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])


def payoff(raw: FloatArray, n: int) -> FloatArray:
    """Skew (n, n) with entries within 1 of n(n-1)/2 numbers."""
    skew = np.zeros((n, n))
    skew[np.triu_indices(n, 1)] = np.tanh(raw)
    return skew - skew.T


def small_steps(pi: FloatArray, z: FloatArray, skew: FloatArray) -> float:
    """The least kappa at which small steps from pi keep the factor: V_pi[A(pi-z)]/2KL(pi||z)."""
    reward = skew @ (pi - z)
    return float((pi @ reward**2 - (pi @ reward) ** 2) / (2.0 * laws.kl(pi, z)))


def of_three(a: float, c: float) -> tuple[FloatArray, FloatArray]:
    """A policy and an equilibrium that are alike in two responses of the cycle."""
    return np.array([a, 1 - 2 * a, a]), np.array([c, 1 - 2 * c, c])


def worst_of_three() -> tuple[float, FloatArray, FloatArray]:
    found = minimize(lambda x: -small_steps(*of_three(*x), CYCLE), [0.48, 0.16], tol=1e-12)
    return -float(found.fun), *of_three(*found.x)


@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
def test_the_factor_is_attained_at_the_edge_of_the_step_condition(claim) -> None:
    """Far off KL is linear in log-odds, which any payoff moves by no more than Lip/(beta + tau)."""
    P, ref, beta, tau = np.array([[0.5, 1.0], [0.0, 0.5]]), np.array([0.6, 0.4]), 2.0, 0.5
    assert beta == pytest.approx(float(preferences.anchored_beta(P, tau)))
    start = np.exp(-np.logaddexp(0.0, [-600.0, 600.0]))[::-1]
    z = preferences.regularised_nash(P, ref, tau).policy
    path = preferences.self_play(P, start, "spif", beta, 1, ref, tau).policies
    assert path is not None
    before, after = (laws.kl_stable(z, policy) for policy in path)
    share = after / (preferences.anchored_rate(beta, tau) * before)
    claim.below(share, 1.0, what="KL(z*||pi) a round over its bound")
    claim.exhibits(share, 0.99, what="KL(z*||pi) a round over its bound", because="theory")


@pytest.mark.claim("T12.anchored_contracts", regime="tabular", drops="contraction_step")
def test_at_forty_five_hundredths_of_it_the_factor_is_exceeded(claim) -> None:
    """Three responses, a cycle: KL falls by 2 % less than the factor says."""
    worst, start, z = worst_of_three()
    claim.close(worst, 0.46993635, 1e-8, what="largest kappa of small steps, two alike of three")
    beta, tau = 30.0, 0.45 / 30.0
    ref = np.exp(log_softmax(np.log(z) - CYCLE @ z / tau))
    P = 0.5 + 0.5 * CYCLE
    path = preferences.self_play(P, start, "spif", beta, 1, ref, tau).policies
    assert path is not None
    found = preferences.self_play(P, z, "spif", beta, 1, ref, tau)
    claim.close(found.policy, z, 1e-12, what="a round from z")
    before, after = (float(laws.kl(z, policy)) for policy in path)
    fall = (1.0 - after / before) / (1.0 - preferences.anchored_rate(beta, tau))
    claim.below(fall, 0.98, what="fall of KL over the factor's", because="chosen")


@pytest.mark.claim("T12.anchored_contracts", regime="tabular", drops="contraction_step")
def test_more_responses_need_more_of_it(claim) -> None:
    """Eight on a cycle of 13, of which two are rare in the policy, as a search found them."""
    at = np.array([0, 1, 2, 4, 5, 6, 9, 10])
    skew = 1.0 - 2.0 * preferences.rock_paper_scissors(1.0, 13)[np.ix_(at, at)]
    pi = np.array([0.1471, 0.1601, 0.1647, 0.1647, 0.1601, 0.1471, 0.0281, 0.0281])
    z = np.array([0.0683, 0.0576, 0.0497, 0.0497, 0.0576, 0.0683, 0.3245, 0.3245])
    claim.exhibits(small_steps(pi / pi.sum(), z / z.sum(), skew), 0.496, what="kappa needed")


@pytest.mark.claim("T12.anchored_contracts", regime="tabular", drops="contraction_step")
def test_half_of_it_is_not_enough(claim) -> None:
    """35 responses, in whole numbers: each beats as many that come next and loses to the others."""
    pi = np.array([
        407, 437, 453, 467, 476, 482, 489, 490, 494, 495, 375, 384, 374, 376, 371, 368, 365, 360,
        354, 347, 337, 330, 322, 29, 59, 57, 56, 56, 56, 55, 55, 56, 55, 56, 58,
    ])  # fmt: skip
    z = np.array([
        216, 211, 200, 190, 180, 171, 164, 157, 151, 146, 110, 116, 116, 121, 124, 129, 134, 139,
        144, 150, 155, 163, 171, 16, 504, 540, 585, 622, 650, 652, 645, 619, 576, 537, 497,
    ])  # fmt: skip
    wins = np.array([*range(23, 13, -1), *range(24, 10, -1), *range(20, 9, -1)])
    n = len(wins)
    ahead = (np.arange(n) - np.arange(n)[:, None]) % n
    skew = np.where(ahead == 0, 0.0, np.where(ahead <= wins[:, None], 1.0, -1.0))
    claim.close(skew, -skew.T, 0.0, what="skew")
    needed = small_steps(pi / pi.sum(), z / z.sum(), skew)
    claim.close(needed, 0.500434, 1e-6, what="kappa needed by 35 responses")


def excess(x: FloatArray, n: int, kappa: float) -> float:
    """``(beta+tau) KL(z||pi') - beta KL(z||pi)`` over ``tau KL(pi||z)`` at Lip = 1: the theorem's
    is at most 0. Of logits of pi and of z, a payoff and the logit of ``beta/(beta+tau)``."""
    log_pi, log_z = log_softmax(x[:n]), log_softmax(x[n : 2 * n])
    pi, z, b = np.exp(log_pi), np.exp(log_z), 1.0 / (1.0 + np.exp(-x[-1]))
    s = np.sqrt(kappa / (b * (1.0 - b)))
    reward = payoff(x[2 * n : -1], n) @ (pi - z)
    over = s * logsumexp(b * log_pi + (1.0 - b) * log_z + reward / s) - z @ reward
    return float(over / (s * (1.0 - b) * max(float(pi @ (log_pi - log_z)), 1e-12)))


@pytest.mark.claim("T12.anchored_contracts", regime="tabular")
def test_with_three_responses_a_search_finds_half_of_it_enough(claim) -> None:
    """Three responses, all sizes of steps, policies, equilibria and payoffs at kappa = 1/2; the
    same starts find worse at .45. The first two are near the worst of small steps."""
    rng = np.random.default_rng(1)
    _, pi, z = worst_of_three()
    bounds = [(-30.0, 30.0)] * 6 + [(-9.0, 9.0)] * 4
    known = np.concatenate([np.log(pi), np.log(z), [2.0, -2.0, 2.0, 5.0]])
    largest = {0.45: -np.inf, 0.5: -np.inf}
    for k in range(4):
        x = 0.3 * rng.normal(size=10) + known if k < 2 else rng.normal(size=10)
        for kappa in largest:
            found = minimize(
                lambda x, kappa: -excess(x, 3, kappa), x, args=(kappa,), bounds=bounds,
                method="L-BFGS-B", options={"maxiter": 100},
            )  # fmt: skip
            largest[kappa] = max(largest[kappa], -float(found.fun))
    claim.below(largest[0.5], 0.0, what="excess at kappa = 1/2, the largest found", atol=1e-6)
    claim.exhibits(largest[0.45], 0.04, what="excess at kappa = .45")


@pytest.mark.claim("T12.local_threshold", regime="tabular")
@given(n=st.integers(2, 9), seed=st.integers(0, 2**32 - 1), spread=st.floats(0.0, 2.0))
def test_sigma_is_at_most_two_over_pi_of_lip(claim, n: int, seed: int, spread: float) -> None:
    """Pick's inequality with weights: signs are the worst payoffs."""
    rng = np.random.default_rng(seed)
    P = 0.5 + 0.5 * payoff(9.0 * rng.normal(size=n * (n - 1) // 2), n)
    sigma = preferences.cycle_speed(P, laws.random_law(rng, (n,), spread))
    claim.below(sigma, 2.0 / np.pi, what="sigma at Lip = 1", atol=1e-12)


@pytest.mark.claim("T12.local_threshold", regime="tabular")
def test_long_odd_cycles_approach_that(claim) -> None:
    for n in (3, 5, 21):
        sigma = preferences.cycle_speed(
            preferences.rock_paper_scissors(1.0, n), np.full(n, 1.0 / n)
        )
        exact = 1.0 / (n * np.tan(np.pi / (2 * n)))
        claim.close(sigma, exact, 1e-12, what="sigma of a cycle of n, by cot(pi/2n)/n")
    claim.exhibits(sigma * np.pi / 2.0, 0.99, what="sigma over 2/pi", because="theory")
