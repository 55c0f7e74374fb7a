"""Restricted classes under gradient descent: destinations (T15), finite classes (T16), rewards."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.stats import intervals
from lab.streams import Streams
from theory import laws, objectives, theory_card
from theory.errors import InvalidInput
from theory.rounds.log_linear import LogLinear
from toy_games import launch
from toy_games.dynamics import finite_class
from toy_games.dynamics.measures import distance_to
from toy_games.dynamics.self_play import Data
from toy_games.dynamics.two_step import TwoStepRounds
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Neural
from toy_games.engine.trainable import beta_at
from toy_games.experiments.misspecification import Settings, read_once
from toy_games.games.contenders import Method, first_gradients, predicted, simulation
from toy_games.games.ladder import Ladder
from toy_games.predictions.misspecification import finite_class_bound, spin_threshold

ONE_STEP = [o.name for o in map(objectives.get, objectives.names())
            if theory_card(o).fixed_point_is_mle]  # fmt: skip
# Other sizes than the figure's, and with them other experts and classes.
LADDER = {"outcomes": 14, "capacities": (1, 3, 6, 13), "seeds": 4, "steps": 2200, "spread": 1.0}


def run(*parts, **given):
    return launch.run("misspecification", Settings(parts=parts, **given), progress=False)


@pytest.fixture(scope="module")
def ladder():
    return run("ladder", objectives=("spin", "spif", "ipo"), explicit=("spin",), **LADDER)


@pytest.fixture(scope="module")
def text():
    chosen = {"words": 4, "samples": 150, "text_steps": 300, "orders": (0, 1), "widths": (4,)}
    return run("text", objectives=("spin", "centred_spif"), explicit=("spin",), **chosen)


@pytest.fixture(scope="module")
def classes():
    """A log-linear and a neural class, expert, parameters and another direction of each."""
    it = Ladder.random([3], [5], 15, 1.0)
    game = read_once(4, 3, 2, 0.1)
    network = Neural(game.game, 3)
    rng = np.random.default_rng(11)
    many = LogLinearPolicy(it.features[0].numpy())
    pairs = ((many, it.expert[0]), (network, game.law))
    return [
        (
            policy,
            expert,
            policy.initial(rng, 0.5),
            torch.from_numpy(rng.standard_normal(policy.size)),
        )
        for policy, expert in pairs
    ]


def test_every_objective_is_tried_or_named_absent():
    elsewhere = {"gail", "ipm", "sppo", "inpo", "tspin", "alpha_spin"}
    assert set(ONE_STEP) | elsewhere == set(objectives.names())


# -- T15: the first gradient ----------------------------------------------------------------------


@pytest.mark.parametrize("name", ONE_STEP)
@pytest.mark.claim("T15.first_gradient", regime="dynamics")
def test_the_first_minibatch_gradient_is_the_sft_gradient_in_expectation(claim, classes, name):
    """Log-linear and neural: exact cosine 1, minibatch mean along SFT's gradient, none across."""
    for policy, expert, start, other in classes:
        found = first_gradients(Method(name, "one step"), policy, expert, start, other, 32, 150)
        claim.close(found["cosine"][0], 1.0, atol=1e-9, what="cosine with the SFT gradient")
        for part, target in (("along", 1.0), ("across", 0.0)):
            noise = 4 * found[part].std(ddof=1) / np.sqrt(len(found[part]))
            what = f"{part} the SFT gradient, 4 standard errors"
            claim.close(found[part].mean(), target, atol=noise, what=what, because="sampling")


@pytest.mark.parametrize("temperature", [0.7, 1.3])
@pytest.mark.claim("T15.first_gradient", regime="dynamics", drops="own_from_current")
def test_at_another_temperature_the_first_gradient_is_not_sfts(claim, classes, temperature):
    """Own responses hotter or colder than pi_t: the exact cosine falls and the mean leaves."""
    for policy, expert, start, other in classes:
        method = Method("spin", "one step")
        found = first_gradients(method, policy, expert, start, other, 32, 600, temperature)
        noise = found["along"].std(ddof=1) / np.sqrt(len(found["along"]))
        claim.exhibits(1.0 - found["cosine"][0], 1e-4, what="1 - cosine")
        off = abs(found["along"].mean() - 1.0) / noise
        claim.exhibits(off, 4.0, what="standard errors off", because="sampling")


