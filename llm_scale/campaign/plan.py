"""What can be run: arms, sizes, and the settings of a run. Nothing here trains.

The game is preset text-cpu: 32 tokens of real text, an expert whose probabilities are known, one
response a prompt, the same prompts and responses in every round. Runs of one seed begin with one
model and have the same data, so that their differences are paired. Experiments ``real`` and
``checked`` are of another game: a pretrained model of 135 M weights on verses, and on lists of
words to reverse, whose experts have no probabilities.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from llm_scale.settings import Settings, resolve

PRESET, REAL_PRESET, CHECKED_PRESET = "text-cpu", "verses-cpu", "reversal-cpu"
ARMS: dict[str, dict[str, Any]] = {
    "sft": {"objective": "sft"},
    "spin": {"objective": "spin"},
    "ipo": {"objective": "ipo(margin=1)"},
    "spif": {"objective": "spif(c=1)"},
    "centred_spif": {"objective": "centred_spif(c=1)", "own_samples": 4},
    "space": {"objective": "space"},
    "nwj": {"objective": "nwj"},
    "tspin": {"objective": "tspin"},
    "spin, per token": {"objective": "spin", "level": "token"},
    "spif, per token": {"objective": "spif(c=1)", "level": "token"},
    "author, a=1/2": {"objective": "spif(c=2.02)"},
    "author, a=1": {"objective": "spif(c=1.01)"},
    "author, expert term": {"objective": "spif(c=2.02)", "terms": "expert"},
    "sppo": {"objective": "sppo"},
    "dpo": {"objective": "dpo"},
    "author, own of the start": {"objective": "spif(c=2.02)", "own_from": "base"},
    "ipo, by length": {"objective": "ipo(margin=1)", "length_normalised": True},
    "spif, by length": {"objective": "spif(c=1)", "length_normalised": True},
}
"""Settings of an arm by its name in tables."""
NO_STEP = ("sft", "tspin")
"""Arms without a reward link, and so without an effective step; tspin is run at beta = 1."""
AUTHOR, PUBLISHED_BETA = "author, a=1/2", 0.1
"""The loss of the first author's code and its beta (theory/README.md, section 15), SPIN's too."""

EXPLORED_FROM = 100
"""Seeds from here on are to explore and choose by, on validation prompts; those below are for the
record, on test prompts that nothing was chosen by."""
START_RATE = 3e-3
RATE = 1e-3
RATES = (RATE / 3, RATE, 3 * RATE)
END_STUDY, END_ROUNDS, END_RATE = "destination", 12, RATES[0]
"""Rounds beside SFT of as many epochs, at a rate that all losses bear."""
BEST_STUDY, FRESH_STUDY, FEW_STUDY, DISTANCE_STUDY = "best", "fresh", "few", "distance"
MANY_STUDY, LONGER_STUDY, REALISABLE_STUDY = "many", "longer", "realisable"
BEST_RATE_STUDY, BEST_STEP_STUDY = "best, larger rate", "best, other step"
BEST_LENGTH_STUDY = "best, longer rounds"
REALISABLE_RATE_STUDY = "realisable, larger rate"
FRESH_RATE_STUDY = "fresh, larger rate"
CHOOSING = (
    BEST_STUDY, BEST_RATE_STUDY, BEST_STEP_STUDY, BEST_LENGTH_STUDY, FRESH_STUDY, FEW_STUDY,
    MANY_STUDY, LONGER_STUDY, REALISABLE_STUDY, REALISABLE_RATE_STUDY, FRESH_RATE_STUDY,
)  # fmt: skip
"""Studies whose runs keep the model of their best round, by validation; those that explore are
measured on validation prompts and so keep none."""
TEMPERATURE = "temperature"


def of_study(study: str, what: str) -> str:
    """Name of rows that follow from a study's (``TEMPERATURE``: its best models, sampled at
    temperatures); study "best" goes without saying."""
    return what if study == BEST_STUDY else f"{study} {what}"


@dataclass(frozen=True)
class Size:
    """How large a version of the campaign is.

    Attributes:
        seeds: of the runs. prompts, held_out: of a round, and of what is measured.
        epoch: steps that read every prompt once. start_epochs: of the SFT start, on other prompts,
            at START_RATE: the model that rounds begin with is a well trained one.
        expert_steps: steps of training of an expert of its own; 0 is the text game's own expert.
        expert_width, expert_layers, width: hidden sizes of expert and learner, and layers; 0 is
            the preset's.
        studies: that are run; none named: all.
        preset: the game. start_rate: learning rate of the SFT start. given: other settings.
    """

    seeds: tuple[int, ...]
    prompts: int
    held_out: int
    epoch: int
    start_epochs: int = 6
    expert_steps: int = 0
    expert_width: int = 0
    expert_layers: int = 0
    width: int = 0
    studies: tuple[str, ...] = ()
    preset: str = PRESET
    start_rate: float = START_RATE
    given: tuple[tuple[str, Any], ...] = ()

    def settings(self, seed: int) -> dict[str, Any]:
        """What it sets in every run of a seed, and the part of the text that is measured."""
        more = {"prompts": self.prompts, "held_out": self.held_out, "device": "cpu", "seed": seed}
        more |= {"batch": self.prompts // self.epoch} | dict(self.given)
        if self.preset != PRESET:
            return more
        return more | {"measured_on": "validation" if seed >= EXPLORED_FROM else "test"}


FULL = Size(seeds=(0, 1, 2, 3, 4), prompts=3072, held_out=512, epoch=48)
SHORT = Size(
    (0, 1), prompts=512, held_out=128, epoch=8, expert_steps=100, expert_width=96,
    studies=("rate", "step", "constants"),
)  # fmt: skip
FAR = replace(FULL, start_epochs=1)
"""From a start that has read its data once: one more nat a token to go."""
REALISABLE = replace(FULL, expert_steps=1200, expert_width=96, expert_layers=2)
"""With an expert of the learner's own architecture, trained as long as the game's."""
REAL = Size(
    (0, 1, 2, 3, 4), prompts=64, held_out=32, epoch=8, start_epochs=2, preset=REAL_PRESET,
    start_rate=6e-4,
)  # fmt: skip
CHECKED = Size(
    (0, 1, 2, 3, 4), prompts=96, held_out=48, epoch=12, start_epochs=2, preset=CHECKED_PRESET,
    start_rate=1e-3,
)  # fmt: skip
"""Both at the rate of their preset, explored on seed 100."""


@dataclass(frozen=True)
class Run:
    """One run: where it belongs, and what it sets beside its size.

    ``epochs``: passes over the prompts in a round. ``prompts``: how many; 0 is the size's.
    """

    study: str
    arm: str
    seed: int
    epochs: float = 1.0
    rounds: int = 1
    effective_step: float = 1.0
    beta: float = 0.0
    given: tuple[tuple[str, Any], ...] = ()
    prompts: int = 0

    def settings(self, size: Size, expert: str, model: str, end: str = "") -> Settings:
        """Of its run with an expert and the model that it begins with, by their folders.

        ``end``: that of an SFT run, from whose model distances are measured; "" is none.
        """
        prompts = self.prompts or size.prompts
        steps = max(1, round(self.epochs * size.epoch * prompts / size.prompts))
        values = size.settings(self.seed) | ARMS[self.arm] | dict(self.given)
        values |= {"prompts": prompts}
        values |= {"rounds": self.rounds, "steps_per_round": steps, "sft_steps": 0}
        values |= {"expert": expert, "model": model, "sft_run": end}
        if self.study in CHOOSING and values["measured_on"] == "test":
            values |= {"validation": size.held_out, "keep_best": True}
        if self.beta:
            values["beta"] = self.beta
        elif self.arm not in NO_STEP:
            values["effective_step"] = self.effective_step
        return resolve(size.preset, values)


def start_settings(size: Size, seed: int, expert: str = "") -> Settings:
    """Of the run that makes the model with which all runs of a seed begin.

    ``expert``: its folder; "" is the preset's.
    """
    values = size.settings(seed) | {"objective": "sft", "rounds": 0}
    values |= {"expert": expert} if expert else {}
    values |= {"lr": size.start_rate} | ({"width": size.width} if size.width else {})
    return resolve(size.preset, values | {"sft_steps": size.start_epochs * size.epoch})


def end_settings(size: Size, seed: int, expert: str, model: str) -> Settings:
    """Of the SFT run from whose model study "destination" measures its own distance."""
    run = Run(END_STUDY, "sft", seed, END_ROUNDS, given=(("lr", END_RATE),))
    return run.settings(size, expert, model)


def expert_settings(size: Size) -> Settings | None:
    """Of the run that makes the size's own expert; None: the text game's."""
    if not size.expert_steps:
        return None
    values: dict[str, Any] = {"steps_per_round": size.expert_steps, "device": "cpu"}
    values["held_out"] = size.held_out
    sizes = {"width": size.expert_width, "layers": size.expert_layers}
    values |= {name: value for name, value in sizes.items() if value}
    return resolve("text-expert", values | {"objective": "sft"})
