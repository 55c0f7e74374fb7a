"""Given pairs: the loss and its gradient are those of DPO (IPO, SPPO) written out by hand."""

import copy
import dataclasses
import json

import pytest
import torch
from torch.nn.functional import logsigmoid

from llm_scale import train as training
from llm_scale.launch import combinations, prepare, run_folder
from llm_scale.measure import preferences
from llm_scale.measure.predicted import RewardTerms
from llm_scale.models import Language, weights
from llm_scale.models.player import Player
from llm_scale.rounds.begin import restore
from llm_scale.rounds.preferences import GivenPairs
from llm_scale.settings import Settings
from llm_scale.store.read import read
from llm_scale.store.state import State
from theory import objectives

BETA = 0.3
ROWS = [
    {"prompt": f"say {i}", "chosen": "thou art" + " gone" * i, "rejected": "no" * (5 - i)}
    for i in range(5)
]


@pytest.fixture
def settings(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return Settings(
        task=str(path), held_out=1, rounds=2, steps_per_round=2, batch=2, beta=BETA, cosines=1,
        lr=0.01, device="cpu", objective="dpo", max_new_tokens=9, checkpoint_every=1,
    )  # fmt: skip


def total(model, prompt, response):
    """log pi(y|x) of plain transformers."""
    ids = torch.tensor([[*prompt, *response]])
    laws = model(ids).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    return laws.gather(-1, torch.tensor(response)[:, None]).sum()


BY_HAND = {
    "dpo": lambda w, v: -logsigmoid(BETA * (w - v)),
    "ipo(margin=1)": lambda w, v: (BETA * (w - v) - 1.0) ** 2,
    "sppo": lambda w, v: (BETA * w - 0.5) ** 2 + (BETA * v + 0.5) ** 2,
}


@pytest.mark.parametrize("objective", BY_HAND)
def test_loss_and_gradient_by_hand(objective, settings, tmp_path):
    given = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    made = prepare.prepare(Settings(**given | {"objective": objective}))
    parts = training.assemble(made.settings, tmp_path, made.language, made.task)
    state = State(training.new_optimiser(parts), round=0)
    parts.store.keep("base")
    model = parts.player.language.model
    start = copy.deepcopy(model)
    training.sample_and_score(parts, state)
    with torch.no_grad():
        for parameter in model.parameters():  # away from the start, where the loss is a constant
            parameter.add_(0.05 * torch.randn_like(parameter))
    chosen = [0, 2, 3]
    loss = training.accumulate(parts, state.data, chosen, parts.objective)
    found = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    by_hand = torch.zeros(())
    for i in chosen:
        item = state.data.items[i]
        ratios = [
            total(model, item.prompt, side[0].tokens)
            - total(start, item.prompt, side[0].tokens).detach()
            for side in (item.expert, item.own)
        ]
        by_hand = by_hand + BY_HAND[objective](*ratios) / len(chosen)
    by_hand.backward()
    assert loss == pytest.approx(float(by_hand.detach()), rel=1e-5)
    for mine, theirs in zip(found, (p.grad for p in model.parameters()), strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-3, atol=2e-6)
    assert max(float(g.abs().max()) for g in found) > 1e-3


def test_the_first_loss_of_dpo_is_ln_2_and_nothing_is_sampled_to_train(
    settings, tmp_path, monkeypatch
):
    sampled, real = set(), Player.sample

    def sample(self, prompts, noise, what, *more):
        sampled.add(what)
        return real(self, prompts, noise, what, *more)

    monkeypatch.setattr(Player, "sample", sample)
    said = []
    run_folder.run(settings, tmp_path / "run", said.append)
    assert sampled == {"held-out responses"}
    steps = read(tmp_path / "run").steps
    for first in (0, 2):  # of both rounds: the opponent is pi_t as it enters
        assert steps[first]["loss"] == pytest.approx(0.6931472, abs=1e-5)
        assert steps[first + 1]["loss"] < 0.68
    assert "given pairs of winner and loser" in said[0]
    assert "given pairs " in next(text for text in said if text.startswith("round"))
    recorded = read(tmp_path / "run").settings
    assert (recorded["data"], recorded["prompts"]) == ("pairs", 4)


def test_a_run_on_given_pairs_goes_on_bit_for_bit(settings, tmp_path, interrupt, monkeypatch):
    run_folder.run(settings, tmp_path / "whole", lambda text: None)
    interrupt(4)
    with pytest.raises(KeyboardInterrupt):
        run_folder.run(settings, tmp_path / "torn", lambda text: None)
    monkeypatch.undo()
    said = []
    run_folder.run(settings, tmp_path / "torn", said.append)
    assert any("resumed" in text for text in said)
    names = ("metrics.jsonl", "final/model.safetensors", "settings.json")
    for name in names:
        assert (tmp_path / "torn" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_round_of_given_pairs_is_kept_as_tensors(settings, tmp_path):
    made = prepare.prepare(settings)
    parts = training.assemble(made.settings, tmp_path, made.language, made.task)
    state = State(training.new_optimiser(parts), round=0)
    parts.store.keep("base")
    training.sample_and_score(parts, state)
    again = restore(state.data.tensors())
    assert isinstance(again, GivenPairs)
    assert again.items == state.data.items
    assert torch.equal(again.share, state.data.share)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"own_samples": 2}, "own_samples=2 must be 1"),
        ({"expert_samples": 2}, "expert_samples=2 must be 1"),
        ({"oracle": "bradley-terry", "own_samples": 2}, "says who won: oracle must be none"),
        ({"level": "token"}, "level must be sequence"),
        ({"task": "phrases"}, "is for a file"),
        ({"history": 0.5}, "data must be responses"),
    ],
)
def test_what_does_not_go_with_given_pairs(settings, given, expected):
    values = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    found = combinations.combination_problems(Settings(**values | {"data": "pairs"} | given))
    assert any(expected in problem for problem in found), found


