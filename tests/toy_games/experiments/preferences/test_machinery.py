"""The machinery of preference runs: resumed runs, rows, settings and batches that are refused."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

from tests.toy_games.experiments.preferences.runs import instance, rows_of, walk
from theory import objectives
from theory.errors import InvalidInput, Unavailable
from toy_games import launch
from toy_games.dynamics.preference_estimates import PlugIn
from toy_games.dynamics.preference_rounds import PreferenceRounds, games
from toy_games.dynamics.preference_sgd import PreferenceSGD, winner_scale
from toy_games.engine import simulator
from toy_games.experiments import preferences as played


def simulations():
    P, start = instance(2, 6, 4)
    rows = rows_of(6, tau=0.2, samples=[0, 3, 3, 8, 8, 2], self_comparison=[0, 0, 1, 0, 1, 1])
    even = rows.assign(samples=[2, 4, 4, 8, 8, 2], steps_per_round=7)
    return {
        "rounds": lambda keep: PreferenceRounds("sppo", rows[keep], P[keep], start[keep]),
        "nash_md": lambda keep: PreferenceRounds("nash_md", rows[keep], P[keep], start[keep]),
        "sgd": lambda keep: PreferenceSGD("sppo", even[keep], P[keep], start[keep]),
        "pair sgd": lambda keep: PreferenceSGD(
            "dpo", even.assign(self_comparison=0)[keep], P[keep], start[keep]
        ),
        "plug-in": lambda keep: PlugIn(even[keep], P[keep], start[keep]),
    }


@pytest.mark.parametrize("name", list(simulations()))
def test_an_interrupted_run_resumes_to_bitwise_the_same_table(tmp_path, monkeypatch, name):
    make, every = simulations()[name], np.ones(6, dtype=bool)
    whole = simulator.run(make(every), [0, 9, 20], progress=False)
    path, run = tmp_path / "run.npz", make(every)
    advance = run.advance

    def stopped(state, step):
        if step == 11:
            raise KeyboardInterrupt
        return advance(state, step)

    monkeypatch.setattr(run, "advance", stopped)
    with pytest.raises(KeyboardInterrupt):
        simulator.run(run, [0, 9, 20], path, False, every=0.0)
    resumed = simulator.run(make(every), [0, 9, 20], path, False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


@pytest.mark.parametrize("name", list(simulations()))
def test_rows_of_one_largest_sample_do_not_touch_each_other(name):
    make = simulations()[name]
    table = simulator.run(make(np.ones(6, dtype=bool)), [6], progress=False)
    keep = np.array([False, True, False, False, True, False])  # row 4 has the largest K
    alone = simulator.run(make(keep), [6], progress=False)
    both = table[keep].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone, rtol=1e-11, atol=1e-13)


def test_rows_rest_after_their_horizon():
    P, start = instance(2, 2, 3)
    run = PreferenceRounds("sppo", rows_of(2, horizon=[3, 0]), P, start)
    early, late = (walk(run, t) for t in (3, 8))
    assert torch.equal(early["log_law"][0], late["log_law"][0])
    assert torch.equal(early["total"][0], late["total"][0])
    assert not torch.equal(early["log_law"][1], late["log_law"][1])


class Flat(type(objectives.get("spin"))):
    """A pairwise loss that does not care who won."""

    name = "flat"

    def pair_loss(self, d):
        return d**2


BAD = {
    "strength": ({"strength": 1.0}, ["strength=1.0"]),
    "game": ({"games": ("rps", "chess")}, ["'chess'"]),
    "odd pairs": ({"pair_samples": (4, 7), "seeds": 2}, ["pair_samples", "seeds=2"]),
    "objectives": ({"objectives": ("sppo", "nobody", "sft")}, ["nobody", "leave it out"]),
    "no reward": ({"objectives": ("spin_hinge",), "unanchored": ("tspin",)}, ["hinge", "tspin"]),
    "several": ({"tau": 0.0, "samples": (1,), "ratios": (-1.0,)}, ["tau=", "samples=", "ratios="]),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_settings_are_refused_with_all_problems(name):
    given_, named = BAD[name]
    with pytest.raises(InvalidInput) as raised:
        played.Settings(**given_)
    assert all(part in str(raised.value) for part in named), str(raised.value)


def test_bad_batches_are_refused_with_all_problems():
    P, start = instance(2, 3, 4)
    with pytest.raises(InvalidInput) as raised:
        PreferenceRounds("sppo", rows_of(3, samples=[1, 2.5, 3], tau=-1.0), P, start[:2])
    assert all(name in str(raised.value) for name in ("samples", "tau", "start", "ref"))
    with pytest.raises(InvalidInput, match="needed is \\(n, n\\) or \\(rows, n, n\\)"):
        PreferenceRounds("sppo", rows_of(2), P, start[:2])
    with pytest.raises(InvalidInput, match=r"draws='dice'.*tau > 0|tau > 0.*draws='dice'"):
        PreferenceRounds("nash_md", rows_of(3), P, start, draws="dice")
    with pytest.raises(InvalidInput, match="beta \\+ tau > 0"):
        PreferenceRounds("sppo", rows_of(3, beta=0.0), P, start)
    with pytest.raises(Unavailable, match="dpo has no payoff scale"):
        PreferenceRounds("dpo", rows_of(3, samples=4), P, start)
    with pytest.raises(Unavailable, match="no payoff scale"):
        PreferenceRounds("sft", rows_of(3, samples=4), P, start)
    with pytest.raises(Unavailable, match="rule for rounds"):
        PreferenceSGD("nash_md", rows_of(3, tau=0.1), P, start)
    for spec, reason in (("gail", "no risk"), ("tspin", "log-ratios to pi_t alone")):
        with pytest.raises(Unavailable, match=reason):
            PreferenceSGD(spec, rows_of(3), P, start)
    with pytest.raises(InvalidInput, match="flat: its loss has no slope"):
        winner_scale(Flat(), torch.ones(3))
    with pytest.raises(InvalidInput, match="even") as raised:
        PreferenceSGD("dpo", rows_of(3, samples=[0, 3, 4], self_comparison=1), P, start)
    assert "do not go together" in str(raised.value)
    assert "goes with sppo" in str(raised.value)
    with pytest.raises(InvalidInput, match="2 own responses"):
        PlugIn(rows_of(3, samples=1), P, start)
    with pytest.raises(InvalidInput, match="no column 'seed'"):
        PlugIn(pd.DataFrame({"samples": [2]}), P[0], start[0])
    with pytest.raises(InvalidInput, match="there are rps"):
        games("chess", 3, [], 0.5)


def test_the_experiment_runs_whole_and_sft_beside_it():
    small = played.Settings(
        objectives=("sppo", "dpo"), games=("rps",), unanchored=("sppo", "dpo"), seeds=3,
        horizons=(4, 8), ratios=(2.0,), rate_rounds=2, rate_steps=3, samples=(2, 4), groups=5,
        floor_rounds=16, pair_samples=(2, 8), group_limit=4, steps=6,
    )  # fmt: skip
    table = launch.run("preferences", small, progress=False)
    parts = {"gap", "rate", "floor", "schedule", "bias", "round", "loss"}
    assert set(table.part.dropna()) == parts
    assert table.left_out.dropna().tolist() == ["gap, from comparisons"], "DPO pays no scale"
    loss = table[table.part == "loss"]
    assert set(loss.algorithm) == {"sppo", "dpo", "sft"}
    assert loss[loss.algorithm == "sppo"].samples.max() == 2
    assert np.isfinite(loss.tv).all()
    again = launch.run("preferences", small, progress=False)
    pd.testing.assert_frame_equal(again, table, check_exact=True)
    held_out = launch.run("preferences", dataclasses.replace(small, first_seed=9), progress=False)
    assert not np.array_equal(held_out.gap, table.gap, equal_nan=True)
