"""One term of a loss alone, and own responses of pi_0: by hand, and refused where there is none."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from lab.specs import objective_of
from llm_scale.launch.combinations import combination_problems
from llm_scale.models import weights
from llm_scale.rounds.begin import begin, seen_prompt
from llm_scale.settings import Settings
from llm_scale.train import losses
from tests.llm_scale.commands import call, metrics
from tests.llm_scale.tiny_game import player, settings, start, task

BETA = 0.6


def round_of(**given):
    who = player(settings(objective="spif(c=0.5)", prompts=6, expert_samples=2, **given))
    data = start(who).data
    noise = torch.randn(data.current.shape, generator=torch.manual_seed(1))
    return data, (data.current + noise).double()


def expert(r):
    return -r + r**2 / 4


def own(r):
    return r + r**2 / 4


def test_the_terms_of_whole_responses_by_hand():
    """c = 1/2: -r + r^2/4 of expert responses, r + r^2/4 of own ones; both are 0 at 0."""
    data, log_pi = round_of(own_samples=3)
    reward = BETA * (log_pi - data.opponent.double()).reshape(6, 5)
    wanted = {"expert": expert(reward[:, :2]).mean(1), "own": own(reward[:, 2:]).mean(1)}
    wanted["both"] = wanted["expert"] + wanted["own"]
    for terms, each in wanted.items():
        found = losses(objective_of("spif(c=0.5)"), data, log_pi, BETA, 0.0, terms)
        torch.testing.assert_close(found, each)


def test_the_terms_of_tokens_by_hand():
    data, log_pi = round_of(level="token", own_samples=2)
    reward = BETA * (log_pi - data.opponent.double())
    wanted = {"expert": expert(reward[:, 0]), "own": own(reward[:, 1:]).mean(1)}
    for terms, each in wanted.items():
        found = losses(objective_of("spif(c=0.5)"), data, log_pi, BETA, 0.0, terms)
        torch.testing.assert_close(found.sum(), each.sum() / 2)  # a mean over two responses


def test_the_side_that_is_left_out_has_no_gradient():
    data, log_pi = round_of(own_samples=1)
    log_pi.requires_grad_()
    losses(objective_of("airl"), data, log_pi, BETA, 0.0, "own").sum().backward()
    gradient = log_pi.grad.reshape(6, 3)
    assert torch.equal(gradient[:, :2], torch.zeros(6, 2).double())
    assert (gradient[:, 2] != 0).all()


def test_own_responses_of_pi_0_are_compared_with_pi_t():
    who = player(settings(own_from="base", prompts=16))
    base = weights.copy_of(who.language)
    s, known = who.settings, task(who.settings)
    first = begin(who, known.items(0), 0, objective_of(s.objective), base, base)
    with torch.no_grad():
        for parameter in who.language.model.parameters():
            parameter.mul_(1.5)
    later = begin(who, known.items(0), 0, objective_of(s.objective), base, base)
    assert [i.own for i in later.data.items] == [i.own for i in first.data.items]
    assert torch.equal(later.data.current, later.data.opponent)
    torch.testing.assert_close(later.data.current, who.score(later.data.pairs))
    assert not torch.allclose(later.data.current, first.data.current, atol=1e-2)
    assert len(later.sampler) == 0


def test_own_responses_at_a_temperature_are_compared_at_one():
    who = player(settings(own_temperature=0.3, prompts=64))
    s, known = who.settings, task(who.settings)
    base = weights.copy_of(who.language)
    cold = begin(who, known.items(0), 0, objective_of(s.objective), base, base)
    torch.testing.assert_close(cold.data.current, who.score(cold.data.pairs))
    assert torch.equal(cold.data.current, cold.data.opponent)
    torch.testing.assert_close(cold.sampler.float(), cold.own, rtol=1e-4, atol=1e-3)
    plain = player(settings(prompts=64))
    at_one = begin(plain, known.items(0), 0, objective_of(s.objective), base, base)
    length = [sum(len(i.own[0].tokens) for i in part.data.items) for part in (cold, at_one)]
    each = [float(part.own.mean()) * 64 / n for part, n in zip((cold, at_one), length, strict=True)]
    assert each[0] > each[1] + 0.1  # nats a token: likelier ones


def test_greedy_own_responses_are_the_likeliest_tokens():
    who = player(settings(own_temperature=0.0, prompts=4, max_new_tokens=3))
    items, base = task(who.settings).items(0), weights.copy_of(who.language)
    made = begin(who, items, 0, objective_of(who.settings.objective), base, base)
    for item in made.data.items:
        own = item.own[0].tokens
        for h, token in enumerate(own):
            after = torch.tensor([[*item.prompt, *own[:h]]])
            assert token == int(who.language.model(after).logits[0, -1].argmax())


def test_a_cut_own_response_ends_where_it_was_cut():
    known, made = [], []
    for own_cut in ("kept", "ended"):
        who = player(settings(own_cut=own_cut, prompts=64, max_new_tokens=2))
        base = weights.copy_of(who.language)
        known.append(who)
        items = task(who.settings).items(0)
        made.append(begin(who, items, 0, objective_of(who.settings.objective), base, base))
    kept, ended = ([i.own[0] for i in part.data.items] for part in made)
    (end, *_) = known[0].language.ends
    cut = [r.truncated for r in kept]
    assert 0 < sum(cut) < 64
    for before, after in zip(kept, ended, strict=True):
        assert not after.truncated
        assert after.tokens == ((*before.tokens[:-1], end) if before.truncated else before.tokens)
    assert len(made[1].sampler) == len(made[1].own) == 64 - sum(cut)
    torch.testing.assert_close(made[1].data.current, known[1].score(made[1].data.pairs))


def test_after_a_cut_prompt_own_responses_are_drawn_but_not_scored():
    made = {}
    for own_prompt in ("whole", "cut"):
        who = player(settings(own_prompt=own_prompt, prompts=64))
        base, items = weights.copy_of(who.language), task(who.settings).items(0)
        played = objective_of(who.settings.objective)
        items = [replace(i, prompt=(*i.prompt, i.prompt[-1])) for i in items]
        whole = begin(who, items, 0, played, base, base)
        if own_prompt == "cut":  # as those of the whole prompt, which is the same but one token
            short = player(settings(prompts=64))
            plain = begin(short, task(who.settings).items(0), 0, played, base, base)
            assert [i.own for i in whole.data.items] == [i.own for i in plain.data.items]
        torch.testing.assert_close(whole.data.current, who.score(whole.data.pairs))
        assert [i.prompt for i in whole.data.items] == [i.prompt for i in items]
        made[own_prompt] = whole
    assert len(made["cut"].sampler) == 0
    assert len(made["whole"].sampler) == 64
    assert [i.own for i in made["cut"].data.items] != [i.own for i in made["whole"].data.items]


def test_a_prompt_of_one_token_stays():
    assert seen_prompt((5,), cut=True) == seen_prompt((5,), cut=False) == (5,)
    assert seen_prompt((5, 6), cut=True) == (5,)


@pytest.mark.parametrize("objective", ["ipo(margin=1)", "spif(c=0.5)", "centred_spif(c=1)"])
def test_rewards_divided_by_lengths_are_those_of_the_means_of_tokens(objective):
    """By hand: the loss of ``beta log-ratio / |y|``, response by response."""
    data, log_pi = round_of(own_samples=2)
    lengths = torch.tensor([[len(r.tokens) for r in i.responses] for i in data.items])
    assert len(set(lengths.flatten().tolist())) > 1
    mean = BETA * (log_pi - data.opponent.double()).reshape(6, 4) / lengths
    played = objective_of(objective)
    found = losses(played, data, log_pi, BETA, 0.0, "both", True)
    torch.testing.assert_close(found, played.reward_risk(mean[:, :2], mean[:, 2:]))
    assert not torch.allclose(found, losses(played, data, log_pi, BETA, 0.0))


def test_a_run_with_lengths_trains_another_model(tmp_path):
    small = ("--preset", "tiny-cpu", "--prompts=8", "--rounds=1", "--steps-per-round=2")
    last = []
    for more in ((), ("--length-normalised",)):
        out = tmp_path / "".join(("run", *more))
        said = call("train", "--out", out, *small, "--batch=8", "--sft-steps=0", *more).output
        last += [r["loss"] for r in metrics(out) if "loss" in r][-1:]
        assert ("no threshold of the step" in said) == bool(more)
    assert last[0] != last[1]


def test_of_a_task_whose_prompts_are_single_tokens_nothing_is_cut(tmp_path):
    out = tmp_path / "run"
    said = call("train", "--out", out, "--preset", "tiny-cpu", "--own-prompt=cut", code=2).output
    assert "own_prompt='cut': the prompts are single tokens" in " ".join(said.split())
    assert not out.exists()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"terms": "own"}, "'spin' is pairwise: its loss reads expert and own responses together"),
        ({"terms": "expert", "objective": "renyi", "own_samples": 2}, "'renyi' is group"),
        ({"terms": "expert", "objective": "sft"}, "terms='expert' is of self-play"),
        ({"own_from": "base", "objective": "sft"}, "own_from='base' is of self-play"),
        ({"history": 0.5, "objective": "sft"}, "history=0.5 is of self-play"),
        ({"own_temperature": 0.7, "objective": "sft"}, "own_temperature=0.7 is of self-play"),
        ({"own_cut": "ended", "level": "token"}, "own_cut='ended': own responses are no samples"),
        ({"own_temperature": 0.7, "history": 0.5}, "history must be 0"),
        ({"own_prompt": "cut", "objective": "sft"}, "own_prompt='cut' is of self-play"),
        ({"own_prompt": "cut", "opponent": "mixture"}, "own_prompt='cut': own responses are no"),
        ({"length_normalised": True, "objective": "sft"}, "length_normalised is of self-play"),
        ({"length_normalised": True, "level": "token"}, "level must be sequence"),
        ({"own_from": "base", "opponent": "base"}, "opponent must be last"),
        ({"own_from": "base", "history": 0.5}, "history must be 0"),
        ({"own_from": "base", "level": "token"}, "level must be sequence"),
        ({"own_from": "base", "oracle": "cyclic", "own_samples": 2, "objective": "dpo"},
         "oracle must be none"),
        ({"own_from": "base", "objective": "alpha_spin"}, "an opponent of its own"),
    ],
)  # fmt: skip
def test_what_cannot_be_left_out_is_refused(given, why):
    (problem,) = combination_problems(Settings(**given))
    assert why in problem


def test_an_ablation_has_no_prediction(tmp_path):
    """It runs to its end; links, bounds and effective step are of the whole game alone."""
    small = ("--device=cpu", "--prompts=16", "--held-out=8", "--rounds=1", "--steps-per-round=2",
             "--batch=4", "--objective=spif")  # fmt: skip
    for flag, reason in (
        ("--terms=own", "the term of own"),
        ("--own-from=base", "own responses of pi_0"),
        ("--own-temperature=0.7", "own responses at temperature 0.7"),
        ("--own-cut=ended", "own responses that are closed"),
    ):
        out = tmp_path / flag
        said = call("train", "--out", out, *small, flag).output
        assert f"theory: no threshold of the step: {reason}" in said
        row = next(r for r in metrics(out) if "round" in r)
        assert row["prediction_reason"].startswith("an ablation")
        assert not {"link_slope", "reward_range_bound", "contraction_local"} & set(row)
        assert np.isfinite(row["nll"])
