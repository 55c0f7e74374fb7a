"""What stochastic gradients estimate: closed forms, enumeration and draws against each other."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lab.stats import fit_line
from theory import TokenMDP, objectives
from theory.errors import InvalidInput
from theory.objectives.finite_groups import expected_group_loss
from toy_games import launch
from toy_games.dynamics.self_play import Data, SelfPlay
from toy_games.engine.policies import LogLinearPolicy, Neural, Softmax, Tokens
from toy_games.estimators import losses as estimators
from toy_games.estimators import rewards as reward_estimators
from toy_games.estimators.enumeration import Draws, audit, gradient, monte_carlo
from toy_games.estimators.losses import EstimationProblem
from toy_games.experiments.audit import Settings, catalogue, make_problem, shrinking

EXACT = 1e-11
FAMILIES = st.sampled_from(["random", "text", "small"])
INSTANCES = st.integers(1, 10_000)
PLAYED = [n for n in objectives.names() if not objectives.get(n).missing("risk")]
MISPLACED = ("inpo", "tspin", "alpha_spin")
"""Losses whose rewards are not 0 at theta_t."""
FROM_START = [n for n in PLAYED if n not in (*MISPLACED, "sppo")]


def problem_of(case="random", instance=77, beta=0.8, distance=0.6):
    return make_problem(case, instance, beta, distance)


def named(found, name):
    (one,) = [e for e in found if e.name == name]
    return one


def on_class(kind, seed):
    """A problem on a tree with an end-of-sequence token, of a restricted class of policies."""
    rng = np.random.default_rng(seed)
    game = TokenMDP.random(vocab=3, horizon=2, rng=rng)
    policy = {
        "neural": lambda: Neural(game, width=3),
        "log-linear": lambda: LogLinearPolicy(rng.standard_normal((game.n_responses, 3))),
        "softmax": lambda: Softmax(game.n_responses),
        "tokens": lambda: Tokens(game.merged(0)),
    }[kind]()
    theta, theta_t, theta_ref = (policy.initial(rng, 0.8) for _ in range(3))
    expert = torch.from_numpy(game.sequence_law(game.expert)[0].copy())
    n = game.n_responses
    payoff, compare = torch.from_numpy(rng.standard_normal(n)), torch.full((n, n), 0.5).double()
    return EstimationProblem(policy, expert, theta, theta_t, theta_ref, payoff, compare, beta=1.3)


# -- the enumeration itself -----------------------------------------------------------------------


@pytest.mark.parametrize("case", ["random", "text"])
def test_draws_agree_with_the_enumeration(case):
    """Held out: for every estimator the whole vector of draws' means, against exact moments."""
    surprise = []
    for estimator in catalogue(problem_of(case, instance=5), size=2):
        found = audit(estimator)
        samples = 400
        means = monte_carlo(estimator, [91, 92, 93, 94, 95], samples)
        off = (means.mean(0) - found.mean) * np.sqrt(5 * samples)
        values, vectors = np.linalg.eigh(found.covariance.numpy())
        live = values > 1e-9 * values.max()
        assert np.abs(vectors[:, ~live].T @ off.numpy()).max(initial=0.0) < 1e-5
        size = float((((vectors[:, live].T @ off.numpy()) ** 2) / values[live]).sum())
        surprise.append(stats.chi2.sf(size, live.sum()))
    surprise = np.array(surprise)
    # Gradients of rare responses are far from normal in 2000 draws, hence the generous end.
    assert surprise.min() > 1e-9
    assert 0.3 < np.median(surprise) < 0.7


