"""Bytes by the formulas are those of real tensors, and the table in README.md is theirs."""

import contextlib
import itertools
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config

from llm_scale.launch import memory
from llm_scale.models import lora, weights
from llm_scale.models.language import Language
from llm_scale.models.score import Scorer, sequence_log_probs
from llm_scale.settings import LINEAR

README = Path(__file__).parents[3] / "llm_scale" / "README.md"
PAIRS = [(tuple(range(1, 30)), tuple(range(1, 10)))] * 8
TOKENS = 8 * 38
CONFIGS = {
    "SmolLM2-135M": LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30,
        num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
    ),
    "Qwen2.5-1.5B": Qwen2Config(
        vocab_size=151936, hidden_size=1536, intermediate_size=8960, num_hidden_layers=28,
        num_attention_heads=12, num_key_value_heads=2, tie_word_embeddings=True,
    ),
    "Llama-7B": LlamaConfig(
        vocab_size=32000, hidden_size=4096, intermediate_size=11008, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=32, tie_word_embeddings=False,
    ),
}  # fmt: skip
KINDS = {
    "all weights": {},
    "LoRA": {"rank": 16},
    "LoRA, recomputed": {"rank": 16, "recompute": True},
}


def small(layers, kv=2):
    return LlamaConfig(
        vocab_size=40, hidden_size=64, intermediate_size=160, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=kv, tie_word_embeddings=True,
    )  # fmt: skip


def table():
    """GiB of a run in bfloat16 with 8,192 tokens a pass."""
    lines = ["| | weights | gradients, AdamW | reference | activations | peak |", "|---" * 6 + "|"]
    for (model, config), (kind, given) in itertools.product(CONFIGS.items(), KINDS.items()):
        m = memory.needed(config, 8192, dtype=torch.bfloat16, **given)
        parts = (m.weights, m.gradients + m.optimiser, m.reference, m.activations, m.peak)
        sizes = " | ".join(f"{part / 2**30:.2f}" for part in parts)
        lines.append(f"| {model}, {kind} | {sizes} |")
    return "\n".join(lines)


def test_the_table_is_in_the_readme():
    assert table() in README.read_text(encoding="utf-8")


def test_numbers_of_weights_are_those_published():
    """SmolLM2 134.5 M, Qwen2.5-1.5B 1.54 B, Llama 6.74 B; an adapter of Llama by hand."""
    counts = {name: memory.sizes(config).all for name, config in CONFIGS.items()}
    assert counts == {
        "SmolLM2-135M": 134515008, "Qwen2.5-1.5B": 1543714304, "Llama-7B": 6738415616
    }  # fmt: skip
    by_hand = 16 * 32 * (4 * 2 * 4096 + 3 * (4096 + 11008))
    assert memory.sizes(CONFIGS["Llama-7B"], rank=16).trained == by_hand == 39976960


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("rank", [0, 3])
def test_states_are_those_of_real_tensors(rank, narrow):
    dtype = torch.bfloat16 if narrow else torch.float32
    language = made(2, rank, narrow)
    model = language.model
    optimiser = torch.optim.AdamW(weights.trained(model).values())
    start = weights.copy_of(language)
    with precision(narrow):
        sequence_log_probs(Scorer(model, False), PAIRS).sum().backward()
    gradients = sum(size(p.grad) for p in model.parameters() if p.grad is not None)
    optimiser.step()
    moments = (t for s in optimiser.state.values() for k, t in s.items() if k != "step")
    told = memory.needed(small(2), TOKENS, rank, dtype=dtype)
    assert told.weights == sum(map(size, model.parameters()))
    assert told.gradients == gradients
    assert told.optimiser == sum(map(size, moments))
    assert told.reference == sum(map(size, weights.Played(model, start).weights.values()))
    assert told.states == told.weights + 4 * gradients
    # a step with gradients and activations is more than the start of a round
    assert told.peak == told.states - told.reference + told.activations + told.logits + told.casts


@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize(("rank", "kv"), [(0, 4), (0, 2), (3, 2)])
def test_activations_of_a_layer_are_those_that_torch_keeps(rank, kv, narrow):
    """Two layers more keep twice what the formula says, to the byte; and casts of weights."""
    less, more = (kept(made(layers, rank, narrow, kv), narrow) for layers in (1, 3))
    told = memory.layer_activations(small(1, kv), rank, narrow)
    casts = [memory.needed(small(n, kv), 1, rank, dtype=torch.bfloat16).casts for n in (1, 3)]
    assert more - less == 2 * told * TOKENS + narrow * (casts[1] - casts[0])


def test_recomputed_activations():
    plain, again = (
        memory.needed(small(5), 100, recompute=recompute).activations for recompute in (False, True)
    )
    assert again == 100 * 5 * 4 * 64 + plain // 5


def test_a_base_in_bfloat16_is_what_autocast_computes_with():
    wide, narrow = (made(2, 3, n) for n in (False, True))
    scores = []
    for language in (wide, narrow):
        with torch.no_grad(), precision(True):
            scores.append(sequence_log_probs(Scorer(language.model, False), PAIRS))
    assert torch.equal(*scores)
    merged = lora.merged(narrow)
    assert {t.dtype for t in merged.values()} == {torch.float32}


def made(layers, rank, narrow, kv=2):
    torch.manual_seed(0)
    language = Language(LlamaForCausalLM(small(layers, kv)).eval(), None)
    if rank:
        language = lora.add(language, rank, 0.0, LINEAR, 0, "")
        lora.narrow(language, torch.bfloat16 if narrow else torch.float32)
    return language


def precision(narrow):
    return torch.autocast("cpu", torch.bfloat16) if narrow else contextlib.nullcontext()


def kept(language, narrow):
    """Bytes that a forward pass keeps for its backward pass, parameters left out."""
    held, alive = {}, []
    own = {p.untyped_storage().data_ptr() for p in language.model.parameters()}

    def pack(tensor):
        storage = tensor.untyped_storage()
        alive.append(tensor)  # so that no address is used twice
        if storage.data_ptr() not in own:
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with precision(narrow), torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        out = sequence_log_probs(Scorer(language.model, False), PAIRS)
    assert out.requires_grad
    return sum(held.values())


def size(tensor):
    return tensor.numel() * tensor.element_size()
