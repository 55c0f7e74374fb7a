"""Samples are those of the model's own law, whatever the batch; nothing is ended falsely."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lab import streams
from llm_scale.data.items import Item, Response, pack, unpack
from llm_scale.models import sample
from llm_scale.models.sample import generate, places
from llm_scale.models.score import Scorer, buckets, collate, score, sequence_log_probs

HORIZON = 8


def numbers(i, seed=0):
    return streams.uniform(HORIZON, seed, "own", 0, i)


def draw(language, prompts, seed=0, batch=64, horizon=HORIZON):
    return generate(
        [language.model], prompts, lambda i: numbers(i, seed), horizon, language.ends, batch
    )


def test_batch_size_and_order_do_not_change_what_is_drawn(language, prompts):
    whole, seen = draw(language, prompts)
    for batch in (1, 7):
        part, log_probs = draw(language, prompts, batch=batch)
        assert part == whole
        np.testing.assert_allclose(log_probs, seen, atol=2e-5)
    order = np.random.default_rng(0).permutation(len(prompts))
    shuffled, _ = generate(
        [language.model],
        [prompts[i] for i in order],
        lambda i: numbers(order[i]),
        HORIZON,
        language.ends,
    )
    assert shuffled == [whole[i] for i in order]


def test_the_first_token_follows_transformers_own_law(language, prompts):
    prompt, count = prompts[0], 4000
    drawn, _ = draw(language, [prompt] * count, horizon=1)
    found = np.bincount([r.tokens[0] for r in drawn], minlength=len(language.tokenizer))
    with torch.no_grad():
        logits = language.model(input_ids=torch.tensor([prompt])).logits[0, -1]
    expected = count * logits.double().softmax(-1).numpy()
    assert stats.chisquare(found, expected * found.sum() / expected.sum()).pvalue > 1e-3


def test_log_probabilities_are_transformers_own(language, prompts):
    drawn, seen = draw(language, prompts)
    pairs = [(p, r.tokens) for p, r in zip(prompts, drawn, strict=True)]
    ours = score(Scorer(language.model), pairs, tokens=300)
    for (prompt, response), log_prob, sampler in zip(pairs, ours, seen, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            laws = language.model(input_ids=ids).logits[0].log_softmax(-1)
        at = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        own = laws[at, torch.tensor(response)].sum()
        assert abs(own - log_prob) < 2e-5
        assert abs(own - sampler) < 2e-5


def test_gradients_are_transformers_own(language, prompts):
    pairs = [(p, (3, 1, 0)) for p in prompts[:9]]
    scorer = Scorer(language.model)
    sequence_log_probs(scorer, pairs).sum().backward()
    ours = [p.grad.clone() for p in language.model.parameters()]
    language.model.zero_grad()
    ids, mask, where, targets = collate(pairs, torch.device("cpu"))
    logits = language.model(input_ids=ids, attention_mask=mask).logits.flatten(0, 1)[where]
    logits.log_softmax(-1).gather(-1, targets).sum().backward()
    for mine, parameter in zip(ours, language.model.parameters(), strict=True):
        torch.testing.assert_close(mine, parameter.grad, rtol=1e-4, atol=1e-5)


def test_chunks_of_the_output_layer_do_not_change_the_result(language, prompts, monkeypatch):
    pairs = [(p, (3, 1, 0)) for p in prompts]
    whole = score(Scorer(language.model), pairs, tokens=10**6)
    monkeypatch.setattr("llm_scale.models.score.CHUNK_LOGITS", 40)
    torch.testing.assert_close(score(Scorer(language.model), pairs, tokens=50), whole)


def test_only_a_response_that_ended_has_an_eos(language, prompts):
    drawn, _ = draw(language, prompts * 5)
    assert {r.truncated for r in drawn} == {False, True}
    for response in drawn:
        assert response.truncated == (response.tokens[-1] != language.eos)
        assert language.eos not in response.tokens[:-1]
        assert len(response.tokens) == HORIZON or not response.truncated


def test_a_model_that_changes_its_logits_is_refused(language):
    head = language.model.forward

    def capped(*args, **kwargs):
        out = head(*args, **kwargs)
        out.logits = 5.0 * torch.tanh(out.logits)
        return out

    language.model.forward = capped
    with pytest.raises(ValueError, match="changes its logits"):
        Scorer(language.model)


def test_buckets_hold_everything_once_within_the_budget():
    lengths = np.random.default_rng(0).integers(1, 40, size=200).tolist()
    found = buckets(lengths, 128)
    assert sorted(i for b in found for i in b) == list(range(200))
    assert all(len(b) * max(lengths[i] for i in b) <= 128 for b in found)
    assert buckets([500], 128) == [[0]], "a response longer than the budget goes alone"


def test_noise_is_a_function_of_its_key():
    one = streams.uniform(5, 0, "own", 1, 2, 3)
    np.testing.assert_array_equal(one, streams.uniform(5, 0, "own", 1, 2, 3))
    others = [(1, "own", 1, 2, 3), (0, "held out", 1, 2, 3), (0, "own", 1, 3, 2)]
    assert all((one != streams.uniform(5, *key)).all() for key in others)
    np.testing.assert_array_equal(one, streams.uniform(9, 0, "own", 1, 2, 3)[:5])


def test_items_survive_as_tensors():
    a, b = Response((1, 2, 0), False), Response((3, 4, 5, 6), True)
    items = [
        Item(7, (9, 8), (a,), (b, a), (b,)),
        Item(8, (9,), (b,), (a, a), (a,)),
    ]
    assert unpack("items", pack("items", items)) == items


def test_the_room_of_the_cache_grows_and_changes_nothing(language, prompts, monkeypatch):
    monkeypatch.setattr(sample, "STEP", 3)
    luck = [streams.uniform(20, 0, "own", 0, i) for i in range(len(prompts))]

    def drawn(past):
        return generate(
            [language.model], prompts, lambda i: luck[i], 20, language.ends, past=past
        )  # fmt: skip

    (ours, seen), (whole, expected) = drawn("cache"), drawn("none")
    assert len({len(r.tokens) for r in ours}) > 3, "rows end at different tokens"
    assert ours == whole
    np.testing.assert_allclose(seen, expected, atol=2e-5)


@given(st.lists(st.booleans(), min_size=1, max_size=12).filter(any))
def test_places_keep_all_that_is_left_and_move_the_fewest(alive):
    keep = places(torch.tensor(alive)).tolist()
    assert sorted(keep) == [i for i, left in enumerate(alive) if left]
    moved = [place for place, row in enumerate(keep) if place != row]
    assert len(moved) == alive[: len(keep)].count(False)