# -- T15: the destination -------------------------------------------------------------------------


@pytest.mark.claim("T15.fixed_point", "S7.destination", regime="dynamics")
def test_one_loss_on_one_model_ends_at_the_maximum_of_likelihood(claim, ladder):
    """Gradient descent on exact laws, every capacity: SFT, one-step rounds and linear rewards."""
    for method in ("sft", "spin", "spif", "ipo", "moment matching"):
        part = ladder[ladder.method == method]
        what = f"{method}: TV to the MLE"
        claim.close(part.tv_mle, 0.0, atol=1e-4, what=what, because="chosen")
    whole = ladder[ladder.capacity == ladder.capacity.max()]
    what = "all methods find an expert in the class: TV"
    claim.close(whole.tv, 0.0, atol=1e-4, what=what, because="chosen")


@pytest.mark.claim("T15.own_measure", regime="dynamics")
def test_tabular_rewards_end_elsewhere_and_win_their_own_measure(claim, ladder):
    """Two-step SPIN: closer to the expert in KL(pi||p), further in KL(p||pi), for every expert."""
    small = ladder[ladder.capacity.isin((3, 6))]
    sides = [small[small.method == name].reset_index() for name in ("sft", "spin, two steps")]
    claim.exhibits(sides[1].tv_mle, 1e-3, what="TV to the MLE")
    claim.exhibits(
        sides[1].forward_kl - sides[0].forward_kl, 1e-6, what="KL(p||pi) above SFT's, nats"
    )
    claim.exhibits(
        sides[0].reverse_kl - sides[1].reverse_kl, 1e-6, what="KL(pi||p) below SFT's, nats"
    )


@pytest.mark.claim("T15.two_step_elsewhere", regime="dynamics")
def test_two_step_rounds_end_where_their_potential_is_stationary(claim):
    """SPIN at KL(pi||p), SPIF at its own, IPO (which has none) at SPIF's; by projected gradient."""
    it = Ladder.random(range(20, 24), [3], 14, 1.0)
    for spec, potential in (("spin", "spin"), ("spif", "spif"), ("ipo", "spif")):
        method = Method(spec, "two steps")
        rows = pd.DataFrame({"seed": it.seeds, "beta": beta_at(method.objective, 0.7), "rate": 0.3})
        rows["steps_per_round"] = 20
        start = torch.zeros(3, dtype=torch.float64)
        ends = simulation(method, it.policy, rows, it.expert, start, Data(batch=None), {})
        state = ends.start()
        for step in range(2000):
            state = ends.advance(state, step)
        for row, theta in enumerate(state["theta"].numpy()):
            p, law = it.law(row), it.model(row).law(theta)
            reward = objectives.get(potential).reward(p, law)
            slope = -(law * (reward - law @ reward)) @ it.model(row).features
            claim.close(slope, 0.0, atol=1e-6, what=f"{spec}: gradient of the potential")


@pytest.mark.claim("T15.fixed_point", "S7.destination", regime="dynamics")
def test_minibatch_rounds_end_within_their_noise_of_the_mle(claim):
    """TV falls as the square root of the rate: ratio (1 + t/h)^(-1/2) between two times."""
    it = Ladder.random(range(40, 100), [3], 12, 0.8)
    best, first, last, half = it.maximum_likelihood(), 300, 1800, 60.0
    for spec in ("sft", "spin"):
        method = Method(spec, "mle" if spec == "sft" else "one step")
        rows = pd.DataFrame({"seed": it.seeds, "beta": beta_at(method.objective, 1.0), "rate": 0.2})
        start = torch.zeros(3, dtype=torch.float64)
        made = simulation(method, it.policy, rows.assign(steps_per_round=20), it.expert, start,
                          Data(batch=16), {"off": distance_to(best)}, half_after=half)  # fmt: skip
        table = simulator.run(made, [first, last], progress=False)
        off = table.pivot(index="seed", columns="step", values="off")
        change = np.log(off[last] / off[first])
        expected = -0.5 * np.log((1 + last / half) / (1 + first / half))
        noise = 4 * change.std() / np.sqrt(len(change))
        what = f"{spec}: log ratio of TV to the MLE, 4 standard errors"
        claim.close(change.mean(), expected, atol=noise, what=what, because="sampling")


