"""What a run's numbers depend on: versions, settings and files, and their digests."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from llm_scale.data import tasks
from llm_scale.settings import Settings


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    named = {p: metadata.version(p) for p in ("torch", "transformers", "numpy")}
    return {"python": platform.python_version(), **named}


def files(settings: Settings) -> dict[str, str]:
    """Digests of the files that settings name: a user's pairs, objective and oracle."""
    named = [] if settings.task in tasks.NAMED else [settings.task]
    named += [spec.rpartition(":")[0] for spec in (settings.objective, settings.oracle)]
    there = [name for name in named if name and Path(name).is_file()]
    return {name: hashlib.sha256(Path(name).read_bytes()).hexdigest() for name in there}


def mark(settings: Settings) -> str:
    """Digest of what a checkpoint depends on: settings and versions."""
    text = json.dumps(asdict(settings), sort_keys=True) + json.dumps(versions(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
