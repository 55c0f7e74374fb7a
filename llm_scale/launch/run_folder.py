"""Runs as folders: what one holds, and from settings to a run in it."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from lab.files import folder_problems
from lab.specs import objective_of
from llm_scale import processes
from llm_scale import train as training
from llm_scale.launch import estimate, prepare
from llm_scale.launch.foretold import foretold
from llm_scale.measure.line import line
from llm_scale.settings import Settings
from llm_scale.store import expert, identity
from llm_scale.store.read import RECORD, record_of, settings_of
from theory.errors import InvalidInput, refuse
from theory.files import write_whole

MOST_APART = 3
"""Settings of another run that are named."""


def finished(out: Path, settings: Settings) -> bool:
    """Whether the folder holds the whole run of these settings. InvalidInput: of others."""
    if not (out / RECORD).exists():
        return False
    begun, now = settings_of(out), dataclasses.asdict(_as_begun(out, settings))
    if begun != now:
        raise InvalidInput(
            f"{out}: holds a run with other settings ({_apart(begun, now)}); choose another --out"
        )
    return (out / "final" / "config.json").is_file()


def _apart(begun: dict[str, Any], now: dict[str, Any]) -> str:
    """Settings in which a folder's run and this one differ, the first few with both values."""
    said = [
        f"{name} is {_value(begun, name)} there and {_value(now, name)} here"
        for name in {**now, **begun}
        if name not in begun or name not in now or begun[name] != now[name]
    ]
    more = [f"and {len(said) - MOST_APART} more"] * (len(said) > MOST_APART)
    return ", ".join(said[:MOST_APART] + more)


def _value(settings: dict[str, Any], name: str) -> str:
    """A setting in a sentence; another version's record may not have it."""
    return repr(settings[name]) if name in settings else "unknown"


def problems(out: Path, settings: Settings) -> list[str]:
    """Why a run cannot be made or go on in a folder, as far as can be said without loading it."""
    done, found = _held(out, settings)
    return found if done else found + prepare.problems(settings)


def _held(out: Path, settings: Settings) -> tuple[bool, list[str]]:
    """Whether a folder holds the whole run of these settings, and why it is not for that run."""
    found = folder_problems(out, RECORD)
    if found or not (out / RECORD).exists():
        return False, found
    try:
        if finished(out, settings):
            return True, changed_files(out, settings)
        begun, now = record_of(out)["versions"], identity.versions()
        if begun != now:
            changed = ", ".join(
                f"{k} {begun.get(k)} -> {v}" for k, v in now.items() if begun.get(k) != v
            )
            found.append(f"{out}: holds a run begun with other versions ({changed})")
        return False, found + changed_files(out, settings)
    except InvalidInput as error:
        return False, found + error.problems


def changed_files(out: Path, settings: Settings) -> list[str]:
    """Files that a run was begun with and that are others now."""
    if not (out / RECORD).exists():
        return []
    return [
        f"{out}: holds a run begun with another content of {name}; choose another --out"
        for name in identity.changed(record_of(out)["files"], settings)
    ]


def make_expert(settings: Settings, say: Callable[[str], None]) -> None:
    """Train the expert of the text game, if a run wants that and it is not there yet.

    Raises:
        InvalidInput: the run could not use it, or several processes would make it.
        Diverged: its loss was not finite.
    """
    where = expert.made_run(settings)
    if settings.expert != expert.MADE or (where / "final" / "config.json").is_file():
        return
    recipe = expert.recipe(settings)
    if processes.announced() > 1:
        raise InvalidInput(
            f"expert='made': not there yet; make it in one process first: python -m llm_scale "
            f"make-expert --vocabulary {recipe.vocabulary} --max-new-tokens "
            f"{recipe.max_new_tokens} --out {where}"
        )
    prepare.rehearse(settings)
    say(f"the expert is made first and kept in {where}")
    run(recipe, where, say)


def _as_begun(out: Path, settings: Settings) -> Settings:
    """Settings with what the folder's run, if there is one, found when it began."""
    return identity.filled(settings, record_of(out)) if (out / RECORD).exists() else settings


def run(settings: Settings, out: Path, say: Callable[[str], None]) -> None:
    """Check everything, write the resolved configuration, then train or go on training.

    A run that is finished stays as it is.

    Raises:
        InvalidInput: before any work. Diverged: the loss was not finite.
    """
    refuse(problems(out, settings))
    if finished(out, settings):
        say(f"{out}: finished before")
        return
    left = settings.left
    make_expert(settings, say)
    refuse(changed_files(out, settings))
    parts = prepare.load(_as_begun(out, settings), say)
    settings = parts.settings
    torch.use_deterministic_algorithms(parts.machine.device.type == "cpu")
    lead = processes.rank() == 0
    try:
        refuse(changed_files(out, settings))  # loading may have brought a newer one from the Hub
        with _alone(out) if lead else contextlib.nullcontext():
            done = _begun(out, settings, left) if lead else False
            if any(processes.together([done])):
                if lead:
                    say(f"{out}: finished before")
                return
            for note in parts.task.notes if lead else ():
                say(note)
            size = estimate.line(settings, parts.language, parts.task, parts.machine)
            if lead:  # all look: a task's responses may be drawn by several processes together
                for told in (size, *foretold(settings)):
                    say(told)
            training.train(
                training.assemble(settings, out, parts.language, parts.task),
                lambda row: say(line(row)) if lead else None,
                lambda text: say(text) if lead else None,
            )
    finally:
        processes.stop()


def _begun(out: Path, settings: Settings, left: list[str]) -> bool:
    """Write a run's record where there is none; whether the run is finished.

    The folder is held: what another process left there while this one loaded is seen now.

    Raises:
        InvalidInput: the folder is another run's by now, or cannot be written.
    """
    done, found = _held(out, settings)
    refuse(found)
    if (out / RECORD).exists():
        return done
    record: dict[str, Any] = {"settings": dataclasses.asdict(settings), "left": left}
    record |= {"versions": identity.versions(), "files": identity.files(settings)}
    if (objective := objective_of(settings.objective)) is not None:
        record["labels"] = {"objective": objective.label}
    try:
        write_whole(out / RECORD, json.dumps(record, indent=1) + "\n")
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written ({error.strerror})") from error
    return False


@contextlib.contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold a folder until the process ends, however it ends; one that is not there is made.

    InvalidInput: another process does, or it cannot be made.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        handle = os.open(out, os.O_RDONLY)
    except OSError as error:
        raise InvalidInput(f"{out}: cannot be written ({error.strerror})") from error
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
