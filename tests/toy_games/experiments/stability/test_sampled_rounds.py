"""Rounds from samples: exact where nothing is drawn, their counts and starts, what they refuse."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.specs import objective_of
from lab.streams import frequencies
from tests.toy_games.experiments.stability.played import LINKS, game, play
from tests.toy_games.interrupted import interrupt
from theory import laws, objectives, self_play
from theory.errors import InvalidInput
from toy_games.dynamics.sampled_rounds import SampledRounds, far_start
from toy_games.engine import simulator
from toy_games.engine.trainable import beta_at


@settings(max_examples=5)
@given(st.sampled_from(LINKS), st.integers(0, 10**6), st.floats(0.2, 1.2), st.booleans())
def test_rounds_without_samples_are_the_exact_rounds(name, seed, step, hole):
    rng = np.random.default_rng(seed)
    p, q = laws.random_law(rng, (2, 6), 1.0), laws.random_law(rng, (2, 6), 1.0)
    if hole:
        p[:, -1] = 0.0
        p /= p.sum(-1, keepdims=True)
    table = play(name, step, 6, p, np.log(q), record=range(7))
    obj = objectives.get(name)
    path = self_play(p, q, obj, float(beta_at(obj, step)), rounds=6, progress=False)
    found = table.pivot(index="step", columns="seed", values="kl").to_numpy()
    np.testing.assert_allclose(found, path.details["kl"], atol=1e-10, rtol=1e-9)
    outside = table.pivot(index="step", columns="seed", values="outside").to_numpy()
    predicted = np.where(p > 0, 0.0, path.policies).sum(-1)
    np.testing.assert_allclose(outside, predicted, atol=1e-12, rtol=0)


def test_counts_are_samples_by_inversion_alone_or_in_a_batch():
    p, _ = game(3, 5)
    p[:, 2] = 0.0
    p /= p.sum(-1, keepdims=True)
    rows = pd.DataFrame({"seed": [4, 9, 4], "beta": 1.0})
    start = np.log(laws.random_law(np.random.default_rng(0), (3, 5), 1.0))
    run = SampledRounds(objectives.get("spif"), rows, p, start, samples=40)
    law = torch.from_numpy(p)
    counts = run.counts("expert", law, 7)
    numbers = run.streams.uniform("expert", 7, (40,))[[0, 1, 0]]
    np.testing.assert_allclose(counts.numpy(), 40 * frequencies(law, numbers).numpy(), atol=1e-12)
    assert (counts[:, 2] == 0).all()
    alone = SampledRounds(objectives.get("spif"), rows[2:], p[2:], start[2:], samples=40)
    assert torch.equal(alone.counts("expert", law[2:], 7), counts[2:])


def test_frequencies_are_the_laws():
    p, _ = game(1, 6)
    run = SampledRounds(None, pd.DataFrame({"seed": [1], "beta": 1.0}), p, np.log(p), samples=500)
    total = sum(run.counts("own", torch.from_numpy(p), t) for t in range(100))
    error = np.sqrt(p * (1 - p) / 50_000)
    assert (np.abs(total.numpy() / 50_000 - p) < 4.5 * error).all()


@settings(max_examples=10)
@given(st.integers(2, 30), st.floats(0.01, 200.0), st.integers(0, 10**6))
def test_starts_have_the_reach_that_was_asked_for(outcomes, reach, seed):
    p, v = game(2, outcomes, first=seed)
    start = far_start(p, v, np.array([reach, 2.0 * reach]))
    np.testing.assert_allclose(np.exp(start).sum(-1), 1.0)
    np.testing.assert_allclose((np.log(p) - start).max(-1), [reach, 2.0 * reach], rtol=1e-5)


def test_an_interrupted_run_goes_on_to_the_same_table(tmp_path, monkeypatch):
    p, v = game(3, 6)
    rows = pd.DataFrame({"seed": range(3), "beta": 0.7, "label_noise": 0.1})
    start = far_start(p, v, np.full(3, 5.0))

    for name in ("spif", "sft"):
        given = (objective_of(name), rows, p, start, 50)
        whole = simulator.run(SampledRounds(*given), range(0, 21, 4), progress=False)
        file = tmp_path / f"{name}.npz"
        interrupt(SampledRounds(*given), 9, range(0, 21, 4), file, monkeypatch)
        assert file.exists()
        resumed = simulator.run(SampledRounds(*given), range(0, 21, 4), file, progress=False)
        pd.testing.assert_frame_equal(whole, resumed, check_exact=True)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"beta": 0.0}, "beta"),
        ({"seed": -1}, "seed"),
        ({"label_noise": 1.0}, "label_noise"),
        ({"samples": 0, "smoothing": -1.0, "noise": "other"}, "samples=0.*smoothing=-1.*noise"),
        ({"expert": 2.0}, "probabilities"),
        ({"log_start": -np.inf}, "finite values"),
    ],
)
def test_unusable_rounds_are_refused(change, reason):
    p, _ = game(2, 4)
    rows = {"seed": [0, 1], "beta": 1.0, "label_noise": 0.0}
    rows |= {k: v for k, v in change.items() if k in rows}
    laws_ = {"expert": p * change.get("expert", 1.0), "log_start": np.log(p)}
    laws_["log_start"][0, 0] += change.get("log_start", 0.0)
    rest = {k: v for k, v in change.items() if k in ("samples", "smoothing", "noise")}
    with pytest.raises(InvalidInput, match=f"(?s){reason}"):
        SampledRounds(objectives.get("spif"), pd.DataFrame(rows, index=[0, 1]), **laws_, **rest)
    with pytest.raises(InvalidInput):
        SampledRounds(
            objectives.get("spin_hinge"), pd.DataFrame({"seed": [0, 1], "beta": 1.0}), p, np.log(p)
        )


def test_unusable_starts_are_refused():
    p, v = game(2, 4)
    with pytest.raises(InvalidInput) as caught:
        far_start(p, 0.0 * v, np.array([0.0, 1.0]))
    assert "reach" in str(caught.value)
    assert "direction" in str(caught.value)
