"""Dropout: in training passes alone, from a seed, in every class that has one."""

import pytest
import torch
import transformers

from llm_scale.models import in_training
from theory.errors import InvalidInput

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
}
KINDS = {
    "Llama": {},
    "Qwen3": {"head_dim": 16},
    "GPT2": {"n_embd": 32, "n_layer": 2, "n_head": 2},
    "OPT": {"ffn_dim": 32, "word_embed_proj_dim": 32},
    "GPTNeoX": {},
    "Phi3": {"pad_token_id": 0},
}
IDS = torch.arange(12)[None]


def model(kind):
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SMALL | KINDS.get(kind, {}))
    name = {"GPT2": "GPT2LMHeadModel"}.get(kind, f"{kind}ForCausalLM")
    return getattr(transformers, name)(config).eval()


@pytest.mark.parametrize("kind", KINDS)
def test_only_training_passes_drop(kind):
    made = model(kind)
    plain = made(IDS).logits
    in_training.set_dropout(made, 0.4)
    assert torch.equal(made(IDS).logits, plain)  # scores and samples
    state = torch.get_rng_state()
    found = []
    for seed in (1, 1, 2):
        with in_training.dropped(made, seed):
            found.append(made(IDS).logits)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], plain, atol=1e-4)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(made(IDS).logits, plain)
    assert not any(module.training for module in made.modules())


def test_the_rate_is_what_is_dropped():
    made = torch.nn.Sequential(torch.nn.Dropout(0.1)).eval()
    in_training.set_dropout(made, 0.25)
    with in_training.dropped(made, 0):
        seen = made(torch.ones(40_000))
    assert seen.unique().tolist() == [0.0, pytest.approx(4 / 3)]
    assert float((seen == 0).float().mean()) == pytest.approx(0.25, abs=0.01)


def test_a_model_without_dropout_is_refused():
    with pytest.raises(InvalidInput, match=r"dropout=0\.1: MambaForCausalLM has no dropout"):
        in_training.set_dropout(model("Mamba"), 0.1)
