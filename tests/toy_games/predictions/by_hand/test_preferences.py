"""Rounds on preferences by hand: estimates, a cycle, noise, one loss."""

from math import pi, sqrt

import numpy as np
import pytest

from tests.toy_games.predictions.by_hand.examples import SPIF, SPIN, close
from theory import objectives, preferences
from theory.errors import Unavailable
from toy_games.predictions import preference_rounds

CYCLE = 0.5 + 0.3 * np.array([[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]])
UNEVEN, LAW = np.array([[0.5, 0.8], [0.2, 0.5]]), np.array([0.25, 0.75])


def test_plug_in_estimates_of_a_win_rate():
    assert preference_rounds.plug_in_bias(4, True) == 0.25
    assert preference_rounds.plug_in_bias(4, False) == 0.0
    assert preference_rounds.plug_in_variance(4, True) == 3 / 16
    assert preference_rounds.plug_in_variance(4, False) == 1 / 3
    assert preference_rounds.effective_scale(2.0, 4, True) == 1.5
    assert preference_rounds.effective_scale(2.0, 4, False) == 2.0


def test_rock_paper_scissors_near_its_equilibrium():
    """Perturbations turn by the payoff 2 g a/sqrt 3 and shrink by beta/(beta + tau)."""
    third, beta, tau, scale = np.full(3, 1 / 3), 2.0, 0.5, 0.7
    turn = 2 * scale * 0.3 / sqrt(3.0)
    values = np.linalg.eigvals(preference_rounds.local_map(CYCLE, third, beta, tau, scale))
    close(np.sort_complex(values), np.array([0, beta - 1j * turn, beta + 1j * turn]) / (beta + tau))
    size = (beta**2 + turn**2) / (beta + tau) ** 2
    floor = 0.5 * 2 / 3 * scale**2 / 40 / (beta + tau) ** 2 / (1 - size)
    close(preference_rounds.noise_floor(CYCLE, third, beta, tau, scale, 40), floor)
    assert preference_rounds.noise_floor(CYCLE, third, beta, 0.0, scale, 40) == np.inf


def test_the_noise_of_a_round_of_two_outcomes():
    """The outcome's relative error is new_2 (e_1 - e_2)."""
    beta, scale, samples = 2.0, 0.5, 50
    win = np.array([0.5 * 0.25 + 0.8 * 0.75, 0.2 * 0.25 + 0.5 * 0.75])
    new = LAW * np.exp(scale * (2 * win - 1) / beta)
    new = new / new.sum()
    spread = 4 * (scale / beta) ** 2 * (win * (1 - win)).sum() / samples
    found = preference_rounds.round_noise(UNEVEN, LAW, beta, scale, samples)
    close(found, new[0] * new[1] * sqrt(2 / pi * spread))


def test_one_loss_for_a_round_of_preferences():
    dpo = preference_rounds.one_loss_round(UNEVEN, LAW, SPIN, 2.0)
    close(dpo, preferences.self_play(UNEVEN, LAW, SPIN, 2.0, 1).policy)
    win = np.array([0.725, 0.425])  # SPPO's loss: its targets need not leave a law normalised
    found = preference_rounds.one_loss_round(UNEVEN, LAW, objectives.get("sppo"), 2.0)
    pull = 4 * LAW * (2.0 * np.log(found / LAW) - (win - 0.5))  # stationary: proportional to pi
    assert found.sum() == pytest.approx(1.0)
    close(pull[0] / found[0], pull[1] / found[1], 1e-6)
    with pytest.raises(Unavailable, match="1/2"):
        preference_rounds.one_loss_round(UNEVEN, LAW, SPIF, 2.0)
