"""Choice by validation: prompts apart, the best round kept, a record of all that was tried."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from llm_scale import models
from llm_scale.__main__ import app
from llm_scale.data import tasks, text_game, user_file, verses
from llm_scale.launch import choose
from llm_scale.launch.prepare import combination_problems
from llm_scale.settings import Settings
from llm_scale.store.read import Run
from tests.llm_scale.commands import call, metrics, outcome
from theory.errors import InvalidInput

SMALL = ("--prompts=16", "--held-out=4", "--validation=6", "--rounds=3", "--steps-per-round=3",
         "--batch=4", "--device=cpu", "--checkpoint-every=2")  # fmt: skip


def prompts(items):
    return {item.prompt for item in items}


def test_a_file_is_parted_in_three(tmp_path):
    rows = [{"prompt": f"say {i % 10}", "response": f"word {i}"} for i in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tokenizer = models.byte_tokenizer([row["response"] for row in rows], 300)
    s = Settings(held_out=3, validation=4, task=str(path))
    made = user_file.pair_file(path, tokenizer, s)
    train, held, by = (
        prompts(items) for items in (made.items(0), made.held_out(), made.validation())
    )
    assert (len(train), len(held), len(by)) == (3, 3, 4)
    assert not (train & held)
    assert not (train & by)
    assert not (held & by)
    assert "3 prompts held out, 4 to choose by, 9 of 9 used a round" in made.notes[0]
    plain = user_file.pair_file(path, tokenizer, dataclasses.replace(s, validation=0))
    assert plain.held_out() == made.held_out()
    with pytest.raises(InvalidInput, match="held_out=3, validation=7 prompts and one to train"):
        user_file.pair_file(path, tokenizer, dataclasses.replace(s, validation=7))


def test_shipped_tasks_have_validation_prompts_apart():
    tokenizer = text_game.text_tokenizer(300)
    s = Settings(task="text", held_out=8, validation=8, measured_on="test", prompts=16)
    made = text_game.text_game(s, tokenizer)
    train = prompts(made.parts["text"]) | prompts(made.parts["rounds"])
    held, by = prompts(made.held_out()), prompts(made.validation())
    assert len(held) == len(by) == 8
    assert not (train & held)
    assert not (train & by)
    assert not (held & by)
    real = verses.verses(Settings(held_out=8, validation=8), tokenizer)
    both = [item.id for item in (*real.held_out(), *real.validation())]
    assert len(set(both)) == 16
    assert min(both) >= len(real.train)
    known = tasks.phrases(Settings(held_out=4, validation=4, prompts=8))
    idents = [i.id for i in (*known.held_out(), *known.validation(), *known.items(0))]
    assert len(set(idents)) == 16


def test_the_number_that_is_chosen_by_is_the_nll_of_validation_prompts(tmp_path):
    call("sft", "--out", tmp_path / "run", *SMALL, "--keep-best", "--lr=0.03")
    rows = [row for row in metrics(tmp_path / "run") if "round" in row]
    best = min(rows, key=lambda row: row["validation_nll"])
    made = tasks.phrases(Settings(held_out=4, validation=6, prompts=16))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "best")
    each = []
    for item in made.validation():
        ids = torch.tensor([[*item.prompt, *item.expert[0].tokens]])
        law = model(ids).logits.detach().log_softmax(-1)[0]
        first = len(item.prompt)
        each.append(-sum(float(law[i - 1, ids[0, i]]) for i in range(first, ids.shape[1])))
    each = torch.tensor(each, dtype=torch.float64)
    assert best["validation_nll"] == pytest.approx(float(each.mean()), rel=1e-5)
    assert best["validation_nll_se"] == pytest.approx(float(each.std() / 6**0.5), rel=1e-5)


def test_the_best_model_survives_interruptions_bit_for_bit(tmp_path, interrupt):
    flags = (*SMALL, "--keep-best", "--lr=0.3")  # a rate at which later rounds are worse
    call("sft", "--out", tmp_path / "whole", *flags)
    interrupt(6)
    CliRunner().invoke(app, ["sft", f"--out={tmp_path / 'cut'}", *flags])
    call("sft", "--out", tmp_path / "cut", *flags)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")
    weights = "best/model.safetensors"
    assert (tmp_path / "cut" / weights).read_bytes() == (tmp_path / "whole" / weights).read_bytes()


def test_a_selection_is_recorded_with_all_that_was_tried(tmp_path):
    out = tmp_path / "chosen"
    asked = ["sft", "--out", out, "--select", "lr=1e-5,0.01", *SMALL]
    said = call(*asked).output
    record = json.loads((out / "selection.json").read_text())
    assert (record["trials"], record["rounds_seen"], record["validation_prompts"]) == (2, 6, 6)
    assert [t["run"] for t in record["tried"]] == ["lr-1e-05", "lr-0.01"]
    least = min(r["validation_nll"] for t in record["tried"] for r in t["rounds"])
    best = record["chosen"]
    assert (best["run"], best["validation_nll"]) == ("lr-0.01", least)
    rows = [r for r in metrics(out / best["run"]) if r.get("round") == best["round"]]
    assert record["held_out"]["nll"] == rows[0]["nll"]
    assert f"chosen of 2 runs and 6 rounds by validation NLL {least:.3f}" in said
    assert (out / best["model"] / "model.safetensors").is_file()
    assert "finished before" in call(*asked).output  # nothing is trained again
    assert json.loads((out / "selection.json").read_text()) == record
    narrowed = ["sft", "--out", out, "--select", "lr=0.01", *SMALL]
    assert "would not be counted" in call(*narrowed, code=2).output


def run_of(name, values):
    rounds = [
        {"round": i, "validation_nll": v, "validation_nll_se": 0.1, "nll": v + 1, "nll_se": 0.2}
        for i, v in enumerate(values)
    ]
    path = type("Path", (), {"name": name})
    return Run(path, {"validation": 5}, rounds, [], "finished")


def test_the_choice_by_hand():
    found = choose.chosen(
        [run_of("a", [3.0, 2.0, 2.5]), run_of("b", [2.0, 1.5]), run_of("c", [])], ["c"]
    )
    assert (found["chosen"]["run"], found["chosen"]["round"]) == ("b", 1)
    assert found["held_out"] == {"nll": 2.5, "nll_se": 0.2}
    assert (found["trials"], found["rounds_seen"]) == (3, 5)
    nothing = dict.fromkeys(("round", "validation_nll", "validation_nll_se"))
    assert found["tried"][2] == {"run": "c", **nothing, "stopped": True, "rounds": []}
    with pytest.raises(InvalidInput, match="no round of any candidate"):
        choose.chosen([run_of("c", [])])


def test_bad_choices_are_refused_before_work(tmp_path):
    for text, why in (
        ("lr", "needed is NAME=VALUES"),
        ("seed=1,2", "needed is NAME=VALUES"),
        ("lr=1,x", "needed are numbers"),
        ("batch=1.5", "whole numbers"),
        ("lr=1,1", "twice"),
        (";", "nothing to choose"),
    ):
        with pytest.raises(InvalidInput, match=why):
            choose.parsed(text)
    asked = ["sft", "--out", tmp_path / "x", "--select=lr=0.1,0.2"]
    assert "set validation > 0" in call(*asked, code=2).output
    assert "given and in --select" in call(*asked, "--lr=0.1", code=2).output
    assert not (tmp_path / "x").exists()
    (problem,) = combination_problems(Settings(validation=4, keep_best=True, rounds=0))
    assert problem == "keep_best chooses a round: set rounds > 0"
    (problem,) = combination_problems(Settings(task="text", validation=4))
    assert "set measured_on to test" in problem
    (problem,) = combination_problems(
        Settings(validation=4, oracle="cyclic", own_samples=2, objective="sppo")
    )
    assert "oracle='cyclic' does not have" in problem
