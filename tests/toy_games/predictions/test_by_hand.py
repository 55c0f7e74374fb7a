"""What theory predicts of toy games, on cases small enough to be worked by hand."""

import dataclasses
from math import cosh, exp, log, log1p, pi, sqrt
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.linalg import solve_discrete_lyapunov

from theory import TokenMDP, objectives, preferences
from theory.errors import InvalidInput, NotConverged, Unavailable
from toy_games.dynamics.measures import NOTHING
from toy_games.dynamics.two_players import Players, Rules
from toy_games.engine.policies import Softmax, Tokens
from toy_games.engine.rewards import Table
from toy_games.predictions import (
    finite_samples,
    fixed_data,
    linearised,
    misspecification,
    preference_rounds,
    stability,
    two_players,
    unseen,
)

SPIN, SPIF = objectives.get("spin"), objectives.get("spif")
EQUAL = np.array([0.5, 0.5])


def close(found, expected, rtol=1e-12):
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=1e-12)


# -- one round of gradient steps ------------------------------------------------------------------


def spin_of_two(**given):
    """SPIN, beta = 2, expert (3/4, 1/4) against an even coin: a logistic regression in 2 t."""
    expert = torch.tensor([0.75, 0.25], dtype=torch.float64)
    opponent = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    return linearised.RoundLoss(Softmax(2), SPIN, expert, opponent, 2.0, **given)


def logits(t):
    return torch.tensor([t / 2, -t / 2], dtype=torch.float64)


def test_the_risk_of_a_round_and_its_minimum():
    t = 0.3
    pairs = 0.5 * log(2.0) + 0.375 * log1p(exp(-2 * t)) + 0.125 * log1p(exp(2 * t))
    close(float(spin_of_two().risk(logits(t))), pairs)
    settled = spin_of_two().minimise(logits(0.0))
    close(float(settled[0] - settled[1]), log(3.0) / 2)
    anchor = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    d = 2 * t + 1.5 * (t + log(3.0))
    anchored = 0.5 * log(2.0) + 0.375 * log1p(exp(-d)) + 0.125 * log1p(exp(d))
    close(float(spin_of_two(tau=1.5, log_ref=anchor).risk(logits(t))), anchored)


def test_the_risk_of_supervised_fine_tuning_is_the_cross_entropy():
    round_ = spin_of_two()
    sft = linearised.RoundLoss(round_.policy, None, round_.expert, round_.opponent, 2.0)
    law = 1 / (1 + exp(-0.3))
    close(float(sft.risk(logits(0.3))), -0.75 * log(law) - 0.25 * log(1 - law))


def test_steps_near_a_rounds_minimum():
    """Curvature and noise are both 3/4 along (1, -1)/sqrt 2, as in every logistic regression."""
    round_ = spin_of_two()
    settled = logits(log(3.0) / 2)
    local = round_.near(settled)
    close(local.values.numpy(), [0.75])
    close(local.noise.numpy(), [[0.75]])
    close(local.rate(0.4), 0.7)
    close(local.rate(4.0), 2.0)
    spread = 2 * sqrt(3.0) / (1 + sqrt(3.0)) ** 2  # D^2 of a unit error: 2 pi_1 pi_2
    close(local.decay(settled + logits(0.2), 0.4, [0, 1, 3]),
          0.1 * sqrt(2.0) * sqrt(spread) * np.array([1.0, 0.7, 0.343]))  # fmt: skip
    close(local.floor(0.4, 10), 0.16 / 10 * 0.75 / (1 - 0.49) * spread)


