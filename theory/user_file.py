"""A user's Python file, run where it stands."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from theory.errors import InvalidInput


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
        for other in set(sys.modules) - loaded:  # another file's helper may have the same name
            at = getattr(sys.modules[other], "__file__", None)
            if at and Path(at).resolve().parent == folder:
                del sys.modules[other]
    return module