@pytest.fixture(scope="module")
def elsewhere():
    """Last rows of minibatch rounds whose predicted destination is not the MLE."""
    small = {"outcomes": 12, "capacity": 3, "seeds": 8, "spread": 1.0, "steps": 800}
    small |= {"objectives": ("spin",), "explicit": ("spin",), "tau": 0.5, "half_after": 60.0}
    found = run("destination", **small)
    last = found[found.step == found.step.max()]
    last = last[last.predicted > 1e-9]
    assert set(last[last.predicted > 0.01].method) == {
        "spin, two steps", "spin, temperature 0.7", "spin, temperature 1.3", "spin, anchor 0.5"
    }  # fmt: skip
    return last


@pytest.mark.parametrize(
    "methods",
    [
        pytest.param(("spin, temperature 0.7", "spin, temperature 1.3"), marks=pytest.mark.claim(
            "T15.fixed_point", "S7.destination", regime="dynamics", drops="own_from_current")),
        pytest.param(("spin, anchor 0.5",), marks=pytest.mark.claim(
            "T15.fixed_point", "S7.destination", regime="dynamics", drops="own_reference")),
        pytest.param(("spin, two steps",), marks=pytest.mark.claim(
            "T15.two_step_elsewhere", regime="dynamics")),
    ],
    ids=("temperature", "anchor", "two steps"),
)  # fmt: skip
def test_off_policy_and_anchored_minibatch_rounds_end_where_predicted(claim, elsewhere, methods):
    """Temperatures 0.7 and 1.3, an anchor: near their own fixed points, away from the MLE."""
    for method in methods:
        part = elsewhere[elsewhere.method == method]
        what = f"{method}: TV to its own end over the predicted distance of that to the MLE"
        claim.below(part.off.mean() / part.predicted.mean(), 0.5, what=what, because="chosen")
        claim.exhibits(part.tv_mle.mean(), 0.02, what=f"{method}: TV to the MLE")


@pytest.mark.claim("T15.temperature", "T15.temperature_power", regime="tabular")
@settings(max_examples=4)
@given(seed=st.integers(0, 2**20), temperature=st.sampled_from([0.6, 0.8, 1.25]))
def test_the_destination_at_a_temperature_is_the_mle_to_that_power(claim, seed, temperature):
    """What is sampled at the temperature is the MLE; the policy itself is its power T."""
    it = Ladder.random([seed], [3], 10, 1.0)
    best = it.maximum_likelihood()
    there = predicted(it, Method("spin", "one step", temperature), 1.0, best)[0, 0]
    spin = objectives.get("spin")
    path = it.model(0).self_play(it.law(0), np.zeros(3), spin, 1.5, 60, temperature=temperature)
    claim.close(path.policy, there.exp(), atol=1e-6, what="exact rounds against MLE^T")
    claim.exhibits(laws.total_variation(path.policy, best[0, 0].exp().numpy()), 1e-4, "TV")


# -- T15: stability -------------------------------------------------------------------------------

STABILITY = {"outcomes": 16, "capacity": 3, "seeds": 4, "spread": 1.0, "inner": (5, 400)}


@pytest.fixture(scope="module")
def rounds():
    return run("stability", factors=(0.85, 1.15), **STABILITY)


