"""Two explicit players: where they end, how fast, when they do not, and what their classes can see.

Games here have other sizes, steps and seeds than those of the figure.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.toy_games.interrupted import interrupt
from theory import equilibrium, laws, objectives, saddle_point, self_play
from theory.errors import InvalidInput, Unavailable
from theory.rounds.log_linear import LogLinear
from toy_games.dynamics.two_players import METHODS, Players, Rules, distance, gap, observed
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.rewards import Linear, Network, Table
from toy_games.experiments import players as experiment
from toy_games.games.player_classes import few_features, network, reward_classes
from toy_games.predictions.two_players import crossing, growth, predicted_factor, predicted_spread

SADDLES = ("spif", "iq_learn", "policy_only", "airl", "nwj", "gail")


def games(count, n, seed, spread=0.5):
    """Expert and anchor (count, 1, n), and two directions (count, n)."""
    rng = np.random.default_rng(seed)
    p, ref = (laws.random_law(rng, (count, 1, n), spread) for _ in range(2))
    return p, ref, rng.standard_normal((2, count, n))


def solution(obj, p, ref, tau, pay):
    solve = saddle_point if pay == "saddle" and obj.has_saddle else equilibrium
    return solve(p, ref, obj, tau)


PLAIN = Rules()


def tabular(obj, p, ref, kick, tau=0.0, rules=PLAIN, step=0.5, size=1e-2, seeds=None, **rows):
    """Tabular players kicked by size times the directions off the solution of theory."""
    found = solution(obj, p, ref, tau, rules.pay)
    n, count = p.shape[-1], len(p)
    frame = pd.DataFrame({"seed": range(count) if seeds is None else seeds})
    frame = frame.assign(**{"tau": tau, "step_policy": step, "step_reward": step, **rows})
    start = np.log(found.policy[:, 0]) + size * kick[0], found.reward[:, 0] + size * kick[1]
    target = found.policy, found.reward
    return Players(Softmax(n), Table(n), obj, frame, p, start, rules, np.log(ref), target)


def factor_at(run):
    """Predicted factor at the target of the players."""
    law, reward = run.target
    rest = Players(
        run.policy, run.rewards, run.objective, run.rows, run.expert,
        (law.log().flatten(1), reward.flatten(1)), run.rules, run.log_ref, run.target,
    )  # fmt: skip
    return predicted_factor(rest, rest.start())


# -- rates ----------------------------------------------------------------------------------------


@pytest.mark.claim("T10.local_factors", regime="tabular")
@settings(max_examples=6)
@given(n=st.integers(2, 7), coupling=st.floats(0.05, 0.9))
def test_without_a_penalty_the_factors_are_those_of_a_rotation(claim, n, coupling):
    p = np.full((1, 1, n), 1.0 / n)
    x, kick = coupling, np.zeros((2, 1, n))
    root = np.roots([1.0, -(1.0 + 2j * x), 1j * x])
    known = {
        "simultaneous": np.sqrt(1 + x**2),
        "alternating": 1.0,
        "extragradient": np.sqrt(1 - x**2 + x**4),
        "optimistic": np.abs(root).max(),
    }
    for method, value in known.items():
        run = tabular(objectives.get("ipm"), p, p, kick, rules=Rules(method), step=n * x)
        # A double eigenvalue (alternating at modulus 1) is known to the root of the precision.
        claim.close(factor_at(run), [value], 1e-6, what=f"factor of {method}")


@pytest.mark.claim("T10.local_factors", regime="tabular")
@settings(max_examples=6)
@given(n=st.integers(2, 7), c=st.floats(0.05, 0.95), x=st.floats(0.05, 0.9))
def test_the_penalty_moves_the_eigenvalues_inside(claim, n, c, x):
    p = np.full((1, 1, n), 1.0 / n)
    run = tabular(objectives.get("spif", c=c), p, p, np.zeros((2, 1, n)), step=n * x)
    claim.close(
        factor_at(run) ** 2, [1 - 2 * c * x + x**2], 1e-9, what="squared factor, simultaneous"
    )


@pytest.mark.claim("T10.players", regime="dynamics")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("name", "pay"), [("spif", "rounds"), ("nwj", "saddle"), ("gail", "rounds")]
)
def test_measured_rates_are_the_jacobians(claim, method, name, pay):
    p, ref, kick = games(3, 4, seed=101)
    run = tabular(objectives.get(name), p, ref, kick, 0.15, Rules(method, pay), step=0.8)
    measured, error = growth(run, 400)
    off = np.abs(measured - np.log(factor_at(run)))
    claim.below(off, error, what="error of the log-factor a step", because="solver")


@pytest.mark.claim("T10.players", regime="dynamics")
@pytest.mark.parametrize("method", METHODS)
def test_the_largest_stable_step_is_the_predicted_one(claim, method):
    p, ref, kick = games(2, 4, seed=103)
    obj = objectives.get("spif", c=0.4)

    def players(steps, size=1e-5):
        flat, grid = steps.ravel(), steps.shape[1]
        many = (np.repeat(x, grid, axis=0) for x in (p, ref))
        return tabular(
            obj, *many, np.repeat(kick, grid, axis=1), size=size, rules=Rules(method),
            step_policy=flat, step_reward=flat,
        )  # fmt: skip

    def measured(steps):
        return growth(players(steps), 400)[0].reshape(steps.shape)

    def predicted(steps):
        return np.log(factor_at(players(steps))).reshape(steps.shape)

    ends = np.full(2, 0.2), np.full(2, 40.0)
    # A line through 267 steps resolves log-factors of 1/267; they grow by 0.2 and more a log-step.
    claim.close(
        crossing(measured, *ends),
        crossing(predicted, *ends),
        0.0,
        rtol=0.02,
        what="threshold",
        because="solver",
    )


@pytest.mark.claim("T10.players", regime="dynamics", drops="positive_penalty")
def test_without_the_penalty_players_spiral_out_or_cycle(claim):
    p, ref, kick = games(3, 4, seed=104)
    obj = objectives.get("ipm", bound=4.0)
    ends = {}
    for method in METHODS:
        run = tabular(obj, p, ref, kick, rules=Rules(method), step=1.5, size=0.05)
        table = simulator.run(run, [0, 400], progress=False)
        start, end = (table[table.step == s].distance.to_numpy() for s in (0, 400))
        ends[method] = end / start
    claim.exhibits(ends["simultaneous"], 20.0, what="growth of the distance, simultaneous")
    claim.exhibits(ends["alternating"], 0.2, what="distance kept, alternating")
    what = "distance kept, alternating, from above"
    claim.below(ends["alternating"], 5.0, what=what, because="chosen")
    assert max(ends["extragradient"].max(), ends["optimistic"].max()) < 0.2


def test_rewards_in_units_of_one_over_c_make_all_penalties_one_game():
    p, ref, kick = games(2, 5, seed=105)
    c, step = 0.3, 0.4
    one = tabular(objectives.get("spif", c=c), p, ref, kick, step=step, size=1.0)
    kick[1] *= c
    other = tabular(
        objectives.get("spif"), p, ref, kick, size=1.0, step_policy=step / c, step_reward=step * c
    )
    assert one.rows.step_policy[0] != other.rows.step_policy[0]
    ends = []
    for run in (one, other):
        state = run.start()
        for t in range(30):
            state = run.advance(state, t)
        ends.append(run.policy.log_law(state["theta"]).numpy())
    np.testing.assert_allclose(ends[0], ends[1], atol=1e-12)


# -- where they end -------------------------------------------------------------------------------


def ends_of(name):
    clause = "T10.coincide" if name in ("iq_learn", "gail") else "T10.differ"
    return pytest.param(name, marks=pytest.mark.claim("T10.players", clause, regime="dynamics"))


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
@pytest.mark.parametrize("name", [ends_of(name) for name in SADDLES])
def test_the_last_iterate_is_the_equilibrium_of_its_pay(claim, name, pay):
    tau, obj = 0.3, objectives.get(name)
    p, ref, _ = games(3, 4, seed=106)
    method = "alternating" if pay == "saddle" else "extragradient"
    run = tabular(obj, p, ref, np.zeros((2, 3, 4)), tau, Rules(method, pay), step=0.7)
    run._theta = torch.zeros_like(run._theta)
    run._phi = torch.full_like(run._phi, float(obj.link(0.0)))
    state = run.start()
    for t in range(500):
        state = run.advance(state, t)
    off = observed(run, state)
    claim.close(off, 0.0, 1e-6, what="log-law and reward against theory's solution")
    claim.below(gap(run, state), 1e-10, what="certified gap of the last iterate")
    other = solution(obj, p, ref, tau, "rounds" if pay == "saddle" else "saddle").policy
    law = run.policy.log_law(state["theta"]).exp().numpy()
    apart = 0.5 * np.abs(law - other).sum(-1)
    if name in ("iq_learn", "gail"):
        claim.below(apart, 1e-6, what="TV between the two pays' ends, b(r) + r constant")
    else:
        claim.exhibits(apart.max(), 1e-4, what="TV between the two pays' ends")


@pytest.mark.claim("T10.saddle_point", regime="tabular")
@pytest.mark.parametrize("name", SADDLES)
def test_the_gap_brackets_the_value_of_theory(claim, name):
    tau, obj = 0.25, objectives.get(name)
    p, ref, kick = games(4, 5, seed=107)
    run = tabular(obj, p, ref, kick, tau, size=0.2)
    state = run.start()
    law = run.policy.log_law(state["theta"]).exp().numpy()
    reward = state["phi"].numpy()[:, None]
    best = np.asarray(obj.link(np.log(p / law)))
    primal = obj.value(p, law, best) + tau * laws.kl(law, ref)
    dual = laws.expect(p, np.asarray(obj.a(reward))) - tau * np.log(
        laws.expect(ref, np.exp(-np.asarray(obj.b(reward)) / tau))
    )
    claim.close(gap(run, state), (primal - dual)[:, 0], 1e-12, what="gap = primal - dual")
    value = saddle_point(p, ref, obj, tau).primal
    claim.below(dual, value, what="dual value", atol=1e-12)
    claim.below(value, primal, what="value under the primal", atol=1e-12)


@pytest.mark.claim("T10.players", regime="dynamics")
def test_the_pairwise_logistic_game_has_the_rounds_of_the_pointwise_one_and_another_saddle(claim):
    p, ref, kick = games(3, 4, seed=108)
    ends = {}
    for name, pay in (("spin", "rounds"), ("spin", "saddle"), ("airl", "saddle")):
        rules = Rules("alternating", pay)
        run = tabular(objectives.get(name), p, ref, kick, 0.3, rules, step=1.0)
        state = run.start()
        for t in range(400):
            state = run.advance(state, t)
        ends[name, pay] = run.policy.log_law(state["theta"]).exp().numpy()
        claim.below(gap(run, state), 1e-9, what="certified gap of the last iterate")
    same = equilibrium(p, ref, objectives.get("airl"), 0.3).policy
    claim.close(ends["spin", "rounds"], same, 1e-6, what="SPIN's rounds end where AIRL's do")
    apart = 0.5 * np.abs(ends["spin", "saddle"] - ends["airl", "saddle"]).sum(-1)
    claim.exhibits(apart, 1e-4, what="TV between the saddle points of SPIN and AIRL")


@pytest.mark.parametrize(
    "count",
    [
        pytest.param(150, marks=pytest.mark.claim("T2.players", regime="dynamics")),
        pytest.param(3, marks=pytest.mark.claim(
            "T2.players", regime="dynamics", drops="exact_best_response")),
    ],
)  # fmt: skip
def test_many_reward_steps_and_a_proximal_step_are_a_round(claim, count):
    p, ref, _ = games(3, 7, seed=109)
    obj, beta, tau, n = objectives.get("spif", c=0.8), 1.2, 0.2, 7
    path = self_play(p, ref, obj, beta, 4, ref, tau, progress=False).policies
    rows = pd.DataFrame({"seed": range(3), "tau": tau, "step_reward": 1.5})
    rows["step_policy"] = 1.0 / (beta + tau)
    rules = Rules("alternating", "rounds", natural=True, reward_steps=count)
    start = np.log(ref[:, 0]), np.zeros(n)
    run = Players(Softmax(n), Table(n), obj, rows, p, start, rules, np.log(ref))
    state = run.start()
    for t in range(4):
        state = run.advance(state, t)
        law = run.policy.log_law(state["theta"]).exp().numpy()
        if t == 0:
            best = np.asarray(obj.link(np.log(p / ref)))
            left = (1.0 - 1.5 * 0.8 * (p + ref)) ** count
            reward = state["phi"].numpy()[:, None]
            claim.close(reward, best * (1.0 - left), 1e-12, what="reward after k steps")
        if count == 150:
            claim.close(law, path[t + 1], 1e-10, what="policy after a round")
    if count == 3:
        apart = 0.5 * np.abs(law - path[4]).sum(-1)
        claim.exhibits(apart.max(), 1e-4, what="TV to four rounds, three reward steps a round")


# -- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "pay"), [("spif", "saddle"), ("nwj", "rounds"), ("ipo", "saddle")]
)
def test_sampled_moves_are_unbiased(name, pay):
    rows = 3000
    p, ref, kick = games(1, 4, seed=110)
    p, ref, kick = (np.repeat(x, rows, axis=a) for x, a in ((p, 0), (ref, 0), (kick, 1)))
    rules = Rules(pay=pay, batch=5)
    run = tabular(objectives.get(name), p, ref, kick, 0.3, rules, size=0.5)
    state = run.start()
    theta, phi = state["theta"], state["phi"]
    draws = run._draws(theta, 0, "")
    for move in (run.policy_move, run.reward_move):
        sampled, exact = move(theta, phi, draws), move(theta, phi)[0]
        error = sampled.std(0) / np.sqrt(rows)
        assert ((sampled.mean(0) - exact).abs() <= 4.0 * error).all()
        assert sampled.std(0).min() > 1e-3


@pytest.mark.parametrize("pay", ["saddle", "rounds"])
def test_the_score_function_has_no_variance_at_the_equilibrium(pay):
    p, ref, kick = games(6, 5, seed=111)
    run = tabular(objectives.get("airl"), p, ref, kick, 0.3, Rules(pay=pay, batch=4), size=0.0)
    state = run.start()
    draws = run._draws(state["theta"], 0, "")
    move = run.policy_move(state["theta"], state["phi"], draws)
    assert move.abs().max() <= 1e-9
    assert run.reward_move(state["theta"], state["phi"], draws).abs().max() > 1e-2


@pytest.mark.claim("T10.sampled_players", regime="dynamics")
def test_minibatches_hover_at_the_predicted_spread(claim):
    rows, batch = 24, 400
    p, ref, kick = games(1, 4, seed=112)
    p, ref, kick = (np.repeat(x, rows, axis=a) for x, a in ((p, 0), (ref, 0), (kick, 1)))
    rules = Rules(batch=batch)
    run = tabular(objectives.get("spif"), p, ref, kick, 0.1, rules, step=0.25, size=0.0)
    predicted = predicted_spread(run, run.start())[0]
    run.measures = {"distance": distance}
    table = simulator.run(run, range(200, 800, 15), progress=False)
    squares = (table.distance**2).groupby(table.seed).mean()
    error = squares.std() / np.sqrt(rows)
    claim.below(abs(squares.mean() - predicted), 4.0 * error, what="mean square distance",
                because="sampling")  # fmt: skip
    assert error < 0.1 * predicted


# -- smaller classes ------------------------------------------------------------------------------


def ends(table):
    return table[table.step == table.step.max()]


@pytest.mark.claim("T10.moments", "T15.players", regime="dynamics")
@pytest.mark.parametrize("count", [2, 5])
def test_proximal_steps_on_few_features_end_at_their_maximum_likelihood(claim, count):
    found = ends(few_features(count, natural=True, seeds=3, steps=500, progress=False))
    claim.below(found.moment_residual, 1e-8, what="moments of the features")
    claim.below(found.tv, 1e-8, what="TV to the MLE of the features")
    claim.close(found.tv_to_expert, found.predicted, 1e-8, what="TV to the expert")


@pytest.mark.claim("T10.players", regime="dynamics", drops="table_of_rewards")
def test_few_features_match_moments_and_stop_elsewhere(claim):
    found = ends(few_features(4, natural=False, seeds=3, steps=500, progress=False))
    claim.below(found.moment_residual, 1e-6, what="moments of the features")
    claim.exhibits(found.tv_to_expert, 0.02, what="TV to the expert")
    claim.exhibits(found.tv, 1e-3, what="TV to the MLE of the features, plain steps")


@pytest.mark.claim("T10.moments", regime="dynamics", drops="constant_reward")
def test_moments_do_not_match_if_the_class_misses_the_constant_reward(claim):
    """NWJ pays ``R(0) = 1`` at the expert: features without a constant cannot give it."""
    p, _, _ = games(3, 6, seed=113)
    features = np.random.default_rng(1).uniform(0.0, 2.0, (6, 2))
    rows = pd.DataFrame({"seed": range(3), "step_policy": 2.0, "step_reward": 0.3})
    residual = {}
    for name, columns in (("without", features), ("with", np.c_[features, np.ones(6)])):
        run = Players(
            Softmax(6), Linear(columns), objectives.get("nwj"), rows, p,
            (np.zeros(6), np.zeros(columns.shape[1])), Rules("alternating"),
        )  # fmt: skip
        state = run.start()
        for t in range(700):
            state = run.advance(state, t)
        law = run.policy.log_law(state["theta"]).exp().numpy()
        residual[name] = np.abs((p - law) @ features).max((1, 2))
    what = "moment mismatch, class with constants"
    claim.below(residual["with"], 1e-3, what=what, because="chosen")
    claim.exhibits(residual["without"], 0.05, what="moment mismatch, class without constants")


@pytest.mark.claim("T15.players", regime="dynamics")
def test_a_log_linear_policy_ends_at_the_mle_if_rewards_are_its_own_features(claim):
    rng = np.random.default_rng(114)
    p = laws.random_law(rng, (9,), 0.7)
    features = rng.standard_normal((9, 2))
    family = LogLinear(features)
    mle = family.law(family.maximum_likelihood(p))
    implicit = family.self_play(p, np.zeros(2), objectives.get("spin"), 1.0, 60).policies[-1]
    claim.close(implicit, mle, 1e-6, what="the implicit player's rounds against the MLE")
    rows = pd.DataFrame({"seed": [0], "step_policy": 0.5, "step_reward": 0.3})
    for name, pay in (("spif", "saddle"), ("airl", "rounds")):
        run = Players(
            LogLinearPolicy(features), Linear(features), objectives.get(name), rows, p,
            (np.zeros(2), np.zeros(2)), Rules("alternating", pay),
        )  # fmt: skip
        state = run.start()
        for t in range(500):
            state = run.advance(state, t)
        law = run.policy.log_law(state["theta"]).exp().numpy()[0, 0]
        claim.close(law, mle, 1e-6, what="the explicit player's end against the MLE")


@pytest.mark.claim("T15.players", regime="dynamics", drops="rewards_in_span")
@pytest.mark.parametrize("kind", ["mixture 0.35", "table saddle", "table rounds"])
def test_other_reward_classes_move_the_destination_as_predicted(claim, kind):
    found = ends(reward_classes(kind, seeds=2, steps=900, progress=False))
    claim.exhibits(found.predicted, 1e-3, what="predicted TV to the MLE")
    claim.close(found.tv, found.predicted, 1e-5, what="TV to the MLE", because="chosen")


@pytest.mark.claim("T10.players", regime="dynamics", drops="table_of_rewards")
def test_a_wide_network_finds_the_saddle_point_and_a_narrow_one_does_not(claim):
    wide, narrow = (ends(network(w, 4, 900, tau=0.3, progress=False)) for w in (12, 1))
    claim.below(wide.tv, 2e-3, what="TV to the saddle point, 12 hidden units",
                because="chosen")  # fmt: skip
    claim.below(wide.gap, 1e-4, what="certified gap, 12 hidden units", because="chosen")
    claim.exhibits(narrow.gap.max(), 1e-2, what="gap left by one hidden unit")


# -- machinery ------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_resumed_run_gives_bitwise_the_same_table(tmp_path, monkeypatch, method):
    p, ref, kick = games(3, 4, seed=115)

    def players(rows=slice(None)):
        rules = Rules(method, batch=8)
        seeds = [5, 9, 5][rows]
        return tabular(
            objectives.get("airl"), p[rows], ref[rows], kick[:, rows], 0.2, rules, seeds=seeds
        )

    path = tmp_path / "run.npz"
    interrupt(players(), 9, [0, 5, 20], path, monkeypatch)
    resumed = simulator.run(players(), [0, 5, 20], path, False)
    whole = simulator.run(players(), [0, 5, 20], progress=False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)
    alone = simulator.run(players(slice(1, 2)), [0, 5, 20], progress=False)
    both = whole[whole.seed == 9].reset_index(drop=True)
    pd.testing.assert_frame_equal(both, alone, rtol=1e-9, atol=1e-12)


def test_everything_wrong_is_said_at_once():
    rows = pd.DataFrame({"seed": [0], "step_policy": [-1.0], "tau": ["x"]})
    rules = Rules("sideways", "nothing", natural=True, reward_steps=2, batch=1)
    with pytest.raises(InvalidInput) as caught:
        Players(
            LogLinearPolicy(np.eye(4)[:, :2]), Linear(np.eye(5)), objectives.get("ipm"), rows,
            np.zeros(3), (np.zeros(9), np.zeros(5)), rules,
        )  # fmt: skip
    said = str(caught.value)
    for part in ("method", "pay=", "reward_steps", "batch", "step_policy", "tau", "shapes"):
        assert part in said
    for part in ("natural", "bound to [-1, 1]", "expert", "start of the policy"):
        assert part in said
    with pytest.raises(InvalidInput, match="width"):
        Network(np.eye(3), 0)
    with pytest.raises(InvalidInput, match="features: shape"):
        Linear(np.zeros(3))


@pytest.mark.parametrize(
    ("name", "batch", "reason"),
    [
        ("sppo", None, "preference"),
        ("centred_spif", 4, "not linear"),
        ("tspin", None, "history"),
    ],
)
def test_games_that_do_not_exist_say_why(name, batch, reason):
    p, _, _ = games(1, 4, seed=116)
    rows = pd.DataFrame({"seed": [0]})
    start = np.zeros(4), np.zeros(4)
    with pytest.raises(Unavailable, match=reason):
        Players(Softmax(4), Table(4), objectives.get(name), rows, p, start, Rules(batch=batch))


def test_settings_name_all_problems():
    with pytest.raises(InvalidInput) as caught:
        experiment.Settings(
            parts=("rates", "none"), step=-1.0, features=(0, 3), mixtures=(2.0,),
            objectives=("spif", "nonsense", "spin", "sft"), seeds=0,
        )  # fmt: skip
    said = str(caught.value)
    for part in (
        "'none'",
        "step=",
        "features",
        "mixtures",
        "nonsense",
        "spin has no saddle",
        "sft",
    ):
        assert part in said, part
    assert "seeds" in said


def test_every_part_runs_and_names_its_cells_once():
    small = experiment.Settings(
        seeds=3, steps=20, features=(2,), mixtures=(0.0,), reward_steps=(2,), widths=(2,),
        objectives=("spif",), penalties=(1.0,), batch=4,
    )  # fmt: skip
    cells = experiment.cells(small)
    assert len({cell.name for cell in cells}) == len(cells)
    kept = {cell.call.__name__: cell for cell in cells if "sft" not in cell.name}
    assert set(kept) == {"trajectories", "noise", "rates", "boundary", "few_features",
                         "reward_classes", "limit", "network"}  # fmt: skip
    assert sum("sft" in cell.name for cell in cells) == 2
    for name, cell in kept.items():
        if name != "boundary":
            table = cell.call(**cell.arguments, checkpoint=None, progress=False)
            assert len(table) >= 3, name
            assert {"part", "seed", "objective"} <= set(table.columns), name


def test_fields_of_rules_reach_the_identity_of_a_run():
    p, ref, kick = games(1, 4, seed=117)
    run = tabular(objectives.get("spif"), p, ref, kick)
    for change in ({"method": "optimistic"}, {"pay": "rounds"}, {"batch": 3}):
        rules = dataclasses.replace(Rules(), **change)
        assert tabular(objectives.get("spif"), p, ref, kick, rules=rules).identity != run.identity
