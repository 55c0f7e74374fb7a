"""SGD on the one-step losses against exact rounds: rates, floors, groups, few steps, classes."""

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import settings as profile
from hypothesis import strategies as st
from scipy.linalg import solve_discrete_lyapunov

from lab.stats import fit_line
from theory import objectives
from theory.errors import InvalidInput
from theory.objectives.finite_groups import (
    centred_local_gain,
    finite_group_link,
    renyi_local_gain,
)
from toy_games import launch
from toy_games.dynamics.self_play import Data, SelfPlay, sft_scale
from toy_games.engine import simulator
from toy_games.engine.policies import Softmax, Tokens
from toy_games.engine.trainable import notes
from toy_games.experiments import sgd
from toy_games.experiments.sgd import PLAYED, Settings, lacking
from toy_games.games.sgd_case import Case, chain_factor, least_hinge
from toy_games.predictions.linearised import RoundLoss, distance, fisher

HAVE_ROUND = [n for n in PLAYED if Case(n).has_round]
LIKE_SFT = [n for n in PLAYED if Case(n).starts_as_sft and Case(n).has_round]
GAME = {"vocab": 2, "horizon": 3, "game": 11}


def run(part, spec, family="tokens", **given):
    """Table of one cell on the held-out game."""
    names = () if spec == "sft" else (spec,)
    chosen = Settings(parts=(part,), objectives=names or ("spin",), **{**GAME, **given})
    (cell,) = [
        c
        for c in sgd.cells(chosen)
        if (c.arguments.get("spec"), c.arguments.get("family")) == (spec, family)
    ]
    return cell.call(**cell.arguments, progress=False)


def errors(table, by, value):
    """Mean and standard error over the seeds of every group."""
    found = table.groupby(by, sort=False)[value]
    return found.mean(), found.std() / np.sqrt(found.size())


# -- within a round -------------------------------------------------------------------------------


def check_rate(claim, table):
    claim.close(table.mismatch.iloc[0], 0.0, 1e-8, what="distance, minimiser to the exact round")
    late = table[(table.step >= table.anchor) & (table.distance > 1e-10)]
    found = fit_line(late.step, np.log(late.distance)).slope
    predicted = fit_line(late.step, np.log(late.predicted)).slope
    claim.close(found, predicted, 0.0, rtol=0.03, what="fitted slope of log distance a step")


@pytest.mark.claim("T3", "T4", rung="dynamics")
@pytest.mark.parametrize("name", [*HAVE_ROUND, "sft"])
def test_full_batch_steps_reach_the_exact_round_at_the_hessians_rate(claim, name):
    check_rate(claim, run("round", name, steps=150, rate=0.5))


@pytest.mark.claim("T3", rung="dynamics")
@pytest.mark.parametrize("family", ["features", "network"])
@pytest.mark.parametrize("name", ["ipo", "nwj", "sft"])
def test_so_they_do_in_restricted_classes(claim, family, name):
    check_rate(claim, run("round", name, family, steps=400))


@pytest.mark.claim("T3", rung="dynamics", kind="necessity", condition="a smooth loss")
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
    claim.close(fit_line(np.log(rates), np.log(excess)).slope, 1.0, 0.05, what="order in the rate")


@pytest.mark.claim(
    "T3", rung="dynamics", kind="necessity", condition="a loss that attains its minimum"
)
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


# -- floors ---------------------------------------------------------------------------------------


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


@pytest.mark.claim("T3", rung="dynamics")
@pytest.mark.parametrize("name", ["spin", "ipo", "nwj", "tspin", "inpo", "centred_spif", "sft"])
def test_minibatches_stop_at_the_predicted_floor(claim, name):
    given = {"floor_batches": (16, 64), "floor_rates": (0.1, 0.4)}
    table = run("floor", name, seeds=24, steps=150, **given)
    table["ratio"] = table.from_limit / table.predicted
    mean, error = errors(table, ["batch", "rate"], "ratio")
    # of second order in the floor: the linearised noise and curvature change over the cloud
    slack = 4.0 * error + 4.0 * table.groupby(["batch", "rate"], sort=False).predicted.mean()
    claim.below((mean - 1.0).abs(), slack, what="relative error of E D^2, 4 standard errors")
    x, y = np.log(table.rate / table.batch), np.log(table.from_limit)
    fit = fit_line(x, y)
    expected = fit_line(x, np.log(table.predicted)).slope
    claim.close(expected, 1.0, 0.12, what="Lyapunov's slope in log(step/batch)")
    claim.close(fit.slope, expected, 4.0 * fit.slope_interval / 1.98, what="slope of the log floor")