def test_the_audited_loss_is_the_one_that_self_play_descends():
    """Batches of `SelfPlay`, whose loss is other code, have the enumerated mean gradient."""
    problem = on_class("neural", 3)
    rows = [{"seed": s, "beta": problem.beta, "steps_per_round": 10} for s in range(400)]
    for name, data in (("spif", Data(batch=16)), ("centred_spif", Data(batch=16, group=2))):
        loss = objectives.get(name)
        run = SelfPlay(problem.policy, loss, pd.DataFrame(rows), problem.expert,
                       problem.theta_t, data)  # fmt: skip
        point = problem.theta.expand(len(rows), -1).clone().requires_grad_()
        values = run.loss(point, run.start(), 0).sum()
        (drawn,) = torch.autograd.grad(values, point)
        one = estimators.one_pair if loss.has_loss else estimators.grouped
        exact = audit(one(problem, loss) if loss.has_loss else one(problem, loss, 2))
        batches = data.batch if loss.has_loss else data.batch // 2
        error = exact.covariance.diagonal().sqrt() / np.sqrt(len(rows) * batches)
        assert ((drawn.mean(0) - exact.mean).abs() < 4.5 * error + 1e-12).all()


def test_enumeration_counts_every_order():
    law = torch.tensor([0.5, 0.0, 0.3, 0.2], dtype=torch.float64)
    problem = problem_of("small")
    mean_of_squares = dataclasses.replace(
        reward_estimators.policy_gradients(problem, 2)[0],
        draws=(Draws(law, 3),),
        loss=lambda t, y: t[:, 0] * y.to(torch.float64).mean(-1) ** 2,
    )
    value = torch.arange(4, dtype=torch.float64)
    mean = law @ value
    expected = mean**2 + (law @ value**2 - mean**2) / 3
    assert float(audit(mean_of_squares).mean[0]) == pytest.approx(float(expected), abs=1e-14)


def test_too_many_tuples_are_refused():
    problem = problem_of("random")
    with pytest.raises(InvalidInput, match="tuples of draws"):
        audit(reward_estimators.policy_gradients(problem, 12)[0])


@settings(max_examples=3)
@given(FAMILIES, INSTANCES)
def test_every_closed_form_is_the_expectation(case, instance):
    """All that the docstrings say an estimator really estimates, but for leading orders."""
    for estimator in catalogue(problem_of(case, instance), size=2):
        if estimator.predicted is not None and estimator.exact:
            assert audit(estimator).unexplained < 1e-9, estimator.name


# -- self-play losses -----------------------------------------------------------------------------


@pytest.mark.claim("T15.first_gradient", regime="dynamics", of="games")
@pytest.mark.parametrize("kind", ["neural", "log-linear", "softmax", "tokens"])
@settings(max_examples=3)
@given(seed=INSTANCES)
def test_first_gradients_are_those_of_sft(claim, kind, seed):
    problem = on_class(kind, seed)
    for name in FROM_START:
        found = audit(estimators.first_gradient(problem, objectives.get(name)))
        claim.close(found.relative_bias, 0.0, EXACT, what="E g - scale x SFT's, relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="at_start", of="games")
def test_later_gradients_are_not(claim):
    problem = problem_of(beta=0.8)
    for name in FROM_START:
        found = audit(estimators.first_gradient(problem, objectives.get(name), away=True))
        claim.exhibits(1.0 - found.cosine, 1e-4, what="1 - cosine with SFT's")


@pytest.mark.claim("T15.nwj", regime="dynamics", of="games")
@settings(max_examples=5)
@given(seed=INSTANCES)
def test_nwj_at_beta_one_is_sft_at_every_step(claim, seed):
    """Its own-response term is E_q e^(r-1) S = E_pi S / e = 0 wherever theta is."""
    problem = dataclasses.replace(on_class("log-linear", seed), beta=1.0)
    found = audit(estimators.first_gradient(problem, objectives.get("nwj"), away=True))
    claim.close(found.relative_bias, 0.0, EXACT, what="E g - SFT's, relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_reference", of="games")
@pytest.mark.parametrize("name", MISPLACED)
def test_displaced_losses_start_elsewhere(claim, name):
    found = audit(estimators.first_gradient(problem_of(), objectives.get(name)))
    claim.exhibits(1.0 - found.cosine, 2e-3, what="1 - cosine with SFT's")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_from_current", of="games")
@pytest.mark.parametrize("case", ["random", "text"])
def test_stale_own_samples_turn_the_first_gradient(claim, case):
    for estimator in estimators.stale_samples(problem_of(case)):
        found = audit(estimator)
        claim.exhibits(1.0 - found.cosine, 1e-4, what="1 - cosine with SFT's")
        claim.close(found.unexplained, 0.0, EXACT, what="E g - scale x (E_own S - E_p S), relative")


@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="sequence_ratios", of="games")
def test_dividing_by_length_turns_the_first_gradient(claim):
    found = audit(estimators.length_normalised(problem_of("text")))
    claim.exhibits(1.0 - found.cosine, 1e-2, what="1 - cosine with IPO's")
    claim.close(found.unexplained, 0.0, EXACT, what="E g - weighted SFT's and length's, relative")


