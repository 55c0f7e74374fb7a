"""Rows to conversations, each format as its own documentation writes it."""

from pathlib import Path

import pytest

from llm_scale.data.formats import Example, Turn, conversations
from llm_scale.data.records import Records
from theory.errors import InvalidInput

COLOUR, BLUE, GREEN = "What color is the sky?", "It is blue.", "It is green."
SYSTEM = "You are helpful."


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def spoken(*turns):
    return tuple(Turn(*turn) for turn in turns)


def read(*rows, problems=()):
    numbered = tuple(enumerate(rows, 1))
    return conversations(Records(Path("p.jsonl"), "JSON lines", numbered, tuple(problems)))


ASKED = spoken(("user", COLOUR))
HISTORY = [system(SYSTEM), user("Hi"), assistant("Hello."), user(COLOUR)]
LONG = spoken(("system", SYSTEM), ("user", "Hi"), ("assistant", "Hello."), ("user", COLOUR))
SAME = [user(COLOUR), assistant(BLUE)]
OTHER = [user(COLOUR), assistant(GREEN)]
GOOD = {
    "own": ({"prompt": COLOUR, "response": BLUE}, "prompt/response", ASKED, BLUE, None),
    # TRL: dataset formats, prompt-completion
    "TRL text": (
        {"prompt": "The sky is", "completion": " blue."},
        "prompt/completion", spoken(("user", "The sky is")), " blue.", None,
    ),
    "TRL turns": (
        {"prompt": [user(COLOUR)], "completion": [assistant(BLUE)]},
        "prompt/completion", ASKED, BLUE, None,
    ),
    "turns of several": (
        {"prompt": HISTORY, "completion": [assistant(BLUE)]},
        "prompt/completion", LONG, BLUE, None,
    ),
    # TRL: language modeling, conversational; OpenAI's fine-tuning files
    "messages": ({"messages": SAME}, "messages", ASKED, BLUE, None),
    "messages of several": (
        {"messages": [*HISTORY, assistant(BLUE)], "prompt": COLOUR, "prompt_id": "7"},
        "messages", LONG, BLUE, None,
    ),
    "an empty system turn": ({"messages": [system(""), *SAME]}, "messages", ASKED, BLUE, None),
    "Alpaca": (
        {"instruction": "Add.", "input": "1 + 1", "output": "2"},
        "instruction/input/output", spoken(("user", "Add.\n\n1 + 1")), "2", None,
    ),
    "Alpaca, empty input": (
        {"instruction": "Sing.", "input": "", "output": "La."},
        "instruction/input/output", spoken(("user", "Sing.")), "La.", None,
    ),
    "Alpaca, no input": (
        {"instruction": "Sing.", "output": "La."},
        "instruction/input/output", spoken(("user", "Sing.")), "La.", None,
    ),
    "ShareGPT": (
        {
            "id": "x",
            "conversations": [
                {"from": "system", "value": SYSTEM},
                {"from": "human", "value": "Hi"},
                {"from": "gpt", "value": "Hello."},
                {"from": "human", "value": COLOUR},
                {"from": "gpt", "value": BLUE},
            ],
        },
        "conversations", LONG, BLUE, None,
    ),
    # SPIN: README, "Data"; the first iteration's generated side is empty
    "SPIN": ({"real": SAME, "generated": OTHER}, "real/generated", ASKED, BLUE, GREEN),
    "SPIN before generation": (
        {"real": SAME, "generated": [user(COLOUR), assistant("")]},
        "real/generated", ASKED, BLUE, None,
    ),
    "SPIN without": ({"real": SAME}, "real/generated", ASKED, BLUE, None),
    # TRL: preference, standard and conversational, explicit and implicit prompts
    "TRL pair of texts": (
        {"prompt": "The sky is", "chosen": " blue.", "rejected": " green."},
        "prompt/chosen/rejected", spoken(("user", "The sky is")), " blue.", " green.",
    ),
    "TRL pair of turns": (
        {"prompt": [user(COLOUR)], "chosen": [assistant(BLUE)], "rejected": [assistant(GREEN)]},
        "prompt/chosen/rejected", ASKED, BLUE, GREEN,
    ),
    "TRL implicit prompt": (
        {"chosen": SAME, "rejected": OTHER}, "prompt/chosen/rejected", ASKED, BLUE, GREEN,
    ),
    "implicit, several turns": (
        {"chosen": [*HISTORY, assistant(BLUE)], "rejected": [*HISTORY, assistant(GREEN)]},
        "prompt/chosen/rejected", LONG, BLUE, GREEN,
    ),
    # UltraFeedback, binarized: the prompt as text, and again within both sides
    "the prompt twice": (
        {"prompt": COLOUR, "chosen": SAME, "rejected": OTHER, "messages": SAME, "score": 1.0},
        "prompt/chosen/rejected", ASKED, BLUE, GREEN,
    ),
    "the prompt as the end of the turns": (
        {
            "prompt": COLOUR,
            "chosen": [*HISTORY, assistant(BLUE)],
            "rejected": [*HISTORY, assistant(GREEN)],
        },
        "prompt/chosen/rejected", LONG, BLUE, GREEN,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_formats(name):
    row, kind, prompt, response, rejected = GOOD[name]
    found = read(row)
    assert found.problems == ()
    assert found.examples == (Example(1, prompt, response, rejected),)
    assert (found.format, found.preferences) == (kind, kind == "prompt/chosen/rejected")


def test_fields_that_are_not_read_are_named():
    assert read(GOOD["the prompt twice"][0]).unread == ("messages", "score")


BAD = {
    "no response": ({"prompt": "a", "answer": "b"}, "no 'response'; it has 'prompt', 'answer'"),
    "nothing": ({}, "no 'prompt', no 'response'; it has nothing"),
    "no winner": ({"prompt": "a", "rejected": "b"}, "no 'chosen'; it has 'prompt', 'rejected'"),
    "not text": ({"prompt": "a", "response": 3}, "'response' is an int; needed is text"),
    "blank": ({"prompt": " ", "response": "b"}, "'prompt' is empty"),
    "half a character": ({"prompt": "a", "response": "\ud83d"}, "'response' has half"),
    "the user is last": ({"messages": [*SAME, user("?")]}, "'messages' ends with 'user'"),
    "nobody asked": (
        {"messages": [system(SYSTEM), assistant("a")]},
        "'messages': before the response comes 'system'; needed is a turn of the user",
    ),
    "no turns": ({"messages": []}, "'messages' is empty; needed is a list of turns"),
    "turns as text": ({"messages": "a"}, "'messages' is a str; needed is a list of turns"),
    "a turn as text": ({"messages": ["a"]}, "turn 1 of 'messages' is a str"),
    "a tool": (
        {"messages": [user("a"), {"role": "tool", "content": "b"}, assistant("c")]},
        "turn 2 of 'messages' has role 'tool'; needed is one of user, human",
    ),
    "calls": (
        {"messages": [user("a"), {"role": "assistant", "content": None, "tool_calls": [1]}]},
        "turn 2 of 'messages' calls tools",
    ),
    "no content": (
        {"messages": [user("a"), {"role": "assistant"}]},
        r"turn 2 of 'messages' \(assistant\) is null; needed is text",
    ),
    "empty response": (
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}]},
        r"turn 2 of 'conversations' \(assistant\) is empty",
    ),
    "two turns complete": ({"prompt": "a", "completion": SAME}, "'completion' has 2 turns; needed"),
    "the prompt answers": (
        {"prompt": [assistant("a")], "completion": "b"}, "'prompt': before the response comes 'ass",
    ),
    "prompts differ": (
        {"chosen": SAME, "rejected": [user("?"), assistant(GREEN)]}, "differ before their last tur",
    ),
    "another prompt": (
        {"prompt": "Why?", "chosen": SAME, "rejected": OTHER}, "'chosen' begins with other turns",
    ),
    "texts without a prompt": (
        {"chosen": "a b", "rejected": "a c"},
        "no 'prompt', and 'chosen' is text: it does not say where the response begins",
    ),
    "SPIN's prompts differ": (
        {"real": SAME, "generated": [user("?"), assistant("b")]}, "'real' and 'generated' answer d",
    ),
    "input is no text": ({"instruction": "a", "input": 1, "output": "b"}, "'input' is an int"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_rows_that_are_none(name):
    row, expected = BAD[name]
    found = read(row)
    assert found.examples == ()
    assert [line for line, _ in found.problems] == [1]
    with pytest.raises(InvalidInput, match=expected):
        raise InvalidInput(found.problems[0][1])


def test_all_problems_of_a_mixed_file_in_the_order_of_its_lines():
    good = {"prompt": "a", "response": "b"}
    found = read(
        good, {"messages": SAME}, {"prompt": "", "response": 1}, good, problems=[(9, "not JSON")]
    )
    assert [e.line for e in found.examples] == [1, 4]
    assert found.problems == (
        (2, "no 'prompt', no 'response'; it has 'messages'; a row of messages in a file of "
            "prompt/response"),
        (3, "'prompt' is empty"), (3, "'response' is an int; needed is text"), (9, "not JSON"),
    )  # fmt: skip


def test_a_file_without_rows():
    with pytest.raises(InvalidInput, match="no lines in it; needed are objects with prompt and"):
        read()
