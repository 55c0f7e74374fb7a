"""Tiny runs with a LoRA adapter, and what their weights say."""

import copy

import torch

from llm_scale.models import lora, weights
from llm_scale.models.score import Scorer, score
from tests.llm_scale.commands import call

CPU = torch.device("cpu")
LONG = tuple(1 + i % 7 for i in range(19))
PAIRS = [(LONG, (3, 1, 4, 0)), ((2, 5), (6, 2, 0)), (LONG, (7,))]
SMALL = {
    "device": "cpu", "prompts": 16, "held_out": 4, "rounds": 2, "steps_per_round": 3, "batch": 4,
    "sft_steps": 2, "checkpoint_every": 2, "lora": 2, "lr": 0.01,
}  # fmt: skip


def train(out, code=0, **more):
    flags = [f"--{k.replace('_', '-')}={v}" for k, v in (SMALL | more).items()]
    return call("train", "--out", out, *flags, code=code)


def scores(model):
    return score(Scorer(model), PAIRS, 1000)


@torch.no_grad()
def logits(model):
    return model(torch.tensor([LONG])).logits


def adapted(language, seed=0, **more):
    given = {"rank": 2, "alpha": 0.0, "targets": "all-linear", "base": ""}
    return lora.add(copy.deepcopy(language), **given | more, seed=seed)


def shaken(language):
    """What trains, as if it had been trained."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for p in weights.trained(language.model).values():
            p.add_(0.1 * torch.randn(p.shape, generator=generator))
    return language


def on_files(base):
    return {"model": base, "task": base.parent / "pairs.jsonl"}
