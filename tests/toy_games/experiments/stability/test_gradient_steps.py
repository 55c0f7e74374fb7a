"""Rounds of k gradient steps: one factor for all links, breaking distance, early stopping."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.specs import objective_of
from tests.toy_games.experiments.stability.played import game
from toy_games import launch
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.engine.trainable import beta_at
from toy_games.experiments.stability import Settings, along, steepest
from toy_games.predictions.stability import breaking_distance, inner_factor


def local_factors(name, step, steps_per_round, inner, outcomes=6):
    """Factor of a tiny log-ratio in a round along the steepest direction, exact gradients."""
    p, v = game(3, outcomes, 0.8)
    rate, top = steepest(p)
    obj = objective_of(name)
    rows = pd.DataFrame({"seed": range(3), "steps_per_round": steps_per_round})
    rows["beta"], rows["rate"] = beta_at(obj, np.full(3, step)), inner / rate
    run = SelfPlay(
        Softmax(outcomes),
        obj,
        rows,
        p[:, None],
        np.log(p) + 1e-7 * v,
        Data(batch=None),
        {"along": along(top)},
    )
    # A step into a round, the opponent is the policy at the round's start.
    record = [1, 1 + steps_per_round]
    table = simulator.run(run, record, progress=False).pivot(
        index="seed", columns="step", values="along"
    )
    return table[record[1]] / table[record[0]]


@pytest.mark.claim("T6.k_steps", regime="dynamics")
@settings(max_examples=6)
@given(
    st.sampled_from(["spin", "spif", "centred_spif", "ipo", "iq_learn", "exponential"]),
    st.floats(0.6, 15.0),
    st.integers(1, 40),
    st.floats(0.02, 0.15),
)
def test_k_steps_a_round_have_one_factor_for_all(claim, name, step, k, inner):
    predicted = np.abs(inner_factor(step, k * inner, inner))
    found = local_factors(name, step, k, inner)
    what = "factor a round, k gradient steps"
    claim.close(found, predicted, 2e-4, rtol=1e-3, what=what, because="chosen")


@settings(max_examples=10)
@given(st.floats(2.05, 50.0), st.floats(0.005, 0.3))
def test_the_breaking_distance_is_where_the_factor_is_minus_one(step, inner):
    at = breaking_distance(step, inner)
    np.testing.assert_allclose(inner_factor(step, at, inner), -1.0, rtol=0, atol=1e-9)
    fine = breaking_distance(step, 1e-7)
    np.testing.assert_allclose(fine, breaking_distance(step), atol=1e-5, rtol=1e-5)
    assert np.isinf(breaking_distance(2.0))
    assert np.isinf(breaking_distance(1.0, 0.1))


@pytest.mark.claim("T6.k_steps", regime="dynamics", drops="matched_slopes")
@pytest.mark.parametrize("beta", [0.1, 0.4])
def test_nwj_never_breaks_because_its_one_step_is_another(claim, beta):
    """Its rounds' effective step is 1/beta, its loss's 1/(beta/e + 1 - 1/e) <= e/(e-1) < 2."""
    own = 1.0 / (beta / np.e + 1.0 - 1.0 / np.e)
    found = local_factors("nwj", 1.0 / beta, 400, 0.1)
    claim.close(found, abs(1.0 - own), 1e-3, what="factor of long rounds, NWJ", because="chosen")
    what = "factor of long rounds that k_steps predicts for matched slopes, beyond NWJ's"
    claim.exhibits(1.0 / beta - 1.0 - found, 0.5, what=what)


@pytest.mark.claim("T6.k_steps", regime="dynamics", drops="curved_loss")
def test_hinge_has_no_best_response_to_converge_to(claim):
    """Its gradient is constant until the margin: the limit of an infinite effective step."""
    for k in (5, 12, 30):
        found = local_factors("spin_hinge", 3.0, k, 0.1)
        what = "factor 1 - k rate lambda, of an infinite step"
        claim.close(found, abs(1.0 - 0.1 * k), 1e-4, what=what, because="chosen")


@pytest.mark.claim("C5.early_stopping", regime="dynamics")
def test_early_stopping_holds_spin_where_spif_gains_nothing(claim):
    """Minibatches at effective step 8: until the breaking distance SPIN and SPIF are alike."""
    asked = Settings(
        studies=("early",),
        objectives=("spin", "spif"),
        outcomes=10,
        spread=0.5,
        early_step=8.0,
        early_distances=(0.5, 1.5, 7.0),
        early_steps=500,
    )
    table = launch.run("stability", asked, progress=False)
    kl = table.groupby(["objective", "distance"]).kl.mean().unstack("distance")
    assert breaking_distance(8.0) > 1.5
    early = kl[[0.5, 1.5]]
    spin = early.loc["spin"].to_numpy()
    what = "KL of SPIF against SPIN's, before the breaking distance"
    claim.close(early.loc["spif"], spin, 0.0, rtol=0.2, what=what, because="chosen")
    claim.below(spin / kl.loc["sft", 0.5], 6.0, what="KL of SPIN over SFT's", because="chosen")
    for name in ("spin", "spif"):
        claim.exhibits(
            kl.loc[name, 7.0] / kl.loc[name, 1.5],
            10.0,
            what="KL beyond the breaking distance over KL before it",
        )
