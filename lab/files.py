"""Where files may be written, digests of files, and versions of packages."""

from __future__ import annotations

import functools
import hashlib
import os
import platform
from importlib import metadata
from pathlib import Path


def folder_problems(out: Path, record: str = "") -> list[str]:
    """Why nothing could be written into a folder, which may not exist yet.

    With the name of a ``record`` the folder must be empty or hold that file: what is not a run of
    ours stays as it is. Parts of files that a killed process left do not count.
    """
    there = next(p for p in (out, *out.absolute().parents) if p.exists())
    if not there.is_dir():
        what = "a file" if there == out else f"{there} is a file"
        return [f"{out}: {what}; needed is a folder, or a path for a new one"]
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
