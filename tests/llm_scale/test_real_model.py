"""The real small model: what was fetched, and the whole loop on it (`make test-real`)."""

import math

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm_scale import models
from llm_scale.data import verses
from llm_scale.data.prompts import format_prompt
from llm_scale.models.score import Scorer, score
from tools.get_model import MODELS, SMOLLM2, is_there
from tools.real_model import chosen, measure

pytestmark = pytest.mark.real_model
DIRECTORY = MODELS / SMOLLM2.directory
PARAMETERS = 134_515_008


@pytest.fixture(scope="module")
def language():
    if not is_there(DIRECTORY):
        pytest.fail(f"{DIRECTORY}: not there or altered; make model")
    return models.load(DIRECTORY, torch.float32, torch.device("cpu"))


def test_it_is_the_model_and_it_knows_english(language):
    model, tokenizer = language.model, language.tokenizer
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    assert not hasattr(model.config, "quantization_config")
    assert tokenizer.decode([language.eos]) == "<|im_end|>"
    ids = tokenizer("The capital of France is", return_tensors="pt")
    with torch.no_grad():
        best = int(model(**ids).logits[0, -1].argmax())
    assert tokenizer.decode([best]) == " Paris"


def test_the_tokenizer_has_single_digits_and_all_of_the_template(language):
    tokenizer = language.tokenizer
    assert tokenizer.tokenize("a   19") == ["a", "ĠĠĠ", "1", "9"]
    text = tokenizer.decode(format_prompt(tokenizer, "Hello"))
    assert text == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
    )


def test_log_probabilities_are_transformers_own(language):
    settings = chosen(device="cpu", held_out=3)
    items = verses.verses(settings, language.tokenizer).held_out()
    pairs = [(item.prompt, item.expert[0].tokens) for item in items]
    ours = score(Scorer(language.model), pairs, tokens=1024).tolist()
    for (prompt, response), log_prob in zip(pairs, ours, strict=True):
        ids = torch.tensor([[*prompt, *response]])
        with torch.no_grad():
            laws = language.model(input_ids=ids).logits[0].log_softmax(-1)
        at = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
        plain = float(laws[at, torch.tensor(response)].sum())
        assert log_prob == pytest.approx(plain, abs=1e-3)


def test_the_whole_loop(tmp_path):
    if not is_there(DIRECTORY):
        pytest.fail(f"{DIRECTORY}: not there or altered; make model")
    settings = chosen(device="cpu")
    seen = measure(settings, tmp_path)
    assert seen["loss_gap"] < 1e-6, f"SPIN starts at ln 2 = {math.log(2)}"
    assert seen["sampler_gap"] < 2e-3, "2e-5 nats a token in float32, of at most 48 tokens"
    assert seen["stored_gap"] < 2e-3
    first, second = seen["as_it_comes"], seen["after_sft"]
    error = np.hypot(first["nll_per_token_se"], second["nll_per_token_se"])
    assert second["nll_per_token"] < first["nll_per_token"] + error
    assert np.isfinite(seen["after_round"]["nll"])
    assert 0.0 <= seen["after_truncated_own"] <= 1.0
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final", local_files_only=True)
    final = AutoModelForCausalLM.from_pretrained(tmp_path / "final", local_files_only=True)
    again = models.load(tmp_path / "final", torch.float32, torch.device("cpu"))
    ids = torch.tensor([format_prompt(tokenizer, "Hello")])
    with torch.no_grad():
        assert torch.equal(final(input_ids=ids).logits, again.model(input_ids=ids).logits)
