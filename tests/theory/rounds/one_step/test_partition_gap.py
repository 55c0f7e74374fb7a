"""T4: the partition function of SPIF's two-step round, its sign and its slope near the expert."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from tests.theory.rounds.one_step.minimisers import SPIF
from tests.theory.strategies import games
from theory import laws, objectives
from theory.rounds.one_step import partition_gap
from theory.rounds.predictions import gap_slope

# With m = (p+q)/2, t = (p-q)/(p+q): Z = E_m[(1-t) e^{eta t}], E_m t = 0. The tangent of this
# at t = 0 lies above it on [-1, 1], so that Z <= 1, iff it does at t = -1: 2 e^-eta <= 2 - eta.
SHARP = brentq(lambda eta: 2.0 * np.exp(-eta) - 2.0 + eta, 1.0, 1.9)


@pytest.mark.claim("T4.partition_gap", regime="tabular")
@given(game=games(max_n=30, max_spread=6.0), eta=st.floats(0.01, 1.0), c=st.floats(0.2, 5.0))
def test_partition_gap_of_spif_is_not_positive(claim, game, eta, c):
    obj, beta = objectives.get("spif", c=c), 1.0 / (eta * c)
    gap = partition_gap(game.expert, game.start, obj, beta)
    claim.below(gap, 0.0, atol=1e-14, what="log Z for eta <= 1")
    gap = partition_gap(game.expert, game.start, obj, 1.0 / (SHARP * c))
    claim.below(gap, 0.0, atol=1e-14, what="log Z up to eta = 1.5936 (2 exp(-eta) = 2 - eta)")


@pytest.mark.claim("T4.partition_gap", regime="tabular", drops="small_step")
@pytest.mark.parametrize("eta", [1.6, 2.0, 4.0])
def test_partition_gap_of_spif_turns_positive(claim, eta):
    own = np.array([1.0 - 1e-3, 1e-3])
    gap = partition_gap(np.array([1.0, 0.0]), own, SPIF, 1.0 / eta)
    claim.exhibits(gap, 1e-6, what="log Z where the expert misses an own response")


@pytest.mark.claim("T4.partition_gap", regime="tabular")
@given(game=games(max_n=20, max_spread=1.5), eta=st.floats(0.1, 4.0), c=st.floats(0.3, 3.0))
def test_partition_gap_near_the_expert(claim, game, eta, c):
    """The limit is one of max |u| -> 0, here <= 5e-4; Delta = 5e-11 stands far above rounding."""
    p = 0.99 * game.expert + 0.01 / game.expert.shape[-1]
    change = game.rng.standard_normal(p.shape)
    change -= laws.expect(p, change)[..., None]
    change /= np.sqrt(laws.expect(p, np.square(change)))[..., None]
    q = p * np.exp(1e-5 * change)
    q /= q.sum(-1, keepdims=True)
    gap = partition_gap(p, q, objectives.get("spif", c=c), 1.0 / (eta * c))
    delta = laws.triangular(p, q)
    claim.close(
        gap / delta, eta * (eta - 2) / 4, 2e-3, what="log Z / Delta near p", because="expansion"
    )


@pytest.mark.claim("T4.gap_slope", regime="tabular")
@given(game=games(max_n=20, max_spread=6.0), eta=st.floats(0.1, 6.0))
def test_partition_gap_is_a_mean_over_outcomes(claim, game, eta):
    """``(Z - 1)/Delta`` is the mean of ``gap_slope`` at weights ``(p - q)^2/(p + q)``."""
    p, q = game.expert, game.start
    t, weight = (p - q) / (p + q), np.square(p - q) / (p + q)
    slopes = gap_slope(t, eta)
    excess = np.expm1(partition_gap(p, q, SPIF, 1.0 / eta))
    claim.close(excess, (weight * slopes).sum(-1), 1e-13 * np.exp(eta), what="Z - 1")
    delta = laws.triangular(p, q)
    claim.below(excess, slopes.max(-1) * delta, atol=1e-13 * np.exp(eta), what="Z - 1, from above")
    claim.below(slopes.min(-1) * delta, excess, atol=1e-13 * np.exp(eta), what="Z - 1, from below")


@pytest.mark.claim("T4.gap_slope", regime="tabular", drops="small_ratios")
@pytest.mark.parametrize(("eta", "slope"), [(0.5, -0.1435), (1.0, -0.1321), (3.0, 0.5498)])
def test_a_small_delta_is_not_enough_for_the_gap(claim, eta, slope):
    """Where the expert misses a rare response, log Z/Delta tends to e^-eta - 1 + eta/2."""
    for rare in (1e-4, 1e-6):
        p, q = np.array([1.0, 0.0]), np.array([1.0 - rare, rare])
        found = partition_gap(p, q, SPIF, 1.0 / eta) / laws.triangular(p, q)
        claim.close(
            found, slope, 2e-4, what="log Z / Delta, one response missing", because="expansion"
        )
        claim.close(
            found, gap_slope(-1.0, eta), 2 * rare, what="its slope at t = -1", because="expansion"
        )
        claim.exhibits(abs(found - eta * (eta - 2) / 4), 0.04, what="off the slope near p")