@pytest.mark.claim("T15.stability", regime="dynamics")
def test_solved_spin_rounds_are_stable_above_the_threshold_and_only_there(claim, rounds):
    """Deviations follow the linear map; 15 % below the threshold they grow, above they decay."""
    what = "distance against linear theory"
    claim.close(rounds.distance, rounds.predicted, 0.0, rtol=0.02, what=what, because="chosen")
    solved = rounds[rounds.steps_per_round == 400].pivot(
        index=["seed", "factor"], columns="round", values="distance"
    )
    growth = (solved[12] / solved[8]).unstack()
    claim.exhibits(growth[0.85], 1.5, what="growth over 4 rounds, 15 % below")
    what = "decay over 4 rounds, 15 % above"
    claim.below(growth[1.15], 0.5, what=what, because="chosen")


@pytest.mark.claim("T15.stability", regime="dynamics", drops="solved_rounds")
def test_unsolved_rounds_are_stable_below_the_threshold(claim, rounds):
    """Five gradient steps a round: 15 % below the threshold of solved rounds they contract."""
    short = rounds[(rounds.steps_per_round == 5) & (rounds["round"] == 12)]
    short = short[short.factor == 0.85]
    claim.exhibits(1.0 / short.distance, 2.0, what="contraction over 12 rounds")


@pytest.mark.claim("T15.stability", regime="dynamics")
def test_minibatch_spin_rounds_leave_the_mle_below_the_threshold_only(claim):
    """Drawn batches: 30 % below the threshold the policy is far from the MLE, 40 % above near."""
    it = Ladder.random(range(6), [3], 12, 0.8)
    edge = np.array([spin_threshold(*it.covariances(row)) for row in range(6)])
    best = it.maximum_likelihood()
    start = torch.stack(
        [torch.from_numpy(it.model(i).maximum_likelihood(it.law(i))) for i in range(6)]
    )
    ends = {}
    for factor in (0.7, 1.4):
        rows = pd.DataFrame({"seed": it.seeds, "beta": factor * edge, "rate": 0.3})
        made = simulation(Method("spin", "one step"), it.policy, rows.assign(steps_per_round=150),
                          it.expert, start, Data(batch=64), {"tv": distance_to(best)})  # fmt: skip
        table = simulator.run(made, [150 * t for t in range(8, 13)], progress=False)
        ends[factor] = table.groupby("seed").tv.mean()
    claim.exhibits(ends[0.7] / ends[1.4], 2.0, what="late TV to the MLE, below over above")


# -- T16 ------------------------------------------------------------------------------------------


@pytest.mark.claim("T16.mle_bound", regime="dynamics", of="classes")
@settings(max_examples=4)
@given(seed=st.integers(0, 2**20), horizon=st.integers(1, 5), n=st.sampled_from([5, 40, 200]))
def test_maximum_likelihood_stays_within_its_bound(claim, seed, horizon, n):
    """At any horizon no more than delta of the data sets break it (members far apart)."""
    members, delta = 32, 0.2
    class_ = finite_class.random_class(seed, members, horizon, 3, 1.5)
    found = finite_class.trial(class_, range(150), n, {}, 0)
    above = (found.hellinger > finite_class_bound(members, delta, n)).mean()
    what = "share of data sets above the bound"
    claim.below(above, delta, what=what, because="theory")
    tail = np.quantile(found.hellinger, 1 - delta)
    what = "D_H^2 at probability 1 - delta"
    claim.below(tail, finite_class_bound(members, delta, n), what=what, because="theory")


@pytest.mark.claim("T16.no_information", regime="dynamics", of="data sets")
def test_own_samples_do_not_help_to_find_the_expert(claim):
    """Uniform experts: maximum likelihood errs least; no paired gain of self-play beyond noise."""
    found = run("finite", objectives=("spin", "spif", "ipo"), trials=300, members=24, horizons=(3,),
                class_samples=(10, 60), class_spread=0.5, delta=0.2)  # fmt: skip
    found = found[~found.outside]
    for value in ("wrong", "hellinger"):
        wide = found.pivot(index=["n", "seed"], columns="method", values=value)
        for name in ("spin", "spif", "ipo"):
            gain = (wide["mle"] - wide[name]).groupby("n")
            noise = 4 * gain.std() / np.sqrt(300)
            what = f"{value}: MLE less {name}, 4 standard errors"
            claim.below(gain.mean(), noise, what=what, because="sampling")
        assert (wide["spin"] - wide["mle"]).mean() > 0


