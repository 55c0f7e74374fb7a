"""A tiny model in a folder, and pairs beside it."""

import json

import pytest

from llm_scale import models
from tests.llm_scale.models.adapters import CPU


@pytest.fixture(scope="module")
def words():
    return models.byte_tokenizer(["in the beginning", "let there be light"])


@pytest.fixture
def base(words, tmp_path):
    """A model's directory, and pairs that it can be trained on."""
    language = models.tiny(words, 3, CPU, width=16)
    models.save(language, tmp_path / "base")
    lines = [{"prompt": f"verse {i}", "response": f"light {i % 3}"} for i in range(24)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path / "base"