def test_dividing_by_length_is_harmless_at_equal_lengths():
    problem = problem_of()
    fixed = Tokens(TokenMDP.random(vocab=2, horizon=3, seed=4, eos=None))
    rng = np.random.default_rng(8)
    theta, theta_t = (fixed.initial(rng, 1.0) for _ in range(2))
    expert = torch.from_numpy(fixed.game.sequence_law(fixed.game.expert)[0].copy())
    equal = dataclasses.replace(
        problem, policy=fixed, expert=expert, theta=theta, theta_t=theta_t, theta_ref=theta
    )
    for away in (False, True):
        assert audit(estimators.length_normalised(equal, away)).relative_bias < EXACT
    with pytest.raises(InvalidInput, match="end-of-sequence"):
        estimators.false_ends(equal, 2)


def test_false_ends_keep_the_prefix():
    problem = problem_of()
    rows = [r.tokens for r in problem.policy.game.sequences()[0]]
    law = dict(zip(rows, estimators.false_ends(problem, 1), strict=True))
    first = problem.policy.log_policy(problem.theta_t[None])[0, 0].exp()
    assert float(law[0,]) == pytest.approx(float(first[0]))
    assert float(law[2, 0]) == pytest.approx(float(first[2]))
    assert sum(float(v) for v in law.values()) == pytest.approx(1.0)


@settings(max_examples=3)
@given(FAMILIES, INSTANCES)
def test_pairs_and_u_statistics_are_unbiased(case, instance):
    problem = problem_of(case, instance)
    for name in PLAYED:
        loss = objectives.get(name)
        if loss.has_loss:
            assert audit(estimators.one_pair(problem, loss)).relative_bias < EXACT
    pairs = [audit(estimators.all_pairs(problem, objectives.get("ipo"), m)) for m in (1, 2)]
    assert pairs[1].relative_bias < EXACT
    assert pairs[1].deviation <= pairs[0].deviation  # four differences of four responses


@pytest.mark.claim("T17.finite_groups", regime="dynamics", of="games")
@settings(max_examples=4)
@given(instance=INSTANCES, size=st.integers(1, 3))
def test_plug_in_baselines_estimate_the_finite_group_risk(claim, instance, size):
    problem, centred = problem_of("small", instance), objectives.get("centred_spif")
    estimator = estimators.finite_groups(problem, centred, size)
    found = audit(estimator)
    claim.close(found.relative_bias, 0.0, EXACT, what="E g - gradient of the finite-group risk")

    def reward(theta):
        return problem.beta * (problem.log_law(theta) - problem.log_t)

    r, nudges = reward(problem.theta[None])[0].numpy(), np.eye(problem.expert.shape[0])
    p, q = (np.tile(law, (len(r), 1)) for law in (problem.expert, problem.log_t.exp()))
    # T17's risk is a quadratic of the rewards: central differences of any width are exact
    up, down = (
        expected_group_loss(p, q, r + sign * nudges, centred.c, size, size) for sign in (1.0, -1.0)
    )
    slope = torch.from_numpy(0.5 * (up - down))
    exact = gradient(lambda theta: reward(theta) @ slope, problem.theta)
    claim.close(estimator.target, exact, 1e-10, what="gradient of the risk against T17's form")