@pytest.mark.claim("T16.mle_bound", regime="dynamics", drops="expert_in_class", of="data sets")
def test_the_bound_fails_when_the_expert_is_no_member(claim):
    """A mixture of a member with the uniform law: the distance does not fall with n."""
    class_ = finite_class.random_class(5, 32, 4, 3, 1.0)
    found = finite_class.trial(class_, range(60), 1000, {}, 0, outside=True)
    bound = finite_class_bound(32, 0.2, 1000)
    claim.exhibits(found.hellinger / bound, 1.5, what="D_H^2 over the bound")


# -- real text ------------------------------------------------------------------------------------


@pytest.mark.claim("T15.fixed_point", "S7.destination", regime="dynamics")
def test_on_real_text_one_step_self_play_ends_beside_sft(claim, text):
    """Order 0, 150 phrases, minibatches: several times nearer to the MLE than two steps."""
    part = text[(text["class"] == "order") & (text.capacity == 0)]
    off = part.groupby("method").tv_mle.mean()
    for name in ("sft", "spin", "centred_spif"):
        what = f"{name}: TV to the MLE over that of two-step SPIN"
        claim.below(off[name] / off["spin, two steps"], 0.4, what=what, because="chosen")


@pytest.mark.claim("T15.own_measure", regime="dynamics")
def test_on_real_text_each_method_wins_its_own_measure(claim, text):
    """Order 0: two-step samples are likelier to the expert, SFT has the likelihood; intervals."""
    part = text[(text["class"] == "order") & (text.capacity == 0)]
    wide = {
        m: part.pivot(index="seed", columns="method", values=m) for m in ("judge", "forward_kl")
    }
    gaps = pd.concat(
        [pd.DataFrame({"of": m, "gap": wide[m]["spin, two steps"] - wide[m]["sft"]}) for m in wide]
    )
    low = intervals(gaps, ["of"], "gap").set_index("of").low
    claim.exhibits(low["judge"], 1.0, what="E log p of samples: two steps over SFT, nats")
    claim.exhibits(low["forward_kl"], 0.5, what="KL(p||pi): two steps over SFT, nats")


def test_sft_reads_as_many_responses_a_step_as_self_play():
    it = Ladder.random([0], [3], 8, 1.0)
    rows, start = pd.DataFrame({"seed": [0]}), torch.zeros(3, dtype=torch.float64)
    for kind, size in (("mle", 20), ("one step", 10), ("two steps", 20)):
        method = Method("sft" if kind == "mle" else "spin", kind)
        made = simulation(method, it.policy, rows, it.expert, start, Data(batch=10), {})
        assert made.data.batch == size


# -- the engine -----------------------------------------------------------------------------------


def two_steps(batch, seeds=1, **given):
    it = Ladder.random([2], [4], 9, 1.0)
    rows = pd.DataFrame({"seed": range(seeds), "beta": 1.0, "rate": 0.2, "steps_per_round": 4})
    policy = LogLinearPolicy(it.features.expand(seeds, -1, -1)[:, None])
    start = torch.linspace(-0.4, 0.5, 4, dtype=torch.float64)
    objective = objectives.get("spin")
    data = Data(batch=batch)
    return it, TwoStepRounds(policy, objective, rows, it.expert[0], start, data, **given)


def gradient_of(simulation_, state, step=0):
    point = state["theta"].clone().requires_grad_()
    (found,) = torch.autograd.grad(simulation_.loss(point, state, step).sum(), point)
    return found


def test_two_step_spin_at_beta_one_descends_the_reverse_kl():
    it, made = two_steps(None)
    state = made.start()
    state["theta"] = state["theta"] * 0.2 + 0.3  # within a round: the opponent cancels
    point = state["theta"].clone().requires_grad_()
    log_law = it.policy.log_law(point)
    (wanted,) = torch.autograd.grad((log_law.exp() * (log_law - it.expert.log())).sum(), point)
    torch.testing.assert_close(gradient_of(made, state), wanted, rtol=1e-10, atol=1e-12)


