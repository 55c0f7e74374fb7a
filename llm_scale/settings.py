"""The resolved configuration of a run: every option with its default, its unit and its check."""

from __future__ import annotations

import dataclasses
import datetime
from pathlib import Path
from typing import Any, Literal, get_args

from lab.settings import BaseSettings, make, option, read_toml
from lab.specs import named, objective_of, spec_problems
from llm_scale import boards, matching, oracle_spec
from theory.errors import InvalidInput, Unavailable

PRESETS = Path(__file__).parent / "presets"
LINEAR = "all-linear"
EXPERT_RECIPE = "text-expert"
"""Preset of the run that makes the expert of the text game."""
Opponent = Literal["last", "mixture", "base"]
Terms = Literal["both", "expert", "own"]
Level = Literal["sequence", "token"]
Style = Literal["auto", "chat", "plain"]


@dataclasses.dataclass(frozen=True)
class Settings(BaseSettings):
    """What a run does; the same values and seed give the same run on the same machine.

    On the CPU bit by bit; on CUDA up to rounding, as sums of many threads have no fixed order.
    """

    # what is trained, on what
    model: str = option(
        "tiny", "'tiny' (made on the spot), a directory of a causal LM, or ORG/NAME on the Hub"
    )
    width: int = option(64, "of the tiny model's hidden states, a multiple of 2 heads", ge=2)
    layers: int = option(2, "of the tiny model", ge=1)
    heads: int = option(4, "of the tiny model's attention", ge=1)
    vocabulary: int = option(
        512, "of the tiny model, bytes and frequent pairs (with an expert: the expert's)", ge=257
    )
    task: str = option(
        "phrases",
        "'phrases' (known expert), 'verses' (shipped real text), 'text' (the text game: a verse's "
        "first 4 tokens and the rest), or a file of pairs, chats or preferences (JSON lines, JSON, "
        "CSV, Parquet)",
    )
    expert: str = option(
        "none",
        "who gives the expert responses in the place of the task: 'none' (the task's own), a "
        "directory of a causal LM or a finished run (its log-probabilities are then known), or "
        "'made' (task text: trained once from the shipped text, kept in models/)",
    )
    round_data: str = option(
        "fresh",
        "prompts and expert responses of a round: drawn anew ('fresh'), or those of the first "
        "round in every round ('fixed')",
        of=("fresh", "fixed"),
    )
    measured_on: str = option(
        "validation",
        "task text: which held-out prompts are measured (choose on validation, report on test)",
        of=("validation", "test"),
    )
    data: str = option(
        "auto",
        "what a file with chosen and rejected responses is for: pairs (a round's winners and "
        "losers, nothing is sampled for training), responses (imitate the chosen); auto: pairs, "
        "but responses with an expert, an oracle or rewards per token",
        of=("auto", "pairs", "responses"),
    )
    prompts: int = option(
        0,
        "training prompts a round (0: by the task; phrases, verses and text 64, a file all it has)",
        ge=0,
        le=10**7,
    )
    held_out: int = option(64, "prompts kept for measurement, never trained on", ge=0)
    validation: int = option(
        0,
        "prompts kept to choose by, neither trained on nor measured as held out: every round has "
        "validation_nll (task text: with measured_on test alone)",
        ge=0,
    )
    prompt_style: str = option(
        "auto", "auto (chat template if there is one), chat or plain", of=get_args(Style)
    )
    max_prompt_tokens: int = option(256, "prompts longer than this are refused, in tokens", ge=1)
    prompt_date: str = option(
        "",
        "YYYY-MM-DD that a chat template writes as today's (empty: today, which the run keeps)",
        check=lambda date: date_problems(date),
    )
    max_new_tokens: int = option(
        0,
        "horizon H of a response with its EOS, in tokens (0: by the task; phrases 8, verses 96, a "
        "file its longest response, at most 512)",
        ge=0,
    )
    # the game
    objective: str = option(
        "spin",
        "NAME, NAME(parameter=value), FILE.py:NAME (FILE.py, if it has one alone), or sft",
        check=spec_problems,
    )
    beta: float = option(1.0, "weight of the policy player's KL step", gt=0)
    effective_step: float = option(
        0.0, "R'(0)/beta, given in the place of beta, which follows (0: beta is given)", ge=0
    )
    tau: float = option(0.0, "weight of the anchor KL(pi||pi_0)", ge=0)
    level: str = option(
        "sequence", "a reward per response ('sequence') or per token ('token')", of=get_args(Level)
    )
    opponent: str = option(
        "last", "last; mixture (of the last two, arithmetic); base (pi_0)", of=get_args(Opponent)
    )
    history: float = option(
        0.0,
        "share m of a round's own responses that are drawn from pi_{t-1} (round 0: pi_0); "
        "log-ratios still divide by pi_t",
        ge=0,
        le=1,
    )
    own_from: str = option(
        "current",
        "ablation: own responses from pi_t ('current'), or from pi_0 in every round ('base'); "
        "log-ratios still divide by pi_t",
        of=("current", "base"),
    )
    own_temperature: float = option(
        1.0,
        "recipe error: own responses are drawn at this temperature (0: the likeliest tokens); "
        "log-ratios stay those of pi_t",
        ge=0,
    )
    own_cut: str = option(
        "kept",
        "recipe error: own responses that are cut at the horizon stay as they are ('kept'), or "
        "end there ('ended'), as where a template closes every answer",
        of=("kept", "ended"),
    )
    own_prompt: str = option(
        "whole",
        "recipe error: own responses are drawn after the prompt ('whole'), or after it without its "
        "last token ('cut'; a single one stays), as where templates of sampling and training "
        "differ; log-ratios are after the whole one",
        of=("whole", "cut"),
    )
    length_normalised: bool = option(
        False,
        "recipe error: the loss reads rewards divided by their response's number of tokens, as one "
        "trainer's IPO does; rewards that are reported are not divided",
    )
    terms: str = option(
        "both",
        "ablation of a pointwise loss: both terms, or that of expert or of own responses alone "
        "(the other one's rewards are held at 0, where it is a constant)",
        of=get_args(Terms),
    )
    oracle: str = option(
        "none",
        "preferences instead of an expert: bradley-terry(scale=1), cyclic(strength=1), or "
        "FILE.py:FUNCTION of (prompt, response) or (prompt, first, second)",
        check=oracle_spec.problems,
    )
    comparisons: str = option(
        "drawn",
        "who wins two own responses: drawn once, or both by the oracle's exact share",
        of=("drawn", "exact"),
    )
    own_samples: int = option(
        1, "K: own responses to a prompt and round, or tokens to a position", ge=1
    )
    expert_samples: int = option(1, "G: expert responses to a prompt and round", ge=1)
    # the training
    rounds: int = option(3, "self-play rounds", ge=0, le=10**4)
    steps_per_round: int = option(100, "optimiser steps a round", ge=1)
    batch: int = option(32, "prompts a step", ge=1)
    lr: float = option(1e-3, "learning rate of AdamW", gt=0)
    schedule: str = option(
        "constant",
        "learning rate within a round: constant, or linear to 0",
        of=("constant", "linear"),
    )
    weight_decay: float = option(
        0.0, "decoupled weight decay of AdamW, of matrices (not of biases and norms)", ge=0
    )
    label_smoothing: float = option(
        0.0,
        "SFT, and the SFT start, on (1 - eps) NLL + eps times the mean over the vocabulary of "
        "-log pi, per token",
        ge=0,
        lt=1,
    )
    dropout: float = option(
        0.0,
        "rate of every dropout the model has, in training passes; scores and samples have none",
        ge=0,
        lt=1,
    )
    clip: float = option(1.0, "largest norm of the gradient (0: no clipping)", ge=0)
    sft_steps: int = option(0, "steps of SFT before the first round", ge=0)
    reset_optimiser: bool = option(True, "start every round with a fresh optimiser state")
    # what of the weights trains
    lora: int = option(
        0, "rank of a LoRA adapter, which then trains in the place of all weights (0: none)", ge=0
    )
    lora_alpha: float = option(
        0.0, "the adapter's update is alpha / rank B A (0: alpha is twice the rank)", ge=0
    )
    lora_targets: str = option(
        LINEAR,
        f"layers with an update: {LINEAR} (but the output), or names as q_proj,v_proj",
    )
    # what is measured beside
    cosines: int = option(2, "points a round with the gradient's cosine to SFT's (0: none)", ge=0)
    sft_run: str = option("", "folder of a finished run; distances to its final model are measured")
    match: str = option(
        "none",
        "what counts as a right answer to held-out prompts: exact (the reference's text), number "
        "(the last one in it), or FILE.py:FUNCTION of (prompt, response, reference); greedy "
        "responses are compared before and after a round",
        check=matching.problems,
    )
    eval_every: int = option(1, "rounds from one comparison of match to the next", ge=1)
    log: str = option(
        "none",
        "where metrics go beside metrics.jsonl: none, or tensorboard and wandb between commas",
        check=boards.problems,
    )
    keep_best: bool = option(
        False, "keep the model of the round with the least validation_nll in best/"
    )
    # the machine
    seed: int = option(0, "seed of everything that is drawn", ge=0, le=2**63 - 1)
    device: str = option(
        "auto", "auto (CUDA if there is one), cpu or cuda", of=("auto", "cpu", "cuda")
    )
    dtype: str = option(
        "auto",
        "auto (bfloat16 on CUDA, float32 on the CPU), float32, bfloat16",
        of=("auto", "float32", "bfloat16"),
    )
    sharded: bool = option(
        False,
        "several processes: each keeps a share of weights, gradients and moments (FSDP2) and not "
        "all of them (DDP)",
    )
    tokens_per_batch: int = option(8192, "padded tokens of one forward pass in training", ge=1)
    recompute: bool = option(
        False, "compute layers again in the backward pass: less memory, a third more time"
    )
    generate_batch: int = option(64, "responses generated at a time", ge=1)
    checkpoint_every: int = option(50, "optimiser steps between checkpoints", ge=1)

    def drawn_round(self, round_: int) -> int:
        """The round (-1: the SFT start) whose prompts and expert responses a round has."""
        return min(round_, 0) if self.round_data == "fixed" else round_

    @property
    def not_of_current(self) -> list[str]:
        """What makes own responses other than whole samples of pi_t, as name=value; but history."""
        plain, names = Settings(), ("own_from", "own_temperature", "own_cut", "own_prompt")
        given = {name: getattr(self, name) for name in names}
        return [f"{name}={v!r}" for name, v in given.items() if v != getattr(plain, name)]

    @property
    def expert_known(self) -> bool:
        """Whether a known expert answers in the place of the task."""
        return self.expert != "none"

    def __post_init__(self) -> None:
        if isinstance(self.objective, str):  # what is recorded says which of a file's it was
            object.__setattr__(self, "objective", named(self.objective))
        super().__post_init__()

    def filled(self, **values: Any) -> Settings:
        """With these values for what is left to the task (`LEFT`), where it is left to it."""
        open_ = {k: v for k, v in values.items() if getattr(self, k) == LEFT[k]}
        return dataclasses.replace(self, **open_)

    @property
    def left(self) -> list[str]:
        """Names of the settings that are left to the task."""
        return [name for name, value in LEFT.items() if getattr(self, name) == value]


