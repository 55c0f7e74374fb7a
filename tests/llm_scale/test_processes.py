"""What a launcher says in the environment, and what it left out."""

import pytest
import torch

from llm_scale import processes
from theory.errors import InvalidInput


def test_what_is_empty_is_not_set(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "")
    monkeypatch.setenv("LOCAL_RANK", "")
    assert (processes.announced(), processes.local()) == (1, 0)
    processes.start(torch.device("cpu"))
    assert processes.size() == 1


@pytest.mark.parametrize("text", ["x", "-1", "1.5", "1 2"])
def test_what_is_no_number_is_named(monkeypatch, text):
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(InvalidInput, match=r"WORLD_SIZE=.* in the environment; needed is a whole"):
        processes.announced()


def test_processes_that_cannot_meet_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in processes.MEETING:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInput, match="no RANK, MASTER_ADDR, MASTER_PORT: start the process"):
        processes.start(torch.device("cpu"))
