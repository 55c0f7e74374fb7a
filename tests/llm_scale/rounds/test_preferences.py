"""Preference rounds of a language model: who is compared, what is equal, what theory predicts."""

import dataclasses

import numpy as np
import pytest
import torch

from lab.specs import objective_of
from llm_scale.data.items import Item, Response
from llm_scale.data.oracles import BradleyTerry, Cyclic, Judge, build, overlap, probe
from llm_scale.launch import combinations
from llm_scale.measure import preferences as preference_telemetry
from llm_scale.settings import Settings
from llm_scale.train import losses
from tests.llm_scale import tiny_game
from tests.llm_scale.commands import metrics, outcome, train
from theory import preferences
from theory.errors import InvalidInput
from theory.rounds.one_step import one_step_round

RESPONSES = tiny_game.RESPONSES


def score(response):
    """More of the first word, less of the second, and better ended than cut."""
    return 1.5 * (response.count(1) - response.count(2)) + 0.5 * (response[-1] == 0)


JUDGE = BradleyTerry(lambda item, rs: np.array([score(tuple(r)) for r in rs]))


def data_of(objective, own=4, **given):
    s = tiny_game.settings(objective=objective, own_samples=own, oracle="cyclic", **given)
    who = tiny_game.player(s)
    return who, tiny_game.start(who, JUDGE).data


# -- oracles -------------------------------------------------------------------------------------


def test_bradley_terry_scores_with_the_known_expert_per_token():
    s = tiny_game.settings()
    known = tiny_game.task(s)
    item = known.items(0)[0]
    oracle = build("bradley-terry(scale=2)", known.expert, known.tokenizer)
    found = oracle.compare(item, RESPONSES)
    each = known.expert.log_probs([(item.prompt, r) for r in RESPONSES])
    mean = each / [len(r) for r in RESPONSES]
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-2 * (mean[:, None] - mean))), atol=1e-12)


def test_without_a_known_expert_it_scores_with_the_reference():
    item = Item(0, (1,), (Response((1, 2, 2, 0), False),))
    found = overlap(item, [(1, 2, 2, 0), (3, 3, 3), (2, 2, 2, 0)])
    np.testing.assert_allclose(found, [1.0, 0.0, 0.75])


def test_cyclic_is_rock_paper_scissors_by_the_first_token():
    found = Cyclic(0.8).compare(Item(0, (1,), ()), [(3, 1), (4, 0), (5, 5), (6, 2)])
    np.testing.assert_allclose(found + found.T, 1.0)
    np.testing.assert_allclose(found[1:3, 0], [0.9, 0.1])
    assert found[0, 3] == 0.5


