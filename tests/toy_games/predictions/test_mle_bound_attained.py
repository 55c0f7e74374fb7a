"""T16: the constant of the bound for maximum likelihood is attained."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import binom

from toy_games.predictions.misspecification import finite_class_bound


def hellinger(a: float) -> float:
    """``D_H^2`` of the laws (1/2 + a, 1/2 - a) of a bit and the reverse."""
    return 2.0 - 4.0 * np.sqrt((0.5 + a) * (0.5 - a))


def log_wrong(a: float, n: int) -> float:
    """Log of the probability that the reverse is likelier on n bits, n odd; rarest terms left."""
    half = (n - 1) // 2
    return float(logsumexp(binom.logpmf(np.arange(max(0, half - 4000), half + 1), n, 0.5 + a)))


def bits(nats: float, a: float) -> int:
    """The odd number of them at which ``n D_H^2/2`` is about so much."""
    return 2 * int(nats / hellinger(a)) + 1


@pytest.mark.claim("T16.mle_bound", regime="tabular")
def test_two_laws_of_a_bit_attain_it_where_delta_is_small(claim):
    """The bound at the very probability of the error, which is ``(1 - D_H^2/2)^n`` but a power."""
    for nats, least in ((20.0, 0.84), (200.0, 0.97), (2000.0, 0.99)):
        n = bits(nats, 0.02)
        share = n * hellinger(0.02) / (2.0 * (np.log(2.0) - log_wrong(0.02, n)))
        claim.below(share, 1.0, what="D_H^2 over the bound at delta the share of errors")
        claim.exhibits(share, least, what="D_H^2 over that bound", because="theory")


@pytest.mark.claim("T16.mle_bound", regime="tabular")
def test_many_laws_attain_it_at_any_delta(claim):
    """Responses are N bits, a member but the expert has one of them reversed: N independent ways
    to be wrong, as many as make delta one tenth; e^2000, and a million."""
    for nats, least in ((2000.0, 0.99), (13.5, 0.83)):
        n = bits(nats, 0.02)
        log_members = np.log(-np.log1p(-0.1)) - log_wrong(0.02, n)
        share = n * hellinger(0.02) / (2.0 * (log_members + np.log(10.0)))
        claim.below(share, 1.0, what="D_H^2 over the bound at delta = .1")
        claim.exhibits(share, least, what="D_H^2 over that bound", because="theory")
    assert np.exp(log_members) == pytest.approx(1e6, rel=0.1)


def test_members_with_one_reversed_bit_err_as_often_as_foretold():
    """30 bits, 201 draws of each, 4,000 data sets; ``finite_class_bound`` is the bound."""
    a, n, members, sets = 0.1, 201, 30, 4000
    seen = np.random.default_rng(0).binomial(n, 0.5 + a, (sets, members))
    wrong = (seen.min(-1) < n / 2).mean()  # some reversed bit is likelier than the expert's
    foretold = 1.0 - (1.0 - np.exp(log_wrong(a, n))) ** members
    assert wrong == pytest.approx(foretold, abs=4.0 * np.sqrt(foretold / sets))
    assert hellinger(a) < finite_class_bound(members + 1, foretold, n)
