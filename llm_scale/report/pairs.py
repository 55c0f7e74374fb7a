"""Which runs were measured on the same held-out prompts and expert responses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from llm_scale.data import tasks
from llm_scale.settings import Settings
from llm_scale.store import expert
from llm_scale.store.read import Run, points, samples

DECIDING = (
    "task", "held_out", "measured_on", "seed", "prompt_style", "prompt_date", "max_new_tokens",
    "expert",
)  # fmt: skip
"""Settings that decide the held-out prompts and their expert responses, but for their tokens."""
OF_TOKENS = ("tokenizer", "chat_template", "special_tokens", "added_tokens", "vocab", "merges")
"""How files begin that a model's tokens and prompts are from."""


def same_held_out(one: Run, other: Run, round_: int) -> bool:
    """Whether the measurements after a round can be paired by prompt.

    Settings and recorded digests must not differ, nor what the two wrote of the round: texts, and
    the expert's log-probabilities. What a run did not record (an older one) is not compared.
    """
    first, second = _settings(one), _settings(other)
    return (
        all(first[name] == second[name] for name in DECIDING)
        and _grouped(first) == _grouped(second)
        and all(_agree(part(one), part(other)) for part in (_data, _expert, _expert_in_one))
        and _agree(_texts(one, round_), _texts(other, round_))
        and _same_log_probs(one, other, round_)
        and _same_tokens(one, other, round_)
    )


def held_out_points(run: Run, round_: int) -> dict[str, np.ndarray]:
    """Log-probabilities of held-out expert responses: the model's before and after a round, and the
    expert's; with the prompts' numbers."""
    table = points(run, round_)
    if not table:
        return {}
    seen = table["side"] == "expert"
    names = {"before": "log_before", "after": "log_after", "expert": "log_expert"}
    return {name: table[column][seen] for name, column in (names | {"prompt": "prompt"}).items()}


def _settings(run: Run) -> dict[str, Any]:
    """A setting that an older run does not know has its default."""
    return dataclasses.asdict(Settings()) | run.settings


def _agree(one: Any, other: Any) -> bool:
    """Whether two are equal, or one of them is not known."""
    return not (one and other) or bool(one == other)


def _grouped(settings: dict[str, Any]) -> bool:
    """Whether rows of a file are held out by their prompt, and not row by row."""
    own = settings["task"] not in tasks.NAMED and settings["expert"] == expert.NONE
    return bool(own and settings["expert_samples"] > 1)


def _data(run: Run) -> str:
    return run.files.get(str(run.settings.get("task")), "")


def _expert(run: Run) -> dict[str, str]:
    """Digests of the expert's own files."""
    name = str(_settings(run)["expert"])
    if name == expert.MADE:
        made = str(expert.KEPT / expert.MADE_NAME)
        return {n: found for n, found in run.files.items() if n.startswith(made)}
    return {n: found for n, found in run.files.items() if Path(n).is_relative_to(name)}


def _expert_in_one(run: Run) -> str:
    """The digest of all files of the expert, which older runs have."""
    return run.files.get(f"expert {_settings(run)['expert']}", "")


def _texts(run: Run, round_: int) -> list[tuple[Any, Any]]:
    return [(row.get("prompt"), row.get("expert")) for row in samples(run, round_)]


def _same_log_probs(one: Run, other: Run, round_: int) -> bool:
    """Whether a known expert gives its responses what it gives the other's, up to rounding."""
    first, second = (held_out_points(run, round_) for run in (one, other))
    if not (first and second):
        return True
    if not np.array_equal(first["prompt"], second["prompt"]):
        return False
    apart = np.abs(first["expert"] - second["expert"])
    return not bool((apart > 0.1 + 0.01 * np.abs(first["expert"])).any())


def _same_tokens(one: Run, other: Run, round_: int) -> bool:
    """Whether learners read the same tokens.

    Those of a task with words of its own and of an expert's learner do. Of two models the rows must
    say so: a model trained from another one has its tokens.
    """
    first, second = _settings(one), _settings(other)
    made = first["model"] == second["model"] == "tiny"
    if first["task"] == "phrases" or first["expert"] not in (expert.NONE, expert.MADE):
        return True
    if made or first["expert"] == expert.MADE:
        return bool(first["vocabulary"] == second["vocabulary"])
    if first["model"] == second["model"]:
        return _agree(_of_tokens(one), _of_tokens(other))
    told = _told(one, round_)
    return bool(told) and told == _told(other, round_)


def _of_tokens(run: Run) -> dict[str, str]:
    """Digests of the files that the model's tokens are from; a base's count as its own."""
    model, apart = (str(_settings(run)[name]) for name in ("model", "sft_run"))
    found = {n: d for n, d in run.files.items() if Path(n).name.startswith(OF_TOKENS)}
    return {
        n: d
        for n, d in found.items()
        if Path(n).is_relative_to(model) or not (apart and Path(n).is_relative_to(apart))
    }


def _told(run: Run, round_: int) -> list[Any]:
    """What a row and the round's texts say of tokens; nothing where either is not there."""
    row = next((row for row in run.rounds if row["round"] == round_), {})
    names = ("prompt_format", "held_out_length_expert", "held_out_truncated_expert")
    told = [*(row.get(n) for n in (*names, f"{names[1]}_se")), _texts(run, round_)]
    return [] if None in told or not told[-1] else told
