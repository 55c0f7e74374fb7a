"""array-api-compat where it is not installed: the whole copy of it that scipy or sklearn has."""

from __future__ import annotations

import importlib
import importlib.util
import sys

COMPAT = "array_api_compat"
COPIES = ("scipy._lib.array_api_compat", "sklearn.externals.array_api_compat")


def find_compat() -> None:
    """Put a copy where imports find it. ImportError: there is none, and what to bring."""
    if importlib.util.find_spec(COMPAT) is not None:
        return
    for name in COPIES:
        try:
            sys.modules[COMPAT] = importlib.import_module(name)
            return
        except ImportError:
            continue
    raise ImportError(
        "array-api-compat is not installed, and no scipy or sklearn here has a copy: bring its "
        "wheel (pure Python) and put it on PYTHONPATH"
    )
