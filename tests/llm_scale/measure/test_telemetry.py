"""What a round's row says is what was measured, and predictions are those of the exact solvers."""

import csv
import dataclasses
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lab.stats import centred
from llm_scale import models
from llm_scale.measure import gradients, telemetry
from llm_scale.measure.held_out import HeldOut, own_responses
from llm_scale.measure.line import line
from llm_scale.measure.predicted import (
    FEWEST,
    GROUPS,
    GROUPS_POOLED,
    ONE_STEP,
    TWO_STEP,
    Points,
    RewardTerms,
    predict,
)
from llm_scale.measure.telemetry import Fresh, Measured
from llm_scale.models import weights
from llm_scale.rounds.begin import begin
from llm_scale.store.journal import Journal
from llm_scale.train import accumulate, assemble
from tests.llm_scale.commands import call, metrics
from theory import laws, objectives
from theory.objectives.finite_groups import finite_group_link
from theory.rounds.one_step import one_step_round

PROMPTS, OUTCOMES = 4, 12


def train(out, *more):
    call(
        "train", "--out", out, "--device=cpu", "--prompts=48", "--held-out=24", "--sft-steps=6",
        "--rounds=2", "--steps-per-round=6", "--batch=8", *more,
    )  # fmt: skip
    rows = metrics(out)
    return [r for r in rows if "round" in r], [r for r in rows if "at" in r]


@pytest.fixture(scope="module")
def spif(tmp_path_factory):
    out = tmp_path_factory.mktemp("telemetry") / "spif"
    return out, *train(out, "--objective=spif")


# -- predictions -------------------------------------------------------------------------------


def two_laws(rng, spread=1.0):
    p, q = (laws.random_law(rng, (PROMPTS, OUTCOMES), spread) for _ in range(2))
    return p, q


def draw(rng, p, q, after, each):
    """``each`` responses of both laws to every prompt, as the telemetry measures them."""
    side, prompt, outcome = [], [], []
    for name, law in (("expert", p), ("own", q)):
        for x in range(PROMPTS):
            outcome += rng.choice(OUTCOMES, each, p=law[x]).tolist()
            prompt += [x] * each
            side += [name] * each
    at = np.array(prompt), np.array(outcome)
    logs = [np.log(law[at]) for law in (q, after, p)]
    return Measured(at[0], np.array(side), *logs), at


def refined(name, p, q, beta, own):
    objective = objectives.get(name)
    if name == "spif":
        found = one_step_round(p, q, objective, beta)
        return found.policy, found.reward, ONE_STEP
    if name == "centred_spif":
        reward = finite_group_link(p, q, 1.0, 1, own).reward
        kind = GROUPS
    else:
        reward, kind = objective.reward(p, q), TWO_STEP
    weight = q * np.exp(reward / beta)
    return weight / weight.sum(-1, keepdims=True), reward, kind


@pytest.mark.parametrize("name", ["spin", "ipo", "spif", "centred_spif"])
def test_a_policy_that_obeys_the_theory_is_seen_to(name):
    rng = np.random.default_rng(3)
    p, q = two_laws(rng)
    beta, own = 1.5, 3
    after, _, kind = refined(name, p, q, beta, own)
    measured, _ = draw(rng, p, q, after, 600)
    game = RewardTerms(objectives.get(name), beta, own_samples=own)
    found = telemetry.predictions(measured, game)
    row = telemetry.summary(measured, game, found)
    assert row["prediction"] == kind
    assert row["predicted_correlation"] > 0.999
    assert row["predicted_share"] == 1.0
    assert row["predicted_slope"] == pytest.approx(1.0, abs=0.05)
    assert row["contraction"] == pytest.approx(row["contraction_predicted"], abs=0.02)
    if name == "centred_spif":  # the gain of finite groups, which R(u) does not have
        assert row["link_slope"] > 1.1
    if name in ("spin", "ipo"):
        assert row["link_slope"] == pytest.approx(1.0, abs=0.05)
    own, rival = ("linear", "bounded") if name == "spin" else ("bounded", "linear")
    assert row[f"{own}_correlation"] > max(row[f"{rival}_correlation"], row["sign_correlation"])
    if name == "spin":
        assert row["contraction_local"] == pytest.approx(1 - 1 / beta)
        assert row["contraction"] == pytest.approx(1 - 1 / beta, abs=1e-9)


