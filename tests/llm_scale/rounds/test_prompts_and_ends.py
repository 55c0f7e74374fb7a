"""Prompts, ends and lengths: the same for sampling, for training and for plain transformers."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lab import streams
from llm_scale import models
from llm_scale import train as training
from llm_scale.data.items import Item, Response
from llm_scale.data.prompts import format_prompt
from llm_scale.data.user_file import pair_file
from llm_scale.launch import prepare
from llm_scale.launch.evaluate import Opened, responses
from llm_scale.models import score
from llm_scale.models.player import Player
from llm_scale.models.sample import generate
from llm_scale.rounds.sequence import Round
from tests.llm_scale.rounds.small import SMALL
from theory import objectives


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    """A byte-level model whose pad is its EOS, with a chat template that says something."""
    path = tmp_path_factory.mktemp("model")
    texts = ["thou art gone", "he said unto them", "and they went out"] * 3
    tokenizer = models.byte_tokenizer(texts, 270)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}:"
    models.save(models.tiny(tokenizer, 3, torch.device("cpu"), width=16, layers=1), path)
    return path


@pytest.mark.parametrize("style", ["chat", "plain", "auto"])
def test_one_prompt_format_for_generation_and_for_training(directory, style, tmp_path, monkeypatch):
    """What the sampler sees, what the loss sees and what `generate` sees is the same text."""
    path = tmp_path / "pairs.jsonl"
    rows = [{"prompt": f"say {i}", "response": "thou art gone"} for i in range(6)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = dataclasses.replace(
        SMALL, model=str(directory), task=str(path), prompt_style=style, batch=2, max_new_tokens=5
    )
    made = prepare.prepare(settings)
    sampled, scored = set(), set()
    real_sample, real_collate = Player.sample, score.collate
    monkeypatch.setattr(
        Player,
        "sample",
        lambda s, p, *a, **k: sampled.update(map(tuple, p)) or real_sample(s, p, *a, **k),
    )

    def collate(pairs, device):
        scored.update(p for p, _ in pairs)
        return real_collate(pairs, device)

    monkeypatch.setattr(score, "collate", collate)
    training.train(training.assemble(settings, tmp_path, made.language, made.task))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    text = {"plain": "say {}\n"}.get(style, "<user> say {} :")
    expected = {tuple(tokenizer(text.format(i))["input_ids"]) for i in range(6)}
    assert sampled == scored == expected
    sampled.clear()
    opened = Opened(Player(made.language, settings, made.machine), settings, "")
    responses(opened, [row["prompt"] for row in rows], 1, 0)
    assert sampled == expected


def test_the_known_expert_s_prompts_are_formatted_as_a_user_s(task):
    words = task.tokenizer.decode(task.prompts[0])
    assert tuple(format_prompt(task.tokenizer, words)) == task.prompts[0]


def test_a_response_that_is_cut_is_trained_without_an_eos(directory, tmp_path):
    path = tmp_path / "pairs.jsonl"
    texts = ["go", "thou art gone and they went out"]
    path.write_text("".join(json.dumps({"prompt": "say", "response": t}) + "\n" for t in texts))
    tokenizer = AutoTokenizer.from_pretrained(directory)
    settings = dataclasses.replace(SMALL, task=str(path), max_new_tokens=6)
    short, long = pair_file(path, tokenizer, settings).pairs
    assert short.expert[0] == Response(
        (*tokenizer("go")["input_ids"], tokenizer.eos_token_id), False
    )
    assert long.expert[0] == Response(tuple(tokenizer(texts[1])["input_ids"][:6]), True)
    exact = dataclasses.replace(settings, max_new_tokens=len(short.expert[0].tokens) - 1)
    cut = pair_file(path, tokenizer, exact).pairs[0].expert[0]
    assert cut == Response(tuple(tokenizer("go")["input_ids"]), True), "its EOS itself is cut off"


def test_length_is_not_normalised(directory):
    """IPO on sums of token log-probabilities, of plain transformers, at unequal lengths."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    winner, loser = (5, 9, 11, 40, 8, 0), (7, 0)
    item = Item(0, (1, 2), (Response(winner, False),), (Response(loser, False),))
    stored = torch.tensor([-30.0, -12.0])
    data = Round([item], stored, stored, torch.empty(0))
    objective, beta = objectives.get("ipo", margin=0.5), 0.3

    def total(response):
        ids = torch.tensor([[1, 2, *response]])
        with torch.no_grad():
            laws = model(input_ids=ids).logits[0].log_softmax(-1)
        return sum(float(laws[1 + i, t]) for i, t in enumerate(response))

    scorer = score.Scorer(model)
    found = float(training.losses(objective, data, data.log_probs(scorer), beta, 0.0).detach())
    margin = beta * ((total(winner) + 30.0) - (total(loser) + 12.0))
    assert found == pytest.approx((margin - 0.5) ** 2, rel=1e-5)


def test_an_eos_that_also_pads_is_learned_and_seen(directory):
    """Masks are lengths: EOS is a target where it ends a response, and a token in a prompt."""
    model = AutoModelForCausalLM.from_pretrained(directory)
    eos = model.config.eos_token_id
    assert model.config.pad_token_id == eos
    scorer = score.Scorer(model)
    pairs = [((3, eos, 4), (5, 6, eos)), ((eos, eos, 2, 7, 9), (8,))]
    both = score.sequence_log_probs(scorer, pairs)
    for (prompt, response), found in zip(pairs, both, strict=True):
        with torch.no_grad():
            laws = model(input_ids=torch.tensor([[*prompt, *response]])).logits[0].log_softmax(-1)
        at = range(len(prompt) - 1, len(prompt) + len(response) - 1)
        parts = [float(laws[i, t]) for i, t in zip(at, response, strict=True)]
        assert float(found.detach()) == pytest.approx(sum(parts), abs=1e-5)
    both[0].backward()
    gradient = model.get_input_embeddings().weight.grad[eos]
    assert float(gradient.abs().max()) > 0


def test_prompts_with_the_padding_s_token_are_sampled_as_when_alone(directory):
    model = AutoModelForCausalLM.from_pretrained(directory)
    eos = model.config.eos_token_id
    prompts = [(eos, 3), (4, eos, eos, 9, 7), (6,), (eos,)] * 3

    def number(i):
        return streams.uniform(6, 0, "own", 0, i)

    whole, _ = generate([model], prompts, number, 6, (eos,))
    alone = [
        generate([model], [p], lambda _, i=i: number(i), 6, (eos,))[0][0]
        for i, p in enumerate(prompts)
    ]
    assert whole == alone
