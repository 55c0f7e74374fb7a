"""T6 (i)-(iii), (v): how fast rounds come near, with and without an anchor, how sharp that is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.two_step.links import SMOOTH, of_log_odds, slope_range
from tests.theory.strategies import Instance, games, label
from theory import equilibrium, laws, objectives, self_play, theory_card
from theory.objectives import Objective


def _rounds_in_range(obj: Objective, game: Instance, rounds: int = 6):
    """A path whose beta is at least sup R' over every hull of {0, u_t, u_{t+1}} on it."""
    p, q = game.expert, game.start
    card = theory_card(obj)
    beta = card.L if np.isfinite(card.L) else 1.2 * slope_range(obj, laws.log_ratio(p, q))[1]
    beta *= float(game.rng.uniform(1.0, 3.0))
    path = self_play(p, q, obj, beta=beta, rounds=rounds)
    ratios = [laws.log_ratio(p, policy) for policy in path.policies]
    assume(slope_range(obj, *ratios)[1] <= beta * (1 + 1e-9))
    return beta, path, ratios


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.descent", regime="tabular")
@given(game=games())
def test_convergence_bounds(claim, obj: Objective, game: Instance) -> None:
    """T6 (i)-(iii), with its constants, at every round."""
    p = game.expert
    beta, path, ratios = _rounds_in_range(obj, game)
    divergence = np.stack([obj.potential(policy, p) for policy in path.policies])
    kl = path.details["kl"]
    tiny = 1e-13 * (1 + divergence[0].max() + kl[0].max())
    claim.below(divergence[1:], divergence[:-1], atol=tiny, what="(i) D_Phi decreases")
    rounds = np.arange(1, len(kl))[:, None]
    claim.below(divergence[1:], beta * kl[0] / rounds, atol=tiny, what="(ii) D_Phi <= beta KL_0/T")
    for t in range(len(kl) - 1):
        mu = slope_range(obj, ratios[t], ratios[t + 1])[0]
        bound = (1 - mu / beta) * kl[t] - divergence[t + 1] / beta
        claim.below(kl[t + 1], bound, atol=1e-10 * (1 + kl[0].max()), what="(iii) KL contracts")


@pytest.mark.claim("T6.descent", regime="tabular")
@pytest.mark.parametrize("beta", [1.5, 2.0, 3.0])
def test_the_contraction_is_attained_from_afar(claim, beta: float) -> None:
    """(iii): SPIN multiplies log-odds by 1 - 1/beta, and KL is linear in them far away."""
    p = of_log_odds(0.0)
    kl = self_play(p, of_log_odds(600.0), "spin", beta=beta, rounds=1).details["kl"]
    claim.exhibits(kl[1] / ((1 - 1 / beta) * kl[0]), 0.99, what="(iii) share of the bound, SPIN")


@pytest.mark.claim("T6.anchored", regime="tabular")
@pytest.mark.parametrize(("beta", "tau"), [(1.5, 0.5), (2.0, 0.5), (2.0, 2.0), (3.0, 2.0)])
def test_the_anchored_contraction_is_attained_from_afar(claim, beta: float, tau: float) -> None:
    """(v): the equilibrium is the reference, which is the expert."""
    p = of_log_odds(0.0)
    path = self_play(p, of_log_odds(600.0), "spin", beta=beta, rounds=1, ref=p, tau=tau)
    kl = [laws.kl(p, policy) for policy in path.policies]
    share = kl[1] / (kl[0] * (beta - 1) / (beta + tau))
    claim.exhibits(share, 0.98, what="(v) share of the bound, SPIN")


@pytest.mark.claim("T6.descent", regime="tabular")
@pytest.mark.parametrize(("distance", "share"), [(20.0, 0.55), (80.0, 0.64), (300.0, 0.67)])
def test_how_much_of_the_rate_spif_needs_from_afar(claim, distance: float, share: float) -> None:
    """(ii): while the expert's one response is rare, D_Phi is near (2/c) log 2 and rewards are
    near 1/c and -1/c, so that T = beta KL_0 c/2 rounds pass: log 2 = .693 of the bound, at most."""
    p, start = of_log_odds(np.log(1e6)), of_log_odds(-distance)
    beta, spif = 4.0, objectives.get("spif")
    path = self_play(p, start, spif, beta=beta, rounds=700, progress=False)
    potential = np.array([spif.potential(policy, p) for policy in path.policies[1:]])
    used = potential * np.arange(1, 701) / (beta * path.details["kl"][0])
    claim.exhibits(used.max(), share, what="(ii) share of the bound, SPIF")
    claim.below(used, np.log(2.0), what="that share: log 2", because="chosen")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.anchored", regime="tabular")
@given(game=games(), tau=st.floats(0.05, 3.0))
def test_anchored_rounds_are_globally_linear(claim, obj, game: Instance, tau: float) -> None:
    """(v): KL(pi*||pi_t) contracts by (beta - mu)/(beta + tau) to the anchored equilibrium."""
    p, q, ref = game.expert, game.start, game.ref
    target = equilibrium(p, ref, obj, tau=tau).policy
    ratios = [laws.log_ratio(p, x) for x in (q, target)]
    low, high = slope_range(obj, *ratios)
    card = theory_card(obj)
    beta = card.L if np.isfinite(card.L) else 1.5 * high
    path = self_play(p, q, obj, beta=beta, rounds=6, ref=ref, tau=tau)
    ratios += [laws.log_ratio(p, x) for x in path.policies]
    low, high = slope_range(obj, *ratios)
    assume(high <= beta * (1 + 1e-9))
    kl = np.stack([laws.kl_stable(target, policy) for policy in path.policies])
    bound = (beta - low) / (beta + tau) * kl[:-1]
    claim.below(kl[1:], bound, atol=1e-11 * (1 + kl[0].max()), what="(v) KL(pi*||pi_t)")


def test_the_anchored_contraction_reads_slopes_up_to_the_equilibrium() -> None:
    """With pi_t next to the expert and pi* far from both, the hull of 0, u_t, u_{t+1} is too
    small: its least slope is above that on the way to pi*."""
    p, ref, tau, spif = (
        np.array([1e-6, 1 - 1e-6]),
        np.array([0.6, 0.4]),
        0.2,
        objectives.get("spif"),
    )
    target = equilibrium(p, ref, spif, tau=tau).policy
    for beta in (2.0, 10.0, 100.0):
        after = self_play(p, p, spif, beta=beta, rounds=1, ref=ref, tau=tau).policy
        kl, left = laws.kl(target, p), laws.kl(target, after)
        ratios = [laws.log_ratio(p, x) for x in (p, after, target)]
        short, whole = (slope_range(spif, *some)[0] for some in (ratios[:2], ratios))
        assert (beta - whole) / (beta + tau) * kl >= left > (beta - short) / (beta + tau) * kl
