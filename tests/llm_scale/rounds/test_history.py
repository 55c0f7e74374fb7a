"""Own responses of the model before: how many, which, and what log-ratios divide by."""

import numpy as np
import pytest
import torch

from lab import streams
from lab.specs import objective_of
from llm_scale.models import weights
from llm_scale.rounds.begin import begin
from tests.llm_scale import tiny_game
from tests.llm_scale.commands import metrics, train

ROUND, K, PROMPTS = 3, 3, 4


@pytest.fixture(scope="module")
def models():
    """A player (pi_t), and weights of another model (pi_{t-1})."""
    who = tiny_game.player(tiny_game.settings(), width=16)
    generator = torch.Generator().manual_seed(1)
    previous = weights.copy_of(who.language)
    with torch.no_grad():
        for parameter in who.language.model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.5 * parameter.std(correction=0) * noise)
    return who, previous


def started(models, share):
    who, previous = models
    who.settings = tiny_game.settings(own_samples=K, history=share)
    items = tiny_game.task(who.settings).items(0)[:PROMPTS]
    return begin(who, items, ROUND, objective_of("spin"), previous, previous)


def own_of(found):
    return [r for item in found.data.items for r in item.own]


def drawn_by(models):
    """What both models draw with the noise of the same keys: pi_t, then pi_{t-1}."""
    who, previous = models
    items = tiny_game.task(who.settings).items(0)[:PROMPTS]
    keys = [(item.id, k) for item in items for k in range(K)]

    def number(i):
        return streams.uniform(tiny_game.HORIZON, 0, "own", ROUND, *keys[i])

    prompts = [item.prompt for item in items for _ in range(K)]
    with who.frozen(previous) as other:
        return [m.sample(prompts, number, "here")[0] for m in (who, other)]


def test_no_share_is_the_plain_round_bit_for_bit(models):
    found, (now, old) = started(models, 0.0), drawn_by(models)
    assert own_of(found) == now != old
    torch.testing.assert_close(found.data.opponent, found.data.current, rtol=0, atol=0)
    assert len(found.sampler) == K * PROMPTS


@pytest.mark.parametrize(("share", "count"), [(0.25, 3), (0.5, 6), (0.6, 7), (1.0, 12)])
def test_the_share_is_met_and_log_ratios_divide_by_the_model_now(models, share, count):
    found, (now, old) = started(models, share), drawn_by(models)
    order = streams.generator(0, "history share", ROUND).permutation(K * PROMPTS)
    chosen = set(order[:count].tolist())
    wanted = [old[i] if i in chosen else now[i] for i in range(K * PROMPTS)]
    assert own_of(found) == wanted
    data = found.data
    torch.testing.assert_close(data.opponent, models[0].score(data.pairs))
    torch.testing.assert_close(data.opponent, data.current, rtol=0, atol=0)
    assert len(found.sampler) == len(found.own) == K * PROMPTS - count
    np.testing.assert_allclose(found.sampler, found.own, atol=1e-5)


SMALL = {
    "device": "cpu", "prompts": 32, "held_out": 16, "batch": 8, "steps_per_round": 4,
    "sft_steps": 4, "cosines": 0,
}  # fmt: skip


def test_the_model_before_round_0_is_the_first_one(tmp_path):
    """So a first round with old responses only is the plain one; the second is not."""
    rows = {}
    for share in (0.0, 1.0):
        out = tmp_path / str(share)
        assert train(out, **SMALL, rounds=2, history=share).exit_code == 0
        rows[share] = metrics(out)
    first = [[r for r in found if r.get("at") == "round 0"] for found in rows.values()]
    second = [[r for r in found if r.get("at") == "round 1"] for found in rows.values()]
    assert first[0] == first[1]
    assert second[0] != second[1]
    plain, old = ([r for r in found if "round" in r] for found in rows.values())
    assert "link_slope" in plain[0]
    assert "link_slope" not in old[0]
    assert "pi_{t-1}" in old[0]["prediction_reason"]
    assert old[1]["kl"] > 0, "measured all the same"
    assert "sampler_gap" not in old[1], "nothing was drawn from pi_t"
