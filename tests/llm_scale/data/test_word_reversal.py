"""The shipped lists of words: what they say is right, and they are a task as they stand."""

from __future__ import annotations

import hashlib
from pathlib import Path

from llm_scale.settings import resolve
from theory.tokens.text import SHIPPED, load_pairs

FILE = SHIPPED.with_name("word_reversal.jsonl.gz")
ASKED = "Reverse this list of words: "


def test_every_response_is_the_list_of_its_prompt_from_its_end() -> None:
    pairs = load_pairs(FILE)
    assert len({pair.prompt for pair in pairs}) == len(pairs) == 2048
    for pair in pairs:
        assert pair.prompt.startswith(ASKED)
        words = pair.prompt.removeprefix(ASKED).split(", ")
        assert 3 <= len(words) <= 8
        assert pair.response == ", ".join(reversed(words))


def test_it_is_the_file_that_is_described_and_that_the_preset_reads() -> None:
    described = (FILE.parent / "README.md").read_text(encoding="utf-8")
    assert hashlib.sha256(FILE.read_bytes()).hexdigest() in described
    assert FILE.parents[1] / Path(resolve("reversal-cpu", {}).task) == FILE
