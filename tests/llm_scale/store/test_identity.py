"""What a run depends on is in its record, and what was left to the task is as it was found."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from typer.testing import CliRunner

from lab.files import digest
from llm_scale.__main__ import app
from llm_scale.launch import prepare, run_folder
from llm_scale.models import byte_tokenizer, load, lora, save, tiny
from llm_scale.settings import Settings
from llm_scale.store import identity
from llm_scale.store.read import read, record_of
from theory.errors import InvalidInput

DATED = "{{ strftime_now('%d %b %Y') + ': ' + messages[0]['content'] }}"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "m"
    tokenizer = byte_tokenizer(["thou art"], 260)
    tokenizer.chat_template = DATED
    save(tiny(tokenizer, 0, torch.device("cpu"), width=16, layers=1), path)
    return path


@pytest.fixture
def settings(model, tmp_path):
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "response": "thou art"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Settings(
        model=str(model), task=str(path), held_out=2, rounds=1, steps_per_round=3, batch=2,
        cosines=0, device="cpu", checkpoint_every=1,
    )  # fmt: skip


@pytest.fixture
def torn(settings, tmp_path, interrupt, monkeypatch):
    """The folder of a run that was interrupted."""
    out = tmp_path / "run"
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(settings, out, lambda text: None)
    monkeypatch.undo()
    return out


def on(monkeypatch, day):
    """Prompts are formatted on another day."""
    monkeypatch.setattr("llm_scale.data.user_file.today", lambda *_: day)


def test_a_run_goes_on_with_the_day_and_numbers_that_it_began_with(
    settings, tmp_path, monkeypatch, interrupt
):
    on(monkeypatch, "2024-02-01")
    run_folder.run(settings, tmp_path / "whole", lambda text: None)
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(settings, tmp_path / "torn", lambda text: None)
    monkeypatch.undo()
    on(monkeypatch, "2025-12-31")
    for _ in range(2):  # goes on, then is finished
        run_folder.run(settings, tmp_path / "torn", lambda text: None)
    for name in ("settings.json", "metrics.jsonl", "final/model.safetensors"):
        whole = (tmp_path / "whole" / name).read_bytes()
        assert (tmp_path / "torn" / name).read_bytes() == whole
    found = read(tmp_path / "torn")
    assert found.rounds[0]["prompt_format"].startswith("01 Feb 2024: say")
    kept = [found.settings[n] for n in ("data", "prompts", "prompt_date", "max_new_tokens")]
    assert kept[:3] == ["responses", 4, "2024-02-01"]
    assert kept[3] == len(byte_tokenizer(["thou art"], 260)("thou art")["input_ids"]) + 1
    assert record_of(tmp_path / "torn")["left"] == [
        "data", "prompts", "prompt_date", "max_new_tokens",
    ]  # fmt: skip
    again = ["reproduce", str(tmp_path / "torn"), "--out", str(tmp_path / "again")]
    assert CliRunner().invoke(app, again).exit_code == 0
    assert read(tmp_path / "again").rounds == found.rounds


def test_what_was_left_to_the_task_is_not_what_was_said(settings, tmp_path):
    """A number that was given is given again: leaving it out is another command."""
    given = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    run_folder.run(Settings(**given | {"max_new_tokens": 5}), tmp_path / "run", lambda text: None)
    with pytest.raises(InvalidInput, match="holds a run with other settings"):
        run_folder.run(settings, tmp_path / "run", lambda text: None)


def edited(path):
    path.write_bytes(path.read_bytes() + b" ")


CHANGES = {
    "template": lambda m: edited(m / "chat_template.jinja"),
    "tokenizer": lambda m: edited(m / "tokenizer.json"),
    "weights": lambda m: edited(m / "model.safetensors"),
    "a file more": lambda m: (m / "special_tokens_map.json").write_text("{}"),
    "a file less": lambda m: (m / "generation_config.json").unlink(),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_model_that_changed_is_refused(name, torn, settings, model, tmp_path):
    before = {p: p.read_bytes() for p in torn.rglob("*") if p.is_file()}
    CHANGES[name](model)
    with pytest.raises(InvalidInput, match=r"a run begun with another content of .*/m/"):
        run_folder.run(settings, torn, lambda text: None)
    assert {p: p.read_bytes() for p in torn.rglob("*") if p.is_file()} == before
    again = ["reproduce", str(torn), "--out", str(tmp_path / "again")]
    result = CliRunner().invoke(app, again)
    assert result.exit_code == 2
    assert "this would be another run" in result.stderr
    assert not (tmp_path / "again").exists()


def adapter(path, base):
    """Files of a LoRA adapter, as far as a record looks at them."""
    path.mkdir()
    told = {"peft_type": "LORA", "base_model_name_or_path": str(base)}
    (path / "adapter_config.json").write_text(json.dumps(told))
    (path / "adapter_model.safetensors").write_bytes(b"weights")
    return path


ROLES = {
    "model": lambda settings, path: dataclasses.replace(settings, model=str(path)),
    "expert": lambda settings, path: dataclasses.replace(settings, model="tiny", expert=str(path)),
}  # fmt: skip


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("name", CHANGES)
def test_a_base_that_changed_is_another_model(name, role, model, settings, tmp_path):
    """Of an adapter of an adapter as well."""
    two = adapter(tmp_path / "two", adapter(tmp_path / "one", model))
    named = ROLES[role](settings, two)
    begun = identity.files(named)
    assert identity.changed(begun, named) == []
    CHANGES[name](model)
    (found,) = identity.changed(begun, named)
    assert found.startswith(f"{model}/")
    edited(tmp_path / "one" / "adapter_config.json")
    assert str(tmp_path / "one" / "adapter_config.json") in identity.changed(begun, named)


def test_records_with_one_digest_of_the_expert_stay_readable(model, settings):
    """All that they told apart: weights, tokenizer and config.json."""
    named = ROLES["expert"](settings, model)
    names = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]
    told = "".join(f"{name} {digest(model / name)}\n" for name in names)
    data = {settings.task: digest(Path(settings.task))}
    begun = {f"expert {model}": digest(told)}
    assert identity.changed(data | begun, named) == []
    edited(model / "chat_template.jinja")
    assert identity.changed(data | begun, named) == []
    edited(model / "model.safetensors")
    assert identity.changed(data | begun, named) == [f"expert {model}"]
    shutil.rmtree(model)  # one that is made comes again
    assert identity.changed(data | begun, named) == []


def test_records_without_a_base_stay_readable(model, settings, tmp_path):
    """They say of the base neither that it is as it was nor that it is another."""
    below = adapter(model / "adapter", model)
    named = dataclasses.replace(settings, model=str(below))
    begun = {n: d for n, d in identity.files(named).items() if not n.startswith(f"{model}/")}
    begun |= {n: d for n, d in identity.files(named).items() if n.startswith(f"{below}/")}
    edited(model / "chat_template.jinja")
    assert identity.changed(begun, named) == []
    assert identity.changed({}, named) == []
    edited(below / "adapter_model.safetensors")
    assert identity.changed(begun, named) == [f"{below}/adapter_model.safetensors"]


@pytest.mark.parametrize("base", ["", "itself", "nowhere"])
def test_an_adapter_without_a_base_is_no_endless_chain(base, settings, tmp_path):
    path = adapter(tmp_path / "a", {"itself": tmp_path / "a"}.get(base, base))
    found = identity.folders(dataclasses.replace(settings, model=str(path)))
    assert list(found) == [path, *[Path("nowhere")] * (base == "nowhere")]


def test_an_adapter_goes_on_with_the_base_that_it_began_with(
    model, settings, tmp_path, interrupt, monkeypatch
):
    pytest.importorskip("peft")
    base, out = tmp_path / "base", tmp_path / "run"
    shutil.copytree(model, base)
    made = lora.add(load(base, torch.float32, torch.device("cpu")), 2, 0.0, "all-linear", 0, "m")
    made.adapter.base_model_name_or_path = str(base)
    (tmp_path / "lora").mkdir()
    lora.save(made, tmp_path / "lora")
    named = dataclasses.replace(settings, model=str(tmp_path / "lora"))
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(named, out, lambda text: None)
    monkeypatch.undo()
    kept = (base / "chat_template.jinja").read_bytes()
    edited(base / "chat_template.jinja")
    with pytest.raises(InvalidInput, match=r"another content of .*/base/chat_template.jinja; cho"):
        run_folder.run(named, out, lambda text: None)
    (base / "chat_template.jinja").write_bytes(kept)
    run_folder.run(named, out, lambda text: None)
    assert read(out).state == "finished"


@pytest.mark.parametrize("name", CHANGES)
def test_an_sft_run_that_changed_is_another_measure(
    name, model, settings, tmp_path, interrupt, monkeypatch
):
    final, out = tmp_path / "sft" / "final", tmp_path / "run"
    shutil.copytree(model, final)
    named = dataclasses.replace(settings, sft_run=str(final.parent))
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(named, out, lambda text: None)
    monkeypatch.undo()
    before = dict(record_of(out)["files"])
    CHANGES[name](final)
    with pytest.raises(InvalidInput, match=r"another content of .*/sft/final/"):
        run_folder.run(named, out, lambda text: None)
    older = {n: d for n, d in before.items() if not n.startswith(f"{final}/")}
    assert identity.changed(older, named) == [], "a record without its files stays readable"


def revision(cache, model, number):
    """Make a model's files those of a name on the Hub, as a download leaves them."""
    folder = cache / "models--some--model"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text(str(number) * 40)
    shutil.copytree(model, folder / "snapshots" / (str(number) * 40), dirs_exist_ok=True)


