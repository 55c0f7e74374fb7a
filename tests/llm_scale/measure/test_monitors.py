"""What is wrong at a round's start is said with what helps, and only that."""

import math
import re

import pytest
import torch

from llm_scale.measure.monitors import ROUNDED, warnings
from llm_scale.models.player import Player
from llm_scale.settings import Settings
from tests.llm_scale.commands import train

GOOD = {
    "sampler_gap": 4e-4, "stored_gap": 3e-5, "truncated_own": 0.99, "truncated_expert": 0.5,
}  # fmt: skip
SETTINGS = Settings(max_new_tokens=16)
SMALL = {
    "prompts": 8, "held_out": 4, "rounds": 1, "steps_per_round": 1, "batch": 2, "cosines": 0,
    "device": "cpu",
}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"sampler_gap": 0.01}, "sampler_gap is 0.01 nats, rounding stays below 0.004: own"),
        ({"sampler_gap": math.nan}, "sampler_gap is nan nats"),
        ({"stored_gap": 2.0}, "stored_gap is 2 nats, .* depends on what is beside it"),
        (
            {"truncated_own": 1.0},
            "all own .* max_new_tokens=16: .*; raise max_new_tokens, or begin",
        ),
        ({"truncated_expert": 1.0}, "all expert .*no end is trained.*; raise max_new_tokens"),
    ],
)
def test_each_fault_has_one_line(changed, told):
    assert warnings(GOOD, SETTINGS, torch.float32) == []
    (line,) = warnings(GOOD | changed, SETTINGS, torch.float32)
    assert line.startswith("WARNING: ")

    assert re.search(told, line)


def test_bfloat16_rounds_more_and_own_responses_may_be_missing():
    rough = GOOD | {"sampler_gap": 0.3, "stored_gap": 0.3}
    assert warnings(rough, SETTINGS, torch.bfloat16) == []
    assert len(warnings(rough, SETTINGS, torch.float32)) == 2
    assert warnings({"truncated_expert": 0.0}, SETTINGS, torch.float32) == []
    assert ROUNDED[torch.float32] < ROUNDED[torch.bfloat16]


def test_a_run_says_it_once_a_round(tmp_path, monkeypatch):
    real = Player.sample

    def off(self, prompts, noise, what, *more, **how):
        drawn, seen = real(self, prompts, noise, what, *more, **how)
        return drawn, [value + 1.0 for value in seen]

    monkeypatch.setattr(Player, "sample", off)
    text = train(tmp_path / "run", **SMALL, max_new_tokens=1).output
    lines = [line for line in text.splitlines() if "WARNING" in line]
    assert [line.split()[3] for line in lines] == ["sampler_gap", "all", "all"]
    assert all(line.startswith("round 0: WARNING: ") for line in lines)
