"""SGD over rounds: local factors, rounds of k steps from SFT to the exact round, whole paths."""

import numpy as np
import pandas as pd
import pytest
import torch

from lab.evidence import ClaimRecorder
from lab.stats import fit_line
from tests.toy_games.experiments.sgd.cells import HAVE_ROUND, errors, run
from theory import objectives
from toy_games.dynamics.self_play import Data, SelfPlay, sft_scale
from toy_games.experiments.sgd import PLAYED
from toy_games.games.sgd_case import Case

LIKE_SFT = [n for n in PLAYED if Case(n).starts_as_sft and Case(n).has_round]


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("name", HAVE_ROUND)
def test_rounds_of_many_steps_contract_as_exact_rounds_do(claim, name):
    steps = (0.4, 1.2)
    table = run("contraction", name, effective=steps, seeds=6, steps=90, reach=0.2)
    mean, error = errors(table, "effective", "measured")
    exact = table.groupby("effective", sort=False).exact.first()
    # a round of 90 steps leaves (1 - rate lambda/(1 - rho))^90 of the slowest direction
    off, room = (mean - exact).abs(), 4.0 * error + 0.01
    claim.below(off, room, what="factor of a round, 4 standard errors", because="sampling")


def local_factor_of(name):
    clause = "T6.local_rate" if objectives.get(name).up_to_constant else "T4.local_factor"
    return pytest.param(name, marks=pytest.mark.claim(clause, regime="tabular"))


OTHER_ROUNDS = ("tspin", "inpo", "alpha_spin")  # with a history, an anchor, a mixed opponent


@pytest.mark.parametrize("name", [local_factor_of(n) for n in HAVE_ROUND if n not in OTHER_ROUNDS])
def test_the_local_factor_is_that_of_exact_rounds_from_a_small_start(claim, name):
    check_local_factor(claim, name)


@pytest.mark.parametrize("name", ["inpo", "alpha_spin"])
def test_local_factors_with_an_anchor_or_a_mixed_opponent(name):
    check_local_factor(ClaimRecorder(), name)


def check_local_factor(claim, name):
    case = Case(name, seed=11)
    for step in (0.4, 1.4):
        found = case.factor(step, 1e-3, 2)
        what = "factor of two exact rounds, to second order in a start of 1e-3"
        claim.close(found, case.local_factor(step), 1e-5, what=what, because="expansion")


@pytest.mark.claim("T7.path", regime="tabular")
def test_spins_factor_is_one_minus_one_over_beta(claim):
    found = Case("spin", seed=11)
    for step in (0.3, 1.4):
        claim.close(
            found.local_factor(step), 1.0 - 1.0 / found.beta(step), 1e-12, what="1 - 1/beta"
        )
        what = "factor of exact rounds, to first order in a start of 1e-3"
        claim.close(found.factor(step, 1e-3, 2), 1.0 - step, 1e-4, what=what, because="expansion")


@pytest.mark.claim("T6.k_steps", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "nwj", "renyi", "sft"])
def test_rounds_of_k_steps_go_from_sft_to_the_exact_round(claim, name):
    given = {"effective": (0.4, 1.4), "counts": (1, 3, 10, 40), "seeds": 6}
    table = run("steps", name, reach=0.1, batch=256, **given)
    by = ["effective", "steps_per_round"]
    table["error"] = table.measured - table.predicted
    mean, error = errors(table, by, "error")
    what = "factor of a round, 4 standard errors"
    claim.below(mean.abs(), 4.0 * error + 0.01, what=what, because="sampling")


def trajectory(name, count, total, rate=0.3, step=0.5, batch=None):
    """Log-laws (total + 1, N) of one run with exact expectations, rounds of ``count`` steps."""
    case = Case(name, seed=11)
    row = {"seed": [0], "beta": case.beta(step), "tau": case.tau(step)}
    rows = pd.DataFrame({**row, "rate": rate, "steps_per_round": count})
    start = case.start()
    play = SelfPlay(
        case.policy, case.objective, rows, case.expert, start, Data(batch), {}, case.ref
    )
    state, laws = play.start(), []
    for at in range(total):
        laws.append(play.log_law(state)[0, 0])
        state = play.advance(state, at)
    return torch.stack([*laws, play.log_law(state)[0, 0]])


@pytest.mark.claim("T15.one_step_is_sft", regime="dynamics")
@pytest.mark.parametrize("name", LIKE_SFT)
def test_rounds_of_one_step_are_sft(claim, name):
    claim.close(
        trajectory(name, 1, 40), trajectory("sft", 1, 40), 1e-10, what="log-laws of 40 steps"
    )


@pytest.mark.claim("T15.one_step_is_sft", regime="dynamics", drops="one_step_a_round")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo"])
def test_longer_rounds_leave_sft_at_second_order(claim, name):
    rates = np.array([0.01, 0.02, 0.04])
    apart = [
        float((trajectory(name, 4, 4, r) - trajectory("sft", 4, 4, r))[-1].norm()) for r in rates
    ]
    order = fit_line(np.log(rates), np.log(apart)).slope
    claim.close(order, 2.0, 0.1, what="order in the rate", because="chosen")
    far = (trajectory(name, 40, 40) - trajectory("sft", 40, 40))[-1].norm()
    claim.exhibits(far, 0.1, what="log-law of a round of 40 steps from SFT's")


@pytest.mark.claim("T15.one_step_is_sft", regime="dynamics", drops="own_reference")
@pytest.mark.parametrize("name", ["inpo", "tspin", "alpha_spin"])
def test_other_rewards_do_not_start_as_sft(claim, name):
    apart = (trajectory(name, 1, 40) - trajectory("sft", 1, 40))[-1].norm()
    claim.exhibits(apart, 0.02, what="log-law of 40 rounds of one step from SFT's")


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif"])
@pytest.mark.parametrize("family", ["tokens", "features"])
def test_long_rounds_follow_the_exact_path_to_within_their_noise(claim, family, name):
    """Noise of a round reaches the next through the opponent, shrunk by the factor of a round."""
    given = {"rate": 0.2, "batch": 256, "rounds": 2, "seeds": 16, "counts": (1, 100)}
    table = run("path", name, family, **given)
    mean, error = errors(table.assign(square=table.distance**2), "steps_per_round", "square")
    case = Case(name, family, seed=11)
    theta = case.start()
    own = case.round(case.path(theta, 0.5, 1)[1], 0.5)
    local = own.near(own.minimise(case.round(case.log_law(theta), 0.5).minimise(theta)))
    weight = torch.tensor([case.beta(0.5)], dtype=torch.float64)
    floor = local.floor(0.2 / float(sft_scale(case.objective, weight)), 256) * (1.0 + 0.5**2)
    claim.close(mean[100], floor, 4.0 * error[100], what="E D^2 to the exact path after 2 rounds",
                because="sampling")  # fmt: skip
    claim.exhibits(mean[1] / mean[100], 4.0, what="E D^2 of rounds of 1 step / of 100 steps")


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "ipo"])
def test_a_network_follows_the_exact_path_of_its_class(claim, name):
    given = {"rate": 0.2, "batch": 256, "rounds": 2, "seeds": 4, "counts": (1, 120)}
    mean, _ = errors(run("path", name, "network", **given), "steps_per_round", "distance")
    what = "distance after two rounds of 120 steps over that of 1 step"
    claim.below(mean[120] / mean[1], 0.35, what=what, because="chosen")
