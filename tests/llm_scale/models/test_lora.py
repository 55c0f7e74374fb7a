"""Adapters: they start at the base, alone train and are kept, and are merged at the end."""

import copy
import json
import shutil
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)
from typer.testing import CliRunner

from llm_scale import models
from llm_scale.__main__ import app
from llm_scale.launch import combinations
from llm_scale.models import folders, lora, weights
from llm_scale.models.player import Machine, Player
from llm_scale.models.score import Scorer, score
from llm_scale.settings import Settings
from tests.llm_scale import tiny_game
from tests.llm_scale.commands import call, metrics, outcome
from theory.errors import InvalidInput

pytest.importorskip("peft")
CPU = torch.device("cpu")
LONG = tuple(1 + i % 7 for i in range(19))
PAIRS = [(LONG, (3, 1, 4, 0)), ((2, 5), (6, 2, 0)), (LONG, (7,))]
SMALL = {
    "device": "cpu", "prompts": 16, "held_out": 4, "rounds": 2, "steps_per_round": 3, "batch": 4,
    "sft_steps": 2, "checkpoint_every": 2, "lora": 2, "lr": 0.01,
}  # fmt: skip
GAMES = {
    "mixture": {"opponent": "mixture"},
    "two models at once": {"objective": "alpha_spin"},
    "tokens": {"level": "token", "tau": 0.2, "objective": "spif"},
    "preferences": {"objective": "inpo", "tau": 0.2, "oracle": "bradley-terry", "own_samples": 2},
}


def train(out, code=0, **more):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SMALL | more).items()]
    return call("train", "--out", out, *flags, code=code)


def scores(model):
    return score(Scorer(model), PAIRS, 1000)


@torch.no_grad()
def logits(model):
    return model(torch.tensor([LONG])).logits


def adapted(language, seed=0, **more):
    given = {"rank": 2, "alpha": 0.0, "targets": "all-linear", "base": ""}
    return lora.add(copy.deepcopy(language), **given | more, seed=seed)


