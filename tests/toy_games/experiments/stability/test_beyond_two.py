"""Beyond effective step 2, and from afar: which rewards stay in bounds, and which fail."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.experiments.stability.played import game, mean_and_error, play
from theory.rounds.predictions import spif_reach
from toy_games.dynamics.sampled_rounds import far_start


@pytest.mark.claim("T8.bounded_failure", "T7.diverges", regime="dynamics")
@settings(max_examples=4)
@given(st.floats(2.6, 20.0), st.integers(0, 10**6))
def test_beyond_two_spif_cycles_in_bounds_and_exact_spin_diverges(claim, step, seed):
    p, v = game(3, 7, first=seed)
    start = far_start(p, v, np.full(3, 1.5))
    late = range(300, 361)
    every = int(np.ceil(50 / p.min()))  # expert samples that show every response each round
    for n, bound in ((None, max(spif_reach(2.0 * step))), (every, 4.0 * step)):
        spif = play("spif", step, 0, p, start, record=late, samples=n)
        what = "exact: B*" if n is None else "sampled: 2 eta"
        claim.below(spif.max_logratio, bound, what=f"max |u| of SPIF, {what}")
    spin = play("spin", step, 0, p, start, record=late)
    claim.exhibits(spin.max_logratio, 1e5, what="max |u| of SPIN, exact rounds, nats")


@pytest.mark.claim("T7.diverges", regime="dynamics", drops="exact_laws")
@pytest.mark.parametrize("step", [2.5, 9.0])
def test_smoothed_samples_bound_spin_too(claim, step):
    """A round moves log pi by at most 2 s log(2n+1); where the expert's samples show every
    response each round, that bounds max |u| as 2 eta bounds SPIF's."""
    p, v = game(5, 11, 0.3)
    start = far_start(p, v, np.full(5, 2.0))
    for n in (1000, 2000):
        assert n * p.min() > 50
        table = play("spin", step, 0, p, start, record=range(150, 221), samples=n)
        bound = 2.0 * step * np.log(2 * n + 1)
        claim.below(table.max_logratio, bound, what="max |u| of sampled SPIN: 2 s log(2n+1)")
    rare, v = game(5, 11, 1.0)
    table = play("spin", step, 0, rare, far_start(rare, v, np.full(5, 2.0)), range(221), samples=60)
    moves = table.pivot(index="step", columns="seed", values="max_logratio").diff().iloc[1:].abs()
    claim.below(moves, 2.0 * step * np.log(121), what="move of max |u| a round, rare responses")


def test_a_rare_response_that_samples_miss_leaves_the_bound_of_spif():
    """Mass .0084, 3.4 samples a round in the mean: |u| is beyond 2 eta, and within it if shown."""
    p, v = game(3, 7, first=3335)
    start, step, late = far_start(p, v, np.full(3, 1.5)), 12.0, range(300, 361)
    rare = play("spif", step, 0, p, start, record=late, samples=400).max_logratio.max()
    shown = play("spif", step, 0, p, start, record=late, samples=6000).max_logratio.max()
    assert rare > 1.05 * 4.0 * step
    assert shown < 0.85 * 4.0 * step


@pytest.mark.claim("C5.unseen_responses", regime="dynamics")
@pytest.mark.parametrize("name", ["spif", "centred_spif", "ipo"])
def test_bounded_rewards_survive_unseen_responses(claim, name):
    """Without smoothing, at an effective step where exact rounds of all objectives converge."""
    p, _ = game(6, 12)
    step = 0.6
    asked = {"record": range(60, 201, 5), "samples": 15, "smoothing": 0.0}
    table = play(name, step, 0, p, np.log(p), **asked)
    bound = 4.0 * step + 2.0 * np.log(15.0)
    claim.below(table.max_logratio, bound, what="max |u|, bounded", because="chosen")
    kl = mean_and_error(table)[0]
    claim.below(kl, 1.0, what="KL in nats, bounded reward", because="chosen")
    for other in ("spin", "exponential", "gail", "iq_learn"):
        lost = play(other, step, 0, p, np.log(p), **asked)
        claim.exhibits(mean_and_error(lost)[0], 1e3, what="KL in nats, unbounded reward")


@pytest.mark.claim("T6.descent", regime="tabular", drops="beta_at_least_L")
def test_gail_fails_from_afar_below_two_where_spif_does_not(claim):
    p, v = game(5, 16)
    near, far = (far_start(p, v, np.full(5, r)) for r in (0.05, 30.0))
    claim.below(play("gail", 1.6, 400, p, near).kl, 1e-9, what="KL of GAIL from near")
    claim.exhibits(play("gail", 1.6, 400, p, far).kl, 1e3, what="KL of GAIL from far")
    claim.below(play("spif", 1.6, 400, p, far).kl, 1e-9, what="KL of SPIF from far")
