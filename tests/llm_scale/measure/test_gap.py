"""A trained model's gap is that of exact laws, and refused where nothing can be said."""

from dataclasses import replace
from statistics import NormalDist

import numpy as np
import pytest

from llm_scale.measure.gap import gap
from llm_scale.measure.line import line
from llm_scale.measure.predicted import RewardTerms
from llm_scale.measure.telemetry import Anchored, Fresh
from tests.llm_scale.commands import call, metrics
from theory import laws, objectives
from theory.equilibria.sampled import sampled_gap
from theory.equilibria.solve import equilibrium

PROMPTS, OUTCOMES, DRAWN, BETA, TAU = 3, 8, 6000, 0.7, 0.6


def game(name="spif", **more):
    return RewardTerms(objectives.get(name), BETA, TAU, **more)


def kl(p, q):
    return (p * np.log(p / q)).sum(-1)


@pytest.fixture(scope="module")
def played():
    """Laws of expert, pi_0, pi_t and pi_{t+1}, and responses of the last to prompts at random."""
    rng = np.random.default_rng(4)
    p, ref, before, after = (laws.random_law(rng, (PROMPTS, OUTCOMES), 0.8) for _ in range(4))
    return (p, ref, before, after), drawn(rng, p, ref, before, after)


def drawn(rng, p, ref, before, after):
    prompt = rng.integers(PROMPTS, size=DRAWN)
    own, base = (np.array([rng.choice(OUTCOMES, p=law[x]) for x in prompt]) for law in (after, ref))
    of_base = (np.log(law[prompt, base]) for law in (after, p))
    anchor = Anchored(np.log(ref[prompt, own]), *of_base)
    return Fresh([], *(np.log(law[prompt, own]) for law in (before, after, p)), anchor)


def exact(policy, ref, reward):
    """Gap of each prompt, and of all of them pooled."""
    weight = ref * np.exp(reward / TAU)
    best = weight / weight.sum(-1, keepdims=True)
    pooled = weight / weight.sum()
    return TAU * kl(policy, best).mean(), TAU * kl(policy.ravel() / PROMPTS, pooled.ravel())


@pytest.mark.parametrize("name", ["spin", "spif"])
def test_gaps_are_those_of_pooled_laws_and_bound_the_prompts_own(played, name):
    (p, ref, before, after), fresh = played
    row = gap(fresh, game(name))
    learned = BETA * np.log(after / before) + TAU * np.log(after / ref)
    true = objectives.get(name).link(np.log(p / after))
    for column, reward in (("gap", true), ("learned_gap", learned)):
        own, pooled = exact(after, ref, reward)
        assert own < pooled
        assert row[column] == pytest.approx(pooled, abs=4.5 * row[f"{column}_se"])
        assert 0 < row[f"{column}_se"] < 0.2 * pooled
    end = equilibrium(p, ref, objectives.get(name), TAU).policy
    upper = row["gap"] + NormalDist().inv_cdf(0.95) * row["gap_se"]
    assert row["gap_kl"] == pytest.approx(upper / (TAU + objectives.get(name).slope_range()[0]))
    assert kl(after, end).mean() < row["gap_kl"]


def test_nothing_is_left_at_the_equilibrium(played):
    (p, ref, _, _), _ = played
    end = equilibrium(p, ref, objectives.get("spin"), TAU).policy
    row = gap(drawn(np.random.default_rng(6), p, ref, end, end), game("spin"))
    assert row["learned_gap"] == pytest.approx(0.0, abs=1e-9)  # the reward's own best response
    pooled = exact(end, ref, np.log(p / end))[1]
    assert row["gap"] == pytest.approx(pooled, abs=4.5 * row["gap_se"] + 1e-9)


def rarely(rare):
    """Laws of expert and pi_0 that give response 0 in one case of ten, and a model that rarely."""
    shares = np.array([0.1, 0.1, rare])[:, None, None]
    rest = np.broadcast_to((1 - shares) / (OUTCOMES - 1), (3, PROMPTS, OUTCOMES - 1))
    return np.concatenate([np.broadcast_to(shares, (3, PROMPTS, 1)), rest], axis=-1)