# -- finite groups --------------------------------------------------------------------------------


@pytest.mark.claim("T17", rung="dynamics")
@pytest.mark.parametrize("name", ["centred_spif", "renyi"])
def test_sgd_with_groups_goes_where_their_expected_risk_is_least(claim, name):
    table = run(
        "floor", name, seeds=12, steps=150, group=2, floor_batches=(128,), floor_rates=(0.1,)
    )
    mean, error = errors(table, "batch", "from_limit")
    claim.close(mean, table.predicted.iloc[0], 4.0 * float(error.iloc[0]), rtol=0.05,
                what="E D^2 to the groups' own limit")  # fmt: skip


@pytest.mark.claim(
    "T3",
    "T17",
    rung="dynamics",
    kind="necessity",
    condition="the baseline is that of the exact laws",
)
@pytest.mark.parametrize("name", ["centred_spif", "renyi"])
def test_groups_of_two_do_not_find_the_exact_round(claim, name):
    table = run(
        "floor", name, seeds=6, steps=100, group=2, floor_batches=(128,), floor_rates=(0.1,)
    )
    claim.exhibits(table.from_exact / table.predicted, 2.0, what="E D^2 to the exact round / floor")


@pytest.mark.claim("T17", rung="exact")
@given(
    group=st.integers(1, 3),
    step=st.floats(0.2, 3.0),
    seed=st.integers(0, 10**6),
)
@profile(max_examples=5)
def test_the_enumerated_limit_of_groups_is_t17s(claim, group, step, seed):
    case = Case("centred_spif", seed=seed)
    log_q = case.log_law(case.start())
    own = case.round(log_q, step, group)
    found = case.log_law(own.minimise(case.start()))
    link = finite_group_link(case.expert.numpy(), log_q.exp().numpy(), 1.0, group, group)
    expected = (log_q + torch.from_numpy(link.reward) / case.beta(step)).log_softmax(-1)
    claim.close(distance(found, expected), 0.0, 1e-7, what="distance to the finite-group link")


@pytest.mark.claim("T6", "T17", rung="exact")
@pytest.mark.parametrize("group", [2, 3, 5])
def test_groups_lengthen_the_effective_step(claim, group):
    gains = {"centred_spif": 2 * group / (2 * group - 1), "renyi": group / (group - 1)}
    assert centred_local_gain(group, group) == pytest.approx(gains["centred_spif"], rel=1e-14)
    assert renyi_local_gain(0.5, group, group) == pytest.approx(gains["renyi"], rel=1e-14)
    for name, gain in gains.items():
        found = Case(name, seed=11).local_factor(0.6, group)
        claim.close(found, 1.0 - 0.6 * gain, 1e-4, what="local factor of a round with groups")


@pytest.mark.claim(
    "T6", "T17", rung="dynamics", kind="necessity", condition="risks of exact laws, not of groups"
)
def test_groups_of_four_make_renyi_unstable_below_effective_step_two(claim):
    table = run("contraction", "renyi", effective=(1.7,), seeds=6, steps=100, reach=0.2, rounds=1)
    claim.exhibits(table.unlimited, -0.8, what="factor with exact laws: stable")
    mean, error = errors(table, "effective", "measured")
    claim.exhibits(-(mean + 4.0 * error), 1.0, what="minus the factor with groups of 4")


# -- rounds ---------------------------------------------------------------------------------------


@pytest.mark.claim("T6", "C3", rung="dynamics")
@pytest.mark.parametrize("name", HAVE_ROUND)
def test_rounds_of_many_steps_contract_as_exact_rounds_do(claim, name):
    steps = (0.4, 1.2)
    table = run("contraction", name, effective=steps, seeds=6, steps=90, reach=0.2)
    mean, error = errors(table, "effective", "measured")
    exact = table.groupby("effective", sort=False).exact.first()
    # a round of 90 steps leaves (1 - rate lambda/(1 - rho))^90 of the slowest direction
    claim.below(
        (mean - exact).abs(), 4.0 * error + 0.01, what="factor of a round, 4 standard errors"
    )


