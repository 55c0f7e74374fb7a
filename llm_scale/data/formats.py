"""From rows to conversations: the formats in which people keep what models are trained on.

prompt/response, TRL's prompt/completion (texts or turns) and prompt/chosen/rejected (with the
prompt beside or within), messages, ShareGPT's conversations, Alpaca's instruction/input/output,
SPIN's real/generated. A text as a prompt is one turn of the user.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from llm_scale.data.records import Problem, Records, Row, read_records
from theory.errors import InvalidInput, refuse
from theory.files import HALF_PAIR, kind_of

T = TypeVar("T")
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"
ROLES = {
    "user": USER, "human": USER, "assistant": ASSISTANT, "gpt": ASSISTANT, "system": SYSTEM,
}  # fmt: skip
"""Names of who speaks, as OpenAI's messages and ShareGPT write them."""


class Turn(NamedTuple):
    """What one side says: "system", "user" or "assistant"."""

    role: str
    content: str


Turns = tuple[Turn, ...]


class Example(NamedTuple):
    """A row as a conversation.

    Attributes:
        line: its line, or its number where rows have no line of their own.
        prompt: what comes before the response.
        response: the assistant's, or the preferred one.
        rejected: the response that is not preferred; None where the row has none.
    """

    line: int
    prompt: Turns
    response: str
    rejected: str | None = None


@dataclass(frozen=True)
class Examples:
    """The conversations of a file.

    Attributes:
        records: the file. format: what its rows are, in words.
        examples: of good rows. problems: (line, reason) of the others.
        unread: fields that rows have and the format does not.
        preferences: whether every row is meant as a winner and a loser.
    """

    records: Records
    format: str
    examples: tuple[Example, ...]
    problems: tuple[Problem, ...]
    unread: tuple[str, ...]
    preferences: bool


class Parts(NamedTuple):
    """An example without its place."""

    prompt: Turns
    response: str
    rejected: str | None = None


