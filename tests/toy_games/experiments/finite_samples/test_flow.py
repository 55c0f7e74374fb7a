"""Gradient flow of a round on samples: a pair that is known, small steps, refusals, resuming."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.experiments.finite_samples.descent import last_of, one_round
from theory.errors import InvalidInput
from toy_games.dynamics.flow import Flow
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax
from toy_games.experiments import finite_samples as finite
from toy_games.predictions.finite_samples import pair_margin


@pytest.mark.claim("T13.logistic_grows", regime="dynamics")
@settings(max_examples=5)
@given(st.floats(0.3, 3.0), st.floats(0.05, 1.0), st.floats(1e2, 1e8))
def test_the_logistic_margin_of_one_pair_is_known(claim, beta, rate, time):
    q = np.array([0.5, 0.2, 0.3])
    run = one_round("spin", q, q, [1.0, 0, 0], [0, 1.0, 0], beta, rate)
    expected = pair_margin(time, 2.0 * beta**2 * float(run.step_size[0]))
    what = "margin of SPIN's flow"
    claim.close(last_of(run, time, 30).margin, expected, 0.0, 2e-3, what=what, because="solver")


@pytest.mark.parametrize("name", ["spin", "ipo", "spif", "centred_spif"])
def test_descent_of_small_steps_follows_the_flow(name):
    # the gap of Euler's method is of first order in the step: halving the rate halves it
    p, q, data, own = finite.samples(900, "partial", 10)
    gap = []
    for rate, steps in ((0.08, 100), (0.04, 200)):
        run = one_round(name, p, q, data, own, 0.6, rate)
        descent = simulator.run(run, [steps], progress=False)
        gap.append(float(descent.kl[0] - last_of(run, steps, 50).kl[0]))
    assert abs(gap[0]) < 0.01
    assert 1.7 < gap[0] / gap[1] < 2.4


@pytest.mark.parametrize("given_times", [{"last": 0.001}, {"last": np.inf}, {"per_decade": 0}])
def test_a_flow_says_what_it_cannot_do(given_times):
    p, q, data, own = finite.samples(0, "same", 9)
    run = one_round("spin", p, q, data, own, 1.0, 0.1)
    with pytest.raises(InvalidInput):
        Flow(run, **{"last": 10.0, **given_times})
    batches = SelfPlay(Softmax(9), None, pd.DataFrame({"seed": [0]}), p, np.log(q), Data(batch=2))
    with pytest.raises(InvalidInput, match="minibatches"):
        Flow(batches, 10.0)


def test_an_interrupted_flow_resumes_to_the_same_table(tmp_path):
    def flow():
        return Flow(
            finite.one_round(finite.Settings(first_seed=3, seeds=2, outcomes=10), "spif"), 1e3
        )

    class Interrupted(Flow):
        def advance(self, state, step):
            if step == 60:
                raise KeyboardInterrupt
            return super().advance(state, step)

    whole = simulator.run(flow(), range(0, 120, 10), progress=False)
    Interrupted.__name__ = "Flow"  # part of a checkpoint's mark
    stopped, path = flow(), tmp_path / "flow.npz"
    stopped.__class__ = Interrupted
    with pytest.raises(KeyboardInterrupt):
        simulator.run(stopped, range(0, 120, 10), path, progress=False, every=0)
    assert path.exists()
    resumed = simulator.run(flow(), range(0, 120, 10), path, progress=False)
    pd.testing.assert_frame_equal(whole, resumed, check_exact=True)
