"""T6, history and errors: the floors of sampled rounds whose own samples are partly old."""

import numpy as np
import pandas as pd
import pytest

from tests.toy_games.predictions.fixed_data.sampled import EXPERT, play, start_at
from theory import laws, objectives
from theory.errors import InvalidInput
from theory.rounds.history import history_threshold
from theory.rounds.history_errors import history_noise
from toy_games.dynamics.sampled_rounds import SampledRounds
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


@pytest.mark.claim("T6.history_errors", "T6.history_shares", regime="dynamics")
@pytest.mark.parametrize(("step", "shares"), [(1.2, [0.2, 0.2]), (0.4, [0.0, 1.0])])
def test_the_floor_of_rounds_against_several_earlier_opponents(claim, step, shares):
    """Stable below the threshold of these shares, with the noise of their own recursion."""
    n, runs = 2000, 300
    assert step < history_threshold(shares)
    found = play("spif", step, EXPERT, np.log(EXPERT), [40], runs, n, history=shares,
                 fixed_data=False)[0]  # fmt: skip
    predicted = FREE / n * step**2 * history_noise(step, shares)
    error = found.std(ddof=1) / np.sqrt(runs)
    claim.close((found.mean() - predicted) / error, 0.0, 4.5, because="sampling",
                what="mean KL less the floor, in standard errors")  # fmt: skip
    claim.exhibits(predicted / error, 10.0, what="the floor in standard errors")


@pytest.mark.claim("T6.history_shares", regime="dynamics")
def test_beyond_the_threshold_of_old_opponents_sampled_rounds_leave(claim):
    """Responses of the opponent two rounds ago alone: .618 is the threshold, and noise finds it."""
    kl = [play("spif", step, EXPERT, np.log(EXPERT), [200], 10, 10**4, history=[0.0, 1.0],
               fixed_data=False)[0] for step in (0.55, 0.7)]  # fmt: skip
    claim.below(kl[0], 1e-2, "KL after 200 rounds below it")
    claim.exhibits(kl[1].min(), 3e-2, what="KL after 200 rounds beyond it")


@pytest.mark.claim("T6.history_average", regime="dynamics")
def test_the_average_of_all_opponents_comes_to_the_expert_from_samples(claim):
    """SPIF at step 2.5, 10,000 samples a round: the average, not the last policy."""
    runs, rounds, spif = 10, 300, objectives.get("spif")
    rows = pd.DataFrame({"seed": np.arange(runs) + 300, "beta": spif.beta_at(2.5)})
    start, near = start_at(EXPERT, 0.3)
    laws_ = [np.repeat(law[None], runs, 0) for law in (EXPERT, start)]
    run = SampledRounds(spif, rows, *laws_, samples=10**4, history="average")
    state, moved = run.start(), np.zeros(runs)
    for step in range(rounds):
        before = state["log_q"]
        state = run.advance(state, step)
        moved += (before.exp() * (before - state["log_q"])).sum(-1).numpy()
    average = state["old"][:, 0].exp().numpy()
    bound = spif.beta_at(2.5) * (near + moved) / rounds
    found = np.array([float(spif.potential(law, EXPERT)) for law in average])
    claim.below(found, bound, "D_Phi of the average", atol=5e-3, because="sampling")
    claim.below(laws.kl(EXPERT, average), 0.1 * near, "KL of the average")


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
