"""Maximum likelihood as people train it: smoothed labels, dropout and weight decay of a step."""

import dataclasses
import json

import pytest
import torch
from typer.testing import CliRunner

from llm_scale import train as training
from llm_scale.__main__ import app
from llm_scale.data.items import experts_only
from llm_scale.launch.combinations import combination_problems
from llm_scale.models import in_training
from llm_scale.rounds.sequence import Round
from llm_scale.settings import Settings
from tests.llm_scale.commands import call, outcome
from tests.llm_scale.tiny_game import player, task
from tests.llm_scale.tiny_game import settings as tiny

SFT = {"objective": "sft", "rounds": 1, "batch": 4}


def parts(tmp_path, **given):
    s = tiny(**SFT | given)
    who = player(s)
    if s.dropout:
        in_training.set_dropout(who.language.model, s.dropout)
    return training.assemble(s, tmp_path, who.language, task(s))


def plain_round(made, count=4):
    return Round.plain(experts_only(made.task.items(0)[:count]))


def test_a_smoothed_loss_by_hand(tmp_path):
    """(1 - eps) NLL + eps mean_v -log pi(v), summed over a response's tokens with its end."""
    made = parts(tmp_path, label_smoothing=0.3)
    data, eps, expected = plain_round(made), 0.3, 0.0
    for prompt, response in data.pairs:
        ids = torch.tensor([[*prompt, *response]])
        logits = made.player.model(input_ids=ids).logits.detach()
        law = logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        nll = -law[torch.arange(len(response)), torch.tensor(response)]
        expected += float(((1 - eps) * nll - eps * law.mean(-1)).sum()) / 4
    found = training.accumulate(made, data, range(4), None, eps)
    assert found == pytest.approx(expected, rel=1e-5)
    assert training.accumulate(made, data, range(4), None) == pytest.approx(
        -float(made.player.score(data.pairs).mean()), rel=1e-5
    )


def test_a_smoothed_gradient_is_that_of_the_smoothed_law(tmp_path):
    """In a logit it is pi less (1 - eps) the target and eps/V everything."""
    made = parts(tmp_path)
    logits = torch.randn(5, 4, requires_grad=True)
    scorer = made.player.scorer
    target = torch.tensor([[0], [1], [2], [3], [0]])
    head = made.player.model.get_output_embeddings()
    scorer.model.set_output_embeddings(torch.nn.Identity())
    (-scorer._chunk(logits, target, 0.2)).sum().backward()
    scorer.model.set_output_embeddings(head)
    wanted = torch.nn.functional.one_hot(target[:, 0], 4) * 0.8 + 0.2 / 4
    assert torch.allclose(logits.grad, logits.detach().softmax(-1) - wanted, atol=1e-6)


def test_smoothing_is_of_maximum_likelihood():
    (problem,) = combination_problems(Settings(label_smoothing=0.1))
    assert problem.startswith("label_smoothing=0.1 is of maximum likelihood")
    assert not combination_problems(Settings(label_smoothing=0.1, sft_steps=2))
    assert not combination_problems(Settings(label_smoothing=0.1, objective="sft"))


def test_weight_decay_is_decoupled_and_of_matrices_alone(tmp_path):
    """A step without a gradient multiplies matrices by 1 - lr decay; norms stay."""
    made = parts(tmp_path, weight_decay=0.5, lr=0.1)
    before = {n: p.detach().clone() for n, p in made.player.model.named_parameters()}
    optimiser = training.new_optimiser(made)
    for parameter in made.trained:
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    for name, parameter in made.player.model.named_parameters():
        factor = 0.95 if parameter.ndim > 1 else 1.0
        assert torch.allclose(parameter, factor * before[name], atol=1e-7), name
    assert any(p.ndim == 1 for p in before.values())


def test_dropout_is_in_the_loss_and_not_in_scores(tmp_path):
    made = parts(tmp_path, dropout=0.5)
    state = training.State(training.new_optimiser(made))
    data = plain_round(made)
    scores = made.player.score(data.pairs)
    found = []
    for step in (0, 0, 1):
        state.step = step
        with training.training_pass(made, state):
            found.append(training.accumulate(made, data, range(4), None))
    assert found[0] == found[1] != found[2]
    assert found[0] != pytest.approx(-float(scores.mean()), abs=1e-4)
    assert torch.equal(made.player.score(data.pairs), scores)


def test_a_resumed_run_with_dropout_is_the_same_bit_for_bit(tmp_path, interrupt):
    small = ("--device=cpu", "--prompts=16", "--held-out=4", "--rounds=1", "--steps-per-round=4",
             "--sft-steps=2", "--batch=4", "--checkpoint-every=2", "--dropout=0.2",
             "--label-smoothing=0.1", "--weight-decay=0.1", "--cosines=1")  # fmt: skip
    call("train", "--out", tmp_path / "whole", *small)
    interrupt(6)
    CliRunner().invoke(app, ["train", f"--out={tmp_path / 'cut'}", *small])
    assert not (tmp_path / "cut" / "final").exists()
    call("train", "--out", tmp_path / "cut", *small)
    assert outcome(tmp_path / "cut") == outcome(tmp_path / "whole")


def test_recorded_settings_hold_all_three(tmp_path):
    call("sft", "--out", tmp_path / "run", "--device=cpu", "--prompts=8", "--held-out=4",
         "--rounds=1", "--steps-per-round=1", "--batch=2", "--label-smoothing=0.1")  # fmt: skip
    record = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert (record["label_smoothing"], record["dropout"], record["weight_decay"]) == (0.1, 0.0, 0.0)
    assert set(record) == {f.name for f in dataclasses.fields(Settings)}
