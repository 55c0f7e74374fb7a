"""An expert by its directory and the one that is made: trained, kept, told apart, refused."""

import dataclasses
import json
import shutil

import pytest
import torch

from llm_scale import settings as settings_module
from llm_scale.data import text_game
from llm_scale.data.tokenizers import byte_tokenizer
from llm_scale.launch import prepare, run_folder
from llm_scale.models import save, tiny
from llm_scale.settings import Settings
from llm_scale.store import expert
from tests.llm_scale.commands import call, metrics, outcome
from theory.errors import InvalidInput
from theory.tokens.text import load_pairs

SMALL = ("--device=cpu", "--batch=4", "--held-out=8", "--max-new-tokens=6", "--rounds=2",
         "--steps-per-round=2", "--sft-steps=2", "--cosines=0")  # fmt: skip
SIZE = ("--width=16", "--layers=1", "--heads=2")
TEXTS = ["say nothing of that", "gone is gone"] * 9


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    """A file of pairs, and an expert that `make-expert` trained on it: a run's folder."""
    root = tmp_path_factory.mktemp("experts")
    rows = [{"prompt": f"say {i}", "response": "it is gone"} for i in range(20)]
    (root / "pairs.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    said = call("make-expert", "--out", root / "expert", f"--task={root / 'pairs.jsonl'}", *SIZE,
                "--vocabulary=300", "--steps=3", "--batch=4", "--held-out=4", "--device=cpu",
                "--max-new-tokens=6")  # fmt: skip
    return root, said


def line(root, out):
    return ["--out", out, f"--task={root / 'pairs.jsonl'}", *SMALL, "--prompts=8",
            f"--expert={root / 'expert'}", *SIZE]  # fmt: skip


def learner(root, out, *more):
    return call("train", *line(root, out), *more)


def test_make_expert_is_a_run_of_sft_with_its_defaults(places):
    root, said = places
    (row,) = (r for r in metrics(root / "expert") if "round" in r)
    assert f"held-out NLL {row['nll']:.2f} ({row['nll_se']:.2f}) nats a response" in said.stderr
    made = json.loads((root / "expert" / "settings.json").read_text())["settings"]
    assert (made["objective"], made["steps_per_round"], made["rounds"]) == ("sft", 3, 1)
    config = json.loads((root / "expert" / "final" / "config.json").read_text())
    told = ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
    assert [config[name] for name in told] == [16, 1, 2, 300]
    recipe = settings_module.resolve(settings_module.EXPERT_RECIPE, {})
    kept = [recipe.width, recipe.layers, recipe.heads, recipe.vocabulary, recipe.steps_per_round,
            recipe.batch, recipe.lr]  # fmt: skip
    assert kept == [192, 4, 4, 1024, 1200, 64, 3e-3]


def test_a_run_with_a_model_as_expert_is_measured_against_it(places, tmp_path):
    root, _ = places
    learner(root, tmp_path / "run", "--round-data=fixed")
    rows = [r for r in metrics(tmp_path / "run") if "round" in r]
    asked = {"kl_before", "kl", "reverse_kl", "link_slope", "contraction", "dumped", "margin"}
    assert len(rows) == 2
    assert all(asked <= row.keys() for row in rows)
    assert rows[0]["sampler_gap"] < 1e-4
    found = json.loads(call("eval", tmp_path / "run", "--device=cpu").stdout)
    assert found["kl"] == pytest.approx(rows[-1]["kl"], rel=1e-4)
    learner(root, tmp_path / "token", "--level=token", "--own-samples=2")
    last = metrics(tmp_path / "token")[-1]
    assert {"token_link_slope", "token_predicted_slope", "token_positions"} <= last.keys()


def test_a_resumed_run_is_the_same_and_another_expert_is_refused(places, tmp_path, interrupt):
    root = tmp_path / "moved"
    shutil.copytree(places[0], root)
    learner(root, tmp_path / "whole")
    interrupt(5)
    call("train", *line(root, tmp_path / "run"), code=130)
    for name in ("model.safetensors", "chat_template.jinja", "generation_config.json"):
        file = root / "expert" / "final" / name
        kept = file.read_bytes()
        file.write_bytes(kept[:-4] + b"\0\0\0\0")
        said = call("train", *line(root, tmp_path / "run"), code=2).stderr
        assert f"holds a run begun with another content of {file}; choose another --out" in said
        file.write_bytes(kept)
    call("train", *line(root, tmp_path / "run"))
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")


