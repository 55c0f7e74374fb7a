"""What cannot be sampled or scored rightly is refused before work, with the reason."""

import dataclasses

import pytest
import torch
import transformers

from llm_scale import models
from llm_scale.models import probe
from llm_scale.models.language import Language
from tests.llm_scale.models.test_architectures import SMALL
from theory.errors import InvalidInput

SWITCH = 16
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "short_factor": [1.0] * 4,
    "long_factor": [4.0] * 4,
    "original_max_position_embeddings": SWITCH,
    "factor": 8.0,
}


def made(kind, values):
    tokenizer = models.byte_tokenizer(["a light"], size=262)
    config = getattr(transformers, kind)(vocab_size=270, **values)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = transformers.AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return Language(model.eval(), tokenizer)


@pytest.mark.parametrize(
    ("kind", "values", "reason"),
    [
        (
            "XLNetConfig",
            {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 48},
            "XLNetLMHeadModel: log pi of a token depends on what is beside it .* nats",
        ),
        (
            "BertConfig",
            {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1,
             "num_attention_heads": 4},
            "BertLMHeadModel changes its logits .*not in its configuration",
        ),
        (
            "Llama4TextConfig",
            SMALL | {"num_local_experts": 2, "intermediate_size_mlp": 48},
            "Llama4ForCausalLM cannot be run as a causal language model .*last_hidden_state",
        ),
    ],
)  # fmt: skip
def test_no_causal_language_model(kind, values, reason):
    with pytest.raises(InvalidInput, match=reason):
        probe.fitted(made(kind, values), 32)


def test_factors_that_switch_are_refused_where_the_run_reaches_them():
    language = made("LlamaConfig", SMALL | {"rope_parameters": LONGROPE})
    assert probe.fitted(language, SWITCH).past == "cache"
    with pytest.raises(
        InvalidInput, match=f"switch .*={SWITCH} .*are 40 tokens, needed .*{SWITCH}"
    ):
        probe.fitted(language, 40)
    same = LONGROPE | {"long_factor": LONGROPE["short_factor"]}
    probe.fitted(made("LlamaConfig", SMALL | {"rope_parameters": same}), 40)


def test_a_state_that_is_lost_is_seen(language):
    """A cache that forgets what was before it: the next ways of sampling take its place."""
    said, real = [], language.model.forward

    def forgetful(*, attention_mask=None, past_key_values=None, use_cache=False, **given):
        return real(**given)

    language.model.forward = forgetful
    assert probe.fitted(language, 32, said.append).past == "none"
    assert "whole forward passes" in said[0]


def test_what_is_sampled_otherwise_in_every_way_is_refused(language, monkeypatch):
    alone = probe._alone(probe.Scorer(language.model), probe.planned(language, probe.SHORT))
    monkeypatch.setattr(probe, "_sampled", lambda *_: alone + 0.02)
    with pytest.raises(InvalidInput, match=r"not what is scored \(a token differs by 0\.02 nats\)"):
        probe.fitted(language, 32)


def test_plans_end_one_response_first_and_have_no_end_within(language):
    several = dataclasses.replace(language, ends=(0, 5))
    pairs = probe.planned(several, probe.SHORT)
    assert [len(p) for p, _ in pairs] == list(probe.SHORT)
    assert [len(r) for _, r in pairs] == [probe.ENDED, probe.HORIZON, probe.HORIZON]
    assert pairs[0][1][-1] == 0
    assert not {0, 5} & {t for p, r in pairs for t in (*p, *r[:-1])}


def test_a_multimodal_model_is_sampled_and_scored_by_its_text_part():
    text = SMALL | {"vocab_size": 270}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
              "num_attention_heads": 2, "image_size": 14, "patch_size": 14}  # fmt: skip
    values = {"text_config": text, "vision_config": vision, "mm_tokens_per_image": 1}
    config = transformers.Gemma3Config(**values, image_token_index=5)
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    language = Language(model, models.byte_tokenizer(["a light"], size=262))
    assert type(model).__name__ == "Gemma3ForConditionalGeneration"
    assert probe.fitted(language, 32).past == "cache"
