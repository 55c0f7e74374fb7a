"""T12: the best bound on what an anchor costs, and how far log 1/pi_ref is from it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.special import lambertw, logit

from tests.theory.preference_strategies import PreferenceGame, preference_games
from theory import preferences
from theory.result import FloatArray


def best(ref: FloatArray) -> FloatArray:
    """``W((1 - rho)/(e rho))`` (...) of laws (..., n), rho the least probability."""
    least = ref.min(-1)
    return np.asarray(lambertw((1.0 - least) / (np.e * least)).real)


@pytest.mark.claim("T12.small_anchor", regime="tabular")
@given(game=preference_games(), tau=st.floats(0.005, 2.0), scale=st.floats(0.3, 3.0))
def test_an_anchor_costs_no_more_than_the_best_bound(
    claim, game: PreferenceGame, tau: float, scale: float
) -> None:
    z = preferences.regularised_nash(game.P, game.ref, tau, scale).policy
    gap = preferences.duality_gap(game.P, z)
    claim.below(gap, tau / scale * best(game.ref), "gap by the best bound", atol=1e-9)
    claim.below(best(game.ref), -np.log(game.ref.min(-1)), "the best bound by the stated one")


@pytest.mark.claim("T12.small_anchor", regime="tabular")
@pytest.mark.parametrize("rare", [0.5, 0.1, 1e-3, 1e-12, 1e-100, 1e-300])
def test_two_responses_attain_it(claim, rare: float) -> None:
    """The rare one is preferred so much that its share is one over 1 plus the bound."""
    ref, scale = np.array([rare, 1.0 - rare]), 2.0
    bound, margin = float(best(ref)), 0.9
    tau = scale * margin / (1.0 + bound)
    P = 0.5 + 0.5 * margin * np.array([[0.0, 1.0], [-1.0, 0.0]])
    found = preferences.regularised_nash(P, ref, tau, scale)
    claim.close(found.policy[0], 1.0 / (1.0 + bound), 1e-9, what="share of the rare response")
    gap = float(preferences.duality_gap(P, found.policy))
    claim.close(gap / (tau / scale * bound), 1.0, 1e-9, what="gap over the best bound")
    if rare == 1e-300:
        claim.exhibits(-gap / (tau / scale * np.log(rare)), 0.989, what="gap over the stated one")


@pytest.mark.claim("T12.small_anchor", regime="tabular")
@pytest.mark.parametrize(("nats", "share"), [(10.0, 0.70), (100.0, 0.94), (800.0, 0.99)])
def test_the_stated_bound_is_attained_in_the_limit(claim, nats: float, share: float) -> None:
    """``log 1/rho`` of that many nats; 99 % from 763 on, beyond what a double holds."""
    bound = brentq(lambda b: b + np.log(b) + 1.0 - nats - np.log1p(-np.exp(-nats)), 1e-3, nats)
    w = 1.0 / (1.0 + bound)
    gap = (1.0 - w) * (logit(w) + nats + np.log1p(-np.exp(-nats)))  # log w/rho - KL(w||rho)
    claim.close(gap, bound, 1e-9, what="gap of two responses, g/tau times")
    claim.exhibits(gap / nats, share, what="gap over the stated bound", because="theory")