def test_experts_that_do_not_go_with_a_run(places, tmp_path):
    root, _ = places
    task = str(root / "pairs.jsonl")
    cpu = torch.device("cpu")
    save(tiny(byte_tokenizer(TEXTS, 300), 0, cpu, width=16), tmp_path / "other")
    save(tiny(byte_tokenizer(TEXTS, 270), 0, cpu, width=16), tmp_path / "fewer")
    known = str(root / "expert")
    base = {"device": "cpu", "task": task, "prompts": 8, "held_out": 4, "batch": 4}
    for given, reason in (
        ({"expert": "/nowhere"}, "expert='/nowhere': no config.json there; needed is 'none'"),
        ({"expert": known, "model": str(tmp_path / "other")}, "another vocabulary"),
        ({"expert": known, "model": str(tmp_path / "fewer")}, "another vocabulary"),
        ({"expert": known, "task": "phrases"}, "another vocabulary"),
        ({"expert": known, "vocabulary": 400}, "vocabulary=400; the expert has 300 tokens"),
        ({"expert": known, "max_new_tokens": 1100}, "beyond its context of 1024 tokens"),
        ({"expert": "made"}, "expert='made' is for task='text'"),
        ({"expert": "made", "task": "text", "model": str(tmp_path / "other")}, "has others"),
        ({"measured_on": "test"}, "measured_on='test' is for task='text'"),
        ({"width": 12}, "width=12, heads=4; needed is a width that is a multiple of 2 heads"),
        ({"history": 0.5, "opponent": "base"}, "opponent must be last"),
        ({"history": 0.5, "level": "token"}, "level must be sequence"),
        ({"history": 0.5, "objective": "alpha_spin"}, "has an opponent of its own"),
    ):
        with pytest.raises(InvalidInput) as caught:
            prepare.prepare(Settings(**base | given))
        assert len([p for p in caught.value.problems if reason in p]) == 1, caught.value.problems
    merged = tmp_path / "merged"  # the same tokens by name, put together in another order
    shutil.copytree(root / "expert" / "final", merged)
    path = merged / "tokenizer.json"
    core = json.loads(path.read_text())
    core["model"]["merges"] = core["model"]["merges"][:1]
    path.write_text(json.dumps(core))
    with pytest.raises(InvalidInput, match="other tokens for the task's prompts"):
        prepare.prepare(Settings(**base, expert=str(merged), model=str(root / "expert" / "final")))


@pytest.fixture
def short(monkeypatch, tmp_path):
    """The recipe and the text, small; in a folder of its own."""
    pairs = load_pairs()[:600]
    monkeypatch.setattr(text_game, "load_pairs", lambda: pairs)
    presets = tmp_path / "presets"
    shutil.copytree(settings_module.PRESETS, presets)
    path = presets / "text-expert.toml"
    lines = [line for line in path.read_text().splitlines() if line.split(" ")[0] not in
             ("width", "layers", "steps_per_round", "held_out", "batch")]  # fmt: skip
    path.write_text("\n".join([*lines, "width = 16", "layers = 1", "steps_per_round = 2",
                               "held_out = 8", "batch = 4"]) + "\n")  # fmt: skip
    monkeypatch.setattr(settings_module, "PRESETS", presets)
    monkeypatch.chdir(tmp_path)
    return Settings(
        task="text", expert="made", width=16, layers=1, heads=2, vocabulary=300, prompts=16,
        held_out=8, max_new_tokens=6, rounds=1, steps_per_round=2, sft_steps=2, batch=4,
        device="cpu", cosines=0, round_data="fixed",
    )  # fmt: skip


def test_the_expert_of_the_text_game_is_made_once(short, tmp_path, monkeypatch):
    said = []
    run_folder.run(short, tmp_path / "one", said.append)
    (kept,) = (tmp_path / "models").iterdir()
    assert said[0] == f"the expert is made first and kept in {expert.made_run(short)}"
    weights = kept / "final" / "model.safetensors"
    when = weights.stat().st_mtime_ns
    again = dataclasses.replace(short, seed=1)
    run_folder.run(again, tmp_path / "two", said.append)
    assert sum("made first" in line for line in said) == 1
    assert weights.stat().st_mtime_ns == when
    assert list((tmp_path / "models").iterdir()) == [kept]
    (row,) = (r for r in metrics(tmp_path / "two") if "round" in r)
    assert {"kl_before", "kl", "reverse_kl", "link_slope"} <= row.keys()
    made = expert.made_run(short)
    assert expert.made_run(dataclasses.replace(short, device="auto", beta=2.0)) == made
    for other in ({"vocabulary": 400}, {"max_new_tokens": 40}):
        assert expert.made_run(dataclasses.replace(short, **other)) != made
    changed = tmp_path / "text"
    changed.write_text("another text")
    monkeypatch.setattr(expert, "SHIPPED", changed)
    assert expert.made_run(short) != made


def test_what_a_run_cannot_use_is_said_before_its_expert_is_made(short, tmp_path):
    said = []
    for given, reason in (({"held_out": 10**4}, "prompts for"), ({"batch": 99}, "a round has 16")):
        with pytest.raises(InvalidInput, match=reason):
            run_folder.run(dataclasses.replace(short, **given), tmp_path / "run", said.append)
    assert said == []
    assert not (tmp_path / "models").exists()
    assert not (tmp_path / "run").exists()


def test_several_processes_do_not_make_an_expert(short, tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InvalidInput, match="make it in one process first"):
        run_folder.make_expert(short, print)
