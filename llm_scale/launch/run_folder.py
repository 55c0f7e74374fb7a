"""Runs as folders: from settings to a run, and back from a folder to its settings or its model."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lab.files import write_whole
from lab.settings import make
from llm_scale.settings import Settings
from theory.errors import InvalidInput, refuse

PRESETS = Path(__file__).parents[1] / "presets"
RECORD = "settings.json"


def resolve(preset: str, given: dict[str, Any]) -> Settings:
    """Defaults, then the preset, then what was given. InvalidInput: all problems."""
    values: dict[str, Any] = {}
    if preset:
        known = {p.stem: p for p in sorted(PRESETS.glob("*.toml"))}
        if preset not in known:
            raise InvalidInput(f"unknown preset {preset!r}; there are {', '.join(known)}")
        values = tomllib.loads(known[preset].read_text(encoding="utf-8"))
    return make(Settings, values | given)


def recorded(path: Path) -> dict[str, Any]:
    """Settings in the record of a run (the file or its folder). InvalidInput: not one."""
    return _read(path)["settings"]


def _read(path: Path) -> dict[str, dict[str, Any]]:
    path = path / RECORD if path.is_dir() else path
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        settings = dict(record["settings"])
        rest = {name: dict(record.get(name, {})) for name in ("versions", "files")}
        return {"settings": settings} | rest
    except KeyError as error:
        raise InvalidInput(f"{path}: not the record of a run (no {error})") from error
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(f"{path}: not the record of a run ({error})") from error


def finished(out: Path, settings: Settings) -> bool:
    """Whether the folder holds the whole run of these settings. InvalidInput: of others."""
    if not (out / RECORD).exists():
        return False
    if recorded(out) != dataclasses.asdict(settings):
        raise InvalidInput(f"{out}: holds a run with other settings; choose another --out")
    return (out / "final" / "config.json").is_file()


def problems(out: Path, settings: Settings) -> list[str]:
    """Why a run cannot be made or go on in a folder, as far as can be said without loading it."""
    from llm_scale.launch import prepare
    from llm_scale.store.identity import files, versions

    found = folder_problems(out)
    if not found and (out / RECORD).exists():
        try:
            if finished(out, settings):
                return []
            record = _read(out)
            begun, now = record["versions"], versions()
            if begun != now:
                changed = ", ".join(
                    f"{k} {begun.get(k)} -> {v}" for k, v in now.items() if begun.get(k) != v
                )
                found.append(f"{out}: holds a run begun with other versions ({changed})")
            found += [
                f"{out}: holds a run begun with another content of {name}; choose another --out"
                for name, digest in files(settings).items()
                if record["files"].get(name, digest) != digest
            ]
        except InvalidInput as error:
            found += error.problems
    elif not found and out.is_dir() and (there := _contents(out)):
        found.append(f"{out}: not a run's folder, and not empty ({there[0]}); choose another --out")
    return found + prepare.problems(settings)


def folder_problems(out: Path) -> list[str]:
    """Why nothing could be written into a folder (that may not exist yet)."""
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        return [f"{out}: {there} is a file; needed is a folder, or a path for a new one"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"{out}: no permission to write in {there}"]
    return []


def file_problems(out: Path) -> list[str]:
    """Why a new file could not be written."""
    if out.is_dir():
        return [f"{out}: a folder; needed is a file"]
    if out.exists():
        return [f"{out}: there already; choose another --out, or delete it"]
    return folder_problems(out.parent)


def _contents(out: Path) -> list[str]:
    """Names in a folder; parts of files that a killed process left do not count."""
    return sorted(p.name for p in out.iterdir() if p.suffix != ".tmp")


def run(settings: Settings, out: Path, say: Callable[[str], None]) -> None:
    """Check everything, write the resolved configuration, then train or go on training.

    A run that is finished stays as it is.

    Raises:
        InvalidInput: before any work. Diverged: the loss was not finite.
    """
    import torch

    from llm_scale import processes
    from llm_scale.launch import prepare
    from llm_scale.store.identity import files, versions
    from llm_scale.train import Trainer

    refuse(problems(out, settings))
    if finished(out, settings):
        say(f"{out}: finished before")
        return
    parts = prepare.prepare(settings)
    record = {"settings": dataclasses.asdict(settings), "versions": versions()}
    record["files"] = files(settings)
    if processes.rank() == 0 and not (out / RECORD).exists():
        try:
            write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")
        except OSError as error:
            raise InvalidInput(f"{out}: cannot be written ({error.strerror})") from error
    torch.use_deterministic_algorithms(parts.machine.device.type == "cpu")
    trainer = Trainer(settings, out, parts.language, parts.task)
    try:
        with _alone(out) if processes.rank() == 0 else contextlib.nullcontext():
            trainer.run(lambda text: say(text) if processes.rank() == 0 else None)
    finally:
        processes.stop()


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a folder until the process ends, however it ends. InvalidInput: another one does."""
    handle = os.open(out, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise InvalidInput(f"{out}: another process is training there; nothing was done") from None
    except OSError:  # a file system without locks
        pass
    try:
        yield
    finally:
        os.close(handle)


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
        from llm_scale.store import checkpoint

        found, _ = checkpoint.latest(path / "checkpoints")
        if found is None:
            raise InvalidInput(f"{path}: a run without a whole checkpoint yet; train it first")
        return found.path, settings
    if (path / "config.json").is_file():
        return path, {}
    raise InvalidInput(
        f"{path}: neither the folder of a run ({RECORD}) nor a directory of a model (config.json)"
    )