def test_noise_away_from_the_minimum_and_tiny_curvature():
    """Gradients of pairs at logit 0: -1 at 3/8, 1 at 1/8, else 0."""
    spread = 0.5 - 0.25**2
    close(spin_of_two().noise(logits(0.0)).numpy(), spread * np.array([[1, -1], [-1, 1]]))
    tiny = dataclasses.replace(spin_of_two(), beta=1e-6).near(logits(0.0))
    close(tiny.values.numpy() * 1e12, [2 * 0.5 / 4], 1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_common_shift_of_all_logits_has_no_curvature(seed):
    """Three responses have two directions, however rounding turns the third."""
    rng = np.random.default_rng(seed)
    expert, opponent = (torch.from_numpy(rng.dirichlet(np.ones(3))) for _ in range(2))
    round_ = linearised.RoundLoss(Softmax(3), SPIN, expert, opponent.log(), 2.0)
    theta = torch.from_numpy(rng.standard_normal(3))
    local = round_.near(theta)
    assert local.values.shape == (2,)
    close(local.values.sum(), round_.hessian(theta).trace(), 1e-9)


def test_a_round_that_starts_where_one_parameter_is_lost():
    game = TokenMDP.tree(3, 2)
    policy = Tokens(game)
    law = torch.full((game.n_responses,), 1.0 / game.n_responses, dtype=torch.float64)
    round_ = linearised.RoundLoss(policy, None, law, law.log(), 1.0)
    start = policy.initial(np.random.default_rng(0), 0.5)
    start[-1] = np.nan
    with pytest.raises(NotConverged, match="the round starts where steps have diverged"):
        round_.minimise(start)


def test_the_examples_of_pairs_and_of_groups():
    pairs = spin_of_two().examples
    chances = dict(zip(map(tuple, torch.cat([pairs.expert, pairs.own], 1).tolist()),
                       pairs.probability.tolist(), strict=True))  # fmt: skip
    assert chances == {(1, 0, 1, 0): 0.375, (1, 0, 0, 1): 0.375,
                       (0, 1, 1, 0): 0.125, (0, 1, 0, 1): 0.125}  # fmt: skip
    grouped = linearised.RoundLoss(
        Softmax(2), objectives.get("centred_spif"), spin_of_two().expert,
        spin_of_two().opponent, 2.0, group=2,
    ).examples  # fmt: skip
    for laws, known in ((grouped.expert, (9, 6, 1)), (grouped.own, (4, 8, 4))):
        found = {tuple(law): 0.0 for law in laws.tolist()}
        for law, chance in zip(laws.tolist(), grouped.probability.tolist(), strict=True):
            found[tuple(law)] += chance
        shares = zip([(1.0, 0.0), (0.5, 0.5), (0.0, 1.0)], known, strict=True)
        assert found == pytest.approx({law: share / 16 for law, share in shares})


def test_a_round_with_a_history_averages_over_its_examples():
    tspin = dataclasses.replace(spin_of_two(), objective=objectives.get("tspin"))
    history = torch.tensor([0.1, 0.9], dtype=torch.float64)
    given = dataclasses.replace(tspin, history=history)
    for round_ in (tspin, given):
        copies = round_.log_law(logits(0.3)).expand_as(round_.examples.own)
        mean = round_.examples.probability @ round_.losses(copies)
        close(float(round_.risk(logits(0.3))), float(mean))
    assert float(given.risk(logits(0.3))) != pytest.approx(float(tspin.risk(logits(0.3))))


def test_groups_too_many_to_list_are_refused():
    obj, expert, opponent = objectives.get("centred_spif"), *(torch.full((2,), x) for x in (0.5, 0))
    linearised.RoundLoss(Softmax(2), obj, expert, opponent, 1.0, group=446)  # 447^2 pairs
    linearised.RoundLoss(Softmax(30), obj, torch.full((30,), 1 / 30), torch.zeros(30), 1.0)
    with pytest.raises(InvalidInput, match="200704 pairs"):
        linearised.RoundLoss(Softmax(2), obj, expert, opponent, 1.0, group=447)
    with pytest.raises(InvalidInput, match="2 prompts"):
        linearised.RoundLoss(Softmax(2, prompts=2), SPIN, expert, opponent, 1.0)


def test_the_factor_of_a_round_of_steps():
    close(linearised.step_factor(0.5, 0.2, 0.3, [0, 1, 2]), [1.0, 0.94, 1 - 0.5 * (1 - 0.88**2)])


def test_fishers_matrix_and_the_distance_of_laws():
    values, vectors = linearised.fisher(Softmax(2), logits(log(3.0)))  # law (3/4, 1/4)
    close(values.numpy(), [0.0, 2 * 3 / 16])
    close(np.abs(vectors[:, 1].numpy()), sqrt(0.5))
    target = torch.tensor([0.25, 0.75], dtype=torch.float64).log()
    other = target + torch.tensor([0.2, -0.4], dtype=torch.float64)
    close(float(linearised.distance(other, target)), sqrt(0.25 * 0.04 + 0.75 * 0.16))


# -- rounds near the expert -----------------------------------------------------------------------


def test_factors_distances_and_floors_of_rounds():
    close(stability.inner_factor(0.5, 0.3, 0.1), 1 - 0.5 * (1 - 0.8**3))
    close(stability.breaking_distance([4.0, 1.5], 0.1), [0.1 * log(0.5) / log(0.975), np.inf])
    close(stability.breaking_distance([4.0, 2.5]), [4 * log(2.0), 2.5 * log(5.0)])
    close(stability.inner_factor(4.0, 0.1 * log(0.5) / log(0.975), 0.1), -1.0)
    close(stability.noise_floor(0.5, 3, 100), 2 / 100 * 0.5 / 1.5)
    close(stability.noise_floor(0.5, 3, 100, own=0.5), 2 / 100 * 0.25 / (0.25 * 1.75))
    close(fixed_data.fixed_data_floor([1.0, 0.5], 3, 100), 2 / 200 * np.array([2.0, 4 / 3]))
    close(fixed_data.fixed_data_floor(1.6, 3, 100, 4), 2 / 200 * 2.0)


def test_one_data_set_by_hand():
    """n = 100, two or one directions; half or minus half of the start left after a round."""
    close(fixed_data.own_counts(1.5, [0.0, -1.0, 0.5], 4), [0.5, 0.0, 0.75])
    close(fixed_data.kl_after(1, [0.5, 0.5], 100, start=[0.04, 0.04]), 0.02 + 0.01 * 0.5)
    close(fixed_data.kl_after(1, [1.5], 100, 3, start=0.08), 0.02 + 0.005 * (2.25 + 0.75))
    close(fixed_data.kl_after(np.inf, [1.5, 1.0], 100), 0.005 * (4.0 + 2.0))
    close(fixed_data.kl_after(0, [0.5], 100, start=0.08, learned=0.5), 0.02 + 0.005 * 0.25)
    stop = fixed_data.best_stop(0.5, 3, 100, 1, start=0.08)  # F = .01, v = 1/3
    close(stop, [0.01 / (0.08 + 0.02 / 3), 0.04 / 3 - 1e-4 / (0.08 + 0.02 / 3),
                 np.log(0.01 / (0.08 + 0.02 / 3)) / np.log(0.5)])  # fmt: skip
    close(fixed_data.best_stop(0.5, 3, 100, 1, start=0.003).kl, 0.003)  # below F v: the start
    close(fixed_data.smoothed_excess(1.0, [30, 10], 10.0), (0.25 * 0.6 + 0.75 / 3) / 80)
    close(fixed_data.unseen_fall(SPIN, 0.5, 2, 0.5), 0.5 * log(2.0))
    close(fixed_data.unseen_fall(SPIF, 0.5, 1, 0.0), 1.0)
    mass, log_mass = fixed_data.unseen_mass(50.0, 10, 4)  # one sample ends it: q below 1/40
    close(mass, 1.0 / 2000)
    close(log_mass, -log(40.0) - np.euler_gamma - 25.0)
    close(fixed_data.inner_steps(2.0, 0.5, [0.4, 1.0], 2), [2 * (1 - 0.81), 2 * (1 - 0.5625)])
    close(fixed_data.inner_cosine([1.0, 0.5], [1.0, 1.0], [1.0, 1.0]), 3.0 / sqrt(10.0))
    close(fixed_data.inner_angle(2.0, 0.5, np.array([0.2, 0.6]), [1.0, 1.0], 5), 0.5 * 0.2)
    close(fixed_data.least_cosine(2.0, 0.5, np.array([0.4, 1.0]), 1), 1.0)


WRONG = {
    "noise_floor": (lambda: stability.noise_floor(2.0, 3, 100), "step=2.0; needed is step"),
    "step 2 and more": (lambda: fixed_data.fixed_data_floor(2.5, 3, 100), "step=2.5; needed"),
    "samples": (lambda: fixed_data.fixed_data_floor(1.0, 3, 0), "samples=0; needed"),
    "outcomes": (lambda: fixed_data.fixed_data_floor(1.0, 2.5, 10), "outcomes=2.5; needed"),
    "own_noise": (lambda: fixed_data.own_noise(3.0), "step=3.0; needed"),
    "own_noise, K": (lambda: fixed_data.own_noise(1.0, 0), "per_expert=0; needed"),
    "own_counts": (lambda: fixed_data.own_counts(2.0), "step=2.0; needed"),
    "kl_after": (lambda: fixed_data.kl_after(-1, [0.5], 100), "rounds=-1; needed"),
    "kl_after, learned": (lambda: fixed_data.kl_after(1, [0.5], 9, learned=2), "learned=2; needed"),
    "best_stop": (lambda: fixed_data.best_stop(1.0, 3, 9, learned=1.0), "learned=1.0; needed"),
    "smoothing": (lambda: fixed_data.smoothed_steps(1.0, [0, 1], 0.0), "counts: 0 without"),
    "excess": (lambda: fixed_data.smoothed_excess(1.0, [1], -1.0), "smoothing=-1.0; needed"),
    "unseen_fall": (lambda: fixed_data.unseen_fall(SPIF, 0.0), "step=0.0; needed"),
    "infinite fall": (lambda: fixed_data.unseen_mass(np.inf, 10, 10), "fall=inf; needed"),
    "no fall": (lambda: fixed_data.unseen_mass(0.0, 10, 10), "fall=0.0; needed"),
}


@pytest.mark.parametrize(("call", "said"), WRONG.values(), ids=WRONG)
def test_what_one_data_set_refuses(call, said):
    with pytest.raises(InvalidInput, match=said):
        call()


def test_the_floor_on_one_data_set_is_that_of_its_recursion():
    for step, per_expert in ((0.1, 1), (0.9, 3), (1.7, 1)):
        around = 0.0  # variance of the log-ratio to the data's own law, in units of (N-1)/n
        for _ in range(500):
            around = (1 - step) ** 2 * around + step**2 / per_expert
        found = fixed_data.fixed_data_floor(step, 11, 50, per_expert)
        close(found, 0.5 * 10 / 50 * (around + 1.0))


def test_rare_responses_rise_and_fall_at_the_rewards_of_one_sample():
    """IPO's link tanh(u/2)/(1 + Delta/2): Delta is 2 at worst for a rise, 0 for a fall."""
    ipo, step, samples = objectives.get("ipo"), 0.5, 40
    beta = 0.5 / step  # the slope at 0 over the effective step
    shown = (samples * 0.01 + 0.5) / 0.5
    rise = (shown - 1) / (shown + 1) / 2 / beta
    close(stability.slowest_rate(ipo, step, samples, 0.01), rise)
    kept = exp((1 / 3 - 1) / (1 / 3 + 1) / beta)
    close(
        stability.tail_mass(ipo, step, samples, [1, 8]), 1 / (1 - kept) / samples / np.array([1, 8])
    )
    kept = exp((0.2 - 1) / (0.2 + 1) / beta)
    close(stability.tail_mass(ipo, step, samples, 2, 0.25), 1 / (1 - kept) / samples / 2)


# -- responses in nobody's data -------------------------------------------------------------------

DATA, OWN, START = np.array([0.75, 0.25, 0.0]), np.array([0.25, 0.75, 0.0]), [0.4, 0.4, 0.2]


def settled(name, data=DATA, own=OWN, start=START, beta=2.0):
    obj = None if name is None else objectives.get(name)
    return unseen.settled_mass(obj, data, np.asarray(own), np.asarray(start), beta)


def test_where_the_mass_of_unseen_responses_settles():
    """SPIF asks for rewards (1/2, -1/2), SPIN for +-log 3 up to a constant."""
    close(settled("spif"), 1 - 0.8 * cosh(0.25))
    close(settled("spin"), 0.2 / (0.2 + 0.4 * (sqrt(3.0) + 1 / sqrt(3.0))))
    mean = log(0.75) / 2
    moved = 0.5 * exp((log(1.5) - mean) / 2) + 0.3 * exp((log(0.5) - mean) / 2)
    uneven = settled("spin", own=[0.5, 0.5, 0.0], start=[0.5, 0.3, 0.2])
    close(uneven, 0.2 / (0.2 + moved))
    assert settled(None) == 0.0
    assert settled("spif", start=[0.499, 0.499, 0.002]) == 0.0  # more is asked for than there is
    assert settled("spif", start=[0.6, 0.4, 0.0]) == 0.0
    assert settled("spin", own=[1.0, 0.0, 0.0]) == 0.0  # an unbounded reward takes all
    close(settled("spif", beta=[2.0, 4.0]), 1 - 0.8 * np.cosh([0.25, 0.125]))


def test_the_measure_of_settled_mass_is_that_of_each_rows_data():
    run = SimpleNamespace(objective=SPIF, beta=torch.tensor([2.0, 4.0], dtype=torch.float64))
    law = torch.tensor(START, dtype=torch.float64).log()
    closed = torch.cat([law[:2], torch.tensor([NOTHING])])  # padding in the second prompt
    weights = {k: torch.from_numpy(v).expand(2, 2, 3) for k, v in (("data", DATA), ("own", OWN))}
    found = unseen.predicted_after(run, weights | {"opponent": torch.stack([law, closed])}, 0)
    close(found.numpy(), (1 - 0.8 * np.cosh([0.25, 0.125])) / 2)


@pytest.mark.parametrize("name", ["spif(c=0.5)", "brier"])
def test_escape_is_the_path_of_gradient_descent(name):
    """The loss's own descent on two seen and two unseen logits, in small steps."""
    obj, beta, rate = objectives.get(name), 2.0, 0.2
    data, own, seen, outside = DATA[:2], OWN[:2], np.array([0.19, 0.80]), 0.01
    steps, masses = unseen.escape(obj, data, own, seen, outside, 2, beta, rate, 400)
    end = 1 - (seen * np.exp(np.asarray(obj.reward(data, own)) / beta)).sum()
    close(masses[-1], 0.999 * end, 1e-3)
    assert steps[0] == 0.0
    assert steps[-1] < 10_000
    start = np.log(np.concatenate([seen, [outside / 2, outside / 2]]))
    z, path = start.copy(), []
    slope = {"spif(c=0.5)": 1.0, "brier": 0.25}[name]
    for _ in range(int(steps[-1]) + 1):
        law = np.exp(z) / np.exp(z).sum()
        path.append(law[2:].sum())
        r = torch.tensor(beta * (np.log(law[:2]) - start[:2]), requires_grad=True)
        loss = -(torch.from_numpy(data) * obj.a(r) + torch.from_numpy(own) * obj.b(r)).sum()
        force = np.append(torch.autograd.grad(loss, r)[0].numpy(), [0.0, 0.0])
        z = z + rate / slope * (law * force.sum() - force)
    for share in (0.2, 0.5, 0.8):
        reached = steps[np.searchsorted(masses, share * end)]
        assert np.argmax(np.array(path) > share * end) == pytest.approx(reached, rel=0.01)


# -- two players ----------------------------------------------------------------------------------


def two_responses(name, step_policy, step_reward, **rules):
    """Even expert of two responses, both players at rest; only differences d and rho matter."""
    rows = pd.DataFrame({"seed": [0], "step_policy": step_policy, "step_reward": step_reward})
    rest = np.zeros(2), np.zeros(2)
    return Players(Softmax(2), Table(2), objectives.get(name), rows, EQUAL, rest, Rules(**rules))


def test_without_a_penalty_two_players_turn_outwards():
    """d gains step rho/2 and rho loses step d/2."""
    run = two_responses("ipm", 0.3, 1.2)
    close(two_players.predicted_factor(run, run.start()), sqrt(1 + 0.3 * 1.2 / 4), 1e-9)


def test_the_spread_of_two_players_by_batches():
    """The penalty takes c of rho a unit step; 2/m is the variance of both sides' p_1 - p_2."""
    run = two_responses("spif(c=0.5)", 0.6, 0.8, batch=20)
    map_ = np.array([[1.0, 0.6 / 2], [-0.8 / 2, 1.0 - 0.8 * 0.5]])
    close(two_players.predicted_factor(run, run.start()), np.abs(np.linalg.eigvals(map_)).max())
    spread = solve_discrete_lyapunov(map_, np.diag([0.0, 0.8**2 * 2 * (2 / 20) / 2]))
    close(two_players.predicted_spread(run, run.start()), np.trace(spread) / 2)


def test_the_spread_of_an_uneven_game():
    """Gradients of a side are of one response each: (diag p - p p^T)/m from either."""
    p, rest = np.array([0.7, 0.2, 0.1]), (np.log([0.7, 0.2, 0.1]), np.zeros(3))
    rows = pd.DataFrame({"seed": [0], "step_policy": [0.6], "step_reward": [0.8]})
    run = Players(Softmax(3), Table(3), SPIF, rows, p, rest, Rules(batch=20))
    state = run.start()
    noise = np.zeros((6, 6))  # the reward's three numbers come first
    noise[:3, :3] = 0.8**2 * 2 * (np.diag(p) - np.outer(p, p)) / 20
    update, spread = two_players.update_jacobian(run, state)[0], np.zeros((6, 6))
    for _ in range(3000):
        spread = update @ spread @ update.T + noise
    seen = two_players.observation_jacobian(run, state)[0]
    close(two_players.predicted_spread(run, state), np.trace(seen @ spread @ seen.T), 1e-6)


def test_the_growth_of_a_distance_is_read_off_the_linear_regime():
    run = two_responses("spif(c=0.5)", 0.6, 0.8)
    run._phi = torch.tensor([[1e-3, -1e-3]], dtype=torch.float64)
    slope, error = two_players.growth(run, 200)
    predicted = np.log(two_players.predicted_factor(run, two_responses("spif", 1, 1).start()))
    assert abs(slope - predicted)[0] <= error[0] < 0.05


def test_the_linear_regime_of_two_rows(monkeypatch):
    """Row 0 enters at a distance of e^-4 and leaves for good; row 1 grows slowly all the time."""
    time = np.arange(101.0)
    first = np.where(time < 10, -1.0 + 0.1 * time, -4.0 - 0.2 * (time - 10))
    first = np.where(time < 90, first, np.where(time < 95, -1.0, -10.0))
    size = np.exp(np.stack([first, -20.0 + 0.05 * time], -1))
    asked = {}

    def run(players, record, checkpoint, progress):
        asked.update(record=record, measures=players.measures)
        return pd.DataFrame({"distance": size.ravel()})

    monkeypatch.setattr(two_players.simulator, "run", run)
    slope, resolution = two_players.growth(SimpleNamespace(), 100)
    close(slope, [-0.2, 0.05], 1e-9)
    close(resolution, 0.0)
    np.testing.assert_array_equal(asked["record"], time)
    assert asked["measures"] == {"distance": two_players.distance}


def test_where_a_rate_turns_positive():
    low, high = np.array([0.01, 0.01, 0.01]), np.array([10.0, 10.0, 10.0])
    at = np.array([0.3, 1e3, 2.0])[:, None]
    close(two_players.crossing(lambda s: np.log(s / at), low, high), [0.3, 10.0, 2.0], 1e-9)
    broken = two_players.crossing(lambda s: np.where(s < 0.3, -1.0, np.nan), low[:1], high[:1])
    close(broken, 0.3, 0.03)


def test_the_slope_of_a_line_and_its_ripple():
    time = np.arange(5.0)[:, None]
    used = np.array([[False], [True], [True], [True], [True]])
    wave = np.array([[9.0], [0.1], [-0.1], [-0.1], [0.1]])
    slope, resolution = two_players._line(time, 2.0 - 0.5 * time + wave, used)
    close(slope, [-0.5])
    close(resolution, [3 * 0.2 / 3])


# -- classes that cannot represent the expert -----------------------------------------------------


def test_the_bound_of_a_class():
    close(misspecification.finite_class_bound(10, 0.1, 50), 2 * log(100.0) / 50)


def test_spins_threshold_and_its_rounds_of_steps():
    s_p, s_q = np.eye(2), np.diag([1.0, 3.0])
    close(misspecification.spin_threshold(s_p, s_q), 0.75)
    close(misspecification.spin_round(s_p, s_q, 2.0, 0.1, 1), np.diag([0.9, 0.7]))
    close(misspecification.spin_round(s_p, s_q, 2.0, 0.1, 2), np.diag([0.82, 0.52]))
    close(misspecification.spin_round(s_p, s_q, 4.0, 0.1, 1), np.diag([0.9, 0.7]))
    close(misspecification.spin_round(s_p, s_q, 4.0, 0.1, 10**4), np.diag([0.75, 0.625]))


# -- preferences ----------------------------------------------------------------------------------

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


# -- finite samples -------------------------------------------------------------------------------


def test_growth_of_rewards_under_the_logistic_loss():
    data, own = np.array([0.5, 0.5, 0.0, 0.0]), np.array([0.0, 0.5, 0.5, 0.0])
    close(finite_samples.logistic_growth(data, own), [1.0, 0.0, -1.0, 0.0])
    apart = finite_samples.logistic_growth(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]))
    close(apart, [0.5, -0.5, 0.0])


