"""What a run's numbers depend on: versions, settings and files, and their digests."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from lab import files as lab_files
from lab.files import digest
from llm_scale.data import tasks
from llm_scale.settings import Settings
from llm_scale.store import expert


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return lab_files.versions("torch", "transformers", "numpy")


def files(settings: Settings) -> dict[str, str]:
    """Digests of what settings name: a user's pairs, objective, oracle, match; the expert."""
    named = [] if settings.task in tasks.NAMED else [settings.task]
    named += [
        spec.rpartition(":")[0] for spec in (settings.objective, settings.oracle, settings.match)
    ]
    there = [name for name in named if name and Path(name).is_file()]
    return {name: digest(Path(name)) for name in there} | expert.contents(settings)


def mark(settings: Settings) -> str:
    """Digest of what a checkpoint depends on: settings and versions."""
    text = json.dumps(asdict(settings), sort_keys=True) + json.dumps(versions(), sort_keys=True)
    return digest(text)[:32]
