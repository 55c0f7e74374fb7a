"""A response ends where its model says; what disagrees is said aloud."""

import dataclasses
import json

import pytest
import torch
from transformers import AutoTokenizer, GenerationConfig

from lab import streams
from llm_scale import models
from llm_scale.data import ends
from llm_scale.data.prompts import encode_response
from llm_scale.measure.held_out import random_response
from llm_scale.models.player import Machine, Player
from llm_scale.models.sample import generate
from llm_scale.settings import Settings
from tests.llm_scale.commands import call, metrics
from theory.errors import InvalidInput

CPU = torch.device("cpu")
TURN = (
    "{% for m in messages %}{{ '<s>' + m['role'] + '\n' + m['content'] + ' <e>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant\n' }}{% endif %}"
)
TEXTS = ["a light", "in the beginning", "and there was light"]


@pytest.fixture
def chat():
    """Bytes, </s> and the tokens of a template whose turn ends with another one."""
    tokenizer = models.byte_tokenizer(TEXTS, size=262)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<s>", "<e>"]})
    tokenizer.chat_template = TURN
    return tokenizer


def number(tokenizer, text):
    return tokenizer.convert_tokens_to_ids(text)


@pytest.fixture
def saved(chat, tmp_path):
    """A directory, and what is in it changed by a function of the language."""

    def build(change=lambda language: None):
        language = models.tiny(chat, 0, CPU, width=16, layers=1, heads=2)
        change(language)
        models.save(language, tmp_path / "model")
        return tmp_path / "model"

    return build


def test_the_end_of_a_template_is_the_token_after_an_answer(chat):
    assert ends.of_template(chat) == number(chat, "<e>")
    for template in (None, "{{ messages[0]['content'] }}", "{{ raise_exception('no') }}"):
        chat.chat_template = template
        assert ends.of_template(chat) is None
    chat.chat_template = "{{ messages[1]['content'] }} and so on<e>"
    assert ends.of_template(chat) is None, "a piece of text comes first"


def test_ends_that_disagree_are_all_ends_and_are_named(chat, saved):
    said = []
    language = models.load(saved(), torch.float32, CPU, say=said.append)
    turn, plain = number(chat, "<e>"), chat.eos_token_id
    assert language.ends == (turn, plain)
    assert language.eos == turn
    (line,) = said
    assert "template writes '<e>', the tokenizer's EOS is '</s>', the model declares '</s>'" in line
    assert "expert responses end with '<e>', own ones with any of '<e>', '</s>'" in line
    assert language.model.generation_config.eos_token_id == [turn, plain], "saved with the model"
    said.clear()
    assert models.load(saved(), torch.float32, CPU, "plain", said.append).ends == (plain,)
    assert said == []


def test_a_list_in_the_generation_config_ends_too(chat, saved):
    def several(language):
        language.model.generation_config.eos_token_id = [number(chat, "<s>"), 0, 77]

    said = []
    language = models.load(saved(several), torch.float32, CPU, say=said.append)
    assert language.ends == tuple(number(chat, t) for t in ("<e>", "</s>", "<s>"))
    assert "is a piece of text and is no end" in said[0]


def test_ends_that_agree_are_not_mentioned(tmp_path):
    tokenizer = models.byte_tokenizer(TEXTS, size=262)
    models.save(models.tiny(tokenizer, 0, CPU, width=16, layers=1, heads=2), tmp_path)
    said = []
    assert models.load(tmp_path, torch.float32, CPU, say=said.append).ends == (0,)
    assert said == []


def test_own_responses_end_at_any_end_and_expert_ones_at_the_first(chat):
    model = models.tiny(chat, 0, CPU, width=16, layers=1, heads=2).model
    both = (number(chat, "<e>"), number(chat, "<s>"))
    with torch.no_grad():  # each end has a tenth of the law
        weight = model.get_output_embeddings().weight
        weight.zero_()
        weight[list(both), 0] = 1.0
        model.model.norm.weight.fill_(0.0)
    drawn, _ = generate([model], [(5, 6)] * 400, lambda i: streams.uniform(9, 0, "own", i), 9, both)
    for response in drawn:
        last = response.tokens[-1]
        assert response.truncated == (last not in both)
        assert not set(both) & set(response.tokens[:-1])
    assert {r.tokens[-1] for r in drawn if not r.truncated} == set(both)
    ids, cut = encode_response(chat, "a light", 20, both)
    assert (ids[-1], cut) == (both[0], False)
    with pytest.raises(InvalidInput, match="end token '<s>' within"):
        encode_response(chat, "a<s>light", 20, both)


@pytest.mark.parametrize("template", [TURN, None])
def test_a_tokenizer_without_end_takes_the_models_or_the_templates(saved, template):
    path = saved()
    settings = json.loads((path / "tokenizer_config.json").read_text())
    settings.pop("eos_token")
    settings.pop("pad_token")
    (path / "tokenizer_config.json").write_text(json.dumps(settings))
    if template is None:
        (path / "chat_template.jinja").unlink()
    language = models.load(path, torch.float32, CPU)
    assert language.tokenizer.eos_token_id is None
    end = number(language.tokenizer, "</s>" if template is None else "<e>")
    assert language.eos == end
    assert call("generate", path, "a", "--max-new-tokens=3", "--device=cpu").exit_code == 0


def test_options_that_change_the_law_are_ignored_aloud_and_can_be_saved(saved, tmp_path):
    path = saved()
    options = GenerationConfig(eos_token_id=0, temperature=0.6, top_p=0.9, repetition_penalty=1.0)
    content = {k: v for k, v in options.to_dict().items() if v is not None}
    (path / "generation_config.json").write_text(json.dumps(content))
    said = []
    language = models.load(path, torch.float32, CPU, "plain", said.append)
    (line,) = said
    assert "generation_config.json: temperature=0.6, top_p=0.9; responses are samples" in line
    models.save(language, tmp_path / "again")


def test_named_chat_templates_come_through_a_run_and_its_resumption(saved, tmp_path, interrupt):
    def named(language):
        language.tokenizer.chat_template = {"default": TURN, "tool_use": "tools"}

    path, data = saved(named), tmp_path / "pairs.jsonl"
    lines = [{"prompt": f"say {i}", "response": "a light"} for i in range(6)]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    arguments = (
        "train", f"--model={path}", f"--task={data}", "--out", tmp_path / "run", "--held-out=2",
        "--batch=2", "--prompts=4", "--rounds=1", "--steps-per-round=2", "--sft-steps=2",
        "--cosines=0", "--device=cpu", "--max-new-tokens=10",
    )  # fmt: skip
    interrupt(4)
    call(*arguments, code=130)
    assert "resumed from" in call(*arguments).output
    final = tmp_path / "run" / "final"
    assert (final / "additional_chat_templates" / "tool_use.jinja").is_file()
    loaded = AutoTokenizer.from_pretrained(final, local_files_only=True)
    assert set(loaded.chat_template) == {"default", "tool_use"}
    assert len(metrics(tmp_path / "run")) > 3


def test_random_responses_have_one_end_and_it_is_last(chat):
    settings = Settings(max_new_tokens=30, device="cpu")
    language = models.tiny(chat, 0, CPU, width=16, layers=1, heads=2)
    several = dataclasses.replace(language, ends=(number(chat, "<e>"), 0, 7))
    player = Player(several, settings, Machine(CPU, torch.float32))
    seen = set()
    for ident in range(200):
        *words, last = random_response(player, ident).tokens
        assert last == number(chat, "<e>")
        seen |= set(words)
    assert seen == set(range(len(chat))) - set(several.ends)
