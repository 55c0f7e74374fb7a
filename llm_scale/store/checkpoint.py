"""Checkpoints: whole or absent, checked by their digests, in safetensors and JSON."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from lab.files import digest
from llm_scale import models
from llm_scale.models import sharded
from theory.files import clear, whole

KEPT = 2
STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a run goes on from: plain state and tensors by file name."""

    path: Path
    state: dict[str, Any]

    def tensors(self, name: str) -> dict[str, Tensor]:
        """Tensors of one file that was written with it; empty if there is none."""
        file = f"{name}.safetensors"
        return load_file(self.path / file) if file in self.state["files"] else {}

    def put_back(self, folder: Path, names: Sequence[str]) -> None:
        """Files of this checkpoint into a folder, in the place of what is there."""
        for name in set(names) & set(self.state["files"]):
            with whole(folder / name) as part:
                _link(self.path / name, part)


def save(
    folder: Path,
    number: int,
    language: models.Language,
    files: dict[str, dict[str, Tensor]],
    state: dict[str, Any],
    beside: Sequence[Path] = (),
) -> None:
    """Write checkpoint ``number`` beside the others and keep the last two.

    The weights are a directory that plain transformers loads. The directory takes its name when
    all of it is on the disk; its state has the digests of all files. Files
    ``beside`` it belong to it as they are now: hard links, which cost no space.
    """
    clear(folder, r"\d+")
    with whole(folder / f"{number:012d}") as part:
        part.mkdir()
        models.save(language, part)
        for name, tensors in files.items():
            if tensors:
                plain = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
                save_file(plain, part / f"{name}.safetensors")
        for path in beside:
            _link(path, part / path.name)
        state = state | {
            "files": {_name(p, part): digest(p) for p in sorted(part.rglob("*")) if p.is_file()}
        }
        told = state | {"digest": _text_digest(state)}
        (part / STATE).write_text(json.dumps(told, indent=1), encoding="utf-8")
    for old in _numbered(folder)[:-KEPT]:
        shutil.rmtree(old)


def latest(folder: Path) -> tuple[Checkpoint | None, list[str]]:
    """The newest whole checkpoint, and what was wrong with newer ones."""
    said: list[str] = []
    if not folder.is_dir():
        return None, said
    for path in reversed(_numbered(folder)):
        try:
            state = json.loads((path / STATE).read_text(encoding="utf-8"))
            bad = [n for n, d in state["files"].items() if digest(path / n) != d]
            bad += [STATE] if state.pop("digest") != _text_digest(state) else []
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            said.append(f"checkpoint {path}: torn ({error})")
            continue
        if bad:
            said.append(f"checkpoint {path}: {', '.join(bad)} altered since it was written")
            continue
        return Checkpoint(path, state), said
    return None, said


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """State of the optimiser as flat tensors; of one in shards all processes ask together."""
    state = optimiser.state_dict()["state"]
    flat = {f"{i}.{k}": torch.as_tensor(v) for i, s in state.items() for k, v in s.items()}
    return {name: sharded.whole(tensor) for name, tensor in flat.items()}


def set_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `optimiser_tensors` for an optimiser of the same parameters."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for name, tensor in tensors.items():
        index, key = name.split(".", 1)
        moment = tensor.shape == parameters[int(index)].shape
        value = sharded.like(tensor, parameters[int(index)]) if moment else tensor
        state.setdefault(int(index), {})[key] = value
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": state, "param_groups": groups})


def _name(path: Path, folder: Path) -> str:
    """Of a file, in subfolders too: a tokenizer may keep its named chat templates in one."""
    return path.relative_to(folder).as_posix()


def _numbered(folder: Path) -> list[Path]:
    there = (p for p in folder.iterdir() if p.name.isdigit() and p.is_dir())
    return sorted(there, key=lambda p: int(p.name))


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, to)


def _text_digest(state: dict[str, Any]) -> str:
    return digest(json.dumps(state, sort_keys=True))
