"""How a round begins: whose responses are drawn, and by which law their log-ratios divide."""

import numpy as np
import pytest
import torch

from lab import streams
from lab.specs import objective_of
from llm_scale.models import weights
from llm_scale.rounds.begin import begin
from tests.llm_scale import tiny_game

ROUND = 3


@pytest.fixture(scope="module")
def models():
    """A player (pi_t) with weights of pi_{t-1} and of pi_0, all three different."""
    who = tiny_game.player(tiny_game.settings(own_samples=3), width=16)
    base = weights.copy_of(who.language)
    _move(who, 1)
    previous = weights.copy_of(who.language)
    _move(who, 2)
    return who, previous, base


def _move(who, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in who.language.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.3 * parameter.std(correction=0) * noise)


def started(models, objective="spin", judge=None, **given):
    """The round, its items, and (responses, log-probabilities) of who draws with its noise."""
    who, previous, base = models
    who.settings = s = tiny_game.settings(own_samples=3, objective=objective, **given)
    items = tiny_game.task(s).items(0)[:4]
    found = begin(who, items, ROUND, objective_of(objective), previous, base, judge)
    return found, items


def drawn_by(models, which, purpose="own", count=3):
    """What a model draws with the noise of these keys, and how it scores all of the pairs."""
    who, previous, base = models
    items = tiny_game.task(who.settings).items(0)[:4]
    keys = [(i.id, k) for i in items for k in range(count)] if purpose == "own" else [
        (i.id,) for i in items]  # fmt: skip
    prompts = [i.prompt for i in items for _ in range(count)]
    s = who.settings

    def number(i):
        return streams.uniform(s.max_new_tokens, s.seed, purpose, ROUND, *keys[i])

    if which == "player":
        return who.sample(prompts, number, "here")
    with who.frozen({"previous": previous, "base": base}[which]) as other:
        return other.sample(prompts, number, "here")


def score(models, which, pairs):
    who, previous, base = models
    if which == "player":
        return who.score(pairs)
    with who.frozen({"previous": previous, "base": base}[which]) as other:
        return other.score(pairs)


def own_of(data):
    return [r for item in data.items for r in item.own]


def is_own(data):
    return torch.tensor([
        side == 1 for item in data.items
        for side, part in enumerate((item.expert, item.own, item.history)) for _ in part
    ])  # fmt: skip


@pytest.mark.parametrize(("opponent", "which"), [("last", "player"), ("base", "base")])
def test_own_responses_and_log_ratios_of_one_law(models, opponent, which):
    found, items = started(models, opponent=opponent)
    data = found.data
    responses, seen = drawn_by(models, which)
    assert own_of(data) == responses
    np.testing.assert_allclose(found.sampler, seen, atol=1e-6)
    assert [item.expert for item in data.items] == [item.expert for item in items]
    assert not any(item.history for item in data.items)
    torch.testing.assert_close(data.current, score(models, "player", data.pairs))
    torch.testing.assert_close(data.opponent, score(models, which, data.pairs))
    torch.testing.assert_close(found.own, data.opponent[is_own(data)])
    assert len(data.anchor) == (0 if opponent == "last" else len(data.current))


def test_a_mixture_draws_whole_responses_from_either(models):
    found, items = started(models, opponent="mixture")
    data = found.data
    new, old = drawn_by(models, "player")[0], drawn_by(models, "previous")[0]
    keys = [(i.id, k) for i in items for k in range(3)]
    luck = [streams.uniform(1, 0, "component", ROUND, *key)[0] for key in keys]
    chosen = [a if u < 0.5 else b for a, b, u in zip(new, old, luck, strict=True)]
    assert own_of(data) == chosen
    assert 0 < sum(u < 0.5 for u in luck) < len(luck)
    both = score(models, "player", data.pairs), score(models, "previous", data.pairs)
    mixed = torch.logaddexp(*both) - np.log(2.0)
    torch.testing.assert_close(data.opponent, mixed)
    # the sampler of a response knows the law of its part alone: those of pi_t are compared
    now = torch.tensor([u < 0.5 for u in luck])
    torch.testing.assert_close(found.own, both[0][is_own(data)][now])
    torch.testing.assert_close(found.sampler, found.own.double(), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("objective", "given", "read"),
    [("spin", {}, False), ("spin", {"tau": 0.5}, True), ("alpha_spin", {}, True)],
)
def test_the_first_model_is_scored_where_it_is_read(models, objective, given, read):
    data = started(models, objective, **given)[0].data
    assert (data.log_anchor is not None) == read
    if read:
        torch.testing.assert_close(data.anchor, score(models, "base", data.pairs))
    if objective == "spin":
        torch.testing.assert_close(data.opponent, data.current)


def test_a_response_of_the_first_model_for_the_history(models):
    found, _ = started(models, "tspin")
    data = found.data
    responses, _ = drawn_by(models, "base", "history", 1)
    assert [item.history for item in data.items] == [(r,) for r in responses]
    torch.testing.assert_close(found.own, data.opponent[is_own(data)])


def test_an_oracle_leaves_own_responses_alone(models):
    class Judge:
        def compare(self, item, given):
            return np.full((len(given), len(given)), 0.5)

    found, _ = started(models, "ipo", Judge())
    assert all(item.expert == () and len(item.own) == 3 for item in found.data.items)
    assert len(found.own) == len(found.data.current) == 12
