"""What experiments are made of: their parts, their laws and samples, and small tables by hand."""

import dataclasses
from math import exp, inf
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch

from lab.streams import Streams
from theory import objectives, self_play
from theory.errors import InvalidInput
from toy_games.estimators.enumeration import Draws, Estimator
from toy_games.experiments import (
    audit,
    dumping,
    finite_samples,
    misspecification,
    players,
    preferences,
    sgd,
    stability,
)
from toy_games.games.two_players import instance


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def by_name(module, **settings):
    found = module.cells(module.Settings(**settings))
    return {cell.name: cell for cell in found}


EMPTY = SimpleNamespace(name="")  # an estimator, where none is computed


# -- parts ----------------------------------------------------------------------------------------


def test_parts_of_audit_and_dumping(monkeypatch):
    s = audit.Settings(size=4, seeds=5, samples=7, instance=2, beta=0.3, distance=0.1)
    made = {cell.name: cell for cell in audit.cells(s)}
    assert made["text"].arguments == {"case": "text", "s": s}
    assert made["sizes"].arguments == {"s": s}
    seen = []
    monkeypatch.setattr(audit, "make_problem", lambda *given: given)
    for name in ("catalogue", "shrinking"):
        monkeypatch.setattr(audit, name, lambda *given: seen.append(given) or [EMPTY])
    described = []
    monkeypatch.setattr(
        audit, "describe", lambda *given: described.append(given) or pd.DataFrame({"name": []})
    )
    made["text"].call(**made["text"].arguments)
    assert seen == [(("text", 2, 0.3, 0.1), 4)]
    assert described == [("text", EMPTY, range(5), 7)]
    made["sizes"].call(**made["sizes"].arguments)
    assert seen[1:] == [(("small", 2, 0.3, 0.1), size) for size in (2, 4, 8)]
    assert described[1:] == [("sizes", EMPTY, range(5), 7)] * 3
    s = dumping.Settings(step=0.4, seeds=3)
    made = {cell.name: cell for cell in dumping.cells(s)}
    assert len(made) == 49
    assert made["escape-spif"].arguments == {"s": s, "spec": "spif"}
    assert (s.shares[0], s.step, s.escape_steps) == (0.8, 0.4, 3600)
    assert made["text-sft-neural"].arguments == {"s": s, "spec": "sft", "policy": "neural"}
    assert (s.text_rate, s.text_steps) == (0.05, 300)
    short = dumping.Settings(step=0.4, seeds=3, text_steps=2)
    read = dumping.text(short, "sft", "neural", progress=False)
    assert read[["seed", "rate", "step"]].to_numpy().tolist() == [
        [seed, 0.05, step] for step in (0, 2) for seed in range(3)
    ]
    assert made["samples-spif-64-4"].arguments == {
        "s": s, "spec": "spif", "size": 64, "samples": 4, "rounds": 1, "steps": 1000,
    }  # fmt: skip
    assert made["rounds-ipo"].arguments == {
        "s": s, "spec": "ipo", "size": 64, "samples": 64, "rounds": 5, "steps": 600,
    }  # fmt: skip
    assert made["path-sppo"].arguments == {"s": s, "spec": "sppo"}
    assert s.batches == (64,)


def test_parts_of_samples_and_misspecification():
    s = finite_samples.Settings(
        first_seed=3, seeds=2, rounds_seeds=4, steps=10, flow_steps=1, total_steps=1, text_steps=1
    )
    made = {cell.name: cell for cell in finite_samples.cells(s)}
    for name, seeds in {
        "descent spin": [3, 4], "threshold": [3, 4], "rounds sft": [3, 4, 5, 6], "text sft": [3, 4],
    }.items():  # fmt: skip
        table = made[name].call(**made[name].arguments, progress=False)
        assert table.seed.unique().tolist() == seeds
    made = by_name(misspecification)
    assert list(made) == [
        "ladder", "text order 0", "text order 1", "text order 3", "text width 1", "text width 2",
        "text width 8", "gradient", "destination", "stability", "finite 2", "finite 5",
        "finite-centred_spif left out",
    ]  # fmt: skip
    s = misspecification.Settings()
    assert made["text order 3"].arguments == {"s": s, "order": 3}
    assert made["text width 8"].arguments == {"s": s, "width": 8}
    assert made["finite 5"].arguments == {"s": s, "horizon": 5}
    assert [name for name, cell in made.items() if not cell.resumes][:2] == ["gradient", "finite 2"]


