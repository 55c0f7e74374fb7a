"""Rewards per token in the conditional form: what is drawn, what the loss is, what theory says."""

import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats

from lab.specs import objective_of
from llm_scale.launch import combinations
from llm_scale.measure import tokens as token_telemetry
from llm_scale.measure.predicted import RewardTerms
from llm_scale.rounds.tokens import TokenRound
from llm_scale.settings import Settings
from llm_scale.train import losses
from tests.llm_scale import tiny_game
from tests.llm_scale.commands import metrics, outcome, train
from theory import TokenMDP, self_play


def made(objective="spin", **given):
    s = tiny_game.settings(objective=objective, level="token", **given)
    who = tiny_game.player(s)
    return who, tiny_game.start(who)


# -- what is drawn and stored --------------------------------------------------------------------


def test_own_tokens_are_drawn_from_the_policy_at_every_prefix():
    who, round_ = made(own_samples=2, prompts=1500)
    table = np.exp(tiny_game.log_policy(who))
    data, at, found = round_.data, 0, np.zeros_like(table)
    for item in data.items:
        tokens = item.expert[0].tokens
        for h in range(len(tokens)):
            for token in data.own[at].tolist():
                found[tiny_game.PREFIXES.index(tokens[:h]), token] += 1
            at += 1
    assert at == len(data.own)
    seen = found.sum(-1, keepdims=True)
    often = (seen * table > 5).all(-1)
    square = (np.square(found - seen * table) / np.maximum(seen * table, 1e-9)).sum(-1)
    p_values = stats.chi2.sf(square[often], table.shape[-1] - 1)
    assert often.sum() >= 8
    assert p_values.min() > 1e-3 / len(p_values)


def test_the_draw_is_a_function_of_the_key_alone():
    _, first = made(own_samples=2)
    _, second = made(own_samples=2, tokens_per_batch=20)
    assert torch.equal(first.data.own, second.data.own)
    torch.testing.assert_close(first.data.current, second.data.current, atol=1e-5, rtol=0)
    _, fewer = made(own_samples=1)
    assert torch.equal(first.data.own[:, :1], fewer.data.own)


@pytest.mark.parametrize("opponent", ["last", "base", "alpha_spin"])
def test_stored_log_probabilities_are_the_opponents(opponent):
    objective = "alpha_spin" if opponent == "alpha_spin" else "spin"
    s = tiny_game.settings(
        objective=objective,
        level="token",
        opponent="base" if opponent == "base" else "last",
        own_samples=2,
    )
    who = tiny_game.player(s)
    base = {n: p.detach().clone() for n, p in who.language.model.named_parameters()}
    first = tiny_game.log_policy(who)
    with torch.no_grad():
        for p in who.language.model.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=torch.manual_seed(1)))
    from llm_scale.rounds import tokens as token_level

    items = tiny_game.task(s).items(0)
    data, seen, stored = token_level.begin(who, items, 0, objective_of(objective), base)
    now = tiny_game.log_policy(who)
    mixed = 0.5 * (first + now)
    law = {
        "last": now,
        "base": first,
        "alpha_spin": mixed - np.logaddexp.reduce(mixed, axis=-1, keepdims=True),
    }[opponent]
    prefixes = [
        tiny_game.PREFIXES.index(r.tokens[:h])
        for item in items
        for r in item.expert
        for h in range(len(r.tokens))
    ]
    tokens = [t for item in items for r in item.expert for t in r.tokens]
    targets = np.column_stack([tokens, data.own.numpy()])
    np.testing.assert_allclose(
        data.opponent.numpy(), np.take_along_axis(law[prefixes], targets, 1), atol=2e-5
    )
    np.testing.assert_allclose(
        data.current.numpy(), np.take_along_axis(now[prefixes], targets, 1), atol=2e-5
    )
    torch.testing.assert_close(seen.float(), stored, atol=2e-5, rtol=0)


def test_a_round_is_the_sum_of_its_items_and_survives_as_tensors():
    who, round_ = made("centred_spif", own_samples=3, expert_samples=2, prompts=12)
    data = round_.data
    objective = objective_of("centred_spif")
    moved = data.current + 0.3 * torch.randn(data.current.shape, generator=torch.manual_seed(0))
    whole = losses(objective, data, moved, 0.5, 0.0)
    ends = np.cumsum([0, *(sum(len(r.tokens) for r in i.expert) for i in data.items)])
    for i in (0, 5, 11):
        part = data.subset([i])
        own = losses(objective, part, moved[ends[i] : ends[i + 1]], 0.5, 0.0)
        torch.testing.assert_close(own, whole[i : i + 1])
    again = TokenRound.of(data.tensors())
    assert again.items == data.items
    assert torch.equal(again.own, data.own)
    torch.testing.assert_close(data.rescored(who), data.current, atol=1e-5, rtol=0)


# -- the loss ------------------------------------------------------------------------------------


