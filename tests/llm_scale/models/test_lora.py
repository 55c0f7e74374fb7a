"""Adapters: they start at the base, alone train and are kept, and are merged at the end."""

import copy
import json
import warnings

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
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
from tests.llm_scale.models.adapters import (
    CPU,
    SMALL,
    adapted,
    logits,
    on_files,
    scores,
    shaken,
    train,
)
from theory.errors import InvalidInput

pytest.importorskip("peft")
GAMES = {
    "mixture": {"opponent": "mixture"},
    "two models at once": {"objective": "alpha_spin"},
    "tokens": {"level": "token", "tau": 0.2, "objective": "spif"},
    "preferences": {"objective": "inpo", "tau": 0.2, "oracle": "bradley-terry", "own_samples": 2},
}


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
    assert told == {"path": str(base), "digest": frozen.base}
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
    said = call("eval", out, code=2).stderr
    assert f"a LoRA adapter of other weights than {base} has: they changed since" in said


def test_an_adapter_is_not_merged_into_other_weights(base, tmp_path):
    """Also where they have its shapes; of an adapter by others nothing is known."""
    train(tmp_path / "run", **on_files(base))
    adapter = tmp_path / "run" / "final" / "adapter"
    there = scores(models.load(adapter, torch.float32, CPU).model)
    kept = load_file(base / "model.safetensors")
    moved = {name: tensor + 0.1 * (tensor.ndim == 1) for name, tensor in kept.items()}
    save_file(moved, base / "model.safetensors", {"format": "pt"})
    wanted = f"adapter of other weights than {base} has: they changed since; put them back"
    with pytest.raises(InvalidInput, match=wanted):
        models.load(adapter, torch.float32, CPU)
    assert wanted in train(tmp_path / "more", code=2, **on_files(base) | {"model": adapter}).stderr
    told = (adapter / lora.BASE).read_text()
    (adapter / lora.BASE).write_text("{}")
    with pytest.raises(InvalidInput, match=f"{lora.BASE} is not what was written"):
        models.load(adapter, torch.float32, CPU)
    (adapter / lora.BASE).unlink()
    assert (scores(models.load(adapter, torch.float32, CPU).model) - there).abs().max() > 1e-3
    (adapter / lora.BASE).write_text(told)
    save_file(kept, base / "model.safetensors", {"format": "pt"})
    torch.testing.assert_close(scores(models.load(adapter, torch.float32, CPU).model), there)


def test_what_is_left_beside_final_weights_is_for_peft(base, tmp_path):
    """It loads the adapter of whole weights; of an adapter's none is left, and that is said."""
    from peft import AutoPeftModelForCausalLM

    train(tmp_path / "first", **on_files(base))
    adapter = tmp_path / "first" / "final" / "adapter"
    with warnings.catch_warnings():  # of names that transformers will drop
        warnings.simplefilter("ignore")
        by_peft = AutoPeftModelForCausalLM.from_pretrained(adapter)
    final = models.load(tmp_path / "first" / "final", torch.float32, CPU)
    torch.testing.assert_close(logits(by_peft), logits(final.model), rtol=0, atol=1e-5)
    said = train(tmp_path / "second", **on_files(base) | {"model": adapter}).stderr
    assert "the model is an adapter: final/ will have all weights" in said
    assert (tmp_path / "second" / "final" / "model.safetensors").is_file()
    assert not (tmp_path / "second" / "final" / "adapter").exists()


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