def test_the_policy_gradient_is_unbiased():
    _, exact = two_steps(None)
    _, drawn = two_steps(8, seeds=3000)
    state = drawn.start()
    state["theta"] = state["theta"] + 0.3  # within a round: the KL term counts
    there = exact.start()
    there["theta"] = there["theta"] + 0.3
    found = gradient_of(drawn, state)
    noise = 4 * found.std(0) / np.sqrt(len(found))
    assert ((found.mean(0) - gradient_of(exact, there)[0]).abs() < noise).all()


def test_linear_rewards_solve_their_normal_equations():
    it, made = two_steps(None, rewards="linear")
    state = made.start()
    p, q, x = it.expert[0, 0], state["opponent"][0, 0].exp(), it.features[0]
    reward = state["reward"][0, 0]
    torch.testing.assert_close(((p + q) * reward) @ x, (p - q) @ x, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("at", [1, 4, 9])
def test_an_interrupted_run_resumes_to_bitwise_the_same_table(tmp_path, at):
    whole = simulator.run(two_steps(8, 3, half_after=5.0)[1], [3, 11], progress=False)
    stopped = two_steps(8, 3, half_after=5.0)[1]
    inner = stopped.advance

    def advance(state, step):
        if step == at:
            raise KeyboardInterrupt
        return inner(state, step)

    stopped.advance = advance
    path = tmp_path / "run.npz"
    with pytest.raises(KeyboardInterrupt):
        simulator.run(stopped, [3, 11], path, False, every=0.0)
    resumed = simulator.run(two_steps(8, 3, half_after=5.0)[1], [3, 11], path, False)
    pd.testing.assert_frame_equal(resumed, whole, check_exact=True)


def test_ladders_are_nested_and_the_widest_class_holds_the_expert():
    it = Ladder.random([7], [2, 5, 8], 9, 1.2)
    assert torch.equal(it.features[0, :, :2], it.features[2, :, :2])
    likelihood = (it.expert * it.maximum_likelihood()).sum((-2, -1))
    assert (likelihood.diff() > 0).all()
    torch.testing.assert_close(it.maximum_likelihood()[2].exp(), it.expert[2], rtol=1e-6, atol=1e-9)
    assert isinstance(it.model(1), LogLinear)
    assert it.model(1).features.shape == (9, 5)


def test_draws_do_not_depend_on_the_other_experts():
    many, one = Ladder.random([1, 4], [3], 9, 1.0), Ladder.random([4], [3], 9, 1.0)
    assert torch.equal(many.features[1:], one.features)
    assert Streams([4]).seeds.tolist() == [4]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"capacities": (1, 40), "delta": 1.5, "seeds": 2}, ["capacities", "delta", "seeds"]),
        ({"parts": ("ladder", "letter"), "smoothing": 0.0}, ["letter", "smoothing"]),
        ({"objectives": ("sft", "spam"), "widths": (0,)}, ["sft", "spam", "widths"]),
        ({"explicit": ("ipo", "gail", "spin_hinge")}, ["ipo has no potential", "spin_hinge"]),
        ({"temperatures": (0.0,), "half_after": -1.0}, ["temperatures", "half_after"]),
        ({"parts": ("gradient",), "horizon": 3}, ["horizon=3; needed is >= 4"]),
    ],
)
def test_bad_settings_are_refused_all_at_once(given, words):
    with pytest.raises(InvalidInput) as caught:
        Settings(**given)
    assert all(word in str(caught.value) for word in words)


def test_unusable_rewards_and_rates_are_refused():
    with pytest.raises(InvalidInput, match="rewards='rich'"):
        two_steps(None, rewards="rich")
    with pytest.raises(InvalidInput, match="half_after"):
        two_steps(None, half_after=0.0)
    with pytest.raises(InvalidInput, match="features"):
        LogLinearPolicy(torch.zeros(3))