def test_the_file_decides_and_its_meaning_is_checked(settings):
    """`auto` is pairs here, whatever else was asked for."""
    values = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    with pytest.raises(ValueError, match="own_samples=2 must be 1, or data responses"):
        prepare.prepare(Settings(**values | {"own_samples": 2}))


@pytest.mark.parametrize("opponent", ["last", "base"])
def test_how_held_out_pairs_are_ordered(settings, tmp_path, opponent):
    """Margin and share of the right order, from rewards by hand; a pair of equals is half."""
    values = {f: getattr(settings, f) for f in settings.__dataclass_fields__}
    made = prepare.prepare(Settings(**values | {"opponent": opponent}))
    player = Player(made.language, made.settings, made.machine)
    base = weights.copy_of(made.language)
    moved = copy.deepcopy(made.language.model)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    start = Player(Language(moved, made.language.tokenizer), made.settings, made.machine)
    last = copy.deepcopy(moved)
    with torch.no_grad():
        for parameter in last.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    after = Player(Language(last, made.language.tokenizer), made.settings, made.machine)
    items = list(made.task.pairs)
    items[0] = dataclasses.replace(items[0], own=items[0].expert)
    against = moved if opponent == "last" else player.language.model
    with torch.no_grad():
        rewards = [
            [
                float(total(last, i.prompt, s[0].tokens) - total(against, i.prompt, s[0].tokens))
                for s in (i.expert, i.own)
            ]
            for i in items
        ]
    by_hand = [BETA * (w - v) for w, v in rewards]
    game = RewardTerms(objectives.get("dpo"), BETA)
    row = preferences.on_given_pairs(after, start, game, items, base)
    assert row["given_margin"] == pytest.approx(sum(by_hand) / 5, rel=1e-4)
    right = sum(m > 0 for m in by_hand[1:]) + 0.5
    assert row["given_accuracy"] == pytest.approx(right / 5)
