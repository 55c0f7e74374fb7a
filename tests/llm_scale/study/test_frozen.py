"""The round of a tiny model whose features do not move, and of the model itself (T18)."""

import dataclasses

import numpy as np
import pytest
import torch

from llm_scale.launch import prepare
from llm_scale.models.player import Machine, Player
from llm_scale.study import columns, frozen, tiny_model
from llm_scale.study import listed_laws as listed
from llm_scale.study.tiny_runs import job
from llm_scale.train import assemble, train
from theory import laws, objectives

IPO = objectives.get("ipo")
KEPT, DRAWN, STEPS = 40, 40, 64


def test_gradients_are_those_of_the_score(language, settings):
    """Along one weight, by differences of the score."""
    player = Player(language, settings, Machine.of(settings))
    prompt, response = (3, 4), (5, 6, language.eos)
    found = frozen.gradients(player, prompt, [response, (7, language.eos)])
    weight = next(w for w in player.model.parameters() if w.requires_grad)
    steepest = int(np.abs(found[0, : weight.numel()]).argmax())
    scores = []
    for step in (-1e-2, 1e-2):
        with torch.no_grad():
            weight.view(-1)[steepest] += step
            scores.append(float(player.score([(prompt, response)])[0]))
            weight.view(-1)[steepest] -= step
    assert (scores[1] - scores[0]) / 2e-2 == pytest.approx(found[0, steepest], rel=0.02)


def test_all_features_end_at_the_link():
    """A feature a response: after many steps the reward is the link; thinning keeps the laws."""
    rng = np.random.default_rng(0)
    log_p, log_q = (np.log(laws.random_law(rng, (2, 6), 1.0)) for _ in range(2))
    some = frozen.thinned(log_p, log_q, 5, 1, rng)
    for law, log_law in ((some.p, log_p), (some.q, log_q)):
        assert law.sum(-1) == pytest.approx(1.0)
        np.testing.assert_allclose(
            law, np.take_along_axis(np.exp(log_law), some.at, -1), atol=1e-12
        )
    features = np.zeros((2, 6, 12), dtype=np.float32)
    features[0, :, :6] = features[1, :, 6:] = np.eye(6)
    kernel = frozen.adam_kernel(features, some.p, some.q, 8)
    reward = frozen.ipo_round(kernel, some.p, some.q, 1.0, np.full(5000, 0.05))
    found = columns.fit("link", IPO.reward(some.p, some.q), reward, 0.5 * (some.p + some.q))
    assert found["link_slope"] == pytest.approx(1.0, abs=1e-3)
    assert found["link_correlation"] == pytest.approx(1.0, abs=1e-3)


@pytest.mark.claim("T18.features_move", regime="listed")
def test_a_trained_round_goes_farther_than_its_features_at_the_start(claim, tmp_path):
    """64 steps on 2,048 pairs, against as many on the exact laws with features that stay."""
    made = job("link", "ipo", seed=0, steps_per_round=STEPS, held_out=0)
    ready = prepare.prepare(made.settings)
    tiny_model.start(made.settings, tmp_path / "start", ready.language, ready.task)
    settings = dataclasses.replace(made.settings, sft_steps=0)
    parts = assemble(settings, tmp_path, ready.language, ready.task)
    log_p = tiny_model.expert_law(ready.task)
    log_q = tiny_model.law(parts.player, ready.task)
    some = frozen.thinned(log_p, log_q, KEPT, DRAWN, np.random.default_rng(0))
    tokenizer = ready.task.tokenizer
    names = listed.responses(len(tokenizer), int(tokenizer.eos_token_id), settings.max_new_tokens)
    features = np.stack(
        [
            frozen.gradients(parts.player, prompt, [names[i] for i in at])
            for prompt, at in zip(ready.task.prompts, some.at, strict=True)
        ]
    )
    kernel = frozen.adam_kernel(features, some.p, some.q, settings.batch)
    rates = settings.lr * (1.0 - np.arange(STEPS) / STEPS)
    stays = frozen.ipo_round(kernel, some.p, some.q, settings.beta, rates)
    train(parts, lambda row: None)
    moved = tiny_model.law(parts.player, ready.task) - log_q
    trained = settings.beta * np.take_along_axis(moved, some.at, -1)
    link, weight = IPO.reward(some.p, some.q), 0.5 * (some.p + some.q)
    slopes = [columns.fit("link", link, r, weight)["link_slope"] for r in (stays, trained)]
    claim.exhibits(slopes[0], 0.3, what="slope with features that stay")
    claim.exhibits(slopes[1] - slopes[0], 0.05, what="slope of the model, more")
