"""A model by its name comes from the local cache as from a directory; no connection is one line."""

import shutil

import pytest
import torch
from huggingface_hub import constants

from llm_scale import models
from llm_scale.models import hub
from theory.errors import InvalidInput

CPU = torch.device("cpu")
REVISION = "0" * 40


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved")
    models.save(models.tiny(models.byte_tokenizer(["a light"], 262), 0, CPU, 16, 1, 2), path)
    return path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """The cache of a machine without a connection."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def test_a_name_is_taken_from_the_cache(saved, cache):
    folder = cache / "models--some--model"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(REVISION)
    shutil.copytree(saved, folder / "snapshots" / REVISION)
    models.there("some/model")
    by_name, plain = (models.load(where, torch.float32, CPU) for where in ("some/model", saved))
    weights = [list(language.model.parameters()) for language in (by_name, plain)]
    assert all(map(torch.equal, *weights))


def test_without_cache_and_connection_one_line_says_what_to_do(cache):
    with pytest.raises(InvalidInput, match=r"some/model.*not to be had .*`hf download some/model`"):
        models.load("some/model", torch.float32, CPU)


def test_what_is_a_name(cache, tmp_path):
    assert hub.is_name("some/model-1.5")
    (tmp_path / "some").mkdir()
    for where in ("some/model", "tiny", "/some/model", "a/b/c", "../model", "org/.hidden"):
        assert not hub.is_name(where), where
    with pytest.raises(InvalidInput, match=r"no config\.json there"):
        models.there("some/model")