@pytest.mark.parametrize("name", ["spif", "centred_spif"])
def test_laws_from_samples_give_the_exact_reward_as_samples_grow(name):
    rng = np.random.default_rng(5)
    p, q = two_laws(rng)
    _, exact, kind = refined(name, p, q, 1.0, 2)
    errors = []
    for each in (30, 3000):
        measured, (prompt, outcome) = draw(rng, p, q, q, each)
        found = predict(measured.points(), RewardTerms(objectives.get(name), 1.0, own_samples=2))
        assert found.kind == kind
        off = centred(found.refined - exact[prompt, outcome], group=prompt)
        errors.append(np.abs(off).max())
    assert errors[1] < 0.05
    assert errors[1] < 0.5 * errors[0], "ten times as exact with a hundred times the samples"


def test_too_few_responses_a_prompt_are_said():
    rng = np.random.default_rng(0)
    p, q = two_laws(rng)
    measured, _ = draw(rng, p, q, q, FEWEST // 2 - 1)
    kinds = {
        name: predict(measured.points(), RewardTerms(objectives.get(name), 1.0, own_samples=2)).kind
        for name in ("spif", "centred_spif", "spin")
    }
    assert kinds == {"spif": TWO_STEP, "centred_spif": GROUPS_POOLED, "spin": TWO_STEP}


def test_nothing_is_predicted_where_the_expert_or_the_link_is_not_known():
    rng = np.random.default_rng(0)
    p, q = two_laws(rng)
    measured, _ = draw(rng, p, q, q, 20)
    n = len(measured.prompt)
    blind = Measured(measured.prompt, measured.side, measured.before, measured.after,
                     np.full(n, np.nan))  # fmt: skip
    game = RewardTerms(objectives.get("spif"), 1.0)
    assert telemetry.predictions(blind, game) is None
    row = telemetry.summary(blind, game)
    assert "kl" not in row
    assert row["nll"] > 0
    assert predict(measured.points(), RewardTerms(objectives.get("spin_hinge"), 1.0)) is None


def test_rewards_divide_by_the_opponent_and_carry_the_anchor():
    rng = np.random.default_rng(1)
    p, q = two_laws(rng)
    measured, _ = draw(rng, p, q, p, 5)
    opponent, anchor = (rng.normal(size=len(measured.prompt)) for _ in range(2))
    other = Measured(*(getattr(measured, f) for f in ("prompt", "side", "before", "after")),
                     measured.expert, opponent, anchor)  # fmt: skip
    game = RewardTerms(objectives.get("spin"), 2.0, tau=0.5)
    expected = 2.0 * (other.after - opponent) + 0.5 * (other.after - anchor)
    np.testing.assert_allclose(other.reward(game), expected)
    np.testing.assert_allclose(other.points().u, (other.expert - opponent))
    plain = Points(measured.prompt, measured.on("expert"), measured.expert, measured.before,
                   measured.before)  # fmt: skip
    np.testing.assert_allclose(plain.u, measured.expert - measured.before)


def test_dumped_mass_is_that_which_neither_law_would_give():
    rng = np.random.default_rng(2)
    p, q = two_laws(rng, spread=0.3)
    rare = 1e-9
    p, q = (np.concatenate([law[:, :-1] * (1 - rare), np.full((PROMPTS, 1), rare)], -1)
            for law in (p, q))  # fmt: skip
    p, q = (law / law.sum(-1, keepdims=True) for law in (p, q))
    measured, _ = draw(rng, p, q, q, 300)

    def fresh(share):
        n = 4000
        prompt = rng.integers(PROMPTS, size=n)
        outcome = np.array([rng.choice(OUTCOMES, p=q[x]) for x in prompt])
        outcome[rng.random(n) < share] = OUTCOMES - 1
        log_q, log_p = np.log(q[prompt, outcome]), np.log(p[prompt, outcome])
        return Fresh([], log_q, log_q, log_p)

    for share in (0.0, 0.1):
        row = telemetry.dumped(measured, fresh(share))
        assert abs(row["dumped"] - share) < 4 * row["dumped_se"] + telemetry.RARE
        assert row["dumped_before"] <= telemetry.RARE
    assert telemetry.dumped(measured, fresh(0.1))["dumped"] > 0.08


def test_bounds_are_those_of_the_link_and_spin_has_none():
    rng = np.random.default_rng(4)
    p, q = two_laws(rng)
    measured, _ = draw(rng, p, q, p, 5)
    bounded = telemetry.rewards(measured, RewardTerms(objectives.get("spif", c=0.5), 1.0))
    assert (bounded["reward_low"], bounded["reward_high"]) == (-2.0, 2.0)
    assert bounded["reward_range_bound"] == 4.0
    assert "reward_high" not in telemetry.rewards(
        measured, RewardTerms(objectives.get("spin"), 1.0)
    )
    reward = measured.reward(RewardTerms(objectives.get("spin"), 1.0))
    spans = [np.ptp(reward[measured.prompt == x]) for x in range(PROMPTS)]
    assert bounded["reward_range"] == pytest.approx(max(spans))


def test_a_slopes_error_is_that_of_repetition():
    rng = np.random.default_rng(0)
    x = rng.normal(size=400)
    found = [telemetry.regression("a", x, 2 * x + rng.normal(size=400)) for _ in range(300)]
    spread = np.std([f["a_slope"] for f in found])
    assert np.mean([f["a_slope_se"] for f in found]) == pytest.approx(spread, rel=0.15)


# -- a run's rows ------------------------------------------------------------------------------


def test_every_mean_over_prompts_has_its_error(spif):
    _, (first, *_), _ = spif
    means = (
        "kl", "kl_before", "reverse_kl", "reverse_kl_before", "kl_step", "nll", "margin",
        "reward_expert", "reward_own", "reward_other", "dumped", "left_own", "log_partition",
        "log_prob_expert_after", "log_prob_own_after", "held_out_length_own", "length_own",
        "after_length_own", "after_truncated_own", "contraction", "link_slope", "predicted_slope",
    )  # fmt: skip
    assert not [name for name in means if not first[f"{name}_se"] >= 0]
    assert all(math.isfinite(v) for v in first.values() if isinstance(v, float))


def test_points_of_a_round_give_its_slope(spif):
    out, rounds, _ = spif
    for row in rounds:
        path = out / "rounds" / f"round-{row['round']:03d}.csv"
        with path.open() as file:
            table = [r for r in csv.DictReader(file) if r["link"]]
        assert {r["side"] for r in table} == {"expert", "own"}
        prompt = np.array([int(r["prompt"]) for r in table])
        x, y = (centred(np.array([float(r[k]) for r in table]), group=prompt)
                for k in ("link", "reward"))  # fmt: skip
        assert x @ y / (x @ x) == pytest.approx(row["link_slope"], abs=1e-4)
        u = [float(r["log_expert"]) - float(r["log_opponent"]) for r in table]
        np.testing.assert_allclose(u, [float(r["u"]) for r in table], atol=1e-3)


def test_monitors_of_the_assumptions(spif, task):
    out, rounds, _ = spif
    language = models.tiny(task.tokenizer, 0, torch.device("cpu"))
    weights.put(language, load_file(out / "base.safetensors"))
    assert rounds[0]["weights"] == weights.digest(language)
    assert rounds[0]["weights"] != rounds[1]["weights"]
    for row in rounds:
        assert row["stored_gap"] < 1e-4
        assert row["sampler_gap"] < 1e-4
        assert row["temperature"] == 1.0
        assert row["prompt_format"] in task.tokenizer.get_vocab(), "one word, as it is formatted"
        assert row["tokens_own"] == pytest.approx(1 + row["length_own"])


def test_the_kl_of_a_round_is_where_the_next_begins(spif):
    """Up to the sampling of own responses: expert responses are the same held-out ones."""
    _, (first, second), _ = spif
    assert second["kl_before"] == pytest.approx(first["kl"], abs=1e-5)
    assert second["reverse_kl_before"] == pytest.approx(first["reverse_kl"], abs=1e-4)


def test_the_line_of_a_round_is_readable(spif):
    _, rounds, _ = spif
    said = line(rounds[1])
    for part in ("round 1", "KL(p|pi)", "link slope", "contraction", "dumped", "cos SFT"):
        assert part in said
    assert "\n" not in said


# -- direction and destination -----------------------------------------------------------------


def test_measuring_the_direction_does_not_change_the_run(spif, tmp_path):
    out, rounds, steps = spif
    _, without = train(tmp_path / "run", "--objective=spif", "--cosines=0")
    assert [r["loss"] for r in without] == [r["loss"] for r in steps]
    final = [load_file(path / "final" / "model.safetensors") for path in (out, tmp_path / "run")]
    assert all(torch.equal(final[0][k], final[1][k]) for k in final[0])
    assert not [r for r in without if "cosine" in r]
    measured = [(r["at"], r["step"]) for r in steps if "cosine" in r]
    assert measured == [(f"round {t}", k) for t in (0, 1) for k in (0, 5)]
    assert rounds[0]["cosine_start"] > rounds[0]["cosine_end"]


def test_points_of_the_direction():
    assert gradients.points(100, 0) == []
    assert gradients.points(100, 1) == [0]
    assert gradients.points(100, 3) == [0, 50, 99]
    assert gradients.points(2, 5) == [0, 1]


@pytest.mark.claim("S7.first_gradient", "T15.first_gradient", regime="listed", of="identities")
def test_a_round_begins_in_the_direction_of_sft(claim, task, change, tmp_path):
    """``E_{pi_t} grad log pi_t = 0``: the angle to the SFT gradient is noise, falling as 1/n."""
    for objective in ("spin", "spif", "ipo"):
        settings = change(objective=objective, prompts=2048)
        language = models.tiny(task.tokenizer, 0, torch.device("cpu"))
        parts = assemble(settings, tmp_path / objective, language, task)
        items = dataclasses.replace(task, settings=settings).items(0)
        data = begin(parts.player, items, 0, parts.objective, {}, {}).data
        parameters = list(language.model.parameters())

        def off(size, parts=parts, data=data, parameters=parameters):
            def add(sft):
                return accumulate(parts, data, range(size), None if sft else parts.objective)

            return 1.0 - gradients.cosine_to_sft(add, parameters)["cosine"]

        few, many = off(256), off(2048)
        what = "1 - cosine to the SFT gradient, 2048 pairs"
        claim.below(many, 0.02, what=what, because="chosen")
        what = "its fall with 8 times the pairs, over 1/8"
        claim.below(8.0 * many / few, 3.0, what=what, because="chosen")
        assert all(p.grad is None for p in parameters)
        assert few > 1e-4, "the own responses' part is there, and noise"


def test_distance_to_an_sft_run_is_zero_where_it_is_that_run(tmp_path):
    call("sft", "--out", tmp_path / "sft", "--device=cpu", "--prompts=48", "--held-out=24",
         "--rounds=2", "--steps-per-round=6", "--batch=8", "--sft-steps=6")  # fmt: skip
    rounds, _ = train(tmp_path / "again", "--objective=sft", f"--sft-run={tmp_path / 'sft'}")
    apart = ("sft_distance_expert", "sft_distance_own", "kl_to_sft", "kl_gap_to_sft")
    assert all(rounds[0][name] != 0 for name in apart)
    assert all(abs(rounds[1][name]) < 1e-6 for name in apart)
    assert rounds[0]["kl_to_sft"] > -3 * rounds[0]["kl_to_sft_se"]


# -- what is written ---------------------------------------------------------------------------


def test_the_journal_leaves_out_what_json_cannot_hold(tmp_path):
    journal = Journal(tmp_path)
    journal.write({"round": 0, "kl": float("nan"), "nll": float("inf"), "margin": 1.5}, 3)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"round": 0, "margin": 1.5}\n'


def test_held_out_measurements_survive_as_tensors(task, language, change):
    player = assemble(change(held_out=8), None, language, task).player
    held = task.held_out()[:8]
    drawn = HeldOut.draw(player, held, own_responses(player, held, 0))
    back = HeldOut.of(drawn.tensors())
    assert back.items == drawn.items
    assert torch.equal(back.before, drawn.before)
