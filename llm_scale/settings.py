"""The resolved configuration of a run: every option with its default, its unit and its check."""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from lab.settings import BaseSettings, at_least, option, positive
from lab.specs import objective_problems
from llm_scale import oracle_spec

Opponent = Literal["last", "mixture", "base"]
Level = Literal["sequence", "token"]
Style = Literal["auto", "chat", "plain"]
CHOICES: dict[str, tuple[str, ...]] = {
    "opponent": get_args(Opponent),
    "level": get_args(Level),
    "prompt_style": get_args(Style),
    "dtype": ("auto", "float32", "bfloat16"),
    "device": ("auto", "cpu", "cuda"),
    "comparisons": ("drawn", "exact"),
    "schedule": ("constant", "linear"),
}
MOST = {"seed": 2**63 - 1, "prompts": 10**7, "rounds": 10**4}
"""Largest values: torch's seeds, and ids of prompts that no two rounds share."""


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """What a run does; the same values and seed give the same run on the same machine.

    On the CPU bit by bit; on CUDA up to rounding, as sums of many threads have no fixed order.
    """

    # what is trained, on what
    model: str = option("tiny", "'tiny' (made on the spot) or a directory of a causal LM")
    task: str = option(
        "phrases",
        "'phrases' (known expert), 'verses' (shipped real text), or a JSONL file of pairs",
    )
    prompts: int = option(64, "training prompts a round (0: all that the task has)")
    held_out: int = option(64, "prompts kept for measurement, never trained on")
    prompt_style: str = option("auto", "auto (chat template if there is one), chat or plain")
    max_prompt_tokens: int = option(256, "prompts longer than this are refused, in tokens")
    max_new_tokens: int = option(8, "horizon H of a response with its EOS, in tokens")
    # the game
    objective: str = option("spin", "NAME, NAME(parameter=value), FILE.py:NAME, or sft")
    beta: float = option(1.0, "weight of the policy player's KL step, > 0")
    tau: float = option(0.0, "weight of the anchor KL(pi||pi_0), >= 0")
    level: str = option("sequence", "a reward per response ('sequence') or per token ('token')")
    opponent: str = option("last", "last; mixture (of the last two, arithmetic); base (pi_0)")
    oracle: str = option(
        "none",
        "preferences instead of an expert: bradley-terry(scale=1), cyclic(strength=1), or "
        "FILE.py:FUNCTION of (prompt, response) or (prompt, first, second)",
    )
    comparisons: str = option(
        "drawn", "who wins two own responses: drawn once, or both by the oracle's exact share"
    )
    own_samples: int = option(1, "K: own responses to a prompt and round, or tokens to a position")
    expert_samples: int = option(1, "G: expert responses to a prompt and round")
    # the training
    rounds: int = option(3, "self-play rounds")
    steps_per_round: int = option(100, "optimiser steps a round")
    batch: int = option(32, "prompts a step")
    lr: float = option(1e-3, "learning rate of AdamW, > 0")
    schedule: str = option("constant", "learning rate within a round: constant, or linear to 0")
    weight_decay: float = option(0.0, "weight decay of AdamW")
    clip: float = option(1.0, "largest norm of the gradient (0: no clipping)")
    sft_steps: int = option(0, "steps of SFT before the first round")
    reset_optimiser: bool = option(True, "start every round with a fresh optimiser state")
    # what is measured beside
    cosines: int = option(2, "points a round with the gradient's cosine to SFT's (0: none)")
    sft_run: str = option("", "folder of a finished run; distances to its final model are measured")
    # the machine
    seed: int = option(0, "seed of everything that is drawn")
    device: str = option("auto", "auto (CUDA if there is one), cpu or cuda")
    dtype: str = option("auto", "auto (bfloat16 on CUDA, float32 on the CPU), float32, bfloat16")
    tokens_per_batch: int = option(8192, "padded tokens of one forward pass in training")
    generate_batch: int = option(64, "responses generated at a time")
    checkpoint_every: int = option(50, "optimiser steps between checkpoints")

    def problems(self) -> list[str]:
        """What is wrong with values of the right kind."""
        out = at_least(
            self, prompts=0, held_out=0, rounds=0, seed=0, tau=0.0, weight_decay=0.0, clip=0.0
        )
        out += at_least(self, sft_steps=0, cosines=0, max_prompt_tokens=1, max_new_tokens=1)
        out += at_least(
            self,
            own_samples=1,
            expert_samples=1,
            steps_per_round=1,
            batch=1,
            tokens_per_batch=1,
            generate_batch=1,
            checkpoint_every=1,
        )
        out += positive(self, "beta", "lr")
        for name, most in MOST.items():
            if getattr(self, name) > most:
                out.append(f"{name}={getattr(self, name)}; needed is <= {most}")
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                out.append(f"{name}={getattr(self, name)!r}; needed is one of {', '.join(allowed)}")
        out += [
            p.replace("objectives:", "objective:") for p in objective_problems((self.objective,))
        ]
        return out + [f"oracle: {p}" for p in oracle_spec.problems(self.oracle)]