@dataclass(frozen=True)
class Format:
    """A way to write an example.

    Attributes:
        name: in words. keys: fields that a row must have. optional: others that are read.
        read: fields to an example; ValueError or InvalidInput: why they are none.
    """

    name: str
    keys: tuple[str, ...]
    read: Callable[[Mapping[str, Any]], Parts]
    optional: tuple[str, ...] = ()

    def fits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has the fields."""
        return all(key in row for key in self.keys)


def read_examples(path: Path) -> Examples:
    """The conversations of a file. InvalidInput: it cannot be read at all, or has no row."""
    return conversations(read_records(path))


def conversations(records: Records) -> Examples:
    """Rows as conversations, in the first format that a row fits; rows that do not are problems.

    InvalidInput: there is no row.
    """
    if not records.rows and not records.problems:
        raise InvalidInput(
            f"{records.path}: no lines in it; needed are objects with prompt and response, or "
            f"another of {', '.join(f.name for f in FORMATS)}"
        )
    chosen = format_of(records.rows)
    examples, problems = [], list(records.problems)
    for line, row in records.rows:
        try:
            examples.append(Example(line, *_read(chosen, row)))
        except InvalidInput as error:
            problems += [(line, problem) for problem in error.problems]
        except ValueError as error:
            problems.append((line, str(error)))
    known = {*chosen.keys, *chosen.optional}
    unread = dict.fromkeys(key for _, row in records.rows for key in row if key not in known)
    return Examples(
        records, chosen.name, tuple(examples), tuple(sorted(problems)), tuple(unread),
        chosen is PREFERENCES,
    )  # fmt: skip


def read_prompts(path: Path) -> tuple[Turns, ...]:
    """The prompts of a file, whose rows need no response.

    InvalidInput: it cannot be read, or file, line and reason of every bad row.
    """
    records = read_records(path)
    if not any("prompt" in row for _, row in records.rows) and records.rows:
        found = conversations(records)
        prompts, problems = [e.prompt for e in found.examples], list(found.problems)
    else:
        prompts, problems = [], list(records.problems)
        for line, row in records.rows:
            try:
                prompts.append(_read(PROMPTS, row).prompt)
            except ValueError as error:
                problems.append((line, str(error)))
    refuse((f"{records.where(n)}: {problem}" for n, problem in sorted(problems)), most=10)
    if not prompts:
        raise InvalidInput(f"{path}: no lines in it; needed are objects with prompt")
    return tuple(prompts)


def format_of(rows: Sequence[Row]) -> Format:
    """The format of the first row that fits one; else the one that the first row is nearest to."""
    for _, row in rows:
        for each in FORMATS:
            if each.fits(row):
                return each
    first = rows[0][1] if rows else {}
    return max(NEAREST, key=lambda f: len(first.keys() & {*f.keys, *f.optional}))


def _read(chosen: Format, row: Mapping[str, Any]) -> Parts:
    if not chosen.fits(row):
        null = getattr(row, "null", ())
        lacking = ", ".join(
            f"{key!r} is null" if key in null else f"no {key!r}"
            for key in chosen.keys
            if key not in row
        )
        has = ", ".join(map(repr, row)) or "nothing"
        fits = [f.name for f in FORMATS if f.fits(row)]
        other = f"; a row of {fits[0]} in a file of {chosen.name}" if fits else ""
        raise ValueError(f"{lacking}; it has {has}{other}")
    return chosen.read(row)


# -- parts of a row ------------------------------------------------------------------------------


def text_of(value: Any, name: str) -> str:
    """A text that is not blank. ValueError: what it is instead."""
    if not isinstance(value, str):
        raise ValueError(f"{name} is {kind_of(value)}; needed is text")
    if not value.strip():
        raise ValueError(f"{name} is empty")
    if HALF_PAIR.search(value):
        raise ValueError(f"{name} has half of a surrogate pair; needed is Unicode text")
    return value


def turns_of(value: Any, name: str) -> Turns:
    """Turns written with role and content, or with from and value; blank system turns are none.

    ValueError: what is wrong with one of them.
    """
    if not isinstance(value, list) or not value:
        kind = "is empty" if value == [] else f"is {kind_of(value)}"
        raise ValueError(f"{name} {kind}; needed is a list of turns with role and content")
    out = []
    for number, turn in enumerate(value, 1):
        where = f"turn {number} of {name}"
        if not isinstance(turn, dict):
            raise ValueError(f"{where} is {kind_of(turn)}; needed is role and content")
        who, what = ("from", "value") if "from" in turn else ("role", "content")
        role = ROLES.get(str(turn.get(who)))
        if role is None:
            needed = ", ".join(ROLES)
            raise ValueError(f"{where} has {who} {turn.get(who)!r}; needed is one of {needed}")
        if turn.get("tool_calls"):
            raise ValueError(f"{where} calls tools, which are not trained; leave the row out")
        content = turn.get(what)
        if role == SYSTEM and isinstance(content, str) and not content.strip():
            continue
        out.append(Turn(role, text_of(content, f"{where} ({role})")))
    return tuple(out)


def conversation_of(value: Any, name: str) -> tuple[Turns, str]:
    """What comes before the last turn, and that, which is the assistant's. ValueError: not so."""
    turns = turns_of(value, name)
    if not turns or turns[-1].role != ASSISTANT:
        last = repr(turns[-1].role) if turns else "nothing"
        raise ValueError(f"{name} ends with {last}; needed is the assistant's response")
    return turns[:-1], turns[-1].content


def prompt_of(value: Any) -> Turns:
    """A prompt as text, or as turns up to one of the user. ValueError: neither."""
    if not isinstance(value, list):
        return (Turn(USER, text_of(value, "'prompt'")),)
    return asked(turns_of(value, "'prompt'"), "'prompt'")


def asked(turns: Turns, name: str) -> Turns:
    """Turns that ask for a response. ValueError: they do not end with the user's."""
    if not turns or turns[-1].role != USER:
        last = repr(turns[-1].role) if turns else "nothing"
        raise ValueError(f"{name}: before the response comes {last}; needed is a turn of the user")
    return turns


def response_of(value: Any, name: str) -> str:
    """A response as text, or as one turn of the assistant. ValueError: neither."""
    if not isinstance(value, list):
        return text_of(value, name)
    before, response = conversation_of(value, name)
    if before:
        raise ValueError(f"{name} has {len(before) + 1} turns; needed is one of the assistant")
    return response


