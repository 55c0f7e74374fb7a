"""T6: a learned reward as a round at another beta, and the spread that fresh errors leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.theory.rounds.inexact.played import SPIF, SPIN, centred, played
from tests.theory.rounds.two_step.links import FIXED, SMOOTH
from tests.theory.strategies import Instance, games, label
from theory.objectives import Objective
from theory.result import FloatArray
from theory.rounds.inexact import error_spread


@pytest.mark.parametrize("obj", FIXED, ids=label)
@pytest.mark.claim("T6.learned_reward", regime="tabular")
@given(
    game=games(),
    beta=st.floats(0.3, 4.0),
    slope=st.floats(0.2, 2.0),
    tau=st.sampled_from([0.0, 0.5]),
)
def test_a_learned_reward_is_an_inexact_round_at_another_beta(
    claim, obj: Objective, game: Instance, beta: float, slope: float, tau: float
) -> None:
    error = game.rng.standard_normal((1, *game.expert.shape))
    learned, _ = played(obj, game, error, beta, tau, slope)
    scaled, _ = played(obj, game, error / slope, beta / slope, tau / slope)
    without, _ = played(obj, game, 0 * error, beta, tau, slope)
    assume(np.isfinite(learned).all())
    size = 1e-12 * (1 + np.abs(learned).max())
    claim.close(learned, scaled, size, what="log pi at beta/a, tau/a, e/a")
    moved = centred(game.expert, learned[1] - without[1])
    claim.close(moved, centred(game.expert, error[0]) / (beta + tau), size, what="e/(beta + tau)")


@pytest.mark.parametrize("obj", SMOOTH, ids=label)
@pytest.mark.claim("T6.learned_reward", "T6.error_spread", regime="tabular")
@given(game=games(), step=st.floats(0.1, 1.9), slope=st.floats(0.2, 2.0))
def test_near_the_expert_log_ratios_filter_the_errors(
    claim, obj: Objective, game: Instance, step: float, slope: float
) -> None:
    """x_T = g^T x_0 + sum g^{T-1-t} e_t/beta with g = 1 - a R'(0)/beta, each less its mean."""
    p, rounds, small = game.expert, 6, 1e-6
    beta = slope * float(obj.slope(0.0)) / step
    start = p * np.exp(small * game.rng.standard_normal(p.shape))
    start /= start.sum(-1, keepdims=True)
    errors = small * beta * game.rng.standard_normal((rounds, *p.shape))
    path, _ = played(obj, game._replace(start=start), errors, beta, slope=slope)
    x = centred(p, path - np.log(p))
    weights = (1 - step) ** np.arange(rounds - 1, -1, -1)
    predicted = (1 - step) ** rounds * x[0]
    predicted = predicted + np.tensordot(weights, centred(p, errors), 1) / beta
    claim.close(x[-1], predicted, 2e-9, what="x_T as a filter of the errors", because="expansion")


@pytest.mark.claim("T6.error_spread", regime="tabular")
@given(game=games(), step=st.floats(0.1, 1.9), size=st.floats(0.1, 5.0))
def test_spin_filters_errors_of_any_size(claim, game: Instance, step: float, size: float) -> None:
    errors = size * game.rng.standard_normal((8, *game.expert.shape))
    path, _ = played(SPIN, game, errors, 1 / step)
    x = centred(game.expert, path - np.log(game.expert))
    weights = (1 - step) ** np.arange(7, -1, -1)
    predicted = (1 - step) ** 8 * x[0]
    predicted = predicted + step * np.tensordot(weights, centred(game.expert, errors), 1)
    claim.close(x[-1], predicted, 1e-10 * (1 + size + np.abs(x[0]).max()), what="x_8")


def many_paths(
    obj: Objective, step: float, correlation: float, sd: float, slope: float = 0.7
) -> tuple[FloatArray, FloatArray]:
    """Late log-ratios (games, 3) of many independent paths, and the standard deviation foreseen."""
    rng = np.random.default_rng(1)
    games_, beta = 20_000, slope * float(obj.slope(0.0)) / step
    p = np.broadcast_to([0.5, 0.3, 0.2], (games_, 3))
    fresh = sd * rng.standard_normal((60, games_, 3))
    errors = [fresh[0]]
    for new in fresh[1:]:
        errors.append(correlation * errors[-1] + np.sqrt(1 - correlation**2) * new)
    path, _ = played(obj, Instance(p, p, p, rng), np.stack(errors), beta, slope=slope)
    of_mean = sd * np.sqrt(1 - 2 * p[0] + (p[0] ** 2).sum())  # errors less their mean under p
    x = centred(p, path[-1] - np.log(p))
    return x, error_spread(of_mean, beta, step, correlation)


@pytest.mark.claim("T6.error_spread", regime="tabular", of="runs")
@pytest.mark.parametrize(("obj", "sd"), [(SPIN, 1.0), (SPIF, 0.01)], ids=["spin", "spif"])
@pytest.mark.parametrize("step", [0.3, 1.0, 1.6])
@pytest.mark.parametrize("correlation", [0.0, 0.6, -0.5])
def test_stationary_spread_of_log_ratios(claim, obj, sd: float, step: float, correlation) -> None:
    x, spread = many_paths(obj, step, correlation, sd)
    error = 4.5 / np.sqrt(2 * len(x))  # standard errors of a standard deviation
    claim.close(
        x.std(0) / spread, np.ones(3), error, what="sd of log-ratios over sd", because="sampling"
    )


@pytest.mark.claim("T6.error_spread", regime="tabular", drops="independent_errors", of="runs")
def test_errors_that_stay_do_not_average_out(claim) -> None:
    """sd/(a R'(0)) whatever the step, where fresh errors leave less and less."""
    for step in (0.2, 0.5):
        x, spread = many_paths(SPIN, step, 1.0, 1.0)
        claim.close(
            x.std(0) / spread, np.ones(3), 4.5 / np.sqrt(2 * len(x)), because="sampling",
            what="sd over sd/(a R'(0))",
        )  # fmt: skip
        fresh = spread * np.sqrt(step / (2 - step))
        claim.exhibits(x.std(0) / fresh, 1.7, what="sd over that of fresh errors")


@pytest.mark.claim("T6.error_spread", regime="tabular", drops="above_threshold", of="runs")
def test_beyond_the_threshold_there_is_no_stationary_spread(claim) -> None:
    p = np.broadcast_to([0.5, 0.3, 0.2], (500, 3))
    rng = np.random.default_rng(0)
    errors = 0.1 * rng.standard_normal((60, 500, 3))
    path, _ = played(SPIN, Instance(p, p, p, rng), errors, 1 / 2.2)
    sd = centred(p, path - np.log(p)).std(1)
    claim.exhibits(sd[60] / sd[30], 100.0, what="growth of sd over 30 rounds at effective step 2.2")
