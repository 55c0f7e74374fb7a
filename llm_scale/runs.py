"""Runs as folders: from settings to a run, and back from a folder to its settings or its model."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llm_scale.settings import Settings
from theory.errors import InvalidInput
from theory.settings import make, write_whole

PRESETS = Path(__file__).parent / "presets"
RECORD = "settings.json"


def resolve(preset: str, given: dict[str, Any]) -> Settings:
    """Defaults, then the preset, then what was given. InvalidInput: all problems."""
    values: dict[str, Any] = {}
    if preset:
        path = PRESETS / f"{preset}.toml"
        known = sorted(p.stem for p in PRESETS.glob("*.toml"))
        if path.stem not in known:
            raise InvalidInput(f"unknown preset {preset!r}; there are {', '.join(known)}")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    return make(Settings, values | given)


def recorded(path: Path) -> dict[str, Any]:
    """Settings in the record of a run (the file or its folder). InvalidInput: not one."""
    path = path / RECORD if path.is_dir() else path
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return dict(settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path}: not the record of a run ({error})") from error


def finished(out: Path, settings: Settings) -> bool:
    """Whether the folder holds the whole run of these settings. InvalidInput: of others."""
    if not (out / RECORD).exists():
        return False
    if recorded(out) != dataclasses.asdict(settings):
        raise InvalidInput(f"{out}: holds a run with other settings; choose another --out")
    return (out / "final" / "config.json").is_file()


def run(settings: Settings, out: Path, say: Callable[[str], None]) -> None:
    """Check everything, write the resolved configuration, then train or go on training.

    Raises:
        InvalidInput: before any work. Diverged: the loss was not finite.
    """
    import torch

    from llm_scale import setup, world
    from llm_scale.record import versions
    from llm_scale.training import Trainer

    finished(out, settings)
    parts = setup.prepare(settings)
    record = {"settings": dataclasses.asdict(settings), "versions": versions()}
    if world.rank() == 0:
        write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")
    torch.use_deterministic_algorithms(parts.machine.device.type == "cpu")
    trainer = Trainer(settings, out, parts.language, parts.task)
    try:
        trainer.run(lambda text: say(text) if world.rank() == 0 else None)
    finally:
        world.stop()


def model_of(path: Path) -> tuple[Path, dict[str, Any]]:
    """Model directory of a run's folder, or of a model's own; and the run's settings if any.

    Of a run that is not finished the newest whole checkpoint is taken.

    Raises:
        InvalidInput: neither a run nor a model, or a run without a checkpoint.
    """
    if (path / RECORD).is_file():
        settings = recorded(path)
        if (path / "final" / "config.json").is_file():
            return path / "final", settings
        from llm_scale import checkpoint

        found, _ = checkpoint.latest(path / "checkpoints")
        if found is None:
            raise InvalidInput(f"{path}: a run without a whole checkpoint yet; train it first")
        return found.path, settings
    if (path / "config.json").is_file():
        return path, {}
    raise InvalidInput(
        f"{path}: neither the folder of a run ({RECORD}) nor a directory of a model (config.json)"
    )
