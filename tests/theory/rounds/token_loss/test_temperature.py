"""T14: own tokens at a temperature: where rounds per token rest then, and where not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.theory.next_token import NextToken
from tests.theory.rounds.token_loss.losses import MATCHED, SPIN
from tests.theory.strategies import label
from theory import objectives

NWJ = objectives.get("nwj")


@pytest.mark.claim("T14.token_destination", regime="tabular", drops="own_from_current")
@pytest.mark.parametrize("obj", MATCHED, ids=label)
def test_own_tokens_at_a_temperature_move_the_destination(claim, obj) -> None:
    model = NextToken(2)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    found = model.gradient(model.risk, best, best, obj, 0.7)
    claim.exhibits(np.abs(found).max(), 5e-3, what="first gradient at the MLE")


@pytest.mark.parametrize("obj", MATCHED, ids=label)
@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.claim("T14.token_temperature", regime="tabular")
def test_at_a_temperature_the_logits_are_the_mles_times_it(claim, obj, temperature: float) -> None:
    """Own tokens at temperature T: sampled at T, the destination is the maximum likelihood."""
    for seed in range(3):
        model = NextToken(seed)
        best = model.least(model.sft, np.zeros(3))
        model.temperature = temperature
        rests = temperature * best
        found = model.gradient(model.risk, rests, rests, obj, 0.7)
        claim.close(found, 0.0, 1e-9, what="first gradient at T times the MLE's logits")


@pytest.mark.claim("T14.token_temperature", regime="tabular")
def test_rounds_at_a_temperature_go_there(claim) -> None:
    model = NextToken(1)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    path = model.rounds(np.zeros(3), SPIN, 1.5, 60)
    claim.close(path[-1], 0.7 * best, 1e-7, what="parameters of the last round")


@pytest.mark.claim("T14.token_temperature", regime="tabular", drops="no_base_measure")
def test_with_a_base_measure_they_are_not(claim) -> None:
    model = NextToken(1, base=1.0)
    best = model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    path = model.rounds(best, SPIN, 1.5, 60)
    moved = np.abs(path[-1] - path[-2]).max()
    claim.below(moved, 1e-8, what="the last round's move", because="chosen")
    claim.exhibits(np.abs(path[-1] - 0.7 * best).max(), 0.01, what="distance to T times the MLE's")


@pytest.mark.claim("T14.token_temperature", regime="tabular", drops="matched_slopes")
def test_where_slopes_do_not_cancel_they_are_not(claim) -> None:
    model = NextToken(1)
    rests = 0.7 * model.least(model.sft, np.zeros(3))
    model.temperature = 0.7
    found = model.gradient(model.risk, rests, rests, NWJ, 0.7)
    claim.exhibits(np.abs(found).max(), 0.01, what="NWJ's first gradient there")
