"""Any causal LM's directory works as the tiny one does, or is refused with its reason."""

import dataclasses
import json
import math

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lab import streams
from llm_scale import models
from llm_scale.launch import run_folder
from llm_scale.models import probe
from llm_scale.models.sample import generate
from llm_scale.models.score import Scorer, score
from llm_scale.settings import Settings
from tests.llm_scale.commands import metrics
from theory.errors import InvalidInput

CPU = torch.device("cpu")
HORIZON = 12
SPARE = 8
"""Rows of embeddings beyond the tokenizer's, as many published models have."""
PROMPTS = ["a", "in the beginning", "let there be light: and there was light"]
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
PLAIN = {k: v for k, v in SMALL.items() if k not in ("num_key_value_heads", "head_dim")}
OPT = {k: v for k, v in PLAIN.items() if k != "intermediate_size"}
WINDOW = SMALL | {"sliding_window": 5}
CAPPED = {"final_logit_softcapping": 1.5}
"""So low that the logits of a small model are changed by it."""
KINDS = {
    "llama": ("LlamaConfig", SMALL),
    "gpt2, with dropout": ("GPT2Config", GPT2),
    "qwen2": ("Qwen2Config", SMALL),
    "qwen3": ("Qwen3Config", SMALL),
    "mistral, window 5": ("MistralConfig", WINDOW),
    "gemma": ("GemmaConfig", SMALL),
    "gemma2, window 5, capped logits": ("Gemma2Config", WINDOW | CAPPED),
    "gemma3 text, window 5": ("Gemma3TextConfig", WINDOW),
    "phi3": ("Phi3Config", SMALL),
    "opt, with dropout": ("OPTConfig", OPT | {"ffn_dim": 48, "word_embed_proj_dim": 16}),
    "gpt-neox": ("GPTNeoXConfig", PLAIN),
    "smollm3": ("SmolLM3Config", SMALL),
    "granite, scaled logits": ("GraniteConfig", SMALL | {"logits_scaling": 4.0}),
    "cohere, scaled logits": ("CohereConfig", SMALL),
    "mamba": ("MambaConfig", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "lfm2": ("Lfm2Config", SMALL | {"layer_types": ["conv", "full_attention"]}),
}
"""All that the README lists."""
PASTS = {"MambaForCausalLM": "none", "Lfm2ForCausalLM": "kept rows"}
"""How those are sampled that are not as all others."""


@pytest.fixture(scope="module")
def tokenizer():
    return models.byte_tokenizer(PROMPTS, size=270)


@pytest.fixture(scope="module")
def make(tokenizer, tmp_path_factory):
    """A directory as `save_pretrained` leaves it, of random weights large enough to matter."""

    def build(kind, values):
        path = tmp_path_factory.mktemp("model")
        ends = dict.fromkeys(("eos_token_id", "pad_token_id"), tokenizer.eos_token_id)
        rows = len(tokenizer) + SPARE
        given = values | ends | {"vocab_size": rows, "bos_token_id": None}
        config = getattr(transformers, kind)(**given)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = AutoModelForCausalLM.from_config(config)
            for parameter in model.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
        models.save(models.Language(model, tokenizer), path)
        return path

    return build


@pytest.fixture(scope="module", params=KINDS.values(), ids=KINDS.keys())
def directory(request, make):
    return make(*request.param)


def test_sampler_and_scorer_are_transformers_own(directory, tokenizer):
    said = []
    language = probe.fitted(models.load(directory, torch.float32, CPU), 128, said.append)
    assert language.past == PASTS.get(type(language.model).__name__, "cache")
    assert len(said) == (language.past != "cache")
    prompts = [tuple(tokenizer(p)["input_ids"]) for p in PROMPTS] * 4

    def numbers(i):
        return streams.uniform(HORIZON, 0, "own", i)

    drawn, seen = generate(
        [language.model], prompts, numbers, HORIZON, language.ends, 5, past=language.past
    )
    assert len({r.tokens for r in drawn}) > 6
    pairs = [(p, r.tokens) for p, r in zip(prompts, drawn, strict=True)]
    ours = score(Scorer(language.model), pairs, tokens=256).tolist()
    plain = AutoModelForCausalLM.from_pretrained(directory, local_files_only=True)
    for (prompt, response), log_prob, sampler in zip(pairs, ours, seen, strict=True):
        with torch.no_grad():
            laws = plain(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        at = torch.arange(len(prompt) - 1, len(prompt) + len(response) - 1)
        expected = float(laws[at, torch.tensor(response)].sum())
        assert log_prob == pytest.approx(expected, abs=2e-5)
        assert sampler == pytest.approx(expected, abs=2e-5)


def test_the_loop_trains_it(directory, tmp_path):
    data = tmp_path / "pairs.jsonl"
    lines = [{"prompt": p + str(i), "response": p[:6]} for i in range(6) for p in PROMPTS]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    settings = Settings(
        model=str(directory), task=str(data), prompts=8, held_out=4, batch=4, rounds=1,
        steps_per_round=2, sft_steps=2, max_new_tokens=HORIZON, device="cpu", cosines=0,
    )  # fmt: skip
    out = tmp_path / "run"
    run_folder.run(settings, out, lambda _: None)
    rows = metrics(out)
    first = next(row for row in rows if row.get("at") == "round 0")
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert rows[-1]["sampler_gap"] < 2e-5
    assert rows[-1]["stored_gap"] < 2e-5
    plain = AutoModelForCausalLM.from_pretrained(out / "final", local_files_only=True)
    assert type(plain).__name__ == type(models.load(directory, torch.float32, CPU).model).__name__
    base, final = load_file(out / "base.safetensors"), dict(plain.named_parameters())
    assert any(not torch.equal(base[name], final[name]) for name in base)
    again = dataclasses.replace(settings, rounds=2)
    with pytest.raises(InvalidInput, match="other settings"):
        run_folder.run(again, out, lambda _: None)


def test_a_cap_that_is_not_in_the_configuration_shows_on_small_logits_too(make):
    """A new model's logits are far below the cap: equal to within the probe's tolerance."""
    language = models.load(make("Gemma2Config", SMALL), torch.float32, CPU)
    model = language.model
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 0.1
        ids = torch.arange(4)[None]
        uncapped = model.get_output_embeddings()(model.base_model(ids).last_hidden_state)
        assert torch.allclose(model(ids).logits, uncapped, atol=1e-4)
    Scorer(model)
    real = model.forward
    model.forward = lambda **given: halved(real(**given))
    with pytest.raises(InvalidInput, match="changes its logits"):
        Scorer(model)


def halved(out):
    out.logits = 4.0 * (out.logits / 4.0).tanh()
    return out