def test_a_users_scorer_and_a_users_preference(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(
        "def length(prompt, response):\n    return len(response.split())\n"
        "def longer(prompt, first, second):\n    return 0.9 if len(first) > len(second) else 0.2\n"
        "def wrong(prompt, first, second):\n    return 1.5\n"
        "def fails(prompt, response):\n    return 1 / 0\n"
        "def late(prompt, response):\n    raise RuntimeError('late\\nfailure')\n"
        "def odd(prompt):\n    return 1\n"
    )
    tokenizer = tiny_game.task(tiny_game.settings()).tokenizer
    item, given = Item(0, (1,), ()), [(1, 2, 0), (3, 0)]
    scored = build(f"{file}:length", None, tokenizer).compare(item, given)
    assert scored[0, 1] == pytest.approx(1 / (1 + np.exp(-1.0)))
    judged = build(f"{file}:longer", None, tokenizer).compare(item, given)
    np.testing.assert_allclose(judged, [[0.5, 0.9], [0.1, 0.5]])
    for name, message in (
        ("wrong", "within"),
        ("fails", "ZeroDivisionError"),
        ("late", "mine.py:late' failed: RuntimeError: late failure$"),
    ):
        with pytest.raises(InvalidInput, match=message):
            build(f"{file}:{name}", None, tokenizer).compare(item, given)
    with pytest.raises(InvalidInput, match="takes 1 arguments"):
        Settings(oracle=f"{file}:odd")


def test_options_of_a_users_function_are_no_responses(tmp_path):
    (tmp_path / "words_of_mine.py").write_text("GOOD = 'b'\n")
    (tmp_path / "mine.py").write_text(
        "from words_of_mine import GOOD\n\n\n"
        "def score(prompt, response, verbose=False):\n    return 0.9 if GOOD in response else 0.1\n"
        "def likes(prompt, first, second, sure=0.9):\n"
        "    return sure if GOOD in first > GOOD in second else 0.5\n"
    )
    tokenizer = tiny_game.task(tiny_game.settings()).tokenizer
    item, same = Item(0, (1,), ()), [(2, 0), (2, 0)]
    for name, kind in (("score", BradleyTerry), ("likes", Judge)):
        oracle = build(f"{tmp_path}/mine.py:{name}", None, tokenizer)
        assert isinstance(oracle, kind)
        assert oracle.compare(item, same)[0, 1] == 0.5


def test_a_judge_that_goes_by_the_order_of_its_arguments_is_refused():
    tokenizer, luck = tiny_game.task(tiny_game.settings()).tokenizer, np.random.default_rng(0)
    items = [Item(i, (1,), (Response(r, False),)) for i, r in enumerate(RESPONSES[:9])]
    for always in (0.0, 1.0):
        with pytest.raises(InvalidInput, match="goes by the order of its arguments"):
            probe(Judge(lambda *texts, p=always: p, tokenizer, "mine"), items)
    fair = (
        lambda *texts: 0.5,
        lambda *texts: float(luck.random() < 0.5),
        lambda prompt, a, b: 0.5 * (1.0 + np.sign(len(a) - len(b))),
    )
    for judge in fair:
        probe(Judge(judge, tokenizer, "mine"), items)


@pytest.mark.parametrize(
    ("oracle", "message"),
    [
        ("elo", "needed is none, bradley-terry"),
        ("cyclic(strength=2)", "<= 1"),
        ("cyclic(scale=1)", "strength=NUMBER"),
        ("bradley-terry(scale=x)", "scale=NUMBER"),
        ("bradley-terry(scale=-1)", "> 0"),
        ("nowhere.py:f", "no file"),
    ],
)
def test_an_unknown_oracle_is_refused(oracle, message):
    with pytest.raises(InvalidInput, match=message):
        Settings(oracle=oracle)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"oracle": "cyclic", "objective": "ipo"}, "own_samples=1; needed is >= 2"),
        ({"objective": "sppo"}, "needs preferences"),
        ({"oracle": "cyclic", "own_samples": 4, "expert_samples": 2}, "must be 1"),
        ({"oracle": "cyclic", "own_samples": 4, "level": "token"}, "compares whole responses"),
        ({"oracle": "cyclic", "own_samples": 4, "objective": "sft"}, "oracle must be none"),
        ({"oracle": "cyclic", "own_samples": 4, "objective": "tspin"}, "oracle must be none"),
        ({"oracle": "cyclic", "own_samples": 2, "objective": "centred_spif"}, ">= 3"),
        ({"oracle": "cyclic", "own_samples": 4, "objective": "inpo"}, "set tau > 0"),
        ({"comparisons": "exact"}, "is for an oracle"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    problems = combinations.combination_problems(Settings(**given))
    assert len(problems) == 1
    assert message in problems[0]


# -- comparisons ---------------------------------------------------------------------------------


def test_every_two_responses_meet_once_and_none_meets_itself():
    _, data = data_of("ipo", own=5)
    wins = data.wins
    off = 1.0 - torch.eye(5, dtype=wins.dtype)
    assert torch.equal(wins + wins.mT, off.expand_as(wins))
    assert set(wins.unique().tolist()) == {0.0, 1.0}
    assert all(not item.expert and len(item.own) == 5 for item in data.items)


@pytest.mark.claim("T11.sampled", regime="listed")
def test_the_estimated_win_rate_is_unbiased_without_self_comparison(claim):
    """Averaging in the comparison with oneself pulls every estimate to 1/2, by a share 1/K."""
    own = 3
    who, data = data_of("sppo", own=own, prompts=1500)
    law = np.exp(tiny_game.log_law(who))
    exact = JUDGE.compare(None, RESPONSES) @ law
    index = {r: i for i, r in enumerate(RESPONSES)}
    rows = np.array([[index[r.tokens] for r in item.own] for item in data.items])
    pull = 0.5 - exact[rows]  # what self-comparison would move every estimate towards

    def z(estimate):
        each = (pull * (estimate - exact[rows])).mean(-1)
        return each.mean() / (each.std(ddof=1) / np.sqrt(len(each)))

    wins = data.wins.sum(-1).numpy()
    bias = abs(z(wins / (own - 1)))
    claim.below(bias, 4.0, what="bias in standard errors, K - 1 others", because="sampling")
    what = "bias in standard errors, itself included"
    claim.exhibits(z((wins + 0.5) / own), 10.0, what=what, because="sampling")


def test_comparisons_are_a_function_of_the_key_alone():
    _, first = data_of("ipo", own=3)
    _, second = data_of("ipo", own=3, tokens_per_batch=64, generate_batch=7)
    assert torch.equal(first.wins, second.wins)
    _, other = data_of("ipo", own=3, seed=1)
    assert not torch.equal(first.wins, other.wins)


def test_exact_comparisons_are_the_oracles_probabilities():
    _, data = data_of("ipo", own=3, comparisons="exact")
    for item, wins in zip(data.items, data.wins.numpy(), strict=True):
        chance = JUDGE.compare(None, [r.tokens for r in item.own])
        np.testing.assert_allclose(wins, chance * (1 - np.eye(3)))


# -- what is equal -------------------------------------------------------------------------------


@pytest.mark.claim("T11.sppo", regime="listed", of="identities")
@pytest.mark.parametrize("comparisons", ["drawn", "exact"])
def test_sppo_is_spif_on_winners_and_losers(claim, comparisons):
    """On any data, not in expectation only: all wins counted, the losses differ by a constant."""
    _, data = data_of("sppo", comparisons=comparisons)
    moved = data.current + 0.7 * torch.randn(len(data.current), generator=torch.manual_seed(0))
    sppo, spif = (
        losses(objective_of(name), data, moved.double(), 0.3, 0.0) for name in ("sppo", "spif(c=2)")
    )
    share = data.wins.sum(-1) / 3 - 0.5
    constant = 2.0 * share.square().mean(-1)
    claim.close(sppo - spif, constant, atol=1e-6, what="SPPO less SPIF, against the constant")


def test_ipo_is_spif_with_the_mean_reward_of_a_prompt_taken_away():
    """``m = 1/c``, K responses: ``K/(K-1) (r - mean r)^2`` in the place of ``r^2``."""
    own, beta = 4, 0.3
    _, data = data_of("ipo", own=own)
    noise = 0.7 * torch.randn(len(data.current), generator=torch.manual_seed(0))
    moved = (data.current + noise).double()
    ipo = losses(objective_of("ipo(margin=0.5)"), data, moved, beta, 0.0) - 0.25
    spif = losses(objective_of("spif(c=2)"), data, moved, beta, 0.0)
    r = beta * (moved - data.current).reshape(-1, own)
    swap = 2.0 * r.var(-1) - 2.0 * r.square().mean(-1)
    torch.testing.assert_close(ipo, spif + swap, atol=1e-6, rtol=0)


def test_at_a_rounds_start_all_gradients_are_one_direction():
    """Squared or logistic, pointwise, pairwise or group: they differ from the second step on."""
    who, data = data_of("ipo", prompts=32)
    log_probs = data.log_probs(who.scorer)
    names = ("sppo", "spif", "ipo", "dpo", "centred_spif", "spin_exponential")
    found = [
        tiny_game.gradient(who, losses(objective_of(n), data, log_probs, 0.5, 0.0)) for n in names
    ]
    for name, other in zip(names[1:], found[1:], strict=True):
        assert tiny_game.cosine(found[0], other) == pytest.approx(1.0, abs=1e-5), name
        assert other.norm() > 0, name


def test_dpo_starts_at_log_2_and_the_anchor_at_its_distance():
    who, data = data_of("dpo", prompts=16)
    each = losses(objective_of("dpo"), data, data.log_probs(who.scorer), 0.5, 0.0)
    torch.testing.assert_close(each, torch.full_like(each, np.log(2.0)), atol=1e-6, rtol=0)
    _, anchored = data_of("inpo", prompts=16, tau=0.3)
    shifted = dataclasses.replace(anchored, anchor=anchored.anchor + 1.0)
    loss = losses(objective_of("inpo"), anchored, anchored.current.double(), 0.5, 0.3)
    moved = losses(objective_of("inpo"), shifted, anchored.current.double(), 0.5, 0.3)
    torch.testing.assert_close(loss, moved)  # a constant of the prompt is nothing to a pair


# -- what theory predicts ------------------------------------------------------------------------

BETAS = {"sppo": 0.5, "spif(c=1)": 1.0, "ipo(margin=0.5)": 0.5, "dpo": 2.0}
"""The same log-ratio near P = 1/2: gains 1/2, 1, 1/2 and 2 times 1/beta."""


@pytest.fixture(scope="module")
def trained():
    """(start law, law after one round) of each objective, from the same responses and wins."""
    out = {}
    for name, beta in BETAS.items():
        who, data = data_of(name, prompts=1024, batch=48, comparisons="exact", beta=beta)
        before = tiny_game.log_law(who)
        tiny_game.train(who, data, 160)
        out[name] = before, tiny_game.log_law(who)
    return out


def predicted(name, law):
    """Reward of the loss as it is trained: SPPO's is pointwise, so it has a partition gap (T4).

    SPIF with c = 1 on winners and losers is SPPO in other units: r/2 at half the beta.
    """
    if name == "spif(c=1)":
        return 2.0 * predicted("sppo", law)
    chance, objective = JUDGE.compare(None, RESPONSES), objective_of(name)
    if objective.form == "pointwise":
        wins = chance @ law
        return one_step_round(law, law, objective, BETAS[name], preference=wins).reward
    return preferences.reward(chance, law, objective)


def clause_of(name):
    clause = "T11.logistic" if name == "dpo" else "S6.squared"
    return pytest.param(name, marks=pytest.mark.claim(clause, regime="listed"))


@pytest.mark.parametrize("name", [clause_of(name) for name in BETAS])
def test_rewards_lie_on_the_prediction(claim, trained, name):
    before, after = trained[name]
    law = np.exp(before)
    learned = BETAS[name] * (after - before)
    slope, correlation = tiny_game.fit(predicted(name, law), learned, law)
    what = f"slope of the learned reward, {name.split('(')[0]}"
    claim.close(slope, 1.0, atol=0.15, what=what, because="chosen")
    claim.exhibits(correlation, 0.95, what=f"correlation, {name.split('(')[0]}")


@pytest.mark.claim("S6.squared", "S6.logistic", regime="listed")
def test_squared_losses_reach_one_policy_and_the_logistic_one_another(claim, trained):
    law = {name: np.exp(after) for name, (_, after) in trained.items()}
    apart = {n: 0.5 * np.abs(law["sppo"] - law[n]).sum() for n in law}
    for name, other in (("ipo(margin=0.5)", "IPO"), ("spif(c=1)", "SPIF")):
        what = f"SPPO and {other} apart (TV)"
        claim.below(apart[name], 0.05, what=what, because="chosen")
    claim.exhibits(apart["dpo"], 0.15, what="SPPO and DPO apart (TV)")


@pytest.mark.claim("T11.logistic", regime="listed")
def test_dpo_learns_the_score_and_not_the_win_rate(claim, trained):
    before, after = trained["dpo"]
    law, learned = np.exp(before), after - before
    wins = JUDGE.compare(None, RESPONSES) @ law
    by_score = tiny_game.fit(np.array([score(r) for r in RESPONSES]), learned, law)[1]
    by_wins = tiny_game.fit(2.0 * wins - 1.0, learned, law)[1]
    claim.exhibits(by_score - by_wins, 0.005, what="correlation with the score over that with 2P-1")


# -- telemetry and the loop ----------------------------------------------------------------------


def test_the_slope_is_found_although_win_rates_are_estimated():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 0.3, (4000, 6))
    reward = 0.5 * true + rng.normal(0, 1, (4000, 1)) + rng.normal(0, 0.05, true.shape)
    noisy = [true + rng.normal(0, 0.4, true.shape) for _ in range(2)]
    found = preference_telemetry.regression(reward, *noisy)
    error = abs(found["preference_slope"] - 0.5)
    assert error < 4 * found["preference_slope_se"] < 0.1
    x, y = (v - v.mean(-1, keepdims=True) for v in (noisy[0], reward))
    naive = (x * y).sum() / (x * x).sum()
    assert naive < 0.25, "a plain regression is flattened by the noise"