def test_parts_of_two_players():
    s = players.Settings(seeds=2, steps=90, step=1.2, tau=0.07)
    made = {cell.name: cell for cell in players.cells(s)}
    assert len(made) == 82
    slow = made["noise-sft"].call(**made["noise-sft"].arguments, progress=False)
    assert slow.rate.unique().tolist() == [1.2 / s.slower]
    assert slow["step"].max() == 90 * s.slower
    part = made["rates-ipm(bound=5)-saddle-optimistic"]
    rates = part.call(**part.arguments)
    assert rates[["step", "tau", "step_policy"]].drop_duplicates().to_numpy().tolist() == [
        [60, 0.0, 1.2]
    ]
    part = made["rates-spif-rounds-optimistic"]
    assert part.call(**part.arguments).tau.unique().tolist() == [0.07]
    short = by_name(players, steps=21)["rates-spif-rounds-optimistic"]
    assert short.call(**short.arguments)["step"].unique().tolist() == [20]
    assert made["features-4-True"].arguments == {
        "count": 4, "natural": True, "seeds": 2, "steps": 180,
    }  # fmt: skip
    assert made["classes-sft"].arguments == {"kind": "sft", "seeds": 2, "steps": 270}
    assert made["limit-airl-1"].arguments == {"s": s, "spec": "airl", "count": 1}
    assert s.instances == (2, s.outcomes, s.spread)
    networks = [cell.arguments for name, cell in made.items() if name.startswith("network")]
    assert {(n["steps"], n["tau"], n["seeds"]) for n in networks} == {(360, 0.07, 2)}


def test_parts_of_preferences_descent_and_stability():
    s = preferences.Settings(first_seed=2, seeds=3, steps=1, groups=7)
    made = {cell.name: cell for cell in preferences.cells(s)}
    assert len(made) == 20
    assert (s.responses, s.strength) == (5, 0.9)
    assert [x.shape for x in preferences.instances(s)] == [(3, 5, 5), (3, 5)]

    def table(name):
        found = made[name].call(**made[name].arguments, progress=False)
        assert found.seed.unique().tolist() == [2, 3, 4]
        return found

    bias = table("bias")
    assert tuple(bias.samples.unique()) == s.samples
    assert bias["step"].unique().tolist() == [7]
    assert tuple(table("round").samples) == tuple(np.repeat(s.pair_samples, 3))
    assert tuple(table("loss-dpo").samples.unique()) == (0, *s.pair_samples)
    kept = tuple(k for k in s.pair_samples if k <= s.group_limit)
    assert tuple(table("loss-sppo").samples.unique()) == (0, *kept)
    assert preferences._no_scale("sppo") is None
    assert preferences._no_scale("spif(c=2)") is None
    assert "left out" in next(n for n in made if "comparisons-dpo" in n)
    assert len(by_name(sgd)) == 167
    settings = {"batch": 64, "floor_batches": (8, 64)}
    sgd.Settings(**settings, group=4)
    with pytest.raises(InvalidInput, match="batch 64 is not a multiple of group=7"):
        sgd.Settings(**settings, group=7)
    made = by_name(stability, few=(10,), samples=(100, 300), many=50)
    assert made["unseen-spin-10"].arguments["samples"] == 10
    assert made["floor-sft-300"].arguments["samples"] == 300
    assert {"map-spin_hinge left out", "burn-in-spif-50", "labels-spif-own"} <= set(made)


# -- mass that no data show -----------------------------------------------------------------------