PLAYED = (
    "objective", "beta", "effective_step", "tau", "level", "opponent", "history", "oracle",
    "own_from", "own_temperature", "own_cut", "own_prompt", "length_normalised", "terms",
    "comparisons", "own_samples", "cosines",
)  # fmt: skip
"""Settings that self-play alone reads."""
SIZES = ("width", "layers", "heads", "vocabulary")
"""Settings of the model that is made on the spot."""
LEFT: dict[str, Any] = {"data": "auto", "prompts": 0, "prompt_date": "", "max_new_tokens": 0}
"""Values that leave a setting to the task and its data, which fills them in before work."""


def date_problems(text: str) -> list[str]:
    """Why a text is no date."""
    try:
        if text:
            datetime.date.fromisoformat(text)
    except ValueError:
        return [f"{text!r}; needed is a date as YYYY-MM-DD"]
    return []


def resolve(preset: str, given: dict[str, Any]) -> Settings:
    """Defaults, then the preset, then what was given. InvalidInput: all problems."""
    values: dict[str, Any] = {}
    if preset:
        known = {p.stem: p for p in sorted(PRESETS.glob("*.toml"))}
        if preset not in known:
            raise InvalidInput(f"unknown preset {preset!r}; there are {', '.join(known)}")
        values = read_toml(known[preset])
    if "beta" in given:
        values.pop("effective_step", None)
    for name in _of_another(values | given):
        values.pop(name, None)
    made = make(Settings, values | given)
    if "beta" in given and given.get("effective_step"):
        raise InvalidInput(
            "beta and effective_step: both given; needed is one of them, the weight of the KL step "
            "or R'(0)/beta"
        )
    return at_step(made)


def _of_another(values: dict[str, Any]) -> tuple[str, ...]:
    """Sizes that a preset has of its own model, where model or tokens are others."""
    if values.get("model", "tiny") != "tiny":
        return SIZES
    named = values.get("expert", "none") not in ("none", "made")
    return ("vocabulary",) if named or values.get("task", "phrases") == "phrases" else ()


def at_step(settings: Settings) -> Settings:
    """With the beta of the effective step, if one is set; SFT has neither.

    InvalidInput: the objective has no slope to step by, with the reason.
    """
    objective = objective_of(settings.objective)
    if objective is None or settings.effective_step == 0:
        return settings
    try:
        beta = objective.beta_at(settings.effective_step)
    except Unavailable as error:
        raise InvalidInput(f"effective_step={settings.effective_step:g}: {error}") from error
    return dataclasses.replace(settings, beta=beta)
