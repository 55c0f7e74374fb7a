"""Mass dumping by gradient descent: where it ends, how long it takes, what drops it (T4)."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.specs import objective_of
from theory import laws, objectives
from theory.errors import InvalidInput
from theory.rounds.one_step import one_step_round, partition_gap
from toy_games import launch
from toy_games.dynamics.self_play import FOREVER, Data, SelfPlay
from toy_games.engine import simulator
from toy_games.engine.policies import LogLinearPolicy, Softmax
from toy_games.engine.trainable import beta_at
from toy_games.experiments import dumping
from toy_games.predictions import unseen

LONG = FOREVER


def one_round(spec, data, own, start, steps, beta=1.0, rate=1.0, policy=None, record=None):
    """A round of exact gradients on given weights (rows, n), from the law ``start`` (rows, n)."""
    data, own, start = (np.atleast_2d(x) for x in (data, own, start))
    n = data.shape[-1]
    policy = Softmax(n) if policy is None else policy
    theta = policy.parameters_of(torch.from_numpy(np.log(start))[:, None])
    rows = pd.DataFrame({"seed": range(len(data)), "beta": beta, "rate": rate})
    rows = rows.assign(steps_per_round=LONG)
    run = SelfPlay(
        policy, objective_of(spec), rows, start[:, None], theta, Data(batch=None),
        dumping.MEASURES, given={"data": data[:, None], "own": own[:, None]},
    )  # fmt: skip
    return run, simulator.run(run, record or [0, steps], progress=False)


def left_out(law):
    """The law without its last outcome."""
    law = np.array(law)
    law[..., -1] = 0.0
    return law / law.sum(-1, keepdims=True)


def law_after(run, steps):
    state = run.start()
    for t in range(steps):
        state = run.advance(state, t)
    return run.log_law(state).exp()[:, 0].numpy()


# -- exact laws: covered or left out ---------------------------------------------------------------


@pytest.mark.claim("T4.covered_data", regime="dynamics")
def test_a_covered_outcome_stays_on_the_near_branch(claim):
    rng = np.random.default_rng(11)
    p, q = (laws.random_law(rng, (12, 5), 0.8) for _ in range(2))
    rare = 0.004
    p, q = (np.concatenate([(1 - rare) * x, np.full((12, 1), rare)], -1) for x in (p, q))
    near = one_step_round(p, q, objectives.get("spif"), 1.0)
    safe = near.dumped < 0
    assert safe.sum() >= 8
    run, _ = one_round("spif", p[safe], q[safe], q[safe], 1)
    after = law_after(run, 2500)
    claim.close(after, near.policy[safe], 1e-6, what="law from a warm start, near branch")


@pytest.mark.claim("T4.covered_data", regime="dynamics", drops="near_branch")
def test_where_the_near_branch_is_over_a_warm_start_dumps_on_a_covered_outcome(claim):
    p, q = np.stack([dumping.example(*case) for case in ((0.93, 0.02), (0.97, 0.02))], axis=1)
    found = one_step_round(p, q, objectives.get("spif"), 1.0)
    assert (found.dumped == 2).all()
    after = law_after(one_round("spif", p, q, q, 1)[0], 2000)
    claim.close(after, found.policy, 1e-6, what="law from a warm start, past the fold")
    claim.exhibits(np.log(after[:, 2] / q[:, 2]), 2.0, what="c r of the third outcome (bound: 1)")


@pytest.mark.claim("T4.covered_data", regime="dynamics", drops="covered")
def test_left_out_of_the_data_the_same_outcome_takes_the_missing_mass(claim):
    p, q = np.stack([dumping.example(share, 0.02) for share in (0.75, 0.85)], axis=1)
    spif = objectives.get("spif")
    near = one_step_round(p, q, spif, 1.0)
    assert (near.dumped < 0).all()
    _, table = one_round("spif", left_out(p), left_out(q), q, 2000)
    after = table.after.to_numpy()[-2:]
    missing = 1.0 - (1.0 - q[:, 2]) * np.exp(partition_gap(left_out(p), left_out(q), spif, 1.0))
    claim.close(after, missing, 1e-6, what="unseen mass: 1 - (1 - q_z) Z")
    claim.exhibits(after / near.policy[:, 2], 4.0, what="times the near branch's mass")


@pytest.mark.claim("T4.shift_invariant", regime="dynamics")
@pytest.mark.parametrize("spec", ["centred_spif", "ipo"])
@settings(max_examples=3)
@given(seed=st.integers(0, 10**6))
def test_shift_invariant_losses_freeze_unseen_logits(claim, spec, seed):
    rng = np.random.default_rng(seed)
    p, q, start = 0.8 * laws.random_law(rng, (3, 7), 1.2) + 0.2 / 7  # none too rare to settle
    p, q = left_out(p), left_out(q)
    run, table = one_round(spec, p, q, start, 600, record=[0, 1, 40, 600])
    state = run.start()
    before = state["theta"].clone()
    for t in range(40):
        state = run.advance(state, t)
    moved = state["theta"] - before
    claim.close(moved[:, -1], 0.0, 1e-13, what="logit of the unseen outcome")
    claim.close(moved.sum(-1), 0.0, 1e-12, what="sum of the seen logits")
    claim.close(table.after.iloc[-1:], table.predicted.iloc[-1:], 1e-5, what="unseen mass",
                because="chosen")  # fmt: skip
    obj = objective_of(spec)
    low, high = obj.reward_bounds
    claim.below(table.reward_unseen, high - low, what="|reward| of the unseen, range of R")


def test_supervised_fine_tuning_empties_what_it_does_not_see():
    p, q = dumping.example(0.8, 0.1)
    _, table = one_round("sft", left_out(p), left_out(q), q, 2000, record=[0, 200, 2000])
    assert (table.after.iloc[1:] <= [0.02, 0.002]).all()  # about 1/steps


@pytest.mark.claim("T4.no_dumping", regime="dynamics")
def test_sppo_on_preferences_does_not_dump(claim):
    cases = [(share, covered) for share in (0.65, 0.9) for covered in (True, False)]
    q = np.stack([dumping.example(share, 0.03)[1] for share, _ in cases])
    sides = [dumping.weights("sppo", share, 0.03, covered) for share, covered in cases]
    winners, losers = (np.stack(side) for side in zip(*sides, strict=True))
    third = law_after(one_round("spif", winners, losers, q, 1)[0], 1500)[:, 2]
    for (share, covered), after in zip(cases, third, strict=True):
        if covered:
            predicted = dumping.predicted("sppo", share, 0.03, True, 0.5)
            claim.close(after, predicted, 1e-5, what="third outcome: one-step SPPO",
                        because="chosen")  # fmt: skip
        else:
            claim.below(after, 0.03, what="unseen mass after SPPO")
        claim.below(np.log(after / 0.03), 1.0, what="c r of the third")


# -- how long --------------------------------------------------------------------------------------


@pytest.mark.claim("T4.descent_dumps", regime="dynamics")
@pytest.mark.parametrize(
    ("seen", "share", "masses", "counts"),
    [(4, 0.75, (0.004, 0.02), (1, 5)), (6, 0.9, (0.002, 0.015), (3, 24))],
)
def test_the_time_to_dump_is_hyperbolic_growth(claim, seen, share, masses, counts):
    s = dumping.Settings(shares=(share,), masses=masses, counts=counts, escape_steps=4000)
    table = dumping.escape(s, "spif", seen, progress=False)
    assert np.isfinite(table.steps_to_half).all()
    # Tolerance: records 10 % apart, joined by lines, and a slow manifold of relative error O(U).
    relative = 0.04 + 2.0 * table.outside + 1.5 / table.predicted_steps
    error = table.steps_to_half / table.predicted_steps - 1.0
    what = "relative error of the steps until half is dumped: O(unseen mass), O(1/steps)"
    claim.below(error.abs(), relative, what=what, because="expansion")


@pytest.mark.claim("T4.descent_dumps", regime="dynamics", drops="unrestricted_class")
def test_shared_parameters_dump_sooner(claim):
    """One logit for all of 30 unseen outcomes: the factor 1/M + 1/k becomes 1 + 1/k."""
    seen, count, share, outside = 4, 30, 0.85, 0.01
    data, own, start = dumping.spread_out(share, seen, count, outside, seen + count)
    obj = objectives.get("spif")
    tied = np.zeros((seen + count, seen + 1))
    tied[:seen, :seen], tied[seen:, seen] = np.eye(seen), 1.0
    record = simulator.log_steps(3000, 24)
    times = []
    for policy in (LogLinearPolicy(tied), Softmax(seen + count)):
        if isinstance(policy, LogLinearPolicy):
            theta = np.log(np.append(start[:seen], start[seen]))
        else:
            theta = np.log(start)
        rows = pd.DataFrame({"seed": [0], "rate": 1.0, "steps_per_round": LONG})
        given = {"data": data[None, None], "own": own[None, None]}
        run = SelfPlay(
            policy, obj, rows, start, theta, Data(batch=None), unseen.MEASURES, given=given
        )
        table = simulator.run(run, record, progress=False)
        half = 0.5 * table.predicted.iloc[0]
        times.append(np.interp(half, table.after, table.step))
    claim.exhibits(
        times[1] / times[0], 4.0, what="times sooner with one logit for all unseen outcomes"
    )
    ratio = (1.0 + 1.0 / seen) / (1.0 / count + 1.0 / seen)
    what = "times sooner against (1 + 1/k)/(1/M + 1/k)"
    claim.close(times[1] / times[0], ratio, 0.0, 0.06, what=what, because="chosen")


# -- samples ---------------------------------------------------------------------------------------


DUMPS = pytest.mark.claim("T4.descent_dumps", regime="dynamics")
KEEPS = pytest.mark.claim("T4.shift_invariant", regime="dynamics")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param("spif", marks=DUMPS),
        pytest.param("spif(c=2)", marks=DUMPS),
        pytest.param("centred_spif", marks=KEEPS),
        pytest.param("ipo", marks=KEEPS),
    ],
)
def test_unseen_mass_ends_where_the_samples_say(claim, spec):
    beta = 0.5 if spec == "spif(c=2)" else 1.0
    assert beta_at(objective_of(spec), dumping.Settings().step) == beta
    table = dumping.sampled(dumping.Settings(seeds=5), spec, 40, 24, 1, 1500, progress=False)
    end = table[table.step == 1500]
    claim.close(end.after, end.predicted, 2e-3, what="unseen mass after a round", because="chosen")
    if spec.startswith("spif"):
        claim.exhibits((end.after - end.before).mean(), 0.05, what="mean dumped mass")


def test_unseen_mass_after_sft_is_gone_but_for_one_over_the_steps():
    end = dumping.sampled(dumping.Settings(seeds=5), "sft", 40, 24, 1, 1500, progress=False)
    end = end[end.step == 1500]
    np.testing.assert_allclose(end.after, end.predicted, atol=0.02)


def test_sppos_factor_two_is_only_a_unit():
    """``spif(c=2)``, sppo_hard's loss up to a factor, at half of beta is the same path."""
    one, two = (
        dumping.sampled(dumping.Settings(seeds=3), spec, 20, 16, 1, 60, progress=False)
        for spec in ("spif", "spif(c=2)")
    )
    np.testing.assert_allclose(one.after, two.after, rtol=1e-12)