def test_laws_of_three_outcomes():
    expert, start = dumping.example(0.8, 0.1)
    close(expert, [0.72, 0.18, 0.1])
    close(start, [0.18, 0.72, 0.1])
    for data, law in zip(dumping.weights("spif", 0.8, 0.1, True), (expert, start), strict=True):
        close(data, law)
    bare = dumping.weights("spif", 0.8, 0.1, False)
    close(bare, [[0.8, 0.2, 0.0], [0.2, 0.8, 0.0]])
    won, lost = dumping.weights("sppo", 0.8, 0.1, False)  # the start meets itself
    rate = np.array([0.2 * 0.5 + 0.8 * 0.8, 0.2 * 0.2 + 0.8 * 0.5])
    close(won, np.append(2 * np.array([0.2, 0.8]) * rate, 0.0))
    close(lost, np.append(2 * np.array([0.2, 0.8]) * (1 - rate), 0.0))
    assert dumping.predicted("sft", 0.8, 0.1, True, 1.0) == pytest.approx(0.1)
    assert dumping.predicted("sft", 0.8, 0.1, False, 1.0) == 0.0
    # uncovered SPIF at beta = 1/2: rewards +-0.6 on a start of 0.18 and 0.72
    left = 1 - 0.18 * exp(0.6 / 0.5) - 0.72 * exp(-0.6 / 0.5)
    assert dumping.predicted("spif", 0.8, 0.1, False, 1.0) == pytest.approx(left)


def test_laws_of_many_outcomes():
    data, own, start = dumping.spread_out(0.8, 4, 3, 0.1, 8)
    close(data, [0.4, 0.4, 0.1, 0.1, 0, 0, 0, 0])
    close(own, [0.1, 0.1, 0.4, 0.4, 0, 0, 0, 0])
    close(start, [0.09, 0.09, 0.36, 0.36, 0.1 / 3, 0.1 / 3, 0.1 / 3, 0])
    at, value = np.array([0.0, 10.0, 20.0, 40.0]), np.array([0.0, 0.2, 0.4, 0.9])
    assert dumping._crossing(at, value, 0.3) == pytest.approx(15.0)
    assert dumping._crossing(at, value, 0.65) == pytest.approx(30.0)
    assert dumping._crossing(at, value, 0.95) == inf
    assert dumping._crossing(at, value, -0.1) == inf


def test_half_of_the_missing_mass_escapes_as_predicted():
    s = dumping.Settings(masses=(0.03,), counts=(1, 2), escape_steps=120, step=0.5)
    found = dumping.escape(s, "spif", progress=False)
    assert len(found) == 2
    assert found[["share", "beta", "step"]].drop_duplicates().to_numpy().tolist() == [
        [0.8, 1.0, 120]
    ]
    left = 1 - 0.97 * (0.2 * exp(0.6) + 0.8 * exp(-0.6))  # beta is 1
    close(found.end, left, 1e-9)
    assert (found.steps_to_half / found.predicted_steps - 1).abs().max() < 0.05
    assert found.steps_to_half.iloc[1] > found.steps_to_half.iloc[0]
    s = dumping.Settings(masses=(0.4,), counts=(1,), escape_steps=4, step=0.5)
    nothing = dumping.escape(s, "spif", progress=False)
    assert nothing.predicted_steps.tolist() == [inf]


def test_a_path_begins_at_the_start():
    s = dumping.Settings(
        shares=(0.8,), rare=0.1, batches=(0,), path_rate=0.3, path_steps=4, step=0.5, seeds=3
    )
    found = dumping.path(s, "spif", progress=False)
    first = found[found["step"] == 0]
    close(first.third, 0.1)
    close(first.reward_third, 0.0)
    last = found[found["step"] == 4]
    close(last.reward_third, np.log(last.third / 0.1))  # beta is 1
    assert set(found.covered) == {True, False}
    assert len(first) == 2


# -- samples --------------------------------------------------------------------------------------


