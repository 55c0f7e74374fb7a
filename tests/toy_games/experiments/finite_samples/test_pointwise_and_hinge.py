"""T13: when pointwise SPIF attains its least risk on samples, and when the hinge stops."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.toy_games.experiments.finite_samples.descent import OWN, last_of, one_round
from theory import objectives
from theory.errors import InvalidInput
from toy_games.dynamics.flow import Flow
from toy_games.engine import simulator
from toy_games.experiments import finite_samples as finite
from toy_games.predictions.finite_samples import demanded_mass, squared_limit


@pytest.mark.claim("T13.pointwise_room", regime="dynamics")
def test_the_example_of_three_outcomes(claim):
    q, data, own = np.array([0.4, 0.3, 0.3]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    run = one_round("spif", q, q, data, own, 0.5, 0.25)  # eta = 2, step size 1/2
    flow = Flow(run, 1e5, 40)
    table = simulator.run(flow, range(flow.steps + 1), progress=False)
    infimum = 1.0 + table.loss.iloc[-1]  # (1/2)(r_1 - 1)^2 + (1/2)(r_2 + 1)^2 = 1 + loss
    what = "infimum of the squared loss, three digits"
    claim.close(infimum, 0.158, 5e-4, what=what, because="theory")
    wanted = np.log([1e2, 1e3, 1e4, 1e5])
    at = np.interp(wanted, np.log(table.time[1:]), table.logit_range[1:])
    what = "logit range at 1e2 ... 1e5 steps, one decimal"
    claim.close(at, [3.3, 5.4, 7.7, 10.0], 0.06, what=what, because="theory")


@pytest.mark.claim("T13.pointwise_room", regime="tabular", drops="separable")
def test_a_sample_on_both_sides_asks_for_its_link_alone(claim):
    """Expert samples {1, 2}, own sample {2}: the second asks for q e^{R/beta}, R(log 1/2) = -1/3.

    With +-eta on the samples there would be no room at eta = 1/2, nor would there be attained what
    is attained: the loss of the best response, by a policy that leaves .087 to the third."""
    spif, q = objectives.get("spif"), np.array([0.4, 0.3, 0.3])
    data, own = np.array([0.5, 0.5, 0.0]), np.array([0.0, 1.0, 0.0])
    claim.close(spif.reward(data, own)[:2], [1.0, -1 / 3], 1e-14, what="rewards on the samples")
    for eta, room in ((0.5, True), (0.8, False)):
        asked = float(demanded_mass(spif, 1 / eta, data, own, q))
        claim.close(asked, 0.4 * np.exp(eta) + 0.3 * np.exp(-eta / 3), 1e-14, what="mass asked for")
        assert (asked < 1) == room
        for old in (0.4 * np.exp(eta) + 0.3 * np.exp(eta), 0.7 * np.exp(eta) + 0.3 * np.exp(-eta)):
            claim.exhibits(old, 1.15, what="mass asked for if the shared sample counted as +-1/c")
    with pytest.raises(InvalidInput, match="attained"):
        squared_limit(1.0, 2.0, data, own, q)
    law = np.array([0.4 * np.exp(0.5), 0.3 * np.exp(-1 / 6), 0.0])
    law[2] = 1.0 - law.sum()
    reward = 2.0 * np.log(law / q)
    least = float(spif.risk(0.5 * reward, 0.5 * reward, 2.0, data, own))
    seen = spif.reward(data, own)
    claim.close(least, -spif.value(data, own, seen), 1e-14, what="loss of that policy: the least")
    claim.close(law[2], 0.0866, 1e-4, what="mass that is left, three digits", because="theory")
    limit = squared_limit(1.0, 1.25, data, own, q)
    claim.exhibits(-limit.multiplier, 0.05, what="pull on the unseen outcome at eta = .8")


def test_where_no_response_is_unseen_the_least_is_attained_without_room():
    """Two responses, one sample of each side: 3.8 times the mass is asked for at eta = 2, and the
    loss is least inside, at a log-odds of 2.72."""
    spif, q, odds = objectives.get("spif"), np.full(2, 0.5), np.linspace(-12, 12, 24001)
    data, own = np.eye(2)
    assert demanded_mass(spif, 0.5, data, own, q) == pytest.approx(2 * np.cosh(2.0) / 2, rel=1e-12)
    law = np.exp(-np.logaddexp(0.0, np.stack([-odds, odds], -1)))
    reward = 0.5 * np.log(law / q)
    risk = -spif.a(reward[:, 0]) - spif.b(reward[:, 1])
    best = risk.argmin()
    assert odds[best] == pytest.approx(2.72, abs=0.002)
    assert 1.0 + risk[best] == pytest.approx(0.2359, abs=1e-4)


@pytest.mark.claim("T13.pointwise_room", regime="dynamics")
@given(st.integers(0, 10**6), st.sampled_from(["disjoint", "partial"]), st.floats(0.2, 3.0))
def test_pointwise_spif_attains_its_minimum_iff_there_is_room(claim, seed, overlap, eta):
    p, q, data, own = finite.samples(seed, overlap, 14)
    spif, beta = objectives.get("spif"), 1.0 / eta
    asked = float(demanded_mass(spif, beta, data, own, q))
    assume(abs(asked - 1.0) > 0.05)
    run = one_round("spif", p, q, data, own, beta, 0.5)
    end = last_of(run, 1e8, 15).iloc[0]
    if asked < 1.0:
        claim.close(end.unseen_mass, 1.0 - asked, 1e-6, what="unseen mass where there is room")
        claim.below(end.gradient_norm, 1e-9, what="gradient norm where there is room")
    else:
        limit = squared_limit(1.0, beta, data, own, q)
        expected = limit.unseen_time / (1e8 * float(run.step_size[0]))
        what = "unseen mass where there is none, to leading order in 1/t"
        claim.close(end.unseen_mass, expected, 0.0, 0.01, what=what, because="expansion")


@pytest.mark.claim("T13.pointwise_room", regime="dynamics", drops="unseen_response")
def test_without_unseen_outcomes_pointwise_spif_attains_its_minimum(claim):
    p, q, data, own = finite.samples(501, "disjoint", 9)
    keep = (data > 0) | (own > 0)
    q = q[keep] / q[keep].sum()
    asked = demanded_mass(objectives.get("spif"), 0.25, data[keep], own[keep], q)
    claim.exhibits(asked, 2.0, what="mass asked for")
    run = one_round("spif", p[keep] / p[keep].sum(), q, data[keep], own[keep], 0.25, 0.5)
    end = last_of(run, 1e5)
    claim.below(end.gradient_norm, 1e-10, what="gradient norm")
    with pytest.raises(InvalidInput, match="attained"):
        squared_limit(1.0, 0.25, data[keep], own[keep], q)


@pytest.mark.claim("T13.squared_stop", regime="dynamics")
def test_the_hinge_stops_when_every_margin_is_one(claim):
    s = finite.Settings(**OWN, rate=0.1, outcomes=12, steps=600)
    table = finite.descent(s, "spin_hinge", progress=False)
    end = table[(table.step == 600) & (table.overlap == "disjoint")]
    claim.exhibits(end.margin, 1.0, what="least margin", because="theory")
    claim.close(end.gradient_norm, np.zeros(len(end)), 0.0, what="gradient norm, exactly")
    # a step moves a margin by at most step size times beta^2 times the two weights, at most 2
    claim.below(end.margin, 1.0 + 0.1 * 2.0, what="least margin: one step beyond 1 at most")


@pytest.mark.claim("T13.squared_stop", regime="dynamics", drops="separable")
def test_on_shared_outcomes_the_hinge_does_not_stop(claim):
    run = finite.one_round(finite.Settings(**OWN, rate=0.1, outcomes=12), "spin_hinge")
    table = simulator.run(run, [2000], progress=False)
    end = table[table.overlap == "same"]
    claim.exhibits(end.gradient_norm, 1e-4, what="gradient norm after 2000 steps: it chatters")