@pytest.mark.claim("T4.unbounded_rewards", regime="dynamics")
def test_rewards_of_unseen_outcomes_exceed_the_bound(claim):
    spif = dumping.sampled(dumping.Settings(seeds=5), "spif", 48, 128, 1, 2500, progress=False)
    centred = dumping.sampled(
        dumping.Settings(seeds=5), "centred_spif", 48, 128, 1, 800, progress=False
    )
    end = spif[(spif.step > 0) & (spif.before > 0)]
    least = np.log(end.after / end.before)
    claim.below(least, end.reward_unseen, what="mean log-ratio of the unseen, largest reward")
    claim.exhibits(end.reward_unseen.max(), 2.0, what="largest c|r| on unseen outcomes")
    what = "mean over seeds of the largest c|r| on unseen outcomes; the bound is 1"
    claim.exhibits(end.reward_unseen.mean(), 1.0, what=what, because="theory")
    claim.below(centred[["reward_unseen", "reward_seen"]], 2.0, what="centred: 2/c")


@pytest.mark.claim("T4.no_dumping", regime="dynamics")
def test_near_the_expert_the_samples_take_mass_from_the_unseen(claim):
    """At pi_t = p the seen gain in sum, as cosh(eta) > 1, and nothing is dumped."""
    rng = np.random.default_rng(5)
    p = np.tile(laws.random_law(rng, (60,), 0.3), (6, 1, 1))
    rows = pd.DataFrame({"seed": range(6), "rate": 1.0, "steps_per_round": LONG})
    data = Data(batch=None, expert_samples=16, own_samples=16)
    run = SelfPlay(
        Softmax(60), objectives.get("spif"), rows, p, np.log(p[0, 0]), data, unseen.MEASURES
    )
    end = simulator.run(run, [1200], progress=False)
    claim.close(end.after, end.predicted, 2e-3, what="unseen mass after a round", because="chosen")
    claim.exhibits((end.before - end.after).mean(), 0.05, what="mass taken from the unseen")


