"""Files that are written whole or not at all, where they may be, digests and versions."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import secrets
import shutil
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path


@contextlib.contextmanager
def whole(path: str | Path) -> Iterator[Path]:
    """A name beside ``path`` to write a file or a folder at, which then takes the place of it.

    It does so when all of it is on the disk and the block ended well; else ``path`` stays as it
    was and nothing is left beside it. Only a killed process leaves its ``NAME.*.tmp``. A link is
    followed; what is no file (a terminal, a pipe, /dev/null) is written to in place.

        with whole(folder / "weights.safetensors") as part:
            save_file(tensors, part)

    Raises:
        OSError: the folder cannot be made or written, or the disk is full.
    """
    final = Path(os.path.realpath(path))
    if final.exists() and not (final.is_file() or final.is_dir()):
        yield final
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    part = final.with_name(f"{final.name}.{secrets.token_hex(4)}.tmp")
    try:
        yield part
        for written in [*part.rglob("*"), part] if part.is_dir() else [part]:
            _sync(written)
        if part.is_dir():
            shutil.rmtree(final, ignore_errors=True)
        os.replace(part, final)
        _sync(final.parent)
    finally:
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def write_whole(path: str | Path, content: str | bytes) -> None:
    """Write text (UTF-8, line ends as they are) or bytes whole or not at all: see `whole`."""
    with whole(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def folder_problems(out: Path, record: str = "") -> list[str]:
    """Why nothing could be written into a folder, which may not exist yet.

    With the name of a ``record`` the folder must be empty or hold that file: what is not a run of
    ours stays as it is. Parts of files that a killed process left do not count.
    """
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        return [f"{out}: {there} is a file; needed is a folder, or a path for a new one"]
    if not os.access(there, os.W_OK | os.X_OK):
        return [f"{out}: no permission to write in {there}"]
    if record and out.is_dir() and not (out / record).exists():
        held = sorted(p.name for p in out.iterdir() if p.suffix != ".tmp")
        if held:
            return [f"{out}: not a run's folder, and not empty ({held[0]}); choose another --out"]
    return []


def file_problems(out: Path) -> list[str]:
    """Why a new file could not be written."""
    if out.is_dir():
        return [f"{out}: a folder; needed is a file"]
    if out.exists():
        return [f"{out}: there already; choose another --out, or delete it"]
    return folder_problems(out.parent)


def digest(content: Path | str | bytes) -> str:
    """SHA-256 of a file (given as a Path), of a text or of bytes: 64 hexadecimal digits."""
    if isinstance(content, Path):
        with content.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()


def source_digest(folder: Path) -> str:
    """16 digits of all Python sources in a folder, whatever their line ends and its place."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes().replace(b"\r\n", b"\n"))
    return found.hexdigest()[:16]


def versions(*packages: str) -> dict[str, str]:
    """Of Python and of those of the packages that are installed."""
    known = {package: _version(package) for package in packages}
    return {"python": platform.python_version()} | {k: v for k, v in known.items() if v}


@functools.cache
def _version(package: str) -> str | None:
    """Read once a process: every checkpoint asks for it."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:
        if not path.is_dir():  # of folders some file systems cannot be asked
            raise
    finally:
        os.close(handle)