def shaken(language):
    """What trains, as if it had been trained."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in weights.trained(language.model).values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return language


@pytest.fixture(scope="module")
def words():
    return models.byte_tokenizer(["in the beginning", "let there be light"])


@pytest.fixture
def base(words, tmp_path):
    """A model's directory, and pairs that it can be trained on."""
    language = models.tiny(words, 3, CPU, width=16)
    models.save(language, tmp_path / "base")
    lines = [{"prompt": f"verse {i}", "response": f"light {i % 3}"} for i in range(24)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "base"


def on_files(base):
    return {"model": base, "task": base.parent / "pairs.jsonl"}


# -- what an adapter is ----------------------------------------------------------------------------


def test_it_begins_exactly_at_the_base_and_alone_trains(language):
    made, before = adapted(language), scores(language.model)
    assert torch.equal(scores(made.model), before)
    trained = weights.trained(made.model)
    layers = sum(isinstance(m, torch.nn.Linear) for m in language.model.modules()) - 1
    assert len(trained) == 2 * layers == 28  # 7 linear layers in each of 2; not the output
    assert all(".lora_" in name for name in trained)
    count = sum(p.numel() for p in trained.values())
    sides = [(64, 64)] * 4 + [(64, 128)] * 3  # attention, then the three of the gated MLP
    assert count == 2 * sum(2 * (m + n) for m, n in sides)


def test_its_beginning_is_a_function_of_the_seed(language):
    first = weights.copy_of(adapted(language))
    torch.rand(7)  # the global state does not matter, and is not touched
    state = torch.random.get_rng_state()
    again = weights.copy_of(adapted(language))
    assert torch.equal(torch.random.get_rng_state(), state)
    other = weights.copy_of(adapted(language, seed=1))
    for name, value in first.items():
        assert torch.equal(value, again[name])
        assert torch.equal(value, other[name]) == ("lora_B" in name)


def test_alpha_over_rank_scales_the_update(language):
    """W + alpha / rank B A, by hand."""
    for alpha, factor in ((0.0, 2.0), (3.0, 1.5)):
        made = shaken(adapted(language, alpha=alpha, targets="q_proj"))
        name = "model.layers.1.self_attn.q_proj"
        a, b = (weights.trained(made.model)[f"{name}.lora_{x}.default.weight"] for x in "AB")
        whole = language.model.get_submodule(name).weight + factor * b @ a
        torch.testing.assert_close(lora.merged(made)[f"{name}.weight"], whole)


def test_targets_that_are_none_are_refused_with_those_that_are(language):
    assert lora.targets_of(language.model, "v_proj, q_proj") == ["q_proj", "v_proj"]
    with pytest.raises(InvalidInput) as caught:
        lora.targets_of(language.model, "query,q_proj,lm_head,embed_tokens")
    said = caught.value.problems
    assert [p.split(":")[1] for p in said] == [" 'embed_tokens'", " 'lm_head'", " 'query'"]
    assert said[2].endswith(
        "linear layers but the output: down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, "
        "v_proj"
    )


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing")  # read by peft
def test_the_merged_model_is_that_with_the_adapter(words, tmp_path):
    """To 1e-5 in plain transformers, and by peft on its base; also where weights lie transposed."""
    from peft import PeftModel

    rows = len(words)
    config = GPT2Config(vocab_size=rows, n_embd=16, n_layer=1, n_head=2, n_positions=64)
    torch.manual_seed(0)
    gpt2 = models.Language(GPT2LMHeadModel(config).eval(), words)
    for name, plain in {"llama": models.tiny(words, 0, CPU, width=16), "gpt2": gpt2}.items():
        models.save(plain, tmp_path / name)
        made = shaken(adapted(plain, base=str(tmp_path / name)))
        models.save_final(made, tmp_path / f"{name}-final")
        wanted = scores(made.model)
        assert (wanted - scores(plain.model)).abs().min() > 1e-3
        whole = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-final").eval()
        torch.testing.assert_close(scores(whole), wanted, rtol=0, atol=1e-5)
        onto = AutoModelForCausalLM.from_pretrained(tmp_path / name)
        onto = PeftModel.from_pretrained(onto, tmp_path / f"{name}-final" / folders.ADAPTER)
        torch.testing.assert_close(scores(onto.get_base_model()), wanted, rtol=0, atol=1e-5)
        tied = load_file(tmp_path / f"{name}-final" / "model.safetensors")
        assert tied.keys() == {n for n, _ in plain.model.named_parameters()}


# -- two policies of one model ---------------------------------------------------------------------


@pytest.mark.parametrize("rank", [0, 2])
def test_two_policies_are_played_by_one_model_in_memory(rank):
    """Each as by a model of its own, in turns, also after a call that failed; nothing is copied
    but what trains."""
    s = tiny_game.settings()
    who = tiny_game.player(s, width=16)
    if rank:
        who = Player(adapted(who.language, rank=rank), s, Machine.of(s))
    start = weights.copy_of(who.language)
    old = copy.deepcopy(who.language.model)
    shaken(who.language)
    pairs = [(tiny_game.PROMPT, (1, 2, 0)), (tiny_game.PROMPT, (3, 0))]
    now, then = who.score(pairs), score(Scorer(old), pairs, 100)
    where = {n: p.data_ptr() for n, p in who.language.model.named_parameters()}
    with who.frozen(start) as other:
        assert torch.equal(other.score(pairs), then)
        assert torch.equal(who.score(pairs), now)
        with pytest.raises(ValueError, match="input_ids"):
            other.model(nonsense=1)
        assert torch.equal(who.score(pairs), now)
        ids = torch.tensor([[0, 1, 2]])
        laws = [m(input_ids=ids).logits for m in (who.model, other.model)]
        assert not torch.equal(*laws)
        assert sum(t.numel() for t in other.model.weights.values()) == sum(
            p.numel() for p in weights.trained(who.language.model).values()
        )
        assert all(a is b for a, b in zip(other.model.model.parameters(),
                                          who.model.parameters(), strict=True))  # fmt: skip
    assert where == {n: p.data_ptr() for n, p in who.language.model.named_parameters()}


def test_the_casts_of_one_policy_are_not_used_for_the_other():
    """Autocast remembers what a parameter was cast to, within one region."""
    s = tiny_game.settings()
    who = tiny_game.player(s, width=16)
    start = weights.copy_of(who.language)
    ids = torch.tensor([[0, 1, 2]])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = who.model(input_ids=ids).logits
        shaken(who.language)
        torch.clear_autocast_cache()
        after = who.model(input_ids=ids).logits
        with who.frozen(start) as other:
            assert torch.equal(other.model(input_ids=ids).logits, before)
            assert torch.equal(who.model(input_ids=ids).logits, after)
            assert not torch.equal(before, after)


# -- runs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("game", GAMES)
def test_an_interruption_changes_nothing(tmp_path, interrupt, game):
    train(tmp_path / "whole", **GAMES[game])
    interrupt(7)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SMALL | GAMES[game]).items()]
    assert CliRunner().invoke(app, ["train", "--out", str(tmp_path / "run"), *flags]).exit_code
    train(tmp_path / "run", **GAMES[game])
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_a_run_whose_base_is_no_directory_is_played_when_it_is_finished(tmp_path, interrupt):
    out = tmp_path / "run"
    interrupt(7)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in SMALL.items()]
    assert CliRunner().invoke(app, ["train", "--out", str(out), *flags]).exit_code
    for command in (("generate", out, "1 2"), ("eval", out)):
        said = call(*command, code=2).stderr.strip()
        assert said == (
            f"error: {out}: a run that is not finished, and its checkpoints are adapters of "
            "model='tiny', which is no directory; train it to its end first: only then are the "
            "weights whole"
        )
    train(out)
    assert "nll" in json.loads(call("eval", out).stdout)