@pytest.mark.claim("T4.taken_back", regime="dynamics")
def test_later_rounds_take_dumped_mass_back(claim):
    table = dumping.sampled(dumping.Settings(seeds=6), "spif", 48, 48, 4, 700, progress=False)
    by_round = table.groupby("step")["first"].mean().to_numpy()
    claim.exhibits(by_round[1] - by_round[0], 0.1, what="dumped in round 1")
    left = by_round[4] / by_round[1]
    claim.below(left, 0.6, what="share of it there three rounds later", because="chosen")


@pytest.mark.claim("T4.descent_dumps", "T4.covered_data", regime="dynamics")
def test_minibatches_end_where_exact_gradients_do(claim):
    s = dumping.Settings(shares=(0.8,), rare=0.02, batches=(32, 0), path_rate=0.2, path_steps=2500)
    table = dumping.path(s, "spif", progress=False)
    end = table[table.step == 2500]
    for covered in (True, False):
        part = end[end.covered == covered]
        batches, exact = part[part.batch == 32].third, part[part.batch == 0].third.to_numpy()
        # Steps of constant size fluctuate about the end point; a mean over six runs.
        wide = 4.0 * batches.std() / np.sqrt(len(batches)) + 0.1 * exact
        predicted = dumping.predicted("spif", 0.8, 0.02, covered, 0.5)
        claim.close(exact, predicted, 2e-3, what="exact gradients against theory",
                    because="chosen")  # fmt: skip
        claim.close([batches.mean()], exact, float(wide[0]), what="mean over batches",
                    because="chosen")  # fmt: skip