def test_where_all_win_alike_there_is_no_slope():
    rng = np.random.default_rng(0)
    reward, one, two = (rng.normal(0, 1, (64, 6)) for _ in range(3))
    assert preference_telemetry.regression(reward, 1e-9 * one, 1e-9 * two) == {}
    same = np.repeat(one[:, :1], 6, axis=1)  # of one class, all six
    assert preference_telemetry.regression(reward, same, same) == {}


LOOP = {
    "prompts": 48, "held_out": 24, "rounds": 2, "steps_per_round": 6, "batch": 8,
    "own_samples": 4, "checkpoint_every": 4, "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize(
    "given",
    [
        {"objective": "sppo", "oracle": "bradley-terry(scale=2)", "comparisons": "exact"},
        {"objective": "inpo", "tau": 0.3, "oracle": "cyclic"},
    ],
    ids=lambda g: g["objective"],
)
def test_the_loop_measures_wins_and_resumes_bitwise(tmp_path, interrupt, given):
    assert train(tmp_path / "whole", **LOOP, **given).exit_code == 0
    row = metrics(tmp_path / "whole")[-1]
    assert 0 < row["win_rate"] < 1
    assert row["win_rate_base_se"] > 0
    assert row["preference_slope_predicted"] == pytest.approx(0.5)
    assert "kl" not in row, "there is no expert to be near to"
    interrupt(11)
    assert train(tmp_path / "cut", **LOOP, **given).exit_code != 0
    assert train(tmp_path / "cut", **LOOP, **given).exit_code == 0
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
