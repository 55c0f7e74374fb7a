"""Where the expert of a run is, and which one: its directory, its recipe, its digest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from lab.files import digest
from llm_scale.settings import EXPERT_RECIPE, PLAYED, Settings, resolve
from llm_scale.store.read import RECORD
from theory.tokens.text import SHIPPED

NONE, MADE = "none", "made"
KEPT, MADE_NAME = Path("models"), "text-expert-"
"""Where one that is made is kept, and how its folder's name begins."""
_ELSEWHERE = ("device", "dtype", "checkpoint_every", "generate_batch", "tokens_per_batch")
"""Settings of a recipe that say how it is computed and not what."""
_TOLD_BEFORE = ("config.json", "*.safetensors", "tokenizer.json", "tokenizer_config.json")


def recipe(settings: Settings) -> Settings:
    """Settings of the run that makes the expert of a run's text game.

    It speaks the run's vocabulary and is trained on responses as long as the run's, 32 tokens or
    more; all else is the preset's.
    """
    preset = resolve(EXPERT_RECIPE, {})
    longest = max(preset.max_new_tokens, settings.max_new_tokens)
    return dataclasses.replace(
        preset, objective="sft", vocabulary=settings.vocabulary, max_new_tokens=longest,
        device=settings.device,
    )  # fmt: skip


def made_run(settings: Settings) -> Path:
    """Folder of that run. Its name has a digest of recipe and text: another one is made anew."""
    read = dataclasses.asdict(recipe(settings))
    asked = {k: v for k, v in read.items() if k not in (*_ELSEWHERE, *PLAYED)}
    told = json.dumps(asked, sort_keys=True) + digest(SHIPPED)
    return KEPT / f"{MADE_NAME}{digest(told)[:16]}"


def folder(settings: Settings) -> Path:
    """Directory of the expert's model: as named, or the final one of a run that is named."""
    where = made_run(settings) if settings.expert == MADE else Path(settings.expert)
    return where / "final" if (where / RECORD).is_file() else where


def told_before(settings: Settings) -> tuple[str, str]:
    """Name and digest of the expert in records that do not have its files one by one."""
    where = folder(settings)
    files = sorted({path for pattern in _TOLD_BEFORE for path in where.glob(pattern)})
    told = "".join(f"{path.name} {digest(path)}\n" for path in files)
    return f"expert {settings.expert}", digest(told)