def test_another_revision_of_a_name_on_the_hub_is_another_model(
    model, settings, tmp_path, interrupt, monkeypatch
):
    """Also where it comes while a run that goes on is loaded."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    revision(tmp_path / "cache", model, 0)
    named, out = dataclasses.replace(settings, model="some/model"), tmp_path / "run"
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(named, out, lambda text: None)
    files = record_of(out)["files"]
    assert files["some/model/config.json"] == digest(model / "config.json")
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    edited(model / "chat_template.jinja")
    real = prepare.load

    def newer(*arguments):
        revision(tmp_path / "cache", model, 1)
        return real(*arguments)

    monkeypatch.setattr(prepare, "load", newer)
    for _ in range(2):  # brought while it is loaded, and there before
        with pytest.raises(InvalidInput, match=r"another content of some/model/chat_template\."):
            run_folder.run(named, out, lambda text: None)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    shutil.rmtree(tmp_path / "cache")
    assert identity.changed(files, named) == []


PROGRAMS = {
    "objective": "from theory.objectives import Pairwise, register\nfrom theory import xp\n"
    "from helper_of import K\n\n\n@register('mine')\nclass Mine(Pairwise):\n"
    "    def pair_loss(self, d):\n        return K * xp.log1p(xp.exp(-d))\n",
    "oracle": "from helper_of import K\n\ndef mine(prompt, response):\n    return K\n",
    "match": "from helper_of import K\n\ndef mine(prompt, response, reference):\n    return K\n",
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_a_users_file_imports_from_beside_it_is_part_of_the_run(
    name, settings, tmp_path, interrupt, monkeypatch
):
    file, helper, out = (tmp_path / n for n in ("mine.py", "helper_of.py", "run"))
    file.write_text(PROGRAMS[name])
    helper.write_text("from helper_below import K\n")
    (tmp_path / "helper_below.py").write_text("K = 1.0\n")
    more = {"own_samples": 2} if name == "oracle" else {}
    named = dataclasses.replace(settings, **{name: f"{file}:mine"}, **more)
    interrupt(3)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(named, out, lambda text: None)
    monkeypatch.undo()
    before = record_of(out)["files"]
    (tmp_path / "helper_below.py").write_text("K = 2.0\n")
    with pytest.raises(InvalidInput, match=r"another content of .*/helper_below.py; choose"):
        run_folder.run(named, out, lambda text: None)
    older = {n: d for n, d in before.items() if "helper" not in n}
    assert identity.changed(older, named) == [], "a record without it stays readable"


def test_what_is_not_read_may_change(torn, settings, model):
    for name in ("README.md", "notes.txt", "results.json"):
        (model / name).write_text("another text")
    run_folder.run(settings, torn, lambda text: None)
    assert read(torn).state == "finished"


def test_files_of_a_model(model, settings):
    names = {name.rpartition("/")[2] for name in identity.files(settings)}
    assert names == {
        "pairs.jsonl", "config.json", "generation_config.json", "model.safetensors",
        "tokenizer.json", "tokenizer_config.json", "chat_template.jinja",
    }  # fmt: skip
    assert identity.folders(dataclasses.replace(settings, model="tiny")) == {}