def test_a_run_keeps_the_adapter_alone_and_begins_at_the_base(base, tmp_path):
    """SPIN's first loss is ln 2; pi_0, pi_t and checkpoints are adapters that peft reads."""
    out = tmp_path / "run"
    train(out, **on_files(base), sft_steps=0, max_new_tokens=12)
    rows = [row for row in metrics(out) if "loss" in row]
    assert rows[0]["loss"] == pytest.approx(0.6931471805599453, abs=1e-7)
    whole = models.load(base, torch.float32, CPU)
    zero = load_file(out / "base.safetensors")
    assert all((v == 0).all() for n, v in zero.items() if "lora_B" in n)
    assert len(zero) == len(load_file(out / "current.safetensors")) == 28
    newest = max((out / "checkpoints").iterdir())
    assert not (newest / "model.safetensors").exists()
    told = json.loads((newest / "state.json").read_text())["base"]
    frozen = adapted(whole)
    assert told == {"path": str(base), "digest": weights.base_digest(frozen)}
    by_adapter, final = (models.load(p, torch.float32, CPU) for p in (newest, out / "final"))
    torch.testing.assert_close(scores(by_adapter.model), scores(final.model), rtol=0, atol=1e-5)
    assert (scores(final.model) - scores(whole.model)).abs().max() > 1e-3
    heads = [safe_open(out / f"{n}.safetensors", "pt").metadata() for n in ("base", "current")]
    assert [list(head) for head in heads] == [["base"]] * 2  # of several the order is by chance
    assert all(json.loads(head["base"]) == told for head in heads)


def test_a_base_that_changed_is_noticed(base, tmp_path, interrupt):
    out, given = tmp_path / "run", on_files(base)
    interrupt(5)
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SMALL | given).items()]
    CliRunner().invoke(app, ["train", "--out", str(out), *flags])
    kept = load_file(base / "model.safetensors")
    kept["model.norm.weight"] = kept["model.norm.weight"] + 1.0
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    said = train(out, code=2, **given).stderr
    assert f"begun with another content of {base / 'model.safetensors'}" in said


def test_training_goes_on_from_an_adapter_merged_aloud(base, tmp_path):
    made = shaken(adapted(models.load(base, torch.float32, CPU), base=str(base)))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    lora.save(made, adapter)  # without a tokenizer: the base's
    said = []
    there = models.load(adapter, torch.float32, CPU, say=said.append)
    torch.testing.assert_close(scores(there.model), scores(made.model), rtol=0, atol=1e-5)
    assert said == [f"{adapter}: a LoRA adapter, merged into its base {base}"]
    assert len(weights.trained(there.model)) == len(dict(there.model.named_parameters()))
    for name, rank in (("lora", 2), ("whole", 0)):
        given = on_files(base) | {"model": adapter, "lora": rank, "rounds": 0}
        assert said[0] in train(tmp_path / name, **given).stderr
    newest = max((tmp_path / "lora" / "checkpoints").iterdir())  # whose base is an adapter
    chain, final = (models.load(p, torch.float32, CPU) for p in (newest, tmp_path / "lora/final"))
    torch.testing.assert_close(scores(chain.model), scores(final.model), rtol=0, atol=1e-5)
    config = json.loads((adapter / lora.CONFIG).read_text())
    (adapter / lora.CONFIG).write_text(
        json.dumps(config | {"base_model_name_or_path": str(newest)})
    )
    with pytest.raises(InvalidInput, match="leads back to itself"):
        models.directory(adapter)


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


def test_what_does_not_go_together_is_said_before_work(monkeypatch, tmp_path):
    assert combinations.combination_problems(Settings(lora_alpha=2.0)) == [
        "lora_alpha and lora_targets are of an adapter: set lora to its rank"
    ]
    assert "lora_targets: 'query'" in train(tmp_path / "run", code=2, lora_targets="query").stderr
    # the layers of 64 and 128 units have updates of rank 64 at most
    assert "lora=65; needed is <= 64, " in train(tmp_path / "run", code=2, lora=65).stderr
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(lora, "installed", lambda: False)
    (said,) = combinations.combination_problems(Settings(lora=4))
    assert said == "lora=4 needs the package peft: pip install 'selfplay-theory[lora]'"
