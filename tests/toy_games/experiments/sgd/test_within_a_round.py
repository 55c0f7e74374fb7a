"""SGD within a round: the rate at which steps reach the exact round, and the minibatches' floor."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from lab.evidence import ClaimRecorder
from lab.stats import fit_line
from tests.toy_games.experiments.sgd.cells import HAVE_ROUND, errors, run
from theory import objectives
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine import simulator
from toy_games.games.sgd_case import Case, least_hinge
from toy_games.predictions.linearised import fisher


def check_rate(claim, table):
    claim.close(table.mismatch.iloc[0], 0.0, 1e-8, what="distance, minimiser to the exact round")
    late = table[(table.step >= table.anchor) & (table.distance > 1e-10)]
    found = fit_line(late.step, np.log(late.distance)).slope
    predicted = fit_line(late.step, np.log(late.predicted)).slope
    what = "fitted slope of log distance a step"
    claim.close(found, predicted, 0.0, rtol=0.03, what=what, because="chosen")


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("name", HAVE_ROUND)
def test_full_batch_steps_reach_the_exact_round_at_the_hessians_rate(claim, name):
    check_rate(claim, run("round", name, steps=150, rate=0.5))


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("family", ["features", "network"])
@pytest.mark.parametrize("name", ["ipo", "nwj"])
def test_so_they_do_in_restricted_classes(claim, family, name):
    check_rate(claim, run("round", name, family, steps=400))


@pytest.mark.parametrize(
    ("family", "steps"), [("tokens", {"steps": 150, "rate": 0.5}), ("features", {"steps": 400}),
                          ("network", {"steps": 400})],
)  # fmt: skip
def test_sft_reaches_its_minimum_at_the_hessians_rate(family, steps):
    check_rate(ClaimRecorder(), run("round", "sft", family, **steps))


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics", drops="smooth_loss")
def test_full_batch_steps_on_the_hinge_never_settle(claim):
    """It has no exact round (its rewards solve a linear program): steps hop over its kinks."""
    case = Case("spin_hinge", seed=11)
    theta, rates = case.start(), np.array([0.02, 0.04, 0.08])
    opponent = case.log_law(theta).exp().numpy()
    rows = pd.DataFrame({"seed": 0, "beta": 2.0, "rate": rates, "steps_per_round": 10**6})
    measures = {"loss": lambda run, state, step: run.loss(state["theta"], state, step)}
    play = SelfPlay(
        case.policy, case.objective, rows, case.expert, theta, Data(batch=None), measures
    )
    late = simulator.run(play, range(800, 1101), progress=False)
    excess = late.groupby("rate").loss.mean() - least_hinge(case.expert.numpy(), opponent)
    claim.exhibits(excess, 1e-4, what="excess risk after 800 full-batch steps")
    order = fit_line(np.log(rates), np.log(excess)).slope
    claim.close(order, 1.0, 0.05, what="order of that risk in the rate", because="chosen")


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics", drops="attained_minimum")
def test_gail_and_ipm_have_no_round_either(claim):
    """GAIL: E_q e^{r/beta} = 1 forbids r >= 0 but at pi_t, where the loss is infinite as well."""
    case = Case("gail", seed=11)
    q, p = case.log_law(case.start()), case.expert
    others = torch.stack([case.log_law(case.start(s)) for s in (0.1, 0.4, 1.0, 2.0)])
    with torch.no_grad():
        reward = torch.cat([others - q, torch.zeros_like(q)[None]])
        risk = objectives.get("gail").reward_risk(reward, reward, p, q.exp())
    claim.exact(not torch.isfinite(risk).any(), "no law has a finite GAIL loss of implicit rewards")
    theta, ranges = q.clone(), []
    for _ in range(2):  # IPM's loss is linear: logits grow by step (p - q), for ever
        for _ in range(100):
            point = theta.clone().requires_grad_()
            reward = point.log_softmax(-1) - q
            loss = objectives.get("ipm").reward_risk(reward, reward, p, q.exp())
            theta = theta - torch.autograd.grad(loss, point)[0]
        ranges.append(float((theta - q).max() - (theta - q).min()))
    claim.close(ranges[1] / ranges[0], 2.0, 1e-9, what="logit range at twice the steps")
    claim.exhibits(ranges[1], 10.0, what="logit range of IPM's unbounded loss")


def test_the_floor_solves_the_lyapunov_equation():
    case = Case("spif", seed=11)
    own = case.round(case.log_law(case.start()), 0.7)
    local = own.near(own.minimise(case.start()))
    turn = torch.eye(len(local.values)) - 0.4 * torch.diag(local.values)
    sigma = solve_discrete_lyapunov(turn.numpy(), 0.16 / 8 * local.noise.numpy())
    expected = np.trace(local.moves.numpy() @ sigma @ local.moves.numpy().T)
    np.testing.assert_allclose(local.floor(0.4, 8), expected, rtol=1e-10)
    assert local.rate(0.4) == pytest.approx(np.abs(np.linalg.eigvals(turn.numpy())).max())


def test_sfts_noise_at_the_expert_is_fishers_matrix_and_self_plays_is_twice_that():
    for name, times in (("sft", 1.0), ("spin", 2.0), ("spif", 2.0), ("nwj", 1.0 + np.exp(-2.0))):
        case = Case(name, seed=11)
        theta = case.theta_of(case.expert.log())
        own = case.round(case.expert.log(), 1.0)
        values, vectors = fisher(case.policy, theta)
        matrix = vectors @ torch.diag(values) @ vectors.T
        scale = 1.0 if name == "sft" else case.beta(1.0) * (0.5 if name == "spin" else 1.0)
        torch.testing.assert_close(own.noise(theta), times * scale**2 * matrix)


@pytest.mark.claim("T3.descent_reaches_it", regime="dynamics")
@pytest.mark.parametrize("name", ["spin", "ipo", "nwj", "tspin", "inpo", "centred_spif"])
def test_minibatches_stop_at_the_predicted_floor(claim, name):
    check_floor(claim, name)


def test_minibatches_of_sft_stop_at_the_predicted_floor():
    check_floor(ClaimRecorder(), "sft")


def check_floor(claim, name):
    given = {"floor_batches": (16, 64), "floor_rates": (0.1, 0.4)}
    table = run("floor", name, seeds=24, steps=150, **given)
    table["ratio"] = table.from_limit / table.predicted
    mean, error = errors(table, ["batch", "rate"], "ratio")
    # of second order in the floor: the linearised noise and curvature change over the cloud
    slack = 4.0 * error + 4.0 * table.groupby(["batch", "rate"], sort=False).predicted.mean()
    what = "relative error of E D^2: 4 standard errors and the next order"
    claim.below((mean - 1.0).abs(), slack, what=what, because="sampling")
    x, y = np.log(table.rate / table.batch), np.log(table.from_limit)
    fit = fit_line(x, y)
    expected = fit_line(x, np.log(table.predicted)).slope
    what = "Lyapunov's slope in log(step/batch)"
    claim.close(expected, 1.0, 0.12, what=what, because="chosen")
    room = 4.0 * fit.slope_interval / 1.98
    claim.close(fit.slope, expected, room, what="slope of the log floor", because="sampling")
