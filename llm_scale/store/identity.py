"""What a run's numbers depend on: versions, settings and files, and their digests."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from lab import files as lab_files
from lab.files import digest
from llm_scale import models
from llm_scale.data import tasks
from llm_scale.models import hub
from llm_scale.settings import Settings
from llm_scale.store import expert
from theory import user_file

TEMPLATES = "chat_templates"
"""Folder of further templates within a model's."""
OF_MODEL = (
    "config.json", "generation_config.json", "adapter_config.json", "tokenizer*.json",
    "special_tokens_map.json", "added_tokens.json", "tekken.json", "vocab*", "merges.txt",
    "*.model", "chat_template*.j*", f"{TEMPLATES}/*.jinja", "*.safetensors",
    "*.safetensors.index.json",
)  # fmt: skip
"""What transformers may read in a model's folder."""


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    return lab_files.versions("torch", "transformers", "numpy")


def code() -> dict[str, str]:
    """Digests of the sources that made a recorded table."""
    root = Path(__file__).resolve().parents[2]
    return {name: lab_files.source_digest(root / name) for name in ("theory", "lab", "llm_scale")}


def files(settings: Settings) -> dict[str, str]:
    """Digests of what settings name: a user's data, objective, oracle, match; and all models.

    Programs of a user's come with what they import from beside them.
    """
    specs = (settings.objective, settings.oracle, settings.match)
    named = [Path(spec.rpartition(":")[0]) for spec in specs if ":" in spec]
    programs = [path for path in named if path.is_file()]
    there = [] if settings.task in tasks.NAMED else [Path(settings.task)]
    there = [path for path in there if path.is_file()] + programs
    there += [path for program in programs for path in user_file.beside(program)]
    found = {str(path): path for path in there}
    for name, folder in folders(settings).items():
        found |= {str(name / path.relative_to(folder)): path for path in model_files(folder)}
    return {name: _digest(path, *_state(path)) for name, path in found.items()}


def folders(settings: Settings) -> dict[Path, Path]:
    """Directories of the models that a run reads: its own, its expert, and an SFT run's.

    By their own name, or by that on the Hub, whose copy here has another directory a revision.
    """
    first = [] if settings.model == "tiny" else [Path(settings.model)]
    first += [] if settings.expert == expert.NONE else [expert.folder(settings)]
    first += [Path(settings.sft_run) / "final"] if settings.sft_run else []
    out: dict[Path, Path] = {}
    for path in first:
        where = hub.cached(str(path)) if hub.is_name(path) else path
        if where is not None:
            out |= {path: where} | {folder: folder for folder in models.chain(where)[1:]}
    return out


def model_files(folder: Path) -> list[Path]:
    """Files of a directory that a model's weights, tokens and prompts come from."""
    return [p for pattern in OF_MODEL for p in sorted(folder.glob(pattern)) if p.is_file()]


def changed(begun: dict[str, str], settings: Settings) -> list[str]:
    """Names of files whose content is not what a record says; gone and new ones of models too.

    What a record knows nothing of is not compared, nor is a directory that is no more there.

    Args:
        begun: digests as a run recorded them.
    """
    now = files(settings)
    known = {_folder(n) for n in begun}
    known &= {name for name, folder in folders(settings).items() if folder.is_dir()}
    other = [n for n, found in now.items() if n in begun and begun[n] != found]
    new = [n for n in now if n not in begun and _folder(n) in known]
    gone = [n for n in begun if n not in now and _folder(n) in known]
    return [*other, *new, *gone, *_expert_of_before(begun, settings)]


def _expert_of_before(begun: dict[str, str], settings: Settings) -> list[str]:
    """The expert, if a record has one digest of all its files and that is another one now."""
    if not any(name.startswith("expert ") for name in begun):
        return []
    name, found = expert.told_before(settings)
    there = (expert.folder(settings) / "config.json").is_file()
    return [name] if there and begun.get(name, found) != found else []


def _folder(name: str) -> Path:
    """The directory of a model's file."""
    above = Path(name).parent
    return above.parent if above.name == TEMPLATES else above


def filled(settings: Settings, record: dict[str, Any]) -> Settings:
    """Settings with what their run found when it began, where they leave it to the task too."""
    begun = record["settings"]
    return settings.filled(**{n: begun[n] for n in record["left"] if n in begun})


def _state(path: Path) -> tuple[int, int]:
    seen = path.stat()
    return seen.st_size, seen.st_mtime_ns


@lru_cache(maxsize=256)
def _digest(path: Path, size: int, changed_at: int) -> str:
    """A file's digest, computed once for runs in a row: weights are large."""
    return digest(path)


def mark(settings: Settings) -> str:
    """Digest of what a checkpoint depends on: settings and versions."""
    text = json.dumps(asdict(settings), sort_keys=True) + json.dumps(versions(), sort_keys=True)
    return digest(text)[:32]
