"""The line of a round says better or worse, by how much, and in how many standard errors."""

import dataclasses

import numpy as np
import pytest

from lab import progress
from llm_scale.launch.run_folder import run
from llm_scale.measure.line import ALONE, PARTS, line, worse
from llm_scale.measure.telemetry import Measured, divergences

BETTER = {
    "round": 0, "kl_before": 1.314, "kl": 0.459, "nll_before": 4.25, "nll": 3.37,
    "nll_change": -0.88, "nll_change_se": 0.05,
}  # fmt: skip


def test_a_better_round_shows_before_after_and_the_error_of_the_change():
    assert line(BETTER) == (
        "round 0  NLL 4.25 -> 3.37 (change -0.88, se 0.05)  KL(p|pi) 1.314 -> 0.459"
    )


def test_a_round_that_ruins_the_model_says_so():
    row = {"round": 0, "nll_before": 0.87, "nll": 7.28, "nll_change": 6.41, "nll_change_se": 0.4}
    assert line(row) == (
        "round 0  NLL 0.87 -> 7.28 (change +6.41, se 0.40)  WORSE by 6.41 nats (16 se)"
    )


def test_a_prediction_without_its_measurement_is_no_part_of_another_number():
    """All comparisons drawn: no slope is known, and (0.50) would read as the error of 0.500."""
    row = {"round": 1, "win_rate_base": 0.5, "preference_slope_predicted": 0.5}
    assert line(row) == "round 1  against pi_0 0.500  predicted slope on 2P-1 0.50"
    known = line(row | {"preference_slope": 0.43})
    assert known == "round 1  against pi_0 0.500  slope on 2P-1 0.43 (0.50)"


@pytest.mark.parametrize("missing", [np.nan, np.inf])
def test_what_is_more_of_another_number_says_what_it_is_without_it(missing):
    short = {key for key, text in PARTS if text[0] in "-(b" or text == "predicted {:.2f}"}
    assert short == set(ALONE)
    for key, (first, alone) in ALONE.items():
        said = line({"round": 1, first: missing, key: 0.5, "reverse_kl": 0.25})
        assert alone.format(0.5) in said.split("  ")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"nll_change": 0.19, "nll_change_se": 0.1}, []),  # within two standard errors
        ({"nll_change": 0.21, "nll_change_se": 0.1}, ["WORSE by 0.21 nats (2.1 se)"]),
        ({"nll_change": 9.0, "nll_change_se": 0.0}, []),  # one prompt: no error is known
        ({"nll_change": float("inf"), "nll_change_se": float("nan")}, ["WORSE: not finite"]),
        (
            {"match_greedy_change": -0.25, "match_greedy_change_se": 0.05},
            ["WORSE by 0.250 in greedy matches (5 se)"],
        ),
        ({"match_greedy_change": 0.25, "match_greedy_change_se": 0.05}, []),
        (  # own responses are compared: the expert's likelihood is not what is trained
            {"nll_change": 9.0, "nll_change_se": 0.1, "win_rate": 0.4, "win_rate_se": 0.02},
            ["WORSE than 1/2 by 0.100 (5 se)"],
        ),
        ({"nll_change": 9.0, "nll_change_se": 0.1, "win_rate": 0.6, "win_rate_se": 0.02}, []),
        ({}, []),
    ],
)
def test_worse_is_said_beyond_two_standard_errors_of_the_change(row, said):
    assert worse(row) == said


def test_the_error_of_a_change_is_that_of_paired_differences():
    """Prompts differ by 10 nats, their changes (1, 2, 3) by little: 2, with error 1/sqrt 3."""
    before, change = np.array([-1.0, -11.0, -21.0]), np.array([1.0, 2.0, 3.0])
    unknown = np.full(3, np.nan)
    side = np.array(["expert"] * 3)
    measured = Measured(np.arange(3), side, before, before - change, unknown)
    row = divergences(measured, None)
    assert (row["nll_change"], row["nll_change_se"]) == (2.0, pytest.approx(3**-0.5))
    assert row["nll"] - row["nll_before"] == 2.0
    assert row["nll_se"] == pytest.approx(100**0.5 / 3**0.5, rel=0.2)


def test_a_log_gets_steps_loss_and_pace_and_a_damaged_round_says_so(
    tmp_path, monkeypatch, capfd, settings
):
    """A learning rate of 1 wrecks the model, and the line of the round says WORSE."""
    monkeypatch.setattr(progress, "EVERY_SECONDS", 1e-9)
    wild = dataclasses.replace(settings, rounds=1, lr=1.0, sft_steps=0, held_out=32)
    lines = []
    run(wild, tmp_path / "run", lines.append)
    (said,) = [text for text in lines if text.startswith("round 0")]
    assert "WORSE by" in said
    steps = [text for text in capfd.readouterr().err.splitlines() if text.startswith("round 0:")]
    assert steps[0].startswith("round 0: 1 of 6 steps in 00:0")
    assert "left, loss 0.6931, " in steps[0]
    assert steps[-1].endswith(" tokens/s")
