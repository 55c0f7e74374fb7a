"""A tiny language and its task, made once."""

import dataclasses

import pytest
import torch

from llm_scale import models
from llm_scale import train as training
from llm_scale.data import tasks
from llm_scale.settings import Settings
from tools.get_model import MODELS, SMOLLM2

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def settings():
    small = {"held_out": 16, "rounds": 2, "steps_per_round": 6, "batch": 8}
    return Settings(prompts=32, max_new_tokens=8, device="cpu", **small)


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
def interrupt(monkeypatch):
    """Ctrl-C, once, in the place of the optimiser step of this number (from 1)."""

    def at(number):
        real, done = training.optimise, []

        def optimise(*arguments):
            done.append(None)
            if len(done) == number:
                raise KeyboardInterrupt
            return real(*arguments)

        monkeypatch.setattr(training, "optimise", optimise)

    return at


@pytest.fixture
def change(settings):
    return lambda **given: dataclasses.replace(settings, **given)


def pytest_collection_modifyitems(config, items):
    """The real model takes minutes: its tests run when asked for, and say so when not."""
    if "real_model" in config.option.markexpr:
        return
    there = (MODELS / SMOLLM2.directory).is_dir()
    how = "make test-real" if there else "make model, then make test-real"
    for item in items:
        if item.get_closest_marker("real_model"):
            item.add_marker(pytest.mark.skip(reason=f"the real model, minutes: {how}"))
