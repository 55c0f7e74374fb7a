"""Stand-ins for packages that theory imports and a bare machine may lack: scipy, array-api-compat.

What training reads of them is a few functions, which are here in numpy and torch; any other one
raises `Unavailable` when it is called. Where a package is installed nothing is done.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import torch

COMPAT = "array_api_compat"
VENDORED = ("scipy._lib.array_api_compat", "sklearn.externals.array_api_compat")
"""Whole copies of array-api-compat within other packages."""
OF_SCIPY = {
    "scipy": ("sparse",),
    "scipy.special": ("gammaln", "rel_entr", "stdtrit", "xlogy"),
    "scipy.optimize": ("elementwise", "linprog", "minimize", "minimize_scalar"),
}
"""Names that theory and lab import of it."""


class Unavailable(RuntimeError):
    """A function of a package that is not installed was called."""


def stand_in() -> None:
    """Put a stand-in for each package that is missing where imports find it."""
    if importlib.util.find_spec("scipy") is None:
        import transformers  # noqa: F401  (before: it looks at what is installed)

        _scipy()
    if importlib.util.find_spec(COMPAT) is None:
        sys.modules[COMPAT] = _vendored() or compat()


def _scipy() -> None:
    for name, functions in OF_SCIPY.items():
        module = _module(name)
        for function in functions:
            known = {"xlogy": xlogy, "rel_entr": rel_entr}.get(function)
            setattr(module, function, known or missing(f"{name}.{function}"))
        sys.modules[name] = module
        parent, _, last = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], last, module)


def _vendored() -> ModuleType | None:
    for name in VENDORED:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


def _module(name: str) -> ModuleType:
    module = ModuleType(name, "Stands in for a package that is not installed.")
    module.__spec__ = ModuleSpec(name, None)
    return module


def missing(name: str) -> Callable[..., Any]:
    """A function that raises `Unavailable` with its name."""

    def call(*_: Any, **__: Any) -> Any:
        raise Unavailable(f"{name} is not installed here")

    return call


# -- scipy.special -------------------------------------------------------------------------------


def xlogy(x: Any, y: Any) -> np.ndarray:
    """``x log y``, elementwise; 0 where x is 0."""
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where((x == 0) & ~np.isnan(y), 0.0, x * np.log(y))


def rel_entr(x: Any, y: Any) -> np.ndarray:
    """``x log(x / y)``, elementwise; 0 where x is 0 and y is not below, else infinite."""
    x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
    with np.errstate(divide="ignore", invalid="ignore"):
        inside = x * np.log(x / y)
    return np.where((x > 0) & (y > 0), inside, np.where((x == 0) & (y >= 0), 0.0, np.inf))


# -- array-api-compat ----------------------------------------------------------------------------


class TorchSpace(ModuleType):
    """torch under the names of the array API standard."""

    concat = staticmethod(torch.cat)
    expand_dims = staticmethod(lambda x, *, axis: torch.unsqueeze(x, axis))
    permute_dims = staticmethod(torch.permute)
    broadcast_arrays = staticmethod(torch.broadcast_tensors)

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)

    @staticmethod
    def max(x: torch.Tensor, *, axis: Any = (), keepdims: bool = False) -> torch.Tensor:
        """Largest value over axes (none: over all)."""
        return torch.amax(x, axis, keepdims)

    @staticmethod
    def min(x: torch.Tensor, *, axis: Any = (), keepdims: bool = False) -> torch.Tensor:
        """Smallest value over axes (none: over all)."""
        return torch.amin(x, axis, keepdims)

    @staticmethod
    def isdtype(dtype: torch.dtype, kind: str) -> bool:
        """Whether a dtype is of the kind "real floating", "bool" or "integral"."""
        kinds = {"real floating": dtype.is_floating_point, "bool": dtype == torch.bool}
        whole = not (dtype.is_floating_point or dtype.is_complex or dtype == torch.bool)
        return {**kinds, "integral": whole}[kind]


def compat() -> ModuleType:
    """The functions of array-api-compat that theory calls, for numpy and torch."""
    module, space = _module(COMPAT), TorchSpace("torch as an array API")

    def is_array_api_obj(x: Any) -> bool:
        return isinstance(x, np.ndarray | np.generic | torch.Tensor)

    def array_namespace(*arrays: Any) -> ModuleType:
        kinds = {isinstance(a, torch.Tensor) for a in arrays if is_array_api_obj(a)}
        if len(kinds) != 1:
            raise TypeError("numpy and torch mixed, or no array at all")
        return space if kinds.pop() else np

    def device(x: Any) -> Any:
        return x.device if isinstance(x, torch.Tensor) else "cpu"

    for function in (is_array_api_obj, array_namespace, device):
        setattr(module, function.__name__, function)
    return module