def test_spin_starts_at_log_2_a_position():
    who, round_ = made("spin")
    data = round_.data
    each = losses(objective_of("spin"), data, data.log_probs(who.scorer), 0.7, 0.0).detach()
    count = np.array([len(i.expert[0].tokens) for i in data.items])
    np.testing.assert_allclose(each.double().numpy() / count, np.log(2.0), rtol=0, atol=1e-6)


def test_spin_is_the_logistic_loss_of_every_token_summed():
    _, round_ = made("spin", prompts=16)
    data, beta = round_.data, 0.7
    moved = data.current + torch.randn(data.current.shape, generator=torch.manual_seed(0))
    ours = losses(objective_of("spin"), data, moved.double(), beta, 0.0)
    d = beta * (moved - data.current).double().numpy()
    each = np.log1p(np.exp(d[:, 1] - d[:, 0]))
    ends = np.cumsum([0, *(len(i.expert[0].tokens) for i in data.items)])
    by_hand = [each[a:b].sum() for a, b in pairwise(ends)]
    np.testing.assert_allclose(ours.numpy(), by_hand, rtol=0, atol=1e-6)


def test_the_anchor_is_per_token():
    _, round_ = made("inpo", tau=0.4, prompts=8)
    data = round_.data
    assert data.anchor.shape == data.current.shape
    away = dataclasses.replace(data, anchor=data.anchor - torch.tensor([1.0, 0.0]))
    margin, beta, tau = 0.5, 1.0, 0.4
    each = losses(objective_of("inpo"), away, data.current, beta, tau)
    count = torch.tensor([float(len(i.expert[0].tokens)) for i in data.items])
    torch.testing.assert_close(each, count * (tau * 1.0 - margin) ** 2)


@pytest.mark.claim("T15.first_gradient", "S7.first_gradient", regime="listed", of="identities")
@pytest.mark.parametrize("objective", ["spin", "spif", "ipo"])
def test_the_first_gradient_is_sfts_in_expectation(claim, objective):
    """What stands across it is noise of the own tokens: its mean square shrinks like 1/K."""
    draws = 48
    who, round_ = made(objective, own_samples=draws, prompts=16)
    data = round_.data
    sft = tiny_game.gradient(who, data.likelihood_loss(data.log_probs(who.scorer)))
    sft = sft / sft.norm()
    log_probs = data.log_probs(who.scorer)
    across = []
    for k in range(draws):
        columns = [0, 1 + k]
        one = dataclasses.replace(
            data,
            current=data.current[:, columns],
            opponent=data.opponent[:, columns],
            own=data.own[:, k : k + 1],
        )
        found = tiny_game.gradient(
            who, losses(objective_of(objective), one, log_probs[:, columns], 1.0, 0.0)
        )
        assert found @ sft > 0
        across.append(found - (found @ sft) * sft)
    stacked = torch.stack(across)
    noise = float((stacked - stacked.mean(0)).square().sum() / (draws * (draws - 1)))
    left = float(stacked.mean(0).square().sum())
    what = "mean square of the gradient across SFT's over its noise"
    claim.below(left / noise, 2.5, what=what, because="chosen")


# -- what theory predicts ------------------------------------------------------------------------


def exact(s, who):
    """The expert and the start as state-action log-policies of the enumerated game."""
    game = TokenMDP.tree(tiny_game.WORDS + 1, tiny_game.HORIZON)
    assert [tuple(t for t in p if t >= 0) for p in game.prefixes.tolist()] == tiny_game.PREFIXES
    expert = tiny_game.task(s).expert
    rows = [expert.next_log_laws(np.array([tiny_game.PROMPT + p]))[0] for p in tiny_game.PREFIXES]
    return game, np.stack(rows), tiny_game.log_policy(who)


SETUPS = {
    "spin": {"beta": 1.5, "own_samples": 4},
    "ipo": {"beta": 1.5, "own_samples": 4},
    "spif(c=0.5)": {"beta": 2.0, "own_samples": 4},
}


@pytest.fixture(scope="module")
def trained():
    out = {}
    for name, given in SETUPS.items():
        who, round_ = made(name, prompts=2048, batch=64, **given)
        game, expert, start = exact(who.settings, who)
        tiny_game.train(who, round_.data, 180)
        out[name] = game, expert, start, tiny_game.log_policy(who), who.settings
    return out


def one_round(game, expert, start, s, level):
    """Policy after one round; the loss on one model trains each prefix's own law (one_step)."""
    found = self_play(
        expert,
        start,
        objective_of(s.objective),
        s.beta,
        rounds=1,
        game=game,
        level=level,
        one_step=level == "conditional",
    )
    return np.asarray(found.policies[-1])


def agreement(game, expert, start, learned, s):
    """Slope and correlation of learned on predicted token rewards, centred per prefix."""
    predicted = one_round(game, expert, start, s, "conditional")
    visits = np.exp(game.log_occupancy(expert)).sum(-1)
    weight = visits[:, None] * 0.5 * (np.exp(expert) + np.exp(start))
    centred = []
    for law in (predicted, learned):
        r = s.beta * (law - start)
        centred.append(r - (weight * r).sum(-1, keepdims=True) / weight.sum(-1, keepdims=True))
    return tiny_game.fit(*centred, weight / weight.sum())