@pytest.mark.claim("T4.descent_dumps", regime="dynamics", drops="unrestricted_class")
def test_on_real_text_a_neural_policy_dumps_sooner_than_a_table(claim):
    ends = {}
    for policy in ("softmax", "neural"):
        s = dumping.Settings(text_steps=150, seeds=4)
        table = dumping.text(s, "spif", policy, progress=False)
        ends[policy] = table[table.step == 150]
        assert (ends[policy].predicted > ends[policy].before + 0.1).all()
    share = {k: (v.after - v.before) / (v.predicted - v.before) for k, v in ends.items()}
    claim.exhibits(
        share["neural"].mean() - share["softmax"].mean(), 0.2, what="share dumped, beyond a table's"
    )
    claim.below(share["softmax"], 1.0, what="a table is still on its way")


# -- settings and machinery ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given_settings", "parts"),
    [
        ({"seeds": 2, "rare": 1.5, "step": 0.0}, ("seeds=2", "rare=1.5", "step=0.0")),
        ({"shares": (0.4, 0.8)}, ("shares",)),
        ({"objectives": ("spif", "sft", "nope")}, ("leave it out", "nope")),
        ({"samples": (0,), "rounds": 0}, ("samples", "rounds=0")),
    ],
)
def test_bad_settings_are_all_named(given_settings, parts):
    with pytest.raises(InvalidInput) as caught:
        dumping.Settings(**given_settings)
    assert all(part in str(caught.value) for part in parts)


def test_the_experiment_is_one_table():
    settings = dumping.Settings(
        objectives=("spif",), text_objectives=("spif",), seeds=3, batches=(8,), path_steps=3,
        escape_steps=3, counts=(1,), masses=(0.01,), sizes=(5,), samples=(4,), size=6, middle=4,
        steps=3, rounds=2, round_steps=2, text_steps=2,
    )  # fmt: skip
    table = launch.run("dumping", settings, progress=False)
    assert set(table.part) == {"path", "escape", "samples", "rounds", "text"}
    assert set(table.objective) == {"spif", "sft", "sppo"}
    keys = ["part", "objective", "seed", "share", "covered", "batch", "outside", "count_unseen"]
    keys += ["size", "samples", "policy", "step"]
    assert not table[keys].duplicated().any()
