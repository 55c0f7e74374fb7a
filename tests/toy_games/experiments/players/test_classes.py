"""Two players of smaller classes: what their rewards and policies can see."""

import numpy as np
import pandas as pd
import pytest

from tests.toy_games.experiments.players.tabular import games
from theory import laws, objectives
from theory.rounds.log_linear import LogLinear
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.rewards import Linear
from toy_games.games.player_classes import few_features, network, reward_classes


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
