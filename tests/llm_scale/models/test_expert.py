"""A language model as the expert, where every response can be listed: three words, three tokens."""

import dataclasses

import numpy as np
import pytest
import torch

from lab import streams
from lab.specs import objective_of
from lab.stats import regression
from llm_scale.data.experts import NextTokens
from llm_scale.data.tasks import Answered
from llm_scale.measure import held_out, telemetry
from llm_scale.measure.held_out import HeldOut
from llm_scale.measure.predicted import RewardTerms
from llm_scale.models import expert as expert_module
from llm_scale.models import weights
from llm_scale.models.expert import ModelExpert
from tests.llm_scale import tiny_game

MANY = 1500
S = tiny_game.settings(held_out=MANY, generate_batch=500)
PAIRS = [(tiny_game.PROMPT, r) for r in tiny_game.RESPONSES]
AT = {r: i for i, r in enumerate(tiny_game.RESPONSES)}


def changed(who, seed, size):
    """The player with noise of this relative size in its weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in who.language.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(size * parameter.std(correction=0) * noise)
    return who


@pytest.fixture(scope="module")
def expert():
    return ModelExpert(changed(tiny_game.player(S, width=16), 5, 1.0))


def alike(expert, settings):
    """A player with the expert's weights."""
    who = tiny_game.player(settings, width=16)
    weights.put(who.language, weights.everything(expert.player.language.model))
    return who


def noise(i):
    return streams.uniform(tiny_game.HORIZON, 0, "here", i)


def test_its_law_is_that_of_all_responses(expert):
    found = expert.log_probs(PAIRS)
    assert np.logaddexp.reduce(found) == pytest.approx(0.0, abs=1e-5)
    np.testing.assert_allclose(found, tiny_game.log_law(expert.player), atol=1e-5)


def test_its_answers_are_samples_of_it_in_any_batches(expert):
    drawn = expert.sample([tiny_game.PROMPT] * MANY, noise)
    counts = np.bincount([AT[r.tokens] for r in drawn], minlength=len(AT))
    expected = MANY * np.exp(tiny_game.log_law(expert.player))
    square = ((counts - expected) ** 2 / expected).sum()
    assert square < len(AT) + 4 * np.sqrt(2 * len(AT))
    assert all(r.truncated == (r.tokens[-1] != 0) for r in drawn)
    other = ModelExpert(alike(expert, dataclasses.replace(S, generate_batch=1, tokens_per_batch=1)))
    assert other.sample([tiny_game.PROMPT] * 20, noise) == drawn[:20]
    np.testing.assert_allclose(other.log_probs(PAIRS), expert.log_probs(PAIRS), atol=1e-5)


def test_its_next_token_laws_are_those_of_all_prefixes(expert):
    assert isinstance(expert, NextTokens)
    table = tiny_game.log_policy(expert.player)
    rows = {p: table[i] for i, p in enumerate(tiny_game.PREFIXES)}
    found = expert.laws_along(PAIRS)
    wanted = np.stack([rows[r[:h]] for r in tiny_game.RESPONSES for h in range(len(r))])
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(-1), 1.0, atol=1e-12)


def test_telemetry_is_that_of_the_listed_laws(expert):
    """Exactly on the same responses; within four standard errors of the sum over all of them."""
    who = tiny_game.player(S, width=16)
    task = Answered(tiny_game.task(S), expert, S)
    items, own = task.held_out(), held_out.own_responses(who, task.held_out(), 0)
    held = HeldOut.draw(who, items, own)
    log_p, log_q = tiny_game.log_law(expert.player), tiny_game.log_law(who)
    before = weights.copy_of(who.language)
    log_new = tiny_game.log_law(changed(who, 6, 0.3))
    measured = held.measured(who, task.expert)
    later = held_out.with_own(held.items, held_out.own_responses(who, held.items, 1))
    with who.frozen(before) as start:
        fresh = held_out.fresh(who, start.score(held_out.own_pairs(later)), later, task.expert)
    game = RewardTerms(objective_of("spin"), 1.5)
    row = telemetry.summary(measured, game, telemetry.predictions(measured, game), fresh)

    p, q, new = (np.exp(law) for law in (log_p, log_q, log_new))
    at = [np.array([AT[getattr(i, side)[0].tokens] for i in held.items])
          for side in ("expert", "own")]  # fmt: skip
    after = np.array([AT[i.own[0].tokens] for i in later])
    for name, same, whole in (
        ("kl_before", (log_p - log_q)[at[0]], (p * (log_p - log_q)).sum()),
        ("kl", (log_p - log_new)[at[0]], (p * (log_p - log_new)).sum()),
        ("reverse_kl_before", (log_q - log_p)[at[1]], (q * (log_q - log_p)).sum()),
        ("reverse_kl", (log_new - log_p)[after], (new * (log_new - log_p)).sum()),
    ):
        assert row[name] == pytest.approx(same.mean(), abs=1e-5), name
        assert row[name] == pytest.approx(whole, abs=4 * row[f"{name}_se"]), name
    u, reward = log_p - log_q, 1.5 * (log_new - log_q)  # SPIN's link is the identity
    both = np.concatenate(at)
    x, y = (v[both] - v[both].mean() for v in (u, reward))
    assert row["link_slope"] == pytest.approx(regression(x, y).slope, abs=1e-4)
    slope, correlation = tiny_game.fit(u, reward, 0.5 * (p + q))
    assert row["link_slope"] == pytest.approx(slope, abs=4 * row["link_slope_se"])
    assert row["link_correlation"] == pytest.approx(correlation, abs=0.1)
    moved, _ = tiny_game.fit(u, log_p - log_new, 0.5 * (p + q))
    assert row["contraction"] == pytest.approx(moved, abs=4 * row["contraction_se"])


def test_a_learner_with_its_weights_has_nothing_to_learn(expert):
    who = alike(expert, S)
    np.testing.assert_array_equal(expert.log_probs(PAIRS), who.score(PAIRS).double().numpy())


def test_a_question_that_was_asked_is_not_answered_anew(expert, monkeypatch):
    """The same weights, prompts and noise have their answers; of another one of these not."""
    expert, calls, drawn = ModelExpert(alike(expert, S)), [], expert_module.generate
    counted = lambda *given, **more: calls.append(1) or drawn(*given, **more)  # noqa: E731
    monkeypatch.setattr(expert_module, "generate", counted)
    rng = np.random.default_rng(5)
    noise = rng.random((2, 6, S.max_new_tokens))
    prompts = [tiny_game.PROMPT] * 6
    first = expert.sample(prompts, lambda i: noise[0, i])
    again = expert.sample(prompts, lambda i: noise[0, i])
    assert (again, len(calls)) == (first, 1)
    again.clear()
    assert expert.sample(prompts, lambda i: noise[0, i]) == first
    expert.sample(prompts, lambda i: noise[1, i])
    expert.sample([(1,)] * 6, lambda i: noise[0, i])
    assert len(calls) == 3
    changed(expert.player, 6, 0.5)
    assert expert.sample(prompts, lambda i: noise[0, i]) != first
    assert len(calls) == 4
