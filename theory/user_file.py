"""A user's Python file, run where it stands."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import all_suffixes
from pathlib import Path
from types import ModuleType

from theory.errors import InvalidInput

_OURS = Path(__file__).resolve().parents[1]
"""Where the project's packages are: where a user's file stands there too, they are not its own."""


def module_name(path: Path) -> str:
    """Name of the module that a file becomes: the same for the same place."""
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    return f"_user_file_{path.stem}_{digest}"


def run(path: Path) -> ModuleType:
    """Run a file. Modules beside it can be imported while it is read; they belong to it alone.

    Raises:
        InvalidInput: not a Python file, or an error inside it.
    """
    name, folder = module_name(path), path.resolve().parent
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InvalidInput(f"{path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    loaded = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        spec.loader.exec_module(module)
    except InvalidInput as error:
        raise InvalidInput([f"{path}: {p}" for p in error.problems]) from error
    except (Exception, SystemExit) as error:
        raise InvalidInput(f"{path}: {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(str(folder))
        own = {p.resolve() for p in beside(path)}
        for other in set(sys.modules) - loaded:  # another file's helper may have the same name
            at = getattr(sys.modules[other], "__file__", None)
            if at and (Path(at).resolve().parent == folder or Path(at).resolve() in own):
                del sys.modules[other]
    return module


def beside(path: Path) -> list[Path]:
    """Files that a Python file imports from its own folder and below, and what they import there.

    Found by import statements, wherever these stand; what is loaded by other means is not.
    """
    folder = path.resolve().parent if path.is_symlink() else path.parent
    found: dict[Path, None] = {}
    left = [folder / path.resolve().name]
    while left:
        for other in _imported(left.pop(), folder):
            if other not in found and other.resolve() != path.resolve():
                found[other] = None
                left.append(other)
    return sorted(found)


def _imported(file: Path, folder: Path) -> Iterator[Path]:
    """Files below a folder that a file's import statements name."""
    try:
        tree = ast.parse(file.read_bytes() if file.suffix == ".py" else b"")
    except (OSError, SyntaxError, ValueError):  # running it says so
        return
    above = [file.parent, *file.parent.parents]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(folder, alias.name.split("."))
        elif isinstance(node, ast.ImportFrom):
            at = above[min(node.level, len(above)) - 1] if node.level else folder
            start = node.module.split(".") if node.module else []
            if at == folder or folder in at.parents:
                for alias in node.names:
                    yield from _named(at, [*start, alias.name])


def _named(at: Path, parts: list[str]) -> Iterator[Path]:
    """Files of the modules along a dotted name."""
    if at.resolve() == _OURS and (at / parts[0] / "__init__.py").is_file():
        return
    for part in parts:
        named = [at / f"{part}{suffix}" for suffix in all_suffixes()]
        yield from (p for p in (*named, at / part / "__init__.py") if p.is_file())
        at = at / part
