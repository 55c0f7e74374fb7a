"""Folders of adapters: how one is merged, and why it cannot be."""

import json
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
)

from llm_scale import models
from llm_scale.models import lora
from tests.llm_scale.models.adapters import CPU, adapted, logits, on_files, train
from theory.errors import InvalidInput

pytest.importorskip("peft")


def damaged(base, folder, **told):
    """An adapter with something of its configuration replaced."""
    made = adapted(models.load(base, torch.float32, CPU), base=str(base))
    folder.mkdir()
    lora.save(made, folder)
    shutil.copy(base / "config.json", folder)
    config = json.loads((folder / lora.CONFIG).read_text()) | told
    (folder / lora.CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(
    "parts",
    [["embed_tokens", "q_proj"], ["lm_head"], ["embed_tokens", "lm_head"], ["q_proj"],
     ["embed_tokens", "tied"]],
)  # fmt: skip
def test_an_update_of_tied_embeddings_is_of_one_side_alone(words, tmp_path, tied, parts):
    """The merged model, also written and read again, has the logits of peft's unmerged one."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
             "num_attention_heads": 2, "vocab_size": len(words), "bos_token_id": None,
             "eos_token_id": words.eos_token_id}  # fmt: skip
    plain = LlamaForCausalLM(LlamaConfig(tie_word_embeddings=tied, **sizes))
    for name in ("base", "adapter", "again"):
        (tmp_path / name).mkdir()
    models.save(models.Language(plain, words), tmp_path / "base")
    more = {"ensure_weight_tying": True} if "tied" in parts else {}
    config = LoraConfig(
        r=2, target_modules=[p for p in parts if p != "tied"], init_lora_weights=False, **more
    )
    with warnings.catch_warnings():  # of tied embeddings
        warnings.simplefilter("ignore")
        made = get_peft_model(plain, config).eval()
        made.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
        made.save_pretrained(tmp_path / "adapter")
    wanted = logits(made)
    there = models.load(tmp_path / "adapter", torch.float32, CPU)
    torch.testing.assert_close(logits(there.model), wanted, rtol=1e-5, atol=1e-5)
    assert there.model.config.tie_word_embeddings == (tied and parts == ["q_proj"])
    models.save(there, tmp_path / "again")
    again = models.load(tmp_path / "again", torch.float32, CPU)
    torch.testing.assert_close(logits(again.model), wanted, rtol=1e-5, atol=1e-5)


def test_an_update_that_no_weights_can_have_is_refused_in_a_line(base, tmp_path):
    from peft import LoraConfig, get_peft_model

    plain = models.load(base, torch.float32, CPU)
    with warnings.catch_warnings():  # that it cannot be merged
        warnings.simplefilter("ignore")
        made = get_peft_model(plain.model, LoraConfig(target_modules=["q_proj"], lora_bias=True))
        made.peft_config["default"].base_model_name_or_path = str(base)
        made.save_pretrained(tmp_path / "adapter")
    given = on_files(base) | {"model": tmp_path / "adapter"}
    said = train(tmp_path / "run", code=2, **given).stderr.strip()
    assert said.startswith(f"error: model={str(tmp_path / 'adapter')!r}: this LoRA adapter cannot")
    assert "be merged: Impossible to merge LoRA with `lora_bias=True`" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


REFUSED = {
    "another kind": ({"peft_type": "LOHA"}, "an adapter of the kind 'LOHA'"),
    "no base": ({"base_model_name_or_path": None}, "names no base"),
    "base elsewhere": ({"base_model_name_or_path": "org/name"}, "'org/name' is no directory"),
    "fewer layers": ({"target_modules": ["q_proj"]}, "its base has no such layers"),
    "other layers": ({"target_modules": ["nothing"]}, "cannot be loaded"),
    "another rank": ({"r": 3}, "cannot be loaded"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_an_adapter_that_cannot_be_used_is_refused_in_a_line(base, tmp_path, kind):
    told, wanted = REFUSED[kind]
    folder = damaged(base, tmp_path / "adapter", **told)
    said = train(tmp_path / "run", code=2, **on_files(base) | {"model": folder}).stderr
    assert wanted in said
    assert said.startswith(f"error: model={str(folder)!r}: ")
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_or_twice_or_broken_are_refused(base, tmp_path):
    folder = damaged(base, tmp_path / "adapter")
    file = folder / lora.WEIGHTS
    there = load_file(file)
    first = sorted(there)[0]
    save_file({n: t for n, t in there.items() if n != first}, file)
    with pytest.raises(InvalidInput, match=f"adapter_model.safetensors has no {first}"):
        models.load(folder, torch.float32, CPU)
    save_file(there | {first: torch.full_like(there[first], torch.nan)}, file)
    with pytest.raises(InvalidInput, match="not finite"):
        models.load(folder, torch.float32, CPU)
    shutil.copy(base / "model.safetensors", folder)
    with pytest.raises(InvalidInput, match="adapter and whole weights in one folder"):
        models.load(folder, torch.float32, CPU)
    (folder / "model.safetensors").unlink()
    file.unlink()
    with pytest.raises(InvalidInput, match="without its weights"):
        models.load(folder, torch.float32, CPU)
