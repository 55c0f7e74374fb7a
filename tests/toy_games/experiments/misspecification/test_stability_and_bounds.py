"""T15, T16: stability of SPIN's rounds at the MLE, and the bound of finite classes."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.experiments.misspecification.runs import run
from toy_games.dynamics import finite_class
from toy_games.dynamics.measures import distance_to
from toy_games.dynamics.self_play import Data
from toy_games.engine import simulator
from toy_games.games.contenders import Method, simulation
from toy_games.games.ladder import Ladder
from toy_games.predictions.misspecification import finite_class_bound, spin_threshold

STABILITY = {"outcomes": 16, "capacity": 3, "seeds": 4, "spread": 1.0, "inner": (5, 400)}


@pytest.fixture(scope="module")
def rounds():
    return run("stability", factors=(0.85, 1.15), **STABILITY)


@pytest.mark.claim("T15.stability", regime="dynamics")
def test_solved_spin_rounds_are_stable_above_the_threshold_and_only_there(claim, rounds):
    """Deviations follow the linear map; 15 % below the threshold they grow, above they decay."""
    what = "distance against linear theory"
    claim.close(rounds.distance, rounds.predicted, 0.0, rtol=0.02, what=what, because="chosen")
    solved = rounds[rounds.steps_per_round == 400].pivot(
        index=["seed", "factor"], columns="round", values="distance"
    )
    growth = (solved[12] / solved[8]).unstack()
    claim.exhibits(growth[0.85], 1.5, what="growth over 4 rounds, 15 % below")
    what = "decay over 4 rounds, 15 % above"
    claim.below(growth[1.15], 0.5, what=what, because="chosen")


@pytest.mark.claim("T15.stability", regime="dynamics", drops="solved_rounds")
def test_unsolved_rounds_are_stable_below_the_threshold(claim, rounds):
    """Five gradient steps a round: 15 % below the threshold of solved rounds they contract."""
    short = rounds[(rounds.steps_per_round == 5) & (rounds["round"] == 12)]
    short = short[short.factor == 0.85]
    claim.exhibits(1.0 / short.distance, 2.0, what="contraction over 12 rounds")


@pytest.mark.claim("T15.stability", regime="dynamics")
def test_minibatch_spin_rounds_leave_the_mle_below_the_threshold_only(claim):
    """Drawn batches: 30 % below the threshold the policy is far from the MLE, 40 % above near."""
    it = Ladder.random(range(6), [3], 12, 0.8)
    edge = np.array([spin_threshold(*it.covariances(row)) for row in range(6)])
    best = it.maximum_likelihood()
    start = torch.stack(
        [torch.from_numpy(it.model(i).maximum_likelihood(it.law(i))) for i in range(6)]
    )
    ends = {}
    for factor in (0.7, 1.4):
        rows = pd.DataFrame({"seed": it.seeds, "beta": factor * edge, "rate": 0.3})
        made = simulation(Method("spin", "one step"), it.policy, rows.assign(steps_per_round=150),
                          it.expert, start, Data(batch=64), {"tv": distance_to(best)})  # fmt: skip
        table = simulator.run(made, [150 * t for t in range(8, 13)], progress=False)
        ends[factor] = table.groupby("seed").tv.mean()
    claim.exhibits(ends[0.7] / ends[1.4], 2.0, what="late TV to the MLE, below over above")


@pytest.mark.claim("T16.mle_bound", regime="dynamics", of="classes")
@settings(max_examples=4)
@given(seed=st.integers(0, 2**20), horizon=st.integers(1, 5), n=st.sampled_from([5, 40, 200]))
def test_maximum_likelihood_stays_within_its_bound(claim, seed, horizon, n):
    """At any horizon no more than delta of the data sets break it (members far apart)."""
    members, delta = 32, 0.2
    class_ = finite_class.random_class(seed, members, horizon, 3, 1.5)
    found = finite_class.trial(class_, range(150), n, {}, 0)
    above = (found.hellinger > finite_class_bound(members, delta, n)).mean()
    what = "share of data sets above the bound"
    claim.below(above, delta, what=what, because="theory")
    tail = np.quantile(found.hellinger, 1 - delta)
    what = "D_H^2 at probability 1 - delta"
    claim.below(tail, finite_class_bound(members, delta, n), what=what, because="theory")


@pytest.mark.claim("T16.no_information", regime="dynamics", of="data sets")
def test_own_samples_do_not_help_to_find_the_expert(claim):
    """Uniform experts: maximum likelihood errs least; no paired gain of self-play beyond noise."""
    found = run("finite", objectives=("spin", "spif", "ipo"), trials=300, members=24, horizons=(3,),
                class_samples=(10, 60), class_spread=0.5, delta=0.2)  # fmt: skip
    found = found[~found.outside]
    for value in ("wrong", "hellinger"):
        wide = found.pivot(index=["n", "seed"], columns="method", values=value)
        for name in ("spin", "spif", "ipo"):
            gain = (wide["mle"] - wide[name]).groupby("n")
            noise = 4 * gain.std() / np.sqrt(300)
            what = f"{value}: MLE less {name}, 4 standard errors"
            claim.below(gain.mean(), noise, what=what, because="sampling")
        assert (wide["spin"] - wide["mle"]).mean() > 0


@pytest.mark.claim("T16.mle_bound", regime="dynamics", drops="expert_in_class", of="data sets")
def test_the_bound_fails_when_the_expert_is_no_member(claim):
    """A mixture of a member with the uniform law: the distance does not fall with n."""
    class_ = finite_class.random_class(5, 32, 4, 3, 1.0)
    found = finite_class.trial(class_, range(60), 1000, {}, 0, outside=True)
    bound = finite_class_bound(32, 0.2, 1000)
    claim.exhibits(found.hellinger / bound, 1.5, what="D_H^2 over the bound")