# -- the formats ---------------------------------------------------------------------------------


def _pair(key: str) -> Callable[[Mapping[str, Any]], Parts]:
    def read(row: Mapping[str, Any]) -> Parts:
        problems: list[str] = []
        prompt = _said(problems, lambda: prompt_of(row["prompt"]))
        response = _said(problems, lambda: response_of(row[key], repr(key)))
        if prompt is None or response is None:
            raise InvalidInput(problems)
        return Parts(prompt, response)

    return read


def _said(problems: list[str], read: Callable[[], T]) -> T | None:
    """What is read, or None and one problem more."""
    try:
        return read()
    except ValueError as error:
        problems.append(str(error))
        return None


def _messages(key: str) -> Callable[[Mapping[str, Any]], Parts]:
    def read(row: Mapping[str, Any]) -> Parts:
        before, response = conversation_of(row[key], repr(key))
        return Parts(asked(before, repr(key)), response)

    return read


def _alpaca(row: Mapping[str, Any]) -> Parts:
    """The instruction, a blank line and the input (where there is one) are the user's turn."""
    instruction = text_of(row["instruction"], "'instruction'")
    given = row.get("input", "")
    if isinstance(given, str) and not given.strip():
        whole = instruction
    else:
        whole = instruction + "\n\n" + text_of(given, "'input'")
    return Parts((Turn(USER, whole),), text_of(row["output"], "'output'"))


def _spin(row: Mapping[str, Any]) -> Parts:
    """The real conversation; the generated response is the loser where there is one."""
    real = _messages("real")(row)
    if "generated" not in row:
        return real
    turns = row["generated"]
    last = turns[-1] if isinstance(turns, list) and turns else {}
    if not (isinstance(last, dict) and str(last.get("content", "")).strip()):
        return real  # the data of the first iteration, before anything was generated
    generated = _messages("generated")(row)
    if generated.prompt != real.prompt:
        raise ValueError("'real' and 'generated' answer different prompts")
    return Parts(real.prompt, real.response, generated.response)


def _preference(row: Mapping[str, Any]) -> Parts:
    """Two responses to one prompt, which is beside them or their common beginning."""
    given = prompt_of(row["prompt"]) if "prompt" in row else ()
    sides = [_after(given, row[name], repr(name)) for name in ("chosen", "rejected")]
    (one, chosen), (other, rejected) = sides
    if one != other:
        raise ValueError(
            "'chosen' and 'rejected' differ before their last turns; needed are two responses to "
            "one prompt"
        )
    return Parts(one, chosen, rejected)


def _after(given: Turns, value: Any, name: str) -> tuple[Turns, str]:
    """Prompt and response of one side, whose list of turns may repeat the prompt."""
    if not isinstance(value, list):
        if not given:
            raise ValueError(
                f"no 'prompt', and {name} is text: it does not say where the response begins"
            )
        return given, text_of(value, name)
    before, response = conversation_of(value, name)
    if before and before[-len(given) :] != given and given:
        raise ValueError(f"{name} begins with other turns than 'prompt'")
    return asked(before or given, name), response


PREFERENCES = Format("prompt/chosen/rejected", ("chosen", "rejected"), _preference, ("prompt",))
FORMATS = (
    PREFERENCES,
    Format("prompt/response", ("prompt", "response"), _pair("response")),
    Format("prompt/completion", ("prompt", "completion"), _pair("completion")),
    Format("real/generated", ("real",), _spin, ("generated",)),
    Format("messages", ("messages",), _messages("messages")),
    Format("conversations", ("conversations",), _messages("conversations")),
    Format("instruction/input/output", ("instruction", "output"), _alpaca, ("input",)),
)
"""A row that fits several is read as the first of them."""
PROMPTS = Format("prompt", ("prompt",), lambda row: Parts(prompt_of(row["prompt"]), ""))
NEAREST = (*FORMATS[1:], PREFERENCES)
"""Of several that a row lacks the same of, the first is what its refusal speaks of."""
