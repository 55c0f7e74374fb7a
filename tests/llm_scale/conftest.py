"""A tiny language and its task, made once."""

import dataclasses

import pytest
import torch

from llm_scale import models, tasks
from llm_scale.settings import Settings

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings():
    return Settings(prompts=32, held_out=16, rounds=2, steps_per_round=6, batch=8, device="cpu")


@pytest.fixture(scope="session")
def task(settings):
    return tasks.phrases(settings)


@pytest.fixture
def language(task):
    return models.tiny(task.tokenizer, 0, torch.device("cpu"))


@pytest.fixture(scope="session")
def prompts(task):
    items = task.items(0)
    long = [(*item.prompt, *item.expert[0].tokens[:-1]) for item in items[:8]]
    return [item.prompt for item in items] + [p for p in long if p]


@pytest.fixture
def change(settings):
    return lambda **given: dataclasses.replace(settings, **given)
