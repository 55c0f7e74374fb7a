"""Responses that share a prompt's row have the law they have alone, and so have their gradients."""

import numpy as np
import pytest
import torch

from llm_scale import models
from llm_scale.models.score import Scorer, collate, score, sequence_log_probs
from llm_scale.models.shared_prompts import SHARED_FROM, collate_shared, row_length, shared_rows


def drawn(rng, prompts, responses, lengths=(SHARED_FROM, 40)):
    """Pairs of random tokens: some responses to each prompt, one after the other."""
    out = []
    for _ in range(prompts):
        prompt = tuple(rng.integers(12, size=rng.integers(*lengths)).tolist())
        out += [
            (prompt, tuple(rng.integers(12, size=rng.integers(1, 12)).tolist()))
            for _ in range(responses)
        ]
    return out


@pytest.fixture
def scorer(language):
    made = Scorer(language.model)
    assert made.shares_prompts
    return made


def apart(scorer):
    """The same model, every response in a row of its own."""
    alone = Scorer(scorer.model)
    alone.shares_prompts = False
    return alone


@pytest.mark.parametrize("responses", [2, 3, 7])
def test_log_probabilities_and_gradients_are_those_of_single_rows(scorer, responses):
    pairs = drawn(np.random.default_rng(responses), 5, responses)
    assert len(shared_rows(pairs)) < len(pairs)
    found = []
    for each in (scorer, apart(scorer)):
        scorer.zero_grad()
        log_probs = sequence_log_probs(each, pairs)
        (log_probs * torch.linspace(-1, 1, len(pairs))).sum().backward()
        found.append([log_probs.detach(), *(p.grad.clone() for p in scorer.parameters())])
    for ours, single in zip(*found, strict=True):
        torch.testing.assert_close(ours, single, rtol=1e-4, atol=1e-5 * float(single.abs().max()))


def test_scores_come_back_in_their_order(scorer):
    rng = np.random.default_rng(0)
    pairs = drawn(rng, 6, 3) + drawn(rng, 4, 1, lengths=(1, 5))
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    torch.testing.assert_close(score(scorer, pairs, 200), score(apart(scorer), pairs, 200))


def test_a_row_is_bounded_and_short_prompts_are_not_shared():
    pairs = drawn(np.random.default_rng(1), 4, 9)
    rows = shared_rows(pairs)
    assert [i for row in rows for i in row] == list(range(len(pairs)))
    for row in rows:
        longest = max(row_length(pairs, [i]) for i in row)
        assert {pairs[i][0] for i in row} == {pairs[row[0]][0]}
        assert row_length(pairs, row) <= 2 * longest
    short = drawn(np.random.default_rng(1), 4, 9, lengths=(1, SHARED_FROM))
    assert shared_rows(short) == [[i] for i in range(len(short))]


def test_shared_rows_hold_fewer_tokens():
    pairs = drawn(np.random.default_rng(2), 8, 2, lengths=(30, 31))
    shared, single = (
        made(pairs, torch.device("cpu"))[0].numel() for made in (collate_shared, collate)
    )
    assert shared < 0.75 * single


@pytest.mark.parametrize("change", [{"_attn_implementation": "eager"}, {"sliding_window": 8}])
def test_a_model_that_may_not_see_the_mask_is_not_shared(task, change):
    model = models.tiny(task.tokenizer, 0, torch.device("cpu")).model
    for name, value in change.items():
        setattr(model.config, name, value)
    scorer = Scorer(model)
    assert not scorer.shares_prompts
    pairs = drawn(np.random.default_rng(3), 3, 2)
    assert torch.isfinite(score(scorer, pairs, 500)).all()


def test_a_model_that_ignores_the_mask_is_not_shared(language, monkeypatch):
    real = language.model.model.forward

    def blind(*arguments, attention_mask=None, **more):
        mask = None if attention_mask is None or attention_mask.dim() > 2 else attention_mask
        return real(*arguments, attention_mask=mask, **more)

    monkeypatch.setattr(language.model.model, "forward", blind)
    assert not Scorer(language.model).shares_prompts
