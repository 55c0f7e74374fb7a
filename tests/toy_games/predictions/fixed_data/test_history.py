"""T6, history and errors: the floors of sampled rounds whose own samples are partly old."""

import numpy as np
import pytest

from tests.toy_games.predictions.fixed_data.sampled import EXPERT, play
from theory.errors import InvalidInput
from theory.rounds.history_errors import history_noise
from toy_games.predictions.fixed_data import fixed_data_floor, own_noise

FREE = len(EXPERT) - 1
CELLS = [(0.5, 0.5), (1.5, 0.25)]
"""Effective steps and shares of the last opponent."""


@pytest.mark.claim("T6.history_errors", regime="dynamics")
@pytest.mark.parametrize(("step", "share"), CELLS)
@pytest.mark.parametrize("fixed", [True, False], ids=["one data set", "fresh"])
def test_the_floor_of_sampled_rounds(claim, step, share, fixed):
    """Mean KL of independent runs, in its own standard errors (3 %); to first order in 1/n."""
    n, runs = 2000, 300
    found = play("spif", step, EXPERT, np.log(EXPERT), [30], runs, n, history=share,
                 fixed_data=fixed)[0]  # fmt: skip
    own = float(own_noise(step, 1, share))
    predicted = FREE / (2 * n) * ((1.0 if fixed else own) + own)
    error = found.std(ddof=1) / np.sqrt(runs)
    claim.close((found.mean() - predicted) / error, 0.0, 4.5, because="sampling",
                what="mean KL less the floor, in standard errors")  # fmt: skip
    claim.exhibits(predicted / error, 10.0, what="the floor in standard errors")


@pytest.mark.claim("T6.history_errors", regime="dynamics", drops="near_expert")
def test_beyond_step_two_noise_drives_rounds_out_of_where_a_history_holds_them(claim):
    """Locally stable at 2.5 with a quarter of old responses, but 4.9 times it at samples so few."""
    n = 1000
    kl = play("spif", 2.5, EXPERT, np.log(EXPERT), [60], 100, n, history=0.25, fixed_data=False)
    floor = FREE / n * float(own_noise(2.5, 1, 0.25))
    claim.exhibits(kl.mean() / floor, 2.0, what="mean KL over the floor of first order")


def test_own_noise_is_that_of_the_recursion():
    for step, share in CELLS:
        assert np.isclose(own_noise(step, 3, share), step**2 * history_noise(step, share) / 3)
    many = own_noise([0.5, 1.5], 1, [0.5, 0.25])
    assert np.allclose(many, [own_noise(*cell[:1], 1, cell[1]) for cell in CELLS[:2]])
    assert fixed_data_floor(1.5, 5, 100, 1, 0.25) == pytest.approx(0.02 * 3.64)


@pytest.mark.parametrize(
    ("step", "share", "said"),
    [(2.0, 0.0, r"in \[0, 2\)"), (4.0, 0.25, "this history"), (1.0, 1.0, "this history"),
     (1.0, 1.5, "history=1.5"), (-1.0, 0.0, "step=-1.0")],
)  # fmt: skip
def test_steps_beyond_the_threshold_have_no_floor(step, share, said):
    with pytest.raises(InvalidInput, match=said):
        own_noise(step, 1, share)
