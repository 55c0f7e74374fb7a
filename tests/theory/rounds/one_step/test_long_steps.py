"""T4: one-step SPIF's round at a long step, and how far it is from its limit ``(p - q)+``."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from tests.theory.rounds.one_step.minimisers import SPIF
from tests.theory.strategies import games
from theory import laws, objectives
from theory.result import FloatArray
from theory.rounds.one_step import one_step_round, partition_gap
from theory.rounds.predictions import LongStep, long_step


def long_round(p: FloatArray, q: FloatArray, eta: float) -> FloatArray:
    """One-step SPIF of one prompt, Z >= 1: its stationarity, solved by Lambert's function.

    ``w = eta sigma pi/(p+q)`` has ``w + log w = log(eta sigma q/(p+q)) + eta t``, any sigma."""

    def law(log_sigma: float) -> FloatArray:
        level = log_sigma + np.log(eta * q / (p + q)) + eta * (p - q) / (p + q)
        log_w = np.where(level > 1.0, np.log(np.maximum(level, 1.0)), level)
        for _ in range(12):  # Newton
            log_w = log_w + (level - np.exp(log_w) - log_w) / (1.0 + np.exp(log_w))
        return np.exp(log_w - log_sigma) * (p + q) / eta

    return law(brentq(lambda x: law(x).sum() - 1.0, -40.0, 3.0, xtol=1e-14))


def off_limit(p: FloatArray, q: FloatArray, eta: float) -> tuple[float, LongStep]:
    """Total variation of a one-step round from its limit, and what is said of it."""
    said = long_step(p, q, eta)
    return float(laws.total_variation(long_round(p, q, eta), said.law)), said


@pytest.mark.claim("T4.long_steps", regime="tabular")
@given(game=games(), eta=st.floats(1e2, 1e5), c=st.floats(0.3, 3.0))
@settings(max_examples=5)
def test_one_step_spif_cannot_take_a_long_step(claim, game, eta, c):
    """Its law tends to ``(p - q)+`` as the step grows, where a two-step round ends on one outcome:
    rewards above 0 are held by pi <= 1, so what is left is p's excess."""
    p, q = game.expert, game.start
    excess = np.maximum(p - q, 0.0)
    found = one_step_round(p, q, objectives.get("spif", c=c), 1.0 / (eta * c)).policy
    said = long_step(p, q, eta)
    claim.close(said.law, excess / laws.total_variation(p, q)[:, None], 1e-9, what="its limit")
    off = laws.total_variation(found, said.law)
    claim.below(off, said.at_most, atol=1e-9, what="TV to (p - q)+, normalised")
    rows = [long_round(*row, eta) for row in zip(p, q, strict=True)]
    claim.close(found, np.stack(rows), 1e-7, what="the round against Lambert's function")


@pytest.mark.claim("T4.long_steps", regime="tabular")
@given(game=games(max_spread=20.0), eta=st.floats(0.0, 5.0).map(lambda x: 10**x))
def test_by_when_a_long_step_is_there(claim, game, eta):
    """Where Z >= 1: between what ``q e^{eta t}`` leaves out and ``(p + q) log(1/q)/(eta TV)``."""
    for p, q in zip(game.expert, game.start, strict=True):
        if laws.total_variation(p, q) < 1e-6 or partition_gap(p, q, SPIF, 1.0 / eta) < 1e-9:
            continue
        off, said = off_limit(p, q, eta)
        claim.below(off, said.at_most, atol=1e-9, what="TV to (p - q)+, normalised")
        claim.below(said.at_least, off, atol=1e-9, what="what q e^{eta t} leaves out of it")


@pytest.mark.claim("T4.long_steps", regime="tabular")
def test_what_long_steps_are_off_by_is_attained(claim):
    """From above by outcomes of p = q, which leave last; in general it is of order 1/eta."""
    for excess, eta in ((1e-3, 1e6), (0.1, 1e9)):
        p = np.array([excess, 1e-200, 1.0 - excess])
        q = np.array([1e-3 * excess, 0.999 * excess, 1.0 - excess])
        off, said = off_limit(p, q, eta)
        size = eta * excess * 0.999 / 2.0
        tie = brentq(lambda w, size=size: w * np.expm1(w) - size, 0.0, 50.0)
        nats = np.array([max(tie, -np.log(q[0])), tie, tie])
        bound = ((p + q) * nats).sum() / (eta * excess * 0.999)
        claim.close(said.at_most, bound, 1e-12, rtol=1e-9, what="the bound by hand")
        claim.below(off, bound, what="TV to the limit, ties")
        claim.exhibits(off / bound, 0.96 if excess < 0.01 else 0.89, what="that TV over its bound")
    p, q = laws.random_law(np.random.default_rng(21), (2, 12, 6), 1.0)
    for row in zip(p, q, strict=True):
        if (row[0] > row[1]).sum() > 1:
            off, said = off_limit(*row, 3e4)
            claim.close(
                off / said.first_order,
                1.0,
                0.05,
                what="TV to the limit, to first order",
                because="expansion",
            )


@pytest.mark.claim("T4.long_steps", regime="tabular", drops="long_enough")
@pytest.mark.parametrize(("rare", "eta"), [(1e-50, 100.0), (1e-12, 20.0)])
def test_a_response_that_the_opponent_hardly_gives_is_not_reached(claim, rare, eta):
    """Not within log(eta)/(eta TV): ``pi <= q e^{eta t}`` keeps 99.7 % of the limit away."""
    p, q = np.array([0.3, 0.001, 0.699]), np.array([rare, 3e-4, 1.0 - 3e-4 - rare])
    off, said = off_limit(p, q, eta)
    found = one_step_round(p, q, SPIF, 1.0 / eta, branch="global").policy
    claim.close(found, long_round(p, q, eta), 1e-9, what="the round against Lambert's function")
    claim.exhibits(partition_gap(p, q, SPIF, 1.0 / eta), 2.0, what="log Z")
    claim.exhibits(off, 0.997, what="TV to (p - q)+, normalised")
    claim.exhibits(off / (np.log(eta) / (eta * laws.total_variation(p, q))), 2.0, what="old bound")
    claim.close(off, said.at_least, 1e-6, what="TV to the limit against its lower bound")
