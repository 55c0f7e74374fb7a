"""Layers that are computed again: the same gradients with less kept."""

import copy

import pytest
import torch
import transformers

from llm_scale.launch.estimate import layer_inputs, saved_bytes
from llm_scale.models import in_training
from llm_scale.models.score import Scorer, sequence_log_probs
from tests.llm_scale.models.test_architectures import KINDS
from theory.errors import InvalidInput

PAIRS = [((3, 1, 4, 1, 5), (9, 2, 6, 5)), ((3, 5), (8, 9, 7, 9, 3, 2)), ((8,) * 9, (1, 2, 3))]


def seen(model):
    scorer = Scorer(model)
    kept, log_probs = saved_bytes(
        lambda: sequence_log_probs(scorer, PAIRS), list(model.parameters())
    )
    log_probs.sum().backward()
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad(set_to_none=True)
    return kept, log_probs.detach(), gradients


@pytest.mark.parametrize("name", ["llama", "opt, with dropout", "gemma2, window 5, capped logits"])
def test_the_same_gradients_with_less_kept(name):
    kind, values = KINDS[name]
    model = made(kind, values)
    kept, log_probs, gradients = seen(model)
    in_training.recompute(model)
    less, again, same = seen(model)
    assert torch.equal(again, log_probs)
    assert max(float((a - b).abs().max()) for a, b in zip(gradients, same, strict=True)) < 1e-6
    assert layer_inputs(model) == 2 * 32
    padded = len(PAIRS) * 12
    assert less + 4 * padded * layer_inputs(model) < 0.5 * kept


def test_a_copy_recomputes_its_own_layers():
    model = made(*KINDS["llama"])
    in_training.recompute(model)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.5)
    before = seen(model)[1]
    assert not torch.allclose(seen(other)[1], before, atol=1e-3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    assert torch.equal(seen(model)[1], seen(other)[1])


def test_a_class_without_such_layers_is_refused():
    with pytest.raises(InvalidInput, match="recompute=true: Linear has no layers"):
        in_training.recompute(torch.nn.Linear(2, 2))


def made(kind, values):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = getattr(transformers, kind)(vocab_size=40, **values)
        return transformers.AutoModelForCausalLM.from_config(config).eval()