def of_own_alone(fresh):
    own, ratio = fresh.expert - fresh.after, fresh.after - fresh.anchor.own
    return sampled_gap("spin", TAU, own, ratio, kind="equilibrium")


def test_what_the_model_hardly_gives_is_seen_by_responses_of_the_anchor():
    """At 1 in 500 own responses alone give no interval; at 1 in 10,000 they meet none and are sure
    that little is left, which responses of the anchor contradict."""
    rng, spin = np.random.default_rng(8), RewardTerms(objectives.get("spin"), BETA, TAU)
    p, ref, after = rarely(0.002)
    fresh, pooled = drawn(rng, p, ref, after, after), exact(after, ref, np.log(p / after))[1]
    row = gap(fresh, spin)
    assert row["gap"] == pytest.approx(pooled, abs=4.5 * row["gap_se"])
    assert row["gap_se"] < 0.03 * pooled
    assert not of_own_alone(fresh).trusted
    p, ref, after = rarely(1e-4)
    fresh, pooled = drawn(rng, p, ref, after, after), exact(after, ref, np.log(p / after))[1]
    alone = of_own_alone(fresh)
    assert alone.trusted
    assert alone.interval[1] < 0.5 * pooled
    assert "disagree" in gap(fresh, spin)["gap_reason"]


def test_an_unknown_expert_leaves_the_learned_gap(played):
    fresh = played[1]
    one = np.where(np.arange(DRAWN) == 7, -np.inf, fresh.expert)
    of_base = replace(fresh.anchor, expert=np.where(np.arange(DRAWN) == 7, np.nan, fresh.expert))
    for more in ({"expert": np.full(DRAWN, np.nan)}, {"expert": one}, {"anchor": of_base}):
        row = gap(replace(fresh, **more), game())
        assert "expert's law" in row["gap_reason"]
        assert row["learned_gap"] > 0
        assert "gap" not in row


def test_far_laws_are_refused_with_a_reason(played):
    fresh = played[1]
    after = np.where(np.arange(DRAWN) == 7, -50.0, fresh.anchor.after)
    row = gap(replace(fresh, anchor=replace(fresh.anchor, after=after)), game("spin"))
    assert "effective size" in row["gap_reason"]
    assert not {"gap", "gap_kl"} & set(row)
    moved = replace(fresh.anchor, own=50.0 * fresh.anchor.own)
    row, near = (gap(replace(fresh, anchor=a), game()) for a in (moved, fresh.anchor))
    assert row["learned_gap"] == pytest.approx(near["learned_gap"])  # pi_0 cancels in it
    for value, reason in ((-500.0, "effective size"), (-np.inf, "finite numbers")):
        before = fresh.before.copy()
        before[0] = value
        row = gap(replace(fresh, before=before), game())
        assert reason in row["learned_gap_reason"]
        assert "learned_gap" not in row
        assert row["gap"] == near["gap"]


@pytest.mark.parametrize(
    ("played_game", "opponent", "reason"),
    [
        (game(level="token"), "last", "per response"),
        (game(history=0.25), "last", "per response"),
        (game(ablated=True), "last", "per response"),
        (game(), "mixture", "per response"),
        (game("ipo"), "last", "T9"),
    ],
)
def test_other_problems_than_the_rounds_say_so(played, played_game, opponent, reason):
    row = gap(played[1], played_game, opponent)
    assert list(row) == ["gap_reason"]
    assert reason in row["gap_reason"]


def test_without_an_anchor_there_is_nothing_to_say(played):
    assert gap(replace(played[1], anchor=None), game()) == {}
    assert gap(played[1], RewardTerms(objectives.get("spif"), BETA)) == {}


def test_an_anchored_run_reports_its_gap(tmp_path):
    out = tmp_path / "run"
    call(
        "train", "--out", out, "--device=cpu", "--prompts=32", "--held-out=256", "--sft-steps=30",
        "--rounds=1", "--steps-per-round=4", "--batch=8", "--objective=spin", "--tau=20",
    )  # fmt: skip
    (row,) = [r for r in metrics(out) if "round" in r]
    assert row["gap"] > 0
    assert row["gap_kl"] > 0
    assert row["learned_gap"] < row["gap"]
    assert "gap <=" in line(row)