@pytest.mark.claim("T17.exact", regime="dynamics", drops="exact_baseline", of="games")
def test_plug_in_baselines_are_biased_for_the_exact_risk(claim):
    problem, centred = problem_of("small"), objectives.get("centred_spif")
    bias = [audit(estimators.grouped(problem, centred, m)).relative_bias for m in (1, 2, 4, 8)]
    claim.close(np.array(bias) * [1, 2, 4, 8], bias[0], 1e-9, what="bias x group size")
    claim.exhibits(bias[-1], 1e-3, what="relative bias at groups of 8")


def test_renyi_is_biased_by_one_over_m():
    problem, sizes = problem_of("small"), np.array([2, 4, 8])
    found = [audit(estimators.grouped(problem, objectives.get("renyi"), m)) for m in sizes]
    slope = fit_line(np.log(sizes), np.log([f.relative_bias for f in found])).slope
    assert -1.1 < slope < -0.85
    # What the leading order leaves is of second order.
    left = fit_line(np.log(sizes), np.log([f.unexplained for f in found])).slope
    assert left < -1.6


# -- KL penalties ---------------------------------------------------------------------------------

UNBIASED_KL = (
    "k2 as a loss",
    "k1 in the reward",
    "k1 in the reward to go",
    "vocabulary KL + score of prefixes",
    "k1 in the reward, old, reweighted",
)


@pytest.mark.parametrize("case", ["random", "text"])
def test_which_kl_penalties_are_unbiased(case):
    for estimator in reward_estimators.kl_penalties(problem_of(case)):
        bias = audit(estimator).relative_bias
        assert (bias < EXACT) if estimator.name in UNBIASED_KL else (bias > 0.02), estimator.name


def test_token_penalties_are_right_for_last_tokens_only():
    problem = problem_of("random")
    game = problem.policy.game
    last = torch.from_numpy((game.next_state < 0).all(-1).repeat(game.n_actions))
    found = reward_estimators.kl_penalties(problem)
    for name in ("k2 a token, as a loss", "vocabulary KL at prefixes"):
        estimator = named(found, name)
        off = (audit(estimator).mean - estimator.target).abs()
        assert off[last].max() < EXACT
        assert off[~last].max() > 0.01
    # A game of one token has last tokens only.
    single = on_class("tokens", 5)
    game = TokenMDP.random(vocab=4, horizon=1, seed=1)
    policy, rng = Tokens(game), np.random.default_rng(2)
    theta, theta_ref = (policy.initial(rng, 1.0) for _ in range(2))
    expert = torch.from_numpy(game.sequence_law(game.expert)[0].copy())
    single = dataclasses.replace(
        single, policy=policy, expert=expert, theta=theta, theta_t=theta, theta_ref=theta_ref
    )
    for name in ("k2 a token, as a loss", "vocabulary KL at prefixes", "k2 as a loss, old samples"):
        estimator = named(reward_estimators.kl_penalties(single), name)
        assert audit(estimator).relative_bias < EXACT


def test_the_vocabulary_takes_noise_away():
    found = reward_estimators.kl_penalties(problem_of("text"))
    noise = {e.name: audit(e).deviation for e in found if e.name in UNBIASED_KL}
    assert min(noise, key=noise.get) == "vocabulary KL + score of prefixes"
    assert noise["k1 in the reward to go"] < noise["k1 in the reward"]


# -- preferences and policy gradients -------------------------------------------------------------


@pytest.mark.claim("T11.sampled", regime="dynamics", of="games")
@settings(max_examples=4)
@given(case=FAMILIES, instance=INSTANCES, size=st.integers(2, 3))
def test_sampled_preferences_do_not_bias_a_squared_loss(claim, case, instance, size):
    found = reward_estimators.preference_targets(problem_of(case, instance), size)
    for name in (f"SPPO, {size} samples, others only", "SPPO, one coin flip a pair"):
        bias = audit(named(found, name)).relative_bias
        claim.close(bias, 0.0, EXACT, what="E g - gradient of SPPO's risk, relative")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="squared_loss", of="games")