def test_the_margin_of_one_pair():
    margin = np.array([1e-3, 2.0, 30.0])
    time = (margin + np.expm1(margin)) / 0.4
    close(finite_samples.pair_margin(time, 0.4), margin, 1e-9)


def test_what_a_best_response_asks_for():
    close(finite_samples.bounded_range(SPIF, DATA, OWN), 1.0)
    close(finite_samples.demanded_mass(SPIF, 2.0, DATA, OWN, np.array(START)), 0.8 * cosh(0.25))


def test_what_samples_of_different_outcomes_ask_for():
    """SPIF pays 1 where only the expert was seen, -1 where only the policy was."""
    data, own, law = np.eye(3)[0], np.eye(3)[1], np.array([0.5, 0.2, 0.3])
    asked = finite_samples.demanded_mass(SPIF, 2.0, data, own, law)
    close(asked, 0.5 * exp(0.5) + 0.2 * exp(-0.5))
    close(finite_samples.bounded_range(SPIF, data, own), 2.0)


def test_the_limit_of_a_round_that_asks_for_too_much():
    data, own, beta, c = np.array([0.6, 0.4, 0.0]), np.array([0.2, 0.8, 0.0]), 0.3, 2.0
    opponent = np.array([0.45, 0.45, 0.1])
    found = finite_samples.squared_limit(c, beta, data, own, opponent)
    law = found.law[:2]
    assert law.sum() == pytest.approx(1.0)
    assert found.law[2] == 0.0
    r = beta * np.log(law / opponent[:2])
    close((data + own)[:2] * c * r - (data - own)[:2], found.multiplier * law, 1e-9)
    close(found.unseen_time, 1 / (beta * -found.multiplier * (1 / 1 + 1 / 2)))
    apart = finite_samples.squared_limit(
        1.0, 0.3, np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), opponent
    )
    r = 0.3 * np.log(apart.law[:2] / opponent[:2])
    close(r - np.array([1.0, -1.0]), apart.multiplier * apart.law[:2], 1e-9)
    with pytest.raises(InvalidInput, match="attained"):  # there is room
        finite_samples.squared_limit(c, beta, data, own, np.array([0.3, 0.3, 0.4]))
    with pytest.raises(InvalidInput, match="attained"):  # nothing is unseen
        finite_samples.squared_limit(c, beta, data[:2], own[:2], np.array([0.9, 0.1]))