@pytest.mark.parametrize("overlap", ["disjoint", "partial", "same"])
def test_samples_of_twenty_draws(overlap):
    p, q, data, own = finite_samples.samples(5, overlap, 12)
    for law in (p, q):
        assert law.sum() == pytest.approx(1.0)
    for side in (data, own):
        counts = side * 20
        assert counts.sum() == pytest.approx(20)
        close(counts, counts.round())
    both = int(((data > 0) & (own > 0)).sum())
    alone = int(((data > 0) & (own == 0)).sum()), int(((data == 0) & (own > 0)).sum())
    assert (alone[0], both, alone[1]) == finite_samples.OVERLAPS[overlap]
    again = finite_samples.samples(5, overlap, 12)
    assert all(np.array_equal(a, b) for a, b in zip((p, q, data, own), again, strict=True))


def test_tables_and_rounds_of_samples():
    table = finite_samples._labelled(pd.DataFrame({"a": [1]}), "flow", "spif")
    assert list(table.columns) == ["part", "objective", "a"]
    assert table.iloc[0].tolist() == ["flow", "spif", 1]
    s = finite_samples.Settings(seeds=2, effective_step=0.5, rate=0.3, outcomes=12)
    run = finite_samples.one_round(s, "spif")
    assert len(run.rows) == 6
    close(run.rows.beta, 1.0)
    for i, row in enumerate(run.rows.itertuples()):
        _, q, data, own = finite_samples.samples(row.seed, row.overlap, 12)
        close(run.start()["data"][i, 0], data)
        close(run.start()["own"][i, 0], own)
        close(run.log_law(run.start())[i, 0].exp(), q)
    s = finite_samples.Settings(
        rounds_step=0.5, steps_per_round=7, rounds_rate=0.2, support=5, sizes=(3,), total_steps=2,
        first_seed=4, rounds_seeds=1,
    )  # fmt: skip
    rows = finite_samples._rows(s, "spin", (4, 9), (0, 1, 2), 0.2)
    assert rows.n.tolist() == [4, 4, 4, 9, 9, 9]
    assert rows.seed.tolist() == [0, 1, 2, 0, 1, 2]
    assert (rows.beta.unique(), rows.steps_per_round.unique()) == (2.0, 7)
    first = finite_samples.rounds_of(s, "spin", progress=False)
    law = Streams([4]).generator(0, "expert").standard_normal((1, 5))
    expected = np.exp(1.5 * law - np.logaddexp.reduce(1.5 * law, axis=-1))
    kl = (expected * np.log(expected * 5)).sum()
    close(first.kl.iloc[0], kl, 1e-9)


def test_late_records_of_rounds_are_further_ones():
    s = finite_samples.Settings(support=5, sizes=(6,), total_steps=80, rounds_seeds=2)
    usual = finite_samples.rounds_of(s, "spin_hinge", progress=False)
    s = dataclasses.replace(s, late_every=5)
    found = finite_samples.rounds_of(s, "spin_hinge", progress=False)
    assert s.late_from == 60
    assert sorted({*found.step} - {*usual.step}) == [65, 70, 75]
    assert not found.duplicated(["seed", "step"]).any()
    kept = found[found.step.isin(usual.step)].reset_index(drop=True)
    pd.testing.assert_frame_equal(kept, usual)


def test_one_hidden_unit_learns_at_half_the_rate():
    s = misspecification.Settings(
        words=3, horizon=4, samples=20, text_steps=1, objectives=("spin",), explicit=("spin",)
    )
    for given, rate in (({"order": 1}, 1.0), ({"width": 1}, 0.15), ({"width": 2}, 0.3)):
        assert misspecification.text(s, **given, progress=False).rate.unique() == [rate]


# -- the audit ------------------------------------------------------------------------------------


