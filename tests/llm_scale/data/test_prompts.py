"""Text to tokens: one start, no control from a user's text, no unknown word, no other day."""

import datetime

import pytest
from tokenizers import Tokenizer, pre_tokenizers
from tokenizers import models as kinds
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from llm_scale.data import prompts
from llm_scale.data.formats import Turn
from llm_scale.data.prompts import check_style, encode_response, format_prompt, today
from llm_scale.models import byte_tokenizer
from theory.errors import InvalidInput

TURNS = (Turn("system", "be kind"), Turn("user", "hi"), Turn("assistant", "yes"), Turn("user", "?"))
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


@pytest.fixture
def tokenizer():
    made = byte_tokenizer(["in the beginning"], 260)
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    made.add_tokens(["<think>"])
    made.chat_template = CHATML
    return made


@pytest.fixture
def words():
    """Whole words, <unk> for others, and <s> written before whatever is encoded."""
    known = {w: i for i, w in enumerate(["<s>", "</s>", "<unk>", "User:", "Assistant:", "a", "b"])}
    core = Tokenizer(kinds.WordLevel(known, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def test_the_whole_conversation_goes_through_the_template(tokenizer):
    assert tokenizer.decode(format_prompt(tokenizer, TURNS)) == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
        "<|im_start|>assistant\nyes<|im_end|>\n<|im_start|>user\n?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


@pytest.mark.parametrize("style", ["plain", "auto"])
def test_turns_without_a_template(style):
    """The tiny model's own template writes them as the plain style does."""
    tokenizer = byte_tokenizer(["in the beginning"], 260)
    said = "System: be kind\nUser: hi\nAssistant: yes\nUser: ?\nAssistant:\n"
    assert tokenizer.decode(format_prompt(tokenizer, TURNS, style)) == said
    assert tokenizer.decode(format_prompt(tokenizer, "hi", style)) == "hi\n"


@pytest.mark.parametrize("template", [None, "{{ bos_token }} {{ messages[0]['content'] }}"])
def test_one_start_of_text(words, template):
    """The tokenizer would write another before a template's own."""
    words.chat_template = template
    assert words("a")["input_ids"] == [0, 5]
    assert format_prompt(words, "a b") == [0, 5, 6]
    assert encode_response(words, "b a", 9) == ([6, 5, 1], False)


@pytest.mark.parametrize(
    ("text", "token"), [("hi<|im_end|>", "<|im_end|>"), ("<|im_start|>x", "<|im_start|>")]
)
@pytest.mark.parametrize("role", ["user", "system", "assistant"])
def test_control_in_a_user_s_text(tokenizer, text, token, role):
    turns = [Turn(role, text), Turn("user", "b")]
    name = "prompt" if role == "user" else f"{role} turn"
    with pytest.raises(InvalidInput) as seen:
        format_prompt(tokenizer, turns)
    assert seen.value.problems[0].startswith(f"{name} {text!r} has the special token {token!r}")


@pytest.mark.parametrize("text", ["a<|im_start|>b", "<|im_end|>"])
def test_control_in_a_response(tokenizer, text):
    with pytest.raises(InvalidInput, match=r"response '.*' has the special token '<\|im_"):
        encode_response(tokenizer, text, 9)


def test_the_end_token_in_a_prompt(tokenizer):
    with pytest.raises(InvalidInput, match="prompt 'a</s>b' has the special token '</s>' within"):
        format_prompt(tokenizer, "a</s>b")


def test_added_tokens_that_are_no_control_are_text(tokenizer):
    ids, _ = encode_response(tokenizer, "<think>", 9)
    assert ids == [tokenizer.convert_tokens_to_ids("<think>"), tokenizer.eos_token_id]


def test_tokens_that_become_special_later_are_control(tokenizer):
    format_prompt(tokenizer, "<|new|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|new|>"]})
    with pytest.raises(InvalidInput, match=r"'<\|new\|>' within"):
        format_prompt(tokenizer, "<|new|>")


def test_unknown_words_are_named(words):
    with pytest.raises(InvalidInput, match=r"does not know 'x', 'y', 'z' and 1 more$"):
        format_prompt(words, "a x y x b z w")
    with pytest.raises(InvalidInput, match="response 'q': the tokenizer does not know 'q'"):
        encode_response(words, "q", 9)
    with pytest.raises(InvalidInput, match="has the special token '<unk>' within"):
        format_prompt(words, "a <unk>")
    check_style(words, "auto")  # its own words need not be known


def test_half_of_a_surrogate_pair(tokenizer):
    with pytest.raises(InvalidInput, match="has half of a surrogate pair"):
        format_prompt(tokenizer, "caf\udce9")


@pytest.mark.parametrize(
    ("template", "turns", "expected"),
    [
        ("{{ messages[0]['content'] }}", TURNS, "leaves out or changes the user's turn 'hi'"),
        ("{{ messages[-1]['content'] }}", TURNS, "leaves out or changes the system's turn 'be k"),
        ("{{ raise_exception('roles') }}", TURNS, "chat template fails .*roles.*; use plain"),
        ("{# nothing #}", "hi", "prompt 'hi' is formatted to nothing"),
    ],
)
def test_templates_that_do_not_write_the_prompt(tokenizer, template, turns, expected):
    tokenizer.chat_template = template
    with pytest.raises(InvalidInput, match=expected):
        format_prompt(tokenizer, turns)


def test_a_template_that_shortens_what_was_thought_is_one(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}{{ m['content'].split('</think>')[-1] + ' ' }}{% endfor %}"
    )
    turns = (Turn("user", "a"), Turn("assistant", "(why)</think>b"), Turn("user", "c"))
    assert tokenizer.decode(format_prompt(tokenizer, turns)) == "a b c "


def test_a_template_with_today_s_date_writes_the_day_that_it_is_told(tokenizer, monkeypatch):
    """As that of Llama 3.2: the call within a condition, its format in either quotes."""
    tokenizer.chat_template = (
        '{% if strftime_now is defined %}{% set day = strftime_now("%d %b %Y") %}{% endif %}'
        "{{ day + strftime_now( '/%Y' ) + ': ' + messages[0]['content'] }}"
    )
    told = format_prompt(tokenizer, "hi", date="2024-02-01")
    assert tokenizer.decode(told) == "01 Feb 2024/2024: hi"
    now = datetime.date.today().isoformat()
    assert today(tokenizer, "auto") == now
    assert today(tokenizer, "plain") == ""
    assert format_prompt(tokenizer, "hi", date=now) == format_prompt(tokenizer, "hi")
    tokenizer.chat_template = CHATML
    assert today(tokenizer, "auto") == ""
    assert prompts.has_template(tokenizer)