@pytest.mark.claim("T14.one_loss_per_token", regime="listed")
@pytest.mark.parametrize("name", SETUPS)
def test_a_round_is_the_conditional_one(claim, trained, name):
    slope, correlation = agreement(*trained[name])
    short = name.split("(")[0]
    what = f"slope of the learned token reward, {short}"
    claim.close(slope, 1.0, atol=0.25, what=what, because="chosen")
    claim.exhibits(correlation, 0.75, what=f"correlation, {short}")


def test_it_comes_nearer_with_more_samples(trained):
    who, round_ = made("ipo", prompts=128, batch=64, **SETUPS["ipo"])
    game, expert, start = exact(who.settings, who)
    tiny_game.train(who, round_.data, 180)
    few = agreement(game, expert, start, tiny_game.log_policy(who), who.settings)[1]
    assert agreement(*trained["ipo"])[1] > few


@pytest.mark.claim("T14.conditional", regime="listed", drops="linear_link")
@pytest.mark.parametrize("name", ["ipo", "spif(c=0.5)"])
def test_bounded_links_per_token_are_not_those_per_response(claim, trained, name):
    """The trained policy is nearer to the conditional round than to the sequence round."""
    game, expert, start, learned, s = trained[name]
    levels = ("conditional", "sequence")
    here = game.sequence_law(learned)
    laws = {v: game.sequence_law(one_round(game, expert, start, s, v)) for v in levels}
    near, far = (0.5 * np.abs(here - laws[v]).sum() for v in levels)
    apart = 0.5 * np.abs(laws["conditional"] - laws["sequence"]).sum()
    claim.exhibits(
        (far - near) / apart, 0.25, what="TV to the sequence round in excess, as a share"
    )


@pytest.mark.claim("T14.conditional", regime="tabular", drops="continuation_values")
def test_one_loss_per_token_is_spins_round_only_at_beta_1(claim):
    """Links add up along a response, but each prefix's law is normalised for itself."""
    s = tiny_game.settings(objective="spin")
    game, expert, start = exact(s, tiny_game.player(s))
    for beta in (1.0, 1.5):
        s = dataclasses.replace(s, beta=beta)
        token, whole = (
            game.sequence_law(one_round(game, expert, start, s, v))
            for v in ("conditional", "sequence")
        )
        apart = 0.5 * np.abs(token - whole).sum()
        if beta == 1.0:
            claim.close(apart, 0.0, atol=1e-9, what="TV of the two levels at beta = 1")
        else:
            claim.exhibits(apart, 0.01, what="TV of the two levels at beta = 1.5")


def test_telemetry_finds_the_token_link():
    s = tiny_game.settings(objective="spin", level="token", beta=2.0)
    who = tiny_game.player(s)
    known = tiny_game.task(s)
    game = RewardTerms(objective_of("spin"), 2.0, level="token")
    found = token_telemetry.measured(who, who, known.held_out(), known.expert, game)
    assert found == {}, "a policy that has not moved has no reward to compare"
    p, q = np.random.default_rng(0).dirichlet(np.ones(4), size=(2, 5))
    link, refined, *_ = token_telemetry.predictions(p, q, RewardTerms(objective_of("spin"), 2.0))
    np.testing.assert_allclose(link, np.log(p / q))
    np.testing.assert_allclose(refined, link)
    row = token_telemetry.regression("x", link, 0.7 * link + 1.0, 0.5 * (p + q), np.arange(5))
    assert row["x_slope"] == pytest.approx(0.7)
    assert row["x_correlation"] == pytest.approx(1.0)


# -- the loop ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"opponent": "mixture"}, "draws a whole response"),
        ({"objective": "tspin"}, "whole responses of pi_0"),
        ({"objective": "centred_spif", "expert_samples": 2}, "needs a group"),
        ({"objective": "sppo"}, "needs preferences"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    problems = combinations.combination_problems(Settings(level="token", **given))
    assert len(problems) == 1
    assert message in problems[0]


LOOP = {
    "prompts": 48, "held_out": 24, "rounds": 2, "steps_per_round": 6, "batch": 8, "level": "token",
    "checkpoint_every": 4, "device": "cpu",
}  # fmt: skip


def test_the_loop_resumes_bitwise_and_batches_change_nothing(tmp_path, interrupt):
    given = {"objective": "centred_spif", "own_samples": 3, "tau": 0.1}
    assert train(tmp_path / "whole", **LOOP, **given).exit_code == 0
    assert train(tmp_path / "small", **LOOP, **given, tokens_per_batch=40).exit_code == 0
    interrupt(11)
    assert train(tmp_path / "cut", **LOOP, **given).exit_code != 0
    assert train(tmp_path / "cut", **LOOP, **given).exit_code == 0
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    seen = [
        [row["loss"] for row in metrics(tmp_path / run) if "loss" in row]
        for run in ("whole", "small")
    ]
    np.testing.assert_allclose(seen[0], seen[1], rtol=1e-4)