def test_the_row_of_an_estimate():
    """Two coins' mean as an estimate of (1, 0): along the bias, in units of the target."""
    table = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    law = torch.tensor([0.25, 0.75], dtype=torch.float64)
    target, predicted = torch.tensor([[2.0, 0.0], [0.5, 1.5]], dtype=torch.float64)
    made = Estimator(
        "family", "name", torch.zeros(2, dtype=torch.float64), "claims", target, (Draws(law),),
        lambda theta, y: (table[y[:, 0]] * theta).sum(-1), "really", predicted,
    )  # fmt: skip
    found = audit.describe("case", made, range(4), 900)
    assert len(found) == 4
    mean, spread = np.array([0.25, 1.5]), np.array([[1.0, -2.0], [-2.0, 4.0]]) * 0.25 * 0.75
    bias = mean - [2.0, 0.0]
    size = np.linalg.norm(bias)
    error = np.sqrt(bias @ spread @ bias / size**2 / 900) / 2
    close(found.error, error)
    close(found.relative_bias, size / 2)
    assert (found.measured - size / 2).abs().max() < 5 * error
    close(found.predicted_bias, np.hypot(1.5, 1.5) / 2)
    close(found.unexplained, 0.25 / 2)
    assert found.exact.all()
    fair = audit.describe("case", made.__class__(**{**vars(made), "target": torch.tensor(mean)}),
                          range(2), 50)  # fmt: skip
    along = mean / np.linalg.norm(mean)
    close(fair.error, np.sqrt(along @ spread @ along / 50) / np.linalg.norm(mean))


@pytest.mark.parametrize(("case", "responses"), [("random", 15), ("small", 4), ("text", None)])
def test_problems_of_the_audit(case, responses):
    problem = audit.make_problem(case, 3, 0.8, 0.1)
    n = problem.policy.game.n_responses
    assert n == (responses or n)
    wins = problem.preference
    close(wins + wins.T, 1.0)
    assert 0.1 <= wins.min() < 0.3
    assert wins.max() <= 0.9
    assert (problem.theta - problem.theta_t).std() == pytest.approx(0.1, rel=0.6)
    if case == "random":
        for theta in (problem.theta_t, problem.theta_ref):
            assert theta.std() == pytest.approx(0.7, rel=0.5)
    assert problem.beta == 0.8


def test_what_is_audited():
    problem = audit.make_problem("small", 3, 0.8, 0.1)
    names = [e.name for e in audit.catalogue(problem, 2)]
    for name in objectives.names():
        obj = objectives.get(name)
        plain = not obj.missing("risk") and "preference" not in obj.needs
        assert names.count(name) == 2 * plain  # first and later gradient
        assert (f"{name}, one pair" in names) == obj.has_loss
    assert {n for n in names if "all pairs" in n} == {
        f"{name}, all pairs of 2+2"
        for name in ("spin", "dpo", "spin_hinge", "spin_exponential", "ipo", "alpha_spin")
    }


# -- two players ----------------------------------------------------------------------------------


def test_many_reward_steps_are_the_exact_rounds():
    s = players.Settings(seeds=1, outcomes=4, spread=0.4)
    found = players.limit(s, "spif", 8, progress=False)
    few = players.limit(s, "spif", 1, progress=False)
    assert 0 < 5 * found.worst.max() < few.worst.min() < 0.5
    assert found.step_policy.tolist() == [1 / 1.1]
    expert, ref, _ = instance(2, 4, 0.4)
    path = self_play(expert, ref, "spif", 1.0, 1, ref, 0.1, progress=False).policies
    close(path[0], ref)


def test_trajectories_record_at_equal_distance():
    s = players.Settings(step=1.0, seeds=2, outcomes=4, spread=0.4, steps=20)
    found = players.trajectories(s, "spif", "simultaneous", progress=False)
    assert sorted(found["step"].unique()) == list(range(21))
    assert found.groupby("seed").predicted.nunique().tolist() == [1, 1]
    assert (found.predicted < 0).all()


@pytest.mark.parametrize("rounding", [-1e-15, 1e-15])
def test_a_rotation_has_no_rate_whatever_the_sign_of_a_rounding_error(monkeypatch, rounding):
    s = players.Settings(seeds=2, steps=60)
    call = {"spec": "ipm(bound=5)", "method": "alternating", "pay": "saddle"}
    plain = players.rates(s, **call)
    close(plain.predicted, 0.0)
    assert (plain.measured.abs() < 0.01).all()
    monkeypatch.setattr(players, "predicted_factor", lambda *_: np.exp(np.full(2, rounding)))
    again = players.rates(s, **call)
    pd.testing.assert_series_equal(again.measured, plain.measured)
    pd.testing.assert_series_equal(again.error, plain.error)