@pytest.mark.claim("T4", "T6", rung="exact")
@pytest.mark.parametrize("name", [n for n in HAVE_ROUND if n != "tspin"])
def test_the_local_factor_is_that_of_exact_rounds_from_a_small_start(claim, name):
    case = Case(name, seed=11)
    for step in (0.4, 1.4):
        found = case.factor(step, 1e-3, 2)
        claim.close(found, case.local_factor(step), 1e-5, what="factor of two exact rounds")


@pytest.mark.claim("T7", rung="exact")
def test_spins_factor_is_one_minus_one_over_beta(claim):
    found = Case("spin", seed=11)
    for step in (0.3, 1.4):
        claim.close(
            found.local_factor(step), 1.0 - 1.0 / found.beta(step), 1e-12, what="1 - 1/beta"
        )
        claim.close(found.factor(step, 1e-3, 2), 1.0 - step, 1e-4, what="exact rounds, small start")


@pytest.mark.claim("T6", "T15", rung="dynamics")
@pytest.mark.parametrize("name", ["spin", "spif", "nwj", "renyi", "sft"])
def test_rounds_of_k_steps_go_from_sft_to_the_exact_round(claim, name):
    given = {"effective": (0.4, 1.4), "counts": (1, 3, 10, 40), "seeds": 6}
    table = run("steps", name, reach=0.1, batch=256, **given)
    by = ["effective", "steps_per_round"]
    table["error"] = table.measured - table.predicted
    mean, error = errors(table, by, "error")
    claim.below(mean.abs(), 4.0 * error + 0.01, what="factor of a round, 4 standard errors")


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


@pytest.mark.claim("T15", rung="dynamics")
@pytest.mark.parametrize("name", LIKE_SFT)
def test_rounds_of_one_step_are_sft(claim, name):
    claim.close(
        trajectory(name, 1, 40), trajectory("sft", 1, 40), 1e-10, what="log-laws of 40 steps"
    )


@pytest.mark.claim("T15", rung="dynamics", kind="necessity", condition="one step a round")
@pytest.mark.parametrize("name", ["spin", "spif", "ipo"])
def test_longer_rounds_leave_sft_at_second_order(claim, name):
    rates = np.array([0.01, 0.02, 0.04])
    apart = [
        float((trajectory(name, 4, 4, r) - trajectory("sft", 4, 4, r))[-1].norm()) for r in rates
    ]
    claim.close(fit_line(np.log(rates), np.log(apart)).slope, 2.0, 0.1, what="order in the rate")
    far = (trajectory(name, 40, 40) - trajectory("sft", 40, 40))[-1].norm()
    claim.exhibits(far, 0.1, what="log-law of a round of 40 steps from SFT's")


@pytest.mark.claim(
    "T15",
    rung="dynamics",
    kind="necessity",
    condition="the reward is 0 at pi_t: no anchor, own opponent",
)
@pytest.mark.parametrize("name", ["inpo", "tspin", "alpha_spin"])
def test_other_rewards_do_not_start_as_sft(claim, name):
    apart = (trajectory(name, 1, 40) - trajectory("sft", 1, 40))[-1].norm()
    claim.exhibits(apart, 0.02, what="log-law of 40 rounds of one step from SFT's")


@pytest.mark.claim("T3", "C3", rung="dynamics")
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
    claim.close(mean[100], floor, 4.0 * error[100], what="E D^2 to the exact path after 2 rounds")
    claim.exhibits(mean[1] / mean[100], 4.0, what="E D^2 of rounds of 1 step / of 100 steps")


@pytest.mark.claim("T3", "C3", rung="dynamics")
@pytest.mark.parametrize("name", ["spin", "ipo"])
def test_a_network_follows_the_exact_path_of_its_class(claim, name):
    given = {"rate": 0.2, "batch": 256, "rounds": 2, "seeds": 4, "counts": (1, 120)}
    mean, _ = errors(run("path", name, "network", **given), "steps_per_round", "distance")
    claim.below(mean[120], 0.35 * mean[1], what="distance after two rounds, a third of 1 step's")


# -- machinery ------------------------------------------------------------------------------------


def test_every_objective_that_can_be_trained_is_here_and_the_others_have_a_reason():
    left = set(objectives.names()) - set(PLAYED)
    assert left == {"sppo", "gail", "ipm"}
    with pytest.raises(InvalidInput) as caught:
        Settings(objectives=("spin", *sorted(left)))
    said = str(caught.value)
    for part in ("sppo cannot", "no expert law", "gail cannot", "starts at r = 0", "ipm cannot"):
        assert part in said


