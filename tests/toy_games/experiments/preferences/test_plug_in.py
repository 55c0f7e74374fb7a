"""T11, T12: plug-in estimates of a win rate, with and without comparisons with oneself."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab import stats
from tests.toy_games.experiments.preferences.runs import instance, rows_of, standard_error, walk
from theory import preferences
from toy_games.dynamics.preference_estimates import PlugIn, group_estimates
from toy_games.dynamics.preference_rounds import PreferenceRounds
from toy_games.dynamics.preference_sgd import PreferenceSGD
from toy_games.engine import simulator
from toy_games.predictions import preference_rounds as predicted


def rare(values):
    """Half-width that a mean of so few values leaves once in 100,000 times: Student's, not 4.5
    standard errors, which 12 values leave once in 1,000."""
    return stats.student(len(values), 1.0 - 1e-5) * standard_error(values)


def plug_in(seed, own, sizes=(2, 3, 6, 12), seeds=12, groups=600, n=4):
    P, policy = instance(seed, seeds, n, "bradley_terry")
    settings_ = [{"samples": k, "self_comparison": own} for k in sizes]
    rows = pd.DataFrame([{"seed": seed + s, **one} for one in settings_ for s in range(seeds)])
    index = np.tile(np.arange(seeds), len(sizes))
    table = simulator.run(PlugIn(rows, P[index], policy[index]), [groups], progress=False)
    return [part for _, part in table.groupby("samples")], sizes


@pytest.mark.claim("T11.sampled", regime="dynamics")
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_estimates_without_self_comparison_are_unbiased(claim, seed):
    for part, k in zip(*plug_in(seed, 0), strict=True):
        room = rare(part.bias)
        what = "bias, share of 1/2 - P"
        claim.close(part.bias.mean(), 0.0, room, what=what, because="sampling")
        exact = predicted.plug_in_variance(k, False)
        room = rare(part.variance) + 0.01 * exact  # finite groups
        what = "variance, share of P (1 - P)"
        claim.close(part.variance.mean(), exact, room, what=what, because="sampling")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison")
@settings(max_examples=2)
@given(seed=st.integers(0, 10**6))
def test_self_comparison_biases_the_estimate_by_one_over_k(claim, seed):
    for part, k in zip(*plug_in(seed, 1), strict=True):
        room = rare(part.bias)
        exact = predicted.plug_in_bias(k, True)
        what = "bias, share of 1/2 - P, against 1/K"
        claim.close(part.bias.mean(), exact, room, what=what, because="sampling")
        claim.exhibits(k * part.bias.mean(), 0.5, what="bias, in units of 1/K")
        exact = predicted.plug_in_variance(k, True)
        room = rare(part.variance) + 0.01 * exact
        what = "variance, share of P (1 - P)"
        claim.close(part.variance.mean(), exact, room, what=what, because="sampling")


def test_estimates_by_hand():
    """Three responses drawn as (0, 1, 0), of which the first two, or all, are the group."""
    P = torch.tensor([[[0.5, 0.8], [0.2, 0.5]]] * 3, dtype=torch.float64)
    drawn = torch.tensor([[0, 1, 0]] * 3)
    luck = torch.full((3, 3, 3), 0.3, dtype=torch.float64)
    luck[:, 0, 1] = 0.9  # response 0 loses this one to 1, and 1 the next to 0; 0 wins over 0
    size, own = torch.tensor([2, 3, 3]), torch.tensor([False, False, True])
    found = group_estimates(P, drawn, luck, size, own)
    assert found[0, :2].tolist() == [0.0, 1.0]
    np.testing.assert_allclose(found[1], [0.5, 0.5, 0.5])
    np.testing.assert_allclose(found[2], [1.5 / 3, 1.5 / 3, 1.5 / 3])
    own = torch.tensor([True, False, True])
    assert group_estimates(P, drawn, luck, size, own)[0, :2].tolist() == [0.25, 0.75]


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison")
def test_self_comparison_shrinks_the_step_of_sppos_loss(claim):
    count, samples = 4000, 4
    P, start = instance(9, 1, 4, "bradley_terry")
    exact = PreferenceSGD("sppo", rows_of(1, beta=0.5, rate=1.0), P[0], start[0])
    whole = (walk(exact, 1)["theta"] - exact.log_start).numpy()[0]
    rows = rows_of(count, beta=0.5, rate=1.0, samples=samples, self_comparison=1)
    run = PreferenceSGD("sppo", rows, P[0], start[0])
    steps = (walk(run, 1)["theta"] - run.log_start).numpy()
    share = steps @ whole / (whole @ whole)
    expected = predicted.effective_scale(1.0, samples, True)
    room = 4.0 * standard_error(share)
    claim.close(share.mean(), expected, room, what="share of the step", because="sampling")
    what = "missing share of the step, in units of 1/K"
    claim.exhibits(samples * (1.0 - share.mean()), 0.5, what=what)


@pytest.mark.claim("T12.sampled", regime="dynamics", drops="no_self_comparison")
def test_self_comparison_moves_the_anchored_equilibrium(claim):
    """To that of the payoff scale g (K-1)/K."""
    P, tau, samples = preferences.rock_paper_scissors(), 0.3, 2
    anchor = np.array([0.7, 0.2, 0.1])
    moved, true = (
        preferences.regularised_nash(P, anchor, tau, g).policy
        for g in (predicted.effective_scale(0.5, samples, True), 0.5)
    )
    rows = rows_of(8, beta=60.0, tau=tau, samples=samples, self_comparison=1)
    ends = {}
    for name, target in (("moved", moved), ("true", true)):
        run = PreferenceRounds("sppo", rows, P, moved, anchor, target)
        ends[name] = run.measure(walk(run, 1500), 1500)["average_tv"].numpy()
    what = "TV of averages to the predicted equilibrium"
    claim.below(ends["moved"].mean(), 0.02, what=what, because="chosen")
    claim.exhibits(ends["true"], 0.08, what="TV of averages to the game's equilibrium")
