"""Numbers of a round's row on instances made by hand, and monitors that must see what is wrong."""

import dataclasses

import numpy as np
import pytest

from llm_scale import checkpoint, monitors, telemetry
from llm_scale.rounds import begin
from llm_scale.telemetry import Fresh, Measured
from tests.llm_scale import tiny_game
from theory.settings import objective_of

FEW = 200
"""Responses a side of which two lie below the 1 % quantile."""


def laws_by_hand():
    """200 expert and 200 own responses; usual is -1 to -0.5 nats, and what is rare is -9.

    The 1 % quantile of 200 numbers lies between the second and the third smallest.
    """
    usual = np.linspace(-1.0, -0.5, FEW)
    own_before, own_expert, expert_before, expert_expert = (usual.copy() for _ in range(4))
    own_before[[3, 7]] = -9.0
    own_expert[[3, 7, 11]] = -9.0  # two own responses are rare of both laws
    expert_expert[[20, 190]] = -9.0
    expert_before[20:26] = -9.0  # an expert response rare of both does not count
    side = np.repeat(["expert", "own"], FEW)
    before = np.concatenate([expert_before, own_before])
    expert = np.concatenate([expert_expert, own_expert])
    return Measured(np.zeros(2 * FEW, dtype=np.int64), side, before, np.zeros(2 * FEW), expert)


def test_dumped_mass_before_and_after_on_an_instance_by_hand():
    usual, rare = -0.8, -9.0
    before = np.array([rare, rare, rare, usual, usual])
    expert = np.array([rare, rare, usual, rare, usual])
    found = telemetry.dumped(laws_by_hand(), Fresh([], before, before, expert))
    share = 2 / FEW
    assert found == pytest.approx(
        {
            "left_own": 3 / 5,
            "left_own_se": (3 / 5 * 2 / 5 / 4) ** 0.5,
            "dumped": 2 / 5,
            "dumped_se": (2 / 5 * 3 / 5 / 4) ** 0.5,
            "dumped_before": share,
            "dumped_before_se": (share * (1 - share) / (FEW - 1)) ** 0.5,
        },
        rel=1e-12,
    )


def test_dumped_mass_needs_a_known_expert():
    known = laws_by_hand()
    blind = Measured(known.prompt, known.side, known.before, known.after, known.expert * np.nan)
    fresh = Fresh([], np.array([-9.0, -1.0]), np.zeros(2), np.full(2, np.nan))
    assert set(telemetry.dumped(blind, fresh)) == {"left_own", "left_own_se"}


# -- the monitor of stored log-probabilities ------------------------------------------------------


def begun(level="sequence", prompts=12):
    s = tiny_game.settings(prompts=prompts, level=level, own_samples=2)
    who = tiny_game.player(s)
    base = checkpoint.weights(who.language)
    return who, begin(who, tiny_game.task(s).items(0), 0, objective_of("spin"), base, base)


@pytest.mark.parametrize("level", ["sequence", "token"])
@pytest.mark.parametrize("prompts", [1, 12, 80])
def test_a_wrong_stored_log_probability_is_seen(level, prompts):
    who, made = begun(level, prompts)
    assert monitors.of_round(who, made)["stored_gap"] < 2e-6
    for at in (0, -1):  # the first response and the last
        wrong = made.data.current.clone()
        wrong.view(-1)[at] += 0.01
        broken = dataclasses.replace(made, data=dataclasses.replace(made.data, current=wrong))
        assert monitors.of_round(who, broken)["stored_gap"] == pytest.approx(0.01, abs=1e-5)


@pytest.mark.parametrize("level", ["sequence", "token"])
def test_a_score_that_depends_on_its_batch_is_seen(level):
    """The round is small enough to be stored in one forward pass, which a bug of padding moves."""
    s = tiny_game.settings(prompts=12, level=level, own_samples=2)
    who = tiny_game.player(s)
    plain = who.scorer.forward

    def of_batch(ids, mask, where, targets):
        return plain(ids, mask, where, targets) + 1e-3 * (len(ids) > 1)

    who.scorer.forward = of_batch
    base = checkpoint.weights(who.language)
    made = begin(who, tiny_game.task(s).items(0), 0, objective_of("spin"), base, base)
    assert monitors.of_round(who, made)["stored_gap"] >= 0.9e-3