def test_all_problems_are_said_at_once():
    with pytest.raises(InvalidInput) as caught:
        Settings(parts=("noise",), classes=("tree",), seeds=0, rate=-1.0, group=5, effective=(0.0,))
    said = str(caught.value)
    for part in ("'noise'", "'tree'", "seeds=0", "rate=-1.0", "effective=0.0"):
        assert part in said
    assert "batch 64 is not a multiple of group=5" in said
    with pytest.raises(InvalidInput, match="leave it out"):
        Settings(objectives=("sft",))


def test_groups_too_many_to_enumerate_and_several_prompts_are_refused():
    law = torch.full((30,), 1 / 30, dtype=torch.float64)
    obj = objectives.get("renyi")
    with pytest.raises(InvalidInput, match="pairs of groups of 30"):
        RoundLoss(Softmax(30), obj, law, law.log(), 1.0, group=8)
    with pytest.raises(InvalidInput, match="2 prompts; needed is 1"):
        RoundLoss(Softmax(30, 2), None, law, law.log(), 1.0)


def test_sft_runs_beside_all_others_but_has_no_contraction():
    made = sgd.cells(Settings())
    sft = {c.arguments["part"] for c in made if c.arguments.get("spec") == "sft"}
    assert sft == {"round", "floor", "steps", "path"}
    hinge = {c.arguments["part"] for c in made if c.arguments.get("spec") == "spin_hinge"}
    assert hinge == {"round"}
    left = {tuple(line.split(":")[0].split(" is without ")) for line in notes(made)}
    assert {("contraction", "sft"), ("path", "spin_hinge"), ("steps", "inpo")} <= left
    table = run("round", "spin_hinge", steps=40)
    assert (table.excess > -1e-12).all()


def test_an_interrupted_part_resumes_to_the_same_table(tmp_path, monkeypatch):
    given = {"seeds": 2, "steps": 20, "floor_batches": (8, 16), "floor_rates": (0.2,)}
    chosen = Settings(parts=("floor",), objectives=("ipo",), **given, **GAME)
    whole = launch.run("sgd", chosen, progress=False)
    advance, calls = SelfPlay.advance, []

    def stops(self, state, step):
        calls.append(step)
        if len(calls) == 55:  # in the second batch size
            raise KeyboardInterrupt
        return advance(self, state, step)

    monkeypatch.setattr(simulator, "run", functools.partial(simulator.run, every=0.0))
    monkeypatch.setattr(SelfPlay, "advance", stops)
    with pytest.raises(KeyboardInterrupt):
        launch.run("sgd", chosen, tmp_path / "kept", progress=False)
    assert list((tmp_path / "kept" / "parts").glob("*.npz"))
    resumed = launch.run("sgd", chosen, tmp_path / "kept", progress=False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    assert not list((tmp_path / "kept" / "parts").glob("*.npz"))


def test_factors_are_those_of_a_geometric_sequence():
    share = np.array([[1.0, 1.0], [0.5, -0.3], [0.25, 0.09]])
    np.testing.assert_allclose(chain_factor(share), [0.5, -0.3])
    case = Case("spin", seed=11)
    assert isinstance(case.policy, Tokens)
    near = case.beside(case.expert.log(), 0.01)
    assert float(distance(near, case.expert.log())) == pytest.approx(0.01, rel=0.05)


def test_a_group_risk_without_a_round_is_left_out_with_the_reason(tmp_path) -> None:
    """A stranger's that sees the level of rewards: said before work, and the others run."""
    path = tmp_path / "level.py"
    path.write_text(
        "from theory import xp\nfrom theory.objectives import Group, register\n\n\n"
        "@register('level')\nclass Level(Group):\n"
        "    def group_risk(self, r_y, r_own, w_y, w_own):\n"
        "        spread = xp.weighted_mean(r_y**2, w_y) + xp.weighted_mean(r_own**2, w_own)\n"
        "        return spread - xp.weighted_mean(r_y, w_y) + xp.weighted_mean(r_own, w_own)\n"
    )
    for part in ("round", "floor"):
        assert "its risk changes when all rewards shift" in lacking(part, Case(f"{path}:level"))
    assert lacking("round", Case("renyi")) is None