def test_a_logit_of_sampled_preferences_does(claim):
    problem, sizes = problem_of("small"), np.array([3, 5, 9])
    found = [
        audit(named(shrinking(problem, m), f"logit target, {m} samples, others only"))
        for m in sizes
    ]
    bias = np.array([f.relative_bias for f in found])
    claim.exhibits(bias, 5e-4, what="relative bias of the gradient")
    left = np.array([f.unexplained for f in found])
    claim.below(left, 0.7 * bias, "bias beyond its leading order 1/(K-1)", because="chosen")


@pytest.mark.claim("T11.sampled", regime="dynamics", drops="no_self_comparison", of="games")
def test_self_comparison_shrinks_targets(claim):
    problem = problem_of("random", instance=6)
    start = dataclasses.replace(problem, theta=problem.theta_t)
    for size in (2, 3):
        name = f"SPPO, {size} samples, itself too"
        here, first = (
            audit(named(reward_estimators.preference_targets(p, size), name))
            for p in (problem, start)
        )
        claim.close(here.unexplained, 0.0, EXACT, what="E g - that of targets x (K-1)/K, relative")
        claim.close(first.relative_bias, 1.0 / size, EXACT, what="relative bias at theta_t: 1/K")
        claim.exhibits(here.relative_bias, 1e-3, what="relative bias at theta")


@settings(max_examples=3)
@given(FAMILIES, INSTANCES, st.integers(2, 3))
def test_baselines_of_policy_gradients(case, instance, size):
    problem = problem_of(case, instance)
    plain, others, mean, scaled, _ = (
        audit(e) for e in reward_estimators.policy_gradients(problem, size)
    )
    assert plain.relative_bias < EXACT
    assert others.relative_bias < EXACT
    assert mean.relative_bias == pytest.approx(1.0 / size, abs=EXACT)
    assert mean.cosine == pytest.approx(1.0, abs=EXACT)
    assert scaled.cosine < 1.0 - 1e-7


def test_the_true_gradients_are_those_of_finite_differences():
    """The targets come from automatic differentiation of exact sums; here from differences."""
    problem = problem_of("text")
    step = 1e-5 * torch.eye(problem.theta.numel(), dtype=torch.float64)

    def kl(theta):
        log_law = problem.log_law(theta)
        return (log_law.exp() * (log_law - problem.log_ref)).sum(-1)

    rough = (kl(problem.theta + step) - kl(problem.theta - step)) / 2e-5
    target = reward_estimators.kl_penalties(problem)[0].target
    torch.testing.assert_close(target, rough, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(target, gradient(kl, problem.theta))


# -- the experiment -------------------------------------------------------------------------------


def test_the_table_and_its_intervals():
    few = Settings(cases=("text",), instance=3, size=2, sizes=(2, 4), seeds=6, samples=300)
    table = launch.run("audit", few, progress=False)
    assert table.groupby(["case", "family", "name", "size"]).seed.nunique().eq(6).all()
    again = launch.run("audit", few, progress=False)
    assert again.equals(table)
    exact = table[table.exact & table.unexplained.notna()]
    assert exact.unexplained.max() < 1e-9
    means = table.groupby(["case", "family", "name", "size"]).agg(
        mean=("measured", "mean"), bias=("relative_bias", "first"), error=("error", "first")
    )
    score = (means["mean"] - means.bias) / (means.error / np.sqrt(6))
    assert (score.abs() > 1.96).mean() < 0.15
    assert score.abs().max() < 5.0


def test_an_interrupted_sweep_goes_on(tmp_path):
    few = Settings(cases=("text",), size=2, sizes=(2,), seeds=3, samples=10)
    whole = launch.run("audit", few, folder=tmp_path, progress=False)
    next((tmp_path / "parts").glob("sizes-*")).unlink()
    assert launch.run("audit", few, folder=tmp_path, progress=False).equals(whole)


def test_bad_settings_are_refused_together():
    with pytest.raises(InvalidInput) as refused:
        Settings(cases=("random", "poem"), sizes=(1, 4), beta=0.0, seeds=2)
    text = str(refused.value)
    for part in ("poem", "sizes=1;", "beta=0.0", "seeds=2"):
        assert part in text
    with pytest.raises(InvalidInput, match="once"):
        Settings(cases=("text", "text"))
