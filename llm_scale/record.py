"""What a run's numbers depend on: versions and settings, and the digest of both."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict
from importlib import metadata

from llm_scale.settings import Settings


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    named = {p: metadata.version(p) for p in ("torch", "transformers", "numpy")}
    return {"python": platform.python_version(), **named}


def mark(settings: Settings) -> str:
    """Digest of what a checkpoint depends on: settings and versions."""
    text = json.dumps(asdict(settings), sort_keys=True) + json.dumps(versions(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]
