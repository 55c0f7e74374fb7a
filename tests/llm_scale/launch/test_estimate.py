"""What a run says it needs, against what torch holds."""

import pytest
import torch

from llm_scale import models
from llm_scale.data import tasks
from llm_scale.launch import estimate
from llm_scale.models.player import Machine
from llm_scale.models.sample import _Cache
from llm_scale.models.score import Scorer, sequence_log_probs
from llm_scale.settings import Settings
from tests.llm_scale.commands import train

CPU = torch.device("cpu")
SETTINGS = Settings(prompts=8, held_out=4, batch=4, max_new_tokens=8, device="cpu")
MACHINE = Machine(CPU, torch.float32)
PAIRS = [((1, 2, 3), (4, 5, 0)), ((6,), (7, 8, 9, 1))]


@pytest.fixture(scope="module")
def made():
    task = tasks.phrases(SETTINGS)
    return models.tiny(task.tokenizer, 0, CPU, width=24, layers=3, heads=2), task


def storages(tensors):
    return sum(
        {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values()
    )


def test_weights_gradients_and_optimiser_are_what_torch_holds(made):
    language, task = made
    found = estimate.memory(SETTINGS, language, task, PAIRS, 0.0, MACHINE)
    optimiser = torch.optim.AdamW(language.model.parameters(), fused=True)
    sequence_log_probs(Scorer(language.model), PAIRS).sum().backward()
    optimiser.step()
    weights = list(language.model.parameters())
    assert found.weights == storages(weights)
    assert found.gradients == storages([p.grad for p in weights])
    moments = [v for state in optimiser.state.values() for v in state.values()]
    assert found.optimiser == storages(moments)
    assert found.total == found.weights + found.gradients + found.optimiser + max(
        found.activations, found.cache
    )


def test_the_cache_is_what_a_pass_leaves_in_it(made):
    language, _ = made
    cache = _Cache(config=language.model.config)
    language.model(input_ids=torch.ones(2, 5, dtype=torch.int64), past_key_values=cache)
    left = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert estimate.cache_width(language.model) * 2 * 5 == left


def test_what_a_product_keeps_is_counted_once():
    x = torch.ones(3, 5, requires_grad=True)
    weight = torch.nn.Parameter(torch.ones(5, 5))
    kept, out = estimate.saved_bytes(lambda: (x @ weight).exp(), [weight])
    assert kept == 4 * (15 + 15), "the input and the exponential, not the weight"
    assert out.shape == (3, 5)


def test_tokens_by_hand():
    """Pairs of 6 and 5 tokens: 5.5 on average."""
    s = Settings(steps_per_round=10, batch=4, sft_steps=3, own_samples=2)
    assert estimate.tokens(s, PAIRS) == (10 * 4 * 3 * 5.5, 3 * 4 * 5.5)
    token = Settings(steps_per_round=10, batch=4, level="token", own_samples=8)
    assert estimate.tokens(token, PAIRS) == (10 * 4 * 5.5, 0.0)
    judged = Settings(
        steps_per_round=1, batch=1, own_samples=4, oracle="bradley-terry", objective="dpo"
    )
    assert estimate.tokens(judged, PAIRS)[0] == 4 * 5.5


def test_looking_changes_nothing(made):
    language, task = made
    before = [p.clone() for p in language.model.parameters()]
    line = estimate.line(SETTINGS, language, task, MACHINE)
    assert all(p.grad is None for p in language.model.parameters())
    assert all(map(torch.equal, before, language.model.parameters()))
    size = sum(p.numel() for p in before)
    assert line.startswith(f"{size / 1000:.3g} k parameters; ")
    assert "time about" in line


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.2, "1 s"), (12.4, "12 s"), (103.0, "100 s"), (119.0, "120 s"), (6300.0, "100 minutes"),
     (9e6, "100 days")],
)  # fmt: skip
def test_a_time_is_written_out(seconds, said):
    assert estimate._time(seconds) == said


def test_a_run_begins_with_it_and_with_the_size_asked_for(tmp_path):
    result = train(
        tmp_path,
        width=32,
        layers=1,
        heads=8,
        prompts=4,
        held_out=0,
        batch=2,
        rounds=0,
        device="cpu",
    )
    words, d = 12, 32  # embeddings, attention, feed-forward, three norms
    expected = words * d + 4 * d * d + 3 * d * 2 * d + 3 * d
    assert f"{expected / 1000:.3g} k parameters" in result.output
